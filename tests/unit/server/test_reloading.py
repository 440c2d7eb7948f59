"""Files that change while somebody looks at them: what settles is taken, what is wrong changes nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from inventory_server.rpc.tokens import Tokens
from inventory_server.settings import SettingsError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("old write\n")
    return path


def allowed(tokens: Tokens) -> set[str]:
    known = set()
    for token in ("old", "new"):
        try:
            tokens.check("GetStock", [("authorization", f"Bearer {token}")])
            known.add(token)
        except Exception:  # noqa: BLE001, S112 — refused
            continue
    return known


def look(tokens: Tokens, times: int) -> set[str]:
    for _ in range(times):
        tokens.look()
    return allowed(tokens)


def test_what_two_looks_have_found_is_taken(file: Path) -> None:
    tokens = Tokens(file)
    file.write_text("new read # rotated\n")
    assert look(tokens, 1) == {"old"}
    assert look(tokens, 1) == {"new"}


def test_a_file_that_is_half_written_goes_by_unnoticed(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokens = Tokens(file)
    for half in ("", "old write\nne", "old write\nnew"):
        file.write_text(half)
        assert look(tokens, 1) == {"old"}
    file.write_text("old write\nnew read\n")
    assert look(tokens, 2) == {"old", "new"}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_file_that_is_gone_for_a_moment_goes_by_unnoticed(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokens = Tokens(file)
    file.rename(file.with_name("away"))
    assert look(tokens, 1) == {"old"}
    file.with_name("away").rename(file)
    assert look(tokens, 3) == {"old"}
    assert caplog.records == []


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (b"new read\nold admin\n", "INVENTORY_TOKENS_FILE: line 2 must be a token and `read` or `write`."),
        (
            b"new read\n\nold write\nnew write\n",
            "INVENTORY_TOKENS_FILE: line 4 gives other rights to a token that an earlier line has.",
        ),
        (b"# nobody\n", "INVENTORY_TOKENS_FILE names no token."),
        (b"", "INVENTORY_TOKENS_FILE names no token."),
        (None, "INVENTORY_TOKENS_FILE cannot be read: [Errno 2] No such file or directory: "),
    ],
)
def test_a_broken_file_keeps_what_is_in_force_and_is_told_once(
    file: Path, caplog: pytest.LogCaptureFixture, broken: bytes | None, sentence: str
) -> None:
    tokens = Tokens(file)
    if broken is None:
        file.unlink()
    else:
        file.write_bytes(broken)
    assert look(tokens, 10) == {"old"}
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(sentence)
    file.write_text("new read\n")
    assert look(tokens, 2) == {"new"}


def test_what_is_wrong_at_first_is_raised(file: Path) -> None:
    file.write_text("old\n")
    with pytest.raises(SettingsError, match="line 1 must be a token"):
        Tokens(file)
    file.unlink()
    with pytest.raises(SettingsError, match=r"^INVENTORY_TOKENS_FILE cannot be read: .*No such file"):
        Tokens(file)


def test_no_mistake_of_ours_ends_the_looking(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(file)
    monkeypatch.setattr(tokens, "take", lambda _: 1 / 0)
    file.write_text("new read\n")
    assert look(tokens, 10) == {"old"}
    assert [record.levelname for record in caplog.records] == ["ERROR"]

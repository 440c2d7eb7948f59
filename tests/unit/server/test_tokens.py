"""Tokens as files list them and callers send them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inventory_server.errors import PermissionDenied, Unauthenticated
from inventory_server.rpc.tokens import Tokens

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    path = tmp_path / "tokens"
    path.write_bytes(b"\xef\xbb\xbffirst write\r\n  second read # twice\r\nsecond read")
    return Tokens(path)


@pytest.mark.parametrize("value", ["Bearer first", "bearer first", "BEARER first", "Bearer   first", "Bearer second"])
def test_a_token_is_known_however_its_scheme_is_spelt(tokens: Tokens, value: str) -> None:
    tokens.check("GetStock", [("user-agent", "test"), ("authorization", value)])


@pytest.mark.parametrize(
    "value",
    [
        "",
        "first",
        "Bearer",
        "Bearer ",
        "Bearerfirst",
        "Basic first",
        " Bearer first",
        "Bearer First",
        "Bearer \ufefffirst",
    ],
)
def test_anything_else_is_not(tokens: Tokens, value: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens.check("GetStock", [("authorization", value)])


def test_only_those_who_may_write_do(tokens: Tokens) -> None:
    tokens.check("AddStock", [("authorization", "Bearer first")])
    with pytest.raises(PermissionDenied):
        tokens.check("AddStock", [("authorization", "Bearer second")])

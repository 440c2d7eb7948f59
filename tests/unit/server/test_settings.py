"""What the environment says, read once: durations, numbers, addresses, and one sentence for each mistake."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from inventory_server.settings import PREFIX, Settings, SettingsError, describe


def read(**texts: str) -> Settings:
    return Settings.from_environment({PREFIX + name.upper(): text for name, text in texts.items()})


def test_without_an_environment_every_setting_has_its_default() -> None:
    assert read() == Settings()
    assert Settings.from_environment({"PATH": "/bin", "INVENTORY_NOBODY_KNOWS": "7", "inventory_lanes": "9"}) == read()
    assert (read().max_hold, read().database_url, read().retention) == (86400.0, None, None)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert read(reservation_ttl="", database_url="  ", tls_cert="") == Settings()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("1.5s", 1.5), (" 1m0s500ms ", 60.5)],
)
def test_durations_are_written_as_people_write_them(text: str, seconds: float) -> None:
    assert read(shutdown_grace=text).shutdown_grace == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["10", "s", "-5s", "1 m", "1m30", "10 minutes", "1e3s", "\N{ARABIC-INDIC DIGIT THREE}s", "1h 30m"]
)
def test_what_is_no_duration_is_told(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^INVENTORY_SHUTDOWN_GRACE must be a duration such as .*, not '.*'\.$"):
        read(shutdown_grace=text)


@pytest.mark.parametrize(
    "text", ["many", "-1", "1.5", "0x10", "1_000", "\N{ARABIC-INDIC DIGIT THREE}", "9999999999999"]
)
def test_what_is_no_number_is_told(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^INVENTORY_LANES must be a whole number, not "):
        read(lanes=text)


@pytest.mark.parametrize(("text", "on"), [("true", True), ("ON", True), ("1", True), ("no", False), ("Off", False)])
def test_switches_are_on_or_off(text: str, on: bool) -> None:
    assert read(expiry=text).expiry is on


@pytest.mark.parametrize("text", ["0.0.0.0:50051", "[::1]:0", "shop.example:65535", "unix:/run/inventory.sock"])
def test_addresses_are_taken_as_they_are(text: str) -> None:
    assert read(listen=text).listen == text


@pytest.mark.parametrize(
    "text", ["50051", ":50051", "localhost", "localhost:", "localhost:65536", "unix:", "a:\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^INVENTORY_LISTEN must be host:port"):
        read(listen=text)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("database_url", "mysql://localhost/x", "must be a URL that starts with postgresql:// or postgres://"),
        ("redis_url", "localhost:6379", "must be a URL that starts with redis://"),
        ("log_level", "loud", "must be one of debug, info, warning, error"),
        ("expiry", "maybe", "must be true or false"),
        ("lanes", "0", "must be at least 1, not '0'"),
        ("max_hold", "500ms", "must be at least 1, not '500ms'"),
        ("retention", "59m", "must be at least 3600, not '59m'"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_variable(name: str, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(**{name: text})
    told = str(raised.value)
    assert told.startswith(f"{PREFIX}{name.upper()} {sentence}")
    assert told.count(".") == 1
    assert "\n" not in told


def test_paths_may_begin_at_home() -> None:
    assert read(data_dir="~/stock").data_dir == Path.home() / "stock"


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().lanes = 2  # type: ignore[misc]


def test_help_lists_every_setting_with_its_default() -> None:
    text = describe()
    for field in dataclasses.fields(Settings):
        default = field.metadata["default"]
        assert f"  {PREFIX}{field.name.upper()}" + (f" = {default}" if default else "") + "\n" in text
        assert field.metadata["about"] in text

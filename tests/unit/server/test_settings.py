"""What the environment says, read once: durations, numbers, addresses, and one sentence for each mistake."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from inventory_server.metrics.page import DESCRIPTOR
from inventory_server.settings import PREFIX, Settings, SettingsError, describe, duration, whole
from inventory_server.supervisor import PULSE


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
    [("250ms", 0.25), ("30s", 30), ("10m", 600), ("1h30m", 5400), ("1d", 86400), ("1.5s", 1.5), (" 1m0s500ms ", 60.5)],
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
        ("max_hold", "500ms", "must be at least 1s, not '500ms'"),
        ("retention", "24h", "must be longer than any hold: than 24h and INVENTORY_MAX_HOLD"),
        ("redis_timeout", "0s", "must be at least 1ms, not '0s'"),
        ("health_interval", "9ms", "must be at least 10ms, not '9ms'"),
        ("max_connection_age", "500ms", "must be at least 1s, not '500ms'"),
        ("reservation_ttl", "1441m", "must be at most 24h, not '1441m'"),
        ("statement_timeout", "30d", "must be at most 24h, not '30d'"),
        ("retention", "999999999999d", "must be at most 36500d, not '999999999999d'"),
        ("max_connection_age", "25d", "must be at most 24d, not '25d'"),
        ("expiry_batch_size", "9999999999", "must be at most 10000, not '9999999999'"),
        ("max_message_bytes", "99999999999", "must be at most 1073741824, not '99999999999'"),
        ("max_concurrent_streams", "1000001", "must be at most 1000000, not '1000001'"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_variable(name: str, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(**{name: text})
    told = str(raised.value)
    assert told.startswith(f"{PREFIX}{name.upper()} {sentence}")
    assert told.count(".") == 1
    assert "\n" not in told


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_every_number_and_duration_has_an_end_that_may_be_reached(field: dataclasses.Field[object]) -> None:
    if field.metadata["read"] not in {duration, whole}:
        return
    most = {field.name: field.metadata["high"]}
    if field.name == "lock_timeout":
        most["statement_timeout"] = field.metadata["high"]
    assert getattr(read(**most), field.name) == field.metadata["read"](field.metadata["high"])
    for beyond in ("9" * 12, "9" * 12 + "d"):
        with pytest.raises(SettingsError, match=r"must be (at most|a whole|a duration)"):
            read(**{field.name: beyond})


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("DATABSE_URL", "DATABASE_URL"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("DATABASE_URL_FILE", "DATABASE_URL"),
        ("DATABASE", "DATABASE_URL"),
        ("LISTNE", "LISTEN"),
        ("LANE", "LANES"),
        ("WORKER", "WORKERS"),
        ("EXPIRE", "EXPIRY"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("TLS_CERTS", "TLS_CERT"),
        ("TOKEN_FILE", "TOKENS_FILE"),
        ("RETENTIONS", "RETENTION"),
    ],
)
def test_a_misspelt_setting_is_refused_with_the_name_that_was_meant(misspelt: str, meant: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment({PREFIX + misspelt: "x"})
    assert str(raised.value) == f"{PREFIX}{misspelt} is not a setting; {PREFIX}{meant} is."
    assert Settings.from_environment({PREFIX + misspelt: " "}) == Settings()


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_one_letter_left_out_of_any_setting_is_noticed(field: dataclasses.Field[object]) -> None:
    name = field.name.upper()
    names = {each.name.upper() for each in dataclasses.fields(Settings)}
    for at in range(len(name)):
        if (misspelt := name[:at] + name[at + 1 :]) not in names:
            with pytest.raises(SettingsError, match=f"{PREFIX}{misspelt} is not a setting"):
                Settings.from_environment({PREFIX + misspelt: "x"})


# Services that somebody may have beside ours, or ours under other names.
SERVICES = ["", *(f"{field.name.upper()}_" for field in dataclasses.fields(Settings))]
INJECTED = (
    "SERVICE_HOST",
    "SERVICE_PORT",
    "SERVICE_PORT_GRPC",
    "SERVICE_PORT_METRICS",
    "PORT",
    *(
        f"PORT_{port}_{protocol}{what}"
        for port in (80, 9464, 50051)
        for protocol in ("TCP", "UDP", "SCTP")
        for what in ("", "_PROTO", "_PORT", "_ADDR")
    ),
)


@pytest.mark.parametrize("service", SERVICES)
def test_what_kubernetes_tells_of_services_is_left_alone(service: str) -> None:
    told = {f"{PREFIX}{service}{name}": "10.0.0.1" for name in INJECTED}
    assert Settings.from_environment(told) == Settings()


def test_what_the_project_itself_calls_by_our_prefix_is_left_alone() -> None:
    root = Path(__file__).parents[3]
    texts = [path.read_text("utf-8") for folder in ("src", "tests") for path in (root / folder).rglob("*.py")]
    texts += [(root / name).read_text("utf-8") for name in ("Makefile", "compose.yaml", "Dockerfile", ".ci/run")]
    settings = {PREFIX + field.name.upper() for field in dataclasses.fields(Settings)}
    others = set(re.findall(r"INVENTORY_[A-Z_]*[A-Z]", "".join(texts))) - settings
    assert {"INVENTORY_PORT", "INVENTORY_TEST_DATABASE_URL", "INVENTORY_BENCH_DATABASE_URL"} <= others
    assert {"INVENTORY_FUZZ_EXAMPLES", PULSE, DESCRIPTOR} <= others
    assert Settings.from_environment(dict.fromkeys(others, "x")) == Settings()


def test_retention_outlasts_every_hold() -> None:
    assert read(retention="24h1s", max_hold="1h").retention == 86401
    with pytest.raises(SettingsError, match=r"^INVENTORY_RETENTION must be longer than any hold"):
        read(retention="7d", max_hold="7d")


@pytest.mark.parametrize("name", ["listen", "health_listen"])
@pytest.mark.parametrize("shared", [{"workers": "2"}, {"share_address": "true"}], ids=str)
def test_several_processes_cannot_share_a_path(name: str, shared: dict[str, str]) -> None:
    with pytest.raises(
        SettingsError, match=f"^{PREFIX}{name.upper()} must be host:port where .* a path belongs to one"
    ):
        read(**{name: "unix:/run/inventory.sock"}, **shared)


@pytest.mark.parametrize("name", ["listen", "health_listen"])
def test_workers_need_a_port_to_have_in_common(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{PREFIX}{name.upper()} must name a port .*, not 0\.$"):
        read(**{name: "127.0.0.1:0"}, workers="2")
    assert getattr(read(**{name: "127.0.0.1:0"}), name) == "127.0.0.1:0"


def test_probes_have_an_address_of_their_own() -> None:
    with pytest.raises(SettingsError, match=r"^INVENTORY_HEALTH_LISTEN must be another address than INVENTORY_LISTEN"):
        read(health_listen=Settings().listen)


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

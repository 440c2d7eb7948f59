"""Every limit of the server with its unit, read once from the environment."""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PREFIX = "INVENTORY_"

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
# The longest ttl that a request may ask for: domain.TTL_US_MAX.
_TTL_SECONDS_MAX = 86400.0
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


# What Kubernetes tells every container about each Service whose name begins with `inventory`, and what belongs to the
# tests, is nobody's misspelling, however close it comes.
_NOT_OURS = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)?)"
    r"|(ACCEPTANCE|BENCH|FUZZ|TEST)_\w+"
)
# As difflib counts it: a name of six letters with two of them swapped is more alike than this.
_ALIKE_MIN = 0.8


class SettingsError(Exception):
    """A mistake in the environment, as one sentence for the person who made it."""


def duration(text: str) -> float:
    """Read `10m`, `30s`, `250ms`, `1h30m` or `2d` as seconds."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("must be a duration such as 250ms, 30s, 10m, 1h30m or 2d")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def whole(text: str) -> int:
    """Read a number without a sign."""
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise ValueError("must be a whole number")
    return int(text)


def switch(text: str) -> bool:
    """Read on or off in the usual spellings."""
    answers = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in answers:
        raise ValueError("must be true or false")
    return answers[text.lower()]


def address(text: str) -> str:
    """Check `host:port`, `[v6]:port` or `unix:path`."""
    if text.startswith("unix:") and len(text) > len("unix:"):
        return text
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be host:port, such as 0.0.0.0:50051")
    return text


def tcp_address(text: str) -> str:
    """Check `host:port` or `[v6]:port`."""
    if text.startswith("unix:"):
        raise ValueError("must be host:port, such as 127.0.0.1:9464")
    return address(text)


def path(text: str) -> Path:
    """Read a path, which may begin at home; where there is none it stays as it is, for whoever needs it to complain."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError("must be one of " + ", ".join(choices))
        return text.lower()

    return read


def url(*schemes: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not text.startswith(tuple(scheme + "://" for scheme in schemes)):
            raise ValueError("must be a URL that starts with " + " or ".join(scheme + "://" for scheme in schemes))
        return text

    return read


# What no pause and no number of things needs to exceed, where a setting says nothing else. Beyond the numbers of gRPC
# and PostgreSQL they would crash what reads them, long after the mistake.
_HIGHEST: dict[Callable[[str], Any], str] = {duration: "24h", whole: "1000000"}


def setting(default: str, read: Callable[[str], Any], about: str, low: str = "", high: str = "") -> Any:
    """Declare one setting: default, least and greatest value as they would be written, its reader and its sentence."""
    metadata = {"default": default, "read": read, "about": about, "low": low, "high": high or _HIGHEST.get(read, "")}
    return dataclasses.field(default=read(default) if default else None, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the server was told. Field `listen` is read from INVENTORY_LISTEN, and so on."""

    listen: str = setting("127.0.0.1:50051", address, "address to serve gRPC on")
    database_url: str | None = setting(
        "", url("postgresql", "postgres"), "PostgreSQL 15 or later; without it an embedded one is started"
    )
    redis_url: str | None = setting(
        "",
        url("redis", "rediss", "unix", "none"),
        "Redis or Valkey; without it an embedded one is started; none:// does without a cache",
    )
    data_dir: Path = setting("~/.local/share/inventory-server", path, "where the embedded servers keep their data")
    migrate: bool = setting("true", switch, "whether serve applies migrations before it starts")
    reservation_ttl: float = setting("10m", duration, "how long a hold lasts that asks for no ttl", "1s")
    max_hold: float = setting(
        "24h", duration, "longest life, from its creation, that an extension gives a hold", "1s", "3650d"
    )
    workers: int = setting(
        "1", whole, "processes that serve together; more than one for more than one core", "1", "1000"
    )
    share_address: bool = setting("false", switch, "whether other servers may serve the same address (SO_REUSEPORT)")
    expiry: bool = setting("true", switch, "whether this process runs the expiry worker")
    expiry_interval: float = setting("1s", duration, "pause between two looks for expired holds", "10ms")
    expiry_batch_size: int = setting("200", whole, "most holds one look expires", "1", "10000")
    retention: float | None = setting(
        "",
        duration,
        "how long ended holds and their movements are kept, longer than 24h and than any hold; a request sent again"
        " later than that counts as a new one; without it they are kept for ever; needs the expiry worker",
        high="36500d",
    )
    pool_size: int = setting(
        "10", whole, "most connections to PostgreSQL for calls; the expiry worker has up to two, the feed one", "1"
    )
    pool_timeout: float = setting("2s", duration, "longest wait for a connection before DATABASE_UNAVAILABLE", "10ms")
    connect_timeout: float = setting("5s", duration, "longest time one attempt to connect to PostgreSQL takes", "1s")
    statement_timeout: float = setting("5s", duration, "longest time one statement takes", "10ms")
    lock_timeout: float = setting("1s", duration, "longest wait for one row lock", "10ms")
    prepared_statements: bool = setting("true", switch, "false behind every connection pooler that pools transactions")
    lanes: int = setting("1", whole, "batches of one operation that may be under way at once", "1", "1000")
    batch_size: int = setting(
        "256", whole, "most requests one statement carries; long orders count for more", "1", "10000"
    )
    gather_pause: float = setting(
        "1ms",
        duration,
        "until half of a batch's callers are back, the next one grows for as long as each such pause brings another",
    )
    gather_max: float = setting(
        "20ms",
        duration,
        "but no longer than this, nor than the batch before took; 0s sends what is there at once",
    )
    queue_size: int = setting("4096", whole, "most requests of one operation that wait before OVERLOADED", "1")
    watch_interval: float = setting(
        "1s",
        duration,
        "longest pause between two looks at the ledger while somebody watches and nobody wakes us",
        "10ms",
    )
    watch_queue_size: int = setting("4096", whole, "most changes that wait for one watcher before OVERLOADED", "1")
    redis_timeout: float = setting("100ms", duration, "longest wait for Redis before the answer does without it", "1ms")
    redis_retry: float = setting("1s", duration, "how long Redis is left alone after it failed", "10ms")
    health_interval: float = setting("1s", duration, "pause between two health checks", "10ms")
    health_listen: str | None = setting(
        "", address, "further address that serves health alone and without TLS, for probes that speak no TLS"
    )
    metrics_listen: str | None = setting(
        "", tcp_address, "address to serve metrics on over HTTP, at /metrics and without TLS; without it there are none"
    )
    startup_timeout: float = setting("30s", duration, "longest wait for PostgreSQL at start-up", "0s")
    shutdown_grace: float = setting("10s", duration, "longest time that requests in flight get after SIGTERM", "0s")
    max_message_bytes: int = setting("4194304", whole, "largest request accepted", "1024", "1073741824")
    max_concurrent_streams: int = setting("1000", whole, "most requests in flight on one connection", "1")
    max_connection_age: float | None = setting(
        "",
        duration,
        "life of a connection, after which its caller makes another; without it there is no end to it",
        "1s",
        "24d",
    )
    max_connection_age_grace: float = setting(
        "1m",
        duration,
        "how long calls may go on after that: longer than the 30 s that orders may wait; then watchers go on elsewhere",
        "1s",
    )
    tls_cert: Path | None = setting("", path, "certificate chain (PEM); with tls_key the server speaks TLS only")
    tls_key: Path | None = setting("", path, "private key (PEM) of tls_cert")
    tls_client_ca: Path | None = setting("", path, "authority (PEM) that client certificates must come from")
    tokens_file: Path | None = setting(
        "", path, "file of lines `token read` or `token write`; without it no token is asked"
    )
    log_level: str = setting("info", one_of("debug", "info", "warning", "error"), "least level that is logged")
    log_format: str = setting("text", one_of("text", "json"), "how a line of the log is written")

    def __post_init__(self) -> None:
        """Check how the settings relate."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise SettingsError("INVENTORY_TLS_CERT and INVENTORY_TLS_KEY go together: set both or neither.")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise SettingsError("INVENTORY_TLS_CLIENT_CA needs INVENTORY_TLS_CERT and INVENTORY_TLS_KEY.")
        if self.retention is not None and self.retention <= max(_TTL_SECONDS_MAX, self.max_hold):
            raise SettingsError("INVENTORY_RETENTION must be longer than any hold: than 24h and INVENTORY_MAX_HOLD.")
        if self.lock_timeout > self.statement_timeout:
            raise SettingsError("INVENTORY_LOCK_TIMEOUT must not be longer than INVENTORY_STATEMENT_TIMEOUT.")
        if self.health_listen == self.listen:
            raise SettingsError("INVENTORY_HEALTH_LISTEN must be another address than INVENTORY_LISTEN.")
        _check_shared("INVENTORY_LISTEN", self.listen, self)
        _check_shared("INVENTORY_HEALTH_LISTEN", self.health_listen or "", self)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings; SettingsError names the first mistake. An empty variable counts as not set."""
        fields = {PREFIX + field.name.upper(): field for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for name, text in environment.items():
            if name in fields and text.strip():
                values[fields[name].name] = _read(name, text.strip(), fields[name].metadata)
            elif name.startswith(PREFIX) and text.strip():
                _refuse_misspelling(name, fields)
        return cls(**values)


def _check_shared(name: str, address: str, settings: Settings) -> None:
    """Refuse an address that several processes cannot share where they are to."""
    if address.startswith("unix:") and (settings.workers > 1 or settings.share_address):
        raise SettingsError(
            f"{name} must be host:port where INVENTORY_WORKERS or INVENTORY_SHARE_ADDRESS has processes share it:"
            " a path belongs to one."
        )
    if address.endswith(":0") and settings.workers > 1:
        raise SettingsError(f"{name} must name a port where INVENTORY_WORKERS have it in common, not 0.")


def _refuse_misspelling(name: str, known: Iterable[str]) -> None:
    """Refuse a name that is nearly that of a setting; others with our prefix may be anybody's."""
    rest = name.removeprefix(PREFIX)
    meant = difflib.get_close_matches(rest, [each.removeprefix(PREFIX) for each in known], n=1, cutoff=_ALIKE_MIN)
    if meant and not _NOT_OURS.fullmatch(rest):
        raise SettingsError(f"{name} is not a setting; {PREFIX}{meant[0]} is.")


def _read(name: str, text: str, metadata: Mapping[str, Any]) -> Any:
    try:
        value = metadata["read"](text)
    except ValueError as mistake:
        # A URL may hold a password, and is not shown however wrong it is.
        shown = "" if name.endswith("_URL") else f", not {text!r}"
        raise SettingsError(f"{name} {mistake}{shown}.") from None
    if metadata["low"] and value < metadata["read"](metadata["low"]):
        raise SettingsError(f"{name} must be at least {metadata['low']}, not {text!r}.")
    if metadata["high"] and value > metadata["read"](metadata["high"]):
        raise SettingsError(f"{name} must be at most {metadata['high']}, not {text!r}.")
    return value


def describe() -> str:
    """List every setting with its default for `inventory-server --help`."""
    lines = []
    for field in dataclasses.fields(Settings):
        default = field.metadata["default"]
        lines.append(f"  {PREFIX}{field.name.upper()}" + (f" = {default}" if default else ""))
        lines.append(f"      {field.metadata['about']}")
    return "\n".join(lines)

"""The command line: `inventory-server serve`, `migrate`, `audit` and `healthcheck`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import TYPE_CHECKING

from inventory_server import stopping
from inventory_server.settings import Settings, SettingsError, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_FAILED = 1
_MISUSED = 2
_UNFINISHED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Exit status 0 is success, 1 a failure, 2 a mistake in the command or the environment, 3 an audit without a result.
    """
    options = vars(_parser().parse_args(arguments))
    command: Callable[..., int] = options.pop("command")
    when_stopped: int = options.pop("when_stopped")
    stopping.listen()
    try:
        return command(Settings.from_environment(os.environ), **options)
    except SettingsError as mistake:
        print(f"inventory-server: {mistake}", file=sys.stderr)
        return _MISUSED
    except stopping.Stopped:
        print("inventory-server: stopped before it was done.", file=sys.stderr)
        return when_stopped


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="inventory-server",
        description="Reserves stock for orders and never sells what a shop does not have.",
        epilog="Settings are environment variables (durations as 250ms, 30s, 10m, 1h30m, 2d):\n\n" + describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, command, when_stopped, about in (
        ("serve", _serve, 0, "serve gRPC until SIGTERM"),
        ("migrate", _migrate, _FAILED, "bring the schema of INVENTORY_DATABASE_URL up to date"),
        (
            "audit",
            _audit,
            _UNFINISHED,
            "prove that the books of INVENTORY_DATABASE_URL, else of INVENTORY_DATA_DIR, agree; exit status 1 if not",
        ),
        (
            "healthcheck",
            _healthcheck,
            _FAILED,
            "ask the server on INVENTORY_LISTEN for its health; exit status 0 is SERVING",
        ),
    ):
        defaults = {"command": command, "when_stopped": when_stopped}
        commands.add_parser(name, help=about, description=about).set_defaults(**defaults)
    commands.choices["healthcheck"].add_argument(
        "--service",
        default="",
        metavar="NAME",
        help="ask for this name, such as liveness, which is SERVING whatever the stores do",
    )
    return parser


# The commands import what they need themselves: a health check must not wait for a server's worth of imports, and all
# need more than the client does.


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    """Import with this what only the extra `server` brings."""
    try:
        yield
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package == __package__:
            raise
        raise SettingsError(
            f"the Python package {package} is missing: pip install 'inventory-reservation[server]'."
        ) from None


def _serve(settings: Settings) -> int:
    with _extra():
        from inventory_server import app, logs  # noqa: PLC0415

    logs.configure(settings)
    try:
        app.serve(settings)
    except app.FAILURES as failure:
        return _fail(failure)
    return 0


def _migrate(settings: Settings) -> int:
    with _extra():
        from inventory_server import app, logs  # noqa: PLC0415
        from inventory_server.postgres import urls  # noqa: PLC0415

    logs.configure(settings)
    if settings.database_url is None:
        raise SettingsError("INVENTORY_DATABASE_URL must be set: the embedded PostgreSQL is migrated by serve.")
    urls.check(settings.database_url)
    try:
        app.migrate_when_up(settings.database_url, settings.startup_timeout)
    except app.FAILURES as failure:
        return _fail(failure)
    return 0


def _audit(settings: Settings) -> int:
    with _extra():
        from inventory_server import audit  # noqa: PLC0415

    try:
        return _FAILED if audit.run(settings) else 0
    except audit.AuditError as failure:
        _fail(failure)
        return _UNFINISHED


def _healthcheck(settings: Settings, service: str) -> int:
    with _extra():
        from inventory_server import probe  # noqa: PLC0415

    try:
        probe.check(settings, service)
    except probe.Unhealthy as failure:
        return _fail(failure)
    return 0


def _fail(failure: Exception) -> int:
    print(f"inventory-server: {failure}", file=sys.stderr)
    return _FAILED


if __name__ == "__main__":
    sys.exit(main())

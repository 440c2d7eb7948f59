"""The URL of PostgreSQL, looked at before anybody connects: what libpq says of a bad one shows pieces of a password."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import conninfo_to_dict

from inventory_server.settings import SettingsError

_NAME = "INVENTORY_DATABASE_URL"
_ESCAPES = "in user and password %, @, : and / are written as %25, %40, %3A and %2F"


def check(url: str) -> None:
    """Raise SettingsError, which shows nothing of the URL, unless libpq can read it and its parts make sense."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error as error:
        # What libpq quotes may be the password.
        reason = str(error).partition('"')[0].strip(" :\n")
        raise SettingsError(f"{_NAME} is no URL of PostgreSQL ({reason}); {_ESCAPES}.") from None
    # Where a password is not escaped, its rest is taken for a host, a port or a database.
    if "@" in str(parts.get("host", "")) or "@" in _path(url):
        raise SettingsError(f"{_NAME} has an @ too many; {_ESCAPES}.")
    if not all(_is_port(each) for each in str(parts.get("port", "")).split(",")):
        raise SettingsError(f"{_NAME} has a port that is no number from 1 to 65535; {_ESCAPES}.")


def _path(url: str) -> str:
    return url.partition("://")[2].partition("?")[0].partition("/")[2]


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and 0 < int(text) <= 65535)

"""`inventory-server audit`: proves for every product that ledger, record and holds agree, beside a live service."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors as pg
from tqdm import tqdm

from inventory_server.embedded import EmbeddedError, EmbeddedPostgres
from inventory_server.postgres import urls
from inventory_server.postgres.auditing import audit, connect, count_products

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inventory_server.settings import Settings


class AuditError(Exception):
    """The audit could not be completed; the sentence says why."""


def run(settings: Settings) -> int:
    """Audit all products, write what does not agree to stdout, and tell how many findings there were.

    Changes nothing and may be repeated. A bar on stderr shows how far it is, where that is a terminal, and a sentence
    there how it ended. Raises AuditError where it did not come to an end.
    """
    try:
        with (
            _database(settings) as database_url,
            connect(database_url, settings.connect_timeout) as connection,
        ):
            products, findings = _audited(connection)
    except (pg.UndefinedTable, pg.UndefinedFunction) as error:
        raise AuditError("the schema is missing or too old; `inventory-server migrate`, or serve, helps.") from error
    except (EmbeddedError, OSError) as error:
        raise AuditError(str(error)) from error
    except psycopg.Error as error:
        raise AuditError(f"PostgreSQL ended the audit: {str(error).strip()}") from error
    result = "everything agrees" if not findings else f"{findings} disagreements"
    print(f"audited {products} products: {result}", file=sys.stderr)  # noqa: T201 — a command line prints
    return findings


@contextlib.contextmanager
def _database(settings: Settings) -> Iterator[str]:
    """Give the URL of what is audited: the embedded PostgreSQL, started if need be, where no other is named."""
    if settings.database_url is not None:
        urls.check(settings.database_url)
        yield settings.database_url
        return
    postgres = EmbeddedPostgres(settings.data_dir)
    if (url := postgres.running_url()) is not None:
        yield url
        return
    if not postgres.has_data:
        raise AuditError(
            "there is nothing to audit: INVENTORY_DATABASE_URL is not set, and INVENTORY_DATA_DIR"
            f" ({settings.data_dir}) has no embedded PostgreSQL."
        )
    with postgres:
        yield postgres.url


def _audited(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    products = findings = 0
    # `disable=None` shows the bar on a terminal only.
    with tqdm(total=count_products(connection), unit=" products", file=sys.stderr, disable=None) as bar:
        for step in audit(connection):
            for finding in step.findings:
                bar.write(f"{finding.product_id}: {finding.discrepancy}", file=sys.stdout)
            products += step.products
            findings += len(step.findings)
            bar.update(step.products)
    return products, findings

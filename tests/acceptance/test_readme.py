"""Every example of README and docs, run as it stands against a real server, with the real grpcurl.

A fenced block of `sh` that begins with grpcurl or `inventory-server audit` is run, and so is each of `python`, in the
order of the document. The block after it shows what comes out: `json` is compared as JSON, apart from times; of `text`
each line must be there, and where it begins with ERROR the command must fail. Only the address is replaced.

All documents share one server, as they do for a person who reads them. So none may touch the products and orders of
another: then their order does not matter either.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.serving import Server

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SECONDS_MAX = 60
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TIME = re.compile(r'"\d{4}-\d\d-\d\dT[\d:.]+Z"')
_RUN = ("grpcurl ", "inventory-server audit")


class Example(NamedTuple):
    language: str
    source: str
    shown: str
    shown_as: str


def examples(document: Path) -> Iterator[Example]:
    blocks = [*_BLOCK.findall(document.read_text("utf-8")), ("", "")]
    for (language, source), (next_language, next_source) in pairwise(blocks):
        if language == "python" or (language == "sh" and source.startswith(_RUN)):
            shows = next_language in {"json", "text"}
            yield Example(language, source, next_source if shows else "", next_language if shows else "")


def outcome(example: Example, address: str, database_url: str, directory: Path) -> subprocess.CompletedProcess[str]:
    source = example.source.replace("localhost:50051", address)
    command = [sys.executable, "-c", source] if example.language == "python" else ["bash", "-euc", source]
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": scripts, "INVENTORY_DATABASE_URL": database_url}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False, cwd=directory, env=environment
    )


def check(example: Example, done: subprocess.CompletedProcess[str]) -> None:
    everything = f"{example.source}\n{done.stdout}{done.stderr}"
    assert (done.returncode != 0) == example.shown.startswith("ERROR"), everything
    if example.shown_as == "json":
        assert timeless(done.stdout) == timeless(example.shown), everything
    if example.shown_as == "text":
        told = done.stdout if example.language == "python" else done.stdout + done.stderr
        missing = [line for line in example.shown.splitlines() if line.strip() not in told]
        assert not missing, f"{missing} is not in\n{everything}"
    if example.shown_as == "text" and example.language == "python":
        assert done.stdout.splitlines() == example.shown.splitlines(), everything


def timeless(text: str) -> Any:
    return json.loads(_TIME.sub('"some time"', text))


@pytest.fixture
def grpcurl() -> str:
    found = shutil.which("grpcurl")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("CI must have grpcurl on its PATH")
    if found is None:
        pytest.skip("no grpcurl on PATH: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest")
    return found


def ledger(database_url: str) -> Counter[str]:
    """Count the movements of each product and of each order."""
    query = """SELECT 'product ' || product_id FROM inventory_movements
        UNION ALL SELECT 'order ' || order_id FROM inventory_movements WHERE order_id IS NOT NULL"""
    with psycopg.connect(database_url) as connection:
        return Counter(name for (name,) in connection.execute(query))


@pytest.mark.usefixtures("grpcurl")
@pytest.mark.parametrize("document", [each for each in DOCUMENTS if any(examples(each))], ids=lambda path: path.name)
def test_every_example_does_what_the_document_shows(document: Path, server: Server, tmp_path: Path) -> None:
    before = ledger(server.database_url)
    for example in examples(document):
        check(example, outcome(example, server.address, server.database_url, tmp_path))
    touched = ledger(server.database_url) - before
    assert touched.keys().isdisjoint(before), f"another document uses {sorted(touched.keys() & before.keys())}"


def test_every_operation_has_an_example() -> None:
    shown = "".join(example.source for document in DOCUMENTS for example in examples(document))
    rpcs = set(re.findall(r"InventoryService/(\w+)", shown))
    assert {"InitializeStock", "ReserveStock", "DeductReservation", "GetStock", "WatchStock", "ExplainStock"} <= rpcs
    assert len(rpcs) >= 10


def test_what_is_shown_is_really_compared() -> None:
    example = Example("python", "print('one')", "two\n", "text")
    with pytest.raises(AssertionError, match="is not in"):
        check(example, subprocess.CompletedProcess([], 0, "one\n", ""))
    refused = Example("sh", "grpcurl", "ERROR:\n", "text")
    with pytest.raises(AssertionError):
        check(refused, subprocess.CompletedProcess([], 0, "ERROR:\n", ""))
    other = Example("sh", "grpcurl", '{"a": "2"}', "json")
    with pytest.raises(AssertionError):
        check(other, subprocess.CompletedProcess([], 0, '{"a": "1"}', ""))

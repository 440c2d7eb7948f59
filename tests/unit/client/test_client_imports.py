"""Other services install the client: it must ask little of them, and nothing of the server."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import inventory_client

HOME = Path(inventory_client.__file__).parent
ALLOWED = {"google", "grpc", "inventory_client", "uuid_utils"} | set(sys.stdlib_module_names)


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


def test_the_client_imports_only_what_it_installs() -> None:
    sources = list(HOME.rglob("*.py"))
    assert len(sources) > 8
    for path in sources:
        assert imported(path) <= ALLOWED, path


def test_the_client_works_where_nothing_of_the_server_is_installed() -> None:
    script = """
import sys
for name in ("inventory_server", "psycopg", "psycopg_pool", "redis", "hiredis", "orjson", "uvloop", "grpc_health"):
    sys.modules[name] = None
from inventory_client import *
InventoryClient("localhost:1").close()
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_public_names_are_sorted_and_there() -> None:
    assert inventory_client.__all__ == sorted(inventory_client.__all__)
    assert all(hasattr(inventory_client, name) for name in inventory_client.__all__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (HOME / "py.typed").exists()

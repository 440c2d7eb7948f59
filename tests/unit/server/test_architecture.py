"""The shape of the code, proved from its text: one direction of imports, sizes, and catalogues that agree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import inventory_client
from inventory_client._status import BY_REASON
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "src"
SERVER, CLIENT = "inventory_server", "inventory_client"
PROTO = (ROOT / "protos/inventory/v1/inventory.proto").read_text(encoding="utf-8")
STUBS = SOURCES / CLIENT / "proto"

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
HANDLER_LINES_MAX = 16

# From the bottom to the top: a part imports itself and what stands below it. A new part needs its place here.
TIERS = (
    {"domain", "reach"},
    {"errors", "settings", "stopping", "metrics", "embedded"},
    {"postgres", "supervisor", "logs"},
    {"cache", "attempts", "turns", "waiting"},
    {"batcher"},
    {"lanes"},
    {"inventory", "queries", "feed", "retention", "audit"},
    {"expiry", "rpc"},
    {"sampling"},
    {"app", "probe"},
    {"__main__"},
)
TIER = {part: height for height, parts in enumerate(TIERS) for part in parts}

# What may reach outside by itself; everybody else has it done by these.
GATES = {
    "psycopg": {"postgres", "app", "audit"},
    "psycopg_pool": {"postgres"},
    "redis": {"cache"},
    "prometheus_client": {"metrics"},
    "grpc": {"rpc", "errors", "app", "probe"},
    "google": {"rpc"},
    CLIENT: {"rpc"},
}

# Operations of the proto that no servicer has yet.
UNSERVED: set[str] = set()


def modules(package: str) -> dict[str, Path]:
    """Find the modules of a package by their dotted names, stubs aside."""
    found = {}
    for path in sorted((SOURCES / package).rglob("*.py")):
        if not path.is_relative_to(STUBS):
            parts = path.relative_to(SOURCES).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(path: Path, *, typing_too: bool = True) -> set[str]:
    """Name what a file imports, as `package.module.name` or `package.module`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ignored: set[ast.AST] = set()
    for node in ast.walk(tree):
        if not typing_too and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            ignored.update(ast.walk(node))
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in ignored:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part(name: str) -> str:
    """Name the part of the server that a dotted name belongs to."""
    return [*name.split("."), ""][1]


def servers() -> Iterator[tuple[str, str]]:
    """Pair each module of the server with each name that it imports."""
    for module, path in modules(SERVER).items():
        for name in imports(path):
            yield module, name


def test_imports_go_in_one_direction() -> None:
    known = {part(module) for module in modules(SERVER)} - {""}
    assert known <= TIER.keys(), "give it a place in TIERS"
    wrong = [
        f"{module} imports {name}"
        for module, name in servers()
        if name.startswith(SERVER + ".") and part(name) != part(module)
        if TIER[part(name)] >= TIER[part(module)]
    ]
    assert wrong == []


def test_the_domain_imports_the_standard_library_alone() -> None:
    assert {name.split(".")[0] for name in imports(SOURCES / SERVER / "domain.py")} <= set(sys.stdlib_module_names)


def test_what_is_parsed_and_rendered_knows_values_errors_and_stubs_alone() -> None:
    allowed = (
        f"{SERVER}.domain",
        f"{SERVER}.errors",
        f"{SERVER}.queries.",  # the pages of a listing, which are values
        f"{SERVER}.rpc.wire",
        f"{SERVER}.rpc.status",
        f"{CLIENT}.proto.",
    )
    wrong = [
        f"{module} imports {name}"
        for module, name in servers()
        if module.startswith(f"{SERVER}.rpc.wire") and name.startswith("inventory_") and not name.startswith(allowed)
    ]
    assert wrong == []


def test_only_the_gates_reach_outside() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, name in servers()
        if part(module) not in GATES.get(name.split(".")[0], {part(module)})
    ]
    assert wrong == []


def test_the_server_takes_the_stubs_from_the_client_and_the_client_nothing_from_the_server() -> None:
    taken = {name for _, name in servers() if name.startswith(CLIENT)}
    assert taken
    assert [name for name in taken if not name.startswith(f"{CLIENT}.proto.")] == []
    for path in modules(CLIENT).values():
        assert not {name for name in imports(path) if name.startswith(SERVER)}, path


@pytest.mark.parametrize("package", [SERVER, CLIENT])
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    found = modules(package)

    def module_of(name: str) -> str:
        return name if name in found else name.rpartition(".")[0]

    below = {
        module: {module_of(name) for name in imports(path, typing_too=False)} & (found.keys() - {module, package})
        for module, path in found.items()
    }
    while leaves := {module for module, others in below.items() if not others & below.keys()}:
        for module in leaves:
            del below[module]
    assert below == {}


def test_a_health_check_waits_for_no_import_that_it_does_not_need() -> None:
    script = "import sys; from inventory_server import probe; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert not {CLIENT, "psycopg", "redis", "uvloop", f"{SERVER}.app"} & set(done.stdout.split())


def test_files_and_functions_are_short() -> None:
    paths = [path for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py")]
    sources = {path: path.read_text(encoding="utf-8") for path in paths if not path.is_relative_to(STUBS)}
    assert len(sources) > 100
    long = [str(path) for path, source in sources.items() if source.count("\n") > FILE_LINES_MAX]
    long += [
        f"{path}: {function.name}"
        for path, source in sources.items()
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        if (function.end_lineno or 0) - function.lineno >= FUNCTION_LINES_MAX
    ]
    assert long == []


def servicers() -> dict[str, ast.ClassDef]:
    found = {}
    for path in (SOURCES / SERVER / "rpc").glob("*servicer.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Servicer"):
                found[node.name] = node
    return found


def handlers() -> list[ast.AsyncFunctionDef]:
    methods = [node for servicer in servicers().values() for node in servicer.body]
    return [node for node in methods if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_")]


def test_each_operation_is_served_once() -> None:
    served = Counter(handler.name for handler in handlers())
    operations = [method.name for method in pb.DESCRIPTOR.services_by_name["InventoryService"].methods]
    assert served == Counter(set(operations) - UNSERVED)
    composition = {
        node.id
        for node in ast.walk(ast.parse((SOURCES / SERVER / "app.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Name)
    }
    assert servicers().keys() <= composition


def test_a_handler_parses_calls_and_renders_and_leaves_errors_to_the_boundary() -> None:
    for handler in handlers():
        assert (handler.end_lineno or 0) - handler.lineno < HANDLER_LINES_MAX, handler.name
        assert not [node for node in ast.walk(handler) if isinstance(node, ast.Try | ast.For | ast.While)], handler.name


def reasons() -> set[str]:
    return {
        name.removeprefix("ERROR_REASON_") for name in pb.DESCRIPTOR.enum_types_by_name["ErrorReason"].values_by_name
    } - {"UNSPECIFIED"}


def test_the_catalogue_of_errors_is_one_for_proto_server_and_client() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.InventoryError) and kind is not errors.InventoryError
    ]
    raised = {kind.reason: kind for kind in kinds}
    assert len(raised) == len(kinds)
    assert raised.keys() == BY_REASON.keys() == reasons()
    for reason, kind in raised.items():
        ours = (kind.__name__, kind.code, kind.http_status)
        theirs = BY_REASON[reason]
        assert ours == (theirs.__name__, theirs.code, theirs.http_status)
        assert getattr(inventory_client, theirs.__name__) is theirs


@pytest.mark.parametrize("reason", sorted(reasons()))
def test_the_comment_on_a_reason_tells_its_code_and_shows_an_example(reason: str) -> None:
    comment = re.search(rf"((?:  //.*\n)+)  ERROR_REASON_{reason} = ", PROTO)
    assert comment is not None
    kind = BY_REASON[reason]
    for told in (f'"reason": "{reason}"', kind.code.name, f'"http_status": "{kind.http_status}"'):
        assert told in comment[1]


def statements() -> list[Path]:
    return sorted((SOURCES / SERVER / "postgres").rglob("*.sql"))


@pytest.mark.parametrize("path", statements(), ids=lambda path: "/".join(path.parts[-2:]))
def test_each_sql_file_begins_by_saying_what_it_does(path: Path) -> None:
    about = re.match(r"(?:--.*\n)+", path.read_text(encoding="utf-8"))
    assert about is not None
    assert len(about[0]) > 30
    if path.parent.name == "sql":
        assert re.search(r"\b(One row|Many rows)\b", about[0]), "say how many rows come back"


def test_each_query_and_each_function_of_the_database_has_a_user() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in modules(SERVER).values())
    queries = [path.stem for path in statements() if path.parent.name == "sql"]
    assert [name for name in queries if f'query("{name}")' not in code] == []
    sql = "\n".join(path.read_text(encoding="utf-8") for path in statements())
    functions = re.findall(r"CREATE OR REPLACE FUNCTION (\w+)", sql)
    assert [name for name in functions if not re.fullmatch(r"inventory_\w+_v\d+", name)] == []
    assert [name for name in functions if len(re.findall(rf"\b{name}\b", sql + code)) < 2] == []


def test_each_index_says_which_query_it_serves_and_each_check_has_a_name() -> None:
    indexes = 0
    for path in (SOURCES / SERVER / "postgres/migrations").glob("*.sql"):
        sql = path.read_text(encoding="utf-8")
        lines = sql.splitlines()
        for number, line in enumerate(lines):
            if re.match(r"CREATE (UNIQUE )?INDEX", line):
                indexes += 1
                assert re.match(r"-- Serves ", _comment_above(lines, number)), line
        unnamed = re.sub(r"CONSTRAINT \w+\s+CHECK\b", "", re.sub(r"--.*", "", sql))
        assert "CHECK" not in unnamed
    assert indexes > 3


def _comment_above(lines: list[str], number: int) -> str:
    first = number
    while first > 0 and lines[first - 1].startswith("--"):
        first -= 1
    return "\n".join(lines[first:number])

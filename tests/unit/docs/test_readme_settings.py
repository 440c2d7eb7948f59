"""What README says about settings and errors is what the server says."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server.rpc.boundary import SERVICE
from inventory_server.rpc.health import LIVENESS
from inventory_server.settings import PREFIX, Settings

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def settings_table() -> str:
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for field in dataclasses.fields(Settings):
        default = f"`{field.metadata['default']}`" if field.metadata["default"] else ""
        rows.append(f"| `{PREFIX}{field.name.upper()}` | {default} | {field.metadata['about']} |")
    return "\n".join(rows)


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_settings_of_the_readme_are_those_of_the_help() -> None:
    written = README.partition("<!-- settings -->\n")[2].partition("\n<!-- end of settings -->")[0]
    assert written == settings_table(), f"the table between the marks in README.md should be:\n{settings_table()}"


def test_the_errors_of_the_readme_are_those_of_the_proto() -> None:
    table = README.partition("## Errors\n")[2].partition("\n## ")[0]
    reasons = [name.removeprefix("ERROR_REASON_") for name, number in pb.ErrorReason.items() if number]
    assert re.findall(r"^\| ([A-Z_]+) \|", table, re.MULTILINE) == reasons


def test_every_operation_is_in_the_readme() -> None:
    table = README.partition("## Operations\n")[2].partition("\n## ")[0]
    for rpc in pb.DESCRIPTOR.services_by_name["InventoryService"].methods_by_name:
        assert f"`{rpc}`" in table, rpc


def test_every_setting_that_a_document_names_exists() -> None:
    known = {PREFIX + field.name.upper() for field in dataclasses.fields(Settings)}
    for document in DOCUMENTS:
        named = set(re.findall(r"INVENTORY_[A-Z_]+", document.read_text("utf-8")))
        assert named <= known, (document.name, named - known)


def test_the_probes_of_a_document_ask_for_a_name_that_is_served() -> None:
    for document in DOCUMENTS:
        assert set(re.findall(r"port: \d+, service: ([\w.]+)", document.read_text("utf-8"))) <= {LIVENESS, SERVICE}
    assert f"service: {LIVENESS}" in (ROOT / "docs/kubernetes.md").read_text("utf-8")


def test_every_link_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)]+)\)", document.read_text("utf-8")):
            if target.startswith("https://"):
                continue
            path, _, anchor = target.partition("#")
            there = (document.parent / path).resolve() if path else document
            assert there.exists(), (document.name, target)
            assert not anchor or anchor in anchors(there), (document.name, target)


def test_every_how_to_is_linked_from_the_readme() -> None:
    for document in DOCUMENTS[2:]:
        assert f"docs/{document.name}" in README, document.name

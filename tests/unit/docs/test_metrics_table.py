"""What docs/metrics.md says is what the endpoint tells."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from inventory_server import app, errors
from inventory_server.metrics import page
from inventory_server.metrics.exposition import Exposition
from inventory_server.metrics.instruments import INSTRUMENTS, Histogram
from inventory_server.rpc import metering

DOCS = Path(__file__).parents[3] / "docs"
DOCUMENT, KUBERNETES = ((DOCS / name).read_text("utf-8") for name in ("metrics.md", "kubernetes.md"))
# What the endpoint adds to what the server's own modules count.
BUILD = "| `inventory_build_info` | gauge | version, python | The version of the service. |"
SUFFIX = re.compile(r"_(bucket|count|sum)$")


def table() -> str:
    rows = ["| metric | kind | labels | what it is |", "|---|---|---|---|"]
    rows += [
        f"| `{each.name}` | {each.kind} | {', '.join(each.labels)} | {each.about} |"
        for each in sorted(INSTRUMENTS, key=lambda instrument: instrument.name)
    ]
    return "\n".join([*rows, BUILD])


def test_the_table_lists_every_metric() -> None:
    assert app.FAILURES  # it has imported all that counts
    written = DOCUMENT.partition("<!-- metrics -->\n")[2].partition("\n<!-- end of metrics -->")[0]
    assert written == table(), f"the table between the marks in docs/metrics.md should be:\n{table()}"


def test_every_metric_that_the_document_names_exists() -> None:
    known = {each.name for each in INSTRUMENTS} | {"inventory_build_info"}
    named = set(re.findall(r"\b(?:inventory|grpc_server)_[a-z_]+", DOCUMENT.partition("<!-- end of metrics -->")[2]))
    named -= {"inventory_server"}
    assert {name for name in named if name not in known and SUFFIX.sub("", name) not in known} == set()
    assert len(named) > 8


def test_the_job_of_the_alerts_is_that_of_the_scrapes_and_its_absence_is_told() -> None:
    jobs = set(re.findall(r'job="(.*?)"', DOCUMENT))
    assert jobs == set(re.findall(r"job_name: (\S+)", DOCUMENT)) == {"inventory"}
    monitor = DOCUMENT.partition("kind: PodMonitor")[2].partition("```")[0]
    [label] = re.findall(r"jobLabel: (\w+)", monitor)
    [selected] = re.findall(r"matchLabels: (\{.*?\})", monitor)
    assert f"metadata: {{labels: {selected}}}" in KUBERNETES
    assert selected == f"{{{label}: {jobs.pop()}}}"
    [port] = re.findall(r"\{port: (\w+)", monitor)
    assert f"{{name: {port}, containerPort: " in KUBERNETES
    assert f'== 0 or absent(up{{job="{selected[1:-1].partition(": ")[2]}"}})' in DOCUMENT


def test_names_follow_the_conventions_and_labels_are_never_ids() -> None:
    for each in INSTRUMENTS:
        assert re.fullmatch(r"(grpc_server|inventory)_[a-z_]+", each.name)
        assert each.name.endswith("_total") == (each.kind == "counter"), each.name
        assert not each.name.endswith(("_milliseconds", "_ms", "_count", "_sum", "_bucket"))
        assert each.about.endswith(".")
        assert len(each.cells) <= 400, each.name
        assert not {"product_id", "order_id", "reservation_id", "request_id"} & set(each.labels)


def test_every_error_has_a_code_and_a_reason_that_are_counted() -> None:
    catalogue = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in catalogue if issubclass(kind, errors.InventoryError) and hasattr(kind, "reason")]
    assert len(kinds) > 10
    for kind in kinds:
        for of in ("call", "item"):
            assert (kind.reason, of) in metering.REFUSALS.cells
        assert any(kind.code.name in series for series in metering.HANDLED.cells)


def test_workers_pages_add_up_and_what_no_process_knows_is_not_told() -> None:
    histogram = next(each for each in INSTRUMENTS if isinstance(each, Histogram) and each.name.endswith("batch_size"))
    pages = [page.Page.shared(), page.Page.shared()]
    first = histogram.cells["reserve",]
    for each in pages:
        each.cells[first + 1] += 2
        each.cells[first] += 2
    body, _ = Exposition(pages).render("", compressed=False)
    told = {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name.startswith("inventory_batch_size") or sample.name == "inventory_workers"
    }
    assert told["inventory_batch_size_bucket", "1.0"] == told["inventory_batch_size_bucket", "+Inf"] == 4
    assert (told["inventory_batch_size_count", ""], told["inventory_batch_size_sum", ""]) == (4, 4)
    assert ("inventory_workers", "") not in told

"""The figures as pictures (SVG)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
from tests.bench.book.expiry import TENTH
from tests.bench.book.results import Results, median

mpl.use("svg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRODUCTS = ("hot", "zipf", "spread")
NAMES = {"hot": "one hot product", "zipf": "Zipf 1.0 over 10 000", "spread": "uniform over 10 000"}
COLOURS = {"service": "C0", "per-request": "C1", "empty": "C7"}
# Text stays text, and the same figures make the same file.
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "inventory", "axes.grid": True, "grid.alpha": 0.3, "font.size": 9}


def draw(results: Results, directory: Path) -> None:
    """Draw what was measured."""
    with mpl.rc_context(STYLE):
        if results.rows.get("curves"):
            _picture(directory / "latency.svg", (12, 3.8), _latency, results)
            _picture(directory / "throughput.svg", (12, 3.8), _throughput, results)
        if results.expiry:
            _picture(directory / "expiry.svg", (8, 3.2), _expiry, results)
        if results.memory:
            _picture(directory / "memory.svg", (8, 2.6), _memory, results)


def _picture(
    path: Path, size: tuple[float, float], draw_on: Callable[[Figure, Results], None], results: Results
) -> None:
    figure = plt.figure(figsize=size, layout="constrained")
    draw_on(figure, results)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _latency(figure: Figure, results: Results) -> None:
    """Throughput against latency, from 1 to 512 in flight."""

    def panel(axes: Axes, products: str) -> None:
        for target, colour in COLOURS.items():
            levels = _levels(results, "spread" if target == "empty" else products, target)
            rates = [rate for _, rate, _, _ in levels]
            axes.plot(rates, [p50 for _, _, p50, _ in levels], "o-", color=colour, label=f"{target}, p50", markersize=3)
            axes.plot(rates, [p99 for _, _, _, p99 in levels], ".:", color=colour, label=f"{target}, p99", markersize=3)
        axes.set(title=f"reserve, {NAMES[products]}", xlabel="requests/s", yscale="log")

    _panels(figure, PRODUCTS, panel, "ms")


def _throughput(figure: Figure, results: Results) -> None:
    """Throughput of each load by the number in flight."""

    def panel(axes: Axes, prefix: str) -> None:
        for products, style in zip(PRODUCTS, ("o-", "s-", "^-"), strict=True):
            levels = _levels(results, prefix + products, "service")
            axes.plot(*_by_level(levels), style, label=NAMES[products], markersize=3)
        axes.plot(*_by_level(_levels(results, prefix + "spread", "empty")), "--", color="C7", label="empty handler")
        axes.set(title=titles[prefix], xlabel="in flight", xscale="log", ylim=(0, None))
        axes.xaxis.set_major_formatter("{x:.0f}")

    titles = {"": "reserve", "cycle-": "reserve and deduct", "mixed-": "four reads of five"}
    _panels(figure, tuple(titles), panel, "calls/s")


def _expiry(figure: Figure, results: Results) -> None:
    axes = figure.subplots()
    looks, tenths = results.expiry["looks"], results.expiry["tenths"]
    seconds = [tenth * TENTH - results.expiry["before"] for tenth in range(0, len(tenths), 5)]
    axes.plot(seconds, [sum(tenths[at : at + 5]) * 2 for at in range(0, len(tenths), 5)], color="C0")
    axes.set(xlabel="seconds after 100 000 holds have expired", ylabel="reserves/s of others", ylim=(0, None))
    other = axes.twinx()
    other.plot([second for second, _ in looks], [holds for _, holds in looks], "--", color="C3")
    other.set(ylabel="expired holds that are left (dashed)", ylim=(0, None))


def _memory(figure: Figure, results: Results) -> None:
    axes = figure.subplots()
    axes.plot([at / 1000 for at, _ in results.memory], [size / 2**20 for _, size in results.memory], "o-", markersize=3)
    axes.set(xlabel="thousands of requests served", ylabel="MiB of memory", ylim=(0, None))


def _panels(figure: Figure, keys: Sequence[str], panel: Callable[[Axes, str], None], unit: str) -> None:
    all_axes = figure.subplots(1, len(keys), sharey=True)
    for axes, key in zip(all_axes, keys, strict=True):
        panel(axes, key)
    all_axes[0].set_ylabel(unit)
    all_axes[0].legend(fontsize=8)


def _levels(results: Results, load: str, target: str) -> list[tuple[int, float, float, float]]:
    """Give number in flight, rate, p50 and p99: medians of the rounds."""
    found = [row for row in results.rows["curves"] if (row.load, row.target) == (load, target)]
    levels = {row.in_flight: [other for other in found if other.in_flight == row.in_flight] for row in found}
    return [
        (
            level,
            median(row.per_second for row in rows) or 0.0,
            median(row.p50_ms for row in rows) or 0.0,
            median(row.p99_ms for row in rows) or 0.0,
        )
        for level, rows in levels.items()
    ]


def _by_level(levels: Sequence[tuple[int, float, float, float]]) -> tuple[list[int], list[float]]:
    return [level for level, *_ in levels], [rate for _, rate, *_ in levels]

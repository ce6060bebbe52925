"""The plots of a report. matplotlib is imported only when they are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from userproxy.bench.report.figures import number
from userproxy.bench.samples import Results

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from userproxy.bench.report.record import PathRecord, Record
    from userproxy.bench.samples import Spread

COLOURS = {
    "direct": "#9a9a9a",
    "redirect-to-host": "#d1495b",
    "redirect-to-pod": "#f0a05a",
    "steered": "#e8c547",
    "kube-proxy-iptables": "#1b6ca8",
    "kube-proxy-nftables": "#5fb0d9",
    "iptables-rules": "#274060",
    "kube-proxy-userspace": "#7a5195",
    "haproxy": "#2a9d6f",
    "nginx": "#a3c644",
}
"""Of each path, in every plot."""

_DPI = 150
_WIDTH = 10.0
_BAR_INCHES = 0.34
_GREY = "#555555"
_LABELLED_SHARE = 0.12
"""A part of a bar that is shorter than this share of the longest bar has no room for a label."""


class Plot(msgspec.Struct, frozen=True):
    """A plot with one panel for each of its metrics.

    Attributes:
        file: its name without `.png`.
        title: above it.
        panels: metric and title of each.
        stacked: whether the metrics are parts of one bar instead.
    """

    file: str
    title: str
    panels: tuple[tuple[str, str], ...]
    stacked: bool = False


BARS = (
    Plot(
        "requests",
        "Requests per second (higher is better)",
        (
            ("requests_1", "1 connection"),
            ("requests_64", "64 connections"),
            ("requests_512", "512 connections"),
        ),
    ),
    Plot(
        "latency",
        "Latency at 64 connections, ms (lower is better)",
        (("latency_p50", "p50"), ("latency_p99", "p99"), ("latency_p999", "p99.9")),
    ),
    Plot("new-connections", "New connections per second (higher is better)", (("new_connections", ""),)),
    Plot(
        "throughput",
        "Throughput, Gbit/s (higher is better)",
        (("throughput_1", "1 stream"), ("throughput_4", "4 streams")),
    ),
    Plot(
        "cpu",
        "CPU time of the proxy per request, µs (lower is better)",
        (("cpu_user", "user"), ("cpu_system", "system")),
        stacked=True,
    ),
    Plot("memory", "Memory of the proxy per open connection, KiB (lower is better)", (("memory", ""),)),
)
LINES = (
    Plot(
        "first-answer",
        "First answer of a new connection, by number of Services (lower is better)",
        (("first_answer", "ms from connect() to the first byte"),),
    ),
    Plot(
        "change",
        "A new Service works after, by number of Services (lower is better)",
        (("change", "ms from the change to the first connection"),),
    ),
)


def draw(record: Record, base: str, directory: Path) -> list[tuple[str, str]]:
    """Draw what there are figures for; returns titles and file names.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: a file cannot be written.
    """
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and optional

    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    results = Results(record.samples)
    drawn = []
    for plot in (*BARS, *LINES):
        panels = tuple(panel for panel in plot.panels if results.has(panel[0]))
        if not panels:
            continue
        kept = msgspec.structs.replace(plot, panels=panels)
        if plot in LINES:
            figure = _lines(kept, record, results)
        elif plot.stacked:
            figure = _stack(kept, record, results, base)
        else:
            figure = _bars(kept, record, results, base)
        file = f"{plot.file}.png"
        figure.savefig(directory / file, dpi=_DPI, bbox_inches="tight")
        drawn.append((plot.title, file))
    return drawn


def _bars(plot: Plot, record: Record, results: Results, base: str) -> Any:  # noqa: ANN401 - a Figure, see draw
    shown = _shown(plot, record, results)
    figure, axes = _figure(len(shown), len(plot.panels))
    for axis, (metric, title) in zip(axes, plot.panels, strict=True):
        for place, path in enumerate(shown):
            if found := results.spread(metric, path.name):
                _bar(axis, place, found.median, COLOURS[path.name])
                if found.count > 1:
                    style = {"color": "#222222", "capsize": 3, "linewidth": 1.2}
                    axis.errorbar(found.median, place, xerr=_around([found]), **style)
                _label(axis, place, found.high, found.median, _times(results, metric, path.name, base))
        _dress(axis, shown, title)
    _titles(figure, plot, record, base)
    return figure


def _stack(plot: Plot, record: Record, results: Results, base: str) -> Any:  # noqa: ANN401 - likewise
    shown = _shown(plot, record, results)
    figure, (axis,) = _figure(len(shown), 1)
    totals = {path.name: _total(plot, results, path.name) for path in shown}
    for place, path in enumerate(shown):
        left = 0.0
        for part, (metric, title) in enumerate(plot.panels):
            found = results.spread(metric, path.name)
            if not found:
                continue
            pale = part < len(plot.panels) - 1
            _bar(axis, place, found.median, COLOURS[path.name], left=left, pale=pale)
            if found.median > _LABELLED_SHARE * max(totals.values()):
                style = {"ha": "center", "va": "center", "fontsize": 8, "color": "black" if pale else "white"}
                axis.text(left + found.median / 2, place, f"{title} {number(found.median)}", **style)
            left += found.median
        ratio = f"x{left / totals[base]:.2f}" if totals.get(base) and path.name != base else ""
        _label(axis, place, left, left, ratio)
    _dress(axis, shown, f"pale: {plot.panels[0][1]}, full: {plot.panels[-1][1]}")
    _titles(figure, plot, record, base)
    return figure


def _lines(plot: Plot, record: Record, results: Results) -> Any:  # noqa: ANN401 - likewise
    from matplotlib.figure import Figure  # noqa: PLC0415 - see draw
    from matplotlib.ticker import LogLocator  # noqa: PLC0415 - see draw

    ((metric, title),) = plot.panels
    sizes = results.sizes(metric)
    figure = Figure(figsize=(_WIDTH, 4.6), layout="constrained")
    axis: Any = figure.subplots()
    for place, path in enumerate(record.paths):
        aside = 1.02 ** (place - len(record.paths) / 2)  # so that error bars do not hide each other
        points = [
            (size * aside, found) for size in sizes if (found := results.spread(metric, path.name, size))
        ]
        if not points:
            continue
        middle = [found.median for _, found in points]
        around = _around([found for _, found in points])
        style = {"color": COLOURS[path.name], "marker": "o", "capsize": 2, "markersize": 5}
        axis.errorbar(
            [size for size, _ in points], middle, yerr=around, label=path.title, elinewidth=1, **style
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axis.minorticks_off()
    axis.grid(axis="y", color="#e8e8e8", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.set_xlabel("Services")
    axis.set_ylabel(title)
    figure.suptitle(plot.title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _figure(bars: int, panels: int) -> tuple[Any, Sequence[Any]]:
    from matplotlib.figure import Figure  # noqa: PLC0415 - see draw

    figure = Figure(figsize=(_WIDTH, 1.3 + _BAR_INCHES * bars), layout="constrained")
    axes: Any = figure.subplots(1, panels, sharey=True, squeeze=False)
    return figure, list(axes[0])


def _bar(
    axis: Any,  # noqa: ANN401 - an Axes, see draw
    place: int,
    value: float,
    colour: str,
    *,
    left: float = 0.0,
    pale: bool = False,
) -> None:
    axis.barh(place, value, left=left, height=0.72, color=colour, alpha=0.55 if pale else 1.0)


def _label(axis: Any, place: int, end: float, value: float, ratio: str) -> None:  # noqa: ANN401 - likewise
    text = number(value) + (f"  {ratio}" if ratio else "")
    axis.annotate(
        text,
        (end, place),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color="#222222",
    )


def _dress(axis: Any, shown: Sequence[PathRecord], title: str) -> None:  # noqa: ANN401 - likewise
    axis.set_yticks(range(len(shown)), [path.title for path in shown])
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.set_xlim(0, axis.get_xlim()[1] * 1.42)  # room for the labels
    axis.xaxis.set_major_locator(_few_ticks())
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axis.tick_params(axis="x", labelsize=8, labelcolor=_GREY)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="#e8e8e8", linewidth=0.8)
    axis.set_axisbelow(True)
    if title:
        axis.set_title(title, fontsize=10, loc="left", color="#222222")


def _titles(figure: Any, plot: Plot, record: Record, base: str) -> None:  # noqa: ANN401 - a Figure
    figure.suptitle(plot.title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    title = next(path.title for path in record.paths if path.name == base)
    rounds = record.settings.rounds
    spread = "; error bars: quartiles" if rounds > 1 and not plot.stacked else ""
    figure.supxlabel(
        f"x: relative to {title}; median of {rounds} round{'s' if rounds > 1 else ''}{spread}",
        fontsize=8,
        color=_GREY,
        x=0.99,
        ha="right",
    )


def _shown(plot: Plot, record: Record, results: Results) -> list[PathRecord]:
    return [
        path for path in record.paths if any(results.spread(metric, path.name) for metric, _ in plot.panels)
    ]


def _times(results: Results, metric: str, path: str, base: str) -> str:
    ratio = results.ratio(metric, path, base)
    return "" if ratio is None or path == base else f"x{ratio:.2f}"


def _total(plot: Plot, results: Results, path: str) -> float:
    parts = (results.spread(metric, path) for metric, _ in plot.panels)
    return sum(part.median for part in parts if part)


def _around(spreads: Sequence[Spread]) -> list[list[float]]:
    """Error bars as matplotlib takes them: how far below, how far above."""
    below = [max(0.0, each.median - each.low) for each in spreads]
    return [below, [max(0.0, each.high - each.median) for each in spreads]]


def _few_ticks() -> Any:  # noqa: ANN401 - a Locator, see draw
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - see draw

    return MaxNLocator(nbins=4)

"""A picture of results: how many times faster the subject is than each peer, case by case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .report import Result, best_ratio, geometric_mean, groups, peer_names, ratios
from .summary import families

COLOURS = {"numpy": "#4c72b0", "np.einsum": "#8fb0dd", "c_einsum": "#8fb0dd", "opt_einsum": "#8172b3",
           "torch": "#dd8452", "jax": "#55a868", "pytblis": "#937860", "einjit": "#c44e52",
           "einjit.compile": "#c44e52"}
DTYPE_COLOURS = {"float32": "#4c72b0", "float64": "#55a868", "float16": "#8fb0dd", "bfloat16": "#b3cde8",
                 "complex64": "#dd8452", "complex128": "#b5602f", "int8": "#d6c8e8", "int16": "#b3a2cf",
                 "int32": "#8172b3", "int64": "#5a4b8c"}

LONGEST_NAME = 36


def draw(results: Sequence[Result], path: Path) -> bool:
    """Write the chart, PNG or SVG by the name's ending. False if there is nothing to draw.

    Raises ImportError without matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [(f"{result.suite}, {dtype}, {result.options.get('threads', 1)} thread(s)", result.subject, rows)
              for result in results if result.unit != "latency"
              for dtype, rows in groups(result.rows, lambda row: row["dtype"]).items()
              if any(best_ratio(row, result.subject) for row in rows)]
    if not panels:
        return False
    widest = max(len(rows) for *_, rows in panels)
    figure, axes = pyplot.subplots(len(panels), 1, squeeze=False, layout="constrained",
                                   figsize=(max(13, min(24, 3 + 0.2 * widest)), 4.6 * len(panels)))
    for axis, (title, subject, rows) in zip(axes[:, 0], panels):
        _panel(axis, title, subject, rows)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return True


def draw_families(results: Sequence[Result], path: Path) -> bool:
    """One picture of many suites: a group of bars for each family, a bar for each dtype, from 1 to the best
    peer's geometric mean; a dot is the least of the family's cases. As `draw`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = families(results)
    if not found:
        return False
    bars = sum(len(standings) + 1 for standings in found.values())
    figure, axis = pyplot.subplots(layout="constrained", figsize=(9, 1.2 + 0.13 * bars))
    place, ticks = 0, []
    for standings in found.values():
        ticks.append(place + (len(standings) - 1) / 2)
        for standing in standings:
            colour = DTYPE_COLOURS.get(standing.dtype, "#777777")
            axis.barh(place, standing.best - 1, left=1, height=0.85, color=colour, label=standing.dtype)
            axis.plot(standing.least, place, "o", color="black", markersize=2.2)
            place += 1
        place += 1
    axis.set_yticks(ticks, list(found), fontsize=7)
    axis.set_ylim(place - 0.5, -1)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda value, position: f"{value:g}")
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_title(f"the best peer's time / {results[0].subject}'s: geometric mean, and the least (dot)",
                   loc="left", fontsize=9)
    axis.grid(axis="x", color="#eeeeee")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axis.get_legend_handles_labels()
    once = dict(zip(labels, handles))
    axis.legend(once.values(), once.keys(), fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return True


def _panel(axis, title: str, subject: str, rows: Sequence[dict]) -> None:
    """Cases from left to right in the order of the best peer's ratio; below 1 that peer is faster."""
    pairs = [(found[1], row) for row in rows if (found := best_ratio(row, subject))]
    pairs.sort(key=lambda pair: pair[0])
    best, rows = [ratio for ratio, _ in pairs], [row for _, row in pairs]
    bars = [ratio - 1 for ratio in best]
    places = range(len(rows))
    axis.bar(places, bars, bottom=1, width=0.8, color="#dddddd", label="best peer", zorder=1)
    for name in peer_names(rows, subject):
        found = [(x, each[name]) for x, row in zip(places, rows) if name in (each := ratios(row, subject))]
        colour = COLOURS.get(name, "#333333")
        axis.scatter(*zip(*found), s=22, color=colour, label=name, zorder=3, linewidths=0)
    axis.axhline(1, color="black", linewidth=0.8, zorder=2)
    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
    axis.set_ylabel(f"time / time of {subject}")
    figures = f"{geometric_mean(best):.2f} in geometric mean, at least {min(best):.2f}"
    axis.set_title(f"{title}: best peer / {subject} {figures}", loc="left", fontsize=10)
    axis.set_xticks(list(places), [shortened(row["name"]) for row in rows], rotation=90, fontsize=6)
    axis.margins(x=0.01)
    axis.grid(axis="y", color="#eeeeee")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7, ncols=8, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)


def shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME - 1]}…"

"""What many runs come to: a line a suite, dtype and number of threads, for a terminal or as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isnan, nan

from .peers import PEERS
from .report import Result, best_ratio, duration, geometric_mean, groups, is_own, ratios, show

NAMED = 4           # of the cases where a peer is faster, so many are named
ALONE = "einjit.alone"
LONG = 5e-3         # seconds from which on starting threads costs nothing


@dataclass(frozen=True)
class Behind:
    """A case where `peer` is faster, and its time over the subject's."""

    case: str
    ratio: float
    peer: str


@dataclass(frozen=True)
class Standing:
    """The subject beside its peers over one suite. `best` and `least`: geometric mean and least of the fastest
    peer's time over the subject's; `share`: geometric mean of the share of the machine's limit, nan where only
    time counts; `peers`: each one's geometric mean."""

    suite: str
    dtype: str
    threads: int
    cases: int
    share: float
    best: float
    least: float
    at: str
    peers: dict[str, float] = field(default_factory=dict)
    behind: tuple[Behind, ...] = ()

    @property
    def title(self) -> str:
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        return f"{self.suite} {self.dtype}{threads}"


def summarise(results: Sequence[Result]) -> list[Standing]:
    """Of several runs of a suite, the latest counts, case by case."""
    found = (_standing(*key, cases) for key, cases in _latest(_beside_peers(results)).items())
    return [standing for standing in found if standing]


def _beside_peers(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if not result.by_itself]


def _latest(results: Sequence[Result]) -> dict[tuple[str, str, int], list[tuple[Result, dict]]]:
    """The cases of each suite, dtype and number of threads, with the run that each is of."""
    latest: dict[tuple[str, str, int], dict[str, tuple[Result, dict]]] = {}
    for result in sorted(results, key=lambda result: result.date):
        if result.unit != "latency":
            for row in result.rows:
                key = (suite_of(result), row["dtype"], result.options.get("threads", 1))
                latest.setdefault(key, {})[row["name"]] = (result, row)
    return {key: list(cases.values()) for key, cases in latest.items()}


def suite_of(result: Result) -> str:
    """The suite with what else decides on its cases."""
    options = result.options
    parts = [result.suite, options.get("size") if result.suite == "tccg" else "",
             "out=" if options.get("out") else "", "cold" if options.get("cold") else ""]
    return " ".join(str(part) for part in parts if part)


def _standing(suite: str, dtype: str, threads: int, cases: Sequence[tuple[Result, dict]]) -> Standing | None:
    rated = [(best[1], best[0], row["name"]) for result, row in cases
             if (best := best_ratio(row, result.subject))]
    if not rated:
        return None
    shares = [row["least"] / own for result, row in cases
              if result.unit == "rate" and (own := row["seconds"].get(result.subject))]
    peers: dict[str, list[float]] = {}
    for result, row in cases:
        for name, ratio in ratios(row, result.subject).items():
            if name not in row["wrong"] and not is_own(name, result.subject):
                peers.setdefault(name, []).append(ratio)
    least, _, at = min(rated)
    behind = tuple(Behind(case, ratio, peer) for ratio, peer, case in sorted(rated) if ratio < 1)
    return Standing(suite, dtype, threads, len(cases), geometric_mean(shares), geometric_mean(r for r, *_ in rated),
                    least, at, {name: geometric_mean(values) for name, values in peers.items()}, behind)


@dataclass(frozen=True)
class Speedup:
    """What threads gain the subject over itself on one thread: the geometric mean, the least and its case, and the
    least of the cases that are bound by multiply-adds and take one thread `LONG` or longer (nan: there is none)."""

    title: str
    cases: int
    mean: float
    least: float
    at: str
    least_long: float


def speedups(results: Sequence[Result]) -> list[Speedup]:
    """Of runs without other libraries."""
    found = []
    for (suite, dtype, threads), cases in _latest([result for result in results if result.by_itself]).items():
        gains = [(alone / own, row["name"], row["limit"] == "FMA" and alone >= LONG) for result, row in cases
                 if (own := row["seconds"].get(result.subject)) and (alone := row["seconds"].get(ALONE))]
        if gains:
            least, at, _ = min(gains)
            least_long = min((gain for gain, _, long in gains if long), default=nan)
            found.append(Speedup(f"{suite} {dtype}, {threads} threads", len(gains),
                                 geometric_mean(gain for gain, *_ in gains), least, at, least_long))
    return found


# -- tables ----------------------------------------------------------------------------------------------

def print_summary(results: Sequence[Result]) -> None:
    standings = summarise(results)
    if standings:
        show("summary: time of the peer / own time, geometric means", *_table(standings))
    if gains := speedups(results):
        show("time on one thread / time", *_speedup_table(gains))
    for standing in standings:
        if standing.behind:
            print(f"below 1 in {standing.title}: {_named(standing.behind, len(standing.behind))}")


def markdown(results: Sequence[Result]) -> str:
    """The same as Markdown: the standings, the latencies, and where a peer is faster."""
    standings = summarise(results)
    parts = [_markdown_table(*_table(standings))] if standings else []
    if gains := speedups(results):
        parts.append(_markdown_table(*_speedup_table(gains)))
    figures = list(latencies(results))
    if figures:
        parts.append(_markdown_table(("latency", "at most"), figures))
    behind = [f"- {standing.title}, {len(standing.behind)} of {standing.cases}: {_named(standing.behind, NAMED)}"
              for standing in standings if standing.behind]
    return "\n\n".join([*parts, *(["\n".join(behind)] if behind else [])])


def latencies(results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    """The longest of each kind of figure in the latest run."""
    runs = [result for result in results if result.unit == "latency"]
    if runs:
        latest = max(runs, key=lambda result: result.date)
        for kind, rows in groups(latest.rows, lambda row: row["name"].split(": ")[0]).items():
            yield kind, duration(max(row["seconds"] for row in rows))


def families(results: Sequence[Result]) -> dict[str, list[Standing]]:
    """For each suite and family, the standing in each dtype."""
    found: dict[str, list[Standing]] = {}
    for (suite, dtype, threads), cases in _latest(_beside_peers(results)).items():
        for family, members in _by_family(cases).items():
            if standing := _standing(suite, dtype, threads, members):
                found.setdefault(" ".join(dict.fromkeys(f"{suite} {family}".split())), []).append(standing)
    return found


def _by_family(cases: Sequence[tuple[Result, dict]]) -> dict[str, list[tuple[Result, dict]]]:
    found: dict[str, list[tuple[Result, dict]]] = {}
    for result, row in cases:
        found.setdefault(row["family"], []).append((result, row))
    return found


def _table(standings: Sequence[Standing]) -> tuple[tuple[str, ...], list[list[str]]]:
    found = dict.fromkeys(name for standing in standings for name in standing.peers)
    names = [*(name for name in PEERS if name in found), *(name for name in found if name not in PEERS)]
    head = ("suite", "cases", "share of limit", "best peer", "least", "below 1", *names)
    return head, [_line(standing, names) for standing in standings]


def _line(standing: Standing, names: Sequence[str]) -> list[str]:
    each = (f"{standing.peers[name]:.2f}" if name in standing.peers else "-" for name in names)
    share = "-" if isnan(standing.share) else f"{standing.share:.2f}"
    return [standing.title, str(standing.cases), share, f"{standing.best:.2f}",
            f"{standing.least:.2f}", str(len(standing.behind)), *each]


def _speedup_table(gains: Sequence[Speedup]) -> tuple[tuple[str, ...], list[list[str]]]:
    head = ("time on one thread / time", "cases", "mean", "least", "at", f"least from {1e3 * LONG:.0f} ms on")
    return head, [[gain.title, str(gain.cases), f"{gain.mean:.2f}", f"{gain.least:.2f}", gain.at,
                   "-" if isnan(gain.least_long) else f"{gain.least_long:.2f}"] for gain in gains]


def _named(behind: Sequence[Behind], limit: int) -> str:
    shown = ", ".join(f"{case.case} {case.ratio:.3g} ({case.peer})" for case in behind[:limit])
    return shown + (", ..." if len(behind) > limit else "")


def _markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))

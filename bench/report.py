"""Results: tables for a terminal, JSON to keep, a chart."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from math import exp, log
from pathlib import Path

from .machine import Peaks
from .measure import Row

OWN = "einjit"
PAGE_WIDTH = 160  # where the output is not a terminal


@dataclass(frozen=True)
class Result:
    """A run of one suite, in the form that is saved.

    `rows`: of a timed suite, a dict for each case (`timed_row`); of latency, a dict for each figure: name,
    seconds, cpu. `unit` is the suite's; "latency" for the latter. `absent`: peers that are not here, and why.
    """

    suite: str
    unit: str
    date: str
    subject: str
    options: dict[str, object]
    machine: dict[str, object]
    peaks: dict[str, object]
    absent: dict[str, str]
    rows: list[dict[str, object]] = field(default_factory=list)

    @property
    def by_itself(self) -> bool:
        """Whether no other library was timed: the threads of one may still be busy when it is another's turn."""
        timed = {name for row in self.rows for name in row["seconds"]} if self.unit != "latency" else set()
        return bool(timed) and all(is_own(name, self.subject) for name in timed)

    def save(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        threads = self.options.get("threads", 1)
        size = [str(self.options["size"])] if self.suite == "tccg" else []
        out = ["out"] if self.options.get("out") else []
        alone = ["alone"] if self.by_itself else []
        parts = [self.suite, *size, *out, *([f"{threads}threads"] if threads > 1 else []), *alone,
                 self.date.replace(":", ""), self.machine["llvm_cpu"]]
        path = folder / f"{'-'.join(parts)}.json"
        rows = ",\n".join(json.dumps(row) for row in self.rows)
        head = json.dumps({**asdict(self), "rows": None}, indent=1)
        path.write_text(head.replace('"rows": null', f'"rows": [\n{rows}\n]') + "\n")
        return path


def read(path: Path) -> Result:
    """Raises ValueError for a file that holds something else."""
    try:
        return Result(**json.loads(path.read_text()))
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} holds no result of this benchmark: {error}") from None


def timed_row(row: Row, peaks: Peaks) -> dict[str, object]:
    """`limit` is what bounds the case on this machine, `least` the seconds it takes at that bound."""
    case = row.case
    limit, least = peaks.limit(case.flops, case.bytes, case.writes, case.dtype)
    return {"name": case.name, "equation": case.equation, "sizes": dict(case.sizes), "dtype": case.dtype,
            "family": case.family, "out": case.out, "twin": case.twin, "flops": case.flops,
            "bytes": case.bytes, "limit": limit, "least": least, "seconds": row.seconds,
            "refused": row.refused, "wrong": row.wrong, "strided": row.strided}


# -- figures ---------------------------------------------------------------------------------------------

def ratios(row: dict, subject: str) -> dict[str, float]:
    """Each peer's time over the subject's; empty if the subject did not run."""
    seconds = row["seconds"]
    own = seconds.get(subject)
    return {name: s / own for name, s in seconds.items() if name != subject} if own else {}


def is_own(name: str, subject: str) -> bool:
    """Whether that is the subject's own library: a compiled handle, or the library on one thread, is no peer."""
    return subject.split(".")[0] == name.split(".")[0] == OWN


def best_ratio(row: dict, subject: str) -> tuple[str, float] | None:
    """The fastest peer whose result was right, and its time over the subject's."""
    right = {name: ratio for name, ratio in ratios(row, subject).items()
             if name not in row["wrong"] and not is_own(name, subject)}
    return min(right.items(), key=lambda item: item[1]) if right else None


def geometric_mean(values: Iterable[float]) -> float:
    logs = [log(value) for value in values]
    return exp(sum(logs) / len(logs)) if logs else float("nan")


def groups(rows: Sequence[dict], key: Callable[[dict], str]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


# -- tables ----------------------------------------------------------------------------------------------

def print_result(result: Result) -> None:
    print_machine(result)
    if result.unit == "latency":
        show("latency", ("figure", "wall s", "CPU s"), [latency_line(row) for row in result.rows])
        return
    names = peer_names(result.rows, result.subject)
    head = (result.subject, *names)
    for dtype, rows in groups(result.rows, lambda row: row["dtype"]).items():
        title = f"{result.suite} {dtype}"
        if result.unit == "time":
            show(title, ("case", *head), [time_line(row, head) for row in rows])
        else:
            columns = ("case", result.subject, "rate", "share", *names, "best peer")
            lines = [rate_line(row, result.subject, names) for row in rows]
            show(f"{title}: time / time of {result.subject}", columns, lines)
            summary(title, rows, result.subject, names)
    problems(result.rows)


def print_machine(result: Result) -> None:
    machine, peaks = result.machine, result.peaks
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    threads = result.options.get("threads", 1)
    print(f"{machine['cpu']}, {threads} thread(s), commit {machine['commit']}, {result.date}")
    print(f"Python {machine['python']}, {versions}")
    print(f"BLAS: {'; '.join(machine['blas'])}")
    if peaks:
        flops = ", ".join(f"{dtype} {peak / 1e9:.1f} GF/s" for dtype, peak in peaks["flops"].items())
        triad, read_only = peaks["triad"] / 1e9, peaks["read"] / 1e9
        print(f"measured: {flops}; triad {triad:.1f} GB/s, read {read_only:.1f} GB/s")
    for name, reason in result.absent.items():
        print(f"left out: {name} ({reason})")


def peer_names(rows: Sequence[dict], subject: str) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row["seconds"])
    return [name for name in names if name != subject]


def time_line(row: dict, names: Sequence[str]) -> list[str]:
    return [row["name"], *(mark(row, name, duration(row["seconds"].get(name))) for name in names)]


def rate_line(row: dict, subject: str, names: Sequence[str]) -> list[str]:
    own = row["seconds"].get(subject)
    found = ratios(row, subject)
    best = best_ratio(row, subject)
    share = f"{row['least'] / own:.2f} {row['limit']}" if own else ""
    return [row["name"], mark(row, subject, duration(own)), rate(row, own), share,
            *(mark(row, name, f"{found[name]:.2f}" if name in found else "-") for name in names),
            f"{best[1]:.2f} {best[0]}" if best else ""]


def mark(row: dict, name: str, text: str) -> str:
    """`text`, marked where the peer was wrong or returned a strided view."""
    return text + ("!" if name in row["wrong"] else "") + ("°" if name in row["strided"] else "")


def rate(row: dict, seconds: float | None) -> str:
    if not seconds:
        return ""
    if row["limit"] == "FMA":
        return f"{row['flops'] / seconds / 1e9:.1f} GF/s"
    return f"{row['bytes'] / seconds / 1e9:.1f} GB/s"


def summary(title: str, rows: Sequence[dict], subject: str, names: Sequence[str]) -> None:
    """A line a family and one for all: geometric mean and least ratio to the best peer and to each."""
    families = groups(rows, lambda row: row["family"])
    lines = [summary_line(family, members, subject, names) for family, members in families.items()]
    if len(families) > 1:
        lines.append(summary_line("all", rows, subject, names))
    show(f"{title}: geometric means", ("family", "cases", "share", "best peer", "least", "at", *names), lines)
    timed = {row["name"]: row for row in rows if subject in row["seconds"]}
    speeds = {name: row["flops"] / row["seconds"][subject] for name, row in timed.items()}
    against = [speeds[name] / speeds[row["twin"]] for name, row in timed.items() if row["twin"] in speeds]
    if against:
        print(f"rate of {subject} over its rate on the matrix product of equal m, n, k: "
              f"geometric mean {geometric_mean(against):.2f}, least {min(against):.2f}\n")


def summary_line(family: str, rows: Sequence[dict], subject: str, names: Sequence[str]) -> list[str]:
    best = [(found[1], row["name"]) for row in rows if (found := best_ratio(row, subject))]
    shares = [row["least"] / row["seconds"][subject] for row in rows if subject in row["seconds"]]
    found = [(ratios(row, subject), row["wrong"]) for row in rows]
    each = [[ratio[name] for ratio, wrong in found if name in ratio and name not in wrong] for name in names]
    least, at = min(best, default=(float("nan"), ""))
    mean = geometric_mean(ratio for ratio, _ in best)
    return [family, str(len(rows)), f"{geometric_mean(shares):.2f}", f"{mean:.2f}", f"{least:.2f}", at,
            *(f"{geometric_mean(values):.2f}" if values else "-" for values in each)]


def problems(rows: Sequence[dict]) -> None:
    for row in rows:
        for name, error in row["wrong"].items():
            print(f"WRONG: {name} on {row['name']} {row['dtype']}: off by {error:.3g} times the tolerance")
    for (name, reason), members in groups(
            [{"key": item, "name": row["name"]} for row in rows for item in row["refused"].items()],
            lambda entry: entry["key"]).items():
        shown = ", ".join(entry["name"] for entry in members[:3]) + (", ..." if len(members) > 3 else "")
        print(f"refused: {name} on {shown}: {reason}")
    if any(row["strided"] for row in rows):
        print("° the result is not in C order in memory; ! it was wrong")


def latency_line(row: dict) -> list[str]:
    return [str(row["name"]), duration(row["seconds"]), duration(row["cpu"])]


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def show(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """One table; every column but the first is flush right."""
    try:
        from rich import box
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ImportError:
        print(plain_table(title, head, lines))
        return
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for position, name in enumerate(head):
        table.add_column(name, justify="right" if position else "left", no_wrap=position > 0, overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    Console(width=None if sys.stdout.isatty() else PAGE_WIDTH, highlight=False).print(table)


def plain_table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    columns = list(zip(head, *lines))
    widths = [max(map(len, column)) for column in columns]

    def padded(line: Sequence[str]) -> str:
        rest = (text.rjust(width) for text, width in zip(line[1:], widths[1:]))
        return "  ".join([line[0].ljust(widths[0]), *rest]).rstrip()

    return "\n".join([title, padded(head), "  ".join("-" * w for w in widths), *map(padded, lines), ""])

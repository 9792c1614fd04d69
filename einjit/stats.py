"""Counters of what einjit did in this process."""
from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Mapping


@dataclass(frozen=True)
class Stats:
    """`planned`: problems (equation, layouts, options) planned; `compiles`: kernels compiled by Numba, in
    `compile_seconds` of CPU time; `disk_hits`: kernels loaded from the disk cache; `handed_over`: calls
    that went to NumPy's einsum, by reason. Calls that reuse a plan are not counted: counting would cost
    them a tenth of their time."""

    planned: int
    compiles: int
    compile_seconds: float
    disk_hits: int
    handed_over: Mapping[str, int]


_lock = threading.Lock()
_totals: Counter = Counter()
_handed: Counter = Counter()


def count(**amounts: float) -> None:
    with _lock:
        _totals.update(amounts)


def hand_over(reason: str) -> None:
    with _lock:
        _handed[reason] += 1


def stats() -> Stats:
    """What einjit has done so far in this process."""
    with _lock:
        return Stats(_totals["planned"], _totals["compiles"], float(_totals["compile_seconds"]),
                     _totals["disk_hits"], dict(_handed))

"""Timing, in turn: each peer runs for a few milliseconds, then the next, round after round; the fastest call
counts. What disturbs the machine for a while so disturbs every peer.

The order is another one in each round: who runs after a peer with copies of its own (JAX) finds nothing of the
operands in the caches, and on arrays of twice L3 takes a tenth longer for all of its turn (Zen 4).

Before anything is timed, each peer's result is compared with a reference in double precision.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

import numpy as np

from .cases import Case, Reference, reference
from .peers import Call, Peer

TURN = 0.01  # seconds a peer runs before it is the next one's turn
SAMPLE = 5e-5  # shorter calls are timed many at a time, for at least this long
SLOW = 2.0  # a peer whose single call takes longer is not asked again
# Nor is one, after its very first call, that took so many seconds and so many times the best one's time. Where a
# first call compiles, it must be so long that this hardly shows.
BEHIND, FAR_BEHIND = (SLOW, 1.5), (0.2, 10.0)
SETTLE = 0.03  # with threads: until the idle ones of other libraries stop spinning (OpenBLAS: after 2**26 cycles)
WAKING_CALLS, WAKING = 12, 0.3  # with threads: calls that a turn begins with, or seconds
COLD_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Row:
    """One case, timed. `seconds` of each peer that computed it; `refused` says why a peer did not, `wrong` by
    how many tolerances it was off; `strided` names peers whose result was no C-contiguous array."""

    case: Case
    seconds: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, float] = field(default_factory=dict)
    strided: list[str] = field(default_factory=list)


@dataclass
class Runner:
    """A peer on one case, and the best it did so far. `number`: calls a sample."""

    name: str
    call: Call
    number: int = 1
    best: float = inf
    finished: bool = False


def time_case(case: Case, peers: Mapping[str, Peer], seconds: float, threads: int = 1,
              cold: bool = False) -> Row:
    """Check and time every peer on `case`, for `seconds` each."""
    operands = case.operands()
    out = case.new_output() if case.out else None
    expected = reference(case, operands)
    row = Row(case)
    runners: list[Runner] = []
    for name, peer in peers.items():
        best = min((other.best for other in runners), default=inf)
        if runner := _checked(row, name, peer, operands, out, expected, best):
            runners.append(runner)
    sweep = None
    if cold:
        sweep = np.ones(COLD_BYTES // 8)
        for runner in runners:
            runner.best = runner.best if runner.finished else inf
    gc.collect()
    gc.disable()
    try:
        _rounds(runners, seconds, threads, sweep)
    finally:
        gc.enable()
    row.seconds.update((runner.name, runner.best) for runner in runners)
    return row


def _checked(row: Row, name: str, peer: Peer, operands: list[np.ndarray], out: np.ndarray | None,
             expected: Reference, best: float) -> Runner | None:
    """A peer ready to be timed; what it gets wrong is noted, and timed all the same. `best`: the others' so far."""
    try:
        if out is not None:
            out[...] = 0  # no peer may live on another's result
        call = peer.prepare(row.case, operands, out)
        start = time.perf_counter()
        result = np.asarray(call())
        first = time.perf_counter() - start
        if result.shape != row.case.shape(row.case.output) or result.dtype != row.case.result_dtype:
            raise TypeError(f"the result is {result.dtype} of shape {result.shape}")
    except Exception as error:  # whatever a library raises for what it cannot do
        row.refused[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return None
    if (error := expected.error(result)) > 1:
        row.wrong[name] = error
    if not result.flags.c_contiguous:
        row.strided.append(name)
    runner = Runner(name, call)
    if _is_behind(first, best, peer.compiles):
        runner.best, runner.finished = first, True
    else:
        _calibrate(runner)
    return runner


def _is_behind(first: float, best: float, compiles: bool) -> bool:
    limits = [BEHIND] if compiles else [BEHIND, FAR_BEHIND]
    return any(first > seconds and first > times * best for seconds, times in limits)


def _calibrate(runner: Runner) -> None:
    """Warm up, and find how many calls make a sample."""
    took = _sample(runner)
    if took > TURN:  # too long for the clock or the caches to matter
        runner.best, runner.finished = took, took > SLOW
    while took * runner.number < SAMPLE:
        runner.number *= 2
        took = _sample(runner)


def _rounds(runners: list[Runner], seconds: float, threads: int, sweep: np.ndarray | None) -> None:
    spent = dict.fromkeys((runner.name for runner in runners), 0.0)
    shuffle = random.Random(0).shuffle
    while waiting := [r for r in runners if not r.finished]:
        shuffle(waiting)
        for runner in waiting:
            if threads > 1:
                time.sleep(SETTLE)
                _wake_threads(runner)
            spent[runner.name] += _turn(runner, seconds, sweep)
            runner.finished = spent[runner.name] >= seconds


def _wake_threads(runner: Runner) -> None:
    """Calls that do not count. After a pause torch's threads may begin on one core: 20 ms for each of its first two
    or three calls, whatever they compute."""
    start = time.perf_counter()
    for _ in range(WAKING_CALLS):
        runner.call()
        if time.perf_counter() - start > WAKING:
            return


def _turn(runner: Runner, seconds: float, sweep: np.ndarray | None) -> float:
    """Samples for about TURN, two at least unless one takes all of the peer's `seconds`; returns how long it took."""
    start = time.perf_counter()
    samples = 0
    while (elapsed := time.perf_counter() - start) < TURN or (samples < 2 and elapsed < seconds):
        if sweep is not None:
            sweep += 1.0
            runner.number = 1
        runner.best = min(runner.best, _sample(runner))
        samples += 1
    return time.perf_counter() - start


def _sample(runner: Runner) -> float:
    """Seconds a call. Each result is dropped before the next call, so that its memory can serve again."""
    call, clock = runner.call, time.perf_counter
    start = clock()
    for _ in range(runner.number):
        call()
    return (clock() - start) / runner.number

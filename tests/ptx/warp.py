"""Operations of whole warps: shuffles, votes, matrices. Translated code calls them with the running blocks `s`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import DivergentWarp, UnsupportedPtx
from .floats import bfloat, half
from .integers import Lanes, packed, unpacked
from .threads import WARP

if TYPE_CHECKING:
    from .execute import Running

Mask = np.ndarray | None
POSITIONS = np.arange(WARP)


def shuffle(s: Running, how: str, value: Lanes, other: Lanes, limits: Lanes, members: Lanes, m: Mask) -> list[Lanes]:
    """The value of another lane, and whether there is one: where there is none, the lane's own."""
    _require(s, members, m)
    lane = s.threads.slot % WARP
    other, limits = (s.spread(x).astype(np.int64) for x in (other, limits))
    bound, segment = limits & 31, limits >> 8 & 31
    last = lane & segment | bound & ~segment
    other &= 31
    source = {"up": lane - other, "down": lane + other, "bfly": lane ^ other,
              "idx": lane & segment | other & ~segment}[how]
    valid = source >= last if how == "up" else source <= last
    slot = s.threads.warp * WARP + np.where(valid, source, lane)
    missing = ~_by_warp(s, s.active(m)).ravel()[slot] & s.active(m)
    if missing.any():
        at = np.flatnonzero(missing)[0]
        raise DivergentWarp(f"lane {lane[at]} gets what lane {source[at]} has, which takes no part")
    return [_by_warp(s, s.spread(value)).ravel()[slot], valid]


def vote(s: Running, how: str, predicate: Lanes, members: Lanes, m: Mask) -> Lanes:
    _require(s, members, m)
    chosen = _chosen(s, members, m)
    ballot = _mask(_by_warp(s, s.spread(predicate) & s.active(m)))[s.threads.warp] & chosen
    if how == "ballot":
        return ballot
    return {"any": ballot != 0, "all": ballot == chosen, "uni": (ballot == 0) | (ballot == chosen)}[how]


def active_mask(s: Running, m: Mask) -> Lanes:
    return _mask(_by_warp(s, s.active(m)))[s.threads.warp]


def reduced(s: Running, how: str, value: Lanes, members: Lanes, m: Mask) -> Lanes:
    """redux: over the members, which must be the whole warp or all of it that takes part."""
    _require(s, members, m)
    if (_chosen(s, members, m) != active_mask(s, m))[s.active(m)].any():
        raise UnsupportedPtx("redux over a part of a warp's active lanes")
    function = {"add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or,
                "xor": np.bitwise_xor}[how]
    result = np.zeros(s.threads.warps, value.dtype)
    values, active = _by_warp(s, s.spread(value)), _by_warp(s, s.active(m))
    for warp in np.flatnonzero(active.any(axis=1)):
        result[warp] = function.reduce(values[warp, active[warp]], dtype=value.dtype)
    return result[s.threads.warp]


def sync_warp(s: Running, members: Lanes, m: Mask) -> None:
    _require(s, members, m)
    s.shared.pass_warp_barrier(np.unique(s.threads.warp[s.active(m)]))


def load_matrix(s: Running, address: Lanes, count: int, transposed: bool, m: Mask) -> list[Lanes]:
    """ldmatrix: lane 8 * n + r has the address of row r of matrix n; each lane gets two neighbours of each matrix."""
    _require_whole(s, m)
    lane = np.flatnonzero(s.active(m) & (s.threads.slot % WARP < 8 * count))
    rows = s.shared.load_rows(lane, s.spread(address)[lane].astype(np.int64))
    matrices = np.zeros((s.threads.warps, count, 8, 8), np.uint16)
    matrices.reshape(-1, 8)[_row_of(s, lane, count)] = rows.view(np.uint16)
    warp, row, column = s.threads.warp, s.threads.slot % WARP // 4, s.threads.slot % 4 * 2
    if transposed:
        matrices = matrices.swapaxes(2, 3)
    return [packed([matrices[warp, n, row, column], matrices[warp, n, row, column + 1]], np.uint32)
            for n in range(count)]


def _row_of(s: Running, lane: np.ndarray, count: int) -> np.ndarray:
    return s.threads.warp[lane] * 8 * count + s.threads.slot[lane] % WARP


def multiply_matrices(s: Running, shape: str, a_kind: str, b_kind: str, a: list[Lanes], b: list[Lanes],
                      c: list[Lanes], m: Mask) -> list[Lanes]:
    """mma: a * b + c of a warp. Register q of a lane holds neighbouring elements of row lane / 4 of a and of column
    lane / 4 of b, which begin at lane % 4 times their number; further registers are 8 rows or half the depth on."""
    _require_whole(s, m)
    row, part, warp = s.threads.slot % WARP // 4, s.threads.slot % 4, s.threads.warp
    tall = 2 if shape.startswith("m16") else 1      # blocks of 8 rows
    left, right = ([_elements(s.spread(x), kind) for x in operand] for operand, kind in ((a, a_kind), (b, b_kind)))
    each = len(left[0])
    depth = 4 * each * len(right)
    if shape != f"m{8 * tall}n8k{depth}" or len(left) != tall * len(right):
        raise UnsupportedPtx(f"mma of {shape} with {len(a)} and {len(b)} registers")
    wide = np.int64 if a_kind in ("s8", "u8") else np.float64
    first, second, third = (np.zeros((s.threads.warps, *extents), wide)
                            for extents in ((8 * tall, depth), (depth, 8), (8 * tall, 8)))
    for q, elements in enumerate(left):
        for n, element in enumerate(elements):
            first[warp, row + 8 * (q % tall), each * part + n + 4 * each * (q // tall)] = element
    for q, elements in enumerate(right):
        for n, element in enumerate(elements):
            second[warp, each * part + n + 4 * each * q, row] = element
    places = [(row + 8 * (q // 2), 2 * part + q % 2) for q in range(len(c))]
    for (i, j), value in zip(places, c):
        third[warp, i, j] = s.spread(value)
    product = (first @ second + third).astype(c[0].dtype)
    return [product[warp, i, j] for i, j in places]


def _elements(x: Lanes, kind: str) -> list[Lanes]:
    """What an operand's register holds, the lowest first."""
    if kind in ("f16", "bf16"):
        return [(half if kind == "f16" else bfloat)(part) for part in unpacked(x, np.uint16, 2)]
    if kind in ("s8", "u8"):
        return [part.view(np.int8) if kind == "s8" else part for part in unpacked(x, np.uint8, 4)]
    if kind == "tf32":
        return [(x & np.uint32(0xFFFFE000)).view(np.float32)]
    if kind == "f64":
        return [x]
    raise UnsupportedPtx(f"mma of {kind}")


def _by_warp(s: Running, x: np.ndarray) -> np.ndarray:
    """One row for each warp; the places of threads that a last warp lacks are 0."""
    rows = np.zeros(s.threads.warps * WARP, x.dtype)
    rows[s.threads.slot] = x
    return rows.reshape(-1, WARP)


def _mask(flags: np.ndarray) -> np.ndarray:
    """For each warp the bits of its lanes."""
    return (flags.astype(np.uint64) << POSITIONS.astype(np.uint64)).sum(axis=1).astype(np.uint32)


def _chosen(s: Running, members: Lanes, m: Mask) -> np.ndarray:
    return s.spread(members) & active_mask(s, m)


def _require(s: Running, members: Lanes, m: Mask) -> None:
    """All of the warp's members that still run take part."""
    members, lane = s.spread(members), s.threads.slot % WARP
    running = _mask(_by_warp(s, s.alive()))[s.threads.warp]
    missing = members & running & ~active_mask(s, m)
    itself = (members >> lane.astype(np.uint32)) & np.uint32(1)
    wrong = ((missing != 0) | (itself == 0)) & s.active(m)
    if wrong.any():
        at = np.flatnonzero(wrong)[0]
        raise DivergentWarp(f"lanes {missing[at]:#010x} of the members {members[at]:#010x} take no part")


def _require_whole(s: Running, m: Mask) -> None:
    taking_part = _by_warp(s, s.active(m))
    if (taking_part.any(axis=1) & ~taking_part.all(axis=1)).any():
        raise DivergentWarp("part of a warp multiplies or loads matrices")

"""Vectors over fused positions: whether their elements lie in one run of memory or in two.

A label that is fused from several dimensions is reached through a table of byte offsets. Neighbouring entries
mostly lie one element apart; where the innermost dimension ends, a vector straddles two runs. Two masked
accesses then do what would take one scalar access a lane. (Matthews 2016, section 5.1, falls back to scatter
vectors there.) Entries past the end of a label repeat the last one, which is neither run.
"""
from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir

from . import elements as el
from .elements import Element, Lanes
from .memory import table_entry
from .vectors import I32, I64, intrinsic_function, iota, pointer, splat


class Runs(NamedTuple):
    """A vector's elements, given by a table of offsets, as at most two runs.

    `sound`: whether they are that (an i1); without it the rest means nothing. A run is where lane 0 would
    lie (a byte offset) and the mask of its lanes. `last`: offset of the last element, which lanes in neither
    run repeat.
    """

    sound: ir.Value
    first: ir.Value
    first_mask: ir.Value
    second: ir.Value
    second_mask: ir.Value
    last: ir.Value


def is_run(builder, table: ir.Value, length: int, itemsize: int) -> ir.Value:
    """Whether `length` neighbouring offsets of a table lie one element after the other (an i1)."""
    offsets = _offsets(builder, table, length)
    first = splat(builder, builder.extract_element(offsets, I32(0)), length)
    return _all(builder, _equal(builder, builder.sub(offsets, first), iota(I64, length, itemsize)), length)


def two_runs(builder, table: ir.Value, lanes: int, itemsize: int) -> Runs:
    """The offsets of a vector, taken apart."""
    b, offsets, places = builder, _offsets(builder, table, lanes), iota(I64, lanes, itemsize)
    first = table_entry(b, table, I64(0))
    last = table_entry(b, table, I64(lanes - 1))
    in_first = _equal(b, b.sub(offsets, splat(b, first, lanes)), places)
    repeats = _equal(b, offsets, splat(b, last, lanes))
    # The last element stands in the first of the lanes that hold its offset.
    bits = ir.IntType(lanes)
    count = intrinsic_function(b, f"llvm.ctpop.i{lanes}", bits, [bits])
    repeated = b.call(count, [b.bitcast(repeats, bits)])
    repeated = b.zext(repeated, I64) if lanes < 64 else repeated
    second = b.sub(last, b.mul(b.sub(I64(lanes), repeated), I64(itemsize)))
    at_end = _equal(b, b.sub(offsets, splat(b, second, lanes)), places)
    in_second = b.and_(at_end, b.not_(in_first))
    sound = _all(b, b.or_(b.or_(in_first, in_second), repeats), lanes)
    return Runs(sound, first, in_first, second, in_second, last)


def load_runs(builder, element: Element, base: ir.Value, runs: Runs, lanes: int) -> Lanes:
    """The elements at `base` and the runs' offsets; lanes past the end hold the last element again."""
    last = el.broadcast(builder, el.load(builder, element, builder.add(base, runs.last), 1), lanes)
    second = el.load(builder, element, builder.add(base, runs.second), lanes, runs.second_mask, last)
    return el.load(builder, element, builder.add(base, runs.first), lanes, runs.first_mask, second)


def store_runs(builder, element: Element, base: ir.Value, runs: Runs, value: Lanes) -> None:
    """Write the elements to `base` and the runs' offsets, each once."""
    el.store(builder, element, builder.add(base, runs.first), value, runs.first_mask)
    el.store(builder, element, builder.add(base, runs.second), value, runs.second_mask)


def _offsets(builder, table: ir.Value, length: int) -> ir.Value:
    return builder.load(pointer(builder, table, ir.VectorType(I64, length)), align=8)


def _equal(builder, x: ir.Value, y: ir.Value) -> ir.Value:
    return builder.icmp_signed("==", x, y)


def _all(builder, mask: ir.Value, lanes: int) -> ir.Value:
    bits = ir.IntType(lanes)
    return builder.icmp_unsigned("==", builder.bitcast(mask, bits), bits(2 ** lanes - 1))

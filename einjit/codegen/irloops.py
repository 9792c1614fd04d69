"""Counted loops in LLVM IR, marked so that LLVM neither unrolls nor vectorises them.

The loops of a kernel are already in the form they should have; leaving LLVM to make more versions of
them costs half of the compile time and gains nothing.
"""
from __future__ import annotations

from typing import Callable, Sequence

from llvmlite import ir

from .vectors import I1

Body = Callable[[ir.IRBuilder, ir.Value, list[ir.Value]], Sequence[ir.Value]]


def counted(builder, start: ir.Value, stop: ir.Value, step: int, carried: Sequence[ir.Value], body: Body) -> list:
    """`for i in range(start, stop, step): carried = body(i, carried)`; returns the last `carried`."""
    def stepped(b, i, values):
        return [b.add(i, start.type(step)), *body(b, i, values)]

    return walked(builder, start, stop, carried, stepped)


def walked(builder, start: ir.Value, stop: ir.Value, carried: Sequence[ir.Value], body: Body) -> list:
    """`counted`, in steps that the body finds: it returns the next i, and then the `carried` for it.
    No `i` that is passed to it is `stop` or more."""
    before = builder.block
    header, inside, after = (builder.append_basic_block(f"loop.{part}") for part in ("head", "body", "done"))
    builder.branch(header)
    builder.position_at_end(header)
    i = builder.phi(start.type)
    i.add_incoming(start, before)
    values = [builder.phi(v.type) for v in carried]
    for phi, value in zip(values, carried):
        phi.add_incoming(value, before)
    builder.cbranch(builder.icmp_signed("<", i, stop), inside, after)
    builder.position_at_end(inside)
    following, *new = body(builder, i, list(values))
    i.add_incoming(following, builder.block)
    for phi, value in zip(values, new):
        phi.add_incoming(value, builder.block)
    builder.branch(header).set_metadata("llvm.loop", _as_written(builder.module))
    builder.position_at_end(after)
    return list(values)


def _as_written(module: ir.Module) -> ir.values.MDValue:
    unroll = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    vectorize = module.add_metadata([ir.MetaDataString(module, "llvm.loop.vectorize.enable"), I1(0)])
    loop_id = ir.values.MDValue(module, [unroll, vectorize], name=str(len(module.metadata)))
    # LLVM knows a loop's metadata by its first operand being the node itself.
    loop_id.operands = (loop_id, unroll, vectorize)
    return loop_id


def branch(builder, condition: ir.Value | bool, yes: Callable, no: Callable) -> None:
    """if/else, each side given by a function that emits it; one side alone where the condition is known."""
    if isinstance(condition, bool):
        (yes if condition else no)()
        return
    with builder.if_else(condition) as (then, otherwise):
        with then:
            yes()
        with otherwise:
            no()


def choose(builder, condition: ir.Value | bool, yes: Callable[[], list], no: Callable[[], list]) -> list:
    """The values of `yes()` or of `no()`, each emitted on its own side of a branch, if that needs one."""
    if isinstance(condition, bool):
        return yes() if condition else no()
    with builder.if_else(condition) as (then, otherwise):
        with then:
            first, first_end = yes(), builder.block
        with otherwise:
            second, second_end = no(), builder.block
    values = []
    for x, y in zip(first, second):
        phi = builder.phi(x.type)
        phi.add_incoming(x, first_end)
        phi.add_incoming(y, second_end)
        values.append(phi)
    return values

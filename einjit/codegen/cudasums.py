"""Kernels in which the threads of a block share sums."""
from __future__ import annotations

import numpy as np

from ..errors import ScheduleError
from ..ir import Kind, LoopNest
from ..verify import WARP, blocks_inside, threads_of
from .cudaelement import ElementEmitter

AT_ONCE = 4                 # positions of a shared sum whose operands a thread loads at a time


def shared_sum(nest: LoopNest) -> str:
    """The summed label that threads share, or ''."""
    return next((loop.label for loop in nest.loops if loop.kind is Kind.THREAD and nest.label(loop.label).summed), "")


class SumsEmitter(ElementEmitter):
    """The threads of a block share sums: each adds up every so many positions, then their totals are added in pairs,
    through shared memory and, inside of a warp, through registers. Always in the same order."""

    def body(self) -> None:
        nest = self.nest
        self.shared = shared_sum(nest)
        self.deep = blocks_inside(nest, nest.loops_of(self.shared)[-1])
        threads = [loop for loop in nest.loops if loop.kind is Kind.THREAD]
        kept = [loop for loop in nest.loops if not nest.label(loop.label).summed]
        self.require_single_sums()
        _refuse_other_forms(nest, kept, threads)
        self.across = blocks_inside(nest, kept[-1]) if kept and kept[-1].kind is Kind.THREAD else 1
        self.apart = self.across if threads[-1].label != self.shared else 1     # threads that share a sum
        accumulator = self._head(summed=True)
        self.header += ["keep = keeping(spec)", "fold = folding(spec)", "shuffle = shuffling(spec)"]
        self.place_block(1)
        self.line(1, "thread = uint32(cuda.threadIdx.x)")
        self.line(1, f"{self.shared}_thread = uint32({self._digit(self.deep, self.apart)})")
        addresses, inside = self._place_sum(kept)
        self.line(1, "total = nothing()")
        self._sums(1, [loop for loop in nest.loops if loop.kind is Kind.SERIAL], addresses)
        self._combine(np.dtype(accumulator).itemsize)
        self.line(1, f"if {inside}{self.shared}_thread == 0:")
        self.line(2, f"write({addresses['out']}, total)")

    def _digit(self, count: int, apart: int) -> str:
        quotient = f"thread // {apart}" if apart > 1 else "thread"
        return f"{quotient} % {count}" if count * apart < self.across * self.deep else quotient

    def _place_sum(self, kept) -> tuple[dict[str, str], str]:
        """Addresses at the thread's element of the output, and the condition that there is one."""
        addresses = {t.name: t.name for t in self.nest.tensors}
        addresses["out"] = self.place_part(1, "out")
        if not kept:
            return addresses, ""
        label, inside = kept[0].label, ""
        if self.across > 1:
            distance = self.deep if self.apart == 1 else 1
            first = self.nest.variable(kept[0])
            self.line(1, f"{label}_own = {self.position(f'{first} + {self._digit(self.across, distance)}')}")
            self.line(1, f"{label} = min({label}_own, {self.position(f'{self.count(label)} - 1')})")
            inside = f"{label}_own < {self.count(label)} and "
        for name, terms in self.offsets(1, label, label, self.nest.tensors).items():
            self.line(1, f"{name}_at = {' + '.join([addresses[name], *terms])}")
            addresses[name] = f"{name}_at"
        return addresses, inside

    def _sums(self, depth: int, loops, addresses: dict[str, str]) -> None:
        if not loops or loops[0].label != self.shared:
            super()._sums(depth, loops, addresses)
            return
        label = self.shared
        (member,) = self.nest.label(label).members
        moving = [t for t in self.nest.inputs if label in t.labels]
        start = self.place_range(depth, label)
        self.line(depth, f"{label} = {self.position(f'{start} + {label}_thread' if start else f'{label}_thread')}")
        inside = {**addresses, **{t.name: f"{t.name}_{label}_at" for t in moving}}
        steps = {t.name: f"uint64({self.deep}) * {self.stride(t, label, member)}" for t in moving}
        for t in moving:
            offset = f"uint64({label}) * {self.stride(t, label, member)}"
            self.line(depth, f"{inside[t.name]} = {addresses[t.name]} + {offset}")
        if len(loops) == 1:
            self._several(depth, inside, steps)
        self.line(depth, f"while {label} < {label}_end:")
        super()._sums(depth + 1, loops[1:], inside)
        self._advance(depth + 1, inside, steps, 1)

    def _several(self, depth: int, inside: dict[str, str], steps: dict[str, str]) -> None:
        """Positions at a time, for as many loads to be on their way."""
        label = self.shared
        self.line(depth, f"while {self.position(f'{label} + {(AT_ONCE - 1) * self.deep}')} < {label}_end:")
        for i in range(AT_ONCE):
            moved = {name: f"{inside[name]} + uint64({i}) * {step}" for name, step in steps.items() if i}
            self.line(depth + 1, f"total = update(total, {self._inputs({**inside, **moved})})")
        self._advance(depth + 1, inside, steps, AT_ONCE)

    def _advance(self, depth: int, inside: dict[str, str], steps: dict[str, str], count: int) -> None:
        for name, step in steps.items():
            self.line(depth, f"{inside[name]} += {f'uint64({count}) * ' if count > 1 else ''}{step}")
        self.line(depth, f"{self.shared} = {self.position(f'{self.shared} + {count * self.deep}')}")

    def _combine(self, itemsize: int) -> None:
        half = self.deep // 2
        through_memory = half * self.apart >= WARP
        if through_memory:
            self.share_memory("shared", self.across * self.deep * itemsize)
            self.line(1, "keep(shared, thread, total)")
        while half:
            distance = half * self.apart
            if distance >= WARP:
                self.line(1, "cuda.syncthreads()")
                self.line(1, f"if {self.shared}_thread < {half}:")
                self.line(2, f"total = fold(total, shared, uint32(thread + {distance}))")
                if distance // 2 >= WARP and half > 1:
                    self.line(2, "keep(shared, thread, total)")
            else:
                self.line(1, f"total = shuffle(total, uint32({distance}))")
            half //= 2


def _refuse_other_forms(nest: LoopNest, kept, threads) -> None:
    label = shared_sum(nest)
    loops = [loop for loop in nest.loops_of(label) if loop.kind is not Kind.BLOCK]
    others = [loop for loop in nest.loops if nest.label(loop.label).summed and loop.label != label]
    is_sum = [loop.kind for loop in loops] == [Kind.SERIAL, Kind.THREAD] and loops[0].step.bit_count() == 1
    thread_counts = [blocks_inside(nest, loop) for loop in threads]
    in_warps = threads_of(nest) % WARP == 0 and all(count.bit_count() == 1 for count in thread_counts)
    is_output = (len({loop.label for loop in kept}) <= 1
                 and [loop.kind for loop in kept] in ([], [Kind.BLOCK], [Kind.BLOCK, Kind.THREAD]))
    if not (is_sum and is_output and in_warps and all(loop.kind is Kind.SERIAL and loop.step == 1 for loop in others)):
        raise ScheduleError(f"threads share the sum of {label} where it has a plain loop over blocks of a power of two "
                            "and a loop over threads inside, and the output one loop over blocks, and one over threads "
                            "at most; all threads are powers of two, and whole warps")

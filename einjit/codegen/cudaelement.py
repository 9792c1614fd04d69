"""Kernels in which each thread computes one element of the output, with its sums in loops."""
from __future__ import annotations

from ..errors import ScheduleError
from ..ir import Kind
from .cudaemitter import Emitter
from .gpuspecs import Element


class ElementEmitter(Emitter):
    """One element of the output a thread."""

    def body(self) -> None:
        nest = self.nest
        for loop in nest.loops:
            if loop.kind is Kind.UNROLLED or (loop.step > 1) != (loop.kind is Kind.BLOCK):
                raise ScheduleError(f"loop {loop.name}: a GPU's nest that shares nothing has one thread an element, "
                                    "and plain loops over whole sums")
        self.require_single_sums()
        summed = any(label.summed for label in nest.labels)
        self._head(summed)
        depth = 1
        self.place_block(depth)
        addresses = {t.name: t.name for t in nest.tensors}
        depth = self._place_thread(depth, addresses)
        if not summed:
            self.line(depth, f"write({addresses['out']}, value({self._inputs(addresses)}))")
            return
        self.line(depth, "total = nothing()")
        self._sums(depth, [loop for loop in nest.loops if loop.kind is Kind.SERIAL], addresses)
        self.line(depth, f"write({addresses['out']}, total)")

    def require_single_sums(self) -> None:
        """Raise `ScheduleError` for a fused sum: loops move addresses by one stride."""
        for label in self.nest.labels:
            if label.summed and len(label.members) > 1:
                raise ScheduleError(f"{label.name} is fused and summed, which only products in shared memory can be "
                                    "on a GPU: give each dimension a loop")

    def _head(self, summed: bool) -> str:
        """What every thread needs; returns the dtype of sums."""
        nest = self.nest
        spec = Element(tuple(t.dtype for t in nest.inputs), nest.out.dtype, nest.accumulator, nest.reduce, nest.body)
        self.header += [f"spec = {spec!r}", "write = writing(spec)"]
        self.header += ["nothing = starting(spec)", "update = updating(spec)"] if summed else ["value = valuing(spec)"]
        return spec.accumulator

    def _place_thread(self, depth: int, addresses: dict[str, str]) -> int:
        nest = self.nest
        threads = [loop for loop in nest.loops if loop.kind is Kind.THREAD]
        blocks = [loop for loop in nest.loops if loop.kind is Kind.BLOCK]
        if len(threads) > 1 or len(blocks) != len(threads):
            raise ScheduleError("a GPU's nest that shares nothing has one loop over blocks and one over threads")
        if not threads:
            return depth
        label = threads[0].label
        self.line(depth, f"{label} = {self.position(f'{nest.variable(blocks[0])} + cuda.threadIdx.x')}")
        self.line(depth, f"if {label} < {self.count(label)}:")
        depth += 1
        for name, terms in self.offsets(depth, label, label, nest.tensors).items():
            self.line(depth, f"{name}_at = {' + '.join([name, *terms])}")
            addresses[name] = f"{name}_at"
        return depth

    def _sums(self, depth: int, loops, addresses: dict[str, str]) -> None:
        if not loops:
            self.line(depth, f"total = update(total, {self._inputs(addresses)})")
            return
        label, inner = loops[0].label, loops[1:]
        (member,) = self.nest.label(label).members
        moving = [t.name for t in self.nest.inputs if label in t.labels]
        inside = {**addresses, **{name: f"{name}_{label}_at" for name in moving}}
        for name in moving:
            self.line(depth, f"{inside[name]} = {addresses[name]}")
        self.line(depth, f"{label} = {self.position('0')}")
        self.line(depth, f"while {label} < {self.count(label)}:")
        self._sums(depth + 1, inner, inside)
        for name in moving:
            self.line(depth + 1, f"{inside[name]} += {self.stride(self.nest.tensor(name), label, member)}")
        self.line(depth + 1, f"{label} = {self.position(f'{label} + 1')}")

    def _inputs(self, addresses: dict[str, str]) -> str:
        return f"({', '.join(addresses[t.name] for t in self.nest.inputs)},)"

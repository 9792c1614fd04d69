"""Kernels of maps that pass squares of their inputs through shared memory."""
from __future__ import annotations

import numpy as np

from ..errors import ScheduleError
from ..ir import Kind, LoopNest, Share, Tensor
from ..verify import WARP
from .cudaelement import ElementEmitter
from .gpuspecs import Element


class TurnedEmitter(ElementEmitter):
    """Squares of inputs through shared memory: read along their rows, a warp a row, and written along the output's."""

    def body(self) -> None:
        nest, (share, *_) = self.nest, self.nest.shares
        self.along, self.unit = share.panel, share.serial
        self.rows = _rows_of_square(nest, share)
        shared = tuple(any(s.tensor == t.name for s in nest.shares) for t in nest.inputs)
        spec = Element(tuple(t.dtype for t in nest.inputs), nest.out.dtype, nest.accumulator, nest.reduce, nest.body)
        self.header += [f"spec = {spec!r}", f"value = valuing(spec, {shared!r})", "write = writing(spec)"]
        self.place_block(1)
        self.line(1, "thread = uint32(cuda.threadIdx.x)")
        self.line(1, f"lane = uint32(thread % {WARP})")
        self.line(1, f"row = uint32(thread // {WARP})")
        bases = self.place_in_batch(1, nest.tensors)
        for s in nest.shares:
            self._fetch(nest.tensor(s.tensor), bases[s.tensor])
        self.line(1, "cuda.syncthreads()")
        self._write(bases, shared)

    def _steps(self):
        """Each thread's elements: the text that moves it on, counted in rows of threads."""
        return [(r, f" + {r * self.rows}" if r else "") for r in range(WARP // self.rows)]

    def _fetch(self, t: Tensor, base: str) -> None:
        itemsize = np.dtype(t.dtype).itemsize
        self.header += [f"fetch_{t.name} = fetching({t.dtype!r})"]
        self.share_memory(f"{t.name}_square", WARP * _pitch(t) * itemsize)
        u, v = self._firsts()
        self.line(1, f"{t.name}_{self.along} = {self.position(f'{u} + lane')}")
        (along,) = self.offsets(1, self.along, f"{t.name}_{self.along}", [t])[t.name]
        for r, plus in self._steps():
            at = f"{t.name}_{self.unit}{r}"
            self.line(1, f"{at} = {self.position(f'{v} + row{plus}')}")
            (across,) = self.offsets(1, self.unit, at, [t])[t.name]
            self.line(1, f"if {t.name}_{self.along} < {self.count(self.along)} and {at} < {self.count(self.unit)}:")
            slot = f"uint32((row{plus}) * {_pitch(t)} + lane)"
            self.line(2, f"fetch_{t.name}({t.name}_square, {slot}, {base} + {along} + {across})")

    def _write(self, bases: dict[str, str], shared: tuple[bool, ...]) -> None:
        u, v = self._firsts()
        tensors = self.nest.tensors
        self.line(1, f"{self.unit}_own = {self.position(f'{v} + lane')}")
        across = self.offsets(1, self.unit, f"{self.unit}_own", tensors)
        for r, plus in self._steps():
            at = f"{self.along}_own{r}"
            self.line(1, f"{at} = {self.position(f'{u} + row{plus}')}")
            along = self.offsets(1, self.along, at, tensors)
            places = {t.name: " + ".join([bases[t.name], *across.get(t.name, ()), *along.get(t.name, ())])
                      for t in tensors}
            places |= {t.name: f"uint64(lane * {_pitch(t)} + row{plus})" for t, s in zip(self.nest.inputs, shared) if s}
            squares = ", ".join(f"{t.name}_square" for t, s in zip(self.nest.inputs, shared) if s)
            self.line(1, f"if {self.unit}_own < {self.count(self.unit)} and {at} < {self.count(self.along)}:")
            inputs = ", ".join(places[t.name] for t in self.nest.inputs)
            self.line(2, f"write({places['out']}, value(({inputs},), ({squares},)))")

    def _firsts(self) -> tuple[str, str]:
        return tuple(self.nest.variable(self.nest.loops_of(label)[0]) for label in (self.along, self.unit))


def _pitch(t: Tensor) -> int:
    """Elements from one row of a square to the next, an odd number of banks of shared memory: a column lies in all."""
    return WARP + max(1, 4 // np.dtype(t.dtype).itemsize)


def _rows_of_square(nest: LoopNest, share: Share) -> int:
    """Rows of threads for squares of a warp's width. Raises `ScheduleError` for a nest of another form."""
    along, unit = nest.loops_of(share.panel), nest.loops_of(share.serial)
    forms = [[loop.kind for loop in loops] for loops in (along, unit)]
    if (forms != [[Kind.BLOCK, Kind.UNROLLED, Kind.THREAD], [Kind.BLOCK, Kind.THREAD]] or along[0].step != WARP
            or unit[0].step != WARP or nest.loops[-1].label != share.serial
            or any(loop.step > 1 for loop in nest.loops if loop.label not in (share.panel, share.serial))
            or any(len(nest.label(label).members) > 1 for label in (share.panel, share.serial))
            or {(s.panel, s.serial) for s in nest.shares} != {(share.panel, share.serial)}):
        raise ScheduleError(f"a map shares squares of {WARP} x {WARP}: blocks of both labels, on the first unrolled "
                            "blocks of rows and a loop over threads, on the second the innermost loop over "
                            "threads, none of them fused; other labels have blocks of one position")
    return along[1].step

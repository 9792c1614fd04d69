"""Transformations of a loop nest, as values.

Each is a frozen dataclass that prints as the call that makes it; `apply(nest, schedule)` applies them in
order and checks the nest after each, so that an illegal one is refused with its reason. None of them
changes what a nest computes.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Sequence

from ..errors import ScheduleError
from ..ir import Copy as CopyNode
from ..ir import Kind, Label, Loop, LoopNest, Node, Staging, Tensor
from ..ir import Pack as PackNode
from ..ir import Share as ShareNode
from ..verify import verify


@dataclass(frozen=True)
class Fuse:
    """Walk several labels as one; the first of `labels` is the slowest.

    for i: for j: f(i, j)   ->   for m: f(m // J, m % J)
    """

    labels: tuple[str, ...]
    name: str

    def __call__(self, nest: LoopNest) -> LoopNest:
        for label in self.labels:
            _require(label in {lb.name for lb in nest.labels}, f"there is no label {label}")
            _require(len(nest.loops_of(label)) == 1, f"label {label} is split already: fuse first")
        _require(not nest.packs, "labels around a pack cannot be fused: fuse first, then pack")
        _require(not nest.copies, "labels around a copy cannot be fused: fuse first, then copy")
        group = [nest.label(label) for label in self.labels]
        _require(bool(group) and len(set(self.labels)) == len(group), "a label to fuse is named twice, or none is")
        _require(len({lb.summed for lb in group}) == 1,
                 f"summed and kept labels cannot be fused: {', '.join(self.labels)}")
        others = [lb for lb in nest.labels if lb.name not in self.labels]
        _require(self.name not in {lb.name for lb in others}, f"the name {self.name} is taken")
        extent = 1
        for lb in group:
            extent *= lb.extent
        members = tuple(m for lb in reversed(group) for m in lb.members)
        fused = Label(self.name, extent, group[0].summed, members)
        last = max(i for i, node in enumerate(nest.nodes) if node.label in self.labels)
        nodes = tuple(Loop(self.name, 1) if i == last else node for i, node in enumerate(nest.nodes)
                      if i == last or node.label not in self.labels)
        tensors = [_with_fused(t, self.labels, self.name) for t in nest.tensors]
        return replace(nest, labels=(*others, fused), out=tensors[0], inputs=tuple(tensors[1:]), nodes=nodes)


def _with_fused(t: Tensor, labels: tuple[str, ...], name: str) -> Tensor:
    if not set(t.labels) & set(labels):
        return t
    kept = tuple(lb for lb in t.labels if lb not in labels)
    unit = t.unit if t.unit not in labels else name if t.unit == labels[-1] else ""
    hidden = t.across in labels or (t.unit in labels and not unit)
    return replace(t, labels=(*kept, name), unit=unit, across=name if hidden else t.across)


@dataclass(frozen=True)
class Split:
    """Walk a label in blocks.

    for i in 0 : I   ->   for i0 in 0 : I step S: for i in i0 : i0 + S
    """

    label: str
    step: int

    def __call__(self, nest: LoopNest) -> LoopNest:
        _require(self.label in {lb.name for lb in nest.labels}, f"there is no label {self.label}")
        _require(self.step > 1, f"a block of {self.step} is no block")
        outer = [loop.step for loop in nest.loops_of(self.label) if loop.step > 1]
        _require(not outer or self.step < outer[-1],
                 f"{self.label} is already split into blocks of {outer[-1:]}, which blocks of {self.step} do not fit")
        at = nest.nodes.index(nest.loops_of(self.label)[-1])
        return nest.with_nodes((*nest.nodes[:at], Loop(self.label, self.step), *nest.nodes[at:]))


@dataclass(frozen=True)
class Reorder:
    """Put the loops into this order, outermost first. A loop's name is its label, or label/step."""

    order: tuple[str, ...]

    def __call__(self, nest: LoopNest) -> LoopNest:
        by_name = {loop.name: loop for loop in nest.loops}
        _require(sorted(self.order) == sorted(by_name),
                 f"the order must name each loop once: {', '.join(by_name)}; it names {', '.join(self.order)}")
        _require(not nest.packs, "loops around a pack cannot be reordered: reorder first, then pack")
        _require(not nest.copies, "loops around a copy cannot be reordered: reorder first, then copy")
        return nest.with_nodes(tuple(by_name[name] for name in self.order))


@dataclass(frozen=True)
class Unroll:
    """Make a label's innermost loop part of the register tile, one copy of the body for each position.

    A label that is not split lies in the tile whole, and the kernel is one for its extent alone. On a GPU, `step`
    names another of its loops: each thread then has several blocks of the label."""

    label: str
    step: int = 1

    def __call__(self, nest: LoopNest) -> LoopNest:
        return _mark(nest, self.label, Kind.UNROLLED, 1, self.step)


@dataclass(frozen=True)
class Vectorize:
    """Make a label's innermost loop part of the register tile, on vectors of `lanes` elements."""

    label: str
    lanes: int

    def __call__(self, nest: LoopNest) -> LoopNest:
        _require(self.lanes > 1 and self.lanes & (self.lanes - 1) == 0, f"{self.lanes} lanes: must be a power of two")
        return _mark(nest, self.label, Kind.VECTOR, self.lanes)


@dataclass(frozen=True)
class Parallel:
    """Let threads share a label's outermost loop. Where that is summed, each thread adds up its share in an
    output of its own, and these are added in the end: for outputs that are small."""

    label: str

    def __call__(self, nest: LoopNest) -> LoopNest:
        loop = nest.loops_of(self.label)[0]
        _require(loop.kind is Kind.SERIAL, f"loop {loop.name} is {loop.kind.value} already")
        return _replaced(nest, loop, replace(loop, kind=Kind.PARALLEL))


@dataclass(frozen=True)
class Pack:
    """Copy blocks of an operand into panels, inside the loop named `at` (its label, or label/step); so many panels
    `abreast`, which reads longer pieces of rows that are contiguous along `panel`."""

    tensor: str
    at: str
    panel: str
    serial: str
    abreast: int = 1

    def __call__(self, nest: LoopNest) -> LoopNest:
        _require(self.tensor in {t.name for t in nest.inputs}, f"there is no input {self.tensor}")
        blocks = [loop.step for loop in nest.loops_of(self.panel) if loop.step > 1]
        _require(bool(blocks), f"label {self.panel} has no register block: split it first")
        _require(self.abreast >= 1, f"{self.abreast} panels abreast are none")
        return _inserted(nest, self.at, PackNode(self.tensor, self.panel, self.serial, blocks[-1], self.abreast))


@dataclass(frozen=True)
class Copy:
    """Copy blocks of an operand into rows along a label, inside the loop named `at` (its label, or label/step).
    Rows that are a power of two apart, and so share a few sets of the caches, then lie one after the other."""

    tensor: str
    at: str
    row: str

    def __call__(self, nest: LoopNest) -> LoopNest:
        _require(self.tensor in {t.name for t in nest.inputs}, f"there is no input {self.tensor}")
        _require(self.row in {lb.name for lb in nest.labels}, f"there is no label {self.row}")
        return _inserted(nest, self.at, CopyNode(self.tensor, self.row))


@dataclass(frozen=True)
class Bind:
    """Spread a loop (its label, or label/step) over a GPU: over the blocks of a grid (`to="block"`) or the threads of
    a block (`to="thread"`); or let a warp do it on its tensor cores (`to="tensor core"`)."""

    loop: str
    to: str

    def __call__(self, nest: LoopNest) -> LoopNest:
        found = [loop for loop in nest.loops if loop.name == self.loop]
        _require(bool(found), f"there is no loop {self.loop}")
        _require(self.to in ("block", "thread", "tensor core"),
                 f"a loop is bound to 'block', 'thread' or 'tensor core', not to {self.to!r}")
        _require(found[0].kind is Kind.SERIAL, f"loop {self.loop} is {found[0].kind.value} already")
        return _replaced(nest, found[0], replace(found[0], kind=Kind(self.to)))


@dataclass(frozen=True)
class Share:
    """Let the threads of a GPU's block copy blocks of an operand into shared memory, inside the loop named `at`."""

    tensor: str
    at: str
    panel: str
    serial: str

    def __call__(self, nest: LoopNest) -> LoopNest:
        _require(self.tensor in {t.name for t in nest.inputs}, f"there is no input {self.tensor}")
        return _inserted(nest, self.at, ShareNode(self.tensor, self.panel, self.serial))


@dataclass(frozen=True)
class Stream:
    """Write the output past the caches: whole lines that nobody reads soon are then not fetched first."""

    def __call__(self, nest: LoopNest) -> LoopNest:
        _require(not nest.streamed, "the output is streamed already")
        return replace(nest, streamed=True)


@dataclass(frozen=True)
class Stage:
    """Collect the output's blocks, one in each iteration of the loop named `at`, in a buffer, and write each from
    there past the caches, in whole lines but for its ends.
    `labels`: those that the block runs along, the slowest in the output first."""

    at: str
    labels: tuple[str, ...]

    def __call__(self, nest: LoopNest) -> LoopNest:
        _require(not nest.streamed and nest.staged is None, "the output is streamed or staged already")
        return replace(nest, staged=Staging(self.at, self.labels))


@dataclass(frozen=True)
class Ahead:
    """While one iteration of the loop named `at` runs, ask for what the tiles of the next one read: more of it is
    on its way from memory then than loads can wait for."""

    at: str

    def __call__(self, nest: LoopNest) -> LoopNest:
        _require(not nest.ahead, f"the inputs of the next {nest.ahead} are asked for already")
        return replace(nest, ahead=self.at)


@dataclass(frozen=True)
class Prefetch:
    """While a tile reads its inputs, ask for what lies `distance` bytes behind: for inputs that are read from one end
    to the other. Past their end nothing is read by it."""

    distance: int

    def __call__(self, nest: LoopNest) -> LoopNest:
        _require(self.distance > 0, f"{self.distance} bytes behind what is read lies nothing that is read later")
        return replace(nest, prefetch=self.distance)


Opt = (Fuse | Split | Reorder | Unroll | Vectorize | Parallel | Pack | Copy | Stream | Stage | Ahead | Prefetch | Bind
       | Share)
Schedule = tuple[Opt, ...]


def apply(nest: LoopNest, schedule: Sequence[Opt]) -> LoopNest:
    """The scheduled nest. Raises `ScheduleError` that names the step which is not legal."""
    for i, opt in enumerate(schedule):
        try:
            nest = opt(nest)
        except ScheduleError as error:
            raise ScheduleError(f"step {i + 1} of the schedule, {opt}, is not legal: {error}") from None
    try:
        return verify(nest)
    except ScheduleError as error:
        raise ScheduleError(f"the schedule is not legal: {error}") from None


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise ScheduleError(reason)


def _inserted(nest: LoopNest, at: str, node: Node) -> LoopNest:
    """With a node right inside the loop named `at`."""
    names = [getattr(other, "name", "") for other in nest.nodes]
    _require(at in names, f"there is no loop {at}")
    after = names.index(at) + 1
    return nest.with_nodes((*nest.nodes[:after], node, *nest.nodes[after:]))


def _mark(nest: LoopNest, label: str, kind: Kind, lanes: int, step: int = 1) -> LoopNest:
    _require(label in {lb.name for lb in nest.labels}, f"there is no label {label}")
    found = [loop for loop in nest.loops_of(label) if loop.step == step]
    _require(bool(found), f"there is no loop {label}/{step}")
    (loop,) = found
    _require(loop.kind is Kind.SERIAL, f"loop {loop.name} is {loop.kind.value} already")
    return _replaced(nest, loop, replace(loop, kind=kind, lanes=lanes))


def _replaced(nest: LoopNest, old: Loop, new: Loop) -> LoopNest:
    return nest.with_nodes(tuple(new if node == old else node for node in nest.nodes))

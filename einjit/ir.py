"""The loop-nest IR: one perfect nest of loops, packs and copies around one update of the output.

Nodes are frozen values. A loop variable is an absolute position on its label: a label that is split has
several loops, outermost with the largest step, and each inner loop runs over the block that the loop
outside it stands on. `str()` of a nest reads as pseudo-code; `interp` runs one, `verify` checks one.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

from .expr import Expr


class Kind(Enum):
    """How a loop runs. The innermost unrolled and vector loops make up the register tile. On a GPU, iterations are
    spread over the blocks of a grid or the threads of a block; loops on tensor cores are what the 32 threads of a warp
    compute with one instruction."""

    SERIAL = "for"
    PARALLEL = "parallel for"
    UNROLLED = "unroll"
    VECTOR = "vector"
    BLOCK = "block"
    THREAD = "thread"
    TENSOR = "tensor core"


TILE = (Kind.UNROLLED, Kind.VECTOR)
SPREAD = (Kind.BLOCK, Kind.THREAD)


@dataclass(frozen=True)
class Label:
    """One label of the nest; `members` are the dimensions of the contraction fused into it, fastest first."""

    name: str
    extent: int
    summed: bool
    members: tuple[str, ...]


@dataclass(frozen=True)
class Tensor:
    """An operand or the output: which labels it moves along, and which of them is contiguous ('' if none).
    `across`: the fused label of which another dimension than the fastest is contiguous."""

    name: str
    dtype: str
    labels: tuple[str, ...]
    unit: str
    across: str = ""


@dataclass(frozen=True)
class Loop:
    """`for` over the current block of `label`, in steps; step 1 is the innermost loop of its label.

    An unrolled or vector loop stands in a block of its label, whose size is then the tile's; or alone, and then
    the whole label lies in the tile, its extent a constant of the code."""

    label: str
    step: int
    kind: Kind = Kind.SERIAL
    lanes: int = 1

    @property
    def name(self) -> str:
        return self.label if self.step == 1 else f"{self.label}/{self.step}"


@dataclass(frozen=True)
class Pack:
    """Copy the current block of a tensor into panels of `width` along `panel`, one row a step of `serial`; so many
    `abreast`, where they are one run of the tensor together."""

    tensor: str
    panel: str
    serial: str
    width: int
    abreast: int = 1


@dataclass(frozen=True)
class Staging:
    """Inside the loop named `at` the output's elements are collected in a buffer, and written from there when its
    block is done. `labels`: those along which the block has more than one element, the slowest in the output
    first. Elements that do not all lie together are written straight away."""

    at: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Copy:
    """Copy the current block of a tensor into rows along `row`, which lie one after the other."""

    tensor: str
    row: str


@dataclass(frozen=True)
class Share:
    """All threads of a block copy the current block of a tensor, which is `panel` x `serial`, into shared memory, one
    row a step of `serial`, while they compute with the one before."""

    tensor: str
    panel: str
    serial: str


Node = Loop | Pack | Copy | Share


@dataclass(frozen=True)
class LoopNest:
    """`nodes` from the outside in; inside them all stands `out[...] = reduce(out[...], body(inputs))`, computed
    in the dtype `accumulator`. `streamed`: the output is written past the caches; `staged`: by way of a
    buffer. `ahead`: the name of a loop; while one iteration of it runs, the inputs of the next are asked for.
    `prefetch`: so many bytes behind what is read the inputs are asked for, if not 0."""

    name: str
    labels: tuple[Label, ...]
    out: Tensor
    inputs: tuple[Tensor, ...]
    body: Expr
    reduce: str
    accumulator: str
    nodes: tuple[Node, ...]
    streamed: bool = False
    staged: Staging | None = None
    ahead: str = ""
    prefetch: int = 0

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.out, *self.inputs)

    @cached_property
    def loops(self) -> tuple[Loop, ...]:
        return tuple(n for n in self.nodes if isinstance(n, Loop))

    @property
    def packs(self) -> tuple[Pack, ...]:
        return tuple(n for n in self.nodes if isinstance(n, Pack))

    @property
    def shares(self) -> tuple[Share, ...]:
        return tuple(n for n in self.nodes if isinstance(n, Share))

    @property
    def is_spread(self) -> bool:
        """Whether it is a GPU's nest."""
        return any(loop.kind in SPREAD for loop in self.loops)

    @property
    def copies(self) -> tuple[Copy, ...]:
        return tuple(n for n in self.nodes if isinstance(n, Copy))

    def copied_labels(self, copy: Copy) -> tuple[str, ...]:
        """Those along which the copied block extends, its rows last; along the tensor's others it has one position."""
        inside = {n.label for n in self.nodes[self.nodes.index(copy):] if isinstance(n, Loop)}
        others = [label for label in self.tensor(copy.tensor).labels if label in inside and label != copy.row]
        return (*others, copy.row)

    def label(self, name: str) -> Label:
        return next(label for label in self.labels if label.name == name)

    def tensor(self, name: str) -> Tensor:
        return next(t for t in self.tensors if t.name == name)

    def loops_of(self, label: str) -> tuple[Loop, ...]:
        """A label's loops, outermost (largest step) first."""
        return self._loops_by_label.get(label, ())

    @cached_property
    def _loops_by_label(self) -> dict[str, tuple[Loop, ...]]:
        found: dict[str, tuple[Loop, ...]] = {}
        for loop in self.loops:
            found[loop.label] = (*found.get(loop.label, ()), loop)
        return found

    def is_whole(self, label: str) -> bool:
        """Whether the register tile holds the whole label."""
        loops = self.loops_of(label)
        return len(loops) == 1 and loops[0].kind in TILE

    def variable(self, loop: Loop) -> str:
        """The loop's variable: the label itself for its innermost loop, else numbered from the outside."""
        return loop.label if loop.step == 1 else f"{loop.label}{self.loops_of(loop.label).index(loop)}"

    def with_nodes(self, nodes: tuple[Node, ...]) -> LoopNest:
        return replace(self, nodes=nodes)

    def __str__(self) -> str:
        return _text(self)


def tile_width(nest: LoopNest, label: str) -> int:
    """Extent of the register tile along a label, in whole vectors; 1 outside of it."""
    loop = nest.loops_of(label)[-1]
    if loop.kind not in TILE:
        return 1
    if nest.is_whole(label):
        return -(-nest.label(label).extent // loop.lanes) * loop.lanes
    return nest.loops_of(label)[-2].step


def edge_rows(rows: int) -> int:
    """Rows of a tile's second loop, which computes what is left of the rows where that is so little; 0 where there is
    no such loop. Fewer than 4 take as long: so many multiply-adds must be in flight to keep a core busy.
    Measured on Zen 4 in float64, without the loops for edges and with them: 50 x 50 x 50 7.4 and 6.3 us, 100 x 100 x
    100 41.7 and 37.7, 200 x 200 x 200 288 and 277; 20 to 40 ms more to compile."""
    return rows // 2 if rows >= 8 else 0


def edge_vectors(vectors: int) -> int:
    """Vectors of the loop for what is left of the columns; 0 where there is none. Tiles of three vectors, which are
    taken where columns come in so many, do without: each loop is more to compile."""
    return 1 if vectors == 2 else 0


def _text(nest: LoopNest) -> str:
    lines, inside = [], {}
    for depth, node in enumerate(nest.nodes):
        indent = "  " * depth
        if isinstance(node, Pack):
            several = f", {node.abreast} abreast" if node.abreast > 1 else ""
            lines.append(f"{indent}pack {node.tensor} in panels of {node.width} {node.panel} x {node.serial}{several}")
            continue
        if isinstance(node, Copy):
            lines.append(f"{indent}copy {node.tensor} in rows along {node.row}")
            continue
        if isinstance(node, Share):
            lines.append(f"{indent}share {node.tensor} as {node.panel} x {node.serial}")
            continue
        variable, outer = nest.variable(node), inside.get(node.label)
        size = next((f.step for f in reversed(nest.loops_of(node.label)) if f.step > node.step), None)
        block = f"{outer} : {outer} + {size}" if outer else f"0 : {nest.label(node.label).extent}"
        step = f" step {node.step}" if node.step > 1 else ""
        lanes = f"  # {node.lanes} lanes" if node.kind is Kind.VECTOR else ""
        lines.append(f"{indent}{node.kind.value} {variable} in {block}{step}{lanes}")
        inside[node.label] = variable
    indent = "  " * len(nest.nodes)
    operands = [f"{t.name}[{', '.join(t.labels)}]" for t in nest.inputs]
    sign = {"add": "+="}.get(nest.reduce, f"={nest.reduce}") if any(lb.summed for lb in nest.labels) else "="
    lines.append(f"{indent}{nest.out.name}[{', '.join(nest.out.labels)}] {sign} {nest.body.text(operands)}")
    if nest.streamed or nest.staged:
        lines[-1] += f"  # {nest.out.name} past the caches"
    if nest.staged:
        lines[-1] += f", block by block of {nest.staged.at}"
    if nest.ahead:
        lines[-1] += f"  # inputs of the next {nest.ahead} asked for"
    if nest.prefetch:
        lines[-1] += f"  # inputs asked for {nest.prefetch} bytes ahead"
    return "\n".join(lines)

"""A slow interpreter of loop nests: the oracle that schedules and compiled kernels are held against.

It executes the nest node by node as it stands, packs included, with exact bounds and nothing shared with
the code generator.
"""
from __future__ import annotations

from itertools import product
from typing import Sequence

import numpy as np

from .contraction import Contraction
from .expr import evaluate
from .ir import Copy, LoopNest, Pack, Share


def interpret(nest: LoopNest, c: Contraction, out: np.ndarray, inputs: Sequence[np.ndarray]) -> None:
    """Run `nest` on arrays of the layouts that `c` was made from; `inputs` in the order of `c.operands`.

    `out` is overwritten. Work is Python-slow: thousands of points, not millions.
    """
    _Interpreter(nest, c, out, inputs).run()


class _Interpreter:
    def __init__(self, nest: LoopNest, c: Contraction, out: np.ndarray, inputs: Sequence[np.ndarray]):
        self.nest = nest
        extents = tuple(d.extent for d in c.dimensions)
        self.views = {
            name: np.lib.stride_tricks.as_strided(array, extents, tuple(
                d.strides[t] if c.has(d, t) else 0 for d in c.dimensions), writeable=t == 0)
            for t, (name, array) in enumerate(zip(c.tensor_names, (out, *inputs)))}
        self.axes = [d.name for d in c.dimensions]
        self.extents = dict(zip(self.axes, extents))
        self.started: set[tuple[int, ...]] = set()

    def run(self) -> None:
        whole = {label.name: (0, label.extent) for label in self.nest.labels}
        with np.errstate(all="ignore"):
            self._node(0, whole, {})

    def _node(self, depth: int, blocks: dict, packed: dict) -> None:
        if depth == len(self.nest.nodes):
            self._update(blocks, packed)
            return
        node = self.nest.nodes[depth]
        if isinstance(node, (Pack, Share)):
            self._node(depth + 1, blocks, {**packed, node.tensor: self._pack(node, blocks)})
            return
        if isinstance(node, Copy):
            self._node(depth + 1, blocks, {**packed, node.tensor: self._copy(node, blocks)})
            return
        start, stop = blocks[node.label]
        for position in range(start, stop, node.step):
            self._node(depth + 1, {**blocks, node.label: (position, min(position + node.step, stop))}, packed)

    def _index(self, positions: dict[str, int]) -> tuple[int, ...]:
        """The point of the iteration space, one coordinate a dimension of the contraction."""
        coordinates = {}
        for label in self.nest.labels:
            rest = positions.get(label.name, 0)
            for member in label.members:
                rest, coordinates[member] = divmod(rest, self.extents[member])
        return tuple(coordinates[axis] for axis in self.axes)

    def _pack(self, pack: Pack | Share, blocks: dict) -> dict:
        """What the packed or shared block holds, by position on its two labels."""
        fixed = {label: start for label, (start, _) in blocks.items()}
        block = {}
        for i in range(*blocks[pack.panel]):
            for k in range(*blocks[pack.serial]):
                block[i, k] = self.views[pack.tensor][self._index({**fixed, pack.panel: i, pack.serial: k})]
        return {(pack.panel, pack.serial): block}

    def _copy(self, copy: Copy, blocks: dict) -> dict:
        """What the copied block holds, by position on its labels."""
        labels = self.nest.copied_labels(copy)
        fixed = {label: start for label, (start, _) in blocks.items()}
        block = {}
        for positions in product(*(range(*blocks[label]) for label in labels)):
            at = self._index({**fixed, **dict(zip(labels, positions))})
            block[positions] = self.views[copy.tensor][at]
        return {labels: block}

    def _update(self, blocks: dict, packed: dict) -> None:
        positions = {label: start for label, (start, _) in blocks.items()}
        point = self._index(positions)
        dtype = np.dtype(self.nest.accumulator).type
        values = [dtype(self._read(t.name, positions, point, packed)) for t in self.nest.inputs]
        value = dtype(evaluate(self.nest.body, values))
        out = self.views["out"]
        # Points that differ in summed coordinates alone share one element of the output.
        element = tuple(x for x, axis in zip(point, self.axes) if not self._summed(axis))
        out[point] = value if element not in self.started else _REDUCE[self.nest.reduce](out[point], value)
        self.started.add(element)

    def _read(self, name: str, positions: dict, point, packed: dict):
        if name not in packed:
            return self.views[name][point]
        (labels, block), = packed[name].items()
        return block[tuple(positions[label] for label in labels)]

    def _summed(self, axis: str) -> bool:
        return next(label.summed for label in self.nest.labels if axis in label.members)


_REDUCE = {"add": np.add}

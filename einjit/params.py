"""The parameter block of a kernel: the int64 words that its source reads, for one problem and one range.

The words come first, in the order of `Source.words`; behind them stands, for each fused label, its
description (number of members, their extents, each tensor's byte strides; fastest member first). Offset
tables and packed panels lie in a workspace whose size is computed here.
"""
from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from math import prod
from typing import Mapping

import numpy as np

from .codegen.source import Word
from .codegen.specs import STAGE_ROOM
from .contraction import Contraction
from .ir import Copy, Label, LoopNest, tile_width

_ALIGN = 64


@dataclass(frozen=True)
class Parameters:
    """`words`: the block; `workspace`: bytes of scratch memory that the kernel needs."""

    words: np.ndarray
    workspace: int


def parameters(nest: LoopNest, c: Contraction, words: tuple[Word, ...],
               ranges: Mapping[str, tuple[int, int]]) -> Parameters:
    """Fill the block. `ranges` narrows labels to [lo, hi); the others run whole."""
    return _Filler(nest, c, words, ranges).fill()


class _Filler:
    def __init__(self, nest, c, words, ranges):
        self.nest, self.c, self.words, self.ranges = nest, c, words, ranges
        self.tensors = {t.name: i for i, t in enumerate(nest.tensors)}
        self.workspace = 0
        self.tail: list[int] = []

    def fill(self) -> Parameters:
        values = [self._value(w) for w in self.words]
        return Parameters(np.array([*values, *self.tail], dtype=np.int64), self.workspace)

    def _value(self, w: Word) -> int:
        match w.what:
            case "lo":
                return self._range(w.label)[0]
            case "hi":
                return self._range(w.label)[1]
            case "step":
                return self.nest.loops_of(w.label)[w.index].step
            case "stride":
                (member,) = self.nest.label(w.label).members
                return self._strides(member)[self.tensors[w.tensor]]
            case "apart":
                return prod(self.c.dimension(m).extent for m in self._faster(w))
            case "extent":
                members = self.nest.label(w.label).members
                return self.c.dimension(members[len(self._faster(w))]).extent
            case "digits":
                return self._describe(self.nest.label(w.label))
            case "table":
                return self._reserve(8 * (self._block(w.label) + tile_width(self.nest, w.label)))
            case "pack":
                return self._reserve(self._panel_bytes(w.tensor))
            case "stage":
                return self._reserve(self._block_bytes())
            case "row":
                return self._row_bytes(self._copy_of(w.tensor))
            case "copy":
                return self._reserve(self._copy_bytes(self._copy_of(w.tensor)))
        raise TypeError(f"unknown word {w!r}")

    def _range(self, label: str) -> tuple[int, int]:
        return self.ranges.get(label, (0, self.nest.label(label).extent))

    def _strides(self, member: str) -> tuple[int, ...]:
        d = self.c.dimension(member)
        return tuple(s if self.c.has(d, t) else 0 for t, s in enumerate(d.strides))

    def _faster(self, w: Word) -> list[str]:
        """Members of a fused label that are faster than the one in which a tensor is contiguous."""
        t = self.tensors[w.tensor]
        itemsize = np.dtype(self.nest.tensor(w.tensor).dtype).itemsize
        return list(takewhile(lambda m: self._strides(m)[t] != itemsize, self.nest.label(w.label).members))

    def _describe(self, label: Label) -> int:
        """Append a fused label's description; returns its byte offset in the block."""
        at = 8 * (len(self.words) + len(self.tail))
        self.tail += [len(label.members), *(self.c.dimension(m).extent for m in label.members)]
        for t in range(len(self.tensors)):
            self.tail += [self._strides(m)[t] for m in label.members]
        return at

    def _reserve(self, size: int) -> int:
        at = self.workspace
        self.workspace += -(-size // _ALIGN) * _ALIGN
        return at

    def _block(self, label: str) -> int:
        """Most positions that a label's outermost block holds."""
        return min(self.nest.loops_of(label)[0].step, self.nest.label(label).extent)

    def _panel_bytes(self, tensor: str) -> int:
        pack = next(p for p in self.nest.packs if p.tensor == tensor)
        at = self.nest.nodes.index(pack)
        rows, steps = (self._block_outside(label, at) for label in (pack.panel, pack.serial))
        return (rows + pack.width) * steps * np.dtype(self.nest.accumulator).itemsize

    def _block_bytes(self) -> int:
        """Of the output's staged block."""
        staging = self.nest.staged
        at = next(i for i, node in enumerate(self.nest.nodes) if getattr(node, "name", "") == staging.at)
        elements = prod(self._block_outside(label, at + 1) for label in staging.labels)
        return elements * np.dtype(self.nest.out.dtype).itemsize + STAGE_ROOM

    def _copy_of(self, tensor: str) -> Copy:
        return next(copy for copy in self.nest.copies if copy.tensor == tensor)

    def _row_bytes(self, copy: Copy) -> int:
        """Whole cache lines, an odd number: rows then begin in all sets of a cache in turn."""
        size = self._copied(copy, copy.row) * np.dtype(self.nest.tensor(copy.tensor).dtype).itemsize
        return (-(-size // _ALIGN) | 1) * _ALIGN

    def _copy_bytes(self, copy: Copy) -> int:
        *others, _ = self.nest.copied_labels(copy)
        return self._row_bytes(copy) * prod(self._copied(copy, label) for label in others)

    def _copied(self, copy: Copy, label: str) -> int:
        return self._block_outside(label, self.nest.nodes.index(copy))

    def _block_outside(self, label: str, at: int) -> int:
        block = self.nest.label(label).extent
        for node in self.nest.nodes[:at]:
            if getattr(node, "label", "") == label:
                block = min(block, node.step)
        return block

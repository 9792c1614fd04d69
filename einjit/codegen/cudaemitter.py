"""What the emitters of GPU kernels have in common: the frame of the text, its arguments, and where a block is."""
from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from typing import Sequence

import numpy as np

from ..errors import ScheduleError
from ..expr import product
from ..ir import Kind, Loop, LoopNest, Tensor
from .gpuspecs import SHARED_BYTES
from .source import Source, Word


SPECS = ("Element", "MatrixPanel", "MatrixTile", "Panel", "SharedTile")


@dataclass(frozen=True)
class Access:
    """What code may take for granted of layouts. `vectors`: tensors whose fragments are read and written in one access;
    `wide`: positions may need more than 32 bits."""

    vectors: tuple[str, ...] = ()
    wide: bool = False


class Emitter:
    intrinsics = "gpuelement"

    def __init__(self, nest: LoopNest, taken: Access):
        self.nest, self.access = nest, taken
        self.integer = "uint64" if taken.wide else "uint32"
        self.words: dict[Word, None] = {}
        self.lines: list[str] = []
        self.header: list[str] = []

    def source(self) -> Source:
        self.body()
        return Source.of(self.nest, self._module(), tuple(self.words))

    def _module(self) -> str:
        arguments = ", ".join([t.name for t in self.nest.tensors] + [w.name for w in self.words])
        imports = f"einjit.codegen.{self.intrinsics}"
        names = sorted(set(re.findall(r"= ([a-z]\w+)\(", "\n".join(self.header))))
        specs = sorted(set(re.findall(rf"\b({'|'.join(SPECS)})\(", "\n".join(self.header))))
        nodes = sorted(set(re.findall(r"\b(Binary|Const|Operand|Select|Unary)\(", "\n".join(self.header))))
        wrapped = textwrap.wrap(f"def @ENTRY@({arguments}):", 110, subsequent_indent=" " * 8)
        return "\n".join([
            "from numba import cuda, uint32, uint64", "", f"from {imports} import {', '.join(names)}",
            *([f"from einjit.codegen.gpuspecs import {', '.join(specs)}"] if specs else []),
            *([f"from einjit.expr import {', '.join(nodes)}"] if nodes else []), "",
            *self.header, "", "", "@cuda.jit", *wrapped, *self.lines, ""])

    def body(self) -> None:
        raise NotImplementedError

    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def word(self, what: str, label: str, tensor: str = "") -> str:
        w = Word(what, label, tensor)
        self.words[w] = None
        return w.name

    def count(self, label: str) -> str:
        return self.word("count", label)

    def position(self, text: str) -> str:
        """Arithmetic on positions, kept in their width: Numba would widen it."""
        return f"{self.integer}({text})"

    # -- where a block and a thread are ----------------------------------------------------------------

    def place_block(self, depth: int, index: str = "cuda.blockIdx.x") -> None:
        """The first positions of the block, fastest label first."""
        loops = [loop for loop in self.nest.loops if loop.kind is Kind.BLOCK]
        if not loops:
            return
        self.line(depth, f"block = {self.position(index)}")
        for loop in reversed(loops):
            variable = self.nest.variable(loop)
            index = "block"
            if loop is not loops[0]:
                blocks = self.word("blocks", loop.label)
                index = f"block % {blocks}"
            step = self._block_step(loop)
            scaled = f"({index}) * {step}" if "%" in index else f"{index} * {step}"
            self.line(depth, f"{variable} = {self.position(scaled if loop.step > 1 else index)}")
            if loop is not loops[0]:
                self.line(depth, f"block = {self.position(f'block // {blocks}')}")

    def _block_step(self, loop: Loop) -> str:
        """Positions of a block: of a part of a sum, which depend on its length, an argument."""
        return self.word("chunk", loop.label) if self.nest.label(loop.label).summed else str(loop.step)

    def offsets(self, depth: int, label: str, position: str, tensors: Sequence[Tensor],
                tag: str = "") -> dict[str, list[str]]:
        """By tensor, the terms of its byte offset at a position of a label; emits what these need."""
        members = self.nest.label(label).members
        if len(members) == 1:
            places = {members[0]: position}
        else:
            places, rest = {}, position
            for member in members[:-1]:
                size, at = self.word("size", member), f"{member}_at{tag}"
                self.line(depth, f"{at} = {self.position(f'{rest} % {size}')}")
                self.line(depth, f"rest{tag} = {self.position(f'{rest} // {size}')}")
                places[member], rest = at, f"rest{tag}"
            places[members[-1]] = f"{members[-1]}_at{tag}"
            self.line(depth, f"{members[-1]}_at{tag} = {rest}")
        return {t.name: [f"uint64({at}) * {self.stride(t, label, member)}" for member, at in places.items()]
                for t in tensors if label in t.labels}

    def stride(self, t: Tensor, label: str, member: str) -> str:
        """Bytes from one position to the next: part of the code where these are neighbours. Numba would make a float of
        the sum of an address and a plain number."""
        neighbours = t.unit == label and member == self.nest.label(label).members[0]
        return f"uint64({np.dtype(t.dtype).itemsize})" if neighbours else self.word("stride", member, t.name)

    def place_in_batch(self, depth: int, tensors: Sequence[Tensor]) -> dict[str, str]:
        """Addresses of tensors at the block's place in a batch, whose loop is over blocks one by one."""
        bases = {t.name: t.name for t in tensors}
        for loop in self.nest.loops:
            if loop.kind is Kind.BLOCK and loop.step == 1:
                for name, terms in self.offsets(depth, loop.label, loop.label, tensors).items():
                    self.line(depth, f"{name}_batch = {' + '.join([bases[name], *terms])}")
                    bases[name] = f"{name}_batch"
        return bases

    def edges(self, label: str, own: str, shifts: Sequence[int], tag: str) -> tuple[str, str]:
        """Offsets in the output of a thread's positions on a label, which lie `own` and a shift past the block's first,
        and whether they are inside."""
        offsets, insides = [], []
        first = self.nest.variable(self.nest.loops_of(label)[0])
        for i, shift in enumerate(shifts):
            plus = f" + {shift}" if shift else ""
            self.line(1, f"{tag}{i} = {self.position(f'{first} + {own}{plus}')}")
            terms = self.offsets(1, label, f"{tag}{i}", [self.nest.out], f"_{tag}{i}")["out"]
            self.line(1, f"{tag}{i}_out = {' + '.join(terms)}")
            offsets.append(f"{tag}{i}_out")
            insides.append(f"{tag}{i} < {self.count(label)}")
        return ", ".join(offsets), ", ".join(insides)

    # -- products, whose operands pass through shared memory -------------------------------------------------

    def share_memory(self, name: str, size: int) -> None:
        """An array of bytes that a block's threads have in common."""
        if size > SHARED_BYTES:
            raise ScheduleError(f"the blocks take {size} bytes of shared memory, and there are {SHARED_BYTES}: share "
                                "smaller ones")
        self.line(1, f"{name} = cuda.shared.array({size}, 'uint8', 16)")

    def place_first_block(self, serial: str, step: int) -> str:
        """Set the positions of the sum's first block, which is the one with the edge, and where the next one begins;
        returns the text that the block's start adds to a position."""
        start = self.place_range(1, serial)
        length = f"{serial}_end - {start}" if start else f"{serial}_end"
        self.line(1, f"first = {self.position(f'({length} - 1) % {step} + 1')}")
        self.line(1, f"following = {self.position(f'{start} + first' if start else 'first')}")
        return f"{start} + " if start else ""

    def place_out(self) -> str:
        """Where the output of the block's part begins."""
        return self.place_part(1, self.place_in_batch(1, [self.nest.out])["out"])

    def require_product(self) -> None:
        """Raise `ScheduleError` for what a tile of products does not compute."""
        if self.nest.body != product(2) or self.nest.reduce != "add":
            raise ScheduleError("tiles of shared operands compute sums of products alone, and this body is "
                                f"{self.nest.body}")

    # -- sums whose parts blocks compute -----------------------------------------------------------------

    def place_part(self, depth: int, base: str) -> str:
        """Address of the output that the block's part of the sums has for itself; `base` where there are no parts."""
        loop = part_loop(self.nest)
        if loop is None:
            return base
        part = f"{self.nest.variable(loop)} // {self._block_step(loop)}"
        self.line(depth, f"out_part = {base} + uint64({part}) * {self.word('part', '', 'out')}")
        return "out_part"

    def place_range(self, depth: int, label: str) -> str:
        """Set the end of the block's part of a sum; returns the text of its start, '' for 0."""
        loop = part_loop(self.nest)
        if loop is None:
            self.line(depth, f"{label}_end = {self.count(label)}")
            return ""
        start = self.nest.variable(loop)
        end = self.position(f"{start} + {self._block_step(loop)}")
        self.line(depth, f"{label}_end = min({end}, {self.count(label)})")
        return start


def part_loop(nest: LoopNest) -> Loop | None:
    """The loop over parts of a sum that blocks compute, each with an output of its own."""
    return next((loop for loop in nest.loops if loop.kind is Kind.BLOCK and nest.label(loop.label).summed), None)


def parts_of(nest: LoopNest) -> int:
    """How many parts of its sums there are."""
    loop = part_loop(nest)
    return -(-nest.label(loop.label).extent // loop.step) if loop else 1

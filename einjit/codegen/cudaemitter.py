"""What the emitters of GPU kernels have in common: the frame of the text, its arguments, and where a block is."""
from __future__ import annotations

import hashlib
import re
import textwrap
from dataclasses import dataclass
from typing import Sequence

import numpy as np

from ..ir import Kind, Loop, LoopNest, Tensor
from .source import Source, Word


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
        terms = ["".join(t.labels) or "1" for t in (*self.nest.inputs, self.nest.out)]
        name = re.sub(r"\W+", "_", "_".join(terms))
        text = self._module()
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        entry = f"einsum_{name}_{self.nest.out.dtype}_{digest}"
        return Source(text.replace("@ENTRY@", entry), entry, tuple(self.words))

    def _module(self) -> str:
        arguments = ", ".join([t.name for t in self.nest.tensors] + [w.name for w in self.words])
        imports = f"einjit.codegen.{self.intrinsics}"
        names = sorted(set(re.findall(r"= ([a-z]\w+)\(", "\n".join(self.header))))
        specs = sorted(set(re.findall(r"\b(Element|Panel|SharedTile)\(", "\n".join(self.header))))
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

    def place_block(self, depth: int) -> None:
        """The first positions of the block, fastest label first."""
        loops = [loop for loop in self.nest.loops if loop.kind is Kind.BLOCK]
        if not loops:
            return
        self.line(depth, f"block = {self.position('cuda.blockIdx.x')}")
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

    def place_in_batch(self, depth: int) -> dict[str, str]:
        """Addresses of the tensors at the block's place in a batch, whose loop is over blocks one by one."""
        bases = {t.name: t.name for t in self.nest.tensors}
        for loop in self.nest.loops:
            if loop.kind is Kind.BLOCK and loop.step == 1:
                for name, terms in self.offsets(depth, loop.label, loop.label, self.nest.tensors).items():
                    self.line(depth, f"{name}_batch = {' + '.join([bases[name], *terms])}")
                    bases[name] = f"{name}_batch"
        return bases

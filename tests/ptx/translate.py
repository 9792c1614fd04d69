"""A kernel as Python functions, one for each of its basic blocks, over arrays with one element a lane.

A block's function comes in two forms. In the plain one all lanes take part, `m` is None, and results are assigned.
In the masked one only the lanes `m` take part, and the others keep what their registers held. A barrier begins a
block, so that lanes can wait for each other in front of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from . import conversions, floats, integers, memory, transfers, warp  # noqa: F401 (two of them only fill the table)
from .dtypes import DTYPES
from .expressions import assigned, is_wanted, read
from .memory import GLOBAL, LOCAL, MARGIN, SHARED
from .opcodes import Code, translated
from .syntax import Address, Immediate, Instruction, Kernel, Operand, Symbol, Vector

EXIT = -1
ENDS = ("bra", "ret", "exit")
BASES = {"shared": SHARED, "local": LOCAL, "global": GLOBAL + MARGIN}
Line = tuple[str, str]      # translated text, and the instruction that it comes from
Function = Callable[..., None]


@dataclass(frozen=True)
class Block:
    """Instructions that run one after the other; `barrier`: the first is one. `following`: the block behind it;
    `target`: where its last instruction branches to."""

    instructions: tuple[Instruction, ...]
    barrier: bool
    following: int
    target: int

    @property
    def end(self) -> Instruction | None:
        return self.instructions[-1] if self.instructions[-1].name in ENDS else None


@dataclass(frozen=True, eq=False)
class Program:
    kernel: Kernel
    blocks: tuple[Block, ...]

    @cached_property
    def codes(self) -> tuple[tuple[Code | None, ...], ...]:
        """For each block the translations of its instructions, without the branch at its end."""
        return tuple(tuple(translated(i) for i in b.instructions if i.name not in ENDS) for b in self.blocks)

    @cached_property
    def plain(self) -> tuple[Function, ...]:
        return self._compiled(masked=False)

    @cached_property
    def masked(self) -> tuple[Function, ...]:
        return self._compiled(masked=True)

    def lines(self, masked: bool) -> list[Line]:
        found: list[Line] = []
        for number, (block, codes) in enumerate(zip(self.blocks, self.codes)):
            found.append((f"def block_{number}(s, r, m):", ""))
            for i, code in zip(block.instructions, codes):
                found += [(f"    {text}", i.text) for text in _statements(i, code, masked)]
            found.append((f"    {_jump(block)}", block.instructions[-1].text))
        return found

    def source(self, masked: bool = False) -> str:
        return "".join(f"{text}\n" for text, _ in self.lines(masked))

    def origin(self, fault: BaseException) -> str:
        """The instruction that an exception comes from, by its traceback; '' if it comes from none."""
        trace, found = fault.__traceback__, ""
        while trace is not None:
            for masked in (False, True):
                if trace.tb_frame.f_code.co_filename == self._filename(masked):
                    found = self.lines(masked)[trace.tb_lineno - 1][1]
            trace = trace.tb_next
        return found

    def _filename(self, masked: bool) -> str:
        return f"<{self.kernel.name} {id(self)} {'masked' if masked else 'plain'}>"

    def _compiled(self, masked: bool) -> tuple[Function, ...]:
        names = {**vars(integers), **vars(floats), **vars(warp), **DTYPES, "bool_": np.bool_, "np": np,
                 "in_space": memory.in_space}
        exec(compile(self.source(masked), self._filename(masked), "exec"), names)
        return tuple(names[f"block_{number}"] for number in range(len(self.blocks)))


@lru_cache(maxsize=64)
def translate(kernel: Kernel) -> Program:
    program = Program(kernel, tuple(_blocks(kernel)))
    _ = program.codes     # what is not supported shows here, and not when it is reached
    return program


def _blocks(kernel: Kernel) -> Iterator[Block]:
    instructions = [_addressed(kernel, i) for i in kernel.instructions]
    count = len(instructions)
    barriers = {n for n, i in enumerate(instructions) if i.name in ("bar", "barrier") and "warp" not in i.opcode}
    behind = {n + 1 for n, i in enumerate(instructions) if i.name in ENDS}
    starts = sorted(n for n in {0, *kernel.labels.values(), *behind, *barriers} if n < count)
    numbers = {start: number for number, start in enumerate(starts)}
    for start, stop in zip(starts, [*starts[1:], count]):
        last = instructions[stop - 1]
        target = numbers.get(kernel.labels[last.operands[0].name], EXIT) if last.name == "bra" else EXIT
        yield Block(tuple(instructions[start:stop]), start in barriers, numbers.get(stop, EXIT), target)


def _addressed(kernel: Kernel, i: Instruction) -> Instruction:
    """Names of variables replaced by their addresses."""
    addresses = {v.name: BASES[v.memory] + kernel.offsets[v.name] for v in kernel.variables}

    def with_addresses(operand: Operand) -> Operand:
        match operand:
            case Symbol(name) if name in addresses:
                return Immediate(addresses[name])
            case Address(base, offset):
                return Address(with_addresses(base), offset)
            case Vector(items):
                return Vector(tuple(with_addresses(item) for item in items))
        return operand

    if i.name == "bra" or not addresses:
        return i
    return replace(i, operands=tuple(with_addresses(operand) for operand in i.operands))


def _statements(i: Instruction, code: Code, masked: bool) -> list[str]:
    if not i.guard:
        return _assignments(code, masked)
    inside = _assignments(code, masked=True)
    return [
        f"outer, m = m, s.both(m, {read(i.guard, 'pred')})",
        "if m.any():",
        *(f"    {text}" for text in inside),
        "m = outer",
    ]


def _assignments(code: Code, masked: bool) -> list[str]:
    if not code.results:
        return [code.value]
    values = [f"t[{q}]" for q in range(len(code.results))] if code.listed else [code.value]
    lines = [f"t = {code.value}"] if code.listed else []
    for (register, kind), value in zip(code.results, values):
        if is_wanted(register):
            value = assigned(register, kind, value)
            target = f"r.{register.name}"
            lines.append(f"{target} = np.where(m, {value}, {target})" if masked else f"{target} = {value}")
    return lines


def _jump(block: Block) -> str:
    if block.end is None:
        return f"s.jump({block.following}, m)"
    if block.end.guard is None:
        return f"s.jump({block.target}, m)"
    return f"s.branch({read(block.end.guard, 'pred')}, {block.target}, {block.following}, m)"

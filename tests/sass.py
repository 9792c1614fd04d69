"""NVIDIA's machine code as text (`GpuKernel.sass`), read: its instructions, its loops, and what one of them holds.

    code = parse(kernel.sass)
    loop = code.hot_loop
    print(loop.share("FFMA"), loop.widths("LDS"))
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

MULTIPLY_ADDS = frozenset({"FFMA", "DFMA", "HFMA2", "HMMA", "IMAD"})
LABEL = re.compile(r"(\.L_\w+):")
INSTRUCTION = re.compile(
    r"\s*/\*(?P<address>[0-9a-f]{4,})\*/\s+(?:(?P<guard>@!?U?P\w+)\s+)?(?P<opcode>[A-Z][\w.]*)(?P<operands>[^;]*);")


@dataclass(frozen=True)
class Instruction:
    """One instruction. `opcode` has its modifiers behind dots, `guard` is a predicate such as @!P0."""

    address: int
    guard: str
    opcode: str
    operands: str

    @property
    def name(self) -> str:
        """The opcode alone."""
        return self.opcode.split(".")[0]

    @property
    def target(self) -> str:
        """The label of a branch, or nothing."""
        found = re.search(r"`\((\.L_\w+)\)", self.operands)
        return found[1] if found and self.name == "BRA" else ""

    @property
    def width(self) -> int:
        """Bits that an access to memory moves a thread; 32 where no modifier says otherwise."""
        modifiers = self.opcode.split(".")
        return next((bits for bits in (128, 64, 16, 8) if {f"{bits}", f"U{bits}", f"S{bits}"} & set(modifiers)), 32)


@dataclass(frozen=True)
class Code:
    """Instructions in their order, of a kernel or of a part; labels by the place of the instruction behind."""

    instructions: tuple[Instruction, ...]
    labels: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.instructions)

    def count(self, *names: str) -> int:
        """Instructions of these names."""
        return sum(i.name in names for i in self.instructions)

    @property
    def counts(self) -> Counter[str]:
        """Instructions by name."""
        return Counter(i.name for i in self.instructions)

    def share(self, *names: str) -> float:
        """The part of all instructions that has these names, 1 for all."""
        return self.count(*names) / len(self)

    def widths(self, name: str) -> Counter[int]:
        """Accesses of one name, by how many bits they move."""
        return Counter(i.width for i in self.instructions if i.name == name)

    @property
    def loops(self) -> tuple[Code, ...]:
        """From each label that is branched back to, up to the last branch there. A branch to itself is no loop: the
        assembler puts one behind the end of the code."""
        places, ends = dict(self.labels), {}
        for n, instruction in enumerate(self.instructions):
            start = places.get(instruction.target, n)
            if start < n:
                ends[start] = n + 1
        return tuple(Code(self.instructions[start:end]) for start, end in sorted(ends.items()))

    @property
    def hot_loop(self) -> Code:
        """The loop with the most multiply-adds; of several around them, the innermost."""
        return max(self.loops, key=lambda loop: (loop.count(*MULTIPLY_ADDS), -len(loop)))


def parse(text: str) -> Code:
    """What the disassembler printed of one kernel; instructions that do nothing are left out."""
    instructions: list[Instruction] = []
    labels: list[tuple[str, int]] = []
    for line in text.splitlines():
        if found := LABEL.match(line):
            labels.append((found[1], len(instructions)))
        elif (found := INSTRUCTION.match(line)) and found["opcode"] != "NOP":
            instructions.append(Instruction(int(found["address"], 16), found["guard"] or "", found["opcode"],
                                            found["operands"].strip()))
    return Code(tuple(instructions), tuple(labels))

"""A kernel as frozen values: parameters, variables, labels and instructions with their operands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .dtypes import bits


@dataclass(frozen=True)
class Register:
    """`name` is a Python name; `type` is what it was declared with. A predicate may be used `negated`."""

    name: str
    type: str
    negated: bool = False


@dataclass(frozen=True)
class Immediate:
    """A constant: `type` is f32 or f64, or '' for an integer."""

    value: int | float
    type: str = ""


@dataclass(frozen=True)
class Special:
    """A register that the hardware sets, such as tid.x."""

    name: str


@dataclass(frozen=True)
class Symbol:
    """The name of a variable, a parameter, a label, or `_` for a result that nobody wants."""

    name: str


@dataclass(frozen=True)
class Address:
    """`[base+offset]`"""

    base: Register | Symbol | Immediate
    offset: int


@dataclass(frozen=True)
class Vector:
    """`{a, b, ...}`"""

    items: tuple[Operand, ...]


@dataclass(frozen=True)
class Pair:
    """`a|b`: a result and a predicate, or two predicates."""

    first: Operand
    second: Operand


Operand = Register | Immediate | Special | Symbol | Address | Vector | Pair


@dataclass(frozen=True)
class Instruction:
    """`opcode` is split at its dots: ('ld', 'global', 'v4', 'f32')."""

    opcode: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Register | None
    text: str

    @property
    def name(self) -> str:
        return self.opcode[0]

    @property
    def type(self) -> str:
        return self.opcode[-1]

    @property
    def space(self) -> str:
        """The memory that is accessed: '' if only the address tells."""
        return next((part for part in self.opcode if part in ("global", "shared", "local", "param", "const")), "")


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str
    size: int


@dataclass(frozen=True)
class Variable:
    """An array in one of the memories; `size` is 0 where the launch decides (extern shared memory)."""

    space: str
    name: str
    align: int
    size: int
    data: bytes = b""

    @property
    def memory(self) -> str:
        """Where it lies: constants are kept in global memory."""
        return "global" if self.space == "const" else self.space


@dataclass(frozen=True, eq=False)
class Kernel:
    """One entry of a module. `labels` say before which instruction they stand."""

    name: str
    params: tuple[Parameter, ...]
    variables: tuple[Variable, ...]
    registers: tuple[Register, ...]
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]
    maxntid: int

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Where each variable lies in its memory. Shared memory of the launch begins behind the static one."""
        found, ends = {}, dict.fromkeys(("shared", "local", "global"), 0)
        for var in sorted(self.variables, key=lambda v: v.space == "shared" and v.size == 0):
            found[var.name] = start = -(-ends[var.memory] // var.align) * var.align
            ends[var.memory] = start + var.size
        return found

    def size(self, space: str) -> int:
        """What the variables in a memory take; the offset of the launch's shared memory counts as taken."""
        return max((self.offsets[v.name] + v.size for v in self.variables if v.memory == space), default=0)

    def granule(self, space: str) -> int:
        """The smallest access to a memory in bytes: what is known of its bytes is kept for so many together."""
        sizes = [bits(i.type) // 8 for i in self.instructions
                 if i.name in ("ld", "st", "atom", "red") and i.space in ("", space)]
        sizes += [i.operands[2].value for i in self.instructions if i.name == "cp" and len(i.operands) > 2]
        return min(sizes, default=4)

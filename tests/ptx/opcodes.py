"""Which Python text stands for an instruction: a table from opcode to a small function.

An opcode's function is told what may stand between its name and its type; whatever else is found there, and
whichever type has no values here, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .dtypes import FLOATS, bits, name, unsigned
from .errors import UnsupportedPtx
from .expressions import read
from .syntax import Immediate, Instruction, Operand, Pair, Register, Symbol, Vector

TYPE = re.compile(r"([subf]|bf|tf)\d+(x\d)?|pred")
KNOWN = {f"{letter}{size}" for letter in "sub" for size in (8, 16, 32, 64)} | {*FLOATS, "pred"}
ROUNDINGS = ("rn", "rz", "rm", "rp")
CARRY = Register("carry", "pred")     # what .cc leaves for the next addc, subc or madc


@dataclass(frozen=True)
class Code:
    """A value and the operand that it is assigned to, with the PTX type that the value has; `value` is a list where
    there are several; it is a statement where there is none."""

    value: str
    results: tuple[tuple[Operand, str], ...] = ()
    listed: bool = False


Translator = Callable[[Instruction], Code]
TABLE: dict[str, Translator] = {}
MODIFIERS: dict[str, frozenset[str]] = {}


def opcode(names: str, modifiers: str = "") -> Callable[[Translator], Translator]:
    def enter(translator: Translator) -> Translator:
        for each in names.split():
            TABLE[each] = translator
            MODIFIERS[each] = frozenset(modifiers.split())
        return translator
    return enter


def translated(i: Instruction) -> Code:
    if i.name not in TABLE:
        raise UnsupportedPtx(f"no translation of {i.text!r}")
    for part in i.opcode[1:]:
        if TYPE.fullmatch(part):
            if part not in KNOWN and part != "tf32":
                raise UnsupportedPtx(f"type {part} in {i.text!r}")
        elif part not in MODIFIERS[i.name] and not part.startswith(("L1::", "L2::")):
            raise UnsupportedPtx(f"modifier .{part} in {i.text!r}")
    try:
        return TABLE[i.name](i)
    except UnsupportedPtx as fault:
        raise UnsupportedPtx(f"{fault} in {i.text!r}") from None
    except (IndexError, KeyError, ValueError) as fault:
        raise UnsupportedPtx(f"{i.text!r} ({fault!r})") from fault


def rounding(i: Instruction) -> str:
    return next((part for part in i.opcode if part in ROUNDINGS), "rn")


def _sources(i: Instruction, kind: str) -> list[str]:
    return [read(operand, kind) for operand in i.operands[1:]]


def _result(i: Instruction, value: str, kind: str) -> Code:
    if "sat" in i.opcode and kind in FLOATS:
        value = f"saturated({value})"
    return Code(value, ((i.operands[0], kind),))


@opcode("add sub mul div", "rn rz rm rp ftz sat lo hi wide approx full cc")
def basic(i: Instruction) -> Code:
    if i.type not in FLOATS:
        return _integer(i)
    sign, mode = {"add": "+", "sub": "-", "mul": "*", "div": "/"}[i.name], rounding(i)
    a, b = _sources(i, i.type)
    if mode == "rn":
        return _result(i, f"{a} {sign} {b}", i.type)
    if i.type != "f32":
        raise UnsupportedPtx(f"rounding .{mode}")
    if i.name == "add":
        return _result(i, f'fma({a}, f32(1), {b}, "{mode}")', i.type)
    if i.name == "sub":
        return _result(i, f'fma({b}, f32(-1), {a}, "{mode}")', i.type)
    return _result(i, f'narrowed({a}.astype(f64) {sign} {b}.astype(f64), "{mode}")', i.type)


def _integer(i: Instruction) -> Code:
    if "cc" in i.opcode:
        return with_carry(i)
    if i.name == "mul":
        return _result(i, *_product(i))
    if i.name == "div":
        return _result(i, "quotient({}, {})".format(*_sources(i, i.type)), i.type)
    sign = "+" if i.name == "add" else "-"
    if "sat" in i.opcode:
        a, b = _sources(i, "s32")
        return _result(i, f"clamp({a}.astype(i64) {sign} {b}.astype(i64), -2**31, 2**31 - 1, i32)", "s32")
    a, b = _sources(i, unsigned(i.type))
    return _result(i, f"{a} {sign} {b}", unsigned(i.type))


def _product(i: Instruction) -> tuple[str, str]:
    """The text of an integer product and its type."""
    if "wide" in i.opcode:
        wide = i.type[0] + str(2 * bits(i.type))
        a, b = (f"{read(operand, i.type)}.astype({name(wide)})" for operand in i.operands[1:3])
        return f"{a} * {b}", wide
    if "hi" in i.opcode:
        a, b = (read(operand, i.type) for operand in i.operands[1:3])
        return f"high({a}, {b})", i.type
    a, b = (read(operand, unsigned(i.type)) for operand in i.operands[1:3])
    return f"{a} * {b}", unsigned(i.type)


@opcode("addc subc madc", "lo hi cc")
def with_carry(i: Instruction) -> Code:
    """Additions and subtractions that take a carry or leave one; a borrow is one as well."""
    kind = unsigned(i.type)
    if i.name.startswith("mad"):
        a, b = _product(i)[0], read(i.operands[3], kind)
    else:
        a, b = _sources(i, kind)
    carry = read(CARRY, "pred") if i.name.endswith("c") else "bool_(0)"
    function = "less_with_borrow" if i.name.startswith("sub") else "sum_with_carry"
    left = CARRY if "cc" in i.opcode else Symbol("_")
    return Code(f"{function}(bits_of({a}), {b}, {carry})", ((i.operands[0], kind), (left, "pred")), listed=True)


@opcode("fma mad", "rn rz rm rp ftz sat lo hi wide cc")
def multiply_add(i: Instruction) -> Code:
    if "cc" in i.opcode:
        return with_carry(i)
    if i.type not in FLOATS:
        product, kind = _product(i)
        return _result(i, f"{product} + {read(i.operands[3], kind)}", kind)
    mode = rounding(i)
    if mode != "rn" and i.type != "f32":
        raise UnsupportedPtx(f"rounding .{mode}")
    a, b, c = _sources(i, i.type)
    return _result(i, f"fma({a}, {b}, {c})" if mode == "rn" else f'fma({a}, {b}, {c}, "{mode}")', i.type)


@opcode("rem")
def rem(i: Instruction) -> Code:
    return _result(i, "remainder({}, {})".format(*_sources(i, i.type)), i.type)


@opcode("sad")
def sad(i: Instruction) -> Code:
    a, b = (read(operand, i.type) for operand in i.operands[1:3])
    c = read(i.operands[3], unsigned(i.type))
    return _result(i, f"bits_of(np.maximum({a}, {b}) - np.minimum({a}, {b})) + {c}", unsigned(i.type))


@opcode("neg", "ftz")
def neg(i: Instruction) -> Code:
    kind = i.type if i.type in FLOATS else unsigned(i.type)
    return _result(i, f"-{read(i.operands[1], kind)}", kind)


UNARY = {
    "abs": "np.abs({})", "sqrt": "np.sqrt({})", "ex2": "np.exp2({})", "lg2": "np.log2({})", "sin": "np.sin({})",
    "cos": "np.cos({})", "tanh": "np.tanh({})", "rcp": "1 / {}", "rsqrt": "1 / np.sqrt({})",
}


@opcode(" ".join(UNARY), "rn approx ftz")
def unary(i: Instruction) -> Code:
    return _result(i, UNARY[i.name].format(read(i.operands[1], i.type)), i.type)


@opcode("min max", "ftz NaN")
def extreme(i: Instruction) -> Code:
    a, b = _sources(i, i.type)
    if i.type in FLOATS:
        function = "smaller" if i.name == "min" else "larger"
        return _result(i, f"{function}({a}, {b}, {'NaN' in i.opcode})", i.type)
    return _result(i, f"np.{i.name}imum({a}, {b})", i.type)


@opcode("copysign")
def copysign(i: Instruction) -> Code:
    a, b = _sources(i, i.type)
    return _result(i, f"np.copysign({b}, {a})", i.type)


@opcode("testp", "finite infinite number notanumber normal subnormal")
def testp(i: Instruction) -> Code:
    return Code(f'is_kind({read(i.operands[1], i.type)}, "{i.opcode[1]}")', ((i.operands[0], "pred"),))


@opcode("and or xor")
def bitwise(i: Instruction) -> Code:
    sign = {"and": "&", "or": "|", "xor": "^"}[i.name]
    return _result(i, f" {sign} ".join(_sources(i, i.type)), i.type)


@opcode("not")
def invert(i: Instruction) -> Code:
    return _result(i, f"~({read(i.operands[1], i.type)})", i.type)


@opcode("shl shr")
def shift(i: Instruction) -> Code:
    function = "shift_left" if i.name == "shl" else "shift_right"
    return _result(i, f"{function}({read(i.operands[1], i.type)}, {read(i.operands[2], 'u32')})", i.type)


@opcode("shf", "l r wrap clamp")
def funnel_shift(i: Instruction) -> Code:
    a, b, count = _sources(i, "u32")
    return _result(i, f"funnel({a}, {b}, {count}, {'l' in i.opcode}, {'wrap' in i.opcode})", "u32")


@opcode("bfe")
def bfe(i: Instruction) -> Code:
    start, length = (read(operand, "u32") for operand in i.operands[2:])
    return _result(i, f"field({read(i.operands[1], i.type)}, {start}, {length})", i.type)


@opcode("bfi")
def bfi(i: Instruction) -> Code:
    a, b = (read(operand, i.type) for operand in i.operands[1:3])
    start, length = (read(operand, "u32") for operand in i.operands[3:])
    return _result(i, f"insert({a}, {b}, {start}, {length})", i.type)


@opcode("prmt")
def prmt(i: Instruction) -> Code:
    return _result(i, "permute({}, {}, {})".format(*_sources(i, "u32")), "u32")


@opcode("lop3")
def lop3(i: Instruction) -> Code:
    a, b, c = (read(operand, "u32") for operand in i.operands[1:4])
    return _result(i, f"logic({a}, {b}, {c}, {i.operands[4].value})", "u32")


@opcode("dp4a")
def dp4a(i: Instruction) -> Code:
    a, b, c = _sources(i, "u32")
    signed_a, signed_b = (kind[0] == "s" for kind in i.opcode[1:])
    return _result(i, f"dot4({a}, {b}, {c}, {signed_a}, {signed_b})", "u32")


@opcode("popc clz")
def count_bits(i: Instruction) -> Code:
    function = "population" if i.name == "popc" else "leading_zeros"
    return _result(i, f"{function}({read(i.operands[1], i.type)})", "u32")


@opcode("brev")
def brev(i: Instruction) -> Code:
    return _result(i, f"reversed_bits({read(i.operands[1], i.type)})", i.type)


@opcode("selp")
def selp(i: Instruction) -> Code:
    a, b = (read(operand, i.type) for operand in i.operands[1:3])
    return _result(i, f"np.where({read(i.operands[3], 'pred')}, {a}, {b})", i.type)


@opcode("slct", "ftz")
def slct(i: Instruction) -> Code:
    kind, decides = (part for part in i.opcode if TYPE.fullmatch(part))
    a, b = (read(operand, kind) for operand in i.operands[1:3])
    return _result(i, f"np.where({read(i.operands[3], decides)} >= 0, {a}, {b})", kind)


COMPARISONS = {"eq": "==", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
OPPOSITES = {"ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}
COMPARING = " ".join([*COMPARISONS, *OPPOSITES, "ne neu equ num nan and or xor ftz"])


def _comparison(how: str, a: str, b: str, is_float: bool) -> str:
    """An ordered comparison is false of NaN, an unordered one true."""
    if how in COMPARISONS:
        return f"({a} {COMPARISONS[how]} {b})"
    if how == "ne" and not is_float or how == "neu":
        return f"({a} != {b})"
    if how == "equ" or how == "ne":
        differ = f"(({a} < {b}) | ({a} > {b}))"
        return f"~{differ}" if how == "equ" else differ
    if how in OPPOSITES:
        return f"~({a} {OPPOSITES[how]} {b})"
    return f"ordered({a}, {b})" if how == "num" else f"~ordered({a}, {b})"


@opcode("setp", COMPARING)
def setp(i: Instruction) -> Code:
    found = _comparison(i.opcode[1], *(read(operand, i.type) for operand in i.operands[1:3]), i.type in FLOATS)
    both = (found, f"~{found}")
    if len(i.operands) > 3:
        sign = {"and": "&", "or": "|", "xor": "^"}[i.opcode[2]]
        both = tuple(f"{each} {sign} {read(i.operands[3], 'pred')}" for each in both)
    if isinstance(i.operands[0], Pair):
        pair = (i.operands[0].first, "pred"), (i.operands[0].second, "pred")
        return Code(f"[{both[0]}, {both[1]}]", pair, listed=True)
    return Code(both[0], ((i.operands[0], "pred"),))


@opcode("set", COMPARING)
def set_value(i: Instruction) -> Code:
    kind, compared = (part for part in i.opcode if TYPE.fullmatch(part))
    if len(i.operands) > 3:
        raise UnsupportedPtx("a third source of set")
    found = _comparison(i.opcode[1], *_sources(i, compared), compared in FLOATS)
    true = read(Immediate(1.0, "f32") if kind == "f32" else Immediate(-1), kind)
    return _result(i, f"np.where({found}, {true}, {read(Immediate(0), kind)})", kind)


@opcode("mov")
def mov(i: Instruction) -> Code:
    target, source = i.operands
    if isinstance(target, Vector):
        part = f"u{bits(i.type) // len(target.items)}"
        value = f"unpacked({read(source, unsigned(i.type))}, {part}, {len(target.items)})"
        return Code(value, tuple((item, part) for item in target.items), listed=True)
    if isinstance(source, Vector):
        part = f"u{bits(i.type) // len(source.items)}"
        items = ", ".join(read(item, part) for item in source.items)
        return Code(f"packed([{items}], {unsigned(i.type)})", ((target, unsigned(i.type)),))
    return Code(read(source, i.type), ((target, i.type),))


@opcode("cvta", "to global shared local const")
def cvta(i: Instruction) -> Code:
    return _result(i, read(i.operands[1], i.type), i.type)     # one space of addresses: see memory.py


@opcode("isspacep", "global shared local")
def isspacep(i: Instruction) -> Code:
    return Code(f'in_space({read(i.operands[1], "u64")}, "{i.opcode[1]}")', ((i.operands[0], "pred"),))

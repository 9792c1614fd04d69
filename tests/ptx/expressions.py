"""Operands as Python text: how translated code reads a register as some type, and what it assigns to one."""

from __future__ import annotations

import math
import re

from .dtypes import HALVES, bits, name, unsigned
from .errors import UnsupportedPtx
from .syntax import Address, Immediate, Operand, Register, Special, Symbol


def read(operand: Operand, kind: str) -> str:
    """The operand's value as an array or scalar of a PTX type; 16-bit floats come as float32."""
    match operand:
        case Register(register, "pred", negated):
            return f"~r.{register}" if negated else f"r.{register}"
        case Register(register, stored):
            return _decoded(_viewed(f"r.{register}", name(stored), name(kind)), kind)
        case Special(register):
            return _viewed(f's.special["{register}"]', "u32", name(kind))
        case Immediate(value, "") if kind == "pred":
            return f"bool_({int(value != 0)})"
        case Immediate(value, ""):
            text = f"{unsigned(kind)}({value % (1 << bits(kind)):#x})"
            return _decoded(_viewed(text, unsigned(kind), name(kind)), kind)
        case Immediate(value, single_or_double):
            precision = kind if kind in ("f32", "f64") else single_or_double
            return _viewed(_float(value, precision), precision, name(kind))
    raise UnsupportedPtx(f"operand {operand}")


def address(operand: Operand) -> str:
    if not isinstance(operand, Address):
        raise UnsupportedPtx(f"{operand} is no address")
    kind = operand.base.type if isinstance(operand.base, Register) else "b64"
    base = read(operand.base, kind)
    return f"{base} + {read(Immediate(operand.offset), kind)}" if operand.offset else base


def assigned(register: Register, kind: str, text: str) -> str:
    """The value of a PTX type as the register's own type. A wider register gets the sign, or zeros."""
    if "pred" in (kind, register.type):
        if kind != register.type:
            raise UnsupportedPtx(f"{kind} in register {register.name}, which is a {register.type}")
        return text
    text = _encoded(text, kind)
    if bits(register.type) > bits(kind) and kind[0] == "s":
        return f"{_atom(text)}.astype(i{bits(register.type)}).view({name(register.type)})"
    return _viewed(text, name(kind), name(register.type))


def is_wanted(operand: Operand) -> bool:
    return operand != Symbol("_")


def _atom(text: str) -> str:
    """In brackets, unless methods can be called on it as it is."""
    return text if re.fullmatch(r"[\w.]+(\[\w+\])?|\w+\([^()]*\)", text) else f"({text})"


def _viewed(text: str, have: str, want: str) -> str:
    """The same bits as another NumPy type; the lower ones, or zeros above, where sizes differ."""
    if have == want:
        return text
    text, size = _atom(text), int(want[1:])
    if int(have[1:]) == size:
        return f"{text}.view({want})"
    if have[0] == "f":
        text = f"{text}.view(u{have[1:]})"
    narrow = f"{text}.astype(u{size})"
    return narrow if want == f"u{size}" else f"{narrow}.view({want})"


def _decoded(text: str, kind: str) -> str:
    decoder = {"f16": "half", "bf16": "bfloat"}.get(kind.removesuffix("x2"))
    if kind not in HALVES:
        return text
    return f"pair({text}, {decoder})" if kind.endswith("x2") else f"{decoder}({text})"


def _encoded(text: str, kind: str) -> str:
    encoder = {"f16": "to_half", "bf16": "to_bfloat"}.get(kind.removesuffix("x2"))
    if kind not in HALVES:
        return text
    return f"from_pair({text}, {encoder})" if kind.endswith("x2") else f"{encoder}({text})"


def _float(value: float, precision: str) -> str:
    return f"{precision}({value!r})" if math.isfinite(value) else f'{precision}("{value}")'

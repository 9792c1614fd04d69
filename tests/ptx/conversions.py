"""cvt: from one type to another, with its ways to round and to saturate."""

from __future__ import annotations

import numpy as np

from .dtypes import FLOATS, bits, dtype, name
from .errors import UnsupportedPtx
from .expressions import read
from .floats import ROUNDERS
from .opcodes import TYPE, Code, opcode, rounding
from .syntax import Instruction


@opcode("cvt", f"rn rz rm rp rna {' '.join(ROUNDERS)} ftz sat")
def cvt(i: Instruction) -> Code:
    target, source = (part for part in i.opcode if TYPE.fullmatch(part))
    if target.endswith("x2"):
        return _pair(i, target, source)
    if target == "tf32":
        return Code(f"to_tf32({read(i.operands[1], source)})", ((i.operands[0], "b32"),))
    value, kind = _converted(i, target, source)
    return Code(value, ((i.operands[0], kind),))


def _pair(i: Instruction, target: str, source: str) -> Code:
    """Two floats to 16 bits each; the first one is the upper half."""
    if source != "f32" or len(i.operands) != 3 or "sat" in i.opcode:
        raise UnsupportedPtx("this conversion")
    upper, lower = (_to_16_bits(target[:-2], read(operand, source), rounding(i)) for operand in i.operands[1:])
    return Code(f"packed([{lower}, {upper}], u32)", ((i.operands[0], "b32"),))


def _to_16_bits(kind: str, text: str, mode: str) -> str:
    if mode not in ("rn", "rz"):
        raise UnsupportedPtx(f"rounding .{mode}")
    return f'{"to_half" if kind == "f16" else "to_bfloat"}({text}, "{mode}")'


def _converted(i: Instruction, target: str, source: str) -> tuple[str, str]:
    """The text of the value, and the PTX type that it has."""
    text = read(i.operands[1], source)
    whole = next((part for part in i.opcode if part in ROUNDERS), "")
    if target in FLOATS:
        if whole and source in FLOATS:
            text = f"np.{ROUNDERS[whole].__name__}({text})"
        if "sat" in i.opcode:
            text = f"saturated({text})"
        return _to_float(i, target, source, text)
    if source in FLOATS:
        return f'to_integer({text}, {name(target)}, "{whole}")', target
    if "sat" in i.opcode:
        info = np.iinfo(dtype(target))
        text = f"clamp({text}, {info.min}, {info.max}, {name(target)})"
    elif bits(target) != bits(source):
        text = f"({text}).astype({name(target)})"
    return text, target if "sat" in i.opcode or bits(target) != bits(source) else source


def _to_float(i: Instruction, target: str, source: str, text: str) -> tuple[str, str]:
    mode = rounding(i)
    if target in ("f16", "bf16"):
        return _to_16_bits(target, text, mode), "b16"
    exact = target == "f64" and source not in ("s64", "u64") or source in ("f16", "bf16")
    if mode == "rn" or exact:
        return f"({text}).astype({target})", target
    if target == "f64":
        raise UnsupportedPtx(f"rounding .{mode}")
    return f'narrowed({text}, "{mode}")', target

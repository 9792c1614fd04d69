"""Functions of numbers on a GPU. NVIDIA's compiler lacks some of LLVM's intrinsics; its device library has them under
other names (libdevice User's Guide)."""
from __future__ import annotations

from llvmlite import ir

from . import vectors

_OF_THE_LIBRARY = {f"llvm.{name}": f"__nv_{name}" for name in ("fabs", "exp", "log", "sin", "cos", "tanh")}


def call(builder, name: str, arguments, flags=()) -> ir.Value:
    """One of LLVM's intrinsics, by its name without the type."""
    if name in ("llvm.minimum", "llvm.maximum"):
        return _extreme(builder, "<" if name == "llvm.minimum" else ">", *arguments)
    if name not in _OF_THE_LIBRARY:
        return vectors.call(builder, name, arguments, flags)
    typ = arguments[0].type
    single = isinstance(typ, ir.FloatType)
    fn = vectors.intrinsic_function(builder, _OF_THE_LIBRARY[name] + "f" * single, typ, [typ] * len(arguments))
    return builder.call(fn, arguments)


def _extreme(builder, sign: str, x: ir.Value, y: ir.Value) -> ir.Value:
    """The smaller or larger of two numbers; NaN if one of them is."""
    chosen = builder.select(builder.fcmp_ordered(sign, x, y), x, y)
    return builder.select(builder.fcmp_unordered("uno", x, x), x, chosen)

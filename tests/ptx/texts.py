"""Small kernels as PTX text and arrays for them, for the executor's own tests."""

from __future__ import annotations

import numpy as np

from .parse import parse
from .syntax import Kernel

REGISTERS = """
    .reg .pred %p<10>;
    .reg .b16 %rs<20>;
    .reg .b32 %r<60>;
    .reg .b64 %rd<60>;
    .reg .f32 %f<60>;
    .reg .f64 %fd<20>;
"""


def kernel(body: str, pointers: int = 1, module: str = "", size: int = 4) -> Kernel:
    """A kernel of `pointers` parameters a, b, ...: %rd0, %rd1, ... are what they point to. %r0 is the thread in its
    block and %r1 in the launch; %rd10, %rd11, ... point to its own element of `size` bytes."""
    names = "abcdefgh"[:pointers]
    lines = [
        "mov.u32 %r0, %tid.x;", "mov.u32 %r2, %ctaid.x;", "mov.u32 %r3, %ntid.x;", "mad.lo.s32 %r1, %r2, %r3, %r0;",
        f"mul.wide.u32 %rd9, %r1, {size};",
    ]
    for n, name in enumerate(names):
        lines += [f"ld.param.u64 %rd{n}, [{name}];", f"cvta.to.global.u64 %rd{n}, %rd{n};",
                  f"add.s64 %rd{10 + n}, %rd{n}, %rd9;"]
    params = ", ".join(f".param .u64 {name}" for name in names)
    start = "\n".join(lines)
    return parse(f".version 8.0\n.target sm_80\n.address_size 64\n{module}\n"
                 f".visible .entry test({params})\n{{{REGISTERS}\n{start}\n{body}\n}}")


def numbers(count: int, dtype: str = "f4") -> np.ndarray:
    return np.arange(1, count + 1).astype(dtype)


def shared(size: int, name: str = "tile") -> str:
    return f".shared .align 16 .b8 {name}[{size}];"

"""What the inner loop of a packed product is made of, on this machine and, by cross-compiling, on others."""

from __future__ import annotations

import re

import llvmlite.binding as llvm
import pytest

import einjit
from einjit.codegen import build
from einjit.codegen.cpu import emit
from einjit.codegen.memory import FILLING
from einjit.ir import LoopNest
from einjit.params import tile_width
from tests.test_codegen import matmul, nest_of

X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
PROCESSORS = [
    ("generic", X86, "x86-64", "float32"), ("avx2", X86, "x86-64-v3", "float32"),
    ("avx2", X86, "haswell", "float64"), ("avx512", X86, "skylake-avx512", "float32"),
    ("avx512", X86, "icelake-server", "float64"),
    ("avx512", X86, "sapphirerapids", "float32"), ("znver4", X86, "znver4", "float64"),
    ("neon", ARM, "neoverse-n1", "float32"), ("neon", ARM, "apple-m1", "float64"),
    ("avx2", X86, "znver3", "complex64"), ("avx512", X86, "emeraldrapids", "complex128"),
    ("neon", ARM, "cortex-a76", "complex64"),
]

MULTIPLY = re.compile(r"vfn?m(?:add|sub)\w+p[sd]\b|fml[as]\b|mulp[sd]\b")     # the last where there is no fused one
ADD = re.compile(r"addp[sd]\b")
MOVE = re.compile(r"v?mov[aud]\w*\s+%[xyz]mm\d+, %[xyz]mm|mov\s+v\d+")
FRAME = {"%rbp": r"movq\s+%rsp, %rbp", "x29": r"(mov|add)\s+x29, sp"}     # what makes a register point there
JUMP = re.compile(r"(?:j\w+|b|b\.\w+|cbn?z\s+\w+,|tbn?z\s+\w+, #\d+,)\s+(\S+)$")


def blocks(assembly: str) -> dict[str, list[str]]:
    """Instructions by the label that they stand behind; a block ends at a jump."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in assembly.splitlines():
        line = re.sub(r"\s*(#+\s.*|//.*|;.*)", "", line).strip()
        if line.endswith(":"):
            name = line[:-1]
            found[name] = []
        elif line and not line.startswith("."):
            found[name].append(line)
            if JUMP.match(line):
                name = f"{name}'"
                found[name] = []
    return found


def stack_registers(assembly: str) -> list[str]:
    return ["%rsp", "sp", *(name for name, setting in FRAME.items() if re.search(setting, assembly))]


def loops(assembly: str) -> list[list[str]]:
    """The blocks that jump to their own start."""
    return [code for name, code in blocks(assembly).items()
            if code and (jump := JUMP.match(code[-1])) and jump[1] == name]


def multiplies(loop: list[str]) -> int:
    return sum(bool(MULTIPLY.match(x)) for x in loop)


def hot_loop(assembly: str) -> list[str]:
    """The loop that multiplies most."""
    return max(loops(assembly), key=multiplies)


def called(assembly: str) -> set[str]:
    """Names of the functions that are called, by name or by way of a register which their address is moved to."""
    targets = set(re.findall(r"^\s+(?:call\w*|blr?)\s+(\S+)", assembly, re.M))
    by_register = {name for name in targets if re.match(r"\*%|x\d", name)}
    moved = set(re.findall(r"(?:\$|#:abs_g\d\w*:|:lo12:)([A-Za-z_]\w*)", assembly)) if by_register else set()
    assert moved or not by_register
    return {name.removeprefix("_") for name in (targets - by_register) | moved}


def assert_tight(assembly: str, nest: LoopNest) -> None:
    """One multiply-add a vector of the tile and a load an operand of it; nothing else but the loop itself.

    Of complex elements four, and a load a part: nothing is rearranged or negated. And the kernel as a whole
    calls nothing but its own function that fills tables.
    """
    assert called(assembly) <= {FILLING}
    loop = hot_loop(assembly)
    text = "\n".join(loop)
    rows, lanes = tile_width(nest, "M"), nest.loops_of("N")[-1].lanes
    vectors = tile_width(nest, "N") // lanes
    parts = 2 if nest.out.dtype.startswith("complex") else 1
    expected = rows * vectors * parts ** 2
    assert multiplies(loop) == expected, text
    for register in stack_registers(assembly):
        assert not re.search(rf"[(\[]{register}\b", text), text
    if not any(ADD.match(x) for x in loop):     # without fused multiply-adds there are additions, and copies
        assert not [x for x in loop if MOVE.match(x)], text
        assert len(loop) - expected <= (rows + vectors) * parts + 4, text


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_the_inner_loop_on_this_machine(dtype, always_packed):
    kernel = einjit.compile("ij,jk->ik", (512, 512), (512, 512), dtype=dtype)
    assert kernel.family == "packed contraction"
    assert_tight(kernel.asm, kernel.nest)


@pytest.mark.parametrize("row,triple,cpu,dtype", PROCESSORS, ids=[cpu for _, _, cpu, _ in PROCESSORS])
def test_the_inner_loop_on_other_machines(row, triple, cpu, dtype, always_packed):
    nest = matmul(row=row, dtype=dtype)
    assert_tight(assembly(nest, triple, cpu), nest)


def assembly(nest: LoopNest, triple: str, cpu: str) -> str:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(triple)
    machine = target.create_target_machine(cpu=build.scheduled_as(cpu), opt=3, jit=True)
    return build.asm_of(emit(nest), machine)


@pytest.mark.parametrize("extents, expected", [
    ((512, 512, 512), [4, 8, 8, 16]),   # packed: all of 8 x 2 vectors, half of the rows, of the vectors, of both
    ((50, 50, 50), [4, 8, 8, 8, 16, 16]),   # read as they lie: the last vector of a pair may need a mask
    ((50, 50, 8), [4, 8]),  # one vector
], ids=["packed", "unpacked", "one vector"])
def test_edges_have_loops_of_fewer_rows_and_vectors(extents, expected):
    i, j, k = extents
    nest = nest_of("ij,jk->ik", ((i, j), (j, k)), "float64", row="znver4")
    assert sorted(filter(None, map(multiplies, loops(assembly(nest, X86, "znver4"))))) == expected


def test_elements_that_lie_apart_are_packed_by_whole_vectors():
    text = assembly(matmul(row="znver4", dtype="float64"), X86, "znver4")
    upper_halves = [sum(x.startswith("vmovhp") for x in loop) for loop in loops(text)]
    assert 4 in upper_halves        # of the four pairs that a vector is put together from


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_that_are_not_packed_cost_addresses_alone(dtype):
    """Twelve rows and two operands are more addresses than there are registers: some come from the stack."""
    kernel = einjit.compile("ij,kj->ik", (500, 300), (200, 300), dtype=dtype)
    assert [pack.tensor for pack in kernel.nest.packs] == ["b"]
    loop = hot_loop(kernel.asm)
    for line in loop:
        vector_from_stack = re.search(r"mm\d", line) and any(
            re.search(rf"[(\[]{register}\b", line) for register in stack_registers(kernel.asm))
        assert not vector_from_stack, "\n".join(loop)


@pytest.mark.parametrize("dtype,rows,columns,in_a_step", [
    ("float32", 5000, 200, 1), ("float64", 5000, 200, 1), ("float32", 500, 200, 0), ("float32", 5000, 2000, 0)],
    ids=["float32", "float64", "rows in L2", "rows that are packed"])
def test_rows_beyond_l2_that_are_not_packed_are_asked_for(dtype, rows, columns, in_a_step):
    """As many in a step as it takes for all rows of a tile to have had their turn when a line of each is read."""
    nest = nest_of("ij,kj->ik", ((rows, 300), (columns, 300)), dtype, row="znver4")
    loop = hot_loop(assembly(nest, X86, "znver4"))
    assert sum("prefetcht1" in line for line in loop) == in_a_step, "\n".join(loop)

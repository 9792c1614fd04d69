"""Loads, stores, atomics, barriers and operations of a warp: text that calls the running blocks, `s`, with the lanes
`m` that take part."""

from __future__ import annotations

from .dtypes import name, unsigned
from .errors import UnsupportedPtx
from .expressions import address, read
from .opcodes import Code, opcode
from .syntax import Address, Instruction, Operand, Pair, Register, Symbol, Vector

SPACES = "global shared local param const"
CACHING = "ca cg cs lu cv wb wt nc"
ORDERING = "volatile relaxed weak acquire release acq_rel sc cta cluster gpu sys"


def _items(operand: Operand) -> tuple[Operand, ...]:
    return operand.items if isinstance(operand, Vector) else (operand,)


def _values(operand: Operand, kind: str) -> str:
    return f"[{', '.join(read(item, kind) for item in _items(operand))}]"


@opcode("ld", f"{SPACES} {CACHING} {ORDERING} v2 v4 v8")
def ld(i: Instruction) -> Code:
    targets = _items(i.operands[0])
    kind = i.type if i.type[0] == "s" or i.type in ("f32", "f64") else unsigned(i.type)
    if i.space == "param":
        source: Address = i.operands[1]
        if isinstance(source.base, Register) and len(targets) == 1 and not source.offset:
            return Code(read(source.base, kind), ((targets[0], kind),))      # a call's argument or result
        if not isinstance(source.base, Symbol):
            raise UnsupportedPtx("a parameter's address")
        value = f's.param("{source.base.name}", {source.offset}, {name(kind)}, {len(targets)})'
    else:
        value = f's.load("{i.space}", {address(i.operands[1])}, {name(kind)}, {len(targets)}, m)'
    return Code(value, tuple((target, kind) for target in targets), listed=True)


@opcode("st", f"{SPACES} {CACHING} {ORDERING} v2 v4 v8")
def st(i: Instruction) -> Code:
    target = i.operands[0]
    if i.space == "param" and isinstance(target.base, Register) and not isinstance(i.operands[1], Vector):
        return Code(read(i.operands[1], i.type), ((target.base, i.type),))
    if i.space == "param":
        return Code("s.refuse_call()")
    return Code(f's.store("{i.space}", {address(target)}, {_values(i.operands[1], i.type)}, {name(i.type)}, m)')


ATOMIC = "add min max and or xor exch cas inc dec"


@opcode("atom", f"{ATOMIC} {ORDERING} global shared noftz")
def atom(i: Instruction) -> Code:
    return Code(_atomic(i, i.operands[1:]), ((i.operands[0], i.type),))


@opcode("red", f"{ATOMIC} {ORDERING} global shared noftz")
def red(i: Instruction) -> Code:
    return Code(_atomic(i, i.operands))


def _atomic(i: Instruction, operands: tuple[Operand, ...]) -> str:
    if i.type in ("f16", "bf16", "f16x2", "bf16x2") or isinstance(operands[1], Vector):
        raise UnsupportedPtx("this atomic operation")
    how = next(part for part in i.opcode if part in ATOMIC.split())
    values = ", ".join(read(operand, i.type) for operand in operands[1:])
    return f's.atomic("{i.space}", "{how}", {address(operands[0])}, [{values}], {name(i.type)}, m)'


@opcode("bar barrier", "sync cta aligned warp all")
def barrier(i: Instruction) -> Code:
    if "warp" in i.opcode:
        return Code(f"sync_warp(s, {read(i.operands[0], 'u32')}, m)")
    if "sync" not in i.opcode or len(i.operands) != 1 or i.guard:
        raise UnsupportedPtx("this barrier")
    return Code("s.barrier(m)")


@opcode("membar fence", f"{ORDERING} gl proxy async alias")
def fence(i: Instruction) -> Code:
    return Code("pass")     # the executor's memory is ordered; what it checks are barriers


@opcode("prefetch prefetchu", "global local L1 L2 evict_last evict_normal")
def prefetch(i: Instruction) -> Code:
    return Code("pass")


@opcode("call", "uni")
def call(i: Instruction) -> Code:
    """Of a function that the module does not have: refused when it is reached, for few paths call one."""
    return Code("s.refuse_call()")


@opcode("trap")
def trap(i: Instruction) -> Code:
    return Code("s.trap()")


@opcode("cp", "async ca cg shared global commit_group wait_group wait_all")
def copy_async(i: Instruction) -> Code:
    if "async" not in i.opcode:
        raise UnsupportedPtx("this copy")
    if "commit_group" in i.opcode:
        return Code("s.commit(m)")
    if "wait_group" in i.opcode:
        return Code(f"s.wait({i.operands[0].value}, m)")
    if "wait_all" in i.opcode:
        return Code("s.wait_all(m)")
    target, source, size = i.operands[:3]
    taken = "None" if len(i.operands) == 3 else read(i.operands[3], "u32")
    return Code(f"s.copy_async({address(target)}, {address(source)}, {size.value}, {taken}, m)")


@opcode("shfl", "sync idx bfly down up")
def shfl(i: Instruction) -> Code:
    target, *sources = i.operands
    if "sync" not in i.opcode or len(sources) != 4:
        raise UnsupportedPtx("a shuffle without .sync")
    value, *others = (read(source, "u32") for source in sources)
    pair = isinstance(target, Pair)
    results = (target.first if pair else target, "u32"), (target.second if pair else Symbol("_"), "pred")
    return Code(f'shuffle(s, "{i.opcode[2]}", {value}, {", ".join(others)}, m)', results, listed=True)


@opcode("vote", "sync all any uni ballot")
def vote(i: Instruction) -> Code:
    if "sync" not in i.opcode:
        raise UnsupportedPtx("a vote without .sync")
    value = f'vote(s, "{i.opcode[2]}", {read(i.operands[1], "pred")}, {read(i.operands[2], "u32")}, m)'
    return Code(value, ((i.operands[0], "u32" if i.type == "b32" else "pred"),))


@opcode("activemask")
def activemask(i: Instruction) -> Code:
    return Code("active_mask(s, m)", ((i.operands[0], "u32"),))


@opcode("redux", "sync add min max and or xor")
def redux(i: Instruction) -> Code:
    value = f'reduced(s, "{i.opcode[2]}", {read(i.operands[1], i.type)}, {read(i.operands[2], "u32")}, m)'
    return Code(value, ((i.operands[0], i.type),))


@opcode("ldmatrix", "sync aligned m8n8 x1 x2 x4 trans shared")
def ldmatrix(i: Instruction) -> Code:
    if i.type != "b16":
        raise UnsupportedPtx("this ldmatrix")
    targets = _items(i.operands[0])
    value = f"load_matrix(s, {address(i.operands[1])}, {len(targets)}, {'trans' in i.opcode}, m)"
    return Code(value, tuple((target, "u32") for target in targets), listed=True)


@opcode("mma", "sync aligned row col m16n8k4 m16n8k8 m16n8k16 m16n8k32 m8n8k4")
def mma(i: Instruction) -> Code:
    shape, *types = (part for part in i.opcode[1:] if part not in ("sync", "aligned", "row", "col"))
    result, a_kind, b_kind, c_kind = types
    if i.opcode[4:6] != ("row", "col") or result != c_kind or result not in ("f32", "f64", "s32"):
        raise UnsupportedPtx("this mma")
    stored = "f64" if a_kind == "f64" else "u32"
    a, b = (_values(operand, stored) for operand in i.operands[1:3])
    value = f'multiply_matrices(s, "{shape}", "{a_kind}", "{b_kind}", {a}, {b}, {_values(i.operands[3], c_kind)}, m)'
    return Code(value, tuple((target, result) for target in _items(i.operands[0])), listed=True)

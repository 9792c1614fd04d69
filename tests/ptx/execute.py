"""A launch: blocks run a few at a time, all of their threads in step.

Threads that branch apart run the block of code that comes first, until they meet again; at a barrier they wait for
the others of their block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from .dtypes import DTYPES, dtype, name
from .errors import DivergentBarrier, Endless, PtxError, UnsupportedPtx
from .integers import Lanes
from .memory import Allocation, GlobalMemory, LocalMemory, check_aligned, space_of
from .opcodes import CARRY
from .shared import SharedMemory
from .syntax import Kernel, Parameter
from .threads import Extents, Threads, threads
from .traffic import Traffic
from .translate import EXIT, Program, translate

MOST_THREADS = 1024
MOST_SHARED = 227 * 1024    # bytes of a block, on the largest GPUs
MOST_STEPS = 3_000_000      # basic blocks that a launch may run through


@dataclass(frozen=True)
class Placed:
    """An array that begins `offset` bytes past an address that is a multiple of 256; the pointer that is passed lies
    `inside` bytes further: strides may be negative."""

    array: np.ndarray
    offset: int = 0
    inside: int = 0


Argument = np.ndarray | Placed | np.generic | int | float | bytes


@dataclass(frozen=True)
class Report:
    """What a launch took. Traffic of shared memory is in wavefronts, of global memory in sectors of 32 bytes;
    `instructions` are counted once for a warp, `barriers` once for a block."""

    shared_loads: Traffic
    shared_stores: Traffic
    global_loads: Traffic
    global_stores: Traffic
    instructions: int
    barriers: int


def launch(kernel: Kernel, grid: int | Sequence[int], block: int | Sequence[int], args: Sequence[Argument],
           dynamic_shared: int = 0, resident: int = 8) -> Report:
    """Run a kernel, `resident` blocks at a time, and write back what it did to the arrays among its arguments.

    An array is a pointer to its elements, which must be contiguous; one that appears twice is one array in memory."""
    grid, block = _extents(grid), _extents(block)
    _check_limits(kernel, block, dynamic_shared)
    program = translate(kernel)
    arrays = _arrays(args)
    memory, params = _memory(kernel, args, arrays)
    positions = [(x, y, z) for z in range(grid[2]) for y in range(grid[1]) for x in range(grid[0])]
    shared_loads = shared_stores = Traffic()
    instructions = barriers = 0
    for first in range(0, len(positions), resident):
        lanes = threads(grid, block, positions[first:first + resident], first, dynamic_shared)
        running = Running(program, lanes, memory, params, dynamic_shared)
        running.run()
        shared_loads, shared_stores = shared_loads + running.shared.loads, shared_stores + running.shared.stores
        instructions, barriers = instructions + running.instructions, barriers + running.barriers
    before = len(memory.allocations) - len(arrays)
    for number, (array, _) in enumerate(arrays, before):
        if array.flags.writeable:
            array.reshape(-1).view(np.uint8)[:] = memory.content(number)
    return Report(shared_loads, shared_stores, memory.loads, memory.stores, instructions, barriers)


def _extents(given: int | Sequence[int]) -> Extents:
    given = (given,) if isinstance(given, (int, np.integer)) else tuple(given)
    return (*given, *(1,) * (3 - len(given)))


def _check_limits(kernel: Kernel, block: Extents, dynamic_shared: int) -> None:
    count = int(np.prod(block))
    if not 0 < count <= (kernel.maxntid or MOST_THREADS):
        raise PtxError(f"blocks of {count} threads; {kernel.name} takes up to {kernel.maxntid or MOST_THREADS}")
    if kernel.size("shared") + dynamic_shared > MOST_SHARED:
        raise PtxError(f"{kernel.size('shared') + dynamic_shared} bytes of shared memory")


def _arrays(args: Sequence[Argument]) -> list[tuple[np.ndarray, int]]:
    """The distinct arrays among the arguments, each with its offset."""
    found: dict[int, tuple[np.ndarray, int]] = {}
    for arg in args:
        array, offset = (arg.array, arg.offset) if isinstance(arg, Placed) else (arg, 0)
        if isinstance(array, np.ndarray):
            if not array.flags.c_contiguous:
                raise ValueError("the elements of an array must be contiguous")
            found.setdefault(id(array), (array, offset))
    return list(found.values())


def _memory(kernel: Kernel, args: Sequence[Argument], arrays: list[tuple[np.ndarray, int]],
            ) -> tuple[GlobalMemory, dict[str, bytes]]:
    """Global memory with the module's variables, if it has any, and the arrays; the bytes of each parameter."""
    if len(args) != len(kernel.params):
        raise PtxError(f"{len(args)} arguments for the {len(kernel.params)} parameters of {kernel.name}")
    allocations = _module_data(kernel)
    names = {id(a.array if isinstance(a, Placed) else a): f"argument {n}" for n, a in reversed(list(enumerate(args)))}
    numbers = {id(array): len(allocations) + n for n, (array, _) in enumerate(arrays)}
    allocations += [Allocation(names[id(array)], np.ascontiguousarray(array).reshape(-1).view(np.uint8), offset,
                               array.flags.writeable) for array, offset in arrays]
    memory = GlobalMemory(allocations, kernel.granule("global"))
    params = {}
    for param, arg in zip(kernel.params, args):
        array = arg.array if isinstance(arg, Placed) else arg
        inside = arg.inside if isinstance(arg, Placed) else 0
        value = np.uint64(memory.address(numbers[id(array)]) + inside) if isinstance(array, np.ndarray) else arg
        params[param.name] = _bytes(param, value)
    return memory, params


def _module_data(kernel: Kernel) -> list[Allocation]:
    data = np.zeros(kernel.size("global"), np.uint8)
    for variable in kernel.variables:
        if variable.memory == "global":
            start = kernel.offsets[variable.name]
            data[start:start + len(variable.data)] = np.frombuffer(variable.data, np.uint8)
    return [Allocation("the module's variables", data)] if data.size else []


def _bytes(param: Parameter, value: np.generic | int | float | bytes) -> bytes:
    if not isinstance(value, (np.generic, bytes)):
        kind = dtype(param.type)
        if isinstance(value, float) and kind.kind == "u":
            raise PtxError(f"a float for parameter {param.name}, which is a {param.type}: which type has it?")
        value = np.array(value % (1 << 8 * kind.itemsize) if kind.kind == "u" else value, kind)[()]
    data = value if isinstance(value, bytes) else value.tobytes()
    if len(data) != param.size:
        raise PtxError(f"{value!r} has {len(data)} bytes; parameter {param.name} has {param.size}")
    return data


def _registers(program: Program) -> SimpleNamespace:
    """One attribute for each register: an array with one element a lane, or a scalar that all lanes agree on."""
    values = {CARRY.name: np.bool_(False)}
    for register in program.kernel.registers:
        if register.type == "pred":
            values[register.name] = np.bool_(False)
        elif name(register.type) in DTYPES:     # no instruction that is translated uses the others, such as .b128
            values[register.name] = dtype(register.type).type(0)
    return SimpleNamespace(**values)


class Running:
    """Blocks that run together; the functions of translated code are called with it."""

    def __init__(self, program: Program, lanes: Threads, memory: GlobalMemory, params: dict[str, bytes],
                 dynamic_shared: int) -> None:
        kernel = program.kernel
        self.program, self.threads, self.params = program, lanes, params
        self.special = lanes.special
        self.shared = SharedMemory(lanes, kernel.size("shared") + dynamic_shared, kernel.granule("shared"))
        self.memories = {"global": memory, "shared": self.shared,
                         "local": LocalMemory(lanes.count, kernel.size("local"))}
        self.lane = np.arange(lanes.count)
        self.at = np.zeros(lanes.count, np.int64)       # the block of code that each lane comes to next
        self.together: int | None = 0                   # the same, while it is the same for all
        self.instructions = self.barriers = 0

    # ------------------------------------------------------------------ the order of execution

    def run(self) -> None:
        registers = _registers(self.program)
        sizes = [len(block.instructions) for block in self.program.blocks]
        with np.errstate(all="ignore"):
            try:
                for _ in range(MOST_STEPS):
                    found = self._next()
                    if found is None:
                        return
                    number, m = found
                    warps = self.threads.warps if m is None else np.unique(self.threads.warp[m]).size
                    self.instructions += sizes[number] * warps
                    functions = self.program.plain if m is None else self.program.masked
                    functions[number](self, registers, m)
            except PtxError as fault:
                origin = self.program.origin(fault)
                raise type(fault)(f"{fault}, in {origin!r}" if origin else str(fault)) from fault
        raise Endless(f"{self.program.kernel.name} has not ended after {MOST_STEPS} blocks of code")

    def _next(self) -> tuple[int, np.ndarray | None] | None:
        """The first block of code that some lanes come to and may enter, and which lanes; None when all are done."""
        if self.together is not None:
            return None if self.together == EXIT else (self.together, None)
        alive = self.at != EXIT
        if not alive.any():
            return None
        for number in np.unique(self.at[alive]):
            m = self.at == number
            if self.program.blocks[number].barrier:
                m &= self._whole_blocks(m)
            if m.any():
                return int(number), m
        raise DivergentBarrier("part of a block waits at a barrier that the others do not come to: "
                               f"{self.program.blocks[number].instructions[0].text!r}")

    def _whole_blocks(self, m: np.ndarray) -> np.ndarray:
        present = np.bincount(self.threads.block[m], minlength=self.threads.blocks)
        return (present == self.threads.per_block)[self.threads.block]

    def jump(self, target: int, m: np.ndarray | None) -> None:
        if m is None:
            self.together = target
            return
        self.at[m] = target
        self._meet()

    def branch(self, condition: Lanes, target: int, following: int, m: np.ndarray | None) -> None:
        taken = self.both(m, condition)
        if m is None and taken.all():
            self.together = target
        elif m is None and not taken.any():
            self.together = following
        else:
            self.at[self.active(m)] = following
            self.at[taken] = target
            self._meet()

    def _meet(self) -> None:
        self.together = int(self.at[0]) if (self.at == self.at[0]).all() else None

    def alive(self) -> np.ndarray:
        return np.full(self.threads.count, True) if self.together is not None else self.at != EXIT

    def trap(self) -> None:
        raise PtxError("the kernel trapped")

    def refuse_call(self) -> None:
        raise UnsupportedPtx("the call of a device function")

    # ------------------------------------------------------------------ lanes

    def spread(self, x: Lanes) -> np.ndarray:
        return np.broadcast_to(x, (self.threads.count,))

    def active(self, m: np.ndarray | None) -> np.ndarray:
        return np.full(self.threads.count, True) if m is None else m

    def both(self, m: np.ndarray | None, condition: Lanes) -> np.ndarray:
        return self.spread(condition) if m is None else m & condition

    def _lanes(self, m: np.ndarray | None) -> np.ndarray:
        return self.lane if m is None else np.flatnonzero(m)

    # ------------------------------------------------------------------ memory

    def param(self, name: str, offset: int, kind: type, count: int) -> list[np.generic]:
        return list(np.frombuffer(self.params[name], kind, count, offset))

    def load(self, space: str, address: Lanes, kind: type, count: int, m: np.ndarray | None) -> list[np.ndarray]:
        lane = self._lanes(m)
        at = self.spread(address)[lane].astype(np.int64)
        found = self._memory(space, at).load(self.threads, lane, at, np.dtype(kind), count)
        return found if m is None else [self._scattered(values, lane) for values in found]

    def store(self, space: str, address: Lanes, values: list[Lanes], kind: type, m: np.ndarray | None) -> None:
        lane = self._lanes(m)
        at = self.spread(address)[lane].astype(np.int64)
        parts = [self.spread(value)[lane] for value in values]
        self._memory(space, at).store(self.threads, lane, at, np.dtype(kind), parts)

    def _scattered(self, values: np.ndarray, lane: np.ndarray) -> np.ndarray:
        result = np.zeros(self.threads.count, values.dtype)
        result[lane] = values
        return result

    def _memory(self, space: str, address: np.ndarray) -> GlobalMemory | SharedMemory | LocalMemory:
        """The memory that is meant; the first address tells in generic accesses."""
        if space in ("", "const"):
            space = space_of(int(address[0]))
            if not all(space_of(int(end)) == space for end in (address.min(), address.max())):
                raise UnsupportedPtx("an access to different memories")
        return self.memories[space]

    def atomic(self, space: str, how: str, address: Lanes, operands: list[Lanes], kind: type,
               m: np.ndarray | None) -> np.ndarray:
        """The old values. Lanes come one after the other where they meet at an address."""
        lane = self._lanes(m)
        at = self.spread(address)[lane].astype(np.int64)
        memory = self._memory(space, at)
        size = np.dtype(kind).itemsize
        if isinstance(memory, SharedMemory):
            position = memory.atomic(lane, at, size)
        else:
            check_aligned(at, size, "global atomic")
            position = memory.place(at, size, "atomic", writes=True)
        elements, values = memory.arena.view(kind), [self.spread(value)[lane] for value in operands]
        old = np.zeros(self.threads.count, kind)
        for q, place in enumerate(position // size):
            before = old[lane[q]] = elements[place]
            elements[place] = ATOMICS[how](before, *(value[q] for value in values))
        return old

    def barrier(self, m: np.ndarray | None) -> None:
        blocks = np.unique(self.threads.block[self.active(m)])
        self.barriers += blocks.size
        self.shared.pass_barrier(blocks)

    def copy_async(self, target: Lanes, source: Lanes, size: int, taken: Lanes | None, m: np.ndarray | None) -> None:
        lane = self._lanes(m)
        at, where = (self.spread(x)[lane].astype(np.int64) for x in (target, source))
        count = np.full(lane.size, size) if taken is None else self.spread(taken)[lane].astype(np.int64)
        data = self.memories["global"].load_bytes(self.threads, lane, where, size, count)
        self.shared.begin_copy(lane, at, data)

    def commit(self, m: np.ndarray | None) -> None:
        self.shared.commit(self._lanes(m))

    def wait(self, left: int, m: np.ndarray | None) -> None:
        self.shared.wait(self._lanes(m), left)

    def wait_all(self, m: np.ndarray | None) -> None:
        self.shared.wait(self._lanes(m), None)


ATOMICS = {
    "add": lambda old, x: old + x, "min": min, "max": max, "exch": lambda old, x: x,
    "and": lambda old, x: old & x, "or": lambda old, x: old | x, "xor": lambda old, x: old ^ x,
    "cas": lambda old, compared, x: x if old == compared else old,
    "inc": lambda old, x: old + old.dtype.type(1) if old < x else old.dtype.type(0),
    "dec": lambda old, x: old - old.dtype.type(1) if 0 < old <= x else x,
}

"""Kernels run by several threads at once, in LLVM IR: no thread takes the GIL or sleeps between two shares.

A *share* is one call of a kernel with a parameter block and pointers of its own. The shares of a launch are
an array of tables, each the address of a parameter block and then the pointers. The calling thread puts
them up on the *board*, memory that all threads see and that is never freed, and begins with the first. A
*helper* is a thread inside `SERVE`, which watches the board and takes shares that nobody has begun; what no
helper takes, the caller does. So a launch needs no helper, and waits only for shares that have been begun.
A helper that finds nothing for a while sleeps. Whoever puts up or takes a share wakes a few more, after the
work is on the board, so that many are awake soon and the caller has begun.

All that decides who runs a share is one word of the launch's place on the board, its state: the next share,
the number of shares, and how many helpers may still join. It changes by compare-and-exchange. A helper that
has taken a share may read the rest of the place: the launch cannot end before that share has.

A helper that goes to sleep says so in ASLEEP and then waits for its LOCK, which is shut. Who changes ASLEEP from 1
to 0, by compare-and-exchange, must open the lock, once; the helper's waiting shuts it again. If the helper itself
makes that change, because it found work, it does not wait. So the lock is never opened twice.

    state   bits 0-15 the next share, 16-31 how many there are, 32-47 how many helpers may still join
    take    a share is the caller's from now on     share   run it
    help    a helper takes and runs a share of one launch, if it may
    look    `help` at every place                   watch   `look` again and again, for a time
    wake    open the locks of sleepers
"""
from __future__ import annotations

from typing import Callable

from llvmlite import ir

from ..board import ASLEEP, AWAKE, FIRST_HELPER, FIRST_PLACE, FORBIDDEN, LOCK, PLACES, SIZE, THREAD
from .irloops import counted
from .vectors import I8, I32, I64, LINE

RUN, SERVE, WATCH = "einjit_run", "einjit_serve", "einjit_watch"
YIELD = "einjit_yield"          # the system's function that lets another thread have this core

# The words of a place.
_STATE, _DONE, _TAKEN, _KERNEL, _TABLES, _TABLE_BYTES, _HELPERS = range(0, 56, 8)

_NEXT, _COUNT, _HELPER = 1, 1 << 16, 1 << 32    # units of the state's fields
_FIELD = (1 << 16) - 1                          # 16 bits each
_WOKEN = 2                      # helpers that one thread wakes: it takes microseconds each
_PATIENCE = 2000                # pauses, some 40 us, after which one who waits offers its core to others

# By architecture: LLVM's intrinsic, and its arguments. ARM's `isb` waits about as long as x86's `pause`.
_PAUSE = {"x86_64": ("llvm.x86.sse2.pause",), "aarch64": ("llvm.aarch64.isb", I32(15)),
          "arm64": ("llvm.aarch64.isb", I32(15))}
_MASK_BYTES = 1024              # of Linux's sets of cores
_VOID = ir.VoidType()


def call_kernel(builder: ir.IRBuilder, kernel: ir.Value, pointers: ir.Value, params: ir.Value) -> None:
    """Call a kernel by Numba's convention, in a function's first block or where it is called once; it neither
    returns a value nor raises."""
    pointer = I8.as_pointer()
    function = builder.inttoptr(kernel, ir.FunctionType(I32, [pointer, pointer, I64, I64]).as_pointer())
    result, exception = (builder.bitcast(builder.alloca(I64), pointer) for _ in range(2))
    builder.call(function, [result, exception, pointers, params])


def sharing_module(triple: str, board: int, affinity: bool) -> ir.Module:
    """A module of functions of int64 words that share launches out, over the board at the address `board`.

    `RUN(kernel, tables, table bytes, shares, helpers)` returns when every share has ended; at most `helpers` threads
    join the caller, and some are woken if fewer are awake. `SERVE(line, thread, pauses)` is the life
    of the helper with that line of the board, in the system's thread of that number; it sleeps whenever there was
    nothing to do for so many pauses. `WATCH(pauses)` is the part of it before a sleep.

    `affinity`: the system has Linux's functions to ask and say where a thread may run. Linux often puts a thread
    that is woken on the very core of the one that woke it, where it waits for milliseconds while others are idle.
    So a helper is forbidden that core until it runs.
    """
    module = ir.Module("einjit_share")
    module.triple = triple
    sharing = _Sharing(module, board, affinity)
    for function in (sharing.run, sharing.serve, sharing.watch):
        function.linkage = ""
    return module


class _Sharing:
    def __init__(self, module: ir.Module, board: int, affinity: bool):
        self.module, self.board, self.affinity = module, board, affinity
        self.give_way = ir.Function(module, ir.FunctionType(_VOID, []), YIELD)
        self.sleep = ir.Function(module, ir.FunctionType(I32, [I64, I32]), "PyThread_acquire_lock")
        self.end_sleep = ir.Function(module, ir.FunctionType(_VOID, [I64]), "PyThread_release_lock")
        if affinity:
            self.core = ir.Function(module, ir.FunctionType(I32, []), "sched_getcpu")
            self.allowed, self.allow = (
                ir.Function(module, ir.FunctionType(I32, [I32, I64, I64]), f"sched_{what}affinity")
                for what in ("get", "set"))
            self.permit = self._define("permit", self._permit, 3, I64)
        self.share = self._define("share", self._share, 2, _VOID)
        self.take = self._define("take", self._take, 3, I64)
        self.wake = self._define("wake", self._wake, 1, _VOID)
        self.help = self._define("help", self._help, 1, I64)
        self.look = self._define("look", self._look, 0, I64)
        self.watch = self._define(WATCH, self._watch, 1, _VOID)
        self.find = self._define("find", self._find, 0, I64)
        self.run = self._define(RUN, self._run, 5, _VOID)
        self.serve = self._define(SERVE, self._serve, 3, _VOID)

    def _define(self, name: str, emit: Callable, arguments: int, returns: ir.Type) -> ir.Function:
        function = ir.Function(self.module, ir.FunctionType(returns, [I64] * arguments), name)
        function.linkage = "internal"
        emit(ir.IRBuilder(function.append_basic_block("entry")), *function.args)
        return function

    def _share(self, b, place, number) -> None:
        """Run one share of the launch at `place`. A function, so that its stack is given back."""
        kernel, tables, table_bytes = (b.load(_word(b, place, at)) for at in (_KERNEL, _TABLES, _TABLE_BYTES))
        table = b.add(tables, b.mul(number, table_bytes))
        call_kernel(b, kernel, b.add(table, I64(8)), b.load(_word(b, table, 0)))
        b.ret_void()

    def _take(self, b, place, change, helpers) -> None:
        """The number of a share that is from now on the caller's, -1 if none is left, or fewer than `helpers`
        may join. `change`: what taking one does to the state."""
        again, claim, taken, none = (b.append_basic_block(name) for name in ("again", "claim", "taken", "none"))
        b.branch(again)
        b.position_at_end(again)
        at = _word(b, place, _STATE)
        state = b.load_atomic(at, "acquire", 8)
        number, count, may_join = self._fields(b, state)
        free = b.icmp_unsigned("<", number, count)
        may_join = b.icmp_unsigned(">=", may_join, helpers)
        b.cbranch(b.and_(free, may_join), claim, none)
        b.position_at_end(claim)
        exchanged = b.cmpxchg(at, state, b.add(state, change), "acq_rel", "acquire")
        b.cbranch(b.extract_value(exchanged, 1), taken, again)
        b.position_at_end(taken)
        b.ret(number)
        b.position_at_end(none)
        b.ret(I64(-1))

    def _fields(self, b, state) -> list[ir.Value]:
        """Of a state: the next share, the number of shares, how many helpers may join."""
        return [b.and_(b.lshr(state, I64(at)), I64(_FIELD)) for at in (0, 16, 32)]

    def _wake(self, b, count) -> None:
        """Wake so many helpers, if as many sleep."""
        size = b.load_atomic(_word(b, I64(self.board), SIZE), "monotonic", 8)
        first = I64(self.board + FIRST_HELPER)

        def wake(b, line, left):
            asleep = _word(b, line, ASLEEP)
            wanted = b.icmp_signed(">", left[0], I64(0))
            sleeps = b.icmp_signed("==", b.load_atomic(asleep, "monotonic", 8), I64(1))
            before = b.block
            with b.if_then(b.and_(wanted, sleeps)):
                woken = b.extract_value(b.cmpxchg(asleep, I64(1), I64(0), "acq_rel", "monotonic"), 1)
                with b.if_then(woken):
                    if self.affinity:
                        self._forbid_this_core(b, line)
                    b.call(self.end_sleep, [b.load(_word(b, line, LOCK))])
                now_left, after = b.sub(left[0], b.zext(woken, I64)), b.block
            phi = b.phi(I64)
            phi.add_incoming(left[0], before)
            phi.add_incoming(now_left, after)
            return [phi]

        counted(b, first, b.add(first, b.mul(size, I64(LINE))), LINE, [count], wake)
        b.ret_void()

    def _forbid_this_core(self, b, line) -> None:
        core = b.sext(b.call(self.core, []), I64)
        forbidden = b.call(self.permit, [b.load(_word(b, line, THREAD)), core, I64(0)])
        b.store(b.select(b.icmp_unsigned("==", forbidden, I64(1)), core, I64(-1)), _word(b, line, FORBIDDEN))

    def _help(self, b, place) -> None:
        """A helper's look at one place: 1 if it ran a share."""
        number = b.call(self.take, [place, I64(_NEXT - _HELPER), I64(1)])
        with b.if_then(b.icmp_signed(">=", number, I64(0))):
            self._wake_for(b, place)
            b.call(self.share, [place, number])
            # In this order: once the share is done the launch may be over, and the place another's.
            b.atomic_rmw("add", _word(b, place, _STATE), I64(_HELPER), "acq_rel")
            b.atomic_rmw("add", _word(b, place, _DONE), I64(1), "release")
            b.ret(I64(1))
        b.ret(I64(0))

    def _wake_for(self, b, place) -> None:
        """Wake helpers for shares of the launch at `place` that nobody has begun, if more are needed than are awake
        and free: a few, who will wake others."""
        helpers = b.load(_word(b, place, _HELPERS))
        number, count, may_join = self._fields(b, b.load_atomic(_word(b, place, _STATE), "monotonic", 8))
        awake = b.load_atomic(_word(b, I64(self.board), AWAKE), "monotonic", 8)
        free = b.sub(awake, b.sub(helpers, may_join))
        missing = b.sub(_least(b, b.sub(count, number), may_join), free)
        wanted = _least(b, I64(_WOKEN), missing)
        with b.if_then(b.icmp_signed(">", wanted, I64(0))):
            b.call(self.wake, [wanted])

    def _find(self, b) -> None:
        """A free place on the board, taken; 0 if there is none."""
        for i in range(PLACES):
            place = I64(self.board + FIRST_PLACE + LINE * i)
            exchanged = b.cmpxchg(_word(b, place, _TAKEN), I64(0), I64(1), "acquire", "monotonic")
            with b.if_then(b.extract_value(exchanged, 1)):
                b.ret(place)
        b.ret(I64(0))

    def _run(self, b, kernel, tables, table_bytes, count, helpers) -> None:
        unseen = b.ptrtoint(b.alloca(I64, LINE // 8), I64)      # where no helper looks
        found = b.call(self.find, [])
        full = b.icmp_unsigned("==", found, I64(0))
        place, helpers = b.select(full, unseen, found), b.select(full, I64(0), helpers)     # nobody is woken for it
        words = {_KERNEL: kernel, _TABLES: tables, _TABLE_BYTES: table_bytes, _HELPERS: helpers, _DONE: I64(0)}
        for at, value in words.items():
            b.store(value, _word(b, place, at))
        state = b.add(b.mul(count, I64(_COUNT)), b.mul(helpers, I64(_HELPER)))
        b.store_atomic(state, _word(b, place, _STATE), "seq_cst", 8)
        b.fence("seq_cst")      # with the one in `_serve`: it sees the share, or this one sees it asleep
        self._wake_for(b, place)
        mine = self._own_shares(b, place)
        self._wait(b, place, b.sub(count, mine))
        b.store_atomic(I64(0), _word(b, place, _TAKEN), "release", 8)
        b.ret_void()

    def _own_shares(self, b, place) -> ir.Value:
        """Run shares until none is left; returns how many these were."""
        before, again, work, over = b.block, *(b.append_basic_block(name) for name in ("again", "work", "over"))
        b.branch(again)
        b.position_at_end(again)
        mine = b.phi(I64)
        mine.add_incoming(I64(0), before)
        number = b.call(self.take, [place, I64(_NEXT), I64(0)])
        b.cbranch(b.icmp_signed(">=", number, I64(0)), work, over)
        b.position_at_end(work)
        b.call(self.share, [place, number])
        mine.add_incoming(b.add(mine, I64(1)), work)
        b.branch(again)
        b.position_at_end(over)
        return mine

    def _wait(self, b, place, helped) -> None:
        """Until helpers have ended `helped` shares."""
        before, look, wait, over = b.block, *(b.append_basic_block(name) for name in ("look", "wait", "over"))
        b.branch(look)
        b.position_at_end(look)
        looks = b.phi(I64)
        looks.add_incoming(I64(0), before)
        b.cbranch(b.icmp_signed(">=", b.load_atomic(_word(b, place, _DONE), "acquire", 8), helped), over, wait)
        b.position_at_end(wait)
        self._pause(b)
        with b.if_then(b.icmp_signed(">", looks, I64(_PATIENCE))):
            b.call(self.give_way, [])
        looks.add_incoming(b.add(looks, I64(1)), b.block)
        b.branch(look)
        b.position_at_end(over)

    def _look(self, b) -> None:
        """One look at every place: whether there was a share to run."""
        first = I64(self.board + FIRST_PLACE)
        (helped,) = counted(b, first, I64(first.constant + LINE * PLACES), LINE, [I64(0)],
                            lambda b, place, helped: [b.or_(helped[0], b.call(self.help, [place]))])
        b.ret(helped)

    def _watch(self, b, pauses) -> None:
        before, look, leave = b.block, b.append_basic_block("look"), b.append_basic_block("leave")
        b.branch(look)
        b.position_at_end(look)
        left = b.phi(I64)
        left.add_incoming(pauses, before)
        helped = b.call(self.look, [])
        self._pause(b)
        now_left = b.select(b.icmp_unsigned("==", helped, I64(0)), b.sub(left, I64(1)), pauses)
        left.add_incoming(now_left, look)
        b.cbranch(b.icmp_signed(">", now_left, I64(0)), look, leave)
        b.position_at_end(leave)
        b.ret_void()

    def _serve(self, b, line, thread, pauses) -> None:
        """Watch, say that it sleeps, look once more: whoever put up a share before that did not see it asleep."""
        awake, asleep = _word(b, I64(self.board), AWAKE), _word(b, line, ASLEEP)
        again, doze, sleep = (b.append_basic_block(name) for name in ("again", "doze", "sleep"))
        b.store(thread, _word(b, line, THREAD))
        b.branch(again)
        b.position_at_end(again)
        b.atomic_rmw("add", awake, I64(1), "monotonic")
        b.call(self.watch, [pauses])
        b.atomic_rmw("sub", awake, I64(1), "monotonic")
        b.atomic_rmw("xchg", asleep, I64(1), "seq_cst")
        b.fence("seq_cst")
        helped = b.call(self.look, [])
        b.cbranch(b.icmp_unsigned("==", helped, I64(0)), sleep, doze)
        b.position_at_end(doze)     # awake again, unless somebody has just woken it: then the lock is open
        exchanged = b.cmpxchg(asleep, I64(1), I64(0), "acq_rel", "monotonic")
        b.cbranch(b.extract_value(exchanged, 1), again, sleep)
        b.position_at_end(sleep)
        b.call(self.sleep, [b.load(_word(b, line, LOCK)), I32(1)])
        if self.affinity:
            core = b.load(_word(b, line, FORBIDDEN))
            with b.if_then(b.icmp_signed(">=", core, I64(0))):
                b.call(self.permit, [I64(0), core, I64(1)])
        b.branch(again)

    def _permit(self, b, thread, core, allowed) -> None:
        """Let the thread (0: this one) run on that core, or not, for `allowed` 1 or 0. Returns 1 if that has changed:
        a core that the thread was not allowed anyway is not to be allowed it later."""
        change, differs, refuse = (b.append_basic_block(name) for name in ("change", "differs", "refuse"))
        mask = b.alloca(ir.ArrayType(I64, _MASK_BYTES // 8))
        b.store(ir.Constant(mask.type.pointee, None), mask)
        arguments = [b.trunc(thread, I32), I64(_MASK_BYTES), b.ptrtoint(mask, I64)]
        got = b.icmp_signed(">=", b.call(self.allowed, arguments), I32(0))
        b.cbranch(b.and_(got, b.icmp_unsigned("<", core, I64(8 * _MASK_BYTES))), change, refuse)
        b.position_at_end(change)
        word, at = _word(b, b.add(arguments[2], b.mul(b.lshr(core, I64(6)), I64(8))), 0), b.and_(core, I64(63))
        now = b.load(word)
        wanted = b.or_(b.and_(now, b.not_(b.shl(I64(1), at))), b.shl(allowed, at))
        b.cbranch(b.icmp_unsigned("!=", now, wanted), differs, refuse)
        b.position_at_end(differs)
        b.store(wanted, word)
        done = b.call(self.allow, arguments)        # refused where there is no other core
        b.ret(b.zext(b.icmp_signed("==", done, I32(0)), I64))
        b.position_at_end(refuse)
        b.ret(I64(0))

    def _pause(self, b) -> None:
        """Tell the core that this loop waits for another thread."""
        name, *arguments = _PAUSE.get(self.module.triple.split("-")[0], (None,))
        if name:
            typ = ir.FunctionType(_VOID, [x.type for x in arguments])
            b.call(self.module.globals.get(name) or ir.Function(self.module, typ, name), arguments)


def _word(b: ir.IRBuilder, address: ir.Value, at: int) -> ir.Value:
    """A pointer to the int64 at `address + at`."""
    return b.inttoptr(b.add(address, I64(at)), I64.as_pointer())


def _least(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return b.select(b.icmp_signed("<", x, y), x, y)

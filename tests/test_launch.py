"""The launcher: which arrays it takes, what it hands to a kernel, what it keeps alive and what it lets go."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import weakref

import numpy as np
import pytest

import einjit
from einjit import compiler, dispatch
from einjit.codegen.build import MachineCode, load, target_machine
from einjit.contraction import Layout
from einjit.launch import byte_bounds, launcher, record
from einjit.program import GIL_WORK

KERNEL = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
PARAMS = np.arange(3)


class Launched:
    """A launcher for an output and two inputs, with a kernel that notes what it is called with."""

    def __init__(self, slots=(0, 1, 2), workspace=False, release_gil=False):
        self.out, self.a, self.b = np.zeros((3, 4)), np.ones((3, 4)), np.ones(4, "f4")
        self.calls: list[list[int]] = []
        self.count = 4 + workspace
        self.kernel = KERNEL(self._note)
        address = ctypes.cast(self.kernel, ctypes.c_void_p).value
        layouts = [Layout.of(x) for x in (self.out, self.a, self.b)]
        self.run = launcher(record(address, PARAMS, layouts, slots, release_gil, workspace), keep=self.kernel)

    def _note(self, result, exception, pointers, params) -> int:
        assert params == PARAMS.ctypes.data
        self.calls.append([ctypes.c_int64.from_address(pointers + 8 * i).value for i in range(self.count)])
        return 0

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.out, self.a, self.b


@pytest.fixture
def launched() -> Launched:
    return Launched()


# -- what a kernel gets ------------------------------------------------------------------------------------

def test_a_kernel_gets_the_addresses_and_its_parameters(launched):
    assert launched.run(*launched.arrays) is None
    ((*addresses, stack),) = launched.calls
    assert addresses == [x.ctypes.data for x in launched.arrays]
    assert stack % 64 == 0


def test_slots_say_where_an_array_goes():
    launched = Launched(slots=(0, 2, 1))
    launched.run(*launched.arrays)
    out, a, b = launched.arrays
    assert launched.calls[0][:3] == [x.ctypes.data for x in (out, b, a)]


def test_a_workspace_is_only_an_address():
    launched = Launched(workspace=True)
    for workspace in (np.zeros(100, np.uint8), np.zeros((2, 2))):
        assert launched.run(*launched.arrays, workspace) is None
        assert launched.calls.pop()[3] == workspace.ctypes.data
    assert launched.run(*launched.arrays) is NotImplemented
    assert launched.run(*launched.arrays, b"no array") is NotImplemented
    # It may lie anywhere, even in the output.
    assert launched.run(*launched.arrays, launched.out[1:]) is None


# -- what it takes -----------------------------------------------------------------------------------------

class Subclass(np.ndarray):
    pass


A, B = np.ones((3, 4)), np.ones(4, "f4")
OUT = np.zeros((3, 4))
BOTH = np.zeros((6, 4))
READ_ONLY = np.zeros((3, 4))
READ_ONLY.flags.writeable = False

REFUSED = {
    "no array": (),
    "too few": (OUT, A),
    "too many": (OUT, A, B, B),
    "not an array": (OUT, A, [1.0] * 4),
    "nothing": (None, A, B),
    "a scalar": (OUT, A, np.float32(1)),
    "a subclass": (OUT, A, B.view(Subclass)),
    "a subclass as the output": (OUT.view(Subclass), A, B),
    "an axis more": (OUT, A[..., None], B),
    "an axis less": (OUT, A, B[0, ...]),
    "another shape": (OUT, A, np.ones(5, "f4")),
    "a shape that is smaller": (OUT, A[:2], B),
    "a shape of the output": (np.zeros((4, 4)), A, B),
    "other strides": (OUT, np.asfortranarray(A), B),
    "strides of a slice": (OUT, A, np.ones(8, "f4")[::2]),
    "strides of the output": (np.zeros((3, 4), order="F"), A, B),
    "strides of nothing": (OUT, A, np.broadcast_to(np.ones((), "f4"), (4,))),
    "another dtype": (OUT, A, np.ones(4, "i4")),
    "another byte order": (OUT, A, np.ones(4, ">f4")),
    "a dtype of the output": (np.zeros((3, 4), "i8"), A, B),
    "a read-only output": (READ_ONLY, A, B),
    "the output as an input": (OUT, OUT, B),
    "an output that begins inside an input": (BOTH[2:5], BOTH[:3], B),
    "an output that ends inside an input": (BOTH[:3], BOTH[2:5], B),
    "an output around an input": (OUT, A, OUT.view("f4")[1, 2:6]),
    "swapped": (OUT, B, A),
}


@pytest.mark.parametrize("arrays", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(launched, arrays):
    assert launched.run(*arrays) is NotImplemented
    assert launched.calls == []


TAKEN = {
    "read-only inputs": (OUT, READ_ONLY, B),
    "memory side by side": (BOTH[:3], BOTH[3:], B),
    "memory side by side, the output behind": (BOTH[3:], BOTH[:3], B),
    "inputs that overlap": (OUT, A, A.view("f4")[0, :4]),
    "unaligned memory": (OUT, np.zeros(97, np.uint8)[1:].view("f8").reshape(3, 4), B),
}


@pytest.mark.parametrize("arrays", TAKEN.values(), ids=TAKEN)
def test_what_fits_is_taken(launched, arrays):
    assert launched.run(*arrays) is None
    assert launched.calls[0][:3] == [x.ctypes.data for x in arrays]


def test_it_takes_no_keywords(launched):
    with pytest.raises(TypeError, match="no keyword arguments"):
        launched.run(launched.out, launched.a, b=launched.b)


@pytest.mark.parametrize("array,low,high", [
    (np.zeros((3, 4)), 0, 96),
    (np.zeros((3, 4))[:, ::2], 0, 88),
    (np.zeros((3, 4))[::-1], -64, 32),
    (np.zeros(5, "i1")[::-1], -4, 1),
    (np.zeros(()), 0, 8),
    (np.zeros((3, 0)), 0, 0),
    (np.broadcast_to(np.zeros(3), (4, 3)), 0, 24),
], ids=lambda x: str(x.strides) if isinstance(x, np.ndarray) else "")
def test_bounds_are_the_bytes_that_an_array_touches(array, low, high):
    assert byte_bounds(Layout.of(array)) == (low, high)


# -- what it keeps and what it lets go ---------------------------------------------------------------------

def test_it_keeps_its_words_and_what_they_point_to():
    kernel = KERNEL(lambda *_: 0)
    address = ctypes.cast(kernel, ctypes.c_void_p).value
    words = record(address, PARAMS, [Layout.of(OUT)], (0,), False, False)
    params = np.arange(3)
    alive = [weakref.ref(words), weakref.ref(params)]
    run = launcher(words, keep=params)
    del words, params
    gc.collect()
    assert all(ref() is not None for ref in alive)
    assert run(OUT) is None
    del run
    assert [ref() for ref in alive] == [None, None]


def test_a_program_that_is_dropped_leaves_a_launcher_that_works():
    a, b = np.arange(162, dtype="i2").reshape(2, 9, 9)
    kernel = einjit.compile("ij,jk->ki", a, b)
    run, code = kernel._launch, weakref.ref(kernel.steps[0].code)
    del kernel
    compiler._forget()
    dispatch.forget()
    gc.collect()
    out = np.empty((9, 9), "i2")
    assert run(out, a, b) is None
    np.testing.assert_array_equal(out, (a @ b).T)
    del run
    gc.collect()
    assert code() is None       # and nothing else kept the machine code


def test_references_are_neither_lost_nor_kept(launched):
    wrong = np.ones((4, 3))
    watched = [*launched.arrays, wrong, None, NotImplemented, launched.run, launched.run.__self__]

    def counts():
        return [sys.getrefcount(x) for x in watched]

    before = counts()
    for _ in range(1000):
        launched.run(*launched.arrays)
        launched.run(launched.out, wrong, launched.b)
        launched.run()
    launched.calls.clear()
    # Other threads may hold a None or two more than before.
    assert all(abs(y - x) < 100 for x, y in zip(before, counts()))
    assert [y - x for x, y in zip(before, counts())][:4] == [0, 0, 0, 0]


# -- the GIL -----------------------------------------------------------------------------------------------

# Waits until the first parameter is set, but not for ever; says in the third whether it has seen that.
WAIT = """
define i32 @wait(ptr %result, ptr %exception, ptr %arrays, ptr %params) {
entry:
  %limit_at = getelementptr i64, ptr %params, i64 1
  %limit = load i64, ptr %limit_at
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %again ]
  %flag = load volatile i64, ptr %params
  %set = icmp ne i64 %flag, 0
  br i1 %set, label %done, label %again
again:
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %limit
  br i1 %more, label %loop, label %done
done:
  %seen = phi i64 [ 1, %loop ], [ 0, %again ]
  %seen_at = getelementptr i64, ptr %params, i64 2
  store i64 %seen, ptr %seen_at
  ret i32 0
}
"""


@pytest.fixture(scope="module")
def wait():
    import llvmlite.binding as llvm

    machine = target_machine()
    module = llvm.parse_assembly(WAIT)
    module.triple = machine.triple
    return load(MachineCode(machine.emit_object(module), "wait"))


@pytest.fixture
def no_switches():
    """No thread takes the GIL from another: it must be released."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("release,limit", [(True, 10**11), (False, 10**8)])
def test_the_gil_is_released_where_the_record_says_so(wait, no_switches, release, limit):
    params = np.array([0, limit, 0])
    run = launcher(record(wait.address, params, [Layout.of(OUT)], (0,), release, False), keep=None)
    started, go = threading.Event(), threading.Lock()

    def set_flag():
        started.set()
        with go:
            params[0] = 1

    with go:
        other = threading.Thread(target=set_flag)
        other.start()
        started.wait()
    assert run(OUT) is None
    other.join()
    assert bool(params[2]) is release


def test_programs_release_it_for_work_that_is_worth_it():
    def releases(n: int) -> bool:
        with einjit.options(threads=1):
            return bool(einjit.compile("i,i->i", (n,), (n,))._launch.__self__[3])

    assert [releases(n) for n in (1, GIL_WORK - 1, GIL_WORK, 10 * GIL_WORK)] == [False, False, True, True]

"""Faults in shared memory that the executor of PTX finds, and what accesses cost."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ptx import DivergentBarrier, Kernel, Misaligned, OutOfBounds, Placed, Race, Uninitialised, launch
from tests.ptx.texts import kernel, numbers, shared


REVERSAL = """
    mov.u32 %r4, tile; shl.b32 %r5, %r0, 2; add.u32 %r6, %r4, %r5;
    ld.global.f32 %f0, [%rd10]; {store} st.shared.f32 [%r6], %f0; {between}
    sub.u32 %r7, %r3, 1; sub.u32 %r7, %r7, %r0; shl.b32 %r7, %r7, 2; add.u32 %r7, %r4, %r7;
    ld.shared.f32 %f1, [%r7]; st.global.f32 [%rd11], %f1; {end} ret;"""


def reversal(size: int = 256, between: str = "bar.sync 0;", store: str = "", end: str = "") -> Kernel:
    return kernel(REVERSAL.format(store=store, between=between, end=end), 2, module=shared(size))


def test_blocks_have_their_own_shared_memory():
    a, b = numbers(192), np.zeros(192, "f4")
    report = launch(reversal(), 3, 64, [a, b], resident=2)
    assert (b.reshape(3, 64) == a.reshape(3, 64)[:, ::-1]).all()
    assert report.barriers == 3
    assert (report.shared_loads.ratio, report.shared_stores.ratio) == (1, 1)


def test_shared_memory_of_the_launch():
    k = kernel(REVERSAL.format(store="", between="bar.sync 0;", end=""), 2,
               module=".extern .shared .align 16 .b8 tile[];" + shared(100, "other"))
    a, b = numbers(64), np.zeros(64, "f4")
    launch(k, 1, 64, [a, b], dynamic_shared=256)
    assert (b == a[::-1]).all()
    with pytest.raises(OutOfBounds, match="shared store of bytes 364 to 367 of 364"):
        launch(k, 1, 64, [a, b], dynamic_shared=252)


@pytest.mark.parametrize("fault, error, message", [
    ({"between": ""}, Race, "load after another thread's store"),
    ({"size": 252}, OutOfBounds, "bytes 252 to 255 of 252"),
    ({"store": "setp.ne.u32 %p0, %r0, 5; @%p0"}, Uninitialised, "nobody wrote, from byte 20 "),
    ({"end": "st.shared.f32 [%r6], %f0;"}, Race, "store after another thread's load"),
    ({"store": "mov.u32 %r6, tile;"}, Race, "two threads store at once to byte 0"),
    ({"store": "add.u32 %r6, %r6, 2;"}, Misaligned, "shared store of 4 bytes at an address 2 past"),
    ({"store": "setp.lt.u32 %p0, %r0, 32; @%p0 bra HERE; bar.sync 0; HERE:"}, DivergentBarrier, "do not come to"),
    ({"store": "setp.lt.u32 %p0, %r0, 9; @%p0 exit;"}, DivergentBarrier, "do not come to"),
])
def test_faults_in_shared_memory(fault, error, message):
    a, b = numbers(64), np.zeros(64, "f4")
    launch(reversal(), 1, 64, [a, b])
    with pytest.raises(error, match=message):
        launch(reversal(**fault), 1, 64, [a, b])


def test_stores_of_two_threads_need_a_barrier_between():
    body = """mov.u32 %r4, tile; shl.b32 %r5, %r0, 2; add.u32 %r5, %r4, %r5; st.shared.u32 [%r5], %r0; {}
              xor.b32 %r6, %r0, 1; shl.b32 %r6, %r6, 2; add.u32 %r6, %r4, %r6; st.shared.u32 [%r6], %r0; ret;"""
    launch(kernel(body.format("bar.sync 0;"), 0, shared(256)), 1, 64, [])
    with pytest.raises(Race, match="store after another thread's store"):
        launch(kernel(body.format(""), 0, shared(256)), 1, 64, [])


def test_a_barrier_of_another_block_orders_nothing():
    """Block 1 passes a second barrier where block 0 has none."""
    k = reversal(between="bar.sync 0;", end="""
        setp.eq.u32 %p0, %r2, 0; @%p0 bra STORE; bar.sync 0; STORE: st.shared.f32 [%r6], %f0;""")
    a, b = numbers(128), np.zeros(128, "f4")
    with pytest.raises(Race, match="store after another thread's load"):
        launch(k, 2, 64, [a, b])
    launch(reversal(end="bar.sync 0; st.shared.f32 [%r6], %f0;"), 2, 64, [a, b])


def test_a_barrier_of_a_warp_orders_the_warp():
    body = """
        mov.u32 %r4, tile; shl.b32 %r5, %r0, 2; add.u32 %r5, %r4, %r5; st.shared.u32 [%r5], %r0; {}
        xor.b32 %r6, %r0, {}; shl.b32 %r6, %r6, 2; add.u32 %r6, %r4, %r6; ld.shared.u32 %r7, [%r6];
        {} st.shared.u32 [%r5], %r7; st.global.u32 [%rd10], %r7; ret;"""
    a, sync = np.zeros(64, "u4"), "bar.warp.sync -1;"
    launch(kernel(body.format(sync, 1, sync), 1, shared(256)), 1, 64, [a])
    assert (a == np.arange(64) ^ 1).all()
    for before, other, after in (("", 1, sync), (sync, 1, ""), (sync, 32, sync)):     # the last is another warp's
        with pytest.raises(Race):
            launch(kernel(body.format(before, other, after), 1, shared(256)), 1, 64, [a])


def test_shared_atomics():
    body = """
        mov.u32 %r4, tile; setp.eq.u32 %p0, %r0, 0; @%p0 st.shared.u32 [%r4], 0; bar.sync 0;
        atom.shared.add.u32 %r5, [%r4], %r0; {} ld.shared.u32 %r6, [%r4]; st.global.u32 [%rd10], %r6; ret;"""
    a = np.zeros(64, "u4")
    launch(kernel(body.format("bar.sync 0;"), 1, shared(4)), 1, 64, [a])
    assert (a == sum(range(64))).all()
    with pytest.raises(Race):
        launch(kernel(body.format(""), 1, shared(4)), 1, 64, [a])


@pytest.mark.parametrize("pitch, degree", [(32, 32), (33, 1), (34, 2), (36, 4), (40, 8)])
def test_bank_conflicts_of_a_transposition(pitch, degree):
    k = kernel(f"""
        shr.u32 %r4, %r0, 5; and.b32 %r5, %r0, 31;
        mov.u32 %r6, tile;
        mad.lo.u32 %r7, %r4, {pitch}, %r5; shl.b32 %r7, %r7, 2; add.u32 %r7, %r6, %r7;
        mad.lo.u32 %r8, %r5, {pitch}, %r4; shl.b32 %r8, %r8, 2; add.u32 %r8, %r6, %r8;
        ld.global.f32 %f0, [%rd10]; st.shared.f32 [%r7], %f0; bar.sync 0;
        ld.shared.f32 %f1, [%r8]; st.global.f32 [%rd11], %f1; ret;""", 2, shared(4 * 32 * pitch))
    a, b = numbers(1024), np.zeros(1024, "f4")
    report = launch(k, 1, 1024, [a, b])
    assert (b.reshape(32, 32) == a.reshape(32, 32).T).all()
    assert report.shared_stores.ratio == 1
    assert (report.shared_loads.ratio, report.shared_loads.worst) == (degree, degree)


@pytest.mark.parametrize("size, step, degree", [
    (4, 4, 1), (4, 0, 1), (4, 8, 2), (4, 128, 32), (8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2), (16, 128, 8),
    (1, 1, 1), (1, 4, 1), (2, 8, 2),
])
def test_conflicts_by_width(size, step, degree):
    """16 bytes a lane go in quarters of a warp and 8 in halves; lanes at one word do not conflict."""
    kind, registers = {1: ("u8", "%r8"), 2: ("u16", "%rs8"), 4: ("u32", "%r8"), 8: ("v2.u32", "{%r8, %r9}"),
                       16: ("v4.u32", "{%r8, %r9, %r10, %r11}")}[size]
    k = kernel(f"""
        mov.u32 %r4, tile; shl.b32 %r5, %r0, 2; add.u32 %r5, %r4, %r5; mov.u32 %r6, 0;
        FILL: st.shared.u32 [%r5], %r6; add.u32 %r5, %r5, 128; add.u32 %r6, %r6, 1;
        setp.lt.u32 %p0, %r6, 33; @%p0 bra FILL;
        bar.sync 0; mad.lo.u32 %r7, %r0, {step}, %r4; ld.shared.{kind} {registers}, [%r7]; ret;""", 0, shared(4224))
    report = launch(k, 1, 32, [])
    assert report.shared_loads.worst == degree and report.shared_stores.worst == 1


# ---------------------------------------------------------------------- cp.async

PIPELINE = """
    mov.u32 %r4, tile; shl.b32 %r5, %r0, 4; add.u32 %r6, %r4, %r5;     // this thread's 16 bytes of the first buffer
    mul.wide.u32 %rd20, %r0, 16; add.u64 %rd21, %rd0, %rd20;
    xor.b32 %r7, %r0, 1; shl.b32 %r7, %r7, 4; add.u32 %r7, %r4, %r7;   // its neighbour's
    cp.async.cg.shared.global [%r6], [%rd21], 16; cp.async.commit_group;
    mov.u32 %r8, 0; mov.u32 %r9, 0; mov.f32 %f0, 0f00000000;
    LOOP:
    add.u32 %r8, %r8, 1; xor.b32 %r10, %r9, 512; setp.ge.u32 %p0, %r8, 4; @%p0 bra LAST;
    add.u64 %rd21, %rd21, 512; add.u32 %r11, %r6, %r10; cp.async.cg.shared.global [%r11], [%rd21], 16;
    LAST: cp.async.commit_group; cp.async.wait_group {left}; {arrived}
    add.u32 %r12, %r7, %r9; ld.shared.v4.f32 {{%f1, %f2, %f3, %f4}}, [%r12];
    add.f32 %f0, %f0, %f1; add.f32 %f0, %f0, %f4; {used}
    mov.u32 %r9, %r10; setp.lt.u32 %p0, %r8, 4; @%p0 bra LOOP;
    st.global.f32 [%rd11], %f0; ret;"""


def test_a_pipeline_of_asynchronous_copies():
    a, out = numbers(512), np.zeros(32, "f4")
    rows = a.reshape(4, 32, 4)
    expected = (rows[..., 0] + rows[..., 3]).sum(axis=0)[np.arange(32) ^ 1]
    good = {"left": 1, "arrived": "bar.sync 0;", "used": "bar.sync 0;"}
    for parts in (good, {**good, "left": 0}):
        report = launch(kernel(PIPELINE.format(**parts), 2, shared(1024)), 1, 32, [a, out])
        assert (out == expected).all() and report.global_loads.ratio == 1
    for fault, error in (({"left": 2}, Uninitialised), ({"arrived": ""}, Race), ({"used": ""}, Race)):
        with pytest.raises(error):
            launch(kernel(PIPELINE.format(**{**good, **fault}), 2, shared(1024)), 1, 32, [a, out])


def test_an_asynchronous_copy_of_fewer_bytes_fills_with_zeros():
    k = kernel("""
        mov.u32 %r4, tile; shl.b32 %r5, %r0, 4; add.u32 %r6, %r4, %r5; min.u32 %r7, %r0, 4; shl.b32 %r7, %r7, 2;
        cp.async.cg.shared.global [%r6], [%rd10], 16, %r7; cp.async.wait_all;
        ld.shared.v4.f32 {%f0, %f1, %f2, %f3}, [%r6]; st.global.v4.f32 [%rd11], {%f0, %f1, %f2, %f3}; ret;""",
               2, shared(512), size=16)
    a, b = numbers(128), np.zeros(128, "f4")
    launch(k, 1, 32, [a, b])
    taken = np.minimum(np.arange(32), 4)[:, None] > np.arange(4)
    assert (b.reshape(32, 4) == np.where(taken, a.reshape(32, 4), 0)).all()
    with pytest.raises(Misaligned, match="cp.async"):
        launch(k, 1, 32, [Placed(a, 4), b])

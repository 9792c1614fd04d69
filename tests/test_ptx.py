"""The executor of PTX finds the faults that it looks for, and runs the same kernel without them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ptx import Endless, Misaligned, OutOfBounds, Placed, PtxError, Race, UnsupportedPtx, execute, launch, parse
from tests.ptx.texts import kernel, numbers


# ---------------------------------------------------------------------- parsing

def test_a_kernel_as_parsed():
    found = parse("""
        .version 9.0
        .extern .shared .align 16 .b8 room[];
        .shared .align 4 .b8 fixed[20];
        .global .align 8 .u32 table[3] = {1, 0x10, 7};
        .func helper(.param .b32 x) { .reg .b32 %r<2>; { ret; } }
        .visible .entry first(.param .u64 .ptr .global .align 16 a, .param .align 8 .b8 box[24], .param .f32 s)
        .maxntid 64, 2, 1
        { .reg .pred %p<2>; .local .align 16 .b8 depot[48]; $L_0: @!%p1 bra $L_0; ret; }
        .visible .entry second() { ret; }
    """, "first")
    assert [(p.name, p.type, p.size) for p in found.params] == [("a", "u64", 8), ("box", "b8", 24), ("s", "f32", 4)]
    assert found.offsets == {"fixed": 0, "room": 32, "table": 0, "depot": 0}
    assert (found.size("shared"), found.size("local"), found.size("global")) == (32, 48, 12)
    assert (found.labels, found.maxntid) == ({"$L_0": 0}, 128)
    branch, end = found.instructions
    assert branch.guard.negated and branch.text == "@!%p1 bra $L_0" and end.opcode == ("ret",)


def test_scopes_of_inline_assembly():
    k = kernel("""
        mov.u32 %r4, 5;
        { .reg .b32 %r4; .reg .pred p; // a name that the kernel has, and one that it does not
          mov.u32 %r4, 7;
          setp.lt.u32 p, %r0, 4;
          @p bra DONE;
          mov.u32 %r4, 9;
          DONE:
          st.global.u32 [%rd10], %r4;
        }
        { .reg .pred p; setp.lt.u32 p, %r0, 2; @!p bra DONE; st.global.u32 [%rd11], %r4; DONE: }
        ret;""", pointers=2)
    a, b = np.zeros(8, "i4"), np.zeros(8, "i4")
    launch(k, 1, 8, [a, b])
    assert a.tolist() == [7] * 4 + [9] * 4 and b.tolist() == [5] * 2 + [0] * 6


@pytest.mark.parametrize("text, named", [
    ("frobnicate.f32 %f0, %f1;", "frobnicate"),
    ("add.f16x2.relu %r4, %r5, %r6;", "relu"),
    ("add.u16x2 %r4, %r5, %r6;", "u16x2"),
    ("mov.b32 %r4, %clock;", "%clock"),
    ("wgmma.fence.sync.aligned;", "wgmma"),
    ("bar.sync 0, 64;", "barrier"),
])
def test_what_is_not_supported_is_named(text, named):
    with pytest.raises(UnsupportedPtx, match=named):
        launch(kernel(f"{text} ret;", pointers=0), 1, 32, [])


def test_calls_of_device_functions():
    k = kernel("""
        mov.u32 %r4, 1000; mov.u32 %r6, 0; setp.eq.u32 %p0, %r0, 5; @%p0 bra END;
        { .param .b32 p0; st.param.b32 [p0+0], %r0; .param .b32 q; call.uni (q), twice_but_three, (p0);
          ld.param.b32 %r5, [q+0]; }
        { .param .b32 p0; st.param.b32 [p0], %r5; .param .b32 q; call (q), twice_but_three, (p0);
          ld.param.b32 %r6, [q]; }
        END: add.u32 %r6, %r6, %r4; st.global.u32 [%rd10], %r6; ret;""", module="""
        .func (.param .b32 result) twice_but_three(.param .b32 x)
        { .reg .b32 %r<9>; .reg .pred %p<2>; ld.param.u32 %r4, [x]; setp.ne.u32 %p1, %r4, 3; @%p1 bra END;
          st.param.b32 [result+0], 77; ret;
          END: add.u32 %r4, %r4, %r4; st.param.b32 [result+0], %r4; ret; }""")
    a = np.zeros(8, "u4")
    launch(k, 1, 8, [a])
    assert a.tolist() == [1000 + n for n in (0, 4, 8, 154, 16, 0, 24, 28)]


def test_a_call_of_an_unknown_function_is_refused_when_it_is_reached():
    k = kernel("""
        ld.global.u32 %r4, [%rd10]; setp.eq.u32 %p0, %r4, 0; @%p0 bra END;
        { .param .b32 p0; st.param.b32 [p0+0], %r4; call.uni slow, (p0); }
        END: ret;""")
    launch(k, 1, 32, [np.zeros(32, "u4")])
    with pytest.raises(UnsupportedPtx, match="call"):
        launch(k, 1, 32, [np.ones(32, "u4")])


# ---------------------------------------------------------------------- arguments and parameters

def test_parameters_of_every_kind():
    k = parse("""
        .entry f(.param .u64 out, .param .f32 s, .param .u32 n, .param .f64 d, .param .align 8 .b8 box[16])
        { .reg .b64 %rd<3>; .reg .f32 %f<4>; .reg .f64 %fd<4>; .reg .b32 %r<3>;
          ld.param.u64 %rd1, [out]; ld.param.f32 %f1, [s]; ld.param.u32 %r1, [n]; ld.param.f64 %fd1, [d];
          ld.param.v2.f32 {%f2, %f3}, [box+8];
          cvt.rn.f32.u32 %f0, %r1; add.f32 %f0, %f0, %f1; add.f32 %f0, %f0, %f3;
          cvt.f64.f32 %fd2, %f0; add.f64 %fd2, %fd2, %fd1; st.global.f64 [%rd1], %fd2; ret; }""")
    out = np.zeros(1)
    box = np.array([0, 0, 100, 1000], "f4").tobytes()
    launch(k, 1, 1, [out, 0.5, 7, np.float64(10), box])
    assert out[0] == 1017.5
    with pytest.raises(PtxError, match="8 bytes; parameter s has 4"):     # a float64 is a float, but its type is known
        launch(k, 1, 1, [out, np.float64(0.5), 7, 10, box])
    with pytest.raises(PtxError, match="4 bytes; parameter d has 8"):
        launch(k, 1, 1, [out, 0.5, 7, np.float32(10), box])
    with pytest.raises(PtxError, match="a float for parameter n"):
        launch(k, 1, 1, [out, 0.5, 7.0, 10, box])
    with pytest.raises(PtxError, match="1 arguments"):
        launch(k, 1, 1, [out])


def test_limits_of_a_launch():
    k = parse(".entry f() .maxntid 64 { ret; }")
    launch(k, 1, 64, [])
    with pytest.raises(PtxError, match="up to 64"):
        launch(k, 1, 65, [])
    with pytest.raises(PtxError, match="shared memory"):
        launch(k, 1, 64, [], dynamic_shared=1 << 20)


def test_grids_and_blocks_of_three_dimensions():
    k = kernel("""
        mov.u32 %r4, %tid.y; mov.u32 %r5, %tid.z; mov.u32 %r6, %ctaid.y; mov.u32 %r7, %ctaid.z;
        mad.lo.u32 %r8, %r5, 3, %r4; mad.lo.u32 %r8, %r8, 2, %r0;       // the thread in its block of 2 x 3 x 4
        mad.lo.u32 %r9, %r7, 2, %r6; mad.lo.u32 %r9, %r9, 2, %r2;       // the block in its grid of 2 x 2 x 2
        mad.lo.u32 %r9, %r9, 24, %r8;
        mul.wide.u32 %rd9, %r9, 4; add.u64 %rd10, %rd0, %rd9; st.global.u32 [%rd10], %r9; ret;""")
    a = np.zeros(192, "u4")
    launch(k, (2, 2, 2), (2, 3, 4), [a], resident=3)
    assert (a == np.arange(192)).all()


def test_module_data_and_local_memory():
    k = kernel("""
        .local .align 4 .b8 depot[16];
        mov.u64 %rd20, depot; cvta.local.u64 %rd21, %rd20;
        and.b32 %r4, %r0, 3; mul.wide.u32 %rd22, %r4, 4; add.u64 %rd23, %rd21, %rd22;
        mov.u64 %rd24, table; add.u64 %rd24, %rd24, %rd22;
        ld.global.u32 %r5, [%rd24]; add.u32 %r5, %r5, %r0;
        st.u32 [%rd23], %r5; add.u64 %rd25, %rd20, %rd22; ld.local.u32 %r6, [%rd25];
        ld.const.u8 %r7, [tiny+1]; add.u32 %r6, %r6, %r7;
        st.global.u32 [%rd10], %r6; ret;""", module="""
        .global .align 4 .u32 table[4] = {10, 0x14, 30, 40};
        .const .align 1 .b8 tiny[2] = {1, 200};""")
    a = np.zeros(8, "u4")
    launch(k, 1, 8, [a])
    assert a.tolist() == [210, 221, 232, 243, 214, 225, 236, 247]


def test_local_memory_ends():
    body = """.local .align 4 .b8 depot[16]; mul.wide.u32 %rd20, %r0, 4; mov.u64 %rd21, depot;
              add.u64 %rd20, %rd21, %rd20; st.local.u32 [%rd20], %r0; ret;"""
    launch(kernel(body, 0), 1, 4, [])
    with pytest.raises(OutOfBounds, match="outside of 16 bytes"):
        launch(kernel(body, 0), 1, 5, [])


def test_generic_addresses():
    k = kernel("""
        .shared .align 4 .b8 tile[128]; .local .align 4 .b8 depot[16];
        mov.u64 %rd20, tile; cvta.shared.u64 %rd21, %rd20; mul.wide.u32 %rd22, %r0, 4; add.u64 %rd21, %rd21, %rd22;
        st.u32 [%rd21], %r0; ld.u32 %r4, [%rd21]; mov.u64 %rd23, depot; add.u64 %rd23, %rd23, 8;
        st.u32 [%rd23], %r4; ld.u32 %r5, [%rd23];
        isspacep.shared %p0, %rd21; isspacep.local %p1, %rd23; and.pred %p0, %p0, %p1;
        isspacep.global %p1, %rd10; and.pred %p0, %p0, %p1; isspacep.shared %p1, %rd23; not.pred %p1, %p1;
        and.pred %p0, %p0, %p1; @%p0 st.u32 [%rd10], %r5; ret;""")
    a = np.zeros(32, "u4")
    launch(k, 1, 32, [a])
    assert (a == np.arange(32)).all()


def test_mixed_memories_are_refused():
    k = kernel("""
        .local .align 4 .b8 depot[16]; mov.u64 %rd20, depot; setp.lt.u32 %p0, %r0, 3;
        selp.b64 %rd20, %rd20, %rd10, %p0; st.u32 [%rd20], %r0; ret;""")
    with pytest.raises(UnsupportedPtx, match="different memories"):
        launch(k, 1, 32, [np.zeros(32, "u4")])


# ---------------------------------------------------------------------- global memory

COPY = "ld.global.f32 %f0, [%rd10{at}]; st.global.f32 [%rd11{to}], %f0; ret;"


def test_an_index_outside_of_an_array():
    a, b = numbers(64), np.zeros(64, "f4")
    launch(kernel(COPY.format(at="", to=""), 2), 1, 64, [a, b])
    assert (a == b).all()
    with pytest.raises(OutOfBounds, match="load of bytes 256 to 259 of argument 0, which has 256.*ld.global.f32"):
        launch(kernel(COPY.format(at="+4", to=""), 2), 1, 64, [a, b])
    with pytest.raises(OutOfBounds, match="store of bytes -4 to -1 of argument 1"):
        launch(kernel(COPY.format(at="", to="+-4"), 2), 1, 64, [a, b])
    with pytest.raises(OutOfBounds):     # where another array might lie
        launch(kernel(COPY.format(at="+1024", to=""), 2), 1, 64, [a, b])
    with pytest.raises(OutOfBounds, match="0, which has 3"):     # a part of the last element
        launch(kernel(COPY.format(at="", to=""), 2), 1, 1, [np.zeros(3, "u1"), b])


def test_a_store_to_a_read_only_array():
    a, b = numbers(64), np.zeros(64, "f4")
    a.flags.writeable = False
    launch(kernel(COPY.format(at="", to=""), 2), 1, 64, [a, b])
    assert (a == b).all()
    with pytest.raises(OutOfBounds, match="argument 1, which is read-only"):
        launch(kernel(COPY.format(at="", to=""), 2), 1, 64, [b, a])


def test_an_array_given_twice_is_one():
    a = numbers(32)
    k = kernel("ld.global.f32 %f0, [%rd10]; add.f32 %f0, %f0, %f0; st.global.f32 [%rd11], %f0; ret;", 2)
    launch(k, 1, 32, [a, a])
    assert (a == 2 * numbers(32)).all()


@pytest.mark.parametrize("offset, works", [(0, True), (16, True), (4, False), (8, False)])
def test_alignment_of_vectors(offset, works):
    k = kernel("ld.global.nc.v4.f32 {%f0, %f1, %f2, %f3}, [%rd10];"
               "st.global.v4.f32 [%rd11], {%f3, %f2, %f1, %f0}; ret;", 2, size=16)
    a, b = numbers(128), np.zeros(128, "f4")
    if works:
        launch(k, 1, 32, [Placed(a, offset), b])
        assert (b.reshape(-1, 4)[:, ::-1].ravel() == a).all()
    else:
        with pytest.raises(Misaligned, match=f"load of 16 bytes at an address {offset} past"):
            launch(k, 1, 32, [Placed(a, offset), b])


def test_two_threads_that_store_to_one_address():
    at = "shr.u32 %r4, %r1, {shift}; mul.wide.u32 %rd9, %r4, 4; add.u64 %rd10, %rd0, %rd9;"
    store = at + "st.global.u32 [%rd10], %r1; ret;"
    a = np.zeros(128, "u4")
    launch(kernel(store.format(shift=0)), 2, 64, [a])
    with pytest.raises(Race, match="byte 0 of argument 0"):      # two lanes of an instruction
        launch(kernel(store.format(shift=1)), 2, 64, [a])
    same = kernel("mul.wide.u32 %rd9, %r0, 4; add.u64 %rd10, %rd0, %rd9; st.global.u32 [%rd10], %r0; ret;")
    for resident in (1, 8):                                      # two blocks, at the same time or not
        launch(same, 1, 64, [a], resident=resident)
        with pytest.raises(Race, match="argument 0"):
            launch(same, 2, 64, [a], resident=resident)
    with pytest.raises(Race, match="byte 5 of"):                 # bytes of one word are apart
        launch(kernel("min.u32 %r4, %r1, 5; cvt.u64.u32 %rd9, %r4; add.u64 %rd10, %rd0, %rd9;"
                      "st.global.u8 [%rd10], %r0; ret;"), 1, 7, [np.zeros(8, "u1")])


def test_atomics():
    k = kernel("""
        and.b32 %r4, %r1, 3; mul.wide.u32 %rd20, %r4, 4; add.u64 %rd21, %rd0, %rd20;
        atom.global.add.u32 %r5, [%rd21], 1;                // each thread's place among those of its bin
        st.global.u32 [%rd11], %r5;
        add.u64 %rd22, %rd2, %rd20; cvt.rn.f32.u32 %f0, %r1; red.global.add.f32 [%rd22], %f0;
        mul.wide.u32 %rd23, %r4, 8; add.u64 %rd24, %rd3, %rd23; cvt.rn.f64.u32 %fd0, %r1;
        atom.global.add.f64 %fd1, [%rd24], %fd0;
        red.global.max.s32 [%rd4], %r1; ret;""", 5)
    bins, places, sums, doubles = np.zeros(4, "u4"), np.zeros(128, "u4"), np.zeros(4, "f4"), np.zeros(4)
    most = np.zeros(1, "i4")
    launch(k, 2, 64, [bins, places, sums, doubles, most])
    assert bins.tolist() == [32] * 4 and most[0] == 127
    assert (np.sort(places.reshape(-1, 4), axis=0) == np.arange(32)[:, None]).all()
    expected = np.arange(128).reshape(-1, 4).sum(axis=0)
    assert (sums == expected).all() and (doubles == expected).all()


def test_compare_and_swap():
    k = kernel("""
        LOOP: ld.volatile.global.u32 %r4, [%rd0]; add.u32 %r5, %r4, %r0; atom.global.cas.b32 %r6, [%rd0], %r4, %r5;
        setp.ne.u32 %p0, %r4, %r6; @%p0 bra LOOP; ret;""")
    a = np.zeros(1, "u4")
    launch(k, 1, 40, [a])
    assert a[0] == sum(range(40))


@pytest.mark.parametrize("stride, ratio", [(1, 1), (2, 2), (8, 8), (16, 8), (0, 1)])
def test_sectors_of_global_memory(stride, ratio):
    k = kernel(f"""
        mul.lo.u32 %r4, %r1, {stride}; mul.wide.u32 %rd20, %r4, 4; add.u64 %rd21, %rd0, %rd20;
        ld.global.f32 %f0, [%rd21]; st.global.f32 [%rd11], %f0; ret;""", 2)
    report = launch(k, 4, 64, [numbers(64 * 4 * 16), np.zeros(256, "f4")])
    assert report.global_loads.ratio == ratio
    assert report.global_loads.worst == (min(32, 4 * stride) or 1)
    assert report.global_stores.ratio == 1 and report.global_stores.real == 32


# ---------------------------------------------------------------------- control flow

def test_branches_that_part_and_meet():
    k = kernel("""
        and.b32 %r4, %r0, 3; mov.u32 %r5, 0;
        setp.eq.u32 %p0, %r4, 0; @%p0 bra EVEN;
        setp.eq.u32 %p1, %r4, 1; @!%p1 bra REST;
        mov.u32 %r5, 11; bra.uni MEET;
        EVEN: mov.u32 %r5, 10; bra MEET;
        REST: add.u32 %r5, %r4, 100;
        MEET: st.global.u32 [%rd10], %r5; ret;""")
    a = np.zeros(64, "u4")
    report = launch(k, 1, 64, [a])
    assert (a.reshape(-1, 4) == [10, 11, 102, 103]).all()
    assert report.global_stores.ratio == 1      # they met before it


def test_loops_of_different_lengths_and_an_early_exit():
    k = kernel("""
        setp.ge.u32 %p0, %r1, 70; @%p0 exit;
        mov.u32 %r4, 0; mov.u32 %r5, 0;
        LOOP: setp.ge.u32 %p1, %r4, %r0; @%p1 bra DONE;
        add.u32 %r4, %r4, 1; add.u32 %r5, %r5, %r4; bra LOOP;
        DONE: st.global.u32 [%rd10], %r5; @%p1 ret; trap;""")
    a = np.zeros(70, "u4")
    launch(k, 2, 64, [a])
    n = np.arange(70) % 64
    assert (a == n * (n + 1) // 2).all()


def test_predicated_instructions():
    k = kernel("""
        setp.lt.u32 %p0, %r1, 20; mov.f32 %f0, 0f3F800000;
        @%p0 ld.global.f32 %f0, [%rd10];
        @!%p0 add.f32 %f0, %f0, %f0;
        setp.lt.u32 %p1, %r1, 30; @%p1 st.global.f32 [%rd11], %f0; ret;""", 2)
    a, b = numbers(20), np.zeros(30, "f4")
    launch(k, 1, 64, [a, b])
    assert b.tolist() == [*a, *[2.0] * 10]


def test_a_loop_without_an_end(monkeypatch):
    monkeypatch.setattr(execute, "MOST_STEPS", 1000)
    with pytest.raises(Endless):
        launch(kernel("LOOP: bra LOOP;", 0), 1, 32, [])


def test_a_trap():
    with pytest.raises(PtxError, match="trapped"):
        launch(kernel("trap; ret;", 0), 1, 32, [])

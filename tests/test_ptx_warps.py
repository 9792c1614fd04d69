"""What the lanes of a warp do together: shuffles, votes, matrices."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ptx import DivergentWarp, launch
from tests.ptx.texts import kernel, numbers, shared


def test_a_sum_by_shuffles():
    steps = "".join(f"mov.b32 %r4, %f0; shfl.sync.{{how}}.b32 %r5, %r4, {n}, {{limit}}, {{members}}; mov.b32 %f1, %r5;"
                    f"add.f32 %f0, %f0, %f1;" for n in (16, 8, 4, 2, 1))
    text = f"ld.global.f32 %f0, [%rd10]; {{before}} {steps} st.global.f32 [%rd11], %f0; ret;"
    a, b = numbers(96), np.zeros(96, "f4")
    launch(kernel(text.format(how="bfly", limit=31, members=-1, before=""), 2), 1, 96, [a, b])
    assert (b.reshape(3, 32) == a.reshape(3, 32).sum(axis=1, keepdims=True)).all()
    launch(kernel(text.format(how="down", limit=31, members=-1, before=""), 2), 1, 96, [a, b])
    assert (b[::32] == a.reshape(3, 32).sum(axis=1)).all()
    with pytest.raises(DivergentWarp):
        part = "setp.eq.u32 %p0, %r0, 3; @%p0 exit; setp.gt.u32 %p0, %r0, 40; @%p0 bra END;"
        launch(kernel(text.format(how="bfly", limit=31, members=-1, before=part).replace("ret;", "END: ret;"), 2),
               1, 96, [a, b])


@pytest.mark.parametrize("how, other, limit, source", [
    ("up", 1, 0, lambda n: n - 1 if n >= 1 else None),
    ("up", 2, 0x1800, lambda n: n - 2 if n % 8 >= 2 else None),
    ("down", 3, 0x1F, lambda n: n + 3 if n + 3 < 32 else None),
    ("down", 3, 0x181F, lambda n: n + 3 if n % 8 + 3 < 8 else None),
    ("bfly", 5, 0x1F, lambda n: n ^ 5),
    ("idx", 7, 0x1F, lambda n: 7),
    ("idx", 9, 0x181F, lambda n: n // 8 * 8 + 1),
])
def test_shuffles(how, other, limit, source):
    k = kernel(f"""
        add.u32 %r4, %r1, 100; shfl.sync.{how}.b32 %r5|%p0, %r4, {other}, {limit}, -1;
        selp.b32 %r6, 1, 0, %p0; st.global.u32 [%rd10], %r5; st.global.u32 [%rd11], %r6; ret;""", 2)
    a, b = np.zeros(64, "u4"), np.zeros(64, "u4")
    launch(k, 1, 64, [a, b])
    expected = [source(n) for n in range(32)]
    assert b.tolist() == [int(s is not None) for s in expected] * 2
    assert a.tolist() == [100 + 32 * w + (n if s is None else s) for w in (0, 1) for n, s in enumerate(expected)]


def test_votes_and_reductions_of_a_warp():
    k = kernel("""
        and.b32 %r4, %r0, 1; setp.eq.u32 %p0, %r4, 1; vote.sync.ballot.b32 %r5, %p0, -1;
        vote.sync.all.pred %p1, %p0, -1; vote.sync.any.pred %p2, %p0, -1; selp.b32 %r6, 2, 0, %p2;
        selp.b32 %r7, 1, 0, %p1; or.b32 %r6, %r6, %r7; redux.sync.add.s32 %r8, %r0, -1;
        activemask.b32 %r9;
        st.global.v4.u32 [%rd10], {%r5, %r6, %r8, %r9}; ret;""", size=16)
    a = np.zeros(256, "u4")
    launch(k, 1, 64, [a])
    assert (a.reshape(2, 32, 4) == np.array([[0xAAAAAAAA, 2, n, 0xFFFFFFFF] for n in (496, 1520)])[:, None]).all()


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("trans", [False, True])
def test_matrices_of_a_warp(kind, trans):
    """16 x 16 times 16 x 8; b is stored by columns, or by rows and transposed on the way."""
    b_row = "and.b32 %r7, %r0, 15; shl.b32 %r7, %r7, 4;" if trans else \
        "and.b32 %r7, %r0, 7; shl.b32 %r7, %r7, 5; and.b32 %r8, %r0, 8; shl.b32 %r8, %r8, 1; add.u32 %r7, %r7, %r8;"
    k = kernel(f"""
        mov.u32 %r4, tile; shl.b32 %r5, %r0, 4; add.u32 %r6, %r4, %r5; mul.wide.u32 %rd20, %r0, 16;
        add.u64 %rd21, %rd0, %rd20; ld.global.v4.b32 {{%r10, %r11, %r12, %r13}}, [%rd21];
        st.shared.v4.b32 [%r6], {{%r10, %r11, %r12, %r13}};
        setp.lt.u32 %p0, %r0, 16; add.u64 %rd22, %rd1, %rd20;
        @%p0 ld.global.v4.b32 {{%r10, %r11, %r12, %r13}}, [%rd22];
        @%p0 st.shared.v4.b32 [%r6+512], {{%r10, %r11, %r12, %r13}}; bar.sync 0;
        and.b32 %r14, %r0, 15; shl.b32 %r14, %r14, 5; and.b32 %r15, %r0, 16; add.u32 %r14, %r14, %r15;
        add.u32 %r14, %r4, %r14; ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r20, %r21, %r22, %r23}}, [%r14];
        {b_row} add.u32 %r7, %r4, %r7;
        ldmatrix.sync.aligned.m8n8.x2{".trans" if trans else ""}.shared.b16 {{%r24, %r25}}, [%r7+512];
        mov.f32 %f0, 0f3F800000; mov.f32 %f1, %f0; mov.f32 %f2, %f0; mov.f32 %f3, %f0;
        mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32 {{%f0, %f1, %f2, %f3}}, {{%r20, %r21, %r22, %r23}},
            {{%r24, %r25}}, {{%f0, %f1, %f2, %f3}};
        shr.u32 %r30, %r0, 2; and.b32 %r31, %r0, 3; shl.b32 %r31, %r31, 1; mad.lo.u32 %r30, %r30, 8, %r31;
        mul.wide.u32 %rd23, %r30, 4; add.u64 %rd24, %rd2, %rd23;
        st.global.v2.f32 [%rd24], {{%f0, %f1}}; st.global.v2.f32 [%rd24+256], {{%f2, %f3}}; ret;""", 3, shared(768))
    rng = np.random.default_rng(1)
    a, b = rng.integers(-9, 10, (16, 16)).astype("f4"), rng.integers(-9, 10, (16, 8)).astype("f4")
    encode = (lambda x: x.astype("f2").view("u2")) if kind == "f16" else (lambda x: (x.view("u4") >> 16).astype("u2"))
    out = np.zeros((16, 8), "f4")
    launch(k, 1, 32, [encode(a), encode(b if trans else np.ascontiguousarray(b.T)), out])
    assert (out == a @ b + 1).all()


def test_a_matrix_product_in_tf32():
    k = kernel("""
        shr.u32 %r4, %r0, 2; and.b32 %r5, %r0, 3; mad.lo.u32 %r6, %r4, 8, %r5; mul.wide.u32 %rd20, %r6, 4;
        add.u64 %rd21, %rd0, %rd20; ld.global.f32 %f10, [%rd21]; ld.global.f32 %f11, [%rd21+256];
        ld.global.f32 %f12, [%rd21+16]; ld.global.f32 %f13, [%rd21+272];
        mad.lo.u32 %r7, %r5, 8, %r4; mul.wide.u32 %rd22, %r7, 4; add.u64 %rd23, %rd1, %rd22;
        ld.global.f32 %f14, [%rd23]; ld.global.f32 %f15, [%rd23+128];
        cvt.rna.tf32.f32 %r10, %f10; cvt.rna.tf32.f32 %r11, %f11; cvt.rna.tf32.f32 %r12, %f12;
        cvt.rna.tf32.f32 %r13, %f13; cvt.rna.tf32.f32 %r14, %f14; cvt.rna.tf32.f32 %r15, %f15;
        mov.f32 %f0, 0f00000000;
        mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1, %f2, %f3, %f4}, {%r10, %r11, %r12, %r13},
            {%r14, %r15}, {%f0, %f0, %f0, %f0};
        shl.b32 %r8, %r5, 1; mad.lo.u32 %r8, %r4, 8, %r8; mul.wide.u32 %rd24, %r8, 4; add.u64 %rd25, %rd2, %rd24;
        st.global.v2.f32 [%rd25], {%f1, %f2}; st.global.v2.f32 [%rd25+256], {%f3, %f4}; ret;""", 3)
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal((rows, 8)).astype("f4") for rows in (16, 8))
    out = np.zeros((16, 8), "f4")
    launch(k, 1, 32, [a, b, out])
    assert np.abs(out - a @ b).max() < 0.02 and np.abs(out - a @ b).max() > 0      # 11 bits are left of each factor


def test_a_matrix_product_of_bytes():
    """Register q of a lane: four neighbours, of row lane / 4 (8 further on if q is odd) and column 4 * (lane % 4) (16
    further on from q = 2 on) of a, and of the same column of b's transpose."""
    k = kernel("""
        ld.global.v4.u32 {%r10, %r11, %r12, %r13}, [%rd10]; mul.wide.u32 %rd20, %r0, 8; add.u64 %rd21, %rd1, %rd20;
        ld.global.v2.u32 {%r14, %r15}, [%rd21]; mov.u32 %r4, 3;
        mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%r20, %r21, %r22, %r23}, {%r10, %r11, %r12, %r13},
            {%r14, %r15}, {%r4, %r4, %r4, %r4};
        st.global.v4.u32 [%rd12], {%r20, %r21, %r22, %r23}; ret;""", 3, size=16)
    rng = np.random.default_rng(8)
    a, b = rng.integers(-128, 128, (16, 32), dtype="i1"), rng.integers(0, 256, (32, 8), dtype="u1")
    lane = np.arange(32)
    row, column = lane[:, None, None] // 4, 4 * (lane[:, None, None] % 4) + np.arange(4)
    q = np.arange(4)[:, None]
    left = np.ascontiguousarray(a[row + 8 * (q % 2), column + 16 * (q // 2)])
    right = np.ascontiguousarray(b[column + 16 * q[:2], row])
    out = np.zeros((32, 4), "i4")
    launch(k, 1, 32, [left, right, out])
    expected = a.astype("i4") @ b.astype("i4") + 3
    at = np.arange(4)
    assert (out == expected[lane[:, None] // 4 + 8 * (at // 2), 2 * (lane[:, None] % 4) + at % 2]).all()


def test_a_matrix_product_of_doubles():
    k = kernel("""
        ld.global.f64 %fd0, [%rd10]; shr.u32 %r4, %r0, 2; and.b32 %r5, %r0, 3; mad.lo.u32 %r6, %r5, 8, %r4;
        mul.wide.u32 %rd20, %r6, 8; add.u64 %rd21, %rd1, %rd20; ld.global.f64 %fd1, [%rd21]; mov.f64 %fd2, 1.0;
        mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%fd3, %fd4}, {%fd0}, {%fd1}, {%fd2, %fd2};
        mul.wide.u32 %rd22, %r0, 16; add.u64 %rd23, %rd2, %rd22;
        st.global.v2.f64 [%rd23], {%fd3, %fd4}; ret;""", 3, size=8)
    rng = np.random.default_rng(9)
    a, b, out = rng.random((8, 4)), rng.random((4, 8)), np.zeros((8, 8))
    launch(k, 1, 32, [a, b, out])
    assert np.allclose(out, a @ b + 1)


def test_a_warp_multiplies_as_a_whole():
    with pytest.raises(DivergentWarp, match="part of a warp"):
        launch(kernel("""
            setp.lt.u32 %p0, %r0, 5; @%p0 bra END;
            mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f0, %f1, %f2, %f3}, {%r4, %r5, %r6, %r7}, {%r8, %r9},
                {%f0, %f1, %f2, %f3};
            END: ret;""", 0), 1, 32, [])

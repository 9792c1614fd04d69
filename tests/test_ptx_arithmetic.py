"""The executor's arithmetic against Python's integers and exact fractions, all corner cases against each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest

from tests.ptx import launch
from tests.ptx.texts import kernel

FLOATS = [0.0, -0.0, 1.0, -1.0, 1.5, -2.5, 0.5, 3e38, -3e38, 1e-40, math.inf, -math.inf, math.nan, 2.0**31, -2.0**31,
          255.5]
PREFIXES = {"b16": "rs", "b32": "r", "b64": "rd", "f32": "f", "f64": "fd"}
DTYPES = {"b16": "u2", "b32": "u4", "b64": "u8", "f32": "f4", "f64": "f8"}


def corners(width: int) -> list[int]:
    top = 1 << width
    return [0, 1, 2, 3, 7, width - 1, width, width + 1, top // 2 - 1, top // 2, top // 2 + 1, top - 1, top - 2, top - 7,
            0x55 * (top - 1) // 255, 100]


def inputs(kind: str, count: int = 3) -> list[np.ndarray]:
    """All corner cases of two operands and as many random ones; the third operand takes both by turns."""
    rng = np.random.default_rng(3)
    if kind[0] == "f":
        random = [(rng.standard_normal(256) * 2.0 ** rng.integers(-30, 31, 256)) for _ in range(3)]
        special = np.array(FLOATS)
    else:
        random = [rng.integers(0, 1 << int(kind[1:]), 256, dtype="u8") for _ in range(3)]
        special = np.array(corners(int(kind[1:])), "u8")
    pairs = [np.repeat(special, 16), np.tile(special, 16), rng.permutation(np.tile(special, 16))]
    with np.errstate(over="ignore"):
        return [np.concatenate([p, r]).astype(DTYPES[kind]) for p, r in zip(pairs, random)][:count]


def computed(text: str, result: str, operands: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """What `text` makes of its operands {a}, {b}, {c} in {d}; %p0 and %p1 are free."""
    names = {letter: f"%{PREFIXES[kind]}{n}" for n, (letter, (kind, _)) in enumerate(zip("abc", operands), 11)}
    names["d"] = f"%{PREFIXES[result]}10"
    lines = []
    for n, (letter, (kind, values)) in enumerate(zip("abc", operands)):
        lines.append(f"mul.wide.u32 %rd30, %r1, {values.itemsize}; add.u64 %rd31, %rd{n}, %rd30;"
                     f"ld.global.{kind} {names[letter]}, [%rd31];")
    out = np.zeros(operands[0][1].size, DTYPES[result])
    lines.append(f"{text.format(**names)} mul.wide.u32 %rd30, %r1, {out.itemsize};"
                 f"add.u64 %rd31, %rd{len(operands)}, %rd30; st.global.{result} [%rd31], {names['d']}; ret;")
    launch(kernel("\n".join(lines), len(operands) + 1), out.size // 64, 64, [*(values for _, values in operands), out])
    return out


def signed(x: int, width: int) -> int:
    return x - (1 << width) if x >> (width - 1) else x


def truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def bit_field(a: int, start: int, length: int, width: int, with_sign: bool) -> int:
    start, length = start & 255, length & 255
    bit = a >> min(start + length - 1, width - 1) & 1 if with_sign and length else 0
    return sum((a >> (start + n) & 1 if n < length and start + n < width else bit) << n for n in range(width))


def bits_inserted(a: int, b: int, start: int, length: int, width: int) -> int:
    for n in range(length & 255):
        if n + (start & 255) < width:
            place = 1 << n + (start & 255)
            b = b | place if a >> n & 1 else b & ~place
    return b


def bytes_chosen(a: int, b: int, selector: int) -> int:
    source = (a | b << 32).to_bytes(8, "little")
    result = 0
    for q in range(4):
        byte = source[selector >> 4 * q & 7]
        result |= ((255 if byte >= 128 else 0) if selector >> 4 * q & 8 else byte) << 8 * q
    return result


def products_of_bytes(a: int, b: int, c: int) -> int:
    pairs = zip(a.to_bytes(4, "little"), b.to_bytes(4, "little"))
    return c + sum(signed(x, 8) * y for x, y in pairs)


S = signed
INTEGERS: dict[str, Callable[[int, int, int, int], int]] = {
    "add.s{w} {d}, {a}, {b};": lambda a, b, c, w: a + b,
    "sub.u{w} {d}, {a}, {b};": lambda a, b, c, w: a - b,
    "mul.lo.s{w} {d}, {a}, {b};": lambda a, b, c, w: a * b,
    "mul.hi.u{w} {d}, {a}, {b};": lambda a, b, c, w: a * b >> w,
    "mul.hi.s{w} {d}, {a}, {b};": lambda a, b, c, w: S(a, w) * S(b, w) >> w,
    "mad.lo.u{w} {d}, {a}, {b}, {c};": lambda a, b, c, w: a * b + c,
    "mad.hi.s{w} {d}, {a}, {b}, {c};": lambda a, b, c, w: (S(a, w) * S(b, w) >> w) + c,
    "div.u{w} {d}, {a}, {b};": lambda a, b, c, w: a // b if b else -1,
    "div.s{w} {d}, {a}, {b};": lambda a, b, c, w: truncated(S(a, w), S(b, w)) if b else -1,
    "rem.u{w} {d}, {a}, {b};": lambda a, b, c, w: a % b if b else a,
    "rem.s{w} {d}, {a}, {b};": lambda a, b, c, w: S(a, w) - S(b, w) * truncated(S(a, w), S(b, w)) if b else a,
    "min.s{w} {d}, {a}, {b};": lambda a, b, c, w: min(S(a, w), S(b, w)),
    "max.u{w} {d}, {a}, {b};": lambda a, b, c, w: max(a, b),
    "abs.s{w} {d}, {a};": lambda a, b, c, w: abs(S(a, w)),
    "neg.s{w} {d}, {a};": lambda a, b, c, w: -a,
    "not.b{w} {d}, {a};": lambda a, b, c, w: ~a,
    "and.b{w} {d}, {a}, {b};": lambda a, b, c, w: a & b,
    "or.b{w} {d}, {a}, -2;": lambda a, b, c, w: a | ~1,
    "xor.b{w} {d}, {a}, {b};": lambda a, b, c, w: a ^ b,
    "cvt.u32.u{w} %r5, {b}; shl.b{w} {d}, {a}, %r5;": lambda a, b, c, w: a << min(b % 2**32, w),
    "cvt.u32.u{w} %r5, {b}; shr.u{w} {d}, {a}, %r5;": lambda a, b, c, w: a >> min(b % 2**32, w),
    "cvt.u32.u{w} %r5, {b}; shr.s{w} {d}, {a}, %r5;": lambda a, b, c, w: S(a, w) >> min(b % 2**32, w),
    "setp.lt.s{w} %p0, {a}, {b}; selp.b{w} {d}, {a}, {c}, %p0;": lambda a, b, c, w: a if S(a, w) < S(b, w) else c,
    "setp.ls.u{w} %p0|%p1, {a}, {b}; selp.b{w} {d}, 5, {c}, %p1;": lambda a, b, c, w: 5 if a > b else c,
    "setp.eq.s{w} %p0, {b}, 7; setp.ne.and.u{w} %p1, {a}, {c}, !%p0; selp.b{w} {d}, 1, 0, %p1;":
        lambda a, b, c, w: a != c and b != 7,
    "setp.gt.u{w} %p0, {a}, {b}; setp.ge.s{w} %p1, {a}, {c}; xor.pred %p0, %p0, %p1; not.pred %p1, %p0;"
    "selp.b{w} {d}, {b}, {a}, %p1;": lambda a, b, c, w: b if (a > b) == (S(a, w) >= S(c, w)) else a,
}
WIDE: dict[str, Callable[[int, int, int, int], int]] = {     # not of 16 bits
    "cvt.u32.u{w} %r5, {b}; cvt.u32.u{w} %r6, {c}; bfe.u{w} {d}, {a}, %r5, %r6;":
        lambda a, b, c, w: bit_field(a, b, c, w, False),
    "cvt.u32.u{w} %r5, {b}; cvt.u32.u{w} %r6, {c}; bfe.s{w} {d}, {a}, %r5, %r6;":
        lambda a, b, c, w: bit_field(a, b, c, w, True),
    "cvt.u32.u{w} %r5, {b}; cvt.u32.u{w} %r6, {c}; bfi.b{w} {d}, {a}, {b}, %r5, %r6;":
        lambda a, b, c, w: bits_inserted(a, b, b, c, w),
    "popc.b{w} %r5, {a}; cvt.u{w}.u32 {d}, %r5;": lambda a, b, c, w: a.bit_count(),
    "clz.b{w} %r5, {a}; cvt.u{w}.u32 {d}, %r5;": lambda a, b, c, w: w - a.bit_length(),
    "brev.b{w} {d}, {a};": lambda a, b, c, w: int(f"{a:0{w}b}"[::-1], 2),
    "sad.u{w} {d}, {a}, {b}, {c};": lambda a, b, c, w: abs(a - b) + c,
    "sad.s{w} {d}, {a}, {b}, {c};": lambda a, b, c, w: abs(S(a, w) - S(b, w)) + c,
    "slct.u{w}.s32 {d}, {a}, {b}, %r1; ": lambda a, b, c, w: a,
}
NARROW: dict[str, Callable[[int, int, int, int], int]] = {     # of 32 bits alone
    "shf.l.wrap.b32 {d}, {a}, {b}, {c};": lambda a, b, c, w: (b << 32 | a) << (c & 31) >> 32,
    "shf.r.wrap.b32 {d}, {a}, {b}, {c};": lambda a, b, c, w: (b << 32 | a) >> (c & 31),
    "shf.l.clamp.b32 {d}, {a}, {b}, {c};": lambda a, b, c, w: (b << 32 | a) << min(c, 32) >> 32,
    "shf.r.clamp.b32 {d}, {a}, {b}, {c};": lambda a, b, c, w: (b << 32 | a) >> min(c, 32),
    "prmt.b32 {d}, {a}, {b}, {c};": lambda a, b, c, w: bytes_chosen(a, b, c),
    "lop3.b32 {d}, {a}, {b}, {c}, 0xE8;": lambda a, b, c, w: a & b | a & c | b & c,
    "dp4a.s32.u32 {d}, {a}, {b}, {c};": lambda a, b, c, w: products_of_bytes(a, b, c),
    "slct.b32.s32 {d}, {a}, {b}, {c};": lambda a, b, c, w: a if S(c, 32) >= 0 else b,
    "set.lt.u32.s32 {d}, {a}, {b};": lambda a, b, c, w: -1 if S(a, w) < S(b, w) else 0,
    "add.sat.s32 {d}, {a}, {b};": lambda a, b, c, w: max(-2**31, min(2**31 - 1, S(a, w) + S(b, w))),
    "cvt.sat.s8.s32 {d}, {a};": lambda a, b, c, w: max(-128, min(127, S(a, w))),
    "cvt.sat.u16.s32 {d}, {a};": lambda a, b, c, w: max(0, min(65535, S(a, w))),
    "cvt.s32.s8 {d}, {a};": lambda a, b, c, w: S(a & 255, 8),
    "cvt.u32.u8 {d}, {a};": lambda a, b, c, w: a & 255,
    "mul.wide.s16 {d}, %rs5, %rs6;": lambda a, b, c, w: S(a & 65535, 16) * S(b & 65535, 16),
    "mov.b32 {d}, {{%rs6, %rs5}};": lambda a, b, c, w: b & 65535 | (a & 65535) << 16,
    "mov.b64 %rd40, {{{b}, {a}}}; shr.u64 %rd41, %rd40, 8; mov.b64 {{{d}, _}}, %rd41;":
        lambda a, b, c, w: (a << 32 | b) >> 8,
    "mul.wide.s32 %rd40, {a}, {b}; cvt.s64.s32 %rd42, {c}; mad.wide.s32 %rd41, {a}, {b}, %rd42;"
    "sub.s64 %rd41, %rd41, %rd40; cvt.u32.u64 {d}, %rd41;": lambda a, b, c, w: c,
    "mul.wide.u32 %rd40, {a}, {b}; shr.u64 %rd40, %rd40, 32; cvt.u32.u64 {d}, %rd40;": lambda a, b, c, w: a * b >> 32,
    "add.cc.u32 %r5, {a}, {b}; addc.cc.u32 %r6, {b}, {c}; addc.u32 {d}, {a}, {c};":
        lambda a, b, c, w: (a << 64) + (b << 32) + a + (c << 64) + (c << 32) + b >> 64,
    "sub.cc.u32 %r5, {a}, {b}; subc.cc.u32 %r6, {b}, {c}; subc.u32 {d}, {a}, {c};":
        lambda a, b, c, w: (a << 64) + (b << 32) + a - (c << 64) - (c << 32) - b >> 64,
    "mad.lo.cc.u32 %r5, {a}, {b}, {c}; madc.hi.u32 {d}, {a}, {b}, {c};": lambda a, b, c, w: a * b + c + (c << 32) >> 32,
}


def integer_cases() -> list:
    return ([(text, rule, width) for width in (16, 32, 64) for text, rule in INTEGERS.items()]
            + [(text, rule, width) for width in (32, 64) for text, rule in WIDE.items()]
            + [(text, rule, 32) for text, rule in NARROW.items()])


@pytest.mark.parametrize("text, rule, width", [pytest.param(*case, id=f"{case[0].split()[0]}-{case[2]}-{n}")
                                               for n, case in enumerate(integer_cases())])
def test_integers(text, rule, width):
    kind = f"b{width}"
    a, b, c = inputs(kind)
    halves = "" if "%rs5" not in text else "cvt.u16.u32 %rs5, {a}; cvt.u16.u32 %rs6, {b}; "
    found = computed(halves + text.replace("{w}", str(width)), kind, [(kind, a), (kind, b), (kind, c)])
    expected = [int(rule(*values, width)) % (1 << width) for values in zip(a.tolist(), b.tolist(), c.tolist())]
    assert found.tolist() == expected


# ---------------------------------------------------------------------- floats

def same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Bit for bit, but for NaN, which is NaN."""
    bits = f"u{found.itemsize}"
    return bool((np.isnan(found) & np.isnan(expected) | (found.view(bits) == expected.view(bits))).all())


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("text, rule", [
    ("add.rn.{t} {d}, {a}, {b};", lambda a, b: a + b), ("sub.{t} {d}, {a}, {b};", lambda a, b: a - b),
    ("mul.{t} {d}, {a}, {b};", lambda a, b: a * b), ("div.rn.{t} {d}, {a}, {b};", lambda a, b: a / b),
    ("abs.{t} {d}, {a};", lambda a, b: abs(a)), ("neg.{t} {d}, {a};", lambda a, b: -a),
    ("sqrt.rn.{t} {d}, {a};", lambda a, b: np.sqrt(a)), ("rcp.rn.{t} {d}, {a};", lambda a, b: 1 / a),
    ("copysign.{t} {d}, {a}, {b};", lambda a, b: np.copysign(b, a)),
    ("cvt.rzi.{t}.{t} {d}, {a};", lambda a, b: np.trunc(a)), ("cvt.rni.{t}.{t} {d}, {a};", lambda a, b: np.rint(a)),
    ("cvt.rmi.{t}.{t} {d}, {a};", lambda a, b: np.floor(a)), ("cvt.rpi.{t}.{t} {d}, {a};", lambda a, b: np.ceil(a)),
])
def test_floats(kind, text, rule):
    a, b = inputs(kind, 2)
    with np.errstate(all="ignore"):
        assert same(computed(text.replace("{t}", kind), kind, [(kind, a), (kind, b)]), rule(a, b))


def test_floats_in_registers_of_bits():
    a, b = inputs("f32", 2)
    x, y = inputs("f64", 2)
    with np.errstate(all="ignore"):
        single = computed("add.f32 %r5, {a}, {b}; mul.f32 {d}, %r5, 0f40000000;", "b32",
                          [("b32", a.view("u4")), ("b32", b.view("u4"))])
        assert same(single.view("f4"), (a + b) * 2)
        double = computed("sub.f64 {d}, {a}, {b};", "b64", [("b64", x.view("u8")), ("b64", y.view("u8"))])
        assert same(double.view("f8"), x - y)


def extreme(a: float, b: float, least: bool, nan: bool) -> float:
    if math.isnan(a) or math.isnan(b):
        return math.nan if nan or math.isnan(a) and math.isnan(b) else b if math.isnan(a) else a
    key = lambda x: (x, math.copysign(1, x))     # noqa: E731 (-0 comes before +0)
    return min(a, b, key=key) if least else max(a, b, key=key)


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", ["min", "max", "min.NaN", "max.NaN"])
def test_minimum_and_maximum(kind, name):
    a, b = inputs(kind, 2)
    found = computed(f"{name}.{kind} {{d}}, {{a}}, {{b}};", kind, [(kind, a), (kind, b)])
    expected = [extreme(x, y, name.startswith("min"), "NaN" in name) for x, y in zip(a.tolist(), b.tolist())]
    assert same(found, np.array(expected, found.dtype))


COMPARISONS = {"eq": lambda a, b: a == b, "ne": lambda a, b: a < b or a > b, "lt": lambda a, b: a < b,
               "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b}


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("how", [*COMPARISONS, *(f"{how}u" for how in COMPARISONS), "num", "nan"])
def test_comparisons_of_floats(kind, how):
    a, b = inputs(kind, 2)
    found = computed(f"setp.{how}.{kind} %p0, {{a}}, {{b}}; selp.b32 {{d}}, 1, 0, %p0;", "b32", [(kind, a), (kind, b)])

    def expected(x: float, y: float) -> bool:
        unordered = math.isnan(x) or math.isnan(y)
        if how in ("num", "nan"):
            return unordered == (how == "nan")
        return how.endswith("u") if unordered else COMPARISONS[how[:2]](x, y)

    assert found.tolist() == [int(expected(x, y)) for x, y in zip(a.tolist(), b.tolist())]


EXACT = {
    "fma": lambda a, b, c: a * b + c, "add": lambda a, b, c: a + b, "sub": lambda a, b, c: a - b,
    "mul": lambda a, b, c: a * b, "div": lambda a, b, c: a / b,
}


@pytest.mark.parametrize("name, kind, mode", [
    ("fma", "f64", "rn"), *((name, "f32", mode) for name in EXACT for mode in ("rn", "rz", "rm", "rp"))])
def test_rounding(name, kind, mode):
    """Against the exact value: no neighbour is nearer, or as near on the right side."""
    a, b, c = (x[256:] for x in inputs(kind))
    c[::2] = -(a * b)[::2]     # what is left is the product's rounding
    third = ", {c}" if name == "fma" else ""
    found = computed(f"{name}.{mode}.{kind} {{d}}, {{a}}, {{b}}{third};", kind, [(kind, x) for x in (a, b, c)])
    for *operands, r in zip(a, b, c, found):
        exact = EXACT[name](*(Fraction(float(x)) for x in operands))
        down, up = (Fraction(float(np.nextafter(r, r.dtype.type(end)))) for end in (-np.inf, np.inf))
        r = Fraction(float(r))
        if mode == "rn":
            assert abs(r - exact) <= min(abs(down - exact), abs(up - exact))
        elif mode == "rm" or mode == "rz" and exact > 0:
            assert r <= exact < up
        else:
            assert down < exact <= r


@pytest.mark.parametrize("source", ["f32", "f64"])
@pytest.mark.parametrize("target", ["s8", "u8", "s16", "u32", "s32", "u64", "s64"])
@pytest.mark.parametrize("mode, rounded", [
    ("rzi", math.trunc), ("rni", round), ("rmi", math.floor), ("rpi", math.ceil)])
def test_floats_to_integers(source, target, mode, rounded):
    (a,) = inputs(source, 1)
    result = "b64" if target.endswith("64") else "b32"
    found = computed(f"cvt.{mode}.{target}.{source} {{d}}, {{a}};", result, [(source, a)])
    width = int(target[1:])
    low, high = (-(1 << width - 1), (1 << width - 1) - 1) if target[0] == "s" else (0, (1 << width) - 1)

    def expected(x: float) -> int:
        if not math.isfinite(x):
            return 0 if math.isnan(x) else high if x > 0 else low
        return max(low, min(high, rounded(x)))

    assert found.tolist() == [expected(x) % (1 << int(result[1:])) for x in a.tolist()]


@pytest.mark.parametrize("source", ["s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("target", ["f32", "f64"])
def test_integers_to_floats(source, target):
    kind = f"b{source[1:]}"
    (a,) = inputs(kind, 1)
    found = computed(f"cvt.rn.{target}.{source} {{d}}, {{a}};", target, [(kind, a)])
    assert (found == a.view(("i" if source[0] == "s" else "u") + str(a.itemsize)).astype(found.dtype)).all()


def test_double_to_single_rounds_as_it_is_told():
    (a,) = inputs("f64", 1)
    a = a[np.isfinite(a) & (np.abs(a) < 1e38)][:256]
    found = {mode: computed(f"cvt.{mode}.f32.f64 {{d}}, {{a}};", "f32", [("f64", a)]).astype("f8")
             for mode in ("rn", "rz", "rm", "rp")}
    assert (found["rn"] == a.astype("f4")).all()
    assert (found["rm"] <= a).all() and (found["rp"] >= a).all()
    assert (np.abs(found["rz"]) <= np.abs(a)).all() and (found["rz"] * a >= 0).all()
    inexact = found["rn"] != a
    assert (np.nextafter(found["rm"].astype("f4"), np.float32(np.inf)) == found["rp"])[inexact].all()
    assert inexact.any()


def test_saturation_of_floats():
    a, b = inputs("f32", 2)
    with np.errstate(all="ignore"):
        expected = np.clip(np.where(np.isnan(a + b), 0, a + b), 0, 1) + np.float32(0)
    assert (computed("add.sat.f32 {d}, {a}, {b};", "f32", [("f32", a), ("f32", b)]) == expected).all()
    found = computed("cvt.sat.f32.f32 {d}, {a};", "f32", [("f32", a)])
    assert (found == np.clip(np.where(np.isnan(a), 0, a), 0, 1)).all()


@pytest.mark.parametrize("text, function", [
    ("ex2.approx.ftz.f32 {d}, {a};", np.exp2), ("lg2.approx.f32 {d}, {a};", np.log2),
    ("sin.approx.f32 {d}, {a};", np.sin), ("cos.approx.f32 {d}, {a};", np.cos), ("tanh.approx.f32 {d}, {a};", np.tanh),
    ("rsqrt.approx.f32 {d}, {a};", lambda x: 1 / np.sqrt(x)),
])
def test_approximations(text, function):
    a = np.linspace(0.1, 3, 256, dtype="f4")
    assert np.allclose(computed(text, "f32", [("f32", a)]), function(a), rtol=1e-6)


@pytest.mark.parametrize("kind, function", [
    ("finite", np.isfinite), ("infinite", np.isinf), ("number", lambda x: ~np.isnan(x)), ("notanumber", np.isnan),
    ("normal", lambda x: np.isfinite(x) & (np.abs(x) >= np.finfo("f4").tiny)),
    ("subnormal", lambda x: (x != 0) & (np.abs(x) < np.finfo("f4").tiny)),
])
def test_kinds_of_floats(kind, function):
    (a,) = inputs("f32", 1)
    found = computed(f"testp.{kind}.f32 %p0, {{a}}; selp.b32 {{d}}, 1, 0, %p0;", "b32", [("f32", a)])
    assert (found == function(a)).all()


# ---------------------------------------------------------------------- 16-bit floats

def all_halves() -> np.ndarray:
    return np.arange(1 << 16, dtype="u2")


def test_half_to_single_and_back():
    bits = all_halves()
    single = computed("cvt.f32.f16 {d}, {a};", "f32", [("b16", bits)])
    assert same(single, bits.view("f2").astype("f4"))
    finite = bits[np.isfinite(bits.view("f2"))][:63488]
    assert (computed("cvt.rn.f16.f32 {d}, {a};", "b16", [("f32", finite.view("f2").astype("f4"))]) == finite).all()
    (a,) = inputs("f32", 1)
    with np.errstate(over="ignore"):
        assert same(computed("cvt.rn.f16.f32 {d}, {a};", "b16", [("f32", a)]).view("f2"), a.astype("f2"))


def test_bfloat_to_single_and_back():
    bits = all_halves()
    single = computed("cvt.f32.bf16 {d}, {a};", "f32", [("b16", bits)])
    assert same(single, (bits.astype("u4") << 16).view("f4"))
    numbers = bits[~np.isnan(single)][:65280]
    back = computed("cvt.rn.bf16.f32 {d}, {a};", "b16", [("f32", (numbers.astype("u4") << 16).view("f4"))])
    assert (back == numbers).all()
    middle = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF] * 16, "u4").view("f4")
    found = computed("cvt.rn.bf16.f32 {d}, {a};", "b16", [("f32", middle)])
    assert found[:4].tolist() == [0x3F80, 0x3F82, 0x3F81, 0x3F80]     # to the even one, up, down


@pytest.mark.parametrize("text, rule", [
    ("add.f16 {d}, {a}, {b};", lambda a, b, c: a + b), ("mul.f16 {d}, {a}, {b};", lambda a, b, c: a * b),
    ("fma.rn.f16 {d}, {a}, {b}, {c};", lambda a, b, c: (a.astype("f8") * b + c).astype("f2")),
    ("neg.f16 {d}, {a};", lambda a, b, c: -a), ("max.f16 {d}, {a}, {b};", lambda a, b, c: np.fmax(a, b)),
])
def test_arithmetic_of_halves(text, rule):
    rng = np.random.default_rng(4)
    a, b, c = (rng.standard_normal(512).astype("f2") for _ in range(3))
    found = computed(text, "b16", [("b16", x.view("u2")) for x in (a, b, c)])
    assert same(found.view("f2"), rule(a, b, c))


def test_pairs_of_halves():
    rng = np.random.default_rng(5)
    a, b, c = (rng.standard_normal(512).astype("f2") for _ in range(3))
    found = computed("fma.rn.f16x2 {d}, {a}, {b}, {c};", "b32", [("b32", x.view("u4")) for x in (a, b, c)])
    assert same(found.view("f2"), (a.astype("f8") * b + c).astype("f2"))
    x, y = (rng.standard_normal(256).astype("f4") for _ in range(2))
    packed = computed("cvt.rn.f16x2.f32 {d}, {a}, {b};", "b32", [("f32", x), ("f32", y)]).view("f2").reshape(-1, 2)
    assert (packed[:, 1] == x.astype("f2")).all() and (packed[:, 0] == y.astype("f2")).all()


def test_pairs_of_bfloats():
    rng = np.random.default_rng(5)
    a, b = ((rng.standard_normal(512).astype("f4").view("u4") >> 16).astype("u2") for _ in range(2))
    found = computed("mul.rn.bf16x2 {d}, {a}, {b};", "b32", [("b32", x.view("u4")) for x in (a, b)]).view("u2")
    product = (a.astype("u4") << 16).view("f4") * (b.astype("u4") << 16).view("f4")
    assert (found == computed("cvt.rn.bf16.f32 {d}, {a};", "b16", [("f32", product)])).all()
    cut = computed("cvt.rz.bf16x2.f32 {d}, {a}, {a};", "b32", [("f32", product)])
    assert (cut == product.view("u4") >> 16 | product.view("u4") & 0xFFFF0000).all()


def test_single_to_half_towards_zero():
    a = np.linspace(-3, 3, 256, dtype="f4")
    found = computed("cvt.rz.f16.f32 {d}, {a};", "b16", [("f32", a)]).view("f2").astype("f4")
    assert (np.abs(found) <= np.abs(a)).all() and (np.abs(found - a) < np.spacing(np.abs(a).astype("f2"))).all()


def test_single_to_tf32():
    a = np.array([0x3F800FFF, 0x3F801000, 0x3F803000, 0xBF801000, 0x7F800000] * 64, "u4")
    found = computed("cvt.rna.tf32.f32 {d}, {a};", "b32", [("f32", a.view("f4"))])
    assert found[:5].tolist() == [0x3F800000, 0x3F802000, 0x3F804000, 0xBF802000, 0x7F800000]

"""The suites: which cases each holds. `SUITES[name].cases(dtype, size)` builds them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations, product
from math import prod
from pathlib import Path

import numpy as np

from .cases import DTYPES, Case

LIBRARIES = ("numpy", "opt_einsum", "torch", "jax", "pytblis")
WITH_PLAIN = ("numpy", "np.einsum", "opt_einsum", "torch", "jax", "pytblis")
TCCG_SIZES = ("16MB", "200MB")


@dataclass(frozen=True)
class Suite:
    """`peers`: who is timed beside the subject unless the user says. `unit`: "rate" shows GF/s or GB/s and
    ratios, "time" shows everyone's time. `cold`: the caches are emptied before every call."""

    name: str
    about: str
    build: Callable[[str, str], Iterable[Case]]
    peers: tuple[str, ...] = LIBRARIES
    unit: str = "rate"
    cold: bool = False
    dtypes: tuple[str, ...] = ("f32", "f64")

    def cases(self, dtype: str, size: str = TCCG_SIZES[0]) -> list[Case]:
        """For a NumPy dtype name; `size` matters to tccg alone."""
        return list(self.build(dtype, size))


def _case(family: str, equation: str, extents: Sequence[int], dtype: str, out: bool = False, name: str = "",
          result: str = "", twin: str = "") -> Case:
    """`extents` belong to the labels in order of appearance."""
    labels = list(dict.fromkeys(c for c in equation if c.isalpha()))
    sizes = dict(zip(labels, extents, strict=True))
    name = name or f"{equation} {'x'.join(map(str, extents))}"
    return Case(name, equation, sizes, dtype, family, out, result, twin)


# -- matrix products -------------------------------------------------------------------------------------

MATMULS = ("ij,jk->ik", "ij,kj->ik", "ji,jk->ik", "ji,kj->ik")


def square(dtype: str, size: str) -> Iterable[Case]:
    for n, equation in product((64, 128, 256, 384, 512, 1000, 1024, 2048), MATMULS):
        yield _case(f"n={n}", equation, (n, n, n), dtype)


def skinny(dtype: str, size: str) -> Iterable[Case]:
    one_small = [(s, m, n) for s in (4, 16, 64) for m, n in ((200, 2000), (1000, 1000))]
    two_small = [(s, t, n) for s, t in ((4, 4), (16, 16), (64, 64), (8, 32)) for n in (200, 2000)]
    for kind, shapes in (("one small", one_small), ("two small", two_small)):
        # Rotated, so that m, n and k are each the odd one once.
        for (a, b, c), equation in product(shapes, MATMULS[:2]):
            for m, n, k in ((a, b, c), (c, a, b), (b, c, a)):
                sizes = {"i": m, "k": n, "j": k}
                yield Case(f"{equation} m{m} n{n} k{k}", equation, sizes, dtype, kind)


def small(dtype: str, size: str) -> Iterable[Case]:
    for n in (4, 6, 8, 12, 16, 24, 32, 48, 64):
        for equation in MATMULS:
            yield _case("matmul", equation, (n, n, n), dtype)
        yield _case("matvec", "ij,j->i", (n, n), dtype)
        yield _case("inner", "ij,ij->", (n, n), dtype)
        yield _case("sum", "ij->i", (n, n), dtype)
    for n in (4, 8, 16):
        yield _case("tensor", "ijk,kl->ijl", (n, n, n, n), dtype)
        yield _case("tensor", "ijkl,jl->ik", (n, n, n, n), dtype)


# -- contractions ----------------------------------------------------------------------------------------

@cache
def tccg_entries() -> tuple[dict, ...]:
    """TCCG's 48 contractions (Springer and Bientinesi), row-major, with the extents of each variant."""
    return tuple(json.loads((Path(__file__).parent / "tccg.json").read_text()))


def tccg(dtype: str, size: str) -> Iterable[Case]:
    """All 48 at 16 MB; at 200 MB, the official size, the 24 of the official short list."""
    variant = f"{'f32' if np.dtype(dtype).itemsize <= 4 else 'f64'}_{size}"
    for entry in tccg_entries():
        if size == TCCG_SIZES[0] or entry["in_24"]:
            name = f"{entry['name'][4:]} {entry['columns']}"
            yield Case(name, entry["equation"], entry["sizes"][variant], dtype, entry["group"])


def random(dtype: str, size: str) -> Iterable[Case]:
    """TBLIS's method (Matthews 2016): 1 to 3 dimensions for each of m, n, k, every index order shuffled."""
    rng = np.random.default_rng(1607)
    for n in (50, 100, 200, 400, 700, 1000):
        twin = f"matmul {n}"
        yield _case("matmul", "ij,jk->ik", (n, n, n), dtype, name=twin)
        for number in range(6):
            yield replace(_random_contraction(rng, n, dtype), name=f"{n} #{number}", twin=twin)


def _random_contraction(rng: np.random.Generator, n: int, dtype: str) -> Case:
    labels = iter("abcdefghi")
    groups = [{next(labels): extent for extent in _factors(rng, n)} for _ in range(3)]
    m, k, cols = (list(group) for group in groups)
    a, b, c = ("".join(rng.permutation(term)) for term in (m + k, k + cols, m + cols))
    sizes = {label: extent for group in groups for label, extent in group.items()}
    return Case("", f"{a},{b}->{c}", sizes, dtype, f"{n}")


def _factors(rng: np.random.Generator, total: int) -> list[int]:
    """One to three extents whose product is about `total`."""
    cuts = np.sort(rng.random(rng.integers(0, 3)))
    shares = np.diff(np.concatenate(([0.0], cuts, [1.0])))
    extents = [max(1, round(total ** share)) for share in shares[:-1]]
    return [*extents, max(1, round(total / prod(extents)))]


def batched(dtype: str, size: str) -> Iterable[Case]:
    for n in (4, 8, 16, 32, 64):
        yield _case("bij,bjk->bik", "bij,bjk->bik", (max(128, 2**18 // n**2), n, n, n), dtype)
    for n in (3, 4, 8, 16):
        yield _case("batch last", "ijb,jkb->ikb", (n, n, 2**18 // n**2, n), dtype)
    for n in (3, 16, 64, 1000):
        yield _case("dots", "bi,bi->b", (2**20 // n, n), dtype)
    for n in (3, 16, 64):
        yield _case("matvecs", "bij,bj->bi", (2**20 // n**2, n, n), dtype)
    # Both products of attention, with the heads inside and outside of the sequence.
    for equation in ("bqhd,bkhd->bhqk", "bhqd,bhkd->bhqk", "bhqk,bkhd->bqhd", "bhqk,bhkd->bhqd"):
        yield Case(equation, equation, {"b": 4, "h": 8, "q": 256, "k": 256, "d": 64}, dtype, "attention")


def nary(dtype: str, size: str) -> Iterable[Case]:
    def row(family: str, equation: str, *extents: int) -> Case:
        return _case(family, equation, extents, dtype, name=equation)

    yield row("MTTKRP", "ijk,jr,kr->ir", 200, 200, 200, 32)
    yield row("MTTKRP", "ijk,ir,kr->jr", 200, 200, 200, 32)
    yield row("MTTKRP", "ijk,ir,jr->kr", 200, 200, 200, 32)
    yield row("MTTKRP", "ijkl,jr,kr,lr->ir", 60, 60, 60, 60, 16)
    yield row("Tucker", "abc,ai,bj,ck->ijk", 120, 120, 120, 40, 40, 40)
    yield row("Tucker", "ijk,ai,bj,ck->abc", 40, 40, 40, 120, 120, 120)
    yield row("four-index", "pi,qj,ijkl,rk,sl->pqrs", 32, 32, 32, 32, 32, 32, 32, 32)
    yield row("chain", "ab,bc,cd->ad", 500, 500, 500, 500)
    yield row("chain", "ab,bc,cd,de->ae", 400, 500, 300, 600, 200)
    yield row("chain", "ab,bc,cd,d->a", 1000, 1000, 1000, 1000)
    yield row("tensor train", "af,fbg,gch,hdi,ie->abcde", 32, 24, 20, 24, 24, 24, 20, 16, 16)
    yield row("tensor train", "aib,bjc,ckd,dla->ijkl", 16, 24, 16, 24, 16, 24, 16, 24)
    yield row("tensor network", "aefg,behi,cfhj,dgij->abcd", 60, 8, 8, 8, 60, 8, 8, 20, 8, 20)
    yield row("tensor network", "aefi,bfgj,cghk,dhel,ijkl->abcd", 40, 6, 6, 4, 40, 6, 4, 20, 6, 4, 20, 4)
    yield row("bilinear", "ni,oij,nj->no", 256, 128, 64, 128)


# -- bound by memory -------------------------------------------------------------------------------------

# About 16 million elements each.
SIDES = {2: (4000, 4000), 3: (256, 250, 256), 4: (64, 62, 62, 64), 5: (28, 28, 28, 27, 28),
         6: (16, 15, 16, 17, 16, 16)}
TRANSPOSES = {2: ("ji",), 3: tuple("".join(p) for p in permutations("ijk"))[1:],
              4: ("lkji", "jilk", "klij", "ijlk", "ikjl"), 5: ("mlkji", "ikmjl", "jimlk"),
              6: ("nmlkji", "jilknm", "lmnijk")}


TWO_DIMENSIONAL = {
    "inner": ("ij,ij->", "ij,ij->i", "ij,ij->j", "ij,ji->", "ij,ij,ij->i"),
    "bilinear": ("i,ij,j->",),
    "matvec": ("ij,j->i", "ij,i->j"),
    "outer": ("i,j->ij",),
    "elementwise": ("ij,ij->ij", "ij,ij,ij->ij", "ij,i->ij", "ij,j->ij", "ij,ji->ij"),
}


def memory(dtype: str, size: str) -> Iterable[Case]:
    yield from _sums(dtype)
    # Two with targets of their own at 3000 a side.
    yield _case("sum", "ij->j", (3000, 3000), dtype)
    yield _case("inner", "ij,ij->", (3000, 3000), dtype)
    for family, equations in TWO_DIMENSIONAL.items():
        for equation in equations:
            yield _case(family, equation, SIDES[2], dtype)
    for rank, outputs in TRANSPOSES.items():
        labels = "ijklmn"[:rank]
        for output in outputs:
            yield _case("transpose", f"{labels}->{output}", SIDES[rank], dtype, out=True)


def _sums(dtype: str) -> Iterable[Case]:
    """Over everything, over each axis, and over all but each axis."""
    for rank, extents in SIDES.items():
        labels = "ijklmn"[:rank]
        outputs = ["", *(labels.replace(axis, "") for axis in labels), *labels]
        for output in dict.fromkeys(outputs):
            yield _case("sum", f"{labels}->{output}", extents, dtype)


def overhead(dtype: str, size: str) -> Iterable[Case]:
    for equation, *extents in (("ij,jk->ik", 4, 4, 4), ("ij,j->i", 4, 4), ("i,i->", 4), ("ij->j", 4, 4),
                               ("ij->ji", 4, 4), ("ij,jk,kl->il", 4, 4, 4, 4)):
        yield _case("4 a side", equation, extents, dtype)


# -- element types ---------------------------------------------------------------------------------------

OTHER_DTYPES = tuple(name for name in DTYPES if name not in ("f32", "f64"))


def dtypes(dtype: str, size: str) -> Iterable[Case]:
    for n in (64, 128, 256, 512, 1000, 1024):
        yield _case("matmul", "ij,jk->ik", (n, n, n), dtype)
        yield _case("matmul", "ij,kj->ik", (n, n, n), dtype)
        if dtype == "int8":
            yield _case("to int64", "ij,jk->ik", (n, n, n), dtype, name=f"ij,jk->ik {n} to int64", result="int64")
    yield _case("tensor", "abcd,dbea->ec", (24, 20, 48, 24, 40), dtype)
    yield _case("tensor", "abcd,aebf->cdef", (16, 20, 24, 20, 24, 16), dtype)
    yield _case("batched", "bij,bjk->bik", (64, 64, 64, 64), dtype)
    yield _case("sum", "ij->j", (2000, 2000), dtype)
    yield _case("matvec", "ij,j->i", (2000, 2000), dtype)


OVERHEAD_PEERS = ("einjit.compile", "np.einsum", "c_einsum", "numpy", "opt_einsum", "torch", "jax", "pytblis")

SUITES = {suite.name: suite for suite in (
    Suite("square", "matrix products of 64 to 2048 a side, all four transpositions", square),
    Suite("skinny", "matrix products with one or two of m, n, k in 4 to 64", skinny),
    Suite("tccg", "TCCG: 48 tensor contractions at 16 MB, 24 at 200 MB (--size)", tccg),
    Suite("random", "random contractions by TBLIS's method, and the matrix product of equal m, n, k", random),
    Suite("batched", "many small matrix products, dots and matvecs; attention", batched, WITH_PLAIN),
    Suite("memory", "sums, inner and outer products, matvecs, elementwise, transposes", memory,
          WITH_PLAIN),
    Suite("nary", "three to five operands: MTTKRP, Tucker, four-index, chains, tensor trains", nary),
    Suite("small", "everything 4 to 64 a side", small, WITH_PLAIN),
    Suite("dtypes", "matrix products and a few other contractions in all dtypes but f32 and f64", dtypes,
          dtypes=OTHER_DTYPES),
    Suite("overhead", "what a call costs on operands of 4 a side", overhead, OVERHEAD_PEERS, unit="time"),
)}

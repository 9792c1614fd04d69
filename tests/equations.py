"""The one table of named cases. Every path (einsum, compile, interp, the CLI) is run over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """An equation with the shapes it is run on. `dtypes` empty means: whatever the test asks for."""

    name: str
    equation: str
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...] = ()

    def arrays(self, dtype: str = "float64", seed: int = 0) -> list[np.ndarray]:
        """Operands with random contents, of the case's own dtypes where it has any."""
        rng = np.random.default_rng(seed)
        dtypes = self.dtypes or (dtype,) * len(self.shapes)
        return [random_array(rng, shape, d) for shape, d in zip(self.shapes, dtypes, strict=True)]


def random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Floats in [-1, 1); integers over their whole range, so that they wrap; bools with few True."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return np.asarray(rng.random(shape) < 0.3)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.asarray(rng.integers(limits.min, limits.max, shape, dtype, endpoint=True))
    values = rng.uniform(-1, 1, shape)
    if dtype.kind == "c":
        values = values + 1j * rng.uniform(-1, 1, shape)
    return np.asarray(values, dtype)


EVERYDAY = (
    Case("row_sums", "ij->i", ((37, 53),)),
    Case("column_sums", "ij->j", ((37, 53),)),
    Case("total", "ij->", ((37, 53),)),
    Case("six_to_one", "ijklmn->n", ((3, 4, 2, 5, 3, 7),)),
    Case("six_to_none", "ijklmn->", ((3, 4, 2, 5, 3, 7),)),
    Case("middle_sum", "ijk->ik", ((9, 31, 10),)),
    Case("transpose", "ij->ji", ((17, 29),)),
    Case("trace", "ii->", ((23, 23),)),
    Case("diagonal", "ii->i", ((23, 23),)),
    Case("dot", "i,i->", ((101,), (101,))),
    Case("frobenius", "ij,ij->", ((17, 29), (17, 29))),
    Case("row_dots", "ij,ij->i", ((17, 29), (17, 29))),
    Case("matvec", "ij,j->i", ((41, 67), (67,))),
    Case("vecmat", "i,ij->j", ((41,), (41, 67))),
    Case("matmul", "ij,jk->ik", ((33, 47), (47, 29))),
    Case("matmul_nt", "ik,jk->ij", ((33, 47), (29, 47))),
    Case("matmul_tn", "ij,ik->jk", ((47, 33), (47, 29))),
    Case("matmul_transposed_out", "ij,jk->ki", ((33, 47), (47, 29))),
    Case("outer", "i,j->ij", ((31,), (45,))),
    Case("elementwise", "ij,ij->ij", ((17, 29), (17, 29))),
    Case("scale_rows", "ij,i->ij", ((17, 29), (17,))),
    Case("batched_matmul", "bij,bjk->bik", ((5, 13, 17), (5, 17, 11))),
    Case("attention_scores", "bqhd,bkhd->bhqk", ((2, 9, 3, 16), (2, 11, 3, 16))),
    Case("attention_values", "bhqk,bkhd->bqhd", ((2, 3, 9, 11), (2, 11, 3, 16))),
    Case("tccg_ccsd", "efmn,mnij->efij", ((5, 6, 4, 7), (4, 7, 6, 5))),
    Case("scattered", "acbd,dbea->ec", ((5, 7, 4, 6), (6, 4, 9, 5))),
    Case("one_sided_sum", "ijx,jk->ik", ((7, 8, 5), (8, 9))),
    Case("both_one_sided", "ijx,jky->ik", ((7, 8, 5), (8, 9, 3))),
    Case("bilinear", "ni,oij,nj->no", ((8, 9), (7, 9, 10), (8, 10))),
    Case("mttkrp", "ijk,jr,kr->ir", ((9, 8, 7), (8, 5), (7, 5))),
    Case("chain_of_four", "ab,bc,cd,de->ae", ((9, 8), (8, 7), (7, 6), (6, 5))),
    Case("three_on_one_nest", "ij,ij,ij->i", ((17, 29),) * 3),
    Case("quadratic_form", "i,ij,j->", ((19,), (19, 23), (23,))),
    Case("star_of_five", "ax,bx,cx,dx,ex->abcde", ((2, 6), (3, 6), (4, 6), (2, 6), (3, 6))),
)

CORNERS = (
    Case("implicit", "ij,jk", ((7, 8), (8, 9))),
    Case("implicit_capitals_first", "aB", ((3, 4),)),
    Case("implicit_trace", "ii", ((6, 6),)),
    Case("spaces", " i j , j k -> i k ", ((7, 8), (8, 9))),
    Case("capitals", "Ij,jK->IK", ((7, 8), (8, 9))),
    Case("ellipsis_batch", "...ij,...jk->...ik", ((2, 3, 4, 5), (2, 3, 5, 6))),
    Case("ellipsis_broadcast", "...ij,...jk->...ik", ((3, 4, 5), (2, 3, 5, 6))),
    Case("ellipsis_one_sided", "...j,jk->...k", ((2, 3, 4), (4, 5))),
    Case("ellipsis_middle", "i...j->j...i", ((2, 3, 4, 5),)),
    Case("ellipsis_implicit", "i...", ((2, 3, 4),)),
    Case("ellipsis_empty", "...i,...i->...", ((5,), (5,))),
    Case("ellipsis_sizes_of_one", "...,...->...", ((3, 1, 4), (2, 1))),
    Case("empty_term", ",i->i", ((), (5,))),
    Case("all_empty", ",->", ((), ())),
    Case("scalar", "->", ((),)),
    Case("size_one_kept", "ij,ij->ij", ((1, 5), (4, 1))),
    Case("size_one_contracted", "ij,jk->ik", ((4, 1), (5, 6))),
    Case("size_one_both", "ij,jk->ik", ((4, 1), (1, 6))),
    Case("zero_kept", "ij,jk->ik", ((0, 5), (5, 6))),
    Case("zero_contracted", "ij,jk->ik", ((4, 0), (0, 6))),
    Case("zero_everything", "ij->", ((0, 3),)),
    Case("ones", "ij,jk->ik", ((1, 1), (1, 1))),
    Case("repeated_in_contraction", "iij,jkk->ik", ((5, 5, 6), (6, 4, 4))),
    Case("repeated_thrice", "iii->i", ((4, 4, 4),)),
    Case("partial_diagonal", "iijj->ij", ((4, 4, 5, 5),)),
    Case("diagonal_and_sum", "ijij->i", ((4, 5, 4, 5),)),
    Case("repeated_both_sides", "ii,ii->i", ((6, 6), (6, 6))),
    Case("ten_dimensions", "abcdefghij->jia", ((2,) * 10,)),
    Case("long_k", "i,i->", ((5003,), (5003,))),
    Case("tall", "ij,jk->ik", ((1001, 3), (3, 2))),
    Case("tile_edges", "ij,jk->ik", ((97, 65), (65, 51))),
)

MIXED = (
    Case("int8_times_uint8", "ij,jk->ik", ((7, 8), (8, 9)), ("int8", "uint8")),
    Case("int64_times_uint64", "ij,jk->ik", ((7, 8), (8, 9)), ("int64", "uint64")),
    Case("float32_times_float64", "ij,jk->ik", ((7, 8), (8, 9)), ("float32", "float64")),
    Case("int8_times_float32", "ij,jk->ik", ((7, 8), (8, 9)), ("int8", "float32")),
    Case("int64_times_float32", "ij,ij->ij", ((7, 8), (7, 8)), ("int64", "float32")),
    Case("bool_times_int16", "ij,jk->ik", ((7, 8), (8, 9)), ("bool", "int16")),
    Case("bool_sum_times_int", "ij,k->ik", ((7, 8), (9,)), ("bool", "int64")),
    Case("bool_times_float64", "ij,j->i", ((7, 8), (8,)), ("bool", "float64")),
    Case("float16_times_float32", "ij,jk->ik", ((7, 8), (8, 9)), ("float16", "float32")),
    Case("float32_times_complex64", "ij,jk->ik", ((7, 8), (8, 9)), ("float32", "complex64")),
    Case("float64_times_complex64", "ij,jk->ik", ((7, 8), (8, 9)), ("float64", "complex64")),
    Case("three_kinds", "ij,jk,k->i", ((7, 8), (8, 9), (9,)), ("uint8", "float32", "complex128")),
)

CASES = EVERYDAY + CORNERS + MIXED

DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)

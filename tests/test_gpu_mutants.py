"""Faults put into the PTX of shipped kernels: every barrier is needed, and so is every check of an edge."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

import einjit
from einjit.gpukernel import GpuStep
from tests.equations import Case
from tests.executed import run_step
from tests.ptx import OutOfBounds, Race, Uninitialised, parse
from tests.reference import Reference, assert_close, reference

pytestmark = pytest.mark.cuda

# All sizes have edges, and the sum is of 4 blocks for float32 and of 8 for complex128.
CASE = Case("", "ij,jk->ik", ((37, 61), (61, 83)))
BARRIER = re.compile(r"^\s*bar\.sync[^\n]*\n", re.M)
WAIT = re.compile(r"cp\.async\.wait_group 0")
SHARED_STORE = re.compile(r"(?P<start>^\s*st\.shared(?:\.v(?P<count>\d))?\.\w(?P<bits>\d+)\s*\[)(?P<base>[^\]+]+)"
                          r"(?:\+(?P<offset>\d+))?\]", re.M)
# A branch around a store: there is no label, and no other branch, between the two.
EDGE = re.compile(r"^\s*@!?%p\d+ bra[^\n]*\n(?=(?:(?!\$L|\s*@)[^\n]*\n)*?\s*st\.global)", re.M)
SHARED_ARRAY = re.compile(r"(\.shared \.align \d+ \.b8 \w+)\[(\d+)\]")


@pytest.fixture(params=["float32", "complex128"])
def dtype(request):
    return request.param


@cache
def compiled(dtype: str) -> tuple[str, GpuStep, list[np.ndarray]]:
    """The PTX, and what it takes to run it."""
    operands = CASE.arrays(dtype)
    kernel = einjit.compile(CASE.equation, *operands, target="cuda", cc=(8, 0))
    assert kernel.family == "tiled contraction"
    (step,) = kernel.steps
    return kernel.ptx, step, [operands[i] for i in step.operands]


def outcome(dtype: str, ptx: str) -> str:
    _, step, inputs = compiled(dtype)
    return outcome_of(step, inputs, ptx, reference(CASE.equation, *CASE.arrays(dtype)))


def outcome_of(step: GpuStep, inputs, ptx: str, expected: Reference) -> str:
    """"right", "wrong" or the name of the fault. Any other error is one of this test's."""
    try:
        result, _ = run_step(step, inputs, parse(ptx))
    except (OutOfBounds, Race, Uninitialised) as fault:
        return type(fault).__name__
    try:
        assert_close(result, expected)
    except AssertionError:
        return "wrong"
    return "right"


def replaced(pattern: re.Pattern, text: str, by) -> Iterator[str]:
    """The text with one match replaced, for each match in turn."""
    for found in pattern.finditer(text):
        yield text[:found.start()] + by(found) + text[found.end():]


def shifted(store: re.Match) -> str:
    size = int(store["count"] or 1) * int(store["bits"]) // 8
    return f"{store['start']}{store['base']}+{int(store['offset'] or 0) + size}]"


def test_without_a_fault_all_is_well(dtype):
    assert outcome(dtype, compiled(dtype)[0]) == "right"


def test_every_barrier_is_needed(dtype):
    ptx = compiled(dtype)[0]
    found = [outcome(dtype, mutant) for mutant in replaced(BARRIER, ptx, lambda _: "")]
    assert len(found) == 2      # behind the first block, and behind each further one
    assert set(found) <= {"Race", "Uninitialised"}


def test_a_store_to_another_place_of_a_panel_is_noticed(dtype):
    ptx = compiled(dtype)[0]
    found = [outcome(dtype, mutant) for mutant in replaced(SHARED_STORE, ptx, shifted)]
    assert len(found) == ptx.count("st.shared")
    assert "right" not in found


def test_a_store_over_the_edge_is_noticed(dtype):
    ptx = compiled(dtype)[0]
    found = [outcome(dtype, mutant) for mutant in replaced(EDGE, ptx, lambda _: "")]
    assert len(found) == ptx.count("st.global")
    assert "right" not in found


def test_too_little_shared_memory_is_noticed(dtype):
    ptx = compiled(dtype)[0]
    (half,) = replaced(SHARED_ARRAY, ptx, lambda array: f"{array[1]}[{int(array[2]) // 2}]")
    assert outcome(dtype, half) == "OutOfBounds"


@pytest.mark.parametrize("family, case, dtype, barriers, waits", [
    ("tensor cores", Case("", "ij,jk->ik", ((40, 104), (104, 72))), "float16", 1, 1),
    ("shared sums", Case("", "ij->i", ((5, 300),)), "float32", 3, 0),
    ("shared sums", Case("", "ji->i", ((60, 37),)), "complex128", 3, 0),
    ("turned map", Case("", "ij,ij->ji", ((37, 70), (37, 70))), "float64", 1, 0),
], ids=str)
def test_every_barrier_and_every_wait_of_other_families(family, case, dtype, barriers, waits):
    operands = case.arrays(dtype)
    kernel = einjit.compile(case.equation, *operands, target="cuda", cc=(8, 0))
    assert kernel.family == family
    (step,) = kernel.steps
    ptx, inputs = kernel.ptx, [operands[i] for i in step.operands]
    mutants = {"barrier": list(replaced(BARRIER, ptx, lambda _: "")),
               "wait": list(replaced(WAIT, ptx, lambda _: "cp.async.wait_group 1"))}
    assert (len(mutants["barrier"]), len(mutants["wait"])) == (barriers, waits)
    expected = reference(case.equation, *operands)
    found = {what: [outcome_of(step, inputs, text, expected) for text in texts] for what, texts in mutants.items()}
    assert set(found["barrier"]) <= {"Race", "Uninitialised"}
    assert set(found["wait"]) <= {"Race", "Uninitialised"}
    assert outcome_of(step, inputs, ptx, expected) == "right"

"""`explain`: every stage is there, in order, with the reason for what was chosen."""

from __future__ import annotations

import re

import numpy as np
import pytest

import einjit
from einjit import machine
from einjit.codegen import gpubuild
from einjit.errors import ArgumentError, DtypeError, EquationError
from einjit.schedule import Split

STAGES = [
    "plan", "contraction: roles, folded dimensions, strides", "loop nest as lowered", "schedule",
    "loop nest as scheduled", "cost", "source",
]


def sections(text: str) -> dict[str, str]:
    """The body of each section by its heading."""
    return dict(re.findall(r"^-- (.*)\n((?:(?!-- ).*\n?)*)", text, re.M))


@pytest.fixture(autouse=True)
def same_machine_everywhere(monkeypatch):
    monkeypatch.setattr(machine, "detect", lambda: machine.table_entry("avx2"))


@pytest.mark.parametrize("equation,shapes", [
    ("ij,jk->ik", ((90, 90), (90, 90))), ("ij->i", ((40, 50),)), ("ij->ji", ((3, 4),)), ("->", ((),)),
    ("i,i,i->i", ((5,), (5,), (5,))),
])
def test_every_stage_has_its_heading(equation, shapes):
    text = einjit.explain(equation, *shapes)
    headings = [heading if heading in STAGES else heading.split(":")[0] for heading in sections(text)]
    assert headings == STAGES
    assert text == einjit.compile(equation, *shapes).explain()


def test_each_section_shows_its_stage():
    a, b = np.ones((90, 80), "f4"), np.ones((70, 80), "f4")
    kernel, text = einjit.compile("ij,kj->ik", a, b), einjit.explain("ij,kj->ik", a, b)
    (step,), found = kernel.steps, sections(text)
    assert text.splitlines()[0] == "ij,kj->ik   for (90, 80) float32, (70, 80) float32"
    assert found["plan"].strip() == str(kernel.plan)
    assert found[STAGES[1]].strip() == str(step.contraction)
    assert found["loop nest as lowered"].strip() == str(step.naive)
    assert found["loop nest as scheduled"].strip() == str(step.nest)
    assert found["source"].strip() == kernel.source.strip()
    schedule = found[f"schedule: packed contraction, {kernel.tiling}"].split("\n")
    assert schedule[1:1 + len(kernel.schedule)] == [str(opt) for opt in kernel.schedule]


@pytest.mark.parametrize("equation,shapes,reason", [
    ("ij,kj->ik", ((90, 90), (90, 90)), "because M 90 x N 90 x K 90 is enough work to pay for packing; "
     "N holds the output's contiguous dimension; blocks fit avx2's caches"),
    ("ij->i", ((40, 50),), "because j is on the lanes: contiguous in a"),
    ("ij->j", ((40, 50),), "because j is on the lanes: contiguous in out, a"),
    ("i->", ((1,),), "because every size is 1"),
])
def test_it_names_the_reason(equation, shapes, reason):
    assert reason in einjit.explain(equation, *shapes).splitlines()


def test_it_names_what_nothing_speaks_for():
    a = np.ones((40, 100))[:, ::2]
    assert "because i is on the lanes: nothing is contiguous" in einjit.explain("ij->", a).splitlines()


def test_a_schedule_by_hand_is_named_as_such():
    text = einjit.explain("ij->i", (40, 50), schedule=(Split("j", 8),))
    assert "-- schedule: user's schedule, 1 transformations\nbecause given by the caller\nSplit(" in text


def test_several_steps_are_numbered():
    text = einjit.explain("ij,jk,kl->il", (9, 8), (8, 7), (7, 6), optimize=[(0, 1), (0, 1)])
    assert [line for line in text.splitlines() if "contraction:" in line] == [
        "-- step 1 of 2: contraction: roles, folded dimensions, strides",
        "-- step 2 of 2: contraction: roles, folded dimensions, strides"]
    assert len(re.findall("^-- cost$", text, re.M)) == 2


@pytest.mark.parametrize("equation,operands,cost", [
    # A multiplication and an addition a point; three arrays of float32.
    ("ij,jk->ik", (np.ones((10, 20), "f4"), np.ones((20, 30), "f4")),
     "1.2e+04 operations, 4400 bytes that must move: 2.73 operations a byte"),
    ("ij->i", (np.ones((10, 20)),), "200 operations, 1680 bytes that must move: 0.119 operations a byte"),
    ("ij,j->ij", (np.ones((10, 20)), np.ones(20)),
     "200 operations, 3360 bytes that must move: 0.0595 operations a byte"),
])
def test_it_counts_operations_and_bytes(equation, operands, cost):
    assert sections(einjit.explain(equation, *operands))["cost"].strip() == cost


def test_an_unsupported_dtype_says_so():
    text = einjit.explain("ij,j->i", np.ones((2, 3)), np.ones(3, object))
    assert text == "ij,j->i\n\ndtype object has no kernels: numpy.einsum answers such calls"
    with pytest.raises(DtypeError, match="for which there are no kernels"):
        einjit.explain("ij->i", (2, 3), dtype=object)


def test_nothing_to_compute_says_so():
    text = einjit.explain("ij->j", (0, 3))
    assert text == "ij->j   for (0, 3) float64\n\nsome size is 0: nothing to compute"


def test_an_equation_that_is_none_is_an_error():
    with pytest.raises(EquationError):
        einjit.explain("ij->k", (2, 3))


# -- for a GPU -------------------------------------------------------------------------------------------

GPU_STAGES = [*STAGES, "launch", "roofline", "resources"]       # and occupancy, where Numba-CUDA is installed


def test_every_stage_for_a_gpu_has_its_heading():
    text = einjit.explain("ij,jk->ik", (64, 32), (32, 48), dtype="float32", target="cuda", cc=(8, 0))
    headings = [heading if heading in STAGES else heading.split(":")[0] for heading in sections(text)]
    assert headings in (GPU_STAGES, [*GPU_STAGES, "occupancy"])
    found = sections(text)
    assert "-- schedule: tiled contraction, 64x64x16 block, 4x4 a thread" in text.splitlines()
    assert found["loop nest as scheduled"].startswith("block M0 in 0 : 64 step 64\n")
    assert found["launch"].strip() == "1 block of 256 threads"
    assert found["cost"].strip() == "1.966e+05 operations, 2.662e+04 bytes that must move: 7.38 operations a byte"
    assert found["roofline"].strip() == (
        "bound by memory: at least 0.0171 us on A100\n"
        "1.966e+05 flops at 19.5 Tflop/s take 0.0101 us; 2.662e+04 bytes at 1555 GB/s take 0.0171 us")
    assert "cuda.syncthreads()" in found["source"]


def test_without_numba_cuda_only_the_machine_code_is_missing(monkeypatch):
    def missing():
        raise gpubuild.CudaUnavailable("it is missing")

    monkeypatch.setattr(gpubuild, "compiler_version", missing)
    arguments = {"target": "cuda", "cc": (8, 9)}
    found = sections(einjit.explain("ij,ij->ij", (13, 17), (13, 17), **arguments))
    assert found["resources"].strip() == "what the machine code takes needs pip install 'einjit[cuda]'"
    assert "occupancy" not in found and "def einsum_" in found["source"]
    with pytest.raises(gpubuild.CudaUnavailable):       # `explain` alone is content with that
        einjit.compile("ij,ij->ij", (13, 17), (13, 17), **arguments)


@pytest.mark.cuda
def test_resources_and_occupancy_are_those_of_the_kernel():
    arguments = {"dtype": "float32", "target": "cuda", "cc": (8, 0)}
    shapes = ((2048, 2048), (2048, 2048))
    found = sections(einjit.explain("ij,jk->ik", *shapes, **arguments))
    assert found["resources"].strip() == str(einjit.compile("ij,jk->ik", *shapes, **arguments).resources)
    assert found["occupancy"].startswith("2 blocks of 8 warps a multiprocessor, 25% of its 64 warps\n")


def test_nothing_to_compute_on_a_gpu_says_so():
    text = einjit.explain("ij->j", (0, 3), target="cuda", cc=(8, 0))
    assert text == "ij->j   for (0, 3) float64\n\nsome size is 0: nothing to compute"


def test_wrong_targets_are_errors():
    with pytest.raises(ArgumentError) as caught:
        einjit.explain("ij->i", (2, 3), target="gpu")
    assert str(caught.value) == "target is 'gpu'\n  fix: pass target='cpu' or target='cuda'"
    with pytest.raises(ArgumentError) as caught:
        einjit.explain("ij->i", (2, 3), target="cuda", cc="8.0")
    assert str(caught.value) == (
        "cc is '8.0', which is no compute capability that there are kernels for\n"
        "  fix: pass one from (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), such as cc=(8, 0)")
    with pytest.raises(DtypeError, match="for which there are no kernels"):
        einjit.explain("ij->i", np.ones((2, 3), object), target="cuda", cc=(8, 0))

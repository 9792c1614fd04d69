"""`explain`: every stage is there, in order, with the reason for what was chosen."""

from __future__ import annotations

import re

import numpy as np
import pytest

import einjit
from einjit import machine
from einjit.errors import DtypeError, EquationError
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

"""Plans: each computes its equation; the choice between steps and one nest; what `optimize` takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from einjit import path
from einjit.einsum import symbol
from einjit.errors import ArgumentError, PathError, StrategyError
from einjit.parse import parse
from einjit.path import MAX_NEST_OPERANDS, Plan, check, plan
from tests.subprocesses import run_code

_numpy_einsum = np.einsum


def planned(equation: str, optimize=None, default: int = 100, **sizes: int) -> Plan:
    terms = equation.partition("->")[0].split(",")
    einsum = parse(equation, tuple(map(len, terms)))
    return plan(einsum, {x: sizes.get(x, default) for x in einsum.labels}, optimize)


def equations_of(p: Plan) -> list[str]:
    return [str(step.einsum) for step in p.steps]


def run_plan(p: Plan, operands: list[np.ndarray]) -> np.ndarray:
    """The plan's steps, each done by NumPy."""
    operands = list(operands)
    for step in p.steps:
        taken = [operands[i] for i in step.operands]
        operands = [x for i, x in enumerate(operands) if i not in step.operands]
        operands.append(_numpy_einsum(str(step.einsum), *taken))
    (result,) = operands
    return result


@st.composite
def equations(draw) -> str:
    labels = "abcdef"[:draw(st.integers(1, 6))]
    terms = draw(st.lists(st.text(labels, max_size=4), min_size=1, max_size=7))
    used = sorted(set("".join(terms)))
    return ",".join(terms) + "->" + "".join(draw(st.permutations(used))[:draw(st.integers(0, len(used)))])


STRATEGIES = st.sampled_from([None, True, False, "greedy", "optimal", ("greedy", 4), ("auto", None)])


@given(equations(), STRATEGIES, st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([1, 3, 50, 1000])),
       st.integers(0, 99))
def test_any_plan_computes_its_equation(equation, optimize, sizes, seed):
    p = planned(equation, optimize, **sizes)
    # What the steps mean does not depend on the sizes that they were chosen for.
    rng = np.random.default_rng(seed)
    operands = [rng.integers(-3, 4, [2] * len(term)) for term in p.einsum.inputs]
    np.testing.assert_array_equal(run_plan(p, operands), _numpy_einsum(str(p.einsum), *operands))


# -- the automatic choice --------------------------------------------------------------------------------

@pytest.mark.parametrize("equation", ["ij->j", "ij,jk->ik", "ij,ij,ij->i", "i,ij,j->", "bi,bj,bk->bijk"])
@pytest.mark.parametrize("size", [3, 100, 3000])
def test_one_nest_where_steps_would_do_no_less_work(equation, size):
    assert equations_of(planned(equation, default=size)) == [equation]


@pytest.mark.parametrize("equation, steps", [
    ("ab,bc,cd->ad", ["ab,bc->ac", "cd,ac->ad"]),
    ("ijk,jr,kr->ir", ["jr,kr->jrk", "ijk,jrk->ir"]),
    ("ni,oij,nj->no", ["ni,nj->nij", "oij,nij->no"]),
])
def test_steps_where_they_do_less_work_or_are_matrix_products(equation, steps):
    assert equations_of(planned(equation)) == steps


def test_a_matrix_product_too_small_to_gain_from_is_no_reason_for_steps():
    assert len(planned("ijk,jr,kr->ir", default=8, r=2).steps) == 1


def test_an_intermediate_that_dwarfs_the_operands_is_avoided():
    equation = "ni,nj,nk,ijk->n"
    assert len(planned(equation, n=10_000).steps) == 1
    by_steps = planned(equation, "auto", n=10_000)
    assert by_steps.largest == 10_000 * 100 * 100
    # But not at any price.
    assert len(planned("ab,ac,ad,bc,bd,cd->", default=30).steps) > 1


@pytest.mark.parametrize("equation, steps", [
    ("ij,kl->", ["ij->", "kl->", ",->"]),
    ("ijx,jk->ik", ["ijx->ij", "jk,ij->ik"]),
    ("xij,jk,kly->il", ["xij->ij", "kly->kl", "jk,ij->ki", "kl,ki->il"]),
])
def test_labels_of_one_operand_are_summed_first_where_that_saves_work(equation, steps):
    assert equations_of(planned(equation)) == steps
    assert len(planned(equation, False).steps) == 1
    assert all(len(step.operands) > 1 for step in planned(equation, default=3).steps)


def test_a_path_is_the_same_in_every_process():
    code = """
        from einjit.parse import parse
        from einjit.path import plan
        terms = [chr(65 + i) + chr(65 + i * 7 % 26) for i in range(26)]
        e = parse(",".join(terms) + "->A", (2,) * 26)
        print(plan(e, dict.fromkeys(e.labels, 4)))
    """
    assert len({run_code(code) for _ in range(3)}) == 1


# -- what optimize takes ---------------------------------------------------------------------------------

CHAIN = "ab,bc,cd,de->ae"


@pytest.mark.parametrize("optimize, operands", [
    (False, [(0, 1, 2, 3)]),
    ([(0, 1), (0, 1), (0, 1)], [(0, 1), (0, 1), (0, 1)]),
    (["einsum_path", (1, 2), (0, 1), (0, 1)], [(1, 2), (0, 1), (0, 1)]),
    (("einsum_path", [0, 1, 2], [1, 0]), [(0, 1, 2), (1, 0)]),
    ([(0, 1, 2, 3)], [(0, 1, 2, 3)]),
    ([(0,), (0, 1, 2, 3)], [(0,), (0, 1, 2, 3)]),
])
def test_explicit_orders(optimize, operands):
    assert [step.operands for step in planned(CHAIN, optimize).steps] == operands


@pytest.mark.parametrize("optimize, flops", [
    ("optimal", 120_000), ("dp", 120_000), ("branch-2", 120_000), ("auto", 120_000),
    (("optimal", None), 120_000),
    ("greedy", 2_080_000), (("greedy", -1), 2_080_000),
])
def test_strategies(optimize, flops):
    assert planned(CHAIN, optimize, a=2).flops == flops


@pytest.mark.parametrize("strategy", ["greedy", "optimal", "auto"])
@pytest.mark.parametrize("limit", [50, 1000, 1e4])
def test_the_memory_limit_holds(strategy, limit):
    assert 0 <= planned("ab,bc,cd,da->", (strategy, limit)).largest <= limit


def test_a_function_may_find_the_path():
    def last_first(inputs, output, sizes, memory_limit):
        return [(len(inputs) - i - 2, len(inputs) - i - 1) for i in range(len(inputs) - 1)]

    assert equations_of(planned(CHAIN, last_first)) == ["cd,de->ce", "bc,ce->be", "ab,be->ae"]


def test_one_nest_over_too_many_operands_is_taken_apart():
    count = MAX_NEST_OPERANDS + 5
    terms = [symbol(i) + symbol(i + 1) for i in range(count)]
    equation = f"{','.join(terms)}->{symbol(0)}{symbol(count)}"
    wide = planned(equation, False, default=2)
    assert max(len(step.operands) for step in wide.steps) == 2
    operands = [np.full((2, 2), 1 + i % 2) for i in range(count)]
    np.testing.assert_array_equal(run_plan(wide, operands), np.linalg.multi_dot(operands))
    some = planned(equation, [tuple(range(1, count)), (0, 1)], default=2)
    np.testing.assert_array_equal(run_plan(some, operands), np.linalg.multi_dot(operands))


def test_a_network_of_thousands():
    count = 3000
    letters = [symbol(i) for i in range(count)]
    equation = ",".join(a + b for a, b in zip(letters, letters[1:])) + "->" + letters[0] + letters[-1]
    p = planned(equation, default=2)
    assert len(p.steps) == count - 2
    assert p.largest == 4
    assert str(p).count("\n") == count - 1


NAMES = (
    "pass one of 'auto', 'auto-hq', 'optimal', 'branch-all', 'branch-2', 'branch-1', 'greedy', 'eager', "
    "'opportunistic', 'dp', 'dynamic-programming', 'random-greedy', 'random-greedy-128'")

REFUSED = [
    ("bogus", StrategyError, f"optimize='bogus' is not a strategy\n  fix: {NAMES}"),
    (("bogus", 100), StrategyError, f"optimize='bogus' is not a strategy\n  fix: {NAMES}"),
    (7, ArgumentError, """optimize=7 is neither a strategy nor a path
  fix: pass True, False, 'greedy', ('greedy', limit) or ['einsum_path', (0, 1), ...]"""),
    ([], ArgumentError, """optimize=[] is neither a strategy nor a path
  fix: pass True, False, 'greedy', ('greedy', limit) or ['einsum_path', (0, 1), ...]"""),
    (["einsum_path", "ab"], ArgumentError, """optimize=['einsum_path', 'ab'] is neither a strategy nor a path
  fix: pass True, False, 'greedy', ('greedy', limit) or ['einsum_path', (0, 1), ...]"""),
    ([(0, 1), (0, 1)], PathError, """the path leaves 2 operands
  ab,bc,cd,de->ae
  fix: end the path with a step over all operands that are left"""),
    ([(0, 1), (0, 3)], PathError, """step (0, 3) of the path does not fit 3 operands
  ab,bc,cd,de->ae"""),
    ([(1, 1)], PathError, """step (1, 1) of the path does not fit 4 operands
  ab,bc,cd,de->ae"""),
    ([(0, -1)], PathError, """step (0, -1) of the path does not fit 4 operands
  ab,bc,cd,de->ae"""),
    ([()], PathError, """step () of the path does not fit 4 operands
  ab,bc,cd,de->ae"""),
    (("dp", 1), PathError, """no path was found: No contraction found for given `memory_limit`.
  ab,bc,cd,de->ae
  fix: raise the memory limit"""),
]


@pytest.mark.parametrize("optimize, kind, text", REFUSED, ids=[repr(r[0]) for r in REFUSED])
def test_refusals(optimize, kind, text):
    with pytest.raises(kind) as refusal:
        planned(CHAIN, optimize)
    assert str(refusal.value) == text


def test_a_wrong_name_is_refused_for_two_operands_too():
    with pytest.raises(StrategyError, match="'bogus' is not a strategy"):
        planned("ij,jk->ik", "bogus")


@pytest.mark.parametrize("optimize", ["bogus", ("bogus", 100), 7, [], {}, ["einsum_path", "ab"]], ids=repr)
def test_what_fits_no_equation_is_refused_without_one(optimize):
    with pytest.raises((ArgumentError, StrategyError)):
        check(optimize)


@pytest.mark.parametrize("name", path.STRATEGIES)
def test_every_strategy_that_the_message_names_exists(name):
    check(name)
    assert planned(CHAIN, name).steps


# -- what a plan says ------------------------------------------------------------------------------------

def test_a_plan_prints_a_table():
    assert str(planned("ab,bc,cd->ad", a=2, b=30, c=40, d=50)) == """\
ab,bc,cd->ad: 2 steps, 1.28e+4 flops, largest intermediate 80 elements
step  operands  equation   flops  result
1     0, 1      ab,bc->ac  4800   2 x 40
2     0, 1      cd,ac->ad  8000   2 x 50"""
    assert str(planned("i,i->", i=7)) == """\
i,i->: 1 step, 14 flops
step  operands  equation  flops  result
1     0, 1      i,i->     14     scalar"""


@pytest.mark.parametrize("equation, flops", [
    ("ij->ji", 100**2), ("ij->j", 100**2), ("i,j->ij", 100**2), ("ij,jk->ik", 2 * 100**3),
    ("ij,ij,ij->i", 3 * 100**2),
])
def test_flops_are_multiplications_and_additions(equation, flops):
    assert planned(equation, False).flops == flops


def test_counts_beyond_any_float_print():
    assert "1.00e+400 flops" in str(planned("i,j->ij", i=10**200, j=10**200))

"""Bodies of decorated functions: what they mean, and every refusal by its whole text."""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
import pytest

from einjit.body import MAX_NODES, body_of
from einjit.errors import BodyError, EquationError
from einjit.expr import Const, evaluate

SCALE = 0.25
SHIFTS = [1.0]


class Level(IntEnum):
    LOW = 3


LEVEL = Level.LOW
HALF = np.float32(0.5)


def scaled(factor):
    def f(a, b):
        return factor * a - b
    return f


# -- bodies that do nothing ------------------------------------------------------------------------------

def dots(a, b): ...


def documented(a, b):
    """Only a docstring."""


def documented_dots(a, b):
    """A docstring."""
    ...


def passes(a, b):
    pass


@pytest.mark.parametrize("function", [dots, documented, documented_dots, passes])
def test_a_body_that_does_nothing_is_the_product(function):
    assert body_of(function, 2) is None


def test_a_body_that_does_nothing_needs_no_source():
    scope: dict = {}
    exec("def f(a): ...", scope)
    assert body_of(scope["f"], 1) is None


# -- bodies that say something ---------------------------------------------------------------------------

def square_of_difference(a, b):
    return (a - b) ** 2


def steps(a, b):
    """Names are put in."""
    x = a - b
    y: float = abs(x)
    y *= 2
    x = y + x
    return x / y


def powers(a):
    return a ** 5 + a ** -2 + a ** 1 + a ** 0.5


def choices(a, b):
    return a if a > b and not a == 1 else b if b < 0 or a >= 2 else -b


def chained(a):
    return 1.0 if 0 < a <= 2 else +a


def extremes(a, b):
    return max(a, b, 0) - min(a, b)


def functions(a):
    x = math.sqrt(a) + np.exp(a) + math.log(a) + np.sin(a)
    return x + math.cos(a) + np.tanh(a) + np.abs(-a) + math.fabs(a)


def numpys_choices(a, b):
    return np.where(a != b, np.maximum(a, b), np.minimum(a, 0.5))


def constants(a):
    third = 1 / 3
    return a * (2 * math.pi) + third ** 2 + math.sqrt(2) * SCALE - HALF + LEVEL + np.e


def unused(a, b):
    return b


BODIES = [
    (square_of_difference, "(a - b) * (a - b)"),
    (steps, "(abs(a - b) * 2 + (a - b)) / (abs(a - b) * 2)"),
    (powers, "a * a * (a * a) * a + 1 / (a * a) + a + sqrt(a * 1.0)"),
    (choices, "a if ((False if a == 1 else True) if a > b else a > b) else "
              "b if (b < 0 if b < 0 else a >= 2) else -b"),
    (chained, "1.0 if (a <= 2 if 0 < a else 0 < a) else a"),
    (extremes, "max(max(a, b), 0) - min(a, b)"),
    (functions, "sqrt(a) + exp(a) + log(a) + sin(a) + cos(a) + tanh(a) + abs(-a) + abs(a)"),
    (numpys_choices, "max(a, b) if a != b else min(a, 0.5)"),
    (constants, f"a * {2 * math.pi} + {(1 / 3) ** 2} + {math.sqrt(2) * 0.25} - 0.5 + 3 + {math.e}"),
    (scaled(2), "2 * a - b"),
    (lambda a, b: a * abs(b), "a * abs(b)"),
    (unused, "b"),
]


@pytest.mark.parametrize("function, text", BODIES, ids=[f.__name__ for f, _ in BODIES])
def test_what_a_body_says(function, text):
    assert str(body_of(function, function.__code__.co_argcount)) == text


@pytest.mark.parametrize("function", [f for f, _ in BODIES if f is not extremes], ids=lambda f: f.__name__)
def test_a_body_means_what_python_makes_of_it(function):
    count = function.__code__.co_argcount
    expr = body_of(function, count)
    for values in [(0.5, 2.0), (2.0, -1.5), (1.0, 0.75), (3.0, 2.5)]:
        values = [np.float64(x) for x in values[:count]]
        assert evaluate(expr, values) == pytest.approx(function(*values), rel=1e-14)


def test_constants_are_pythons_so_that_they_take_the_operands_dtype():
    expr = body_of(constants, 1)
    assert evaluate(expr, [np.ones(3, np.float32)]).dtype == np.float32


def test_min_and_max_keep_nan_as_numpys_do():
    expr = body_of(extremes, 2)
    assert np.isnan(evaluate(expr, [np.float64("nan"), np.float64(1)]))
    assert np.isnan(evaluate(expr, [np.float64(1), np.float64("nan")]))


def test_a_number_of_another_class_becomes_a_plain_one():
    assert type(body_of(lambda a: a * LEVEL, 1).y.value) is int
    assert body_of(lambda a: a * HALF, 1).y == Const(0.5)


def test_names_are_looked_up_when_the_function_is_decorated():
    functions = [scaled(factor) for factor in (2, 3.5)]
    assert [str(body_of(f, 2)) for f in functions] == ["2 * a - b", "3.5 * a - b"]


# -- refusals --------------------------------------------------------------------------------------------

def modulo(a, b):
    return a + b % 2


def statement(a, b):
    if a > b:
        return a
    return b


def loop(a):
    for i in range(3):
        a = a * a
    return a


def unknown_name(a):
    return a * missing


def local_before_assignment(a):
    x = a + y
    y = x
    return y


def list_element(a):
    return a + SHIFTS[0]


def whole_list(a):
    return a + SHIFTS


def unknown_function(a):
    return math.gamma(a)


def unknown_attribute(a):
    return np.no_such_function(a)


def method(x):
    return x.real


def keyword(a, b):
    return max(a, b, key=abs)


def few_arguments(a):
    return min(a)


def noninteger_power(a, b):
    return (a + 1) ** b


def large_power(a):
    return a ** 1000


def bad_constant(a):
    return a + 1 / 0


def text(a):
    return a + "1"


def membership(a):
    return a in (1, 2)


def returns_nothing(a):
    a = a + 1


def returns_none(a):
    a = a + 1
    return


def independent(a):
    return 1.0


def several_targets(a):
    x, y = a, a
    return x + y


def over_lines(a):
    return a + [
        a]


def beyond_ascii(ä):
    return ä + "ü" + ä @ ä


NAMES = "abs, min, max, sqrt, exp, log, sin, cos, tanh, minimum, maximum and where"
ALLOWED = f"use + - * / **, comparisons, and, or, not, x if c else y, {NAMES}"
STATEMENTS = "use assignments to names and one return; choose by `x if c else y`"
EXPONENT = "an exponent that is neither a whole number up to 64 nor 0.5"

# The reason; how many lines after the def; the line; the part of it with carets; the fix.
REFUSED = [
    (modulo, "`b % 2` cannot be compiled in a body", 1, "return a + b % 2", "b % 2", ALLOWED),
    (statement, "an if statement cannot be compiled in a body", 1, "if a > b:", "if a > b:", STATEMENTS),
    (loop, "a loop cannot be compiled in a body", 1, "for i in range(3):", "for i in range(3):", STATEMENTS),
    (unknown_name, "missing is not defined", 1, "return a * missing", "missing", None),
    (local_before_assignment, "y is used before it is assigned", 1, "x = a + y", "y", None),
    (list_element, "indexing cannot be compiled in a body", 1, "return a + SHIFTS[0]", "SHIFTS[0]", ALLOWED),
    (whole_list, "SHIFTS is neither an operand nor a number", 1, "return a + SHIFTS", "SHIFTS", None),
    (unknown_function, "math.gamma is no function that can be compiled", 1, "return math.gamma(a)",
     "math.gamma(a)", f"use {NAMES}"),
    (unknown_attribute, "np.no_such_function is not defined", 1, "return np.no_such_function(a)",
     "np.no_such_function", None),
    (method, "x is a number here: it has no attributes and cannot be called", 1, "return x.real", "x", None),
    (keyword, "a call with keyword arguments cannot be compiled in a body", 1, "return max(a, b, key=abs)",
     "max(a, b, key=abs)", ALLOWED),
    (few_arguments, "min is called with 1 argument", 1, "return min(a)", "min(a)", None),
    (noninteger_power, EXPONENT, 1, "return (a + 1) ** b", "(a + 1) ** b", "write exp(y * log(x))"),
    (large_power, EXPONENT, 1, "return a ** 1000", "a ** 1000", "write exp(y * log(x))"),
    (bad_constant, "1 / 0: division by zero", 1, "return a + 1 / 0", "1 / 0", None),
    (text, "'1' is neither an operand nor a number", 1, 'return a + "1"', '"1"', None),
    (membership, "`a in (1, 2)` cannot be compiled in a body", 1, "return a in (1, 2)", "a in (1, 2)",
     "compare by < <= > >= == !="),
    (returns_nothing, "the body returns nothing", 1, "a = a + 1", "a = a + 1", "return what is to be summed"),
    (returns_none, "`return` cannot be compiled in a body", 2, "return", "return", STATEMENTS),
    (independent, "what is returned does not depend on any operand", 1, "return 1.0", "1.0", None),
    (several_targets, "`x, y = (a, a)` cannot be compiled in a body", 1, "x, y = a, a", "x, y = a, a",
     STATEMENTS),
    (over_lines, "`[a]` cannot be compiled in a body", 1, "return a + [", "[", ALLOWED),
    (beyond_ascii, "'ü' is neither an operand nor a number", 1, 'return ä + "ü" + ä @ ä', '"ü"', None),
]


@pytest.mark.parametrize("refused", REFUSED, ids=[r[0].__name__ for r in REFUSED])
def test_refusals(refused):
    function, reason, line, source, at, fix = refused
    with pytest.raises(BodyError) as refusal:
        body_of(function, function.__code__.co_argcount)
    place = f"test_body.py, line {function.__code__.co_firstlineno + line}, in {function.__name__}"
    carets = " " * source.rindex(at) + "^" * len(at)
    expected = [f"{reason} ({place})", f"  {source}", f"  {carets}"] + ([f"  fix: {fix}"] if fix else [])
    assert str(refusal.value) == "\n".join(expected)


def squared_again_and_again(a):
    a = a * a
    a = a * a
    a = a * a
    a = a ** 64
    return a ** 64


def test_what_would_be_too_large_is_refused():
    with pytest.raises(BodyError, match=f"this has more than {MAX_NODES} operations"):
        body_of(squared_again_and_again, 1)


@pytest.mark.parametrize("function, terms, sentence", [
    (lambda a: a, 2, "<lambda>(a) does not take 2 operands"),
    (dots, 1, "dots(a, b) does not take 1 operand"),
    (lambda *a: a, 1, "<lambda>(*a) does not take 1 operand"),
    (lambda a, *, b=1: a, 1, "<lambda>(a, *, b=1) does not take 1 operand"),
    (lambda a, **b: a, 1, "<lambda>(a, **b) does not take 1 operand"),
])
def test_wrong_parameters(function, terms, sentence):
    with pytest.raises(BodyError) as refusal:
        body_of(function, terms)
    assert str(refusal.value) == f"{sentence}\n  fix: give it one plain parameter for each operand"


def test_no_python_function():
    with pytest.raises(BodyError) as refusal:
        body_of(len, 1)
    assert str(refusal.value) == "<built-in function len> is not a Python function\n  fix: decorate a `def`"


def test_a_body_without_source():
    scope: dict = {}
    exec("def f(a): return a + 1", scope)
    with pytest.raises(BodyError) as refusal:
        body_of(scope["f"], 1)
    assert str(refusal.value) == """the source of f cannot be read
  fix: define it in a file, or make its body `...`"""


def test_two_lambdas_on_a_line_are_not_told_apart():
    first, _ = lambda a: a + 1, lambda a: a + 2
    with pytest.raises(BodyError) as refusal:
        body_of(first, 1)
    assert str(refusal.value) == """<lambda> is not found in its source
  first, _ = lambda a: a + 1, lambda a: a + 2
  fix: write it as a `def`"""


def test_a_refusal_is_an_equation_error():
    assert issubclass(BodyError, EquationError)

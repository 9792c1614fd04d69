"""`import einjit` is light, its public names exist, and its metadata agrees."""

from __future__ import annotations

import ast
import shutil
import zipfile

import numpy as np
import pytest

import einjit
from tests.subprocesses import ROOT, run_code, run_python

PUBLIC = ("einsum", "tensordot", "jit", "compile", "explain", "options", "stats", "cache", "errors",
          "__version__")
HEAVY = ("numba", "llvmlite", "opt_einsum", "rich", "click", "platformdirs", "concurrent.futures.process")


def test_import_pulls_in_nothing_heavy():
    out = run_code(f"""
        import sys, einjit
        print([name for name in {HEAVY!r} if name in sys.modules])
    """)
    assert out == "[]\n"


def test_a_view_or_an_error_needs_no_compiler_either():
    out = run_code("""
        import sys, numpy as np, einjit
        einjit.einsum("ij->ji", np.ones((2, 3)))
        try:
            einjit.einsum("ij->k", np.ones((2, 3)))
        except einjit.errors.EquationError:
            print("numba" in sys.modules)
    """)
    assert out == "False\n"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name):
    assert getattr(einjit, name) is not None
    assert name in dir(einjit)


def test_all_lists_them_and_no_others():
    assert {*einjit.__all__, "__version__"} == set(PUBLIC)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="einstein"):
        einjit.einstein


def test_public_callables_say_what_they_do():
    for name in ("einsum", "tensordot", "jit", "compile", "explain", "options", "stats"):
        assert len(getattr(einjit, name).__doc__) > 30, name


def test_the_version_is_a_plain_literal():
    # setuptools reads it without importing the package.
    tree = ast.parse((ROOT / "einjit" / "__init__.py").read_text())
    values = [
        ast.literal_eval(node.value) for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__version__"
    ]
    assert values == [einjit.__version__]


def test_taking_numpys_place_before_the_first_call():
    out = run_code("""
        import numpy as np, einjit
        np.einsum = einjit.einsum
        print(np.einsum("i,i->", np.array([1, 2], object), np.array([3, 4], object)))
        print(np.einsum("ij,jk->ik", np.eye(2), np.eye(2)).tolist())
    """)
    assert out == "11\n[[1.0, 0.0], [0.0, 1.0]]\n"


def test_opt_einsum_takes_it_as_a_backend():
    import opt_einsum

    a, b = np.random.default_rng(0).random((2, 9, 9))
    np.testing.assert_allclose(opt_einsum.contract("ij,jk->ik", a, b, backend="einjit"), a @ b)
    np.testing.assert_allclose(opt_einsum.contract("ij,ij,jk->k", a, b, a, backend="einjit"),
                               np.einsum("ij,ij,jk->k", a, b, a))


@pytest.mark.long
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    source = tmp_path / "source"  # setuptools leaves a build folder behind, and reuses what it finds there
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info"))
    done = run_python("-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source))
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"einjit-{einjit.__version__}-py3-none-any")
    names = zipfile.ZipFile(wheel).namelist()
    assert "einjit/py.typed" in names and "einjit/codegen/__init__.py" in names
    assert {name.split("/")[0] for name in names} == {"einjit", f"einjit-{einjit.__version__}.dist-info"}

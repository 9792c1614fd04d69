"""The command line as a script sees it: what it prints, where, and its exit codes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import einjit
from tests.subprocesses import ROOT, run_code, run_python


def einjit_command(*args: str, **env: str):
    return run_python("-m", "einjit", *args, **env)


def test_version():
    done = einjit_command("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"einjit {einjit.__version__}\n", "")


def test_help_names_every_command_and_exit_code():
    done = einjit_command("--help")
    assert done.returncode == 0
    for word in ("demo", "explain", "bench", "cache", "Exit codes: 0"):
        assert word in done.stdout


@pytest.mark.parametrize("command", ["demo", "explain", "cache", "cache info", "cache clear"])
def test_every_command_has_help(command):
    done = einjit_command(*command.split(), "-h")
    assert done.returncode == 0
    assert f"Usage: einjit {command}" in done.stdout


def test_explain_prints_what_the_function_returns():
    done = einjit_command("explain", "ij,jk->ik", "8x6", "6,7", "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    assert "ij,jk->ik" in done.stdout
    assert "float32" in done.stdout
    assert "def " in done.stdout  # the generated source


def test_explain_takes_scalars_and_vectors():
    done = einjit_command("explain", "i,->i", "8", "()")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [
    ("ij->ik", "3x4"),
    ("ij,jk->ik", "3x4", "5x6"),
    ("ij,jk->ik", "3x4"),
])
def test_what_einjit_refuses_ends_with_1_and_its_text(arguments):
    done = einjit_command("explain", *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("einjit: ")
    assert arguments[0] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [
    ("explain",), ("explain", "ij->i", "threexfour"), ("explain", "ij->i", "3x4", "--dtype", "float33"),
    ("cache", "burn"), ("nothing",), ("demo", "--dtype", "int32"), ("demo", "--scale", "-1"),
])
def test_wrong_usage_ends_with_2(arguments):
    done = einjit_command(*arguments)
    assert done.returncode == 2
    assert "Usage: einjit" in done.stderr
    assert "Traceback" not in done.stderr


def test_explain_for_a_gpu():
    arguments = ("ij,jk->ik", "64x32", "32x64", "--dtype", "float32")
    done = einjit_command("explain", *arguments, "--target", "cuda", "--cc", "8.0")
    assert done.returncode == 0, done.stderr
    shapes = (np.zeros((64, 32), "f4"), np.zeros((32, 64), "f4"))
    assert done.stdout == einjit.explain("ij,jk->ik", *shapes, target="cuda", cc=(8, 0)) + "\n"


@pytest.mark.parametrize("options, code, text", [
    (("--target", "cuda", "--cc", "8"), 2, "Error: Invalid value for '--cc': '8' is no compute capability; write 8.0."),
    (("--target", "cuda", "--cc", "sm_80"), 2,
     "Error: Invalid value for '--cc': 'sm_80' is no compute capability; write 8.0."),
    (("--target", "gpu"), 2, "Error: Invalid value for '--target': 'gpu' is not one of 'cpu', 'cuda'."),
    (("--cc", "8.0"), 2, "Error: --cc is for --target cuda."),
    (("--target", "cuda", "--cc", "5.0"), 1,
     "einjit: cc is (5, 0), which is no compute capability that there are kernels for\n"
     "  fix: pass one from (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), such as cc=(8, 0)"),
])
def test_wrong_targets_end_with_their_text(options, code, text):
    done = einjit_command("explain", "ij->i", "3x4", *options)
    assert (done.returncode, done.stdout) == (code, "")
    usage = ("Usage: einjit explain [OPTIONS] EQUATION [SHAPES]...\n"
             "Try 'einjit explain --help' for help.\n\n") if code == 2 else ""
    assert done.stderr == f"{usage}{text}\n"


def test_cache_info_and_clear(cold_cache):
    run_code("import einjit, numpy as np; a = np.ones((40, 40)); einjit.compile('ij,jk->ik', a, a)(a, a)")
    assert files_in(cold_cache)
    for command in (["cache"], ["cache", "info"]):
        done = einjit_command(*command)
        assert done.returncode == 0
        assert str(cold_cache) in re.sub(r"\s", "", done.stdout)
    done = einjit_command("cache", "clear")
    assert done.returncode == 0 and re.match(r"Deleted [1-9]\d* kernels from ", done.stdout)
    assert not files_in(cold_cache)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "lock" not in path.name]


def test_bench_outside_a_checkout_says_where_to_find_it(monkeypatch, tmp_path):
    cli = pytest.importorskip("einjit.cli")
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "site-packages" / "einjit" / "cli.py"))
    monkeypatch.chdir(tmp_path)
    assert cli.find_bench() is None
    monkeypatch.chdir(ROOT)
    assert cli.find_bench() == ROOT


def test_without_its_packages_it_says_what_to_install():
    for package in ("click", "rich"):
        done = run_python("-c", f"import sys; sys.modules[{package!r}] = None; "
                                "from einjit.__main__ import main; main()")
        assert done.returncode == 2
        assert done.stderr == f"einjit: the command line needs {package}: run `pip install 'einjit[cli]'`.\n"


def test_the_demo_runs_and_says_so():
    done = einjit_command("demo", "--scale", "0.05", COLUMNS="200")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all 16 results agree with float64" in done.stdout
    for equation in ("ij->i", "ijklmn->n", "bqhd,bkhd->bhqk", "ni,oij,nj->no", "ab,bc,cd,de->ae"):
        assert equation in done.stdout


def test_a_wrong_result_in_the_demo_is_reported(monkeypatch, capsys):
    demo = pytest.importorskip("einjit.demo")
    example = demo.Example("ij,jk->ik", ((20, 30), (30, 20)))
    assert demo.run(np.dtype("float32"), examples=(example,))
    right = einjit.compile

    class WrongKernel:
        family, tiling, steps = "contraction", "6x16", ()

        def __init__(self, *args):
            self.kernel = right(*args)

        def __call__(self, *operands, out):
            self.kernel(*operands, out=out)
            out[3, 4] += 1e-3

    monkeypatch.setattr(einjit, "compile", WrongKernel)
    assert not demo.run(np.dtype("float32"), examples=(example,))
    assert "wrong: ij,jk->ik" in capsys.readouterr().out

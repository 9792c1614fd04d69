"""The scripts in examples/ run as they are, and print something."""

from __future__ import annotations

import pytest

from tests.subprocesses import ROOT, run_python

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


def test_there_are_six():
    assert len(SCRIPTS) == 6


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_it_runs(script):
    done = run_python(str(script))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not done.stderr

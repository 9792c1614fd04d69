"""Run Python in a fresh process that sees this checkout and the test session's cache."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")

ROOT = Path(__file__).resolve().parent.parent


def start_python(*args: str, **env: str) -> subprocess.Popen:
    """Start `python ARGS` in the checkout, with `env` added to this process's environment."""
    # ROOT goes in front, so that a script in examples/ imports this checkout too.
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
    return subprocess.Popen(
        [sys.executable, *args], cwd=ROOT, env={**os.environ, "PYTHONPATH": path, **env},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def finish(process: subprocess.Popen, timeout: float = 300) -> subprocess.CompletedProcess:
    """Wait for it; a process that hangs is killed and fails the test."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        raise AssertionError(f"still running after {timeout} s\n{stdout}\n{stderr}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def run_python(*args: str, timeout: float = 300, **env: str) -> subprocess.CompletedProcess:
    return finish(start_python(*args, **env), timeout)


def run_code(code: str, timeout: float = 300, **env: str) -> str:
    """Run a program text; it must exit with 0. Returns what it printed."""
    done = run_python("-c", textwrap.dedent(code), timeout=timeout, **env)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout

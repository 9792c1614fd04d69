"""Other projects' test suites, as they ship, pointed at einjit. They count what ran, and who ran it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import numpy as np
import pytest

from tests.subprocesses import run_python

# Suites change with their project's version: these are the ones we have counted.
NUMPY_TESTS = {"2.4": 78}
OPT_EINSUM_TESTS = 7482
SAMPLE = int(os.environ.get("EINJIT_TEST_SAMPLE", "1"))

pytestmark = pytest.mark.long


@dataclass(frozen=True)
class Outcome:
    passed: int
    calls: int
    handed_over: str


def run_suite(plugin: str, module: str, **env: str) -> Outcome:
    """Run the module's tests under the plugin in a fresh process; every one of them must pass."""
    done = run_python(
        "-m", "pytest", "-q", "-p", f"tests.conformance.{plugin}", "-p", "no:cacheprovider", "-c", os.devnull,
        "--noconftest",  # ours would undo env
        "--tb=short", "--pyargs", module, timeout=1000, **env,
    )
    summary = done.stdout[-3000:]
    assert done.returncode == 0, summary + done.stderr[-2000:]
    assert not re.search(r"\d+ (failed|error|skipped|xfailed)", summary), summary
    passed = re.search(r"(\d+) passed", summary)
    calls = re.search(r"einjit: (\d+) calls; handed over: (.*)", summary)
    assert passed and calls, summary
    print(summary)  # pytest -s, or a failure below, shows it
    return Outcome(int(passed[1]), int(calls[1]), calls[2])


@pytest.mark.parametrize("handover", ["tiny", "unsupported"])
def test_numpys_own(handover):
    outcome = run_suite("numpy_plugin", "numpy._core.tests.test_einsum", EINJIT_HANDOVER=handover)
    version = ".".join(np.__version__.split(".")[:2])
    assert outcome.passed == NUMPY_TESTS.get(version, outcome.passed)
    assert outcome.passed >= 70
    assert outcome.calls > 15_000
    assert ("tiny" in outcome.handed_over) == (handover == "tiny")


def test_opt_einsums_own():
    outcome = run_suite("opt_einsum_plugin", "opt_einsum.tests.test_contract")
    assert outcome.passed == -(-OPT_EINSUM_TESTS // SAMPLE)
    assert outcome.calls > outcome.passed

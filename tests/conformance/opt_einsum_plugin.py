"""A pytest plugin: opt_einsum's own tests, unmodified, with einjit as what its NumPy backend calls.

    python -m pytest -p tests.conformance.opt_einsum_plugin --pyargs opt_einsum.tests.test_contract

EINJIT_TEST_SAMPLE=n keeps every n-th test, always the same ones.
"""

from __future__ import annotations

import os

from opt_einsum.backends import dispatch

import einjit
from tests.conformance.summary import counted, pytest_terminal_summary  # noqa: F401 (pytest finds it here)

SAMPLE = int(os.environ.get("EINJIT_TEST_SAMPLE", "1"))

dispatch._cached_funcs["einsum", "numpy"] = counted(einjit.einsum)
dispatch._cached_funcs["tensordot", "numpy"] = counted(einjit.tensordot)


def pytest_collection_modifyitems(config, items: list) -> None:
    kept = items[::SAMPLE]
    config.hook.pytest_deselected(items=[item for n, item in enumerate(items) if n % SAMPLE])
    items[:] = kept

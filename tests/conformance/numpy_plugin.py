"""A pytest plugin: NumPy's own tests of einsum, unmodified, with einjit's in its place.

    python -m pytest -p tests.conformance.numpy_plugin --pyargs numpy._core.tests.test_einsum
"""

from __future__ import annotations

import numpy as np

import einjit
from tests.conformance.summary import counted, pytest_terminal_summary  # noqa: F401 (pytest finds it here)

np.einsum = counted(einjit.einsum)  # before the tests are imported: they take it from the module

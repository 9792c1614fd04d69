"""One private, cold kernel cache for each test session, shared by its xdist workers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, settings

HAS_NUMBA_CUDA = importlib.util.find_spec("numba_cuda") is not None
collect_ignore = [] if HAS_NUMBA_CUDA else ["test_ptx_numba.py"]    # it imports Numba-CUDA as it is

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ

if not IS_WORKER:
    # The tester's own settings must not decide what is tested. EINJIT_TEST_* belong to the tests.
    for name in [n for n in os.environ if n.startswith("EINJIT_") and not n.startswith("EINJIT_TEST_")]:
        del os.environ[name]
    os.environ["EINJIT_CACHE_DIR"] = tempfile.mkdtemp(prefix="einjit-tests-")  # workers inherit it

# An example may compile a kernel, so hypothesis must not time it. Derandomised: red stays red.
settings.register_profile(
    "einjit", deadline=None, derandomize=True, print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.load_profile("einjit")


def pytest_collection_modifyitems(items) -> None:
    if not HAS_NUMBA_CUDA:
        skipped = pytest.mark.skip(reason="Numba-CUDA is not installed: pip install 'einjit[cuda]'")
        for item in items:
            if item.get_closest_marker("cuda") or item.get_closest_marker("gpu"):
                item.add_marker(skipped)


def pytest_unconfigure() -> None:
    if not IS_WORKER:
        shutil.rmtree(os.environ["EINJIT_CACHE_DIR"], ignore_errors=True)


@pytest.fixture
def cold_cache(tmp_path, monkeypatch):
    """An empty cache directory of this test's own, for the subprocesses that it starts."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("EINJIT_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def always_shared(monkeypatch):
    """Threads share whatever can be shared, however little it is."""
    monkeypatch.setattr("einjit.program.SHARE_SECONDS", 1e-12)
    monkeypatch.setattr("einjit.parallel.WAKE_SECONDS", 0.0)


@pytest.fixture
def always_packed(monkeypatch):
    """Both operands of products that are small or skinny are packed as well."""
    monkeypatch.setattr("einjit.schedule.choose.lanes_unpacked", lambda c, cpu: None)
    monkeypatch.setattr("einjit.schedule.packed.ROW_USES", 0)

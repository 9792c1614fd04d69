"""What a compiled kernel depends on besides its own description, as one hash; and the keys made from it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import platform
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

# Settings of Numba's that change the code it generates.
_NUMBA_SETTINGS = (
    "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX", "NUMBA_OPT", "NUMBA_LOOP_VECTORIZE",
    "NUMBA_SLP_VECTORIZE", "NUMBA_BOUNDSCHECK", "NUMBA_DEBUGINFO", "NUMBA_DEBUG_NRT",
    "NUMBA_DISABLE_INTEL_SVML", "NUMBA_LLVM_REFPRUNE_PASS", "NUMBA_LLVM_REFPRUNE_FLAGS",
)


def _digest(parts: Iterable[bytes]) -> str:
    """One hash over the parts, each with its length in front: no two lists of parts look alike."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _own_sources() -> str:
    """A hash over einjit's own source, so that an edit of the compiler forgets what it compiled before."""
    folder = Path(__file__).parent
    files = sorted(folder.rglob("*.py"))
    return _digest(part for file in files for part in (bytes(file.relative_to(folder)), file.read_bytes()))


# Read now, with the modules, and not when it is asked for: an edit in between would be hashed but not loaded.
_SOURCES = _own_sources()


def _numba_version() -> str:
    """Numba's version, without importing Numba: a kernel from the cache does not need it."""
    spec = importlib.util.find_spec("numba")
    for folder in (spec and spec.submodule_search_locations) or ():
        with contextlib.suppress(OSError):  # it names the very commit
            return Path(folder, "_version.py").read_text()
    from importlib import metadata  # slow to import

    try:
        return metadata.version("numba")
    except metadata.PackageNotFoundError:
        return ""


def _cpu() -> tuple[str, str]:
    """The name and the features of the processor that Numba compiles for."""
    import llvmlite.binding as llvm

    name, features = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")
    if features is None and name is not None and name.lower() == "generic":
        features = ""
    if features is None:
        try:
            features = llvm.get_host_cpu_features().flatten()
        except RuntimeError:  # not known on every platform
            features = ""
    return name or llvm.get_host_cpu_name(), features


@functools.lru_cache(maxsize=1)
def fingerprint() -> str:
    """A hash over everything but the kernel that decides what its compiled code is.

    The versions of einjit, Numba, llvmlite, NumPy and Python, einjit's own source, the processor and its
    features, the platform, the size of a pointer, and Numba's settings. Computed once, at first use.
    """
    import llvmlite
    import numpy

    import einjit

    settings = (f"{name}={os.environ.get(name)}" for name in _NUMBA_SETTINGS)
    return _digest(part.encode() for part in (
        getattr(einjit, "__version__", ""), _SOURCES, _numba_version(), llvmlite.__version__,
        numpy.__version__, sys.implementation.cache_tag or "", sys.version, *_cpu(),
        sys.platform, platform.machine(), str(struct.calcsize("P")), *settings,
    ))


def kernel_key(*parts: str) -> str:
    """A kernel's key, 64 hexadecimal digits: a hash over the texts that describe it and `fingerprint()`."""
    return _digest(part.encode() for part in (fingerprint(), *parts))

"""Machine code for GPUs: from memory, else from the disk cache, else compiled and put into both."""
from __future__ import annotations

import json
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from functools import partial

from . import cache
from .codegen import gpubuild
from .codegen.gpubuild import CudaUnavailable, GpuCode, Resources, Signature
from .codegen.source import Source
from .compiler import CompilerError
from .errors import EinjitError
from .fingerprint import kernel_key
from .forksafe import compile_lock, uninterrupted
from .stats import count

_codes: dict[tuple[str, Signature], GpuCode] = {}


@cache.on_clear
def _forget() -> None:
    _codes.clear()


_needed: ContextVar[bool] = ContextVar("einjit_gpu_code_needed", default=True)


@contextmanager
def code_not_needed():
    """Inside, kernels have no code, and None for resources, where Numba-CUDA is missing: to show all other stages."""
    token = _needed.set(False)
    try:
        yield
    finally:
        _needed.reset(token)


def gpu_code(source: Source, signature: Signature) -> GpuCode:
    """The kernel's code. Raises `CudaUnavailable` where it has to be compiled and Numba-CUDA is missing."""
    try:
        return _remembered(source, signature)
    except CudaUnavailable:
        if _needed.get():
            raise
        return GpuCode("", b"", None)


def _remembered(source: Source, signature: Signature) -> GpuCode:
    key = source.entry, signature
    found = _codes.get(key)
    if found is not None:
        return found
    with compile_lock:
        found = _codes.get(key)
        if found is None:
            found = _codes[key] = uninterrupted(partial(_obtained, source, signature))
    return found


def _obtained(source: Source, signature: Signature) -> GpuCode:
    key = kernel_key("cuda", gpubuild.compiler_version(), repr(signature), source.text)
    return _from_disk(key) or _compiled(key, source, signature)


def _from_disk(key: str) -> GpuCode | None:
    entry = cache.default().get(key)
    if entry is None:
        return None
    try:
        code = GpuCode(entry.meta["symbol"], entry.object_code, Resources(**json.loads(entry.meta["resources"])))
    except (KeyError, TypeError, ValueError):
        return None
    count(disk_hits=1)
    return code


def _compiled(key: str, source: Source, signature: Signature) -> GpuCode:
    start = time.process_time()
    try:
        code = gpubuild.compile_source(source, signature)
    except Exception as error:
        if isinstance(error, EinjitError):
            raise
        reason = _first_line(error)
        raise CompilerError(f"einjit could not compile the kernel {source.entry} for {signature.arch}: {reason}. "
                            "Please report this with the equation, shapes and dtypes.") from None
    count(compiles=1, compile_seconds=time.process_time() - start)
    meta = {"symbol": code.symbol, "entry": source.entry, "resources": json.dumps(asdict(code.resources))}
    cache.default().put(key, cache.Entry(code.cubin, meta))
    return code


def _first_line(error: Exception) -> str:
    """NVIDIA's compilers say more, over many lines, about code that nobody wrote."""
    return next(iter(str(error).splitlines()), type(error).__name__)

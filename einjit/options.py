"""What a user may set: `Options`, how they are set, and where they are read.

Each level is an immutable `Options`. The lowest is the process's, which starts from the environment
(`EINJIT_` and the option's name in capitals, read once, at first use). Every
`with options(...)` block puts one on top of it, for its own thread or asyncio task.
"""

from __future__ import annotations

import operator
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from .errors import EinjitError

HANDOVER = ("tiny", "unsupported")
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


class OptionError(EinjitError, ValueError):
    """No such option, or a value that an option cannot have."""


def available_threads() -> int:
    """The number of cores this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity to ask for
        return os.cpu_count() or 1


@dataclass(frozen=True)
class Options:
    """The options of one level. Construct it with valid values only; `options(...)` checks them.

    threads: the most threads that one call may use, 1 or more.
    cache_dir: the folder for compiled kernels; None is the platform's own place for caches.
    disk_cache: keep compiled kernels on disk, and look for them there.
    handover: what goes to NumPy's einsum. 'tiny': what cannot be compiled, and a tiny call whose kernel
        does not exist yet. 'unsupported': only what cannot be compiled.
    result_memory: the most bytes of memory that large results leave to later ones; 0 for none. What is kept
        already goes at the next large result that may be kept, or at `cache.clear()`.
    """

    threads: int = field(default_factory=available_threads)
    cache_dir: str | None = None
    disk_cache: bool = True
    handover: str = "tiny"
    result_memory: int = 1 << 29


NAMES = tuple(f.name for f in fields(Options))


def _integer(value: object, least: int) -> int | None:
    if isinstance(value, str):
        value = int(value) if value.strip().isdecimal() else -1
    count = -1 if isinstance(value, bool) else operator.index(value)
    return count if count >= least else None


def _cache_dir(value: object) -> str | None:
    # Absolute at once, so that a later chdir does not start a second cache.
    return os.path.abspath(os.path.expanduser(os.fsdecode(value))) if value else None


def _disk_cache(value: object) -> bool | None:
    word = value.strip().lower() if isinstance(value, str) else value
    return True if word in (True, *_TRUE) else False if word in (False, *_FALSE) else None


def _handover(value: object) -> str | None:
    word = value.strip().lower() if isinstance(value, str) else None
    return word if word in HANDOVER else None


_READERS: Mapping[str, Callable[[Any], object]] = {
    "threads": partial(_integer, least=1), "cache_dir": _cache_dir, "disk_cache": _disk_cache,
    "handover": _handover, "result_memory": partial(_integer, least=0),
}
_ALLOWED = {
    "threads": "an integer of 1 or more",
    "cache_dir": "a path",
    "disk_cache": f"true ({', '.join(_TRUE)}) or false ({', '.join(_FALSE)})",
    "handover": " or ".join(map(repr, HANDOVER)),
    "result_memory": "a number of bytes, 0 or more",
}


def _read(name: str, value: object, said: str) -> object:
    """`value` as option `name` holds it; `said` is how the user wrote the option."""
    if name == "cache_dir" and value is None:
        return None
    try:
        read = _READERS[name](value)
    except TypeError:  # not a path, or not hashable
        read = None
    if read is None:
        raise OptionError(f"{said} cannot be {value!r}: it must be {_ALLOWED[name]}.")
    return read


def _checked(changes: Mapping[str, object]) -> dict[str, object]:
    for name in changes:
        if name not in NAMES:
            raise OptionError(f"einjit has no option {name!r}: the options are {', '.join(NAMES)}.")
    return {name: _read(name, value, f"The option {name}") for name, value in changes.items()}


def _from_environment() -> Options:
    given = {name: os.environ.get(f"EINJIT_{name.upper()}", "") for name in NAMES}
    return _interned(Options(**{
        name: _read(name, text, f"The environment variable EINJIT_{name.upper()}")
        for name, text in given.items() if text.strip()
    }))


_known: dict[Options, Options] = {}


def _interned(options: Options) -> Options:
    """One object for equal options, so that a call can tell by identity whether its plan still holds."""
    return _known.setdefault(options, options)


# The process's level. A plain call and the first half of a `with` statement look alike when they are made, so
# each call is first a layer here, and entering the block takes its layer out again, whatever was set since.
# A layer whose `Setting` nobody holds can no longer be entered, so neighbours like that are merged.
_lock = threading.Lock()
_layers: list[tuple[Callable[[], object], dict[str, object]]] = []
_environment: Options | None = None
_process: Options | None = None  # _environment with all _layers; None until the first use


@dataclass(frozen=True)
class _Block:
    options: Options
    outside: _Block | None


_block: ContextVar[_Block | None] = ContextVar("einjit_options", default=None)


def current() -> Options:
    """The options that hold here: the innermost block's, else the process's.

    Raises OptionError while an environment variable of einjit's holds something it cannot.
    """
    block = _block.get()
    return block.options if block is not None else _process or _first()


def _first() -> Options:
    with _lock:
        _settle()
        return _process


def _settle() -> None:
    """Bring _process up to date. Call with _lock held."""
    global _environment, _process
    _environment = _environment or _from_environment()
    merged: list[tuple[Callable[[], object], dict[str, object]]] = []
    for alive, changes in _layers:
        if merged and alive() is None and merged[-1][0]() is None:
            merged[-1] = (alive, {**merged[-1][1], **changes})
        else:
            merged.append((alive, changes))
    _layers[:] = merged
    everything: dict[str, object] = {}
    for _, changes in merged:
        everything.update(changes)
    _process = _interned(replace(_environment, **everything))


class Setting:
    """What `options(...)` gives back: a block to enter, and the options to read, as attributes.

    It may be entered many times, and in many threads at once.
    """

    def __init__(self, changes: Mapping[str, object]) -> None:
        self._changes = _checked(changes)
        current()  # a bad environment variable is reported before anything changes
        self._before = _block.get()
        self._made: _Block | None = None
        if self._changes and self._before is not None:
            self._made = _Block(_interned(replace(self._before.options, **self._changes)), self._before.outside)
            _block.set(self._made)
        elif self._changes:
            with _lock:
                _layers.append((weakref.ref(self), self._changes))
                _settle()
        self._shown = current()

    def __enter__(self) -> Options:
        outside = _block.get()
        if self._made is not None and outside is self._made:
            outside = self._before  # takes the plain call back, now that it turns out to be a block
        with _lock:
            kept = [layer for layer in _layers if layer[0]() is not self]
            if len(kept) < len(_layers):
                _layers[:] = kept
                _settle()
        below = outside.options if outside is not None else _process or _first()
        inside = _interned(replace(below, **self._changes))
        _block.set(_Block(inside, outside))
        return inside

    def __exit__(self, *error: object) -> None:
        block = _block.get()
        if block is not None:  # it is None when a generator is closed in another context than it ran in
            _block.set(block.outside)

    def __getattr__(self, name: str) -> object:
        if name not in NAMES:
            raise AttributeError(f"einjit has no option {name!r}: the options are {', '.join(NAMES)}.")
        return getattr(self._shown, name)

    def __repr__(self) -> str:
        return repr(self._shown)


def options(**changes: object) -> Setting:
    """Set options, or read them.

    `options(threads=1)` sets at once: inside a `with options(...)` block for the rest of that block,
    elsewhere for the whole process. `with options(threads=1): ...` sets for the block alone, in this thread
    or asyncio task alone: a thread started inside a block begins with the process's options. A block sees the
    other options as they stood when it was entered. Between the call and the start of the block, an instant,
    other threads may see the block's options; no option changes a result.
    `options()` changes nothing: it prints, and `options().threads` reads.

    The options are the fields of `Options`. Raises OptionError (a ValueError) for others, and for values that
    an option cannot have.
    """
    return Setting(changes)

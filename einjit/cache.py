"""Compiled kernels on disk: one checksummed file a kernel, in a folder that only its owner may write.

A kernel read from disk is machine code that will run, so a file counts only if it is a plain file of this
user's, in a folder of this user's that nobody else may write, has the right checksum, and holds the key it
was asked for. Anything else is a miss: it costs a compile, and at most one warning a process, never an error.

    file  = MAGIC | sha256 of the rest | length of the header, 4 bytes | header | object code
    header = JSON {"key": ..., "meta": {...}}
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import stat
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .fingerprint import fingerprint, kernel_key  # noqa: F401  (the other half of this module)
from .options import current

MAGIC = b"einjit kernel 1\n"  # the number is the version of the format
SUFFIX = ".kernel"
UNFINISHED = ".unfinished"
_DAY = 86_400.0
_O_CAREFUL = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_MAX_FILE = 1 << 28  # no kernel comes near this; a file beyond it is not read into memory


class EinjitWarning(UserWarning):
    """Something works, but not as well as it could."""


@dataclass(frozen=True)
class Entry:
    """One compiled kernel: an object file, and what else is needed to load it."""

    object_code: bytes
    meta: dict[str, str]


@dataclass(frozen=True)
class CacheInfo:
    """What `info()` gives: where kernels are kept, how many and how large, and why not, if they are not.

    reason: why the cache is not usable, or cannot be written; "" when all is well.
    """

    path: str
    kernels: int
    bytes: int
    usable: bool
    reason: str

    def __str__(self) -> str:
        note = f" ({self.reason})" if self.reason else ""
        return f"{self.kernels} kernels, {self.bytes / 1e6:.1f} MB in {self.path}{note}"


class _Refused(OSError):
    """The folder or a file in it is not one that we may trust."""


def _encode(key: str, entry: Entry) -> bytes:
    import json  # here, and tempfile below, to keep `import einjit` light

    header = json.dumps({"key": key, "meta": entry.meta}).encode()
    body = len(header).to_bytes(4, "little") + header + entry.object_code
    return MAGIC + hashlib.sha256(body).digest() + body


def _decode(key: str, data: bytes) -> Entry | None:
    """The entry in a file's bytes; None if they are broken, of another format, or another key's."""
    import json

    start = len(MAGIC) + 32
    body = data[start:]
    if data[:start] != MAGIC + hashlib.sha256(body).digest():
        return None
    split = 4 + int.from_bytes(body[:4], "little")
    try:
        header = json.loads(body[4:split])
        return Entry(body[split:], header["meta"]) if header["key"] == key else None
    except (ValueError, KeyError, TypeError):  # a right checksum, but not over what _encode writes
        return None


def _refusal(path: str, kind: Callable[[int], bool], status: os.stat_result) -> str:
    """Why a folder or file is not ours alone to write, or ""."""
    if not kind(status.st_mode):
        return f"{path} is not a {'folder' if kind is stat.S_ISDIR else 'plain file'}"
    if hasattr(os, "geteuid"):  # Windows keeps each user's folders private by other means
        if status.st_uid != os.geteuid():
            return f"{path} belongs to another user"
        if status.st_mode & 0o022:
            return f"{path} can be written by other users; `chmod go-w` would make it private"
    return ""


def _read(path: str) -> bytes:
    """A file's bytes. Raises OSError, also for anything but a plain file of this user's."""
    # No links are followed, and a named pipe does not block.
    handle = os.open(path, os.O_RDONLY | _O_CAREFUL)
    try:
        status = os.fstat(handle)
        refusal = _refusal(path, stat.S_ISREG, status)
        if not refusal and status.st_size > _MAX_FILE:
            refusal = f"{path} is too large for a kernel"
        if refusal:
            raise _Refused(refusal)
        with open(handle, "rb", closefd=False) as file:
            data = file.read()
    finally:
        os.close(handle)
    if status.st_mtime < time.time() - _DAY:
        with contextlib.suppress(OSError):  # what is in use must not be the oldest when space runs out
            os.utime(path)
    return data


def _write(path: str, data: bytes) -> None:
    """Put a whole file in place at once, or nothing. Raises OSError."""
    import tempfile

    handle, temporary = tempfile.mkstemp(UNFINISHED, os.path.basename(path)[:16], os.path.dirname(path))
    try:
        with open(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@dataclass(frozen=True)
class _File:
    used: float  # seconds since 1970
    size: int
    path: str


@dataclass(frozen=True)
class DiskCache:
    """The kernels in one folder. Any number of threads and processes may use it at once.

    Keys are those of `kernel_key`.
    root: the folder; made, private, at the first `put`.
    enabled: False gives a cache that holds nothing and says nothing.
    max_bytes, max_files: beyond either, the files that were longest out of use are deleted.
    """

    root: Path
    enabled: bool = True
    max_bytes: int = 512 << 20
    max_files: int = 20_000

    def _path(self, key: str) -> str:
        return os.path.join(self.root, key + SUFFIX)

    def _check(self) -> None:
        """Raises OSError if the folder is missing or not private to this user."""
        link = os.lstat(self.root)  # it may be a link, but only one of ours
        if stat.S_ISLNK(link.st_mode) and hasattr(os, "geteuid") and link.st_uid != os.geteuid():
            raise _Refused(f"{self.root} is another user's link")
        refusal = _refusal(str(self.root), stat.S_ISDIR, os.stat(self.root))
        if refusal:
            raise _Refused(refusal)

    def _make(self) -> None:
        """See that there is a folder private to this user. Raises OSError."""
        try:
            self._check()
        except FileNotFoundError:
            os.makedirs(self.root, mode=0o700, exist_ok=True)
            self._check()

    def _holds(self, key: str) -> bool:
        try:
            self._check()
            return _decode(key, _read(self._path(key))) is not None
        except OSError:
            return False

    def get(self, key: str) -> Entry | None:
        """The kernel of that key, or None. Never raises, but for a warning that the user made an error."""
        if not self.enabled:
            return None
        try:
            self._check()
            entry = _decode(key, _read(self._path(key)))
        except FileNotFoundError:
            return None
        except OSError as error:
            _warn(f"einjit cannot read compiled kernels in {self.root}: {_told(error)}. {_CONSEQUENCE}")
            return None
        if entry is None:
            _warn(f"einjit found a broken kernel file, and compiles the kernel anew: {self._path(key)}")
        return entry

    def put(self, key: str, entry: Entry) -> bool:
        """Keep a kernel; False if it could not be. Never raises (see `get`)."""
        if not self.enabled:
            return False
        try:
            self._make()
            _write(self._path(key), _encode(key, entry))
        except OSError as error:
            if self._holds(key):  # Windows lets nobody replace a file that another process reads
                return True
            _warn(f"einjit cannot keep compiled kernels in {self.root}: {_told(error)}. {_CONSEQUENCE}")
            return False
        # Keys are hashes: one put in 32 comes here, over all processes, whatever each of them does.
        if int(key[:2], 16) < 8:
            self._evict()
        return True

    def _files(self, suffix: str) -> list[_File]:
        """Our files with that suffix, the longest out of use first. Raises OSError if there is no folder."""
        found = []
        with os.scandir(self.root) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # somebody else deleted it
                    if entry.name.endswith(suffix) and not entry.is_dir(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        found.append(_File(status.st_mtime, status.st_size, entry.path))
        return sorted(found, key=lambda file: file.used)

    def _sweep(self) -> None:
        """Delete what killed processes left behind; what is young, somebody may be writing."""
        for file in self._files(UNFINISHED):
            if file.used < time.time() - _DAY:
                _delete(file.path)

    def _evict(self) -> None:
        """If there are too many kernels, or bytes, delete the oldest until a quarter of the space is free."""
        with contextlib.suppress(OSError):
            self._sweep()
            files = self._files(SUFFIX)
            count, size = len(files), sum(file.size for file in files)
            if count <= self.max_files and size <= self.max_bytes:
                return
            for file in files:
                if count <= 0.75 * self.max_files and size <= 0.75 * self.max_bytes:
                    return
                _delete(file.path)
                count, size = count - 1, size - file.size

    def info(self) -> CacheInfo:
        """Count the kernels. Never raises."""
        path = str(self.root)
        if not self.enabled:
            return CacheInfo(path, 0, 0, False, "switched off by the option disk_cache")
        try:
            self._check()
            sizes = [file.size for file in self._files(SUFFIX)]
        except FileNotFoundError:
            return CacheInfo(path, 0, 0, True, "not made yet")
        except OSError as error:
            return CacheInfo(path, 0, 0, False, _told(error))
        reason = "" if os.access(path, os.W_OK | os.X_OK) else "read-only: new kernels are not kept"
        return CacheInfo(path, len(sizes), sum(sizes), True, reason)

    def clear(self) -> int:
        """Delete the kernels; returns how many there were. A folder we would not use is left as it is."""
        removed = 0
        with contextlib.suppress(OSError):
            self._check()
            self._sweep()
            removed = sum(_delete(file.path) for file in self._files(SUFFIX))
        return removed


def _delete(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True


def _told(error: OSError) -> str:
    return str(error) if isinstance(error, _Refused) else error.strerror or str(error)


_CONSEQUENCE = (
    "Everything works, but each process compiles its kernels anew. options(cache_dir=...) or EINJIT_CACHE_DIR"
    " names another folder, disk_cache=False does without."
)
_warnings_left = [True]  # a list, because pop() is atomic and so lets one thread through


def _warn(message: str) -> None:
    """The one warning of this process."""
    try:
        _warnings_left.pop()
    except IndexError:
        return
    message += " (This is said once.)"
    if sys.version_info >= (3, 12):
        here = os.path.dirname(__file__)
        warnings.warn(message, EinjitWarning, skip_file_prefixes=(here,))
    else:
        warnings.warn(message, EinjitWarning, stacklevel=3)


def platform_folder() -> str:
    """Where this platform keeps a user's caches (the answer of platformdirs, on these three)."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
        parts = ("einjit", "Cache")
    elif sys.platform == "darwin":
        base, parts = os.path.expanduser("~/Library/Caches"), ("einjit",)
    else:
        base, parts = os.environ.get("XDG_CACHE_HOME", ""), ("einjit",)
        if not os.path.isabs(base):  # the XDG rules: a relative path does not count
            base = os.path.expanduser("~/.cache")
    if not os.path.isabs(base):  # a user without a home
        import tempfile

        base, parts = tempfile.gettempdir(), (f"einjit-{os.geteuid() if hasattr(os, 'geteuid') else 'user'}",)
    return os.path.join(base, *parts)


@functools.lru_cache(maxsize=16)
def _cache_at(folder: str | None, enabled: bool) -> DiskCache:
    return DiskCache(Path(folder or platform_folder()), enabled)


def default() -> DiskCache:
    """The cache that the current options name."""
    options = current()
    return _cache_at(options.cache_dir, options.disk_cache)


_clearers: list[Callable[[], object]] = []


def on_clear(function: Callable[[], object]) -> Callable[[], object]:
    """Have `function()` called by every `clear()`; for what is kept in memory. Works as a decorator."""
    _clearers.append(function)
    return function


def info() -> CacheInfo:
    """Where compiled kernels are kept on disk, how many, how large, and whether that works."""
    return default().info()


def clear() -> int:
    """Forget every compiled kernel, on disk and in memory, and the memory that results have left; returns how many
    files were deleted.

    A kernel that somebody holds goes on working.
    """
    removed = default().clear()
    for function in _clearers:
        function()
    return removed

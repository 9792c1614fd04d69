"""The disk cache: whatever happens to files and folder is a miss, one warning, and no wrong kernel."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import sys
import tempfile
import threading
import warnings

import pytest

from einjit import cache, fingerprint
from einjit.cache import DiskCache, EinjitWarning, Entry
from einjit.options import options
from tests.subprocesses import finish, run_code, run_python, start_python

KEY = "5f" * 32
OTHER = "a0" * 32
ENTRY = Entry(bytes(range(256)) * 20, {"entry": "ij_jk_ik", "text": "é\n"})

posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no owners and modes to check")


@pytest.fixture(autouse=True)
def unwarned(monkeypatch):
    monkeypatch.setattr(cache, "_warnings_left", [True])


@pytest.fixture
def store(tmp_path):
    return DiskCache(tmp_path / "kernels")


@contextlib.contextmanager
def warned(text):
    """Exactly one warning, which holds `text`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [w.category for w in caught] == [EinjitWarning]
    assert text in str(caught[0].message)
    assert "said once" in str(caught[0].message)


@contextlib.contextmanager
def silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def the_file(store, key=KEY):
    return store.root / (key + cache.SUFFIX)


def names(store):
    return sorted(os.listdir(store.root))


# ---- what it does

def test_round_trip(store):
    with silent():
        assert store.get(KEY) is None
        assert not store.root.exists()  # looking makes nothing
        assert store.put(KEY, ENTRY) is True
        assert store.get(KEY) == ENTRY
        assert store.get(OTHER) is None
        assert store.put(KEY, Entry(b"", {})) is True  # the last one counts
        assert store.get(KEY) == Entry(b"", {})
    assert names(store) == [KEY + cache.SUFFIX]


@posix
def test_folder_and_files_are_private(tmp_path):
    store = DiskCache(tmp_path / "new" / "kernels")
    old = os.umask(0)
    try:
        store.put(KEY, ENTRY)
    finally:
        os.umask(old)
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(the_file(store).stat().st_mode) == 0o600


def test_info_and_clear(store):
    assert store.info() == cache.CacheInfo(str(store.root), 0, 0, True, "not made yet")
    assert store.clear() == 0
    store.put(KEY, ENTRY)
    store.put(OTHER, ENTRY)
    (store.root / "notes.txt").write_text("not ours")
    (store.root / ("x" + cache.UNFINISHED)).write_text("left behind")
    info = store.info()
    assert (info.path, info.kernels, info.usable, info.reason) == (str(store.root), 2, True, "")
    assert info.bytes == 2 * the_file(store).stat().st_size
    assert str(info) == f"2 kernels, 0.0 MB in {store.root}"
    assert store.clear() == 2
    assert names(store) == ["notes.txt", "x" + cache.UNFINISHED]  # somebody may be writing it
    assert store.info().kernels == 0


def test_disabled_holds_nothing_and_says_nothing(store):
    store.put(KEY, ENTRY)
    disabled = DiskCache(store.root, enabled=False)
    with silent():
        assert disabled.get(KEY) is None
        assert disabled.put(OTHER, ENTRY) is False
        assert disabled.info().usable is False
        assert "disk_cache" in disabled.info().reason
    assert names(store) == [KEY + cache.SUFFIX]


# ---- broken files

def truncated(data):
    return data[:-1]


def empty(data):
    return b""


def header_alone(data):
    return data[:60]


def magic_alone(data):
    return data[:len(cache.MAGIC)]


def garbage(data):
    return bytes(7 * i % 256 for i in range(len(data)))


def longer(data):
    return data + b"\0"


def other_version(data):
    return data.replace(b"einjit kernel 1\n", b"einjit kernel 0\n")


def flipped_in_code(data):
    return data[:-100] + bytes([data[-100] ^ 4]) + data[-99:]


def flipped_in_checksum(data):
    return data[:20] + bytes([data[20] ^ 1]) + data[21:]


def flipped_in_header(data):
    return data[:60] + bytes([data[60] ^ 1]) + data[61:]


def another_keys_file(data):
    return cache._encode(OTHER, ENTRY)


def signed_garbage(data):
    return sealed(b"\x05\0\0\0{'a'}code")


def signed_list(data):
    return sealed(b"\x02\0\0\0[]code")


def signed_without_key(data):
    return sealed(b"\x02\0\0\0{}code")


def signed_but_short(data):
    return sealed(b"\xff")


def sealed(body):
    return cache.MAGIC + hashlib.sha256(body).digest() + body


@pytest.mark.parametrize("damage", [
    truncated, empty, header_alone, magic_alone, garbage, longer, other_version, flipped_in_code,
    flipped_in_checksum, flipped_in_header, another_keys_file, signed_garbage, signed_list,
    signed_without_key, signed_but_short,
], ids=lambda damage: damage.__name__)
def test_broken_file_is_a_miss_and_heals(store, damage):
    store.put(KEY, ENTRY)
    data = the_file(store).read_bytes()
    broken = damage(data)
    assert broken != data
    the_file(store).write_bytes(broken)
    with warned("broken kernel file"):
        assert store.get(KEY) is None
        assert store.get(KEY) is None  # and no second warning
        assert store.put(KEY, ENTRY) is True
        assert store.get(KEY) == ENTRY


def test_every_single_bit_counts(store):
    data = cache._encode(KEY, Entry(b"code", {"a": "b"}))
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert cache._decode(KEY, bytes(changed)) is None, bit
    assert cache._decode(KEY, data) == Entry(b"code", {"a": "b"})


def test_too_large_a_file_is_not_read(store, monkeypatch):
    store.put(KEY, ENTRY)
    monkeypatch.setattr(cache, "_MAX_FILE", 1000)
    with warned("too large"):
        assert store.get(KEY) is None


def test_folder_in_the_place_of_a_file(store):
    store.put(OTHER, ENTRY)
    the_file(store).mkdir()
    with warned("not a plain file" if os.name == "posix" else ""):
        assert store.get(KEY) is None
        assert store.put(KEY, ENTRY) is False
    assert store.get(OTHER) == ENTRY
    assert cache.UNFINISHED not in "".join(names(store))
    assert store.info().kernels == 1
    assert store.clear() == 1


@posix
def test_named_pipe_does_not_block(store):
    store.put(OTHER, ENTRY)
    os.mkfifo(the_file(store), 0o600)
    with warned("not a plain file"):
        assert store.get(KEY) is None
        assert store.put(KEY, ENTRY) is True
        assert store.get(KEY) == ENTRY


# ---- files and folders of others

@posix
def test_links_are_not_followed(store, tmp_path):
    store.put(KEY, ENTRY)
    elsewhere = tmp_path / "elsewhere"
    the_file(store).rename(elsewhere)
    the_file(store).symlink_to(elsewhere)
    with warned("cannot read"):
        assert store.get(KEY) is None
        assert store.put(KEY, Entry(b"new", {})) is True
    assert store.get(KEY) == Entry(b"new", {})
    assert cache._decode(KEY, elsewhere.read_bytes()) == ENTRY  # the link was replaced, not what it led to


@posix
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_folder_that_others_may_write_is_refused(store, mode):
    store.put(KEY, ENTRY)
    store.root.chmod(mode)
    with warned("can be written by other users"):
        assert store.get(KEY) is None
        assert store.put(OTHER, ENTRY) is False
        assert store.clear() == 0
    assert store.info().usable is False
    assert "chmod go-w" in store.info().reason
    assert names(store) == [KEY + cache.SUFFIX]
    store.root.chmod(0o755)  # others may look
    assert store.get(KEY) == ENTRY


@posix
def test_file_that_others_may_write_is_refused(store):
    store.put(KEY, ENTRY)
    the_file(store).chmod(0o666)
    with warned("can be written by other users"):
        assert store.get(KEY) is None
        assert store.put(KEY, ENTRY) is True
    assert store.get(KEY) == ENTRY


def lie_about_owner(monkeypatch, function, of):
    """Make os.lstat, stat or fstat say that another user owns the file `of`."""
    real = getattr(os, function)
    inode = os.lstat(of).st_ino

    def status(path, **kwargs):
        got = real(path, **kwargs)
        return os.stat_result((*got[:4], got.st_uid + 1, *got[5:])) if got.st_ino == inode else got

    monkeypatch.setattr(os, function, status)


@posix
def test_folder_of_another_user_is_refused(store, monkeypatch):
    store.put(KEY, ENTRY)
    lie_about_owner(monkeypatch, "stat", store.root)
    with warned("belongs to another user"):
        assert store.get(KEY) is None
        assert store.put(OTHER, ENTRY) is False
    assert store.info().reason == f"{store.root} belongs to another user"
    assert names(store) == [KEY + cache.SUFFIX]


@posix
def test_file_of_another_user_is_refused(store, monkeypatch):
    store.put(KEY, ENTRY)
    store.put(OTHER, ENTRY)
    lie_about_owner(monkeypatch, "fstat", the_file(store))
    with warned("belongs to another user"):
        assert store.get(KEY) is None
        assert store.get(OTHER) == ENTRY


@posix
def test_folder_may_be_a_link_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    store = DiskCache(link)
    with silent():
        assert store.put(KEY, ENTRY)
        assert store.get(KEY) == ENTRY
    lie_about_owner(monkeypatch, "lstat", link)
    with warned("another user's link"):
        assert store.get(KEY) is None


# ---- folders that do not work

def test_folder_is_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    for store in (DiskCache(tmp_path / "file"), DiskCache(tmp_path / "file" / "below")):
        cache._warnings_left[:] = [True]
        with warned("cannot read"):
            assert store.get(KEY) is None
            assert store.put(KEY, ENTRY) is False
            assert store.clear() == 0
        assert store.info().usable is False
        assert store.info().reason
    assert (tmp_path / "file").read_text() == "mine"


def failing(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))
    return fail


@pytest.mark.parametrize("function, number", [
    ("replace", errno.ENOSPC), ("replace", errno.EACCES), ("makedirs", errno.EROFS),
    ("makedirs", errno.EACCES), ("makedirs", errno.ENAMETOOLONG),
])
def test_cannot_be_written(store, monkeypatch, function, number):
    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing(number))
        with warned(os.strerror(number)):
            assert store.put(KEY, ENTRY) is False
            assert store.put(OTHER, ENTRY) is False
            assert store.get(KEY) is None
    if store.root.exists():
        assert names(store) == []  # no unfinished file stays
    assert store.put(KEY, ENTRY) is True
    assert store.get(KEY) == ENTRY


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EMFILE])
def test_no_file_can_be_made(store, monkeypatch, number):
    """A read-only folder, a full disk: what is there is still read."""
    store.put(KEY, ENTRY)
    monkeypatch.setattr(tempfile, "mkstemp", failing(number))
    with warned(os.strerror(number)):
        assert store.put(OTHER, ENTRY) is False
    with silent():
        assert store.get(KEY) == ENTRY


@posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_disk_fills_up_while_writing(store, monkeypatch):
    store.put(OTHER, ENTRY)
    real = tempfile.mkstemp

    def mkstemp(*args):
        handle, path = real(*args)
        os.close(handle)
        return os.open("/dev/full", os.O_WRONLY), path

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    with warned(os.strerror(errno.ENOSPC)):
        assert store.put(KEY, ENTRY) is False
    assert names(store) == [OTHER + cache.SUFFIX]


def test_file_that_cannot_be_replaced_but_is_good(store, monkeypatch):
    """Windows refuses to replace a file that another process reads; it holds the same kernel."""
    store.put(KEY, ENTRY)
    monkeypatch.setattr(os, "replace", failing(errno.EACCES))
    with silent():
        assert store.put(KEY, ENTRY) is True
    assert names(store) == [KEY + cache.SUFFIX]


def test_unreadable_file(store, monkeypatch):
    store.put(KEY, ENTRY)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(errno.EACCES))
        with warned(os.strerror(errno.EACCES)):
            assert store.get(KEY) is None
    assert store.get(KEY) == ENTRY


def test_read_only_folder_is_reported(store, monkeypatch):
    store.put(KEY, ENTRY)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    info = store.info()
    assert (info.kernels, info.usable, info.reason) == (1, True, "read-only: new kernels are not kept")


def test_interrupt_leaves_no_unfinished_file(store, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.put(KEY, ENTRY)
    assert names(store) == []


def test_folder_vanishes(store):
    store.put(KEY, ENTRY)
    the_file(store).unlink()
    store.root.rmdir()
    with silent():
        assert store.get(KEY) is None
        assert store.put(KEY, ENTRY) is True
        assert store.get(KEY) == ENTRY


def test_one_warning_for_all_threads_and_folders(tmp_path):
    (tmp_path / "file").write_text("")
    barrier = threading.Barrier(8)

    def use():
        barrier.wait(30)
        for below in "ab":
            DiskCache(tmp_path / "file" / below).put(KEY, ENTRY)

    with warned("cannot keep"):
        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)


# ---- its size

EVICTING = "00" * 32  # a key whose put looks at the size


def fill(store, count):
    """`count` kernels, the first one the longest out of use."""
    keys = [f"ff{n:062x}" for n in range(count)]
    for n, key in enumerate(keys):
        store.put(key, ENTRY)
        os.utime(the_file(store, key), (1e9 + n, 1e9 + n))
    return keys


@pytest.mark.parametrize("limit", ["files", "bytes"])
def test_oldest_are_deleted(tmp_path, limit):
    size = len(cache._encode(KEY, ENTRY))
    limits = {"max_files": 20} if limit == "files" else {"max_bytes": 20 * size + size // 2}
    store = DiskCache(tmp_path / "kernels", **limits)
    keys = fill(store, 25)
    assert store.info().kernels == 25  # these keys do not look
    store.put(EVICTING, ENTRY)
    assert store.info().kernels == 15
    assert [key for key in keys if the_file(store, key).exists()] == keys[-14:]
    assert store.get(EVICTING) == ENTRY


def test_nothing_is_deleted_below_the_limits(tmp_path):
    store = DiskCache(tmp_path / "kernels", max_files=26)
    fill(store, 25)
    store.put(EVICTING, ENTRY)
    assert store.info().kernels == 26


def test_what_is_used_is_not_old(tmp_path):
    store = DiskCache(tmp_path / "kernels", max_files=20)
    keys = fill(store, 25)
    store.get(keys[0])
    store.put(EVICTING, ENTRY)
    assert the_file(store, keys[0]).exists()
    assert not the_file(store, keys[1]).exists()


def test_left_behind_files_are_deleted_in_time(store):
    store.put(KEY, ENTRY)
    old, new, foreign = store.root / "old.unfinished", store.root / "new.unfinished", store.root / "old.txt"
    for file in (old, new, foreign):
        file.write_text("")
    assert cache.UNFINISHED == ".unfinished"
    for file in (old, foreign):
        os.utime(file, (1e9, 1e9))
    store.put(EVICTING, ENTRY)
    assert not old.exists()
    assert new.exists() and foreign.exists()


def test_some_keys_look_at_the_size_but_not_many():
    looking = sum(int(fingerprint.kernel_key(str(n))[:2], 16) < 8 for n in range(2000))
    assert 20 < looking < 150


# ---- many at once

WRITER = """
import os, sys, time
from pathlib import Path
from einjit.cache import DiskCache, Entry
ready = Path(sys.argv[1]).with_name("ready")
(ready / str(os.getpid())).touch()
while len(os.listdir(ready)) < 4:
    time.sleep(0.001)
store = DiskCache(Path(sys.argv[1]), max_files=30)
keys = [f"{n:064x}" for n in range(40)]  # each put looks at the size
wrong = missed = 0
for turn in range(15):
    for n, key in enumerate(keys):
        entry = store.get(key)
        if entry is None:
            missed += 1
            assert store.put(key, Entry(key.encode() * (n + 1), {"key": key}))
        else:
            wrong += entry != Entry(key.encode() * (n + 1), {"key": key})
print(wrong, missed)
"""


def test_processes_share_a_cold_folder(tmp_path):
    """Reading, writing and deleting at once: nothing wrong is read, nothing is warned of."""
    folder = tmp_path / "kernels"
    (tmp_path / "ready").mkdir()
    writers = [start_python("-W", "error", "-c", WRITER, str(folder)) for _ in range(4)]
    results = []
    for writer in writers:
        done = finish(writer, 60)
        assert (done.returncode, done.stderr) == (0, "")
        results.append(tuple(map(int, done.stdout.split())))
    assert sum(wrong for wrong, _ in results) == 0
    assert sum(missed for _, missed in results) > 2 * 40  # there were deletions, and all were made good
    assert all(name.endswith(cache.SUFFIX) for name in os.listdir(folder))


def test_threads_share_a_cold_folder(store):
    keys = [f"{n:02x}" * 32 for n in range(8, 18)]
    problems = []

    def use(start):
        for n in range(100):
            key = keys[(start + n) % 10]
            entry = store.get(key)
            if entry is None:
                problems.extend([] if store.put(key, Entry(key.encode(), {})) else ["put"])
            elif entry.object_code != key.encode():
                problems.append(entry)
            if n % 25 == start:
                store.clear()

    with silent():
        threads = [threading.Thread(target=use, args=(start,)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert problems == []


# ---- where it is, and its keys

def test_default_follows_the_options(tmp_path):
    with options(cache_dir=tmp_path / "one", disk_cache=True):
        assert cache.default() == DiskCache(tmp_path / "one")
        assert cache.info().path == str(tmp_path / "one")
        with options(disk_cache=False):
            assert cache.default().enabled is False
            assert cache.info().usable is False
    with options(cache_dir=None):
        assert str(cache.default().root) == cache.platform_folder()


def test_clear_forgets_disk_and_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_clearers", [])
    memory = {"kernel": 1}
    assert cache.on_clear(memory.clear) == memory.clear
    with options(cache_dir=tmp_path / "kernels", disk_cache=True):
        cache.default().put(KEY, ENTRY)
        assert cache.clear() == 1
        assert cache.default().get(KEY) is None
    assert memory == {}


@pytest.mark.parametrize("platform, environment, expected", [
    ("linux", {"HOME": "/home/me"}, "/home/me/.cache/einjit"),
    ("linux", {"HOME": "/home/me", "XDG_CACHE_HOME": "/scratch"}, "/scratch/einjit"),
    ("linux", {"HOME": "/home/me", "XDG_CACHE_HOME": "relative"}, "/home/me/.cache/einjit"),
    ("darwin", {"HOME": "/Users/me"}, "/Users/me/Library/Caches/einjit"),
    ("win32", {"HOME": "/x", "LOCALAPPDATA": "/local"}, "/local/einjit/Cache"),
])
@posix
def test_platform_folder(monkeypatch, platform, environment, expected):
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache.platform_folder() == expected


def test_platform_folder_is_the_one_of_platformdirs():
    platformdirs = pytest.importorskip("platformdirs")
    assert cache.platform_folder() == platformdirs.user_cache_dir("einjit", appauthor=False)


def test_user_without_a_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    folder = cache.platform_folder()
    assert os.path.isabs(folder)
    assert os.path.dirname(folder) == tempfile.gettempdir()


def test_keys():
    key = cache.kernel_key("a", "b")
    assert len(key) == 64 and set(key) <= set("0123456789abcdef")
    assert key == cache.kernel_key("a", "b")
    different = [("ab",), ("a", "b"), ("b", "a"), ("a", "b", ""), ()]
    assert len({cache.kernel_key(*parts) for parts in different}) == 5


# Without einjit's sources: somebody may be editing them while the tests run.
FINGERPRINT = "from einjit import fingerprint as f; f._SOURCES = ''; print(f.fingerprint())"


@pytest.fixture
def plain(monkeypatch):
    """This process's fingerprint, made like FINGERPRINT's."""
    monkeypatch.setattr(fingerprint, "_SOURCES", "")
    return fingerprint.fingerprint.__wrapped__()


def test_fingerprint_is_the_same_in_every_process(plain):
    assert run_code(FINGERPRINT).strip() == plain
    assert run_code("import numba; " + FINGERPRINT).strip() == plain


def test_fingerprint_needs_no_numba():
    assert run_code(FINGERPRINT + "; import sys; print('numba' in sys.modules)").split()[1] == "False"


@pytest.mark.parametrize("variable, value", [
    ("NUMBA_CPU_NAME", "generic"), ("NUMBA_CPU_FEATURES", "+sse2"), ("NUMBA_OPT", "1"),
])
def test_fingerprint_follows_the_processor_and_numbas_settings(plain, variable, value):
    assert run_code(FINGERPRINT, **{variable: value}).strip() != plain


@pytest.mark.parametrize("name, value", [
    ("_SOURCES", "other"), ("_numba_version", lambda: "9.9"), ("_cpu", lambda: ("znver9", "+avx9")),
])
def test_fingerprint_follows_sources_versions_and_processor(monkeypatch, name, value):
    before = fingerprint.fingerprint()
    assert fingerprint.fingerprint.__wrapped__() == before
    monkeypatch.setattr(fingerprint, name, value)
    assert fingerprint.fingerprint.__wrapped__() != before


def test_own_sources_follow_an_edit(tmp_path, monkeypatch):
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(fingerprint, "__file__", str(tmp_path / "a.py"))
    before = fingerprint._own_sources()
    assert fingerprint._own_sources() == before
    (tmp_path / "b.py").write_text("x = 2\n")
    assert fingerprint._own_sources() != before


def test_warning_names_a_way_out_and_stays_one_in_a_process(tmp_path):
    (tmp_path / "file").write_text("")
    code = "from einjit import cache\nfor _ in range(3): cache.default().put('f' * 64, cache.Entry(b'', {}))"
    done = run_python("-W", "always", "-c", code, EINJIT_CACHE_DIR=str(tmp_path / "file"))
    assert done.returncode == 0
    assert done.stderr.count("EinjitWarning") == 1
    assert "EINJIT_CACHE_DIR" in done.stderr

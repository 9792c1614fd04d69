"""The levels of options: process, block, thread, asyncio task; the environment; bad values."""

from __future__ import annotations

import asyncio
import importlib
import os
import threading

import pytest

from einjit.options import OptionError, Options, current, options
from tests.subprocesses import run_code, run_python

module = importlib.import_module("einjit.options")  # the package's attribute of that name is the function


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Options as a new process has them, with an environment of the test's own."""
    for name in [name for name in os.environ if name.startswith("EINJIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(module, "_environment", None)
    monkeypatch.setattr(module, "_process", None)
    monkeypatch.setattr(module, "_layers", [])


def in_thread(function):
    """What `function()` returns in a new thread."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join(30)
    return results[0]


def test_defaults():
    assert current() == Options(module.available_threads(), None, True, "tiny", 512 * 2**20)
    assert current().threads >= 1


def test_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("EINJIT_THREADS", " 3 ")
    monkeypatch.setenv("EINJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("EINJIT_HANDOVER", "Unsupported")
    monkeypatch.setenv("EINJIT_DISK_CACHE", "off")
    assert current() == Options(3, str(tmp_path), False, "unsupported")


def test_empty_variables_count_as_not_set(monkeypatch):
    expected = current()
    monkeypatch.setattr(module, "_environment", None)
    monkeypatch.setattr(module, "_process", None)
    for name in module.NAMES:
        monkeypatch.setenv(f"EINJIT_{name.upper()}", "")
    assert current() == expected


def test_environment_is_read_once(monkeypatch):
    monkeypatch.setenv("EINJIT_THREADS", "3")
    assert current().threads == 3
    monkeypatch.setenv("EINJIT_THREADS", "4")
    options(handover="unsupported")
    assert current().threads == 3


@pytest.mark.parametrize("name, value, text", [
    ("EINJIT_THREADS", "0",
     "The environment variable EINJIT_THREADS cannot be '0': it must be an integer of 1 or more."),
    ("EINJIT_THREADS", "many",
     "The environment variable EINJIT_THREADS cannot be 'many': it must be an integer of 1 or more."),
    ("EINJIT_HANDOVER", "never",
     "The environment variable EINJIT_HANDOVER cannot be 'never': it must be 'tiny' or 'unsupported'."),
    ("EINJIT_DISK_CACHE", "maybe",
     "The environment variable EINJIT_DISK_CACHE cannot be 'maybe': it must be true (1, true, yes, on) or"
     " false (0, false, no, off)."),
])
def test_bad_environment(monkeypatch, name, value, text):
    monkeypatch.setenv(name, value)
    for use in (current, options, lambda: options(cache_dir="x")):
        with pytest.raises(OptionError) as caught:
            use()
        assert str(caught.value) == text
    monkeypatch.delenv(name)
    assert current() == Options()  # the failed calls have left nothing behind


@pytest.mark.parametrize("changes, text", [
    ({"threads": 0}, "The option threads cannot be 0: it must be an integer of 1 or more."),
    ({"threads": True}, "The option threads cannot be True: it must be an integer of 1 or more."),
    ({"threads": 1.5}, "The option threads cannot be 1.5: it must be an integer of 1 or more."),
    ({"threads": None}, "The option threads cannot be None: it must be an integer of 1 or more."),
    ({"cache_dir": 7}, "The option cache_dir cannot be 7: it must be a path."),
    ({"cache_dir": ""}, "The option cache_dir cannot be '': it must be a path."),
    ({"handover": "never"}, "The option handover cannot be 'never': it must be 'tiny' or 'unsupported'."),
    ({"result_memory": -1}, "The option result_memory cannot be -1: it must be a number of bytes, 0 or more."),
    ({"handover": None}, "The option handover cannot be None: it must be 'tiny' or 'unsupported'."),
    ({"disk_cache": None}, "The option disk_cache cannot be None: it must be true (1, true, yes, on) or"
                           " false (0, false, no, off)."),
    ({"cachedir": "x"},
     "einjit has no option 'cachedir': the options are threads, cache_dir, disk_cache, handover, result_memory."),
    ({"threads": 5, "handover": ""}, "The option handover cannot be '': it must be 'tiny' or 'unsupported'."),
])
def test_bad_changes(changes, text):
    before = current()
    with pytest.raises(ValueError) as caught:
        options(**changes)
    assert str(caught.value) == text
    assert type(caught.value) is OptionError
    assert current() == before


def test_values_are_normalised(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    options(cache_dir="below", disk_cache=0)
    assert current().cache_dir == str(tmp_path / "below")
    assert current().disk_cache is False
    options(cache_dir=tmp_path / "other", disk_cache="yes")
    assert current().cache_dir == str(tmp_path / "other")
    assert current().disk_cache is True
    options(cache_dir="~/kernels")
    assert current().cache_dir == str(tmp_path / "home" / "kernels")
    options(cache_dir=None)
    assert current().cache_dir is None


def test_plain_call_sets_for_every_thread():
    options(threads=7)
    assert current().threads == 7
    assert in_thread(current).threads == 7
    options(handover="unsupported")
    assert (current().threads, current().handover) == (7, "unsupported")


def test_block_sets_and_restores():
    before = current()
    with options(threads=7, handover="unsupported") as inside:
        assert inside == current() == Options(7, None, True, "unsupported")
        with options(threads=8):
            assert (current().threads, current().handover) == (8, "unsupported")
        assert current().threads == 7
    assert current() == before


def test_block_restores_after_an_exception():
    before = current()
    with pytest.raises(KeyError):
        with options(threads=7):
            raise KeyError
    assert current() == before


def test_block_is_not_seen_by_other_threads():
    before = current()
    with options(threads=7):
        assert in_thread(current) == before


def test_plain_call_in_a_block_lasts_as_long_as_the_block():
    before = current()
    with options(threads=7):
        options(handover="unsupported")
        assert (current().threads, current().handover) == (7, "unsupported")
        with options(threads=8):
            options(threads=9)
            assert current().threads == 9
        assert (current().threads, current().handover) == (7, "unsupported")
    assert current() == before


def test_plain_call_elsewhere_survives_a_block():
    with options(threads=7):
        in_thread(lambda: options(threads=8, handover="unsupported"))
        assert (current().threads, current().handover) == (7, "tiny")
    assert (current().threads, current().handover) == (8, "unsupported")


def test_entering_takes_back_its_own_call_alone():
    """Calls of two threads, entered in any order, leave the process's options as they were."""
    before = current()
    first = options(threads=7)
    second = options(threads=8)
    assert current().threads == 8
    with second:
        assert current().threads == 8
        assert in_thread(current).threads == 7
        with first:
            assert current().threads == 7
        assert in_thread(current) == before
    assert current() == before


def test_setting_made_in_a_block_is_taken_back_on_entering():
    with options(threads=7):
        setting = options(threads=8)
        assert current().threads == 8
        with setting:
            assert current().threads == 8
        assert current().threads == 7


def test_a_setting_can_be_used_again_and_in_many_threads():
    setting = options(threads=7)
    barrier = threading.Barrier(4)
    seen = []

    def use():
        for _ in range(50):
            with setting:
                barrier.wait(30)
                seen.append(current().threads)
        seen.append(current().threads == module.available_threads())

    with setting:  # entered once, so that its call no longer counts as a plain one
        pass
    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen.count(7) == 200
    assert seen.count(True) == 4


def test_many_plain_calls_do_not_pile_up():
    kept = options(threads=7)
    for count in range(2, 50):
        options(threads=count)
    assert len(module._layers) <= 3
    assert current().threads == 49
    assert kept.threads == 7


def test_asyncio_tasks_have_their_own_blocks():
    async def use(threads, mine, other):
        with options(threads=threads):
            mine.set()
            await other.wait()
            return current().threads

    async def main():
        one, two = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(use(7, one, two), use(8, two, one))

    assert asyncio.run(main()) == [7, 8]


def test_reading_and_printing():
    options(threads=7, cache_dir="/kernels")
    seen = options()
    assert (seen.threads, seen.handover, seen.disk_cache) == (7, "tiny", True)
    assert repr(seen) == (
        "Options(threads=7, cache_dir='/kernels', disk_cache=True, handover='tiny', result_memory=536870912)")
    with pytest.raises(AttributeError, match="no option 'thread'"):
        seen.thread  # noqa: B018


def test_options_are_values():
    with pytest.raises(AttributeError):
        current().threads = 3


def test_new_process_reads_its_environment():
    code = "from einjit.options import options; print(options())"
    assert "threads=5" in run_code(code, EINJIT_THREADS="5")
    failed = run_python("-c", code, EINJIT_THREADS="-1")
    assert failed.returncode != 0
    assert "EINJIT_THREADS cannot be '-1'" in failed.stderr

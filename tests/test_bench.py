"""The benchmark harness: its cases are what they say, wrong results are caught, a run prints and saves."""

from __future__ import annotations

import ctypes
import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest

import einjit
from bench import chart, cli, gpu, latency, machine, measure, peers, report, summary
from bench.cases import DTYPES, Case, reference
from bench.suites import SUITES
from tests.subprocesses import run_python

MATMUL = Case("matmul", "ij,jk->ik", {"i": 5, "j": 7, "k": 6}, "float32", "test")
PEAKS = machine.Peaks(1, {"float32": 2e9, "float64": 1e9}, triad=1e9, read=2e9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_cases_are_valid(suite, dtype):
    cases = suite.cases(dtype)
    assert len({case.name for case in cases}) == len(cases) > 0
    for case in cases:
        assert case.sizes.keys() == set("".join(case.terms)) >= set(case.output)
        assert not case.twin or case.twin in {other.name for other in cases}
        small = case.shrunk(3)
        result = np.einsum(small.equation, *small.operands())
        assert result.shape == small.shape(small.output) and result.dtype == dtype
        assert reference(small, small.operands()).error(result) <= 1


def test_tccg_is_whole():
    official = {dtype: {case.name: case for case in SUITES["tccg"].cases(dtype, "200MB")}
                for dtype in ("float32", "float64")}
    for dtype, cases in official.items():
        assert len(SUITES["tccg"].cases(dtype, "16MB")) == 48
        assert len(cases) == 24
    # As published: the first by its sizes, the whole set by its work.
    assert official["float32"]["01 abc-bda-dc"].sizes == {"a": 384, "b": 384, "c": 24, "d": 384}
    assert round(sum(case.flops for case in official["float32"].values()) / 1e10) == 391
    assert round(sum(case.flops for case in official["float64"].values()) / 1e10) == 122


def test_random_contractions_have_the_work_that_they_are_named_after_and_never_change():
    cases = [case for case in SUITES["random"].cases("float64") if case.twin]
    by_name = {case.name: case for case in SUITES["random"].cases("float64")}
    assert cases == [case for case in SUITES["random"].cases("float64") if case.twin]
    assert max(abs(case.flops / by_name[case.twin].flops - 1) for case in cases) < 0.5
    assert {len(term) for case in cases for term in case.terms} >= {2, 3, 4, 5}


def test_work_and_traffic_of_a_case():
    assert MATMUL.flops == 2 * 5 * 6 * 7
    assert MATMUL.bytes == 4 * (35 + 42 + 30)
    assert replace(MATMUL, dtype="complex64").flops == 8 * 5 * 6 * 7
    assert replace(MATMUL, equation="ij->i").flops == 35
    assert replace(MATMUL, equation="ij,ij->ij").flops == 35
    chain = Case("", "ij,jk,kl->il", dict.fromkeys("ijkl", 10), "float32", "")
    assert chain.flops == 2 * 2 * 10**3
    diagonal = Case("", "ii->i", {"i": 10}, "float64", "")
    assert diagonal.bytes == 8 * 20


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "int32"])
@pytest.mark.parametrize("extent", [20, 700])  # the larger one is checked on a sample
def test_a_wrong_corner_is_caught(dtype, extent):
    case = Case("", "ij,jk->ik", {"i": 80, "j": extent, "k": 90 * extent // 20}, dtype, "")
    operands = case.operands()
    expected = reference(case, operands)
    result = np.einsum(case.equation, *operands, optimize=True)
    assert expected.values.size < result.size or extent == 20
    assert expected.error(result) <= 1
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        wrong = result.copy()
        wrong[corner] += wrong.dtype.type(1)
        assert expected.error(wrong) > 1
    if wrong.dtype.kind == "f":
        wrong[-1, -1] = np.nan
        assert expected.error(wrong) == np.inf


class Faulty(peers.NumPy):
    name = "faulty"

    def prepare(self, case, operands, out):
        return lambda: np.einsum(case.equation, *operands) + 1


def test_a_peer_that_is_wrong_or_refuses_is_reported_and_is_never_the_best():
    found = {"numpy": peers.NumPy(1), "np.einsum": peers.NumPyPlain(1), "faulty": Faulty(1)}
    row = report.timed_row(measure.time_case(MATMUL, found, 0.001), PEAKS)
    assert row["wrong"].keys() == {"faulty"} and row["refused"] == {}
    assert report.best_ratio(row, "numpy")[0] == "np.einsum"
    huge = Case("", "ij,jk,kl->il", dict.fromkeys("ijkl", 2000), "float32", "")
    with pytest.raises(peers.TooSlow, match="1.6e[+]13 points over 3 operands"):
        found["np.einsum"].prepare(huge, huge.operands(), None)


def test_every_round_has_an_order_of_its_own(monkeypatch):
    turns = []
    monkeypatch.setattr(measure, "_turn", lambda runner, seconds, sweep: turns.append(runner.name) or 0.01)
    measure._rounds([measure.Runner(name, print) for name in "abcde"], 0.055, 1, None)
    rounds = ["".join(turns[at:at + 5]) for at in range(0, 30, 5)]
    assert all(sorted(one) == list("abcde") for one in rounds) and len(set(rounds)) == 6


class Slow(peers.NumPy):
    """Its calls take, by a clock that a test moves, the seconds that it is made with."""

    def __init__(self, took, clock):
        self.took, self.clock, self.calls = took, clock, 0

    def prepare(self, case, operands, out):
        def call():
            self.calls += 1
            self.clock[0] += self.took
            return np.einsum(case.equation, *operands)
        return call


@pytest.mark.parametrize("seconds, calls", [
    ({"subject": 3.0, "peer": 3.5}, {"subject": 2, "peer": 2}),     # slow ones: to check, and to time
    ({"subject": 1.0, "peer": 9.0}, {"subject": 3, "peer": 1}),     # far behind: the check has to do
    ({"subject": 0.1, "peer": 0.4}, {"subject": 6, "peer": 3}),     # one in its turn is enough if it is long
    ({"subject": 0.1, "peer": 1.5}, {"subject": 6, "peer": 1}),     # very far behind
])
def test_slow_calls_are_not_repeated(monkeypatch, seconds, calls):
    clock = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    slow = {name: Slow(took, clock) for name, took in seconds.items()}
    row = measure.time_case(MATMUL, slow, 0.3)
    assert {name: peer.calls for name, peer in slow.items()} == calls
    assert row.seconds == pytest.approx(seconds)


@pytest.mark.parametrize("dtype", SUITES["dtypes"].dtypes)
def test_cases_in_every_dtype_are_right(dtype):
    with einjit.options(threads=1):
        found = {name: peers.PEERS[name](1) for name in ("einjit", "np.einsum")}
        one_each = {case.family: case for case in SUITES["dtypes"].cases(DTYPES[dtype])}
        for case in (one_each[family] for family in ("matmul", "to int64") if family in one_each):
            row = measure.time_case(case.shrunk(9), found, 0.0)
            assert not row.wrong and "einjit" not in row.refused
            assert case.bytes > 0 and case.new_output().dtype == (case.result or case.dtype)


def test_a_case_with_an_out_writes_there():
    case = Case("", "ij->ji", {"i": 4, "j": 6}, "float64", "", out=True)
    operands, out = case.operands(), case.new_output()
    with einjit.options(threads=1):  # the peer's own options end with this block
        for name in ("numpy", "opt_einsum", "einjit", "einjit.compile"):
            out[...] = 0
            peers.PEERS[name](1).prepare(case, operands, out)()
            np.testing.assert_array_equal(out, operands[0].T)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_peak_loop_does_the_multiply_adds_it_counts(dtype):
    engine, loop = machine._compile_fma(dtype, 2, 3)
    numbers = np.full(4, 0.5, dtype)
    loop(2, numbers.ctypes.data_as(ctypes.c_void_p))
    # Three chains start at x/2, x/3, x/4 and run a = a x + x twice.
    chains = [((0.5 / n) * 0.5 + 0.5) * 0.5 + 0.5 for n in (2, 3, 4)]
    np.testing.assert_allclose(numbers, [0.5, 0.5, sum(chains), sum(chains)], rtol=1e-6)
    del engine


def test_a_case_is_rated_by_what_bounds_it():
    assert PEAKS.limit(2 * 10**9, 10**8, 0.5, "float32") == ("FMA", 1.0)
    assert PEAKS.limit(10**8, 10**9, 0.5, "float64") == ("triad", 1.0)
    assert PEAKS.limit(10**8, 10**9, 0.01, "float64") == ("read", 0.5)
    assert PEAKS.limit(2 * 10**9, 10**8, 0.5, "complex64") == ("FMA", 1.0)
    assert PEAKS.limit(2 * 10**9, 10**9, 0.5, "int32") == ("triad", 1.0)  # no peak was measured


ROWS = [
    {"name": name, "equation": "ij,jk->ik", "sizes": {}, "dtype": "float32", "family": "matmul", "out": False,
     "twin": "", "flops": 10**9, "bytes": 10**6, "limit": "FMA", "least": 0.25,
     "seconds": {"einjit": 0.5, "numpy": other, "torch": 4.0},
     "refused": {"jax": "TypeError: no"}, "wrong": {}, "strided": ["torch"]}
    for name, other in (("first", 0.5), ("second", 2.0))
]
RESULT = report.Result(
    "square", "rate", "2026-01-02T03:04:05Z", "einjit", {"threads": 1},
    {"cpu": "some CPU", "llvm_cpu": "znver9", "commit": "abc", "python": "3.14", "versions": {}, "blas": []},
    {"flops": {"float32": 4e9}, "triad": 1e9, "read": 1e9}, {"pytblis": "No module named 'pytblis'"}, ROWS)


def test_a_report_shows_ratios_means_and_what_went_wrong(capsys, monkeypatch):
    monkeypatch.setattr(report, "show", lambda *table: print(report.plain_table(*table)))
    report.print_result(RESULT)
    printed = capsys.readouterr().out.splitlines()
    lines = [line.split() for line in printed]
    assert ["first", "500", "ms", "2.0", "GF/s", "0.50", "FMA", "1.00", "8.00°", "1.00", "numpy"] in lines
    assert ["matmul", "2", "0.50", "2.00", "1.00", "first", "2.00", "8.00"] in lines
    assert "left out: pytblis (No module named 'pytblis')" in printed
    assert "refused: jax on first, second: TypeError: no" in printed


STRUGGLING = replace(RESULT, date="2026-01-03T00:00:00Z", options={"threads": 2}, rows=[
    {**ROWS[0], "dtype": "float64", "seconds": {"einjit": 0.5, "einjit.compile": 0.1, "numpy": 0.4, "torch": 1.0}},
    {**ROWS[1], "dtype": "float64", "seconds": {"einjit": 0.5, "numpy": 0.1, "torch": 0.25}, "wrong": {"numpy": 9.0}},
    {**ROWS[0], "name": "third", "dtype": "float64", "seconds": {"numpy": 0.1}, "refused": {"einjit": "no"}},
])
LATENCY = report.Result(
    "latency", "latency", RESULT.date, "einjit", {"threads": 1}, RESULT.machine, {}, {},
    [{"name": "first compile: one", "seconds": 0.25, "cpu": 0.2}, {"name": "first compile: two", "seconds": 0.5,
                                                                   "cpu": 0.4},
     {"name": "import", "seconds": 0.04, "cpu": None}])


def test_a_summary_has_means_leasts_and_the_cases_behind():
    first, second = summary.summarise([RESULT, LATENCY, STRUGGLING])
    assert (first.title, first.cases, first.at) == ("square float32", 2, "first")
    assert (first.best, first.least, first.share) == pytest.approx((2.0, 1.0, 0.5))
    assert first.peers == pytest.approx({"numpy": 2.0, "torch": 8.0}) and first.behind == ()
    assert (second.title, second.cases, second.at) == ("square float64, 2 threads", 3, "second")
    # A wrong result is no peer's, and a compiled handle is the subject's own.
    assert (second.best, second.least) == pytest.approx((0.4 ** 0.5, 0.5))
    assert second.peers == pytest.approx({"numpy": 0.8, "torch": 1.0})
    assert [(case.case, case.peer) for case in second.behind] == [("second", "torch"), ("first", "numpy")]


def test_speedups_are_of_runs_without_other_libraries(tmp_path):
    rows = [{**ROWS[0], "name": name, "limit": limit, "seconds": {"einjit": own, "einjit.alone": alone}}
            for name, limit, own, alone in (("short", "FMA", 0.002, 0.0018), ("long", "FMA", 0.01, 0.018),
                                            ("longer", "FMA", 0.02, 0.04), ("bytes", "triad", 0.01, 0.01))]
    alone = replace(RESULT, options={"threads": 2}, rows=rows)
    busy = [{**row, "seconds": {"einjit": 1.0, "einjit.alone": 0.1, "numpy": 9.0}} for row in rows]
    beside = replace(RESULT, options={"threads": 2}, rows=busy, date="2026-02-01T00:00:00Z")
    (gain,) = summary.speedups([RESULT, alone, beside])
    assert (gain.title, gain.cases, gain.at) == ("square float32, 2 threads", 4, "short")
    assert (gain.mean, gain.least, gain.least_long) == pytest.approx(((0.9 * 1.8 * 2) ** 0.25, 0.9, 1.8))
    (standing,) = [standing for standing in summary.summarise([alone, beside]) if standing.threads == 2]
    assert standing.behind == () and list(standing.peers) == ["numpy"] and standing.best == pytest.approx(9)
    assert alone.save(tmp_path).name.startswith("square-2threads-alone-")


def test_the_library_on_one_thread_runs_on_one(monkeypatch):
    alone = object.__new__(peers.EinjitAlone)       # without setting options for the whole process
    alone.library, threads, einsum = einjit, [], einjit.einsum

    def noting_threads(*args, **keywords):
        threads.append(einjit.options().threads)
        return einsum(*args, **keywords)

    monkeypatch.setattr(einjit, "einsum", noting_threads)
    with einjit.options(threads=4):
        result = alone.prepare(MATMUL, MATMUL.operands(), None)()
        assert einjit.options().threads == 4
    assert threads == [1]
    assert reference(MATMUL, MATMUL.operands()).error(result) <= 1


def test_the_latest_run_of_a_case_counts():
    again = replace(RESULT, date="2026-02-01T00:00:00Z", rows=[{**ROWS[0], "seconds": {"einjit": 0.5, "numpy": 1.0}}])
    for runs in ([RESULT, again], [again, RESULT]):
        (standing,) = summary.summarise(runs)
        assert (standing.cases, standing.best, standing.least) == pytest.approx((2, 8 ** 0.5, 2.0))


def test_families_have_standings_of_their_own():
    other = replace(RESULT, suite="tccg", options={"size": "16MB"}, rows=[{**ROWS[0], "family": "ccsd"}])
    found = summary.families([RESULT, STRUGGLING, other])
    assert {name: len(standings) for name, standings in found.items()} == {"square matmul": 2, "tccg 16MB ccsd": 1}


def test_the_summary_as_markdown(tmp_path, capsys):
    paths = [str(result.save(tmp_path)) for result in (RESULT, STRUGGLING, LATENCY)]
    assert cli.main(["report", *paths, "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| suite | cases | share of limit | best peer | least | below 1 | numpy | torch |" in lines
    assert "| square float32 | 2 | 0.50 | 2.00 | 1.00 | 0 | 2.00 | 8.00 |" in lines
    assert "| first compile | 500 ms |" in lines
    assert "- square float64, 2 threads, 2 of 3: second 0.5 (torch), first 0.8 (numpy)" in lines


def test_all_is_every_suite_and_tccg_at_both_sizes():
    runs = cli.wanted_runs(cli.parse(["all"]), SUITES)
    assert {name for name, _ in runs} == {*SUITES, "latency"}
    assert [size for name, size in runs if name == "tccg"] == ["16MB", "200MB"]
    assert cli.wanted_runs(cli.parse(["tccg", "--size", "200MB"]), SUITES) == [("tccg", "200MB")]


def test_a_run_of_everything_is_saved_summed_up_and_drawn(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(cli, "RESULTS", tmp_path)
    monkeypatch.setattr(latency, "measure", lambda: [latency.Figure("import", 0.04, None)])
    monkeypatch.setattr(machine, "measure_peaks", lambda threads: PEAKS)
    arguments = ["all", "--subject", "numpy", "--peers", "np.einsum", "--dtype", "f32", "--shrink", "4",
                 "--filter", "^ij,jk->ik (4x4x4|64x64x64)$|^matmul 50$", "--repeat-time", "0", "--save"]
    assert cli.run(cli.parse(arguments)) == 0
    saved = {re.sub(r"-\d{4}-.*", "", path.name) for path in tmp_path.glob("*.json")}
    assert saved == {*SUITES, "latency", "tccg-16MB", "tccg-200MB"} - {"tccg"}
    assert "small float32" in capsys.readouterr().out.split("summary: ")[1]
    assert "small matmul" in (tmp_path / "chart.svg").read_text()


def test_a_saved_result_reads_back(tmp_path):
    path = RESULT.save(tmp_path)
    assert path.name == "square-2026-01-02T030405Z-znver9.json"
    assert report.read(path) == RESULT
    path.write_text("[]")
    with pytest.raises(ValueError, match="holds no result"):
        report.read(path)


def test_report_refuses_what_it_cannot_read(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_a_chart_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    assert chart.draw([RESULT], tmp_path / "chart.svg")
    assert "numpy" in (tmp_path / "chart.svg").read_text()
    assert not chart.draw([replace(RESULT, rows=[])], tmp_path / "none.svg")
    assert chart.draw_families([RESULT, STRUGGLING], tmp_path / "many.svg")
    assert "square matmul" in (tmp_path / "many.svg").read_text()
    assert not chart.draw_families([LATENCY], tmp_path / "none.svg")


def test_the_libraries_find_a_clean_environment(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    wanted = cli.environment(2)
    assert "OPENBLAS_CORETYPE" not in wanted and "OPENBLAS_L2_SIZE" not in wanted
    assert wanted["OMP_NUM_THREADS"] == wanted["EINJIT_THREADS"] == "2"


def test_a_run_with_numpy_as_the_subject():
    done = run_python("-m", "bench", "small", "--subject", "numpy", "--peers", "c_einsum", "--dtype", "f32",
                      "--filter", "^matmul$", "--shrink", "4", "--repeat-time", "0.001",
                      OPENBLAS_CORETYPE="Haswell")
    assert done.returncode == 0, done.stderr
    assert "small float32: geometric means" in done.stdout
    assert re.search(r"ij,jk->ik 64x64x64 cut to 4 +[\d.]+ [nµ]s°? ", done.stdout)
    assert "WRONG" not in done.stdout


@pytest.mark.parametrize("arguments, word", [
    (["nosuch"], "nosuch"), (["square", "--peers", "nosuch"], "nosuch"),
    (["square", "--filter", "("], "regular expression"), (["square", "--threads", "0"], "1 or more"),
])
def test_wrong_usage_says_so(arguments, word, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert word in capsys.readouterr().err


def test_list_names_every_suite(capsys):
    assert cli.main(["--list"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {*SUITES, "latency", "all"}


def test_tccg_json_holds_only_what_is_used():
    keys = {key for entry in json.loads((cli.ROOT / "bench" / "tccg.json").read_text()) for key in entry}
    assert keys == {"name", "columns", "equation", "group", "in_24", "sizes"}


# -- on a GPU ----------------------------------------------------------------------------------------------

class HostCupy:
    """What the benchmark takes of CuPy, on arrays in host memory."""

    asarray, asnumpy, einsum = staticmethod(np.asarray), staticmethod(np.asarray), staticmethod(np.einsum)

    class cuda:
        @staticmethod
        def get_elapsed_time(begin, end) -> float:
            return 20.0     # milliseconds, whatever was done

        class Event:
            def record(self) -> None: ...

            def synchronize(self) -> None: ...


def test_a_case_on_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    row = gpu.time_case(MATMUL, 2, HostCupy)
    assert row.seconds["einjit"] == 2e-3 and not row.wrong
    assert row.refused["cupy"].startswith("ModuleNotFoundError")
    monkeypatch.setattr(einjit, "einsum", lambda *args: np.ones((5, 6)))
    assert gpu.time_case(MATMUL, 1, HostCupy).wrong["einjit"] > 1


def test_without_cupy_there_is_no_benchmark_on_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(SystemExit) as stopped:
        gpu.main(["square"])
    assert str(stopped.value) == "this benchmark needs CuPy: pip install cupy-cuda13x"

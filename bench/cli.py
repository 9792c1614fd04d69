"""`python -m bench`: choose suites, peers and dtypes; time; print; save."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results"

# These make OpenBLAS pretend to be on another processor.
HARMFUL = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_DEBUG_CPU_TYPE", "MKL_ENABLE_INSTRUCTIONS")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
                    "TBLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NPROC", "EINJIT_THREADS")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 where the subject got a result wrong or refused a case, 2 for wrong usage.

    What reads the environment on import must find it right, so the work is done in a process that has it so.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = parse(argv)
    if arguments.suites[:1] == ["report"]:
        return report([Path(name) for name in arguments.suites[1:]], arguments.chart, arguments.markdown)
    if arguments.list or not arguments.suites:
        list_suites()
        return 0 if arguments.list else 2
    wanted = environment(arguments.threads)
    if wanted != dict(os.environ):
        return subprocess.call([sys.executable, "-m", "bench", *argv], env=wanted)
    pin(arguments.threads)
    return run(arguments)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    from .cases import DTYPES
    from .peers import PEERS
    from .suites import SUITES, TCCG_SIZES

    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Time einjit beside other libraries. See bench/README.md.")
    known = (*SUITES, "latency", "all")
    add = parser.add_argument
    add("suites", nargs="*", metavar="SUITE",
        help=f"{', '.join(known)}; or: report FILE..., which prints saved results")
    add("--list", action="store_true", help="say what the suites are, and stop")
    add("--dtype", action="append", choices=DTYPES, help="again for more; default: the suite's own, mostly f32 and f64")
    add("--subject", default="einjit", choices=PEERS, help="whom the others are compared with")
    add("--peers", help=f"comma-separated, of {', '.join(PEERS)}; default: the suite's own list")
    add("--threads", type=positive, default=1, help="of every library; 1 also pins the process to a core. With "
        "`--peers einjit.alone`: what they gain")
    add("--size", choices=TCCG_SIZES, default=TCCG_SIZES[0], help="of TCCG's largest tensor")
    add("--filter", type=regex, metavar="RE", help="only cases whose name, family or equation matches")
    add("--repeat-time", type=float, default=0.3, metavar="S", help="seconds for each peer on each case")
    add("--shrink", type=positive, metavar="N", help="no extent above N: a quick look, not a result")
    add("--out", action="store_true", help="every result goes into an array in C order that exists")
    add("--cold", action="store_true", help="empty the caches before every call")
    add("--save", action="store_true", help="write bench/results/SUITE-DATE-CPU.json")
    add("--chart", type=Path, metavar="FILE",
        help="draw a chart, .png or .svg: of one suite its cases, of more the means of their families")
    add("--markdown", action="store_true", help="of report: print the summary alone, as Markdown")
    arguments = parser.parse_args(argv)
    if arguments.suites[:1] != ["report"]:
        for name in arguments.suites:
            if name not in known:
                parser.error(f"there is no suite {name!r}: choose from {', '.join(known)}")
    for name in (arguments.peers or "").split(","):
        if name and name not in PEERS:
            parser.error(f"there is no peer {name!r}: choose from {', '.join(PEERS)}")
    return arguments


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None


def list_suites() -> None:
    from .suites import SUITES

    for suite in SUITES.values():
        print(f"{suite.name:9} {len(suite.cases('float32')):3} cases  {suite.about}")
    print(f"{'latency':9}            first compile, from disk, first result, import; in fresh processes")
    print(f"{'all':9}            every one of them")


# -- the process -----------------------------------------------------------------------------------------

def environment(threads: int) -> dict[str, str]:
    """os.environ as the libraries should find it when they are imported."""
    wanted = {name: value for name, value in os.environ.items() if name not in HARMFUL}
    wanted.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    wanted["JAX_PLATFORMS"] = "cpu"
    wanted["JAX_ENABLE_X64"] = "1"
    if threads == 1:
        wanted["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    wanted["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    return wanted


def pin(threads: int) -> None:
    """Stay on as many cores as there are threads: the last ones, for the first serve interrupts most."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


# -- runs ------------------------------------------------------------------------------------------------

def run(arguments: argparse.Namespace) -> int:
    from .report import print_result
    from .suites import SUITES
    from .summary import print_summary

    results, sound = [], True
    for name, size in wanted_runs(arguments, SUITES):
        result = run_latency(arguments) if name == "latency" else run_suite(SUITES[name], size, arguments)
        print_result(result)
        if arguments.save:
            print(f"saved: {result.save(RESULTS)}", flush=True)
        results.append(result)
        failed = [{*row.get("wrong", ()), *row.get("refused", ())} for row in result.rows]
        sound &= not any(result.subject in names for names in failed)
    print_summary(results)
    picture = arguments.chart or (RESULTS / "chart.svg" if is_all(arguments) and arguments.save else None)
    if picture:
        chart(results, picture)
    return 0 if sound else 1


def is_all(arguments: argparse.Namespace) -> bool:
    return "all" in arguments.suites


def wanted_runs(arguments: argparse.Namespace, suites) -> list[tuple[str, str]]:
    """Suites and the size that TCCG has there; everything has it in both."""
    from .suites import TCCG_SIZES

    if not is_all(arguments):
        return [(name, arguments.size) for name in arguments.suites]
    first, *others = TCCG_SIZES
    return [*((name, first) for name in suites), *(("tccg", size) for size in others), ("latency", first)]


def run_suite(suite, size: str, arguments: argparse.Namespace):
    from .cases import DTYPES
    from .machine import measure_peaks
    from .measure import time_case
    from .peers import load
    from .report import timed_row

    peers = [name for name in (arguments.peers.split(",") if arguments.peers else suite.peers) if name]
    found, absent = load([arguments.subject, *peers], arguments.threads)
    if arguments.subject in absent:
        raise SystemExit(f"the subject {arguments.subject} is not here: {absent[arguments.subject]}")
    peaks = measure_peaks(arguments.threads)
    cases = [case for dtype in arguments.dtype or suite.dtypes
             for case in suite.cases(DTYPES[dtype], size) if chosen(case, arguments.filter)]
    rows = []
    for number, case in enumerate(cases, 1):
        note(f"{suite.name} {number}/{len(cases)} {case.dtype} {case.name}")
        case = case.shrunk(arguments.shrink) if arguments.shrink else case
        case = replace(case, out=case.out or arguments.out)
        timed = time_case(case, found, arguments.repeat_time, arguments.threads, arguments.cold or suite.cold)
        rows.append(timed_row(timed, peaks))
    note("")
    return result_of(suite.name, suite.unit, size, arguments, asdict(peaks), absent, rows)


def run_latency(arguments: argparse.Namespace):
    from .latency import measure

    rows = [asdict(figure) for figure in measure()]
    return result_of("latency", "latency", arguments.size, arguments, {}, {}, rows)


def result_of(suite: str, unit: str, size: str, arguments: argparse.Namespace, peaks: dict, absent: dict, rows: list):
    from .machine import describe
    from .report import Result

    options = {"threads": arguments.threads, "size": size, "repeat_time": arguments.repeat_time,
               "out": arguments.out, "cold": arguments.cold, "shrink": arguments.shrink,
               "filter": arguments.filter.pattern if arguments.filter else None}
    date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Result(suite, unit, date, arguments.subject, options, describe(), peaks, absent, rows)


def chosen(case, pattern: re.Pattern[str] | None) -> bool:
    return pattern is None or any(pattern.search(text) for text in (case.name, case.family, case.equation))


def note(text: str) -> None:
    """Progress, on one line of a terminal; written between timings only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def report(files: Sequence[Path], picture: Path | None, as_markdown: bool) -> int:
    from .report import print_result, read
    from .summary import markdown, print_summary

    try:
        results = [read(path) for path in files]
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if as_markdown:
        print(markdown(results))
    else:
        for result in results:
            print_result(result)
        print_summary(results)
    if picture:
        chart(results, picture)
    return 0 if files else 2


def chart(results: Sequence, path: Path) -> None:
    from .chart import draw, draw_families

    draw = draw if len(results) == 1 else draw_families
    try:
        print(f"chart: {path}" if draw(results, path) else "nothing to draw")
    except ImportError:
        print("no chart: matplotlib is not installed")

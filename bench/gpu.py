"""einjit beside CuPy (cuBLAS, or cuTENSOR with CUPY_ACCELERATORS=cutensor) and PyTorch on a GPU: `python -m bench.gpu
square tccg`. Times are the device's, by its events, of calls that follow one another; the fastest of many rounds, the
libraries in turn."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from .cases import DTYPES, Case
from .machine import Peaks, describe
from .measure import Row
from .report import Result, print_result, timed_row
from .suites import SUITES, TCCG_SIZES

SUITES_HERE = ("square", "skinny", "tccg", "random", "batched", "nary", "memory")
CALLS = 10          # between two events
TOLERANCE = 1e-2    # of the largest element, beside the same in double precision: a rough look, tests are finer

Call = Callable[[], object]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suites and print their tables. Raises `SystemExit`, with a sentence, without a device or CuPy."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("suites", nargs="+", choices=SUITES_HERE)
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="again for more; default: f32")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--save", action="store_true", help="write bench/results/gpu-SUITE-DATE-ARCHITECTURE.json")
    arguments = parser.parse_args(argv)
    cupy = device_library()
    for suite in arguments.suites:
        result = run_suite(suite, arguments, cupy)
        print_result(result)
        if arguments.save:
            print(f"saved: {result.save(Path(__file__).parent / 'results')}")
    return 0


def device_library():
    """CuPy, with a device to use."""
    try:
        import cupy
    except ImportError:
        raise SystemExit("this benchmark needs CuPy: pip install cupy-cuda13x") from None
    try:
        cupy.cuda.Device().use()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise SystemExit(f"there is no GPU here: {error}") from None
    return cupy


def run_suite(name: str, arguments: argparse.Namespace, cupy) -> Result:
    peaks, arch = peaks_of(cupy)
    rows = [timed_row(time_case(case, arguments.rounds, cupy), peaks)
            for dtype in arguments.dtype or ["f32"] for case in SUITES[name].cases(DTYPES[dtype], TCCG_SIZES[0])]
    date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Result(f"gpu-{name}", SUITES[name].unit, date, "einjit", {"rounds": arguments.rounds},
                  {**describe(), "llvm_cpu": arch}, asdict(peaks), {}, rows)


def peaks_of(cupy) -> tuple[Peaks, str]:
    """Of the device, by einjit's table, which is of one device for each compute capability."""
    from einjit.machine import gpu

    capability = cupy.cuda.Device().compute_capability
    device = gpu((int(capability[:-1]), int(capability[-1])))
    flops = {"float32": device.flops32, "float64": device.flops64}
    return Peaks(1, flops, device.bandwidth, device.bandwidth), device.arch


def time_case(case: Case, rounds: int, cupy) -> Row:
    operands = case.operands()
    arrays = [cupy.asarray(x) for x in operands]
    wide = "complex128" if arrays[0].dtype.kind == "c" else "float64"
    exact = cupy.asnumpy(cupy.einsum(case.equation, *(a.astype(wide) for a in arrays)))
    row = Row(case)
    calls: dict[str, Call] = {}
    for name, make in PEERS.items():
        try:
            call = make(case.equation, arrays)
            error = np.abs(cupy.asnumpy(cupy.asarray(call())) - exact).max() / max(np.abs(exact).max(), 1e-30)
        except Exception as reason:     # a library that is not here, or does not take this case
            row.refused[name] = f"{type(reason).__name__}: {reason}"
            continue
        if not error < TOLERANCE:
            row.wrong[name] = float(error / TOLERANCE)
        calls[name] = call
    for _ in range(rounds):
        for name, call in calls.items():
            row.seconds[name] = min(row.seconds.get(name, np.inf), seconds(call, cupy))
    return row


def seconds(call: Call, cupy) -> float:
    """Of one call, on the device."""
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    for _ in range(CALLS):
        call()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(begin, end) / 1e3 / CALLS


def _einjit(equation: str, arrays) -> Call:
    import einjit

    return lambda: einjit.einsum(equation, *arrays)


def _cupy(equation: str, arrays) -> Call:
    import cupy

    return lambda: cupy.einsum(equation, *arrays, optimize=True)


def _torch(equation: str, arrays) -> Call:
    import torch

    tensors = [torch.from_dlpack(a) for a in arrays]
    return lambda: torch.einsum(equation, *tensors)


PEERS = {"einjit": _einjit, "cupy": _cupy, "torch": _torch}

if __name__ == "__main__":
    sys.exit(main())

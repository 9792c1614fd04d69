"""What proves that a suite ran on einjit: its functions, counted, and the line that a plugin ends with."""

from __future__ import annotations

import functools
from collections.abc import Callable

import einjit

_calls = 0


def counted(function: Callable) -> Callable:
    @functools.wraps(function)
    def call(*args, **kwargs):
        global _calls
        _calls += 1
        return function(*args, **kwargs)

    return call


def pytest_terminal_summary(terminalreporter) -> None:
    reasons = ", ".join(f"{count} for {reason}" for reason, count in einjit.stats().handed_over.items())
    terminalreporter.write_line(f"einjit: {_calls} calls; handed over: {reasons or 'none'}")

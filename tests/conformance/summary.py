"""The line that every conformance plugin ends with."""

from __future__ import annotations

import einjit


def pytest_terminal_summary(terminalreporter) -> None:
    """What proves that einjit was called, and how often it called NumPy in turn."""
    stats = einjit.stats()
    terminalreporter.write_line(f"einjit: {stats.calls} calls, handed over {sum(stats.handed_over.values())}")

"""einjit side by side with other libraries: `python -m bench SUITE`. See bench/README.md."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m bench ARGV` (default: sys.argv[1:]); returns the exit code."""
    from .cli import main

    return main(argv)

"""`python -m einjit` and the `einjit` script: the command line, if what it needs is installed."""

from __future__ import annotations

import sys

CLI_PACKAGES = ("click", "rich")


def main() -> None:
    try:
        from .cli import cli
    except ModuleNotFoundError as error:
        if error.name not in CLI_PACKAGES:
            raise
        sentence = f"einjit: the command line needs {error.name}: run `pip install 'einjit[cli]'`."
        print(sentence, file=sys.stderr)
        sys.exit(2)
    cli(prog_name="einjit")


if __name__ == "__main__":
    main()

"""The command line: demo, explain, bench, cache.

Exit codes: 0 all went well, 1 einjit refused the input or a demo result was wrong, 2 wrong usage.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import rich  # noqa: F401 (the demo's; missing, it must be missed before the first command starts)

import einjit

from .errors import EinjitError

SCALAR = "()"


class Shape(click.ParamType):
    """512x256, 512,256 or () for a scalar; a plain number is a vector."""

    name = "shape"

    def convert(self, value, param, ctx) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        if value == SCALAR:
            return ()
        sizes = re.split("[x,]", value.strip("()"))
        if not all(size.isdigit() for size in sizes):
            self.fail(f"{value!r} is no shape; write 512x256, or () for a scalar.", param, ctx)
        return tuple(int(size) for size in sizes)


class DType(click.ParamType):
    """The name of a NumPy dtype."""

    name = "dtype"

    def convert(self, value, param, ctx) -> np.dtype:
        try:
            return np.dtype(value)
        except TypeError:
            self.fail(f"NumPy knows no dtype {value!r}; try float32.", param, ctx)


class Capability(click.ParamType):
    """A GPU's compute capability: 8.0."""

    name = "capability"

    def convert(self, value, param, ctx) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"[0-9]+\.[0-9]+", value):
            self.fail(f"{value!r} is no compute capability; write 8.0.", param, ctx)
        major, minor = value.split(".")
        return int(major), int(minor)


class Commands(click.Group):
    """A group whose commands end with a sentence and exit code 1 where einjit raises its own error."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except EinjitError as error:
            click.echo(f"einjit: {error}", err=True)
            ctx.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(einjit.__version__, message="einjit %(version)s")
def cli() -> None:
    """A compiler for einsum: an equation goes in, a Numba kernel comes out.

    \b
    Exit codes: 0 success
                1 einjit refused the input, or a result of the demo was wrong
                2 wrong usage
    """


@cli.command()
@click.option("--dtype", type=DType(), default="float32", show_default=True,
              help="What the operands are made of.")
@click.option("--scale", type=click.FloatRange(min=0.001), default=1.0, show_default=True,
              help="Multiplies every extent: 0.1 for a quick look.")
def demo(dtype: np.dtype, scale: float) -> None:
    """Compile and run the everyday equations, check each, and show one table.

    Every result is compared with NumPy's in double precision. NumPy's time stands beside einjit's.
    """
    from .demo import run

    if dtype.kind not in "fc":
        raise click.BadParameter("the demo runs on floating-point dtypes.", param_hint="--dtype")
    sys.exit(0 if run(dtype, scale) else 1)


@cli.command()
@click.argument("equation")
@click.argument("shapes", type=Shape(), nargs=-1)
@click.option("--dtype", type=DType(), default="float64", show_default=True,
              help="The dtype of every operand.")
@click.option("--target", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True,
              help="What to compile for; cuda needs no GPU.")
@click.option("--cc", type=Capability(), help="The GPU's compute capability, such as 8.0.")
def explain(equation: str, shapes: tuple[tuple[int, ...], ...], dtype: np.dtype, target: str,
            cc: tuple[int, int] | None) -> None:
    """Show every stage of compiling EQUATION for operands of SHAPES.

    \b
    einjit explain "ij,jk->ik" 512x256 256x128 --dtype float32
    einjit explain "i,i,->" 100 100 "()"
    einjit explain "ij,jk->ik" 512x256 256x128 --target cuda --cc 8.0
    """
    if cc and target != "cuda":
        raise click.UsageError("--cc is for --target cuda.")
    click.echo(einjit.explain(equation, *(np.zeros(shape, dtype) for shape in shapes), target=target, cc=cc))


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure against other libraries (in a source checkout only).

    All ARGUMENTS, --help too, go to the bench package.
    """
    checkout = find_bench()
    if checkout is None:
        raise click.UsageError("the benchmarks are not part of the installed package; "
                               "run this in a checkout of the source, where the folder bench/ is.")
    sys.exit(subprocess.call([sys.executable, "-m", "bench", *arguments], cwd=checkout))


def find_bench() -> Path | None:
    """The checkout that holds bench/: the one this package lies in, else the current folder."""
    for folder in (Path(__file__).resolve().parent.parent, Path.cwd()):
        if (folder / "bench" / "__main__.py").is_file() and (folder / "einjit" / "cli.py").is_file():
            return folder
    return None


@cli.group(invoke_without_command=True)
@click.pass_context
def cache(ctx: click.Context) -> None:
    """Show or empty the folder of compiled kernels (EINJIT_CACHE_DIR)."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(info)


@cache.command()
def info() -> None:
    """Where it is, how many kernels it holds and how large they are (the default)."""
    click.echo(einjit.cache.info())


@cache.command()
def clear() -> None:
    """Delete every compiled kernel; they are compiled again when they are needed."""
    click.echo(f"Deleted {einjit.cache.clear()} kernels from {einjit.cache.info().path}")

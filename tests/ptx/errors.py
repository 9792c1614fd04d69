"""What is wrong with a kernel, or with this executor: every fault has a class of its own."""

from __future__ import annotations


class PtxError(Exception):
    """A kernel cannot be run, or did something that a GPU would not forgive."""


class UnsupportedPtx(PtxError):
    """Correct PTX, as far as anyone knows, which the executor does not know."""


class OutOfBounds(PtxError):
    """A byte outside of what was allocated, or a store to a read-only array."""


class Misaligned(PtxError):
    """An address that is no multiple of the access's size."""


class Uninitialised(PtxError):
    """A read of shared memory that nobody wrote, or that a cp.async in flight will write."""


class Race(PtxError):
    """Two threads at the same bytes with nothing that orders them."""


class DivergentBarrier(PtxError):
    """A barrier that part of a block never reaches."""


class DivergentWarp(PtxError):
    """An operation of a whole warp that part of the warp does not take part in."""


class Endless(PtxError):
    """A kernel that does not come to an end."""

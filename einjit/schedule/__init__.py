"""Schedules: transformations of a loop nest as values (`opts`), and the policy that picks them (`choose`)."""
from .opts import (
    Ahead, Copy, Fuse, Opt, Pack, Parallel, Prefetch, Reorder, Schedule, Split, Stage, Stream, Unroll, Vectorize, apply)

__all__ = ["Ahead", "Copy", "Fuse", "Opt", "Pack", "Parallel", "Prefetch", "Reorder", "Schedule", "Split", "Stage",
           "Stream", "Unroll", "Vectorize", "apply"]

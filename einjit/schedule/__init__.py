"""Schedules: transformations of a loop nest as values (`opts`), and the policy that picks them (`choose`)."""
from .opts import Copy, Fuse, Opt, Pack, Parallel, Reorder, Schedule, Split, Stream, Unroll, Vectorize, apply

__all__ = ["Copy", "Fuse", "Opt", "Pack", "Parallel", "Reorder", "Schedule", "Split", "Stream", "Unroll", "Vectorize",
           "apply"]

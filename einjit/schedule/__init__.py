"""Schedules: transformations of a loop nest as values (`opts`), and the policy that picks them (`choose`)."""
from .opts import Fuse, Opt, Pack, Parallel, Reorder, Schedule, Split, Stream, Unroll, Vectorize, apply

__all__ = ["Fuse", "Opt", "Pack", "Parallel", "Reorder", "Schedule", "Split", "Stream", "Unroll", "Vectorize",
           "apply"]

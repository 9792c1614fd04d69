"""Schedules: transformations of a loop nest as values (`opts`), and the policy that picks them (`choose`)."""
from .opts import (
    Ahead, Fuse, Opt, Pack, Parallel, Reorder, Schedule, Split, Stage, Stream, Unroll, Vectorize, apply)

__all__ = ["Ahead", "Fuse", "Opt", "Pack", "Parallel", "Reorder", "Schedule", "Split", "Stage", "Stream", "Unroll",
           "Vectorize", "apply"]

"""Schedules: transformations of a loop nest as values (`opts`), and the policies that pick them (`choose`, `gpu`)."""
from .opts import (
    Ahead, Bind, Copy, Fuse, Opt, Pack, Parallel, Prefetch, Reorder, Schedule, Share, Split, Stage, Stream, Unroll,
    Vectorize, apply)

__all__ = ["Ahead", "Bind", "Copy", "Fuse", "Opt", "Pack", "Parallel", "Prefetch", "Reorder", "Schedule", "Share",
           "Split", "Stage", "Stream", "Unroll", "Vectorize", "apply"]

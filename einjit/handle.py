"""What a compiled equation shows of itself, whatever it was compiled for."""
from __future__ import annotations

from .ir import LoopNest
from .machine import Gpu
from .schedule.opts import Schedule


class Handle:
    """Looks at `steps`: the compiled loop nests, in the order in which they run, each with its choice, nest and
    source."""

    steps: tuple
    device: Gpu | None = None       # that it was compiled for, if it was for a GPU

    @property
    def family(self) -> str:
        """What kind of loop nest was generated."""
        if len(self.steps) > 1:
            return f"{len(self.steps)} steps"
        return self.steps[0].choice.family if self.steps else "empty"

    @property
    def tiling(self) -> str:
        """Tiles and blocks, in words."""
        return "; ".join(dict.fromkeys(s.choice.tiling for s in self.steps))

    @property
    def nest(self) -> LoopNest | None:
        """The scheduled loop nest of the last step."""
        return self.steps[-1].nest if self.steps else None

    @property
    def schedule(self) -> Schedule:
        """The transformations of the last step, in order."""
        return self.steps[-1].choice.schedule if self.steps else ()

    @property
    def source(self) -> str:
        """The generated Numba source of the last step."""
        return self.steps[-1].source.text if self.steps else ""

    def explain(self) -> str:
        """Every stage, for people."""
        from .explaining import explain_kernel

        return explain_kernel(self)

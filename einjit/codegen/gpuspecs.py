"""What a GPU's threads do, described as values: generated source names these, and intrinsics are built from them."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..expr import Expr

SHARED_BYTES = 48 * 1024    # static shared memory of a block, on every GPU
PADDING = 4         # elements behind each row of a panel, so that rows begin in other banks of shared memory
SECTOR_CHUNKS = 2   # chunks of 16 bytes in a sector of memory: neighbouring threads read both


@dataclass(frozen=True)
class Element:
    """One element of the output: dtypes of the inputs, of the output and of the sum, and what is summed."""

    inputs: tuple[str, ...]
    out: str
    accumulator: str
    reduce: str
    body: Expr


@dataclass(frozen=True)
class Panel:
    """An operand's block in shared memory: `size` positions on the panel label x `depth` steps, one row a step.

    It is filled in chunks of `fragment` neighbours: along the serial label where the operand is contiguous in that
    (`turned`), else along the panel label; `vectors` says that a chunk is one access to memory. All `threads` take
    part. Of its `size` positions, each of `threads_across` threads computes with fragments that lie `part` apart.
    """

    dtype: str
    accumulator: str
    size: int
    depth: int
    fragment: int
    threads_across: int
    turned: bool
    vectors: bool
    threads: int

    @property
    def itemsize(self) -> int:
        return np.dtype(self.accumulator).itemsize

    @property
    def fragment_bytes(self) -> int:
        return self.fragment * self.itemsize

    @property
    def row_bytes(self) -> int:
        return (self.size + PADDING) * self.itemsize

    @property
    def bytes(self) -> int:
        return self.depth * self.row_bytes

    # -- computing: which positions a thread has -------------------------------------------------------

    @property
    def part(self) -> int:
        """Positions from one fragment of a thread to its next."""
        return self.threads_across * self.fragment

    @property
    def owned(self) -> tuple[int, ...]:
        """A thread's positions, counted from its first."""
        return tuple(start + i for start in range(0, self.size, self.part) for i in range(self.fragment))

    # -- filling: what a thread copies -----------------------------------------------------------------

    @property
    def passes(self) -> int:
        return self.size * self.depth // self.fragment // self.threads

    @property
    def serial_step(self) -> int:
        """Steps from one pass to the next."""
        return self.depth // self.passes

    @property
    def positions_on_panel(self) -> int:
        """Addresses that a chunk needs along the panel label."""
        return 1 if self.turned or self.vectors else self.fragment

    @property
    def positions_on_serial(self) -> int:
        return self.fragment if self.turned and not self.vectors else 1

    def places(self, thread: str) -> dict[str, str]:
        """As text, the position on the panel and on the serial label of a thread's first chunk. Along the serial label
        two neighbouring threads read one sector, and the next two the next position: their elements then go to
        other banks."""
        if not self.turned:
            across = self.size // self.fragment
            return {"panel": f"{thread} % {across} * {self.fragment}", "serial": f"{thread} // {across}"}
        along = min(SECTOR_CHUNKS, self.depth // self.fragment)
        serial = f"({thread} % {along} + {thread} // {along * self.size} * {along}) * {self.fragment}"
        return {"panel": f"{thread} // {along} % {self.size}", "serial": serial}


@dataclass(frozen=True)
class SharedTile:
    """A block of products: the panels of a and b, and the output's dtype. `vectors`: fragments of its rows are written
    in one access."""

    a: Panel
    b: Panel
    out: str
    vectors: bool

    @property
    def accumulator(self) -> str:
        return self.a.accumulator


@dataclass(frozen=True)
class MatrixPanel:
    """An operand's block in shared memory for tensor cores, `size` x `depth`, in chunks of 16 bytes. Rows are along
    the label in which the operand is contiguous: the serial one (`along_serial`), or the panel's. `warp`: positions
    that a warp has. `is_rows`: whether it holds the rows of the product, not the columns."""

    dtype: str
    size: int
    depth: int
    warp: int
    along_serial: bool
    is_rows: bool
    threads: int

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def chunk(self) -> int:
        return 16 // self.itemsize

    @property
    def row_bytes(self) -> int:
        """With 16 bytes behind each row: the 8 rows of a small matrix then begin in other banks."""
        return (self.depth if self.along_serial else self.size) * self.itemsize + 16

    @property
    def bytes(self) -> int:
        return (self.size if self.along_serial else self.depth) * self.row_bytes

    # -- filling -----------------------------------------------------------------------------------------

    @property
    def passes(self) -> int:
        return self.size * self.depth // self.chunk // self.threads

    @property
    def panel_step(self) -> int:
        """Positions from one pass to the next, where rows are along the serial label."""
        return self.size // self.passes

    @property
    def serial_step(self) -> int:
        """Steps from one pass to the next, where rows are along the panel."""
        return self.depth // self.passes

    @property
    def pass_bytes(self) -> int:
        return (self.panel_step if self.along_serial else self.serial_step) * self.row_bytes

    def places(self, thread: str) -> dict[str, str]:
        """As text, the position on the panel and on the serial label of a thread's first chunk. Rows along the serial
        label are short: those that threads fill at once are four apart, which lie in other banks."""
        chunks = (self.depth if self.along_serial else self.size) // self.chunk
        along, row = f"{thread} % {chunks} * {self.chunk}", f"{thread} // {chunks}"
        if not self.along_serial:
            return {"panel": along, "serial": row}
        return {"panel": f"{row} % 2 * 4 + {row} // 2 % 4 + {row} // 8 * 8", "serial": along}

    def offset(self, panel: str, serial: str) -> str:
        """As text, where an element lies."""
        row, column = (panel, serial) if self.along_serial else (serial, panel)
        return f"{row} * {self.row_bytes} + {column} * {self.itemsize}"

    # -- reading: four 8 x 8 matrices at a time, of which each lane names a row ----------------------------

    def lane_offset(self, lane: str, warp: str) -> str:
        """As text, where the row lies that a lane names of the warp's first 16 positions x 16 steps. The matrices of
        rows go on along the panel first, those of columns along the serial label."""
        near, far = f"{lane} // 8 % 2 * 8", f"{lane} // 16 * 8"
        panel, serial = (near, far) if self.is_rows else (far, near)
        if self.along_serial:
            panel = f"{lane} % 8 + {panel}"
        else:
            serial = f"{lane} % 8 + {serial}"
        return self.offset(f"({warp} + {panel})", f"({serial})")

    def moved(self, position: int, step: int) -> int:
        """Bytes to other positions and steps of the warp."""
        row, column = (position, step) if self.along_serial else (step, position)
        return row * self.row_bytes + column * self.itemsize


@dataclass(frozen=True)
class MatrixTile:
    """A block of products on tensor cores, summed in float32: the panels of a and b, and the output's dtype. `pairs`:
    two neighbours of its rows are written in one access."""

    a: MatrixPanel
    b: MatrixPanel
    out: str
    pairs: bool

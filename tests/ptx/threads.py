"""The threads of the blocks that run together, one lane each: which block and warp they belong to, and what the
hardware's registers hold for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WARP = 32
Extents = tuple[int, int, int]


@dataclass(frozen=True)
class Threads:
    """`block`: which of the blocks that run together; `warp`: numbered through all of them; `slot`: the lane's place
    if all warps were full; `number`: numbered through the launch."""

    per_block: int
    block: np.ndarray
    warp: np.ndarray
    slot: np.ndarray
    number: np.ndarray
    special: dict[str, np.ndarray]

    @property
    def count(self) -> int:
        return self.block.size

    @property
    def warps(self) -> int:
        return int(self.warp[-1]) + 1

    @property
    def blocks(self) -> int:
        return int(self.block[-1]) + 1


def threads(grid: Extents, block: Extents, running: list[Extents], first: int, dynamic_shared: int) -> Threads:
    """Those of the blocks `running`, of which the first one is block number `first` of the launch."""
    size = int(np.prod(block))
    warps = -(-size // WARP)
    within = np.tile(np.arange(size), len(running))
    of_block = np.repeat(np.arange(len(running)), size)
    warp = of_block * warps + within // WARP
    special = {
        "laneid": within % WARP, "warpid": within // WARP, "dynamic_smem_size": np.full(within.size, dynamic_shared),
        "tid.x": within % block[0], "tid.y": within // block[0] % block[1], "tid.z": within // (block[0] * block[1]),
    }
    for axis, letter in enumerate("xyz"):
        special[f"ctaid.{letter}"] = np.array([position[axis] for position in running])[of_block]
        special[f"ntid.{letter}"] = np.full(within.size, block[axis])
        special[f"nctaid.{letter}"] = np.full(within.size, grid[axis])
    lane_bit = np.int64(1) << (within % WARP)
    full = np.int64(0xFFFFFFFF)
    special |= {"lanemask_eq": lane_bit, "lanemask_lt": lane_bit - 1, "lanemask_le": 2 * lane_bit - 1,
                "lanemask_ge": full & ~(lane_bit - 1), "lanemask_gt": full & ~(2 * lane_bit - 1)}
    return Threads(size, of_block, warp, warp * WARP + within % WARP, first * size + np.arange(within.size),
                   {name: values.astype(np.uint32) for name, values in special.items()})

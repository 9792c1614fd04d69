"""What accesses cost: 32-byte sectors of global memory, and wavefronts of shared memory, whose 32 banks of 4 bytes
serve one word each at a time. Addresses that lanes share count once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SECTOR = 32
BANKS = 32


@dataclass(frozen=True)
class Traffic:
    """What accesses took, what they would have taken at best, and the most that one took."""

    ideal: int = 0
    real: int = 0
    worst: int = 0

    @property
    def ratio(self) -> float:
        return self.real / self.ideal if self.ideal else 1.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.ideal + other.ideal, self.real + other.real, max(self.worst, other.worst))


def sectors(warp: np.ndarray, position: np.ndarray, size: int) -> Traffic:
    """Of one aligned access of `size` bytes a lane. At best the distinct bytes of a warp fill whole sectors."""
    span = int(position.max()) + 1
    touched = np.unique(warp * span + position // SECTOR)
    distinct = np.unique(warp * span + position)
    ideal = -(-np.bincount(distinct // span) * size // SECTOR)
    return Traffic(int(ideal.sum()), touched.size, int(np.bincount(touched // span).max()))


def wavefronts(slot: np.ndarray, offset: np.ndarray, size: int) -> Traffic:
    """Of one access of `size` bytes a lane. A warp goes at once; in halves for 8 bytes, in quarters for 16."""
    together = slot // (32 if size <= 4 else 16 if size == 8 else 8)
    words = max(1, size // 4)
    word = (offset[:, None] // 4 + np.arange(words)).ravel()
    group = np.repeat(together - together.min(), words)
    span = int(word.max()) + 1
    distinct = np.unique(group * span + word)
    group, bank = distinct // span, distinct % span % BANKS
    degree = np.bincount(group * BANKS + bank, minlength=BANKS * (int(group[-1]) + 1)).reshape(-1, BANKS).max(axis=1)
    return Traffic(int((degree > 0).sum()), int(degree.sum()), int(degree.max()))

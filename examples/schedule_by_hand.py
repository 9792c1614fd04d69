"""A schedule of your own, step by step, with the loop nest after each; then one that is refused."""

from __future__ import annotations

import numpy as np

import einjit
from einjit.errors import ScheduleError
from einjit.schedule import Pack, Parallel, Reorder, Split, Unroll, Vectorize

x, y = np.random.default_rng(0).random((2, 200, 200))
equation = "ij,jk->ik"

# i and k are kept, j is summed. The register tile is 4 x 8: 4 rows of i, 8 of k as 2 vectors of 4.
schedule = (
    Split("j", 128), Split("k", 96), Split("k", 8), Split("i", 4),
    Reorder(("j/128", "k/96", "i/4", "k/8", "j", "i", "k")),
    Unroll("i"), Vectorize("k", 4),
    Pack("b", at="k/96", panel="k", serial="j"),  # the block of y that all rows of x need
)
for count in range(len(schedule) + 1):
    try:
        kernel = einjit.compile(equation, x, y, schedule=schedule[:count])
    except ScheduleError as error:
        print(f"after {count} steps: {error}\n")
    else:
        print(f"after {count} steps:\n{kernel.nest}\n")

np.testing.assert_allclose(kernel(x, y), x @ y)
print(kernel.source)

try:
    einjit.compile(equation, x, y, schedule=(Parallel("j"),))
except ScheduleError as error:
    print(error)

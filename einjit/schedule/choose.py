"""Schedule policy: which transformations a contraction gets on a machine, and why.

Policy only: what is chosen is a tuple of transformations that `apply` checks. Two families:

* packed (`packed.py`): two operands with M, N and K and enough work to pay for packing;
* direct (`direct.py`; its own families in `reductions.py`, `contractions.py` and `maps.py`): everything else,
  from the operands as they lie, among it the products of matrices that are small or skinny (`unpacked.py`).
"""
from __future__ import annotations

from ..contraction import Contraction, Role
from ..expr import product
from ..machine import Cpu
from .choice import Choice
from .direct import direct
from .packed import packed, packing_pays
from .unpacked import lanes_unpacked


def normalised(c: Contraction) -> Contraction:
    """With operands exchanged, where that puts the output's contiguous dimension into N: stores are then
    whole vectors. Only for products, which commute."""
    if len(c.operands) != 2 or c.body != product(2):
        return c
    unit = c.unit(0)
    return c.swapped() if unit and c.role(c.dimension(unit)) is Role.M else c


def choose(c: Contraction, cpu: Cpu) -> Choice:
    """The policy's schedule for `c`, which `normalised` has been applied to."""
    lanes = lanes_unpacked(c, cpu)
    if lanes is None and packing_pays(c):
        return packed(c, cpu)
    return direct(c, cpu, lanes)

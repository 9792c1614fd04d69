"""The totals that a tile keeps in registers, one for each kept position and vector."""
from __future__ import annotations

from itertools import product
from typing import Callable

from llvmlite import ir

from .arith import identity
from .elements import Element, Lanes
from .irloops import choose, counted
from .specs import TileSpec
from .tile_places import Position
from .vectors import I64

Slot = tuple[Position, int]         # of one total: its position, 0 along reduced labels, and its vector
Values = dict[Slot, Lanes]


class Totals:
    """Which slots there are, and how all totals at once go through loops and branches, where LLVM wants a list."""

    def __init__(self, builder, spec: TileSpec, element: Element):
        self.builder, self.spec, self.element = builder, spec, element
        self.rows = list(product(*(range(w if kept else 1) for w, kept in zip(spec.widths, spec.kept))))
        self.slots = [(row, j) for row in self.rows for j in range(spec.vectors)]

    def slot(self, position: Position, j: int) -> Slot:
        """The total that a position counts into."""
        return tuple(i if kept else 0 for i, kept in zip(position, self.spec.kept)), j

    def identities(self) -> Values:
        return {slot: identity(self.element, self.spec.reduce, self.spec.lanes) for slot in self.slots}

    def chosen(self, condition: ir.Value | bool, yes: Callable[[], Values], no: Callable[[], Values]) -> Values:
        """The totals of `yes()` or of `no()`, each emitted on its own side of a branch."""
        return self._named(choose(self.builder, condition, lambda: self._listed(yes()), lambda: self._listed(no())))

    def counted(self, count: ir.Value, totals: Values, step: Callable[[ir.Value, Values], Values]) -> Values:
        """`for i in range(count): totals = step(i, totals)`."""
        def body(b, i, carried):
            return self._listed(step(i, self._named(carried)))

        return self._named(counted(self.builder, I64(0), count, 1, self._listed(totals), body))

    def _listed(self, totals: Values) -> list[ir.Value]:
        return [part for slot in self.slots for part in totals[slot].parts]

    def _named(self, values: list[ir.Value]) -> Values:
        n = self.element.components
        return {slot: Lanes(tuple(values[i * n:(i + 1) * n]), self.spec.lanes) for i, slot in enumerate(self.slots)}

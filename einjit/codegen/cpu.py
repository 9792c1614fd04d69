"""Scheduled loop nest -> Numba source for the CPU, which a person can read.

The loops are plain Python `for` loops on addresses and byte offsets; the innermost block is one register
tile and each pack one call, both intrinsics that the source names by value. Everything that does not
change code (extents, strides, block sizes) is a word of the parameter block `p`, so that one kernel serves
every shape which needs the same code.
"""
from __future__ import annotations

import hashlib
import re
import textwrap
from dataclasses import dataclass, fields

import numpy as np

from ..ir import TILE, Kind, Label, Loop, LoopNest, Pack, Tensor, tile_width
from .specs import ABSENT, AFFINE, PACKED, TABLE, UNIT, PackSpec, TileSpec, TileTensor


@dataclass(frozen=True)
class Word:
    """One int64 of the parameter block. `what`: lo, hi (range of a label), step (of its index-th loop),
    stride (of a tensor along a label), digits (description of a fused label), table (of offsets of a
    tensor along a label) or pack (buffer of a tensor); the last two are places in the workspace."""

    what: str
    label: str = ""
    tensor: str = ""
    index: int = 0

    @property
    def name(self) -> str:
        match self.what:
            case "step":
                return f"{self.label}_step{self.index}"
            case "stride" | "table":
                return f"{self.tensor}_{self.label}"
            case "pack":
                return f"{self.tensor}_panels"
        return f"{self.label}_{self.what}"


@dataclass(frozen=True)
class Source:
    """A kernel as text. `entry` is the function's name, which ends in a hash of the text; the function
    takes the address of the data pointers (output, inputs, workspace) and that of the words."""

    text: str
    entry: str
    words: tuple[Word, ...]


def emit(nest: LoopNest) -> Source:
    """Generate the kernel of a verified nest."""
    return _Emitter(nest).source()


def structure(nest: LoopNest) -> tuple:
    """All that the source of a nest depends on: nests that agree in it share one kernel."""
    labels = tuple((lb.name, lb.summed, len(lb.members) > 1) for lb in nest.labels)
    nodes = tuple(n if isinstance(n, Pack) else (n.label, n.kind, n.lanes, _literal_step(nest, n)) for n in nest.nodes)
    return labels, nest.tensors, nest.body, nest.reduce, nest.accumulator, nodes, nest.streamed


def _literal_step(nest: LoopNest, loop: Loop) -> int:
    """The step where it is part of the code: 1, or the register tile's extent (of a whole label: its own); else 0."""
    if loop.step == 1:
        return nest.label(loop.label).extent if nest.is_whole(loop.label) else 1
    loops = nest.loops_of(loop.label)
    return loop.step if loops[-1].kind in TILE and loop is loops[-2] else 0


def is_tabled(nest: LoopNest, label: Label) -> bool:
    """Whether positions on a label become offsets through a table: fused labels, and all labels of a nest
    with packs (packing walks tables, and one kernel then serves fused and plain groups)."""
    return len(label.members) > 1 or bool(nest.packs)


def absorbed(nest: LoopNest) -> Loop | None:
    """The loop that becomes part of the tile: a reduction around it, on its own label or by whole blocks of a
    summed vector label, so that partial results stay in registers."""
    outside = [n for n in nest.nodes if isinstance(n, Pack) or n.kind not in TILE]
    if not outside or isinstance(outside[-1], Pack):
        return None
    loop, vector = outside[-1], next((n for n in nest.loops if n.kind is Kind.VECTOR), None)
    label = nest.label(loop.label)
    if not label.summed:
        return None
    if is_tabled(nest, label) and loop is nest.loops_of(label.name)[0]:
        return None     # tables are filled by the outermost loop of a label, which must then be one
    if vector is not None and nest.label(vector.label).summed:
        return loop if loop.label == vector.label and not is_tabled(nest, label) else None
    return loop if loop.step == 1 else None


def keeps_partial_results(nest: LoopNest) -> bool:
    """Whether elements of the output are added to more than once, and so hold partial results in between."""
    in_tile = absorbed(nest)
    for label in nest.labels:
        block = label.extent
        for loop in nest.loops_of(label.name):
            if label.summed and loop is not in_tile and loop.kind not in TILE and loop.step < block:
                return True
            block = loop.step
    return False


@dataclass
class _Block:
    """Names of the first position and of the end of the block that a label's loops stand on."""

    start: str
    end: str


class _Emitter:
    def __init__(self, nest: LoopNest):
        self.nest = nest
        self.words: dict[Word, None] = {}
        self.lines: list[str] = []
        self.header: list[str] = []
        self.blocks = {lb.name: self._range(lb) for lb in nest.labels}
        self.tables: dict[str, str] = {}        # label -> first position of its offset tables
        self.packed: dict[str, tuple[_Block, _Block]] = {}
        self.tile = [n for n in nest.nodes if isinstance(n, Loop) and n.kind in TILE]
        self.vector = next((n for n in self.tile if n.kind is Kind.VECTOR), None)
        self.unrolled = [n for n in self.tile if n.kind is Kind.UNROLLED]
        self.absorbed = absorbed(nest)

    def _range(self, label: Label) -> _Block:
        if self.nest.is_whole(label.name):
            return _Block("0", str(label.extent))
        return _Block(self.word("lo", label.name), self.word("hi", label.name))

    # -- text ----------------------------------------------------------------------------------------

    def source(self) -> Source:
        depth = 1
        outside = self.nest.nodes[:len(self.nest.nodes) - len(self.tile)]
        for node in outside:
            if node is self.absorbed:
                continue
            depth = self._pack(node, depth) if isinstance(node, Pack) else self._loop(node, depth)
        self._tile(depth)
        if self.nest.streamed:
            self.line(1, "fence()")
        # Named after what the code computes, on the schedule's labels: equations that share code share names.
        terms = ["".join(t.labels) or "1" for t in (*self.nest.inputs, self.nest.out)]
        name = re.sub(r"\W+", "_", "_".join(terms))
        text = self._module()
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        entry = f"einsum_{name}_{self.nest.out.dtype}_{digest}"
        return Source(text.replace("@ENTRY@", entry), entry, tuple(self.words))

    def _module(self) -> str:
        pointers = ", ".join([t.name for t in self.nest.tensors] + ["work"])
        count = len(self.nest.tensors) + 1
        loads = [f"    {pointers} = {', '.join(f'word(ptrs, {i})' for i in range(count))}"]
        for i, w in enumerate(self.words):
            base = {"table": "work + ", "pack": "work + ", "digits": "p + "}.get(w.what, "")
            loads.append(f"    {w.name} = {base}word(p, {i})")
        return "\n".join([
            "from numba import njit", "",
            "from einjit.codegen.memory import fence, fill_offsets, greater, lesser, past_line, word",
            "from einjit.codegen.packing import packing",
            "from einjit.codegen.specs import PackSpec, TileSpec, TileTensor",
            "from einjit.codegen.tile import register_tile",
            "from einjit.expr import Binary, Const, Operand, Select, Unary", "",
            *self.header, "",
            "@njit(error_model='numpy')",
            "def @ENTRY@(ptrs, p):", *loads, *self.lines, ""])

    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def word(self, what: str, label: str = "", tensor: str = "", index: int = 0) -> str:
        w = Word(what, label, tensor, index)
        self.words[w] = None
        return w.name

    # -- loops ---------------------------------------------------------------------------------------

    def _loop(self, loop: Loop, depth: int) -> int:
        block, variable = self.blocks[loop.label], self.nest.variable(loop)
        step = self._step(loop)
        streamed = self.nest.streamed and loop.label == self.nest.out.unit
        first = self._line_start(loop, depth) if streamed else block.start
        self.line(depth, f"for {variable} in range({first}, {block.end}{'' if step == '1' else ', ' + step}):")
        depth += 1
        self.blocks[loop.label] = _Block(variable, f"{variable} + 1" if loop.step == 1 else f"{variable}_end")
        if loop.step > 1 and self._is_free_tile(loop):
            self._place_tile(loop, streamed, depth)
        elif loop.step > 1:
            self.line(depth, f"{variable}_end = lesser({variable} + {step}, {block.end})")
        if loop is self.nest.loops_of(loop.label)[0] and is_tabled(self.nest, self.nest.label(loop.label)):
            self._fill(loop, depth)
        return depth

    def _place_tile(self, loop: Loop, streamed: bool, depth: int) -> None:
        """Move a tile that lies over the edge inside, to be whole, and compute some positions twice. Measured
        on Zen 4, a transpose of rows of 28 took 21 ms so, and 33 with masks. Not where the output is streamed:
        lines just written past the caches would be fetched again."""
        variable, label = self.nest.variable(loop), loop.label
        lo, hi = self.word("lo", label), self.word("hi", label)
        start, end = f"{variable}_start", f"{variable}_end"
        inside, first = (variable, variable) if streamed else (f"lesser({variable}, {hi} - {loop.step})", start)
        self.line(depth, f"{start} = greater({inside}, {lo})")
        self.line(depth, f"{end} = lesser({first} + {loop.step}, {hi})")
        self.blocks[label] = _Block(start, end)

    def _is_free_tile(self, loop: Loop) -> bool:
        """Whether the register tile may lie anywhere along a loop's label: nothing is summed, no table read."""
        label = self.nest.label(loop.label)
        return (loop is self.nest.loops_of(label.name)[-2] and loop.step == tile_width(self.nest, label.name)
                and not is_tabled(self.nest, label) and not any(lb.summed for lb in self.nest.labels))

    def _line_start(self, loop: Loop, depth: int) -> str:
        """Where the loops over a streamed output's contiguous label begin: where its cache line does, so that
        all tiles but the first are aligned with lines."""
        out, start = self.nest.out, self.blocks[loop.label].start
        if loop is not self.nest.loops_of(loop.label)[0]:
            return start
        tabled = {lb.name for lb in self.nest.labels if is_tabled(self.nest, lb)}
        address = self._base(out, tabled - set(self.tables))
        past = f"past_line({address}, {np.dtype(out.dtype).itemsize})"
        # By less than a tile, so that the first one is not empty.
        self.line(depth, f"{loop.label}_line = {start} - {past} % {tile_width(self.nest, loop.label)}")
        return f"{loop.label}_line"

    def _step(self, loop: Loop) -> str:
        if _literal_step(self.nest, loop):
            return str(loop.step)
        return self.word("step", loop.label, index=self.nest.loops_of(loop.label).index(loop))

    def _fill(self, loop: Loop, depth: int) -> None:
        label, block, width = loop.label, self.blocks[loop.label], tile_width(self.nest, loop.label)
        end, count = block.end, f"{block.end} - {block.start}"
        if width > 1:
            # One tile more than the block has: its rows are asked for while the last tile is computed. Not if
            # that one lies over the block's end: what it has past it must be the last row again.
            end = f"lesser({block.end} + {width} * (({count}) % {width} == 0), {self.word('hi', label)})"
            count = f"({count} + {2 * width - 1}) // {width} * {width}"
        self.tables[label] = block.start
        digits = self.word("digits", label)
        for i, t in enumerate(self.nest.tensors):
            if label in t.labels:
                table = self.word("table", label, t.name)
                self.line(depth, f"fill_offsets({table}, {digits}, {i}, {block.start}, {end}, {count})")

    def _table(self, t: Tensor, label: str) -> str:
        """Address of the table entry for the first position of the label's current block."""
        name, start, origin = self.word("table", label, t.name), self.blocks[label].start, self.tables[label]
        return name if start == origin else f"{name} + 8 * ({start} - {origin})"

    # -- packs ---------------------------------------------------------------------------------------

    def _pack(self, pack: Pack, depth: int) -> int:
        t = self.nest.tensor(pack.tensor)
        function = f"pack_{t.name}"
        self.header += [f"{function} = packing({PackSpec(t.dtype, self.nest.accumulator, pack.width)})"]
        base = self._base(t, {pack.panel, pack.serial})
        panel, serial = self.blocks[pack.panel], self.blocks[pack.serial]
        self.packed[t.name] = (panel, serial)
        self.line(depth, f"{function}({self.word('pack', tensor=t.name)}, {base}, {self._table(t, pack.panel)}, "
                         f"{self._table(t, pack.serial)}, {panel.end} - {panel.start}, {serial.end} - {serial.start})")
        return depth

    # -- the register tile ---------------------------------------------------------------------------

    def _tile(self, depth: int) -> None:
        spec = self._tile_spec()
        self.header += [f"tile = register_tile({_text(spec)})"]
        values = self._tile_arguments()
        rows = textwrap.wrap(", ".join(values[name].replace(" ", "\0") for name in spec.arguments), 90,
                             break_long_words=False)
        self.line(depth, "tile((")
        for row in rows:
            self.line(depth + 1, row.replace("\0", " "))
        self.line(depth, "))")

    def _tile_spec(self) -> TileSpec:
        nest, lanes, width = self.nest, 1, 1
        if self.vector is not None:
            lanes, width = self.vector.lanes, tile_width(nest, self.vector.label)
        serial = ""
        if self.absorbed is not None:
            serial = "vector" if self.absorbed.step > 1 else "label"
        out, *inputs = (self._tile_tensor(t) for t in nest.tensors)
        return TileSpec(
            widths=tuple(tile_width(nest, u.label) for u in self.unrolled),
            kept=tuple(not nest.label(u.label).summed for u in self.unrolled),
            lanes=lanes, vectors=width // lanes,
            vector_kept=self.vector is None or not nest.label(self.vector.label).summed,
            serial=serial, inputs=tuple(inputs), out=out, accumulator=nest.accumulator,
            reduce=nest.reduce, body=nest.body,
            whole=tuple((place, nest.label(label).extent) for place, label in self._places().items()
                        if nest.is_whole(label)),
            streamed=nest.streamed)

    def _places(self) -> dict[str, str]:
        """The tile's labels by the names that its arguments have for them."""
        places = {f"u{i}": u.label for i, u in enumerate(self.unrolled)}
        if self.vector is not None:
            places["v"] = self.vector.label
        if self.absorbed is not None and self.absorbed.step == 1:
            places["s"] = self.absorbed.label
        return places

    def _tile_tensor(self, t: Tensor) -> TileTensor:
        serial = self.absorbed.label if self.absorbed is not None and self.absorbed.step == 1 else None
        dtype = self.nest.accumulator if t.name in self.packed else t.dtype
        return TileTensor(t.name, dtype, tuple(self._mode(t, u.label, self._unit_mode(t, u)) for u in self.unrolled),
                          self._mode(t, self.vector.label, UNIT) if self.vector else ABSENT,
                          self._mode(t, serial) if serial else ABSENT)

    def _mode(self, t: Tensor, label: str, unit: str = AFFINE) -> str:
        if label not in t.labels:
            return ABSENT
        if t.name in self.packed:
            return PACKED
        if is_tabled(self.nest, self.nest.label(label)):
            return TABLE
        return unit if t.unit == label else AFFINE

    def _unit_mode(self, t: Tensor, unrolled: Loop) -> str:
        """How an input moves along an unrolled label in which it is contiguous: by whole vectors, which are
        transposed in registers, where its lanes lie apart and the tile holds whole squares."""
        vector = self.vector
        if vector is None or vector.label not in t.labels or t is self.nest.out:
            return AFFINE
        return AFFINE if tile_width(self.nest, unrolled.label) % vector.lanes else UNIT

    def _tile_arguments(self) -> dict[str, str]:
        values, places = {"first": self._first()}, self._places()
        if "s" in places:
            block = self.blocks[self.absorbed.label]
            values["count"] = f"{block.end} - {block.start}"
        for place, label in places.items():
            block = self.blocks[label]
            values[f"{place}.left"] = f"{block.end} - {block.start}"
            for t in self.nest.tensors:
                if label in t.labels and t.name not in self.packed:
                    tabled = is_tabled(self.nest, self.nest.label(label))
                    values[f"{t.name}.{place}"] = self._table(t, label) if tabled else self._stride(t, label)
        for t in self.nest.tensors:
            values[t.name] = self._panel(t) if t.name in self.packed else self._base(t, set(places.values()))
        return values

    def _base(self, t: Tensor, moving: set[str]) -> str:
        """Address of a tensor's element at the current position; offsets of `moving` tabled labels are left
        to whoever walks their tables."""
        terms = [t.name]
        for label in t.labels:
            start = self.blocks[label].start
            if self.nest.is_whole(label):
                continue
            if not is_tabled(self.nest, self.nest.label(label)):
                terms.append(f"{start} * {self._stride(t, label)}")
            elif label not in moving:
                origin = self.tables[label]
                index = "0" if start == origin else f"{start} - {origin}"
                terms.append(f"word({self.word('table', label, t.name)}, {index})")
        return " + ".join(terms)

    def _panel(self, t: Tensor) -> str:
        """Address of the packed panel for the tile's first position on the panel label."""
        panel, serial = self.packed[t.name]
        label = next(p.panel for p in self.nest.packs if p.tensor == t.name)
        itemsize = np.dtype(self.nest.accumulator).itemsize
        rows = f"({self.blocks[label].start} - {panel.start})"
        return f"{self.word('pack', tensor=t.name)} + {rows} * ({serial.end} - {serial.start}) * {itemsize}"

    def _stride(self, t: Tensor, label: str) -> str:
        if t.unit == label:
            return str(np.dtype(t.dtype).itemsize)
        return self.word("stride", label, t.name)

    def _first(self) -> str:
        """Whether no earlier iteration has added to the tile's elements of the output."""
        conditions = []
        for label in self.nest.labels:
            if not label.summed or self.nest.is_whole(label.name):
                continue
            start, lo = self.blocks[label.name].start, self.word("lo", label.name)
            if start != lo:
                conditions.append(f"({start} == {lo})")
        return " & ".join(conditions) or "True"


def _text(spec: TileSpec) -> str:
    """The specification as a call, a field a line."""
    rows = []
    for field in fields(spec):
        value = getattr(spec, field.name)
        if value == field.default:
            continue
        if field.name == "inputs":
            tensors = ",\n        ".join(repr(t) for t in value)
            rows.append(f"    inputs=(\n        {tensors},\n    ),")
        else:
            rows.append(f"    {field.name}={value!r},")
    return "TileSpec(\n" + "\n".join(rows) + "\n)"

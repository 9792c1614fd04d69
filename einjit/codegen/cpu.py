"""Scheduled loop nest -> Numba source for the CPU, which a person can read.

The loops are plain Python `for` loops on addresses and byte offsets; the innermost block is one register
tile and each pack one call, both intrinsics that the source names by value. Everything that does not
change code (extents, strides, block sizes) is a word of the parameter block `p`, so that one kernel serves
every shape which needs the same code.
"""
from __future__ import annotations

import textwrap
from dataclasses import dataclass, fields

import numpy as np

from ..ir import TILE, Copy, Label, Loop, LoopNest, Pack, Tensor, tile_width
from .innermost import Innermost, is_tabled
from .source import IN_WORKSPACE, Source, Word
from .specs import PackSpec, TileSpec


def emit(nest: LoopNest) -> Source:
    """Generate the kernel of a verified nest."""
    return _Emitter(nest).source()


def structure(nest: LoopNest) -> tuple:
    """All that the source of a nest depends on: nests that agree in it share one kernel."""
    labels = tuple((lb.name, lb.summed, len(lb.members) > 1) for lb in nest.labels)
    nodes = tuple((n.label, n.kind, n.lanes, _literal_step(nest, n)) if isinstance(n, Loop) else n for n in nest.nodes)
    return (labels, nest.tensors, nest.body, nest.reduce, nest.accumulator, nodes, nest.streamed, nest.staged,
            nest.ahead, nest.prefetch)


def _literal_step(nest: LoopNest, loop: Loop) -> int:
    """The step where it is part of the code: 1, or the register tile's extent (of a whole label: its own); else 0."""
    if loop.step == 1:
        return nest.label(loop.label).extent if nest.is_whole(loop.label) else 1
    loops = nest.loops_of(loop.label)
    return loop.step if loops[-1].kind in TILE and loop is loops[-2] else 0


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
        self.ends: dict[Loop, str] = {}         # where the block ends that a loop walks
        self.copied: dict[str, dict[str, _Block]] = {}      # tensor -> the blocks of its copy, by label
        self.innermost = Innermost(nest)

    def _range(self, label: Label) -> _Block:
        if self.nest.is_whole(label.name):
            return _Block("0", str(label.extent))
        return _Block(self.word("lo", label.name), self.word("hi", label.name))

    # -- text ----------------------------------------------------------------------------------------

    def source(self) -> Source:
        depth = 1
        outside = self.nest.nodes[:len(self.nest.nodes) - len(self.innermost.tile)]
        for node in outside:
            if node is self.innermost.absorbed:
                continue
            depth = {Pack: self._pack, Copy: self._copy, Loop: self._loop}[type(node)](node, depth)
            name = node.name if isinstance(node, Loop) else ""
            if self.nest.staged and name == self.nest.staged.at:
                self._begin_block(depth)
                block_depth = depth
            if self.nest.ahead and name == self.nest.ahead:
                for t in self.nest.inputs:
                    self.line(depth, f"{t.name}_ahead = {self._ahead(t, node)}")
        self._tile(depth)
        if self.nest.staged:
            self.line(block_depth, "write_staged(out_block, out_shift, out_bytes)")
        if self.nest.streamed or self.nest.staged:
            self.line(1, "fence()")
        return Source.of(self.nest, self._module(), tuple(self.words))

    def _module(self) -> str:
        pointers = ", ".join([t.name for t in self.nest.tensors] + ["work"])
        count = len(self.nest.tensors) + 1
        loads = [f"    {pointers} = {', '.join(f'word(ptrs, {i})' for i in range(count))}"]
        for i, w in enumerate(self.words):
            base = {"digits": "p + "}.get(w.what, "work + " if w.what in IN_WORKSPACE else "")
            loads.append(f"    {w.name} = {base}word(p, {i})")
        return "\n".join([
            "from numba import njit", "",
            "from einjit.codegen.copying import row_copy",
            "from einjit.codegen.memory import fence, fill_offsets, greater, lesser, past_line, word",
            "from einjit.codegen.packing import packing",
            "from einjit.codegen.patches import packing_by_patches",
            "from einjit.codegen.specs import PackSpec, TileSpec, TileTensor",
            "from einjit.codegen.staging import stage_shift, staged_writer",
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
        label, block, variable = self.nest.label(loop.label), self.blocks[loop.label], self.nest.variable(loop)
        self.ends[loop] = block.end
        step = self._step(loop)
        streamed = self.nest.streamed and loop.label == self.nest.out.unit
        first = self._line_start(loop, depth) if streamed else block.start
        self.line(depth, f"for {variable} in range({first}, {block.end}{'' if step == '1' else ', ' + step}):")
        depth += 1
        self.blocks[loop.label] = _Block(variable, f"{variable} + 1" if loop.step == 1 else f"{variable}_end")
        if loop.step > 1 and (self._is_free_tile(loop) or self._is_streamed_tile(loop)):
            self._place_tile(loop, streamed, block if self.nest.staged else self._range(label), depth)
        elif loop.step > 1:
            self.line(depth, f"{variable}_end = lesser({variable} + {step}, {block.end})")
        if loop is self.nest.loops_of(loop.label)[0] and is_tabled(self.nest, label):
            self._fill(loop, depth)
        return depth

    def _place_tile(self, loop: Loop, streamed: bool, inside: _Block, depth: int) -> None:
        """Move a tile that lies over the edge inside, to be whole, and compute some positions twice. Measured
        on Zen 4, a transpose of rows of 28 took 21 ms so, and 33 with masks. Not where the output is streamed:
        lines just written past the caches would be fetched again."""
        variable = self.nest.variable(loop)
        start, end = f"{variable}_start", f"{variable}_end"
        moved = variable if streamed else f"lesser({variable}, {inside.end} - {loop.step})"
        self.line(depth, f"{start} = greater({moved}, {inside.start})")
        self.line(depth, f"{end} = lesser({variable if streamed else start} + {loop.step}, {inside.end})")
        self.blocks[loop.label] = _Block(start, end)

    def _is_free_tile(self, loop: Loop) -> bool:
        """Whether the register tile may lie anywhere along a loop's label: nothing is summed, no table read."""
        label = self.nest.label(loop.label)
        return (loop is self.nest.loops_of(label.name)[-2] and loop.step == tile_width(self.nest, label.name)
                and not is_tabled(self.nest, label) and not any(lb.summed for lb in self.nest.labels)
                and not self.nest.copies)   # which hold the current block alone

    def _is_streamed_tile(self, loop: Loop) -> bool:
        """Whether a loop is over the tiles of a streamed output's fused label: its only one, which fills the table."""
        label = self.nest.label(loop.label)
        return self.nest.streamed and loop.label == self.nest.out.unit and len(label.members) > 1

    def _line_start(self, loop: Loop, depth: int) -> str:
        """Where the loops over a streamed output's contiguous label begin: where its cache line does, so that
        all tiles but the first are aligned with lines."""
        out, start = self.nest.out, self.blocks[loop.label].start
        if loop is not self.nest.loops_of(loop.label)[0]:
            return start
        tabled = {lb.name for lb in self.nest.labels if is_tabled(self.nest, lb)}
        address = self._base(out, tabled - set(self.tables))
        if loop.label in tabled:
            address += f" + {start} * {np.dtype(out.dtype).itemsize}"
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
        padded = f"{block.end} - {block.start}"
        if width > 1:
            padded = f"({padded} + {width - 1}) // {width} * {width}"
        self.tables[label] = block.start
        digits = self.word("digits", label)
        for i, t in enumerate(self.nest.tensors):
            if label in t.labels:
                table = self.word("table", label, t.name)
                self.line(depth, f"fill_offsets({table}, {digits}, {i}, {block.start}, {block.end}, {padded})")

    def _table(self, t: Tensor, label: str) -> str:
        """Address of the table entry for the first position of the label's current block."""
        name, start, origin = self.word("table", label, t.name), self.blocks[label].start, self.tables[label]
        return name if start == origin else f"{name} + 8 * ({start} - {origin})"

    # -- packs ---------------------------------------------------------------------------------------

    def _pack(self, pack: Pack, depth: int) -> int:
        t = self.nest.tensor(pack.tensor)
        function, spec = f"pack_{t.name}", PackSpec(t.dtype, self.nest.accumulator, pack.width, pack.abreast)
        across = {pack.panel: "panel", pack.serial: "serial"}.get(t.across, "")
        made = f"packing_by_patches({spec}, {across!r})" if across else f"packing({spec})"
        self.header += [f"{function} = {made}"]
        base = self._base(t, {pack.panel, pack.serial})
        panel, serial = self.blocks[pack.panel], self.blocks[pack.serial]
        self.packed[t.name] = (panel, serial)
        arguments = [self.word("pack", tensor=t.name), base, self._table(t, pack.panel), self._table(t, pack.serial),
                     f"{panel.end} - {panel.start}", f"{serial.end} - {serial.start}"]
        if across:
            arguments += [self.blocks[t.across].start, self.word("apart", t.across, t.name),
                          self.word("extent", t.across, t.name)]
        self.line(depth, f"{function}({', '.join(arguments)})")
        return depth

    # -- a staged output ---------------------------------------------------------------------------

    def _begin_block(self, depth: int) -> None:
        """Where the block lies, and how far from it its buffer is."""
        out, itemsize = self.nest.out, np.dtype(self.nest.out.dtype).itemsize
        sizes = [f"({self.blocks[label].end} - {self.blocks[label].start}) * {self._stride(out, label)}"
                 for label in self.nest.staged.labels]
        together = [f"({self._stride(out, slower)} == {size})"
                    for slower, size in zip(self.nest.staged.labels, sizes[1:])] or ["True"]
        self.header += [f"write_staged = staged_writer({out.dtype!r})"]
        self.line(depth, f"out_block = {self._base(out, set())}")
        self.line(depth, f"out_bytes = {sizes[0]}")
        self.line(depth, f"out_shift = stage_shift({' & '.join(together)}, out_block, {itemsize}, "
                         f"{self.word('stage')})")

    def _ahead(self, t: Tensor, loop: Loop) -> str:
        """Bytes from what this iteration of a loop reads of a tensor to what the next one does; 0 for the last one
        that a table of offsets knows."""
        if loop.label not in t.labels:
            return "0"
        if not is_tabled(self.nest, self.nest.label(loop.label)):
            return f"{loop.step} * {self._stride(t, loop.label)}"
        if loop is self.nest.loops_of(loop.label)[0]:
            return "0"          # each iteration fills the table anew
        start, origin = self.blocks[loop.label].start, self.tables[loop.label]
        table = self.word("table", loop.label, t.name)
        following = f"lesser({start} + {loop.step}, {self.ends[loop]} - 1)"
        return f"word({table}, {following} - {origin}) - word({table}, {start} - {origin})"
    # -- copies --------------------------------------------------------------------------------------

    def _copy(self, copy: Copy, depth: int) -> int:
        """One loop a label, and rows copied inside them."""
        t, labels = self.nest.tensor(copy.tensor), self.nest.copied_labels(copy)
        function = f"copy_{t.name}"
        self.header += [f"{function} = row_copy({t.dtype!r})"]
        blocks = {label: self.blocks[label] for label in labels}
        source, target = [self._base(t, set())], [self.word("copy", tensor=t.name)]
        step, inside = self.word("row", tensor=t.name), depth
        for label in reversed(labels[:-1]):
            self.line(depth, f"{t.name}_{label}_step = {step}")
            step = f"{t.name}_{label}_step * ({blocks[label].end} - {blocks[label].start})"
        for label in labels[:-1]:
            variable, start = f"{t.name}_{label}_at", blocks[label].start
            self.line(inside, f"for {variable} in range({blocks[label].end} - {start}):")
            source.append(f"{variable} * {self._stride(t, label)}")
            target.append(f"{variable} * {t.name}_{label}_step")
            inside += 1
        row = blocks[copy.row]
        self.line(inside, f"{function}({' + '.join(target)}, {' + '.join(source)}, {row.end} - {row.start})")
        self.copied[t.name] = blocks
        return depth

    def _in_copy(self, t: Tensor) -> str:
        """Address, in the tensor's copy, of its element at the current position."""
        terms = [self.word("copy", tensor=t.name)]
        for label, block in self.copied[t.name].items():
            start = self.blocks[label].start
            if start != block.start:
                terms.append(f"({start} - {block.start}) * {self._stride(t, label)}")
        return " + ".join(terms)

    # -- the register tile ---------------------------------------------------------------------------

    def _tile(self, depth: int) -> None:
        spec = self.innermost.spec
        self.header += [f"tile = register_tile({_text(spec)})"]
        values = self._tile_arguments()
        rows = textwrap.wrap(", ".join(values[name].replace(" ", "\0") for name in spec.arguments), 90,
                             break_long_words=False)
        self.line(depth, "tile((")
        for row in rows:
            self.line(depth + 1, row.replace("\0", " "))
        self.line(depth, "))")

    def _tile_arguments(self) -> dict[str, str]:
        values, places = {"first": self._first()}, self.innermost.places
        if "s" in places:
            block = self.blocks[self.innermost.absorbed.label]
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
        if self.nest.staged:
            values[self.nest.out.name] += " + out_shift"
        if self.nest.ahead:
            values |= {f"{t.name}.ahead": f"{t.name}_ahead" for t in self.nest.inputs}
        if self.nest.prefetch:
            values |= {f"{t.name}.ahead": str(self.nest.prefetch) for t in self.nest.inputs}
        return values

    def _base(self, t: Tensor, moving: set[str]) -> str:
        """Address of a tensor's element at the current position; offsets of `moving` tabled labels are left
        to whoever walks their tables."""
        if t.name in self.copied:
            return self._in_copy(t)
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
        if label in self.copied.get(t.name, ()):
            return f"{t.name}_{label}_step"
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

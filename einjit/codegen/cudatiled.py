"""Kernels of products whose operands pass through shared memory."""
from __future__ import annotations

import numpy as np

from ..errors import ScheduleError
from ..ir import Kind, LoopNest, Share
from ..verify import blocks_inside, threads_of
from .cudaemitter import Access, Emitter
from .gpuspecs import Panel, SharedTile


class TiledEmitter(Emitter):
    """Both operands by way of shared memory, two blocks of each in turn: one is computed with while the next one is
    on its way."""

    intrinsics = "gputile"

    def __init__(self, nest: LoopNest, taken: Access):
        super().__init__(nest, taken)
        self.require_product()
        self.serial = nest.shares[0].serial
        self.bk = next(loop.step for loop in nest.loops_of(self.serial) if loop.kind is Kind.SERIAL)
        self.fragment = fragment_of(nest)
        self.threads = threads_of(nest)
        self.panels = {share.tensor: self._panel(share) for share in nest.shares}
        for name, panel in self.panels.items():
            _require_even_filling(name, panel)
        self.stage = sum(panel.bytes for panel in self.panels.values())
        self.starts = {}
        at = 0
        for name, panel in self.panels.items():
            self.starts[name] = at
            at += panel.bytes

    def _panel(self, share: Share) -> Panel:
        t = self.nest.tensor(share.tensor)
        loops = self.nest.loops_of(share.panel)
        thread = next(loop for loop in loops if loop.kind is Kind.THREAD)
        size = loops[0].step
        return Panel(t.dtype, self.nest.accumulator, size, self.bk, self.fragment, blocks_inside(self.nest, thread),
                     t.unit == share.serial, t.name in self.access.vectors, self.threads)

    def body(self) -> None:
        nest = self.nest
        m, n = (next(s.panel for s in nest.shares if s.tensor == name) for name in ("a", "b"))
        tile = SharedTile(self.panels["a"], self.panels["b"], nest.out.dtype, "out" in self.access.vectors)
        for name, panel in self.panels.items():
            self.header += [f"panel_{name} = {panel!r}"]
        self.header += [f"spec = SharedTile(panel_a, panel_b, {tile.out!r}, {tile.vectors!r})",
                        "nothing = starting(spec)", "multiply_add = multiplying(spec)", "write = writing(spec)",
                        "block_anew = reading('ctaid')", "thread_anew = reading('tid')"]
        for name in self.panels:
            self.header += [f"load_{name} = loading(panel_{name})", f"keep_{name} = keeping(panel_{name})"]
        self.share_memory("shared", 2 * self.stage)
        self.place_block(1)
        self._place_thread("cuda.threadIdx.x")
        bases = self.place_in_batch(1, self.nest.inputs)
        for share in nest.shares:
            self._place_loads(share, bases[share.tensor])
        self._first_block()
        for share in nest.shares:
            start = f"{self.starts[share.tensor]} + " if self.starts[share.tensor] else ""
            width = self.panels[share.tensor].fragment_bytes
            self.line(1, f"{share.tensor}_read = uint32({start}{share.panel}_thread * {width})")
        self.line(1, "total = nothing()")
        self._loop()
        # What only the output needs is found anew, for it not to occupy registers meanwhile.
        self.place_block(1, "block_anew()")
        self._place_thread("thread_anew()")
        self._write(m, n, self.place_out())

    def _place_loads(self, share: Share, base: str) -> None:
        """What each thread copies: its positions on the panel and on the serial label, where these are in memory, and
        where they go in shared memory. Of neighbours, those over the edge are left out; other positions over the edge
        are moved inside, and what is computed of them is not written."""
        name, panel, t = share.tensor, self.panels[share.tensor], self.nest.tensor(share.tensor)
        for what, text in panel.places("thread").items():
            self.line(1, f"{name}_{what} = uint32({text})")
        first, count = self.nest.variable(self.nest.loops_of(share.panel)[0]), self.count(share.panel)
        last = panel.fragment if panel.vectors and not panel.turned else 1
        run = self._is_run(share)
        for i in range(panel.positions_on_panel):
            at = self.position(f"{first} + {name}_panel" + (f" + {i}" if i else ""))
            if run:
                self.line(1, f"{name}_inside{i} = {at} < {count}")
            else:
                at = f"min({at}, {self.position(f'{count} - {last}')})"
            if i == 0 or not run:
                self.line(1, f"{name}_position{i} = {at}")
                terms = self.offsets(1, share.panel, f"{name}_position{i}", [t], f"_{name}{i}")[name]
                self.line(1, f"{name}_at{i} = {' + '.join([base, *terms])}")
        start = f"{self.starts[name]} + " if self.starts[name] else ""
        place = f"{name}_serial * {panel.row_bytes} + {name}_panel * {panel.itemsize}"
        self.line(1, f"{name}_write = uint32({start}{place})")

    def _is_run(self, share: Share) -> bool:
        """Whether the elements of a chunk along the panel are neighbours, which are read one by one."""
        panel, t = self.panels[share.tensor], self.nest.tensor(share.tensor)
        single = len(self.nest.label(share.panel).members) == 1
        return panel.positions_on_panel > 1 and single and t.unit == share.panel

    def _first_block(self) -> None:
        """Load the first block, which is the one with the edge of the sum: all others are whole."""
        begin = self.place_first_block(self.serial, self.bk)
        for share in self.nest.shares:
            self.line(1, f"{share.tensor}_depth = {self.position(f'{begin}{share.tensor}_serial')}")
            self._load(1, share, edge="following")
        for share in self.nest.shares:
            self.line(1, f"keep_{share.tensor}(shared, {share.tensor}_write, {share.tensor}_next)")
            self.line(1, f"{share.tensor}_depth = {self.position(f'{share.tensor}_depth + first')}")
        self.line(1, "cuda.syncthreads()")

    def _load(self, depth: int, share: Share, edge: str = "") -> None:
        """Chunks of neighbours from memory into registers; zeros from the position `edge` on."""
        name, panel, t = share.tensor, self.panels[share.tensor], self.nest.tensor(share.tensor)
        run, itemsize = self._is_run(share), np.dtype(t.dtype).itemsize
        addresses, insides = [], []
        for p in range(panel.passes):
            for i in range(panel.positions_on_serial):
                step = p * panel.serial_step + i
                position = f"{name}_depth{step}" if step else f"{name}_depth"
                if step:
                    self.line(depth, f"{position} = {self.position(f'{name}_depth + {step}')}")
                terms = self.offsets(depth, share.serial, position, [t], f"_{name}d{step}")[name]
                for j in range(panel.positions_on_panel):
                    moved = [f"{name}_at0", *([f"uint64({j * itemsize})"] if j else [])] if run else [f"{name}_at{j}"]
                    addresses.append(" + ".join([*moved, *terms]))
                    conditions = ([f"{name}_inside{j}"] if run else []) + ([f"({position} < {edge})"] if edge else [])
                    insides.append(" & ".join(conditions) or "True")
        self.line(depth, f"{name}_next = load_{name}(({', '.join(addresses)},), ({', '.join(insides)},))")

    def _loop(self) -> None:
        self.line(1, "half = uint32(0)")
        self.line(1, "more = True")
        self.line(1, "while more:")
        self.line(2, f"more = following < {self.serial}_end")
        self.line(2, "if more:")
        for share in self.nest.shares:
            self._load(3, share)
        self.line(2, "total = multiply_add(shared, uint32(half + a_read), uint32(half + b_read), total)")
        self.line(2, "if more:")
        self.line(3, f"half = uint32({self.stage} - half)")
        for share in self.nest.shares:
            name = share.tensor
            self.line(3, f"keep_{name}(shared, uint32(half + {name}_write), {name}_next)")
            self.line(3, f"{name}_depth = {self.position(f'{name}_depth + {self.bk}')}")
        self.line(3, "cuda.syncthreads()")
        self.line(2, f"following = {self.position(f'following + {self.bk}')}")

    def _place_thread(self, index: str) -> None:
        across = self.panels["b"].threads_across
        m, n = (share.panel for share in sorted(self.nest.shares, key=lambda share: share.tensor))
        self.line(1, f"thread = uint32({index})")
        self.line(1, f"{m}_thread = uint32(thread // {across})")
        self.line(1, f"{n}_thread = uint32(thread % {across})")

    def _write(self, m: str, n: str, base: str) -> None:
        step = self.fragment if "out" in self.access.vectors else 1
        own = f"{m}_thread * {self.fragment}", f"{n}_thread * {self.fragment}"
        rows, row_inside = self.edges(m, own[0], self.panels["a"].owned, "row")
        columns, column_inside = self.edges(n, own[1], self.panels["b"].owned[::step], "column")
        self.line(1, f"write({base}, ({rows},), ({row_inside},), ({columns},), ({column_inside},), total)")


def fragment_of(nest: LoopNest) -> int:
    """Neighbouring positions that a thread has of a panel's label."""
    (panel, *_) = (share.panel for share in nest.shares)
    return next(loop.step for loop in nest.loops_of(panel) if loop.kind is Kind.THREAD)


def refuse_other_forms(nest: LoopNest) -> None:
    """Raise `ScheduleError` for a nest with shared operands that this emitter does not know."""
    shares = {share.tensor: share for share in nest.shares}
    panel = [Kind.BLOCK, Kind.THREAD]
    fits = set(shares) == {"a", "b"} and np.dtype(nest.accumulator).itemsize >= 4
    if fits:
        panels, serial = [shares[name].panel for name in ("a", "b")], shares["a"].serial
        steps = {label: [loop.step for loop in nest.loops_of(label)] for label in panels}
        kinds = {label: [loop.kind for loop in nest.loops_of(label)] for label in (*panels, serial)}
        bound = {label: [kind for kind in kinds[label] if kind is not Kind.UNROLLED] for label in panels}
        order = [loop.label for loop in nest.loops if loop.kind is Kind.THREAD]
        widths = {next(step for step, kind in zip(steps[label], kinds[label]) if kind is Kind.THREAD)
                  for label in panels}
        fits = (all(bound[label] == panel and len(steps[label]) <= 4 and kinds[label][0] is Kind.BLOCK
                    and steps[label][-1] == 1 for label in panels)
                and kinds[serial][-2:] == [Kind.SERIAL, Kind.UNROLLED] and len(kinds[serial]) <= 3
                and shares["b"].serial == serial and order == panels and len(widths) == 1
                and widths.pop() * np.dtype(nest.accumulator).itemsize <= 16
                and all(loop.step == 1 for loop in nest.loops if loop.label not in (*panels, serial)))
    if not fits:
        raise ScheduleError("a tile of products has rows and columns, the rows' first, in loops over blocks, unrolled "
                            "parts if there are several, threads, and unrolled fragments of up to 16 bytes, as many "
                            "of both; the sum in a plain loop over unrolled blocks; other labels in blocks of one "
                            "position; sums of 4 bytes or more; and both operands shared")


def _require_even_filling(name: str, panel: Panel) -> None:
    """All threads copy as many chunks."""
    along = min(2, panel.depth // panel.fragment) * panel.size if panel.turned else panel.size // panel.fragment
    even = (along and panel.size % panel.part == 0 and panel.depth % panel.fragment == 0 and panel.threads % along == 0
            and panel.size * panel.depth % (panel.fragment * panel.threads) == 0)
    if not even:
        raise ScheduleError(f"{panel.threads} threads cannot fill the {panel.size} x {panel.depth} panel of {name} "
                            f"evenly in chunks of {panel.fragment}")

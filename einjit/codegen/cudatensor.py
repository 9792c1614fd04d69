"""Kernels of products on tensor cores (PTX ISA, mma.sync m16n8k16 and ldmatrix), copied into shared memory past the
registers (cp.async)."""
from __future__ import annotations

from ..errors import ScheduleError
from ..ir import Kind, LoopNest, Share
from ..verify import blocks_inside, threads_of
from .cudaemitter import Access, Emitter
from .gpuspecs import MatrixPanel, MatrixTile

PAIR = 2            # neighbouring columns that a thread has of each 16 x 8 tile


class TensorEmitter(Emitter):
    """Two blocks of each operand in shared memory, in turn: one is computed with while the next one is on its way."""

    intrinsics = "gputensor"

    def __init__(self, nest: LoopNest, taken: Access):
        super().__init__(nest, taken)
        self.require_product()
        self.shares = {share.tensor: share for share in nest.shares}
        self.serial = nest.shares[0].serial
        _refuse_other_forms(nest, self.shares)
        self.bk = next(loop.step for loop in nest.loops_of(self.serial) if loop.kind is Kind.SERIAL)
        self.panels = {name: self._panel(share) for name, share in self.shares.items()}
        for name, panel in self.panels.items():
            if panel.size * panel.depth % (panel.chunk * panel.threads):
                raise ScheduleError(f"{panel.threads} threads cannot fill the {panel.size} x {panel.depth} panel of "
                                    f"{name} evenly in chunks of {panel.chunk}")
        self.starts = {"a": 0, "b": self.panels["a"].bytes}
        self.stage = self.panels["a"].bytes + self.panels["b"].bytes
        self.m, self.n = (self.shares[name].panel for name in ("a", "b"))

    def _panel(self, share: Share) -> MatrixPanel:
        t, loops = self.nest.tensor(share.tensor), self.nest.loops_of(share.panel)
        warp = next(loop for loop in loops if loop.kind is Kind.THREAD)
        return MatrixPanel(t.dtype, loops[0].step, self.bk, warp.step, t.unit == share.serial, share.tensor == "a",
                           threads_of(self.nest))

    def body(self) -> None:
        tile = MatrixTile(self.panels["a"], self.panels["b"], self.nest.out.dtype, "out" in self.access.vectors)
        for name in ("a", "b"):
            self.header += [f"panel_{name} = {self.panels[name]!r}", f"copy_{name} = copying(panel_{name})"]
        self.header += [f"spec = MatrixTile(panel_a, panel_b, {tile.out!r}, {tile.pairs!r})",
                        "nothing = starting(spec)", "commit = committing()", "wait = waiting()",
                        "multiply_add = multiplying(spec)", "write = writing(spec)",
                        "block_anew = reading('ctaid')", "thread_anew = reading('tid')"]
        self.share_memory("shared", 2 * self.stage)
        self.place_block(1)
        self._place_warp("cuda.threadIdx.x")
        bases = self.place_in_batch(1, self.nest.inputs)
        for name in ("a", "b"):
            self._place_copies(name, bases[name])
        self._first_block()
        for name in ("a", "b"):
            start = f"{self.starts[name]} + " if self.starts[name] else ""
            place = self.panels[name].lane_offset("lane", f"{self.shares[name].panel}_warp")
            self.line(1, f"{name}_read = uint32({start}{place})")
        self.line(1, "total = nothing()")
        self._loop()
        # What only the output needs is found anew, for it not to occupy registers meanwhile.
        self.place_block(1, "block_anew()")
        self._place_warp("thread_anew()")
        self._write(self.place_out())

    def _place_warp(self, index: str) -> None:
        across = self._warps(self.n)
        self.line(1, f"thread = uint32({index})")
        self.line(1, "lane = uint32(thread % 32)")
        self.line(1, f"{self.m}_warp = uint32(thread // {32 * across} * {self.panels['a'].warp})")
        self.line(1, f"{self.n}_warp = uint32(thread // 32 % {across} * {self.panels['b'].warp})")

    def _warps(self, label: str) -> int:
        return next(blocks_inside(self.nest, x) for x in self.nest.loops_of(label) if x.kind is Kind.THREAD)

    def _place_copies(self, name: str, base: str) -> None:
        """Where a thread's chunks are on the panel and on the serial label, in memory and in shared memory."""
        panel, share, t = self.panels[name], self.shares[name], self.nest.tensor(name)
        for what, text in panel.places("thread").items():
            self.line(1, f"{name}_{what} = uint32({text})")
        first = self.nest.variable(self.nest.loops_of(share.panel)[0])
        last = 1 if panel.along_serial else panel.chunk
        for p in range(panel.passes if panel.along_serial else 1):
            at = self.position(f"{first} + {name}_panel" + (f" + {p * panel.panel_step}" if p else ""))
            position = f"{name}_position{p}"
            self.line(1, f"{position} = min({at}, {self.position(f'{self.count(share.panel)} - {last}')})")
            terms = self.offsets(1, share.panel, position, [t], f"_{name}{p}")[name]
            self.line(1, f"{name}_at{p} = {' + '.join([base, *terms])}")
        start = f"{self.starts[name]} + " if self.starts[name] else ""
        self.line(1, f"{name}_write = uint32({start}{panel.offset(f'{name}_panel', f'{name}_serial')})")

    def _first_block(self) -> None:
        """Copy the first block, which is the one with the edge of the sum: all others are whole."""
        begin = self.place_first_block(self.serial, self.bk)
        for name in ("a", "b"):
            self.line(1, f"{name}_depth = {self.position(f'{begin}{name}_serial')}")
            self._copy(1, name, f"{name}_write", edge="following")
            self.line(1, f"{name}_depth = {self.position(f'{name}_depth + first')}")
        self.line(1, "commit()")

    def _copy(self, depth: int, name: str, place: str, edge: str = "") -> None:
        """Start to copy a thread's chunks; those from the position `edge` on become zeros."""
        panel, t = self.panels[name], self.nest.tensor(name)
        addresses, insides = [], []
        for p in range(panel.passes):
            step = 0 if panel.along_serial else p * panel.serial_step
            position = f"{name}_depth{step}" if step else f"{name}_depth"
            if step:
                self.line(depth, f"{position} = {self.position(f'{name}_depth + {step}')}")
            tag = f"_{name}d{p}"
            inside = f"{position} < {edge}" if edge else "True"
            if edge:        # past the end there is nothing to read, not even zero bytes of it
                self.line(depth, f"{name}_inside{p} = {inside}")
                self.line(depth, f"{name}_from{p} = min({position}, {self.position(f'{edge} - 1')})")
                if panel.along_serial:
                    whole = f"{name}_from{p} // {panel.chunk} * {panel.chunk}"
                    self.line(depth, f"{name}_from{p} = {self.position(whole)}")
                position, inside = f"{name}_from{p}", f"{name}_inside{p}"
            terms = self.offsets(depth, self.serial, position, [t], tag)[name]
            addresses.append(" + ".join([f"{name}_at{p if panel.along_serial else 0}", *terms]))
            insides.append(inside)
        self.line(depth, f"copy_{name}(shared, {place}, ({', '.join(addresses)},), ({', '.join(insides)},))")

    def _loop(self) -> None:
        self.line(1, "half = uint32(0)")
        self.line(1, "more = True")
        self.line(1, "while more:")
        self.line(2, "wait()")
        self.line(2, "cuda.syncthreads()")
        self.line(2, f"more = following < {self.serial}_end")
        self.line(2, "if more:")
        self.line(3, f"other = uint32({self.stage} - half)")
        for name in ("a", "b"):
            self._copy(3, name, f"uint32(other + {name}_write)")
            self.line(3, f"{name}_depth = {self.position(f'{name}_depth + {self.bk}')}")
        self.line(3, "commit()")
        self.line(2, "total = multiply_add(shared, uint32(half + a_read), uint32(half + b_read), total)")
        self.line(2, f"half = uint32({self.stage} - half)")
        self.line(2, f"following = {self.position(f'following + {self.bk}')}")

    def _write(self, base: str) -> None:
        pairs = "out" in self.access.vectors
        rows = [16 * i + 8 * h for i in range(self.panels["a"].warp // 16) for h in range(2)]
        columns = [8 * j + c for j in range(self.panels["b"].warp // 8) for c in range(1 if pairs else PAIR)]
        row, row_inside = self.edges(self.m, f"{self.m}_warp + lane // 4", rows, "row")
        column, column_inside = self.edges(self.n, f"{self.n}_warp + lane % 4 * {PAIR}", columns, "column")
        self.line(1, f"write({base}, ({row},), ({row_inside},), ({column},), ({column_inside},), total)")


def _refuse_other_forms(nest: LoopNest, shares: dict[str, Share]) -> None:
    tensor = {loop.label: loop for loop in nest.loops if loop.kind is Kind.TENSOR}
    inputs = {t.dtype for t in nest.inputs}
    fits = (set(shares) == {"a", "b"} and len(tensor) == 3 and len(inputs) == 1 and nest.accumulator == "float32"
            and inputs <= {"float16", "bfloat16"})
    if fits:
        sizes = [(shares["a"].panel, 16), (shares["b"].panel, 8), (shares["a"].serial, 16)]
        kinds = {label: [loop.kind for loop in nest.loops_of(label)] for label, _ in sizes}
        panel = [Kind.BLOCK, Kind.THREAD, Kind.UNROLLED, Kind.TENSOR]
        fits = (all(label in tensor and nest.loops_of(label)[-2].step == size for label, size in sizes)
                and kinds[sizes[0][0]] == kinds[sizes[1][0]] == panel
                and kinds[sizes[2][0]][-3:] == [Kind.SERIAL, Kind.UNROLLED, Kind.TENSOR]
                and len(kinds[sizes[2][0]]) <= 4)
    if not fits:
        raise ScheduleError("tensor cores compute 16 x 8 x 16: rows and columns have loops over blocks, warps "
                            "(threads) and unrolled tiles, the sum a plain loop and unrolled tiles; both operands are "
                            "shared, of float16 or of bfloat16, and summed in float32")

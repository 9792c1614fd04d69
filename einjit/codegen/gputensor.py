"""Intrinsics of products on tensor cores: copies into shared memory, 16 x 8 x 16 products, and the output.

In PTX, for Numba has none of them. `shared` is an array of bytes, an offset into it a uint32.
"""
from __future__ import annotations

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from . import elements as el
from . import gpuvalues as gv
from .elements import Element, Lanes
from .gpuspecs import MatrixPanel, MatrixTile
from .gputile import bit, reading  # noqa: F401 - for generated code, as the others here

ROWS, COLUMNS, DEPTH = 16, 8, 16        # of one instruction
SUM = Element("f", 32)
SHARED = 3                              # NVVM's address space of shared memory


def copying(panel: MatrixPanel):
    """copy(shared, offset, addresses, inside): start to copy a thread's chunks of 16 bytes; zeros for those that are
    not inside, whose addresses must be ones that may be read."""

    @intrinsic
    def copy(typingctx, shared, offset, addresses, inside):
        def codegen(context, builder, signature, args):
            place = _address(context, builder, signature.args[0], args[0], args[1])
            for p in range(panel.passes):
                size = builder.select(bit(builder, args[3], p), el.I32(16), el.I32(0))
                text = f"cp.async.cg.shared.global [$0+{p * panel.pass_bytes}], [$1], 16, $2;"
                _asm(builder, ir.VoidType(), text, "r,l,r,~{memory}", [place, builder.extract_value(args[2], p), size])
            return context.get_dummy_value()

        return types.void(shared, types.uint32, addresses, inside), codegen

    return copy


def committing():
    """commit(): the copies so far are one group."""
    return _plain("cp.async.commit_group;")


def waiting():
    """wait(): until all groups are there, for this thread."""
    return _plain("cp.async.wait_group 0;")


def _plain(text: str):
    @intrinsic
    def statement(typingctx):
        def codegen(context, builder, signature, args):
            _asm(builder, ir.VoidType(), text, "~{memory}", [])
            return context.get_dummy_value()

        return types.void(), codegen

    return statement


def starting(spec: MatrixTile):
    """nothing() -> the sums of a thread, all 0: four of each 16 x 8 tile."""
    count = 4 * len(_tiles(spec))

    @intrinsic
    def nothing(typingctx):
        def codegen(context, builder, signature, args):
            return ir.Constant(context.get_value_type(signature.return_type), None)

        return gv.values_type(SUM, count)(), codegen

    return nothing


def multiplying(spec: MatrixTile):
    """multiply_add(shared, a_read, b_read, total) -> the sums with the products of all steps in the panels."""
    kind = {"float16": "f16", "bfloat16": "bf16"}[spec.a.dtype]

    @intrinsic
    def multiply_add(typingctx, shared, a_read, b_read, total):
        def codegen(context, builder, signature, args):
            sums = [builder.extract_value(args[3], i) for i in range(signature.args[3].count)]
            a_at, b_at = (_address(context, builder, signature.args[0], args[0], offset) for offset in args[1:3])
            for step in range(0, spec.a.depth, DEPTH):
                rows = [_matrices(builder, spec.a, a_at, i, step) for i in range(0, spec.a.warp, ROWS)]
                columns = []
                for j in range(0, spec.b.warp, 2 * COLUMNS):
                    four = _matrices(builder, spec.b, b_at, j, step)
                    columns += [four[:2], four[2:]]
                for i, j in _tiles(spec):
                    at = 4 * (i * len(columns) + j)
                    sums[at:at + 4] = _product(builder, kind, rows[i], columns[j], sums[at:at + 4])
            return gv.packed(builder, [Lanes((x,), 1) for x in sums])

        return total(shared, types.uint32, types.uint32, total), codegen

    return multiply_add


def _tiles(spec: MatrixTile) -> list[tuple[int, int]]:
    return [(i, j) for i in range(spec.a.warp // ROWS) for j in range(spec.b.warp // COLUMNS)]


def _matrices(builder, panel: MatrixPanel, place: ir.Value, position: int, step: int) -> list[ir.Value]:
    """Four matrices of 8 x 8: 16 positions x 16 steps. Panels whose rows are along the panel are turned."""
    turn = "" if panel.along_serial else ".trans"
    text = f"ldmatrix.sync.aligned.m8n8.x4{turn}.shared.b16 {{$0,$1,$2,$3}}, [$4+{panel.moved(position, step)}];"
    four = _asm(builder, ir.LiteralStructType([el.I32] * 4), text, "=r,=r,=r,=r,r,~{memory}", [place])
    return [builder.extract_value(four, i) for i in range(4)]


def _product(builder, kind: str, rows, columns, sums) -> list[ir.Value]:
    operands = "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
    text = f"mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32 {operands}"
    number = SUM.llvm
    four = _asm(builder, ir.LiteralStructType([number] * 4), text, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
                [*rows, *columns, *sums], side_effect=False)
    return [builder.extract_value(four, i) for i in range(4)]


def writing(spec: MatrixTile):
    """write(out, rows, rows_inside, columns, columns_inside, total): a thread's sums, at byte offsets of rows and
    columns; of the columns, each pair's first where it is written in one access."""
    out = Element.of(spec.out)
    together = 2 if spec.pairs else 1

    @intrinsic
    def write(typingctx, base, rows, rows_inside, columns, columns_inside, total):
        def codegen(context, builder, signature, args):
            sums = [Lanes((builder.extract_value(args[5], i),), 1) for i in range(signature.args[5].count)]
            values = [el.convert(builder, SUM, out, value) for value in sums]
            width = spec.b.warp // COLUMNS
            for r in range(signature.args[1].count):
                row = builder.add(args[0], builder.extract_value(args[1], r))
                for c in range(signature.args[3].count):
                    tile, place = divmod(c * together, 2)
                    first = 4 * (r // 2 * width + tile) + 2 * (r % 2) + place
                    with builder.if_then(builder.and_(bit(builder, args[2], r), bit(builder, args[4], c))):
                        address = builder.add(row, builder.extract_value(args[3], c))
                        gv.store(builder, out, address, values[first:first + together])
            return context.get_dummy_value()

        return types.void(base, rows, rows_inside, columns, columns_inside, total), codegen

    return write


def _address(context, builder, array_type, array, offset: ir.Value) -> ir.Value:
    """The 32-bit address in shared memory of a place in an array of bytes."""
    pointer = gv.shared_pointer(context, builder, array_type, array, offset, 0, el.I8)
    return builder.ptrtoint(builder.addrspacecast(pointer, el.I8.as_pointer(SHARED)), el.I32)


def _asm(builder, result: ir.Type, text: str, constraints: str, arguments, side_effect: bool = True):
    kind = ir.FunctionType(result, [x.type for x in arguments])
    return builder.asm(kind, text, constraints, arguments, side_effect=side_effect)

"""What must hold in every loop nest; `verify` raises `ScheduleError` where it does not."""
from __future__ import annotations

from .errors import ScheduleError
from .ir import TILE, Copy, Kind, Loop, LoopNest, Pack, Share, Staging

MAX_WHOLE = 64              # positions of a label that are written out one by one
WARP = 32
MAX_THREADS = 1024          # of a block, on every GPU


def verify(nest: LoopNest) -> LoopNest:
    """Check a nest and return it."""
    for label in nest.labels:
        _check_loops(nest, label.name)
    if nest.is_spread or nest.shares:
        return verify_spread(nest)
    _check_tile(nest)
    for i, node in enumerate(nest.nodes):
        if isinstance(node, Pack):
            _check_pack(nest, i, node)
        elif isinstance(node, Copy):
            _check_copy(nest, node)
        elif node.kind is Kind.PARALLEL:
            _check_parallel(nest, node)
    if nest.streamed:
        _check_stream(nest)
    if nest.staged:
        _check_staging(nest, nest.staged)
    _refuse(bool(nest.ahead and nest.prefetch), "inputs can be asked for by loop or by distance, not both")
    loops = [loop.name for loop in nest.loops if loop.kind not in TILE]
    _refuse(nest.ahead not in ("", *loops), f"there is no loop {nest.ahead} outside of the tile")
    return nest


def _refuse(condition: bool, reason: str) -> None:
    if condition:
        raise ScheduleError(reason)


def _check_loops(nest: LoopNest, label: str) -> None:
    steps = [loop.step for loop in nest.loops_of(label)]
    _refuse(not steps, f"label {label} has no loop")
    _refuse(steps[-1] != 1, f"label {label} has no loop of step 1")
    _refuse(steps != sorted(set(steps), reverse=True),
            f"the loops of {label} do not go from larger to smaller steps (they have {steps}): "
            "a block must be entered before what lies in it")


def _check_tile(nest: LoopNest) -> None:
    tile = [loop for loop in nest.loops if loop.kind in TILE]
    inner = nest.nodes[len(nest.nodes) - len(tile):]
    _refuse(tuple(tile) != inner, "unrolled and vectorised loops must be the innermost ones, with nothing between them")
    vectors = [loop for loop in tile if loop.kind is Kind.VECTOR]
    _refuse(len(vectors) > 1, "only one loop can be vectorised")
    for loop in tile:
        blocks = [other.step for other in nest.loops_of(loop.label) if other.step > 1]
        if not blocks:
            _check_whole(nest, loop.label)
            continue
        _refuse(loop.kind is Kind.VECTOR and blocks[-1] % loop.lanes != 0,
                f"{loop.lanes} lanes do not divide the block of {blocks[-1]} {loop.label}")
        # A tile over the edge of a block repeats the last position; tables end where the outermost block does.
        for step in blocks[1:-1]:
            _refuse(step % blocks[-1] != 0, f"blocks of {step} {loop.label} are not whole register tiles of "
                    f"{blocks[-1]}: only the outermost block may leave a rest")


def _check_whole(nest: LoopNest, name: str) -> None:
    label = nest.label(name)
    _refuse(label.extent > MAX_WHOLE, f"loop {name} has {label.extent} steps, too many to write out: split it first")
    _refuse(len(label.members) > 1 or bool(nest.packs), f"loop {name} walks a table of offsets, which a loop over "
            "blocks must fill: split it first")


def _check_pack(nest: LoopNest, at: int, pack: Pack) -> None:
    tensor = nest.tensor(pack.tensor)
    _refuse(tensor is nest.out, "the output cannot be packed")
    outside = {n.name for n in nest.nodes[:at] if isinstance(n, Loop)}
    for label in (pack.panel, pack.serial):
        _refuse(label not in tensor.labels, f"{pack.tensor} does not have label {label}")
        blocks = [loop for loop in nest.loops_of(label) if loop.name in outside]
        _refuse(not blocks, f"pack {pack.tensor} must stand inside a loop over blocks of {label}: split it first")
        inner = [loop for loop in nest.loops_of(label) if loop.name not in outside]
        expected = [pack.width, 1] if label == pack.panel else [1]
        _refuse([loop.step for loop in inner] != expected,
                f"inside the pack of {pack.tensor}, label {label} must have loops of steps {expected} only")
    for label in tensor.labels:
        if label not in (pack.panel, pack.serial):
            _refuse(any(loop.name not in outside for loop in nest.loops_of(label)),
                    f"pack {pack.tensor} must stand inside every loop of {label}")
    panel = nest.loops_of(pack.panel)[-1]
    _refuse(panel.kind not in TILE, f"the panel label {pack.panel} must be unrolled or vectorised")
    serial = nest.loops_of(pack.serial)[-1]
    _refuse(serial.kind is not Kind.SERIAL or not nest.label(pack.serial).summed,
            f"a pack's serial label must be a summed one with a plain loop; {pack.serial} is not")
    tile = [n for n in nest.nodes if isinstance(n, Loop) and n.kind in TILE]
    last_serial = nest.nodes[len(nest.nodes) - len(tile) - 1]
    _refuse(last_serial != serial, f"the loop of {pack.serial} must be the one just outside the register tile")
    sums = [loop.label for loop in tile if loop.kind is Kind.VECTOR and nest.label(loop.label).summed]
    _refuse(bool(sums), f"the tile walks panels along {pack.serial} only where its lanes are kept apart; "
            f"{', '.join(sums)} is vectorised and summed")
    _refuse(sum(p.tensor == pack.tensor for p in nest.packs) > 1, f"{pack.tensor} is packed twice")


def _check_copy(nest: LoopNest, copy: Copy) -> None:
    tensor = nest.tensor(copy.tensor)
    _refuse(tensor is nest.out, "the output cannot be copied")
    _refuse(tensor.unit != copy.row, f"{copy.tensor} is not contiguous along {copy.row}: no rows to copy")
    _refuse(sum(other.tensor == copy.tensor for other in (*nest.packs, *nest.copies)) > 1,
            f"{copy.tensor} is copied twice, or packed and copied")
    _refuse(bool(nest.packs), "in a nest with packs all labels walk tables of offsets, which a copy has none of")
    labels = nest.copied_labels(copy)
    _refuse(not any(loop.label == copy.row for loop in nest.loops[_loops_outside(nest, copy):]),
            f"the copy of {copy.tensor} stands inside every loop of {copy.row}: its rows would be one element")
    for label in labels:
        _refuse(len(nest.label(label).members) > 1, f"{label} is fused: its positions lie apart, and only what a "
                "stride reaches can be copied")
    _refuse(nest.streamed, "tiles of a streamed output begin where cache lines do, before the block that is copied")


def _loops_outside(nest: LoopNest, copy: Copy) -> int:
    """How many loops stand outside of a copy."""
    return sum(isinstance(node, Loop) for node in nest.nodes[:nest.nodes.index(copy)])


def _check_parallel(nest: LoopNest, loop: Loop) -> None:
    _refuse(nest.loops_of(loop.label)[0] != loop, f"loop {loop.name} cannot be parallel: only the outermost "
            f"loop of a label can")
    _refuse(sum(other.kind is Kind.PARALLEL for other in nest.loops) > 1, "only one loop can be parallel")


def _check_stream(nest: LoopNest) -> None:
    sums = [label.name for label in nest.labels if label.summed]
    _refuse(bool(sums), f"the output cannot be streamed: partial sums over {', '.join(sums)} are read again")
    vectors = [loop for loop in nest.loops if loop.kind is Kind.VECTOR]
    _refuse([loop.label for loop in vectors] != [nest.out.unit],
            "the output can be streamed only along a vectorised label in which it is contiguous")
    steps = [loop.step for loop in nest.loops_of(nest.out.unit) if loop.step > 1]
    _refuse(len(nest.label(nest.out.unit).members) > 1 and len(steps) != 1, "the output can be streamed along "
            f"{nest.out.unit}, which is fused, only tile by tile: a table of offsets cannot begin before it, where a "
            "cache line does")


def _check_staging(nest: LoopNest, staging: Staging) -> None:
    _refuse(nest.streamed, "the output cannot be streamed and staged")
    names = [node.name if isinstance(node, Loop) else "" for node in nest.nodes]
    outside = [loop.name for loop in nest.loops if loop.kind not in TILE]
    _refuse(staging.at not in outside, f"there is no loop {staging.at} outside of the tile")
    sums = [label.name for label in nest.labels if label.summed]
    _refuse(bool(sums) or bool(nest.packs), "the output can be staged only where nothing is summed")
    _refuse(not staging.labels or staging.labels[-1] != nest.out.unit,
            "the last label of a staged block must be the one in which the output is contiguous")
    at = names.index(staging.at)
    inside = {loop.label for loop in nest.nodes[at + 1:] if isinstance(loop, Loop)}
    if nest.nodes[at].step > 1:
        inside.add(nest.nodes[at].label)
    _refuse(inside != set(staging.labels) or len(staging.labels) != len(set(staging.labels)),
            f"inside loop {staging.at} are the labels {', '.join(sorted(inside))}, which the staging must name once")
    for label in staging.labels:
        _refuse(len(nest.label(label).members) > 1, f"a block cannot be staged along {label}, which is fused")


# -- nests that are spread over a GPU ----------------------------------------------------------------------

def verify_spread(nest: LoopNest) -> LoopNest:
    """Check a nest for a GPU and return it: every element of the output must belong to one thread, which holds its sum
    until that is complete."""
    _refuse(bool(nest.packs or nest.copies or nest.streamed or nest.staged or nest.ahead or nest.prefetch),
            "packs, copies, streamed and staged outputs and prefetches are for the CPU; this nest is bound to a GPU")
    outside: list[Loop] = []
    for loop in nest.loops:
        _check_spread_loop(nest, loop, outside)
        outside.append(loop)
    threads = threads_of(nest)
    _refuse(threads > MAX_THREADS, f"{threads} threads a block are more than {MAX_THREADS}")
    tensor = [loop for loop in nest.loops if loop.kind is Kind.TENSOR]
    _refuse(tuple(tensor) != nest.loops[len(nest.loops) - len(tensor):],
            "loops on tensor cores must be the innermost ones")
    parts = [loop.name for loop in nest.loops if loop.kind is Kind.BLOCK and nest.label(loop.label).summed]
    _refuse(len(parts) > 1, f"parts of one sum alone can be spread over blocks, not those of {', '.join(parts)}")
    for share in nest.shares:
        _check_share(nest, share)
    return nest


def _check_spread_loop(nest: LoopNest, loop: Loop, outside: list[Loop]) -> None:
    summed, first = nest.label(loop.label).summed, nest.loops_of(loop.label)[0] is loop
    match loop.kind:
        case Kind.BLOCK:
            _refuse(any(other.kind is not Kind.BLOCK for other in outside) or not first,
                    f"loop {loop.name} cannot be spread over blocks: only outermost loops can")
            inner = {other.kind for other in nest.loops_of(loop.label)}
            parts = Kind.THREAD in inner or any(share.serial == loop.label for share in nest.shares)
            _refuse(summed and not parts, f"loop {loop.name} cannot be spread over blocks: {loop.label} is summed, and "
                    "only parts of a sum that threads or operands share can be")
        case Kind.THREAD | Kind.UNROLLED | Kind.TENSOR:
            _refuse(loop.kind is Kind.THREAD and summed and bool(nest.shares),
                    f"loop {loop.name} cannot be spread over threads: {loop.label} is summed, and operands are shared")
            _refuse(first, f"loop {loop.name} must stand in a block of {loop.label}: split it first")
            _refuse(_step_outside(nest, loop) % loop.step != 0,
                    f"blocks of {loop.step} {loop.label} do not divide those of {_step_outside(nest, loop)}")
        case Kind.SERIAL:
            _refuse(not summed, f"loop {loop.name} is bound to nothing: each element of the output must belong to a "
                    "block, a thread or the register tile")
            _refuse(not first and _step_outside(nest, loop) % loop.step != 0,
                    f"blocks of {loop.step} {loop.label} do not divide those of {_step_outside(nest, loop)}")
        case _:
            _refuse(True, f"loop {loop.name} is {loop.kind.value}, which no GPU knows")


def _step_outside(nest: LoopNest, loop: Loop) -> int:
    loops = nest.loops_of(loop.label)
    return loops[loops.index(loop) - 1].step


def threads_of(nest: LoopNest) -> int:
    """Threads of a block; of tensor cores, 32 have one together."""
    threads = WARP if any(loop.kind is Kind.TENSOR for loop in nest.loops) else 1
    for loop in nest.loops:
        threads *= blocks_inside(nest, loop) if loop.kind is Kind.THREAD else 1
    return threads


def blocks_inside(nest: LoopNest, loop: Loop) -> int:
    """How many iterations a thread loop, or an unrolled one, has in each block of its label."""
    return _step_outside(nest, loop) // loop.step


def _check_share(nest: LoopNest, share: Share) -> None:
    tensor, at = nest.tensor(share.tensor), nest.nodes.index(share)
    _refuse({share.panel, share.serial} - set(tensor.labels) != set(),
            f"{share.tensor} does not have the labels {share.panel} and {share.serial}")
    sums = any(label.summed for label in nest.labels)
    _refuse(nest.label(share.panel).summed or sums != nest.label(share.serial).summed,
            f"{share.tensor} is shared along a kept label and a summed one, or two kept ones where nothing is summed")
    outside = [n for n in nest.nodes[:at] if isinstance(n, Loop)]
    for label in (share.panel, share.serial):
        _refuse(not any(loop.label == label and loop.step > 1 for loop in outside),
                f"{share.tensor} must be shared inside a loop over blocks of {label}")
    for label in tensor.labels:
        inside = [loop for loop in nest.loops_of(label) if loop not in outside]
        _refuse(bool(inside) != (label in (share.panel, share.serial)),
                f"where {share.tensor} is shared, its loops of {label} must lie "
                f"{'inside' if label in (share.panel, share.serial) else 'outside'}")
    loose = [t.name for t in nest.inputs if t.name not in {s.tensor for s in nest.shares}]
    _refuse(sums and bool(loose), f"{', '.join(loose)} must be shared too")
    _refuse(sum(other.tensor == share.tensor for other in nest.shares) > 1, f"{share.tensor} is shared twice")

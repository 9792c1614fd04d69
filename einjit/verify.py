"""What must hold in every loop nest; `verify` raises `ScheduleError` where it does not."""
from __future__ import annotations

from .errors import ScheduleError
from .ir import TILE, Copy, Kind, Loop, LoopNest, Pack, Staging

MAX_WHOLE = 64              # positions of a label that are written out one by one


def verify(nest: LoopNest) -> LoopNest:
    """Check a nest and return it."""
    for label in nest.labels:
        _check_loops(nest, label.name)
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

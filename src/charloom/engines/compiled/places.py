"""Places in a kernel's arrays: offsets by name from a plan, and the parts of the threads."""

from __future__ import annotations

from typing import NamedTuple

from numba import types

from charloom.engines.compiled.plan import Plan
from charloom.kernels.compiling import subroutine


@subroutine(types.intp)
def w_ih_at(plan: Plan, layer: int) -> int:
    """Return where a layer's weight_ih starts on the flat vector."""
    if layer == 0:
        return 0
    return plan.flat_hh + layer * plan.flat_layer - plan.gates * plan.hidden * plan.hidden


@subroutine(types.intp, inline=True)
def share(count: int, thread: int, threads: int) -> int:
    """Return where a thread's share of `count` things starts; it ends where the next one starts."""
    return count * thread // threads


class Part(NamedTuple):
    """A thread's part of a training step: its rows of the batch, and the start of its workspace."""

    thread: int
    threads: int
    row: int  # its first one
    rows: int  # R
    work: int  # where its workspace starts


@subroutine(types.NamedUniTuple(types.intp, len(Part._fields), Part))
def part_of(plan: Plan, thread: int, threads: int) -> Part:
    """Return the part of a thread."""
    row = share(plan.batch, thread, threads)
    rows = share(plan.batch, thread + 1, threads) - row
    return Part(thread, threads, row, rows, thread * plan.work_length)


class Layer(NamedTuple):
    """Offsets of a layer's arrays in the workspace, see `Plan`."""

    gates: int
    hidden: int
    extra: int
    cells: int
    ih: int
    hh: int
    factors: int
    mask: int
    outputs: int  # of the layer, after dropout, without the state before the window


@subroutine(types.NamedUniTuple(types.intp, len(Layer._fields), Layer), inline=True)
def layer_of(plan: Plan, start: int, layer: int, rows: int) -> Layer:
    """Return where a layer's arrays are in a workspace that starts at `start`, for R = rows."""
    at = start + layer * plan.work_layer
    hidden = at + plan.work_h
    outputs = hidden + rows * plan.hst
    if plan.dropout:
        outputs = at + plan.work_y
    return Layer(
        at + plan.work_gates, hidden, at + plan.work_extra, at + plan.work_c, at + plan.work_ih,
        at + plan.work_hh, at + plan.work_factors, at + plan.work_mask, outputs,
    )  # fmt: skip

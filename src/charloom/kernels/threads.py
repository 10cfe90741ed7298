"""Threads of a kernel: their barriers inside it. `crew` has the threads that run it.

A kernel releases Python's lock, so that the same kernel runs in several Python threads at once,
each on its own part of the work. Waking a thread takes some 50 µs, as long as a small training
step. A thread that has finished its part of a step therefore spins for a while before it sleeps.
"""

from __future__ import annotations

import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from charloom.kernels.compiling import subroutine
from charloom.kernels.crew import (
    ARRIVALS,
    BUSY,
    CALLED,
    GONE,
    MISSING,
    PLACE,
    PLACES,
    READY,
    STOPPED,
    TO_WAKE,
    WOKEN,
)
from charloom.kernels.sizes import MACHINE
from charloom.kernels.vectors import INT32

# The function of the system's library that yields the processor to another thread.
_YIELD = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
_PAUSE = "llvm.x86.sse2.pause" if MACHINE == "x86_64" else None  # some 10 to 50 ns

_LOOKS = 4_000 if _PAUSE else 100_000  # polls in some 50 µs (measured)


@intrinsic
def _atomic_add(context, array, index, value):  # type: ignore[no-untyped-def]
    """Add to an entry, in one order for all threads; returns the value before."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("add", builder.gep(args[0], [args[1]]), args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), emit


@intrinsic
def _atomic_load(context, array, index):  # type: ignore[no-untyped-def]
    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.load_atomic(builder.gep(args[0], [args[1]]), "seq_cst", 8)

    return types.int64(array, types.intp), emit


@intrinsic
def _atomic_store(context, array, index, value):  # type: ignore[no-untyped-def]
    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        builder.store_atomic(args[2], builder.gep(args[0], [args[1]]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), emit


@intrinsic
def _replace(context, array, index, old, new):  # type: ignore[no-untyped-def]
    """Replace an entry by `new` if it is `old`, atomically; returns whether it was."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        pair = builder.cmpxchg(
            builder.gep(args[0], [args[1]]), args[2], args[3], "seq_cst", "seq_cst"
        )
        return builder.extract_value(pair, 1)

    return types.boolean(array, types.intp, types.int64, types.int64), emit


def _call(name: str | None, returns: Any) -> Any:
    @intrinsic
    def call(context):  # type: ignore[no-untyped-def]
        def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
            if name is not None:
                kind = ir.FunctionType(returns, [])
                function = builder.module.globals.get(name) or ir.Function(
                    builder.module, kind, name
                )
                builder.call(function, [])
            return context.get_dummy_value()

        return types.void(), emit

    return call


_give_way = _call(_YIELD, INT32)
_pause = _call(_PAUSE, ir.VoidType())


@subroutine(types.boolean)
def barrier(sync, threads):  # type: ignore[no-untyped-def]
    """Wait for all threads. Returns False if one will not arrive: the kernel must return then."""
    if threads == 1:
        return True
    arrived = _atomic_add(sync, ARRIVALS, 1)
    everyone = (arrived // threads + 1) * threads
    looks = 0
    while _atomic_load(sync, ARRIVALS) < everyone:
        looks += 1
        if looks > _LOOKS:
            if _atomic_load(sync, STOPPED) != 0:
                return False
            _give_way()
        elif looks > 100:
            _pause()
    return True


@subroutine(types.boolean)
def call_up(sync, threads):  # type: ignore[no-untyped-def]
    """Call the other threads to a step; returns False if some must be woken first."""
    missing = 0
    if sync[WOKEN] == 0:
        for thread in range(1, threads):
            place = PLACES + thread * PLACE
            while _atomic_load(sync, place) == BUSY:  # because it is leaving the last barrier
                _pause()
            if not _replace(sync, place, READY, CALLED):
                sync[place] = TO_WAKE
                missing += 1
    sync[MISSING] = missing
    return missing == 0


@subroutine()
def at_work(sync, thread):  # type: ignore[no-untyped-def]
    _atomic_store(sync, PLACES + thread * PLACE, BUSY)


@subroutine()
def leave(sync, thread):  # type: ignore[no-untyped-def]
    _atomic_store(sync, PLACES + thread * PLACE, GONE)


@subroutine(types.boolean)
def is_called_again(sync, thread):  # type: ignore[no-untyped-def]
    """Wait for the next step in a thread but the first; returns False after a while."""
    place = PLACES + thread * PLACE
    _atomic_store(sync, place, READY)
    looks = 0
    while _atomic_load(sync, place) == READY:
        looks += 1
        _pause()
        if looks > _LOOKS and _replace(sync, place, READY, GONE):
            return False
    return True

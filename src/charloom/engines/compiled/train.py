"""The training kernel: a whole step, from ids to updated parameters, in every thread at once.

Each thread takes its own rows of the batch through the whole window, forward and backward, into
gradients of its own; then the threads' gradients are added up in the order of the threads, and each
thread updates its own part of the parameters. Between these parts the threads wait for each other.

The time loops go over tiles, as wide as a block of a product: the recurrent product of a tile, then
at once what the cell makes of it, while it is in the nearest cache.

T: time steps; B: rows of the batch; R: rows of a thread; N: T·R, its positions.
"""

from __future__ import annotations

import math

from numba import types

from charloom.engines.compiled.backward import (
    backward_pass,
    clear_sums,
    decoder_pass,
    weight_gradients,
)
from charloom.engines.compiled.forward import forward_pass, in_vocabulary
from charloom.engines.compiled.masks import drop_weights
from charloom.engines.compiled.packing import pack_weights
from charloom.engines.compiled.plan import Plan, share
from charloom.engines.compiled.reduction import reduce_gradients
from charloom.engines.compiled.update import update_parameters
from charloom.kernels.compiling import subroutine
from charloom.kernels.threads import at_work, barrier, call_up, is_called_again, leave
from charloom.kernels.vectors import as_flat, as_numbers, flat_at

# The entries of `numbers` behind the optimizer's: its kind; the largest norm, 0 for none; what an
# entry that dropout keeps is multiplied by, and what a weight is; whether the gradient is the
# notebook's, of the sum.
KIND, CLIP, KEPT, KEPT_WEIGHT, CLASSIC, NUMBERS = range(8, 14)
OF_WEIGHTS = 3  # in the keys, where those of weight dropping begin
GRADIENTS_ONLY = -1  # a kind
LOSS, NORM, SUMS = 0, 1, 2  # in `results`; from SUMS on, each thread's loss and sum of squares


@subroutine(types.boolean)
def _step(
    s, ids, targets, state, new_state, flat, gradients, slot, slot2, packed, work, keys, numbers,
    results, sync, threads, thread,
):  # fmt: skip
    """A thread's part of a step; False if the step cannot be done."""
    row0 = share(s.batch, thread, threads)
    rows = share(s.batch, thread + 1, threads) - row0
    w0 = thread * s.work_length
    n = s.steps * s.batch
    if not in_vocabulary(s, ids, 0, n, sync) or not in_vocabulary(s, targets, 0, n, sync):
        return False  # as all threads do
    classic = numbers[CLASSIC] != 0
    clear_sums(s, work, w0)
    dropped = s.weight_drop != 0 and keys[OF_WEIGHTS] != 0
    if dropped:
        drop_weights(
            s, flat, packed, keys[OF_WEIGHTS + 1], keys[OF_WEIGHTS + 2], numbers[KEPT_WEIGHT],
            thread, threads,
        )  # fmt: skip
        if not barrier(sync, threads):
            return False
    pack_weights(s, flat, packed, thread, threads, True, dropped)
    if not barrier(sync, threads):
        return False
    forward_pass(s, work, w0, packed, ids, state, new_state, row0, rows, keys, numbers[KEPT])
    scale = 1.0 if classic else 1.0 / n
    results[SUMS + 2 * thread] = decoder_pass(s, work, w0, packed, targets, row0, rows, scale)
    for layer in range(s.layers - 1, -1, -1):
        backward_pass(s, work, w0, layer, packed, rows, keys[0] != 0)
        weight_gradients(s, work, w0, layer, packed, ids, row0, rows)
    if not barrier(sync, threads):
        return False
    squares = reduce_gradients(s, work, gradients, packed, thread, threads, classic, dropped)
    results[SUMS + 2 * thread + 1] = squares
    if not barrier(sync, threads):
        return False
    loss, squares = 0.0, 0.0
    for other in range(threads):
        loss += results[SUMS + 2 * other]
        squares += results[SUMS + 2 * other + 1]
    norm = math.sqrt(squares)
    kind = int(numbers[KIND])
    if kind != GRADIENTS_ONLY and math.isfinite(loss) and math.isfinite(norm):
        clip = numbers[CLIP]
        update_parameters(
            kind, numbers, clip / norm if 0 < clip < norm else 1.0, flat, gradients, slot, slot2,
            share(s.flat_length, thread, threads), share(s.flat_length, thread + 1, threads),
            work, w0 + s.scratch,
        )  # fmt: skip
    if thread == 0:
        results[LOSS], results[NORM] = loss / n, norm
    return barrier(sync, threads)


def train(places_, like, whole, numbers_, sync_, threads, thread):
    """A step of training, or with the kind GRADIENTS_ONLY the loss and gradients.

    places_: the addresses of the plan; of ids and targets (T, B), both int64; of the state
    (S, L, B, H) and the new one; of parameters, gradients and two slots (P); of the packed weights
    and the workspace, all these of like's type; of dropout's and weight dropping's keys, (6,), of
    whole's type (uint64); of
    `numbers` and `results`, of numbers_' type (float64). One array is handed over sooner than so
    many.

    Parameters and slots stay as they were where loss or norm are not finite, or where the norm's
    square overflows, as float64 can: the norm is infinite then. All threads but the first stay for
    further steps.
    """
    at, sync = as_flat(places_), as_flat(sync_)
    s = as_numbers(Plan, flat_at(at[0], places_))
    if thread == 0 and not call_up(sync, threads):
        return
    while True:
        if thread > 0:
            at_work(sync, thread)
        done = _step(
            s, flat_at(at[1], places_), flat_at(at[2], places_), flat_at(at[3], like),
            flat_at(at[4], like), flat_at(at[5], like), flat_at(at[6], like),
            flat_at(at[7], like), flat_at(at[8], like), flat_at(at[9], like),
            flat_at(at[10], like), flat_at(at[11], whole), flat_at(at[12], numbers_),
            flat_at(at[13], numbers_), sync, threads, thread,
        )  # fmt: skip
        if thread == 0:
            return
        if not done:
            leave(sync, thread)
            return
        if not is_called_again(sync, thread):
            return

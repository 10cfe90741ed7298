"""The training kernel: a whole step, from ids to updated parameters, in every thread at once.

Each thread runs its own rows of the batch through the whole window, forward and backward, into
gradients of its own. Then the threads' gradients are added up in the order of the threads, and
each thread updates its share of the parameters. Between these stages the threads wait for each
other. A step that needs one thread alone can be followed by others in the same call.

The time loops run over tiles, as wide as a block of a product. The recurrent product of a tile is
followed at once by the cell's arithmetic on it, while it is in the nearest cache.

T: time steps; B: rows of the batch; R: rows of a thread; N: T·R, its positions; E: extra inputs.
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
from charloom.engines.compiled.buffers import (
    CLASSIC,
    CLIP,
    DESCRIBED,
    FRESH,
    GRADIENTS_ONLY,
    KEPT,
    KEPT_WEIGHT,
    KIND,
    LOSS,
    NORM,
    OF_WEIGHTS,
    SUMS,
    TAKEN,
    WINDOWS,
    TrainingBuffers,
)
from charloom.engines.compiled.forward import forward_pass, in_vocabulary
from charloom.engines.compiled.masks import drop_weights
from charloom.engines.compiled.packing import pack_weights
from charloom.engines.compiled.places import part_of
from charloom.engines.compiled.plan import LSTM
from charloom.engines.compiled.reduction import reduce_gradients
from charloom.engines.compiled.resident import (
    can_stay,
    give_back,
    prepare_step,
    take_in,
    update_resident,
)
from charloom.engines.compiled.update import update_parameters
from charloom.kernels.arrays import (
    as_buffers,
    as_flat,
    flat_from,
)
from charloom.kernels.compiling import subroutine
from charloom.kernels.threads import at_work, barrier, call_up, is_called_again, leave


@subroutine(types.boolean)
def _step(buffers, sync, thread, threads, stays):
    """Run a thread's part of a step; returns False if the step cannot be done.

    With `stays`, the weights are packed already and updated there, see `resident`. Both kinds of
    steps are one function, so that the compiler processes the passes once.
    """
    plan, numbers, keys, results = buffers.plan, buffers.numbers, buffers.keys, buffers.results
    part = part_of(plan, thread, threads)
    n = plan.steps * plan.batch
    inputs, targets = buffers.inputs, buffers.targets
    if not in_vocabulary(plan, inputs, n, sync) or not in_vocabulary(plan, targets, n, sync):
        return False  # in all threads
    classic = numbers[CLASSIC] != 0
    dropped, characters = plan.weight_drop != 0 and keys[OF_WEIGHTS] != 0, 0
    if stays:
        characters = prepare_step(buffers, part)
    else:
        clear_sums(buffers, part)
        if dropped:
            drop_weights(buffers, part, flat_from(keys, OF_WEIGHTS + 1), numbers[KEPT_WEIGHT])
            if not barrier(sync, threads):
                return False
        pack_weights(buffers, thread, threads, True, dropped)
        if not barrier(sync, threads):
            return False
    forward_pass(buffers, part, numbers[KEPT])
    loss = decoder_pass(buffers, part, 1.0 if classic else 1.0 / n)
    results[SUMS + 2 * thread] = loss
    for layer in range(plan.layers - 1, -1, -1):
        backward_pass(buffers, part, layer)
        weight_gradients(buffers, part, layer)
    if stays:
        return update_resident(buffers, part, loss, characters)
    if not barrier(sync, threads):
        return False
    results[SUMS + 2 * thread + 1] = reduce_gradients(buffers, part, classic, dropped)
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
        update_parameters(buffers, part, kind, clip / norm if 0 < clip < norm else 1.0)
    if thread == 0:
        results[LOSS], results[NORM] = loss / n, norm
    return barrier(sync, threads)


@subroutine()
def _load_window(buffers, window):
    """Copy one of several windows, and the description of its step, to where a step reads them."""
    plan, count = buffers.plan, buffers.plan.steps * buffers.plan.batch
    inputs = flat_from(buffers.several, 2 * window * count)
    targets = flat_from(inputs, count)
    for position in range(count):
        buffers.inputs[position] = inputs[position]
        buffers.targets[position] = targets[position]
    described = flat_from(buffers.described, window * DESCRIBED)
    for j in range(KIND):
        buffers.numbers[j] = described[j]
    if window > 0:
        arrays = 2 if plan.cell == LSTM else 1
        fresh = described[FRESH] != 0
        for j in range(arrays * plan.layers * plan.batch * plan.hidden):
            buffers.state[j] = 0 if fresh else buffers.new_state[j]


@subroutine(types.boolean)
def _steps(buffers, sync, thread, threads):
    """Run a thread's part of a step, or in one thread several, until one that is not finite.

    Returns False if the last step cannot be done.
    """
    results, several, taken, done = buffers.results, int(buffers.numbers[WINDOWS]), 0, True
    stays = several > 1 and can_stay(buffers)
    if stays:
        take_in(buffers)
    for window in range(several):
        if several > 1:
            _load_window(buffers, window)
        done = _step(buffers, sync, thread, threads, stays)
        if not done or several == 1:
            break
        loss, norm = results[LOSS], results[NORM]
        if not math.isfinite(loss) or not math.isfinite(norm):
            break
        buffers.taken[2 * window + LOSS] = loss
        buffers.taken[2 * window + NORM] = norm
        taken = window + 1
    if stays:
        give_back(buffers)
    if several > 1:
        results[TAKEN] = taken
    return done


def train(places, like, sync_, threads, thread):
    """Run a step of training, or several; with the kind GRADIENTS_ONLY compute loss and gradients.

    Parameters and slots stay unchanged where loss or norm are not finite, or where the norm's
    square overflows in float64: the norm is infinite then. All threads but the first stay for
    further steps.

    Args:
        places: the addresses of TrainingBuffers; a call with one array is much faster than one
            with all of them.
        like: an array of the model's dtype.
        sync_: the crew's array, see `charloom.kernels.threads`.
        threads: number of threads.
        thread: number of this thread.
    """
    buffers, sync = as_buffers(TrainingBuffers, places, like), as_flat(sync_)
    if thread == 0 and not call_up(sync, threads):
        return
    while True:
        if thread > 0:
            at_work(sync, thread)
        done = _steps(buffers, sync, thread, threads)
        if thread == 0:
            return
        if not done:
            leave(sync, thread)
            return
        if not is_called_again(sync, thread):
            return

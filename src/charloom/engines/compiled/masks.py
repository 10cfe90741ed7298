"""Sample dropout masks and drop recurrent weights inside kernels."""

from __future__ import annotations

import numpy as np
from numba import types

from charloom.engines.compiled.places import layer_of, share
from charloom.kernels.compiling import subroutine


@subroutine()
def drop_weights(buffers, part, keys, kept):
    """Sample a thread's share of the recurrent weights' masks, and multiply the weights by them.

    The masks are those of `charloom.network.dropout.weight_mask`. Masks and products are in the
    packed weights.

    Args:
        buffers: TrainingBuffers.
        part: Part of the thread.
        keys: the step's key, and the least 53-bit number that is kept.
        kept: factor of the weights that are kept, 1 / (1 − rate).
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    plan, packed, flat = buffers.plan, buffers.packed, buffers.parameters
    h, stacked, least = plan.hidden, plan.gates * plan.hidden, keys[1]
    first = share(stacked, part.thread, part.threads)
    last = share(stacked, part.thread + 1, part.threads)
    for layer in range(plan.layers):
        key = _mix(keys[0] + np.uint64(layer) * golden)
        for row in range(first, last):
            row_key = _mix(key + np.uint64(row) * golden)
            at = (layer * stacked + row) * h
            source = plan.flat_hh + layer * plan.flat_layer + row * h
            for j in range(h):
                bits = _mix(row_key + np.uint64(j + 1) * golden) >> np.uint64(11)
                mask = kept if bits >= least else 0.0
                packed[plan.hh_mask + at + j] = mask
                packed[plan.hh_left + at + j] = flat[source + j] * mask


@subroutine(types.uint64)
def _mix(z):
    """Return SplitMix64's finalizer of z, as in `charloom.network.dropout`."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@subroutine()
def draw_mask(buffers, part, layer, kept):
    """Sample `charloom.network.dropout.dropout_mask` for a thread's rows of a layer.

    Args:
        buffers: TrainingBuffers.
        part: Part of the thread.
        layer: index of the layer.
        kept: factor of the outputs that are kept, 1 / (1 − rate).
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    plan, w, keys = buffers.plan, buffers.work, buffers.keys
    mask = layer_of(plan, part.work, layer, part.rows).mask
    least = keys[2]
    key = _mix(keys[1] + np.uint64(layer) * golden)
    for row in range(part.rows):
        row_key = _mix(key + np.uint64(part.row + row) * golden)
        for t in range(plan.steps):
            at = mask + (t * part.rows + row) * plan.hst
            counter = np.uint64(t * plan.hidden + 1)
            for j in range(plan.hidden):
                bits = _mix(row_key + (counter + np.uint64(j)) * golden) >> np.uint64(11)
                w[at + j] = kept if bits >= least else 0.0

"""Draw dropout masks and drop recurrent weights inside kernels."""

from __future__ import annotations

import numpy as np
from numba import types

from charloom.engines.compiled.plan import share
from charloom.kernels.compiling import subroutine


@subroutine()
def drop_weights(s, flat, packed, key_of_step, least, kept, thread, threads):
    """A thread's part of the recurrent weights' masks, charloom.model.weight_mask, and of what they
    leave. key_of_step, least, kept: as for _draw_mask."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    h, stacked = s.hidden, s.gates * s.hidden
    for layer in range(s.layers):
        key = _mix(key_of_step + np.uint64(layer) * golden)
        for row in range(share(stacked, thread, threads), share(stacked, thread + 1, threads)):
            row_key = _mix(key + np.uint64(row) * golden)
            at = (layer * stacked + row) * h
            source = s.flat_hh + layer * s.flat_layer + row * h
            for j in range(h):
                bits = _mix(row_key + np.uint64(j + 1) * golden) >> np.uint64(11)
                mask = kept if bits >= least else 0.0
                packed[s.hh_mask + at + j] = mask
                packed[s.hh_left + at + j] = flat[source + j] * mask


@subroutine(types.uint64)
def _mix(z):
    """SplitMix64's finalizer, as in charloom.model."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@subroutine()
def draw_mask(s, w, mask, steps, row0, rows, keys, kept, layer):
    """charloom.model.dropout_mask for a thread's rows. keys: whether to drop, the key of seed and
    step, the least 53-bit number that is kept; kept: 1 / (1 − rate)."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    least = keys[2]
    key = _mix(keys[1] + np.uint64(layer) * golden)
    for row in range(rows):
        row_key = _mix(key + np.uint64(row0 + row) * golden)
        for t in range(steps):
            at = mask + (t * rows + row) * s.hst
            counter = np.uint64(t * s.hidden + 1)
            for j in range(s.hidden):
                bits = _mix(row_key + (counter + np.uint64(j)) * golden) >> np.uint64(11)
                w[at + j] = kept if bits >= least else 0.0

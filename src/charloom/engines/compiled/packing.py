"""Pack weights in the layout that the products read."""

from __future__ import annotations

from charloom.engines.compiled.places import share, w_ih_at
from charloom.engines.compiled.plan import GRU
from charloom.kernels.arrays import Tile
from charloom.kernels.compiling import subroutine
from charloom.kernels.products import Panels, pack
from charloom.kernels.vectors import load_first, store, transpose, width


@subroutine()
def pack_weights(buffers, thread, threads, backward, dropped):
    """Pack a thread's share of the weights.

    Args:
        buffers: TrainingBuffers or InferenceBuffers.
        thread: number of the thread.
        threads: number of threads.
        backward: whether to pack the transposes too, for the backward pass.
        dropped: whether to pack the recurrent weights that `drop_weights` left.
    """
    plan, packed, flat = buffers.plan, buffers.packed, buffers.parameters
    h, across, v = plan.hidden, plan.across, plan.vocabulary
    first, last = share(plan.panels, thread, threads), share(plan.panels, thread + 1, threads)
    for layer in range(plan.layers):
        for is_input in range(0 if layer == 0 else 1, -1, -1):
            weights = w_ih_at(plan, layer) if is_input else plan.flat_hh + layer * plan.flat_layer
            to = (plan.ih if is_input else plan.hh) + layer * plan.packed_layer
            back = (plan.ih_back if is_input else plan.hh_back) + layer * plan.packed_layer
            source = Tile(flat, weights, h)
            if dropped and not is_input:
                source = Tile(packed, plan.hh_left + layer * plan.gates * h * h, h)
            for gate in range(plan.gates):
                weight = Tile(source.array, source.offset + gate * h * h, h)
                panel = across * h
                panels = Panels(packed, to + gate * plan.packed_gate, panel, across, plan.tail)
                pack(panels, weight, 0, h, h, h, first, last)
                if backward:
                    panel = across * plan.gates * plan.size
                    start = back + gate * plan.size * across
                    panels = Panels(packed, start, panel, across, plan.tail)
                    pack(panels, weight, 1, h, h, plan.size, first, last)
        if thread == 0:
            _pack_biases(buffers, layer)
    _pack_table(buffers, thread, threads)
    if plan.extra_inputs:
        e = plan.extra_inputs
        for gate in range(plan.gates):
            weight = Tile(flat, gate * h * (v + e) + v, v + e)  # behind the characters' columns
            start = plan.extra_ih + gate * plan.packed_extra_gate
            panels = Panels(packed, start, across * e, across, plan.tail)
            pack(panels, weight, 0, e, h, e, first, last)
    weight = Tile(flat, plan.flat_decoder, h)
    if backward:
        panels = Panels(packed, plan.decoder_back, across * v, across, plan.tail)
        pack(panels, weight, 1, v, h, v, first, last)
    first = share(plan.vocabulary_panels, thread, threads)
    last = share(plan.vocabulary_panels, thread + 1, threads)
    pack(Panels(packed, plan.decoder, across * h, across, across), weight, 0, h, v, h, first, last)
    if thread == 0:
        bias = plan.decoder_bias
        for character in range(plan.classes):
            # Padding gets a low logit so that it is never sampled, yet a finite one.
            packed[bias + character] = (
                flat[plan.flat_decoder_bias + character] if character < v else -1e30
            )


@subroutine()
def _pack_biases(buffers, layer):
    """Add up the two biases of a layer, and copy its gains; gru's n keeps the biases apart."""
    plan, packed, flat = buffers.plan, buffers.packed, buffers.parameters
    lanes, h = width(flat), plan.hidden
    place, flat_place = layer * plan.packed_layer, layer * plan.flat_layer
    for gate in range(plan.gates):
        for unit in range(0, h, lanes):
            units = min(lanes, h - unit)
            source = flat_place + gate * h + unit
            b_ih = load_first(flat, plan.flat_b_ih + source, units)
            b_hh = load_first(flat, plan.flat_b_hh + source, units)
            to = plan.bias + place + gate * plan.size + unit
            if plan.cell == GRU and gate == 2:
                store(packed, to, b_ih)
                store(packed, plan.bias_q + place + unit, b_hh)
            else:
                store(packed, to, b_ih + b_hh)
            if plan.norm:
                at = place + gate * plan.size + unit
                gain_ih = load_first(flat, plan.flat_gain_ih + source, units)
                store(packed, plan.gain_ih + at, gain_ih)
                gain_hh = load_first(flat, plan.flat_gain_hh + source, units)
                store(packed, plan.gain_hh + at, gain_hh)


@subroutine()
def _pack_table(buffers, thread, threads):
    """Transpose the characters' columns of the first layer's input weights, (G·H, V + E), to rows
    of gates, and add the biases, unless products are normalized.
    """
    plan, packed, flat = buffers.plan, buffers.packed, buffers.parameters
    lanes, h, v = width(flat), plan.hidden, plan.vocabulary
    columns = v + plan.extra_inputs
    first, last = share(plan.panels, thread, threads), share(plan.panels, thread + 1, threads)
    for gate in range(plan.gates):
        for unit in range(first * plan.across, min(last * plan.across, h), lanes):
            units = min(lanes, h - unit)
            source = gate * h + unit
            to = plan.table + gate * plan.size + unit
            bias = load_first(flat, plan.flat_b_ih + source, units)
            if plan.cell != GRU or gate != 2:
                bias = bias + load_first(flat, plan.flat_b_hh + source, units)
            if plan.norm:
                bias = load_first(flat, 0, 0)
            for character in range(0, v, lanes):
                transpose(
                    Tile(packed, to + character * plan.gst, plan.gst),
                    Tile(flat, source * columns + character, columns),
                    units, min(lanes, v - character), lanes, bias,
                )  # fmt: skip

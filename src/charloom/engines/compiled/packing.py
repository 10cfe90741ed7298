"""Pack weights the way the products read them."""

from __future__ import annotations

from charloom.engines.compiled.plan import GRU, share, w_ih_at
from charloom.kernels.compiling import subroutine
from charloom.kernels.products import pack
from charloom.kernels.vectors import load_first, store, transpose, width


@subroutine()
def pack_weights(s, flat, packed, thread, threads, backward, dropped):
    """A thread's part of packing the weights, with their transposes if `backward`; of the recurrent
    ones what drop_weights left, if `dropped`."""
    lanes, h, across = width(flat), s.hidden, s.across
    first, last = share(s.panels, thread, threads), share(s.panels, thread + 1, threads)
    for layer in range(s.layers):
        for is_input in range(0 if layer == 0 else 1, -1, -1):
            weights = w_ih_at(s, layer) if is_input else s.flat_hh + layer * s.flat_layer
            to = (s.ih if is_input else s.hh) + layer * s.packed_layer
            back = (s.ih_back if is_input else s.hh_back) + layer * s.packed_layer
            from_left = dropped and not is_input
            if from_left:
                weights = s.hh_left + layer * s.gates * h * h
            for gate in range(s.gates):
                start = weights + gate * h * h
                _pack_gate(
                    s, packed, to + gate * s.packed_gate, back + gate * s.size * across,
                    packed if from_left else flat, start, first, last, backward,
                )  # fmt: skip
        if thread == 0:
            place, flat_place = layer * s.packed_layer, layer * s.flat_layer
            for gate in range(s.gates):
                for unit in range(0, h, lanes):
                    units = min(lanes, h - unit)
                    source = flat_place + gate * h + unit
                    b_ih = load_first(flat, s.flat_b_ih + source, units)
                    b_hh = load_first(flat, s.flat_b_hh + source, units)
                    to = s.bias + place + gate * s.size + unit
                    if s.cell == GRU and gate == 2:
                        store(packed, to, b_ih)
                        store(packed, s.bias_q + place + unit, b_hh)
                    else:
                        store(packed, to, b_ih + b_hh)
    _pack_table(s, flat, packed, thread, threads)
    v = s.vocabulary
    first = share(s.vocabulary_panels, thread, threads)
    last = share(s.vocabulary_panels, thread + 1, threads)
    pack(packed, s.decoder, across * h, across, h, flat, s.flat_decoder, 1, h, h, v, first, last)
    if backward:
        first, last = share(s.panels, thread, threads), share(s.panels, thread + 1, threads)
        pack(
            packed, s.decoder_back, across * v, s.tail, v,
            flat, s.flat_decoder, h, 1, v, h, first, last,
        )  # fmt: skip
    if thread == 0:
        bias = s.decoder_bias
        for character in range(s.classes):
            # Padding never becomes a choice, nor infinite.
            packed[bias + character] = (
                flat[s.flat_decoder_bias + character] if character < v else -1e30
            )


@subroutine()
def _pack_gate(s, packed, to, back, source, start, first, last, backward):
    """Panels `first` to before `last` of an (H, H) matrix that begins at `start`."""
    h, across = s.hidden, s.across
    pack(packed, to, across * h, s.tail, h, source, start, 1, h, h, h, first, last)
    if backward:
        pack(
            packed, back, across * s.gates * s.size, s.tail, s.size,
            source, start, h, 1, h, h, first, last,
        )  # fmt: skip


@subroutine()
def _pack_table(s, flat, packed, thread, threads):
    """The first layer's input weights, (G·H, V), transposed to rows of gates, biases added."""
    lanes, h, v = width(flat), s.hidden, s.vocabulary
    first, last = share(s.panels, thread, threads), share(s.panels, thread + 1, threads)
    for gate in range(s.gates):
        for unit in range(first * s.across, min(last * s.across, h), lanes):
            units = min(lanes, h - unit)
            source = gate * h + unit
            to = s.table + gate * s.size + unit
            bias = load_first(flat, s.flat_b_ih + source, units)
            if s.cell != GRU or gate != 2:
                bias = bias + load_first(flat, s.flat_b_hh + source, units)
            for character in range(0, v, lanes):
                transpose(
                    packed, to + character * s.gst, s.gst, flat, source * v + character, v,
                    units, min(lanes, v - character), lanes, bias,
                )  # fmt: skip

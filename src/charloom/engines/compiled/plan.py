"""The plan of a kernel: the sizes of a model and its windows, and offsets in the flat arrays.

V: characters in the vocabulary; E: extra inputs; H: hidden units; L: layers; G: gates; T: time
steps; R: rows of a thread's part of a batch, the most of any thread. All numbers count array
entries.

Rows are padded with zeros to whole vectors, and the strides between them to an odd number of cache
lines. With even strides, the rows of a matrix would compete for few places in the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charloom.kernels.sizes import lanes, outer_scratch
from charloom.network.parameters import CACHE_LINE, ModelConfig

RNN, LSTM, GRU = 0, 1, 2
NO_END = -1  # in place of the id of a document's end, in the model of a book
CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
DECODED_AT_ONCE = 128  # positions whose logits are held at a time


class Plan(NamedTuple):
    """Sizes and offsets, by name.

    An offset inside a layer is that of the first layer. The next layer's is flat_layer,
    packed_layer, work_layer or gradients_layer further on.
    """

    steps: int  # T
    batch: int  # B
    cell: int
    layers: int
    hidden: int  # H
    vocabulary: int  # V
    extra_inputs: int  # E
    gates: int  # G
    dropout: int  # 1 if there is any
    weight_drop: int
    norm: int  # 1 if the products are normalized
    end: int  # the id of the end of a document, or NO_END
    size: int  # H in whole vectors
    hst: int  # the stride between rows of states, (·, H)
    gst: int  # of gates, (·, G·size)
    classes: int  # V in whole vectors
    classes64: int  # V in whole vectors of either dtype
    vst: int  # the stride between rows of logits, (·, V)
    est: int  # of extra inputs, (·, E)
    across: int  # a panel's width
    tail: int  # the distance between rows of a last panel of H columns that is one vector wide
    panels: int  # of H columns
    vocabulary_panels: int

    # On the flat vector of parameters, which starts with the first layer's weight_ih.
    flat_layer: int
    flat_hh: int
    flat_b_ih: int
    flat_b_hh: int
    flat_gain_ih: int  # of normalized products
    flat_gain_hh: int
    flat_decoder: int
    flat_decoder_bias: int
    flat_length: int

    # In the packed weights: a gate's (H, H) or all gates' transposes (G·size, H) in panels.
    packed_layer: int
    packed_gate: int
    hh: int
    hh_back: int
    ih: int
    ih_back: int
    bias: int  # (G·size): the sum of the two biases; for gru's n only the input's
    bias_q: int  # (size): gru's recurrent bias of n
    gain_ih: int  # (G·size): of normalized products
    gain_hh: int  # (G·size)
    table: int  # (V, gst): the first layer's gates for each character, biases included
    # unless products are normalized
    extra_ih: int  # a gate's (H, E), the first layer's for extra inputs; the next gate's:
    packed_extra_gate: int  # this much further on
    decoder: int
    decoder_back: int
    decoder_bias: int
    hh_mask: int  # (L, G·H, H): weight dropping's masks
    hh_left: int  # (L, G·H, H): the weights multiplied by them
    packed_length: int

    # In a thread's workspace. (T + 1, ·) starts with the state before the window.
    work_inputs: int  # (T, R, est): the extra inputs
    work_layer: int
    work_gates: int  # (T, R, gst)
    work_h: int  # (T + 1, R, hst)
    work_extra: int  # (T, R, hst): lstm's tanh c, gru's q
    work_c: int  # (T + 1, R, hst): lstm's c
    work_ih: int  # (T, R, gst): the inputs' products, normalized
    work_hh: int  # (T, R, gst): the states' products, normalized; then their gradients
    work_factors: int  # (T, R, 2, G): the factors of both normalizations
    work_mask: int  # (T, R, hst): dropout's mask
    work_y: int  # (T, R, hst): a layer's outputs after dropout; without it they are its h
    dy: int  # (T + 1, R, hst): the gradient of h, for even layers
    dy_odd: int  # for odd ones, this much further on
    dc: int  # (R, hst)
    around: int  # (2, R, hst): states and gradients kept apart around the ends of documents
    logits: int  # (DECODED_AT_ONCE, vst)
    scratch: int  # four vectors
    outer: int  # copies of outer_product

    # Of the notebook's network, whose weights can stay packed from step to step.
    resident: int  # 1 if they can
    own_table: int  # (V, gst): the first layer's input weights, without biases
    table_squares: int  # (V, gst): AdaGrad's squares of these, and those of the panels of rows
    hh_squares: int
    decoder_squares: int

    # A thread's gradients, in its workspace.
    gradients: int  # the first of them
    gradients_layer: int
    dw_hh: int  # (G·H, hst)
    dw_ih: int  # (G·H, hst)
    db: int  # (G·size)
    db_q: int  # (size)
    dg_ih: int  # (G·size)
    dg_hh: int  # (G·size)
    dtable: int  # (V + E, gst)
    dw_decoder: int  # (V, hst)
    db_decoder: int  # (V)
    work_length: int


def make_plan(
    config: ModelConfig, steps: int, batch: int, threads: int, training: bool = True
) -> Plan:
    """Return the plan for windows (T, B).

    Args:
        config: the model's configuration.
        steps: T.
        batch: B.
        threads: number of threads.
        training: False for a workspace without a backward pass and dropout, in which every thread
            sees all rows, and has its own (R, hst) of `around`.
    """
    count = lanes(config.dtype)
    line = CACHE_LINE // np.dtype(config.dtype).itemsize

    rows = -(-batch // threads) if training else batch
    dropout = training and config.dropout > 0

    def padded(numbers: int) -> int:
        return -(-numbers // count) * count

    def stride(numbers: int) -> int:
        return (-(-numbers // line) | 1) * line

    h, v, e, gates, layers = (
        config.hidden_size, config.vocabulary_size, config.extra_inputs, config.gates, config.layers
    )  # fmt: skip
    size, classes, across = padded(h), padded(v), 2 * count
    hst, gst, vst, est = stride(size), stride(gates * size), stride(classes), stride(e)
    panels, vocabulary_panels = -(-size // across), -(-classes // across)

    # If the last vector of H columns holds few of them, its rows are close together, so that the
    # weights stay in the nearest cache. Products then write nonzero numbers to the padding, which
    # rnn's backward pass never reads.
    tail, left = across, h % count
    if config.cell == "rnn" and 0 < left <= count // 2 and size // count % 2:
        tail = -(-left // 4) * 4

    def places(**lengths: int) -> tuple[dict[str, int], int]:
        """Return the offsets of consecutive arrays, and the length of all."""
        offsets, at = {}, 0
        for name, length in lengths.items():
            offsets[name] = at
            at += stride(length) if length else 0
        return offsets, at

    stacked = gates * h
    flat_hh = stacked * (v + e)
    norm = int(config.norm == "rms")
    flat_layer = stacked * (2 * h + 2 + 2 * norm)
    flat_decoder = flat_hh + flat_layer * layers - stacked * h

    gate, back = panels * across * h, panels * across * gates * size
    extra_gate = panels * across * e
    deep = 1 if layers > 1 else 0
    packed, packed_layer = places(
        hh=gates * gate, hh_back=back, ih=deep * gates * gate, ih_back=deep * back,
        bias=gst, bias_q=hst, gain_ih=norm * gst, gain_hh=norm * gst,
    )  # fmt: skip
    masked = layers * stacked * h if config.weight_drop > 0 else 0
    whole, packed_length = places(
        of_layers=layers * packed_layer, table=v * gst, decoder=vocabulary_panels * across * h,
        decoder_back=panels * across * v, decoder_bias=vst, hh_mask=masked, hh_left=masked,
        extra_ih=gates * extra_gate,
    )  # fmt: skip
    del whole["of_layers"]

    backward = 1 if training else 0
    around = 0 if config.end_id is None else 2 if training else threads
    states, before = steps * rows * hst, rows * hst
    work, work_layer = places(
        work_gates=steps * rows * gst,
        work_h=states + before,
        work_extra=states if config.cell != "rnn" else 0,
        work_c=states + before if config.cell == "lstm" else 0,
        work_ih=norm * steps * rows * gst,
        work_hh=norm * steps * rows * gst,
        work_factors=norm * steps * rows * 2 * gates,
        work_mask=states if dropout else 0,
        work_y=states if dropout else 0,
    )
    plain = config.cell == "rnn" and layers == 1 and not (norm or e or masked)
    resident = int(training and threads == 1 and plain and not dropout)
    gradients, gradients_layer = places(
        dw_hh=stacked * hst,
        dw_ih=deep * stacked * hst,
        db=gst,
        db_q=hst,
        dg_ih=norm * gst,
        dg_hh=norm * gst,
    )
    other, work_length = places(
        of_layers=layers * work_layer, around=around * before, logits=DECODED_AT_ONCE * vst,
        dy=backward * (states + before), dy_odd=backward * (states + before), dc=backward * before,
        scratch=backward * 4 * count,
        outer=backward * outer_scratch(panels * across, count),
        gradients=backward * layers * gradients_layer, dtable=backward * (v + e) * gst,
        dw_decoder=backward * v * hst, db_decoder=backward * vst,
        work_inputs=backward * steps * rows * est if e else 0,
        own_table=resident * v * gst, table_squares=resident * v * gst,
        hh_squares=resident * panels * across * size,
        decoder_squares=resident * panels * across * v,
    )  # fmt: skip
    del other["of_layers"]
    other["dy_odd"] -= other["dy"]
    for name in gradients:
        gradients[name] += other["gradients"]

    return Plan(
        steps=steps, batch=batch,
        cell=CELLS[config.cell], layers=layers, hidden=h, vocabulary=v, extra_inputs=e, gates=gates,
        dropout=int(dropout), weight_drop=int(masked > 0), norm=norm,
        end=NO_END if config.end_id is None else config.end_id,
        size=size, hst=hst, gst=gst, classes=classes,
        classes64=-(-v // lanes("float32")) * lanes("float32"), vst=vst, est=est,
        across=across, tail=tail, panels=panels, vocabulary_panels=vocabulary_panels,
        flat_layer=flat_layer, flat_hh=flat_hh, flat_b_ih=flat_hh + stacked * h,
        flat_b_hh=flat_hh + stacked * (h + 1), flat_gain_ih=flat_hh + stacked * (h + 2),
        flat_gain_hh=flat_hh + stacked * (h + 3), flat_decoder=flat_decoder,
        flat_decoder_bias=flat_decoder + v * h,
        flat_length=config.parameter_count,
        packed_layer=packed_layer, packed_gate=gate, packed_extra_gate=extra_gate,
        **packed, **whole,
        packed_length=packed_length,
        work_layer=work_layer, **work, resident=resident, **other,
        gradients_layer=gradients_layer, **gradients, work_length=work_length,
    )  # fmt: skip

"""Where everything lies: the sizes of a model, and offsets into the kernels' flat arrays.

The same functions serve the kernels and the Python code that makes the arrays.

V: characters in the vocabulary; H: hidden units; L: layers; G: gates; T: time steps; R: rows of a
thread's part of a batch; N: positions, T·R of them. All numbers below count array entries.

Rows are padded with zeros to whole vectors, and the strides between them to an odd number of cache
lines: with even strides the rows of a matrix compete for few places in the cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba.extending import register_jitable

from charloom.engines.compiled.vectors import VECTOR_BYTES, lanes
from charloom.model import ModelConfig

CACHE_LINE = 64  # bytes
RNN, LSTM, GRU = 0, 1, 2
CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
DECODED_AT_ONCE = 128  # positions whose logits are held at a time


class Sizes(NamedTuple):
    """A model's sizes; `size` and `classes` are H and V in whole vectors, the strides lie between
    rows of states (H), gates (G·H) and logits (V)."""

    cell: int
    layers: int
    hidden: int
    vocabulary: int
    gates: int
    size: int
    hst: int
    gst: int
    classes: int
    vst: int
    panels: int  # of H columns
    vocabulary_panels: int
    across: int  # a panel's width
    dropout: bool


def sizes_of(config: ModelConfig) -> Sizes:
    count = lanes(config.dtype)

    def padded(numbers: int) -> int:
        return -(-numbers // count) * count

    def stride(numbers: int) -> int:
        line = CACHE_LINE // np.dtype(config.dtype).itemsize
        return (-(-numbers // line) | 1) * line

    size = padded(config.hidden_size)
    return Sizes(
        cell=CELLS[config.cell],
        layers=config.layers,
        hidden=config.hidden_size,
        vocabulary=config.vocabulary_size,
        gates=config.gates,
        size=size,
        hst=stride(size),
        gst=stride(config.gates * size),
        classes=padded(config.vocabulary_size),
        vst=stride(padded(config.vocabulary_size)),
        panels=-(-size // (2 * count)),
        vocabulary_panels=-(-padded(config.vocabulary_size) // (2 * count)),
        across=2 * count,
        dropout=config.dropout > 0,
    )


# The packed weights: for each layer the products' operands with their transposes, and its biases;
# then the first layer's input weights as a table by character, the decoder's operands, its bias.


@register_jitable
def gate_pack(s):  # type: ignore[no-untyped-def]
    """One gate's weights, (H, H), packed for the way forward."""
    return s.panels * s.across * s.hidden


@register_jitable
def back_pack(s):  # type: ignore[no-untyped-def]
    """All gates' weights packed for the way back, (G·size, H)."""
    return s.panels * s.across * s.gates * s.size


@register_jitable
def layer_pack(s):  # type: ignore[no-untyped-def]
    return 2 * (s.gates * gate_pack(s) + back_pack(s)) + s.gst + s.hst


@register_jitable
def hh_pack(s, layer):  # type: ignore[no-untyped-def]
    return layer * layer_pack(s)


@register_jitable
def hh_back_pack(s, layer):  # type: ignore[no-untyped-def]
    return hh_pack(s, layer) + s.gates * gate_pack(s)


@register_jitable
def ih_pack(s, layer):  # type: ignore[no-untyped-def]
    return hh_back_pack(s, layer) + back_pack(s)


@register_jitable
def ih_back_pack(s, layer):  # type: ignore[no-untyped-def]
    return ih_pack(s, layer) + s.gates * gate_pack(s)


@register_jitable
def bias_pack(s, layer):  # type: ignore[no-untyped-def]
    """The sum of the two biases; for gru's n only the input's."""
    return ih_back_pack(s, layer) + back_pack(s)


@register_jitable
def bias_q_pack(s, layer):  # type: ignore[no-untyped-def]
    """gru's recurrent bias of n."""
    return bias_pack(s, layer) + s.gst


@register_jitable
def table_pack(s):  # type: ignore[no-untyped-def]
    """(V, gst): the first layer's gates for each character, biases included."""
    return s.layers * layer_pack(s)


@register_jitable
def decoder_pack(s):  # type: ignore[no-untyped-def]
    return table_pack(s) + s.vocabulary * s.gst


@register_jitable
def decoder_back_pack(s):  # type: ignore[no-untyped-def]
    return decoder_pack(s) + s.vocabulary_panels * s.across * s.hidden


@register_jitable
def decoder_bias_pack(s):  # type: ignore[no-untyped-def]
    return decoder_back_pack(s) + s.panels * s.across * s.vocabulary


@register_jitable
def packed_length(s):  # type: ignore[no-untyped-def]
    return decoder_bias_pack(s) + s.vst


# A thread's workspace in training: for each layer what the way back needs; the gradient of the
# layer's outputs, and another for the layer below; the logits; at its end the thread's gradients.


@register_jitable
def layer_work(s, steps, rows):  # type: ignore[no-untyped-def]
    states = (steps + 1) * rows * s.hst
    count = steps * rows * s.gst + 2 * states  # gates; h; tanh c, or q
    if s.cell == LSTM:
        count += states
    if s.dropout:
        count += 2 * states
    return count


@register_jitable
def gates_work(s, steps, rows, layer):  # type: ignore[no-untyped-def]
    """(T, R, gst)."""
    return layer * layer_work(s, steps, rows)


@register_jitable
def h_work(s, steps, rows, layer):  # type: ignore[no-untyped-def]
    """(T + 1, R, hst): the state before the window comes first."""
    return gates_work(s, steps, rows, layer) + steps * rows * s.gst


@register_jitable
def extra_work(s, steps, rows, layer):  # type: ignore[no-untyped-def]
    """(T, R, hst): lstm's tanh c, gru's q."""
    return h_work(s, steps, rows, layer) + (steps + 1) * rows * s.hst


@register_jitable
def mask_work(s, steps, rows, layer):  # type: ignore[no-untyped-def]
    """(T, R, hst): dropout's mask, where there is dropout."""
    return extra_work(s, steps, rows, layer) + (steps + 1) * rows * s.hst


@register_jitable
def y_work(s, steps, rows, layer):  # type: ignore[no-untyped-def]
    """(T, R, hst): a layer's outputs, which without dropout are its h."""
    if s.dropout:
        return mask_work(s, steps, rows, layer) + (steps + 1) * rows * s.hst
    return h_work(s, steps, rows, layer) + rows * s.hst


@register_jitable
def c_work(s, steps, rows, layer):  # type: ignore[no-untyped-def]
    """(T + 1, R, hst): lstm's c."""
    return (layer + 1) * layer_work(s, steps, rows) - (steps + 1) * rows * s.hst


@register_jitable
def dy_work(s, steps, rows, layer):  # type: ignore[no-untyped-def]
    """(T + 1, R, hst): the gradient of h; that of the state before the window comes first."""
    both = s.layers * layer_work(s, steps, rows)
    return both + layer % 2 * (steps + 1) * rows * s.hst


@register_jitable
def dc_work(s, steps, rows):  # type: ignore[no-untyped-def]
    """(R, hst)."""
    return dy_work(s, steps, rows, 0) + 2 * (steps + 1) * rows * s.hst


@register_jitable
def logits_work(s, steps, rows):  # type: ignore[no-untyped-def]
    return dc_work(s, steps, rows) + rows * s.hst


@register_jitable
def scratch_work(s, steps, rows):  # type: ignore[no-untyped-def]
    """Four vectors for what is left over at the end of an update."""
    return logits_work(s, steps, rows) + DECODED_AT_ONCE * s.vst


@register_jitable
def gradients_work(s, steps, rows):  # type: ignore[no-untyped-def]
    """The thread's gradients: for each layer dW_hh and dW_ih, (G·H, hst), and the biases'; the
    table's, (V, gst); the decoder's, (V, hst) and (V)."""
    return scratch_work(s, steps, rows) + 2 * s.across * 2


@register_jitable
def layer_gradients(s):  # type: ignore[no-untyped-def]
    return 2 * s.gates * s.hidden * s.hst + s.gst + s.hst


@register_jitable
def dw_hh(s, layer):  # type: ignore[no-untyped-def]
    """Counted from gradients_work, as the four below."""
    return layer * layer_gradients(s)


@register_jitable
def dw_ih(s, layer):  # type: ignore[no-untyped-def]
    return dw_hh(s, layer) + s.gates * s.hidden * s.hst


@register_jitable
def db(s, layer):  # type: ignore[no-untyped-def]
    return dw_ih(s, layer) + s.gates * s.hidden * s.hst


@register_jitable
def db_q(s, layer):  # type: ignore[no-untyped-def]
    return db(s, layer) + s.gst


@register_jitable
def dtable(s):  # type: ignore[no-untyped-def]
    return s.layers * layer_gradients(s)


@register_jitable
def dw_decoder(s):  # type: ignore[no-untyped-def]
    return dtable(s) + s.vocabulary * s.gst


@register_jitable
def db_decoder(s):  # type: ignore[no-untyped-def]
    return dw_decoder(s) + s.vocabulary * s.hst


@register_jitable
def work_length(s, steps, rows):  # type: ignore[no-untyped-def]
    """A thread's workspace, in whole cache lines."""
    return gradients_work(s, steps, rows) + db_decoder(s) + s.vst


def aligned(count: int, dtype: Any) -> Any:
    """Zeros that begin at a whole vector."""
    kind = np.dtype(dtype)
    raw = np.zeros(count * kind.itemsize + VECTOR_BYTES, dtype=np.uint8)
    start = -raw.ctypes.data % VECTOR_BYTES
    return raw[start : start + count * kind.itemsize].view(kind)

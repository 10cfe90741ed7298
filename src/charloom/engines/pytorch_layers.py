"""A recurrent layer of PyTorch, as one call of the function behind `torch.nn.RNN/LSTM/GRU`.

T: time steps; B: rows of a batch; M: length of an input; H: hidden units; S: arrays of state (2 for
lstm, else 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from charloom.engines.pytorch_normalized import GATES, normalized_product
from charloom.network.choices import Cell
from charloom.network.units import Clamp

Tensor: TypeAlias = torch.Tensor
LAYERS = {"rnn": torch.rnn_tanh, "lstm": torch.lstm, "gru": torch.gru}


def run_layer(
    cell: Cell,
    weights: list[Tensor],
    before: Tensor,
    below: Tensor,
    running: Tensor | None = None,
) -> Any:
    """Run a layer.

    Args:
        cell: its cell.
        weights: the layer's two weights and two biases.
        before: its states, (S, 1, B, H).
        below: its inputs, (T, B, M), or those of packed sequences, (N, M).
        running: of packed sequences, how many of them have an input at each time step.

    Returns:
        Its outputs and the states after them, each (1, B, H).
    """
    states = tuple(before) if cell == "lstm" else before[0]
    # has_biases, num_layers, dropout, train, bidirectional
    settings = (True, 1, 0.0, torch.is_grad_enabled(), False)
    layer = LAYERS[cell]
    if running is None:
        return layer(below, states, weights, *settings, False)  # batch_first
    return layer(below, running, states, weights, *settings)


def hold_units(
    clamps: Sequence[Clamp],
    layer: int,
    y: Tensor,
    after: list[Tensor],
    of_step: tuple[Tensor, Tensor, list[Tensor]],
) -> None:
    """Write held units' values into a layer's outputs (1, B, H) and the states after them.

    A held cell state changes the hidden one, h = o ⊙ tanh(c). o is computed again, because the
    library does not return it.

    Args:
        clamps: the held units of all layers.
        layer: index of the layer.
        y: its outputs.
        after: its states after them.
        of_step: the layer's inputs, the states before, and its weights.
    """
    below, before, (w_ih, w_hh, b_ih, b_hh, *gains) = of_step
    for unit, value in clamps:
        if unit.layer != layer:
            continue
        held = torch.full_like(y[0, :, unit.number], value)
        if unit.array == 1:
            row = 3 * y.shape[2] + unit.number
            if gains:
                x, h = (
                    normalized_product(inputs, weight, gain, GATES["lstm"])[:, row]
                    for inputs, weight, gain in (
                        (below[0], w_ih, gains[0]),
                        (before[0, 0], w_hh, gains[1]),
                    )
                )
            else:
                x, h = below[0] @ w_ih[row], before[0, 0] @ w_hh[row]
            a = x + h + b_ih[row] + b_hh[row]
            after[1][0, :, unit.number] = held
            held = torch.sigmoid(a) * torch.tanh(held)
        y[0, :, unit.number] = held
        after[0][0, :, unit.number] = held

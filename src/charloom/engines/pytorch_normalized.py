"""Recurrent layers with normalized products in PyTorch, time step by time step.

A product is divided by its root mean square gate by gate, and multiplied by a gain.

T: time steps; B: rows of a batch; M: length of an input; H: hidden units; G: gates; L: layers; S:
arrays of state (2 for lstm, else 1).
"""

# `charloom export` copies this file beside a state dict, so it needs nothing but PyTorch.

from __future__ import annotations

import torch

EPSILON = 1e-3
GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def normalized_product(
    x: torch.Tensor, weight: torch.Tensor, gain: torch.Tensor, gates: int
) -> torch.Tensor:
    """Return g ⊙ y of W x, (..., G·H), see `charloom.engines.reference_normalization`."""
    product = torch.nn.functional.linear(x, weight).unflatten(-1, (gates, -1))
    root = torch.rsqrt(product.square().mean(dim=-1, keepdim=True) + EPSILON)
    return gain * (product * root).flatten(-2)


def run_normalized_layer(
    cell: str,
    weights: list[torch.Tensor],
    before: torch.Tensor,
    below: torch.Tensor,
    ends: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """Run a layer with normalized products.

    Args:
        cell: its cell.
        weights: the layer's two weights, two biases and two gains.
        before: its states, (S, 1, B, H).
        below: its inputs, (T, B, M).
        ends: whether the inputs are the end of a document, (T, B); None for a book.

    Returns:
        Its outputs (T, B, H) and the states after them, each (1, B, H).
    """
    w_ih, w_hh, b_ih, b_hh, gain_ih, gain_hh = weights
    gates = GATES[cell]
    x = normalized_product(below, w_ih, gain_ih, gates) + b_ih
    states, outputs = list(before[:, 0]), []
    for t in range(len(below)):
        if ends is not None:
            states = [state.masked_fill(ends[t, :, None], 0) for state in states]
        h = states[0]
        a = normalized_product(h, w_hh, gain_hh, gates) + b_hh
        if cell == "rnn":
            states = [torch.tanh(x[t] + a)]
        elif cell == "lstm":
            i, f, g, o = (x[t] + a).chunk(4, dim=-1)
            c = torch.sigmoid(f) * states[1] + torch.sigmoid(i) * torch.tanh(g)
            states = [torch.sigmoid(o) * torch.tanh(c), c]
        else:
            (x_r, x_z, x_n), (a_r, a_z, q) = x[t].chunk(3, dim=-1), a.chunk(3, dim=-1)
            z, n = torch.sigmoid(x_z + a_z), torch.tanh(x_n + torch.sigmoid(x_r + a_r) * q)
            states = [(1 - z) * n + z * h]
        outputs.append(states[0])
    return [torch.stack(outputs), *(state[None] for state in states)]


class NormalizedNetwork(torch.nn.Module):  # type: ignore[misc]
    """Layers of one cell, with the parameters' names of `torch.nn.RNN/LSTM/GRU`, and the gains."""

    def __init__(
        self, cell: str, inputs: int, hidden: int, layers: int, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.cell, self.layers, self.hidden = cell, layers, hidden
        stacked = GATES[cell] * hidden
        for layer in range(layers):
            below = hidden if layer else inputs
            shapes = {
                "weight_ih": (stacked, below), "weight_hh": (stacked, hidden),
                "bias_ih": (stacked,), "bias_hh": (stacked,),
                "norm_ih": (stacked,), "norm_hh": (stacked,),
            }  # fmt: skip
            for name, shape in shapes.items():
                parameter = torch.nn.Parameter(torch.ones(shape, dtype=dtype))
                self.register_parameter(f"{name}_l{layer}", parameter)

    def forward(
        self, y: torch.Tensor, state: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs (T, B, H) and the state (S, L, B, H), for inputs (T, B, M)."""
        if state is None:
            arrays = 2 if self.cell == "lstm" else 1
            state = y.new_zeros(arrays, self.layers, y.shape[1], self.hidden)
        states = []
        for layer in range(self.layers):
            names = "weight_ih", "weight_hh", "bias_ih", "bias_hh", "norm_ih", "norm_hh"
            weights = [getattr(self, f"{name}_l{layer}") for name in names]
            before = state[:, layer : layer + 1]
            y, *after = run_normalized_layer(self.cell, weights, before, y)
            states.append(torch.stack(after))
        return y, torch.cat(states, dim=1)

"""Normalized products of the reference engine, and the recurrent product of its cells.

H: hidden units; G: gates; T: time steps; B: rows of a batch.

With `norm` = "rms", both products of a layer are divided by their root mean square, gate by gate,
and multiplied by a gain (Zhang and Sennrich 2019; in every product of a cell: Ba et al. 2016):

    y = x / √(mean(x²) + ε)   over the H numbers of a gate
    product = g ⊙ y

The size of a product then depends on its gain alone, however large the weights and inputs are.
"""

from __future__ import annotations

import numpy as np

from charloom.network.parameters import Float

EPSILON = 1e-3


def normalize_forward(x: Float, gates: int) -> tuple[Float, Float]:
    """Divide every gate's numbers by their root mean square.

    Args:
        x: products, (..., G·H).
        gates: G.

    Returns:
        y, (..., G·H), and the factors 1 / √(mean(x²) + ε), (..., G, 1).
    """
    blocks = x.reshape(*x.shape[:-1], gates, -1)
    factors = 1 / np.sqrt((blocks * blocks).mean(axis=-1, keepdims=True) + EPSILON)
    factors = factors.astype(x.dtype)
    return (blocks * factors).reshape(x.shape), factors


def normalize_backward(dy: Float, y: Float, factors: Float) -> Float:
    """Return dx, (..., G·H), for y and factors of `normalize_forward`.

    With f = (Σ x²/H + ε)^{−1/2} and y = f x:  df/dx_j = −f³ x_j / H = −f² y_j / H, hence
    dx_j = f dy_j + Σ_i dy_i x_i df/dx_j = f (dy_j − y_j · mean(dy ⊙ y))
    """
    shape = (*dy.shape[:-1], factors.shape[-2], -1)
    dy_blocks, y_blocks = dy.reshape(shape), y.reshape(shape)
    mean = (dy_blocks * y_blocks).mean(axis=-1, keepdims=True)
    return np.asarray((factors * (dy_blocks - y_blocks * mean)).reshape(dy.shape))


class RecurrentProduct:
    """The product W h_{t−1} of a layer in a window.

    Args:
        w: W, (G·H, H).
    """

    def __init__(self, w: Float) -> None:
        self._w = w

    def forward(self, t: int, h: Float) -> Float:
        """Return the product, (B, G·H), of states (B, H) before time step t."""
        return np.asarray(h @ self._w.T)

    def backward(self, t: int, da: Float) -> Float:
        """Return the gradient of these states, (B, H), from that of the product, (B, G·H)."""
        return np.asarray(da @ self._w)

    def raw_gradient(self, da: Float) -> Float:
        """Return the gradient of the products before any normalization, (T, B, G·H)."""
        return da


class NormalizedProduct(RecurrentProduct):
    """The same, normalized: g ⊙ y of W h_{t−1}.

    Args:
        w: W, (G·H, H).
        gain: g, (G·H).
        shape: T, B and G·H.
    """

    def __init__(self, w: Float, gain: Float, shape: tuple[int, ...]) -> None:
        super().__init__(w)
        self._gain = gain
        self._gates = w.shape[0] // w.shape[1]
        self.y = np.empty(shape, w.dtype)  # normalized products
        self._factors = np.empty((*shape[:2], self._gates, 1), w.dtype)
        self._raw = np.empty(0, w.dtype)  # their gradients before the normalization, (T, B, G·H)

    def forward(self, t: int, h: Float) -> Float:
        self.y[t], self._factors[t] = normalize_forward(super().forward(t, h), self._gates)
        return self._gain * self.y[t]

    def backward(self, t: int, da: Float) -> Float:
        if self._raw.shape != self.y.shape:
            self._raw = np.empty_like(self.y)
        self._raw[t] = normalize_backward(self._gain * da, self.y[t], self._factors[t])
        return super().backward(t, self._raw[t])

    def raw_gradient(self, da: Float) -> Float:
        return self._raw

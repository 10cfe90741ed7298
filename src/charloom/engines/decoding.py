"""From logits to the next character: greedy, or sampled at a temperature from fewer characters.

V: characters in the vocabulary; B: rows, each a stream of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of sampling, applied in the order temperature, top_k, top_p, min_p.

    Args:
        temperature: the logits are divided by it; 0 takes the likeliest character.
        top_k: keep only the k likeliest characters.
        top_p: keep only the likeliest characters that together reach probability p (Holtzman et
            al. 2020).
        min_p: keep only characters at least min_p times as likely as the likeliest (Nguyen et al.
            2024).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.temperature) or self.temperature < 0:
            raise CharloomError(f"temperature is {self.temperature}: pass 0 (greedy) or more")
        if self.top_k is not None and self.top_k < 1:
            raise CharloomError(f"top_k is {self.top_k}: pass 1 or more, or omit it")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise CharloomError(f"top_p is {self.top_p}: pass a number above 0 and at most 1")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise CharloomError(f"min_p is {self.min_p}: pass a number from 0 to 1")


def probabilities(logits: NDArray[np.floating], settings: SamplingSettings) -> NDArray[np.float64]:
    """Return the distribution, (V,), that the settings make of one row's logits, (V,)."""
    return np.asarray(_distributions(logits[None], settings)[0])


def _distributions(logits: NDArray[np.floating], settings: SamplingSettings) -> NDArray[np.float64]:
    """Return the distributions of rows, (B, V), none of which depends on another."""
    x = logits.astype(np.float64)
    if settings.temperature == 0:
        greedy = np.zeros(x.shape)
        greedy[np.arange(len(x)), x.argmax(axis=1)] = 1
        return greedy
    with np.errstate(over="ignore", under="ignore"):
        p = np.exp((x - x.max(axis=1, keepdims=True)) / settings.temperature)
    p /= p.sum(axis=1, keepdims=True)
    size = p.shape[1]
    if settings.top_k is not None and settings.top_k < size:
        order = np.argsort(-x, axis=1, kind="stable")
        np.put_along_axis(p, order[:, settings.top_k :], 0, axis=1)
    if settings.top_p is not None:
        order = np.argsort(
            -x, axis=1, kind="stable"
        )  # because logits can differ where rounding made p equal
        sorted_p = np.take_along_axis(p, order, axis=1)
        reached = np.cumsum(sorted_p, axis=1) / p.sum(axis=1, keepdims=True)
        # The character that crosses top_p still belongs to the choice.
        crossing = (reached < settings.top_p).sum(axis=1, keepdims=True)
        sorted_p[np.arange(size) > crossing] = 0
        np.put_along_axis(p, order, sorted_p, axis=1)
    if settings.min_p is not None:
        p[p < settings.min_p * p.max(axis=1, keepdims=True)] = 0
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def choose(
    logits: NDArray[np.floating], settings: SamplingSettings, uniforms: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Return a character a row: logits (B, V) and uniform numbers in [0, 1) (B,) to ids (B,).

    The running sum of the probabilities, in the order of ids, exceeds the number first at that id.
    A row's choice depends only on the row.
    """
    running = np.cumsum(_distributions(logits, settings), axis=1)
    total = running[:, -1:]
    index = (running <= uniforms[:, None] * total).sum(axis=1)
    # Rounding can push the number onto the last sum. Then the last possible character is taken.
    return np.asarray(np.minimum(index, (running < total).sum(axis=1)), np.intp)

"""The products of the reference engine outside the time loop, over all positions of a window.

N: positions, T·B of them in the order of time; M, K: lengths of a position's vectors; C: distinct
characters.
"""

from __future__ import annotations

import numpy as np

from charloom.engines.protocol import Ids
from charloom.network.parameters import Float


class Products:
    """The products, each over all positions at once."""

    @staticmethod
    def times(x: Float, w: Float) -> Float:
        """Return w x at every position: (N, K), (M, K) -> (N, M)."""
        return np.asarray(x @ w.T)

    @staticmethod
    def outer(left: Float, right: Float) -> Float:
        """Return Σ left rightᵀ over positions: (N, M), (N, K) -> (M, K)."""
        return np.asarray(left.T @ right)

    @staticmethod
    def total(values: Float) -> Float:
        """Return Σ over positions: (N, M) -> (M)."""
        return np.asarray(values.sum(axis=0))

    @staticmethod
    def by_character(ids: Ids, values: Float) -> tuple[Ids, Float]:
        """Add up values (N, M) of equal ids (N); returns the distinct ids (C) and sums (C, M)."""
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        return ordered[starts], np.add.reduceat(values[order], starts, axis=0)


class NotebookProducts(Products):
    """The same, position by position backward in time, as the notebook (and scratch.py) add up.

    The preset classic starts in a chaotic regime: steps of 0.1 on weights of 0.01 let the rounding
    of one sum decide everything within twenty steps. Only the same order of sums gives the
    notebook's own numbers.
    """

    @staticmethod
    def times(x: Float, w: Float) -> Float:
        return np.stack([w @ position for position in x])

    @staticmethod
    def outer(left: Float, right: Float) -> Float:
        total = np.zeros((left.shape[1], right.shape[1]), left.dtype)
        for a, b in zip(left[::-1], right[::-1], strict=True):
            total += np.multiply.outer(a, b)
        return total

    @staticmethod
    def total(values: Float) -> Float:
        total = np.zeros(values.shape[1:], values.dtype)
        for value in values[::-1]:
            total += value
        return total

    @staticmethod
    def by_character(ids: Ids, values: Float) -> tuple[Ids, Float]:
        distinct = np.unique(ids)
        return distinct, np.stack([NotebookProducts.total(values[ids == i]) for i in distinct])

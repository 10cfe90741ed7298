"""Hidden states as features of a text's characters, or of lines.

N is the number of characters, D that of lines, L that of layers, H that of hidden units. The
features of a state are F = L·H numbers: the units of layer 0, then those of layer 1, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from charloom.engines.protocol import Ids, Predictor
from charloom.errors import CharloomError, shortened
from charloom.network.parameters import Float
from charloom.prediction.scoring import (
    NUMBERS_AT_ONCE,
    BlockOfPieces,
    blocks_of_pieces,
    document_lengths,
)
from charloom.progress import OnProgress
from charloom.text.dataset import TextIds

Pooling = Literal["mean", "last"]
Features = NDArray[np.float32]


def states_of_text(
    predictor: Predictor,
    ids: TextIds,
    before: int,
    on_progress: OnProgress | None = None,
    *,
    numbers_at_once: int = NUMBERS_AT_ONCE,
) -> Features:
    """Return the hidden states after each character of a text, (N, F).

    Args:
        predictor: the model, of which the network's states are returned.
        ids: the text. In a model of documents, each document has its end.
        before: the id that is the first input of the text, or of each document.
        on_progress: called with the stage "reading", the number of ids read and their total.
        numbers_at_once: the memory limit besides the result, in numbers that the model holds.
    """
    end_id = predictor.config.end_id
    if end_id is None:
        lengths = np.array([len(ids)])
    else:
        lengths = document_lengths(ids, end_id) - 1
        ids = ids[ids != end_id]
    found = np.empty((len(ids), _features(predictor)), np.float32)
    for block, states, mask in _blocks(
        predictor, ids, lengths, before, on_progress, numbers_at_once
    ):
        rows = block.places - 1 - block.pieces  # without the additional ids before them
        found[rows[mask]] = states[mask]
    return found


def states_of_pieces(
    predictor: Predictor,
    ids: TextIds,
    lengths: NDArray[np.intp],
    before: int,
    pooling: Pooling = "mean",
    on_progress: OnProgress | None = None,
    *,
    numbers_at_once: int = NUMBERS_AT_ONCE,
) -> Features:
    """Return the hidden states of each piece, (D, F), zeros for one without characters.

    Args:
        predictor: the model, of which the network's states are returned.
        ids: those of all pieces, one after the other, (N,).
        lengths: the number of ids of each piece, (D,).
        before: the id that is the first input of every piece.
        pooling: `mean` for the mean over a piece's characters, or `last` for the last state.
        on_progress, numbers_at_once: as in `states_of_text`.

    Raises:
        CharloomError: if `pooling` is unknown.
    """
    if pooling not in get_args(Pooling):
        raise CharloomError(f"pooling is {shortened(pooling)}: pass 'mean' or 'last'")
    found = np.zeros((len(lengths), _features(predictor)), np.float64)
    lasts = np.cumsum(lengths + 1) - 1
    for block, states, mask in _blocks(
        predictor, ids, lengths, before, on_progress, numbers_at_once
    ):
        if pooling == "last":
            mask &= block.places == lasts[block.pieces]
        # Added one after the other, so that the length of a block does not change the sum.
        values = np.where(mask[:, :, None], states, 0).astype(np.float64)
        found[block.pieces] = np.cumsum([found[block.pieces], *values], axis=0)[-1]
    if pooling == "mean":
        found /= np.maximum(lengths, 1)[:, None]
    return found.astype(np.float32)


def _features(predictor: Predictor) -> int:
    return predictor.config.layers * predictor.config.hidden_size


def _blocks(
    predictor: Predictor,
    ids: TextIds,
    lengths: NDArray[np.intp],
    before: int,
    on_progress: OnProgress | None,
    numbers_at_once: int,
) -> Iterator[tuple[BlockOfPieces, Float, NDArray[np.bool_]]]:
    """Yield blocks, their states, (T, B, F), and where a character precedes a state, (T, B).

    Each piece gets an additional id at its end, because the state at a place is the one before it.
    """
    longer = np.insert(ids, np.cumsum(lengths), before)

    def read(inputs: Ids, state: Any) -> tuple[Float, Any]:
        states, state = predictor.states(inputs, state)  # (T, S, L, B, H)
        hidden = np.moveaxis(states[:, 0], 1, 2)  # (T, B, L, H)
        return hidden.reshape(*hidden.shape[:2], -1), state

    def report(stage: str, done: int, total: int | None) -> None:
        if on_progress is not None:
            on_progress("reading", done, total)

    starts = np.cumsum(lengths + 1) - (lengths + 1)
    for block in blocks_of_pieces(
        predictor, longer, lengths + 1, before, report, numbers_at_once, read
    ):
        yield block, block.outputs, block.inside & (block.places > starts[block.pieces])

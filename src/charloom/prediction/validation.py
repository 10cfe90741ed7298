"""Validation during training, and predictions of a long text in rows side by side.

N is the number of characters of the text, V that of the vocabulary, T that of time steps. B is the
number of rows, E that of extra inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.engines.protocol import Engine, Predictor
from charloom.prediction.rows import put_rows
from charloom.prediction.scoring import NUMBERS_AT_ONCE
from charloom.text.dataset import TextIds
from charloom.text.extra_inputs import ExtraInputs

WARM_UP = 64  # characters that a row of validation reads before the first that it scores

Floats = NDArray[np.floating]
# Inputs (T, B) and a state to an output for each input, (T, B, ·), and the next state. Extra inputs
# (T, B, E) are passed as `extra`, if there are any.
Read = Callable[..., tuple[Floats, Any]]


@dataclass(frozen=True)
class Validation:
    """The result of a validation during training.

    Its protocol is `carried`, or `carried-R-rows` for a longer split. That is cut into R equal
    pieces side by side. Each but the first starts from a zero state and first reads the 64
    characters before it.
    """

    nats_per_character: float
    characters: int
    protocol: str


def validate(
    engine: Engine,
    ids: TextIds,
    before: int,
    rows: int,
    *,
    extra: ExtraInputs | None = None,
    numbers_at_once: int = NUMBERS_AT_ONCE,
) -> Generator[int, None, Validation]:
    """Score ids, (N,), in `rows` rows, as a generator, so that a caller can interrupt it.

    Args:
        engine: the network.
        ids: the validation split's.
        before: the id of the character before it.
        rows: rows side by side.
        extra: the extra inputs of `before` and of ids, (N + 1, E).
        numbers_at_once: the memory limit, in numbers that the engine holds.

    Yields:
        The number of characters scored so far.

    Returns:
        The validation.
    """
    total = 0.0
    scored = 0
    for places, block in blocks_in_rows(
        engine, ids, before, rows, extra=extra, numbers_at_once=numbers_at_once
    ):
        values = block[np.arange(len(places)), ids[places].astype(np.intp)]
        total += float(values.sum(dtype=np.float64))
        scored += len(places)
        yield scored
    protocol = "carried" if rows == 1 else f"carried-{rows}-rows"
    return Validation(-total / len(ids), len(ids), protocol)


def blocks_in_rows(
    predictor: Predictor,
    ids: TextIds,
    before: int,
    rows: int,
    *,
    read: Read | None = None,
    extra: ExtraInputs | None = None,
    warm_up: int = WARM_UP,
    numbers_at_once: int = NUMBERS_AT_ONCE,
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.floating]]]:
    """Cut ids, (N,), into rows side by side, and predict each place exactly once.

    Args:
        predictor: the model.
        ids: the text's.
        before: the id of the character before it.
        rows: rows side by side, B.
        read: computes the output for each input; by default the log-probabilities.
        extra: the extra inputs of `before` and of ids, (N + 1, E).
        warm_up: characters that every row but the first reads before the first that it predicts.
        numbers_at_once: the memory limit, in numbers that the model holds.

    Yields:
        Some of the places, (S,), and the output of `read` there, (S, ·); by default log p, (S, V).
    """
    read = read or predictor.log_probabilities
    length = len(ids) // rows
    longer = len(ids) - rows * length  # The first rows are one longer, so that all ids are scored.
    lengths = np.full(rows, length)
    lengths[:longer] += 1
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])  # (B,)
    state = predictor.zero_state(rows)
    warm = warm_up if rows > 1 else 0
    # The inputs of a row are its warm-up, then the character before each that it scores.
    places = starts + np.arange(-warm, length + 1)[:, None]  # (T, B), of targets; inputs lie before
    at_once = max(1, numbers_at_once // (predictor.config.numbers_per_position * rows))
    for begin in range(0, len(places), at_once):
        block_places = places[begin : begin + at_once]
        inputs = np.where(block_places > 0, ids[np.maximum(block_places - 1, 0)], before)
        beside = {}
        if extra is not None:  # an input lies before its place, and `before` is the first one
            numbers = extra.gather(np.maximum(block_places, 0))
            beside["extra"] = numbers.astype(predictor.config.dtype, copy=False)
        # No text precedes the first row, so its state stays at zero until its first input.
        block, state = _read_after_start(
            read, inputs, state, predictor.zero_state(1), block_places >= 0, beside
        )
        inside = (block_places >= starts) & (block_places < starts + lengths)
        yield block_places[inside], block[inside]


def _read_after_start(
    read: Read,
    inputs: NDArray[np.integer],
    state: Any,
    zero: Any,
    started: NDArray[np.bool_],
    beside: dict[str, Floats],
) -> tuple[Floats, Any]:
    """Call `read`, and reset the first row's state where its text has not started.

    Args:
        read: computes an output for each input.
        inputs: ids, (T, B).
        state: the state before them.
        zero: that of a row that has read nothing.
        started: False where an input lies before the beginning of the text, (T, B).
        beside: the keyword `extra` with the extra inputs, (T, B, E), if there are any.

    Returns:
        The outputs, (T, B, ·), and the state after them.
    """
    late = int((~started[:, 0]).sum())
    if late == 0:
        return read(inputs.astype(np.intp), state, **beside)
    blocks = []
    for part in (slice(0, late), slice(late, None)):
        if len(inputs[part]):
            numbers = {name: values[part] for name, values in beside.items()}
            block, state = read(inputs[part].astype(np.intp), state, **numbers)
            blocks.append(block)
        if part.start == 0:
            put_rows(state, [0], zero)
    return np.concatenate(blocks), state

"""Training windows: where they lie and what follows what."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from charloom.text.batches import SlidingWindows, Streams


@given(st.integers(2, 400), st.integers(1, 9), st.integers(1, 30))
def test_streams_read_rows_one_after_another(length: int, batch_size: int, window: int) -> None:
    ids = np.arange(length, dtype=np.uint16)  # an id is its own place
    batches = Streams(ids, batch_size, window)
    seen: set[int] = set()
    before = np.zeros(0)
    for step in range(2 * batches.steps_per_epoch):
        inputs, targets, fresh = batches(step)
        assert inputs.shape == targets.shape == (min(window, length - 1), batches.rows)
        assert (targets == inputs + 1).all()
        assert (np.diff(inputs, axis=0) == 1).all()
        assert fresh == (step % batches.steps_per_epoch == 0)
        if not fresh:
            assert (inputs[0] == before[-1] + 1).all()  # contiguous with the window before
        before = inputs
        seen |= set(targets.ravel().tolist())
    # Two epochs leave out only what does not divide among the rows.
    assert len(seen) == (length - 1) // batches.rows * batches.rows


def test_a_short_text_gets_fewer_rows() -> None:
    assert Streams(np.zeros(100, np.uint8), 32, 64).rows == 1
    assert Streams(np.zeros(129, np.uint8), 32, 64).rows == 2
    assert Streams(np.zeros(10**5, np.uint8), 32, 64).rows == 32


def test_an_epoch_starts_again() -> None:
    batches = Streams(np.arange(100, dtype=np.uint8), 2, 10)
    for a, b in zip(batches(1)[:2], batches(1 + 2 * batches.steps_per_epoch)[:2], strict=True):
        assert (a == b).all()


@given(st.integers(2, 200), st.integers(1, 30), st.integers(1, 12))
def test_sliding_windows_are_the_notebook_s(length: int, window: int, stride: int) -> None:
    ids = np.arange(length, dtype=np.uint8)
    batches = SlidingWindows(ids, window, stride)
    starts = range(0, length - 1, stride)
    assert batches.steps_per_epoch == len(starts)
    for step, start in enumerate(starts):
        inputs, targets, fresh = batches(step)
        assert fresh
        assert inputs[:, 0].tolist() == list(range(start, min(start + window, length - 1)))
        assert (targets == inputs + 1).all()

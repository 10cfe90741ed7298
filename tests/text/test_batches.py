"""Training windows: where they lie and what follows what."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from charloom.text import batches as module
from charloom.text.batches import Batches, ShuffledDocuments, SlidingWindows, Streams
from charloom.text.extra_inputs import ExtraInputs

END_ID = 9


@given(st.integers(2, 400), st.integers(1, 9), st.integers(1, 30))
def test_streams_read_rows_one_after_another(length: int, batch_size: int, window: int) -> None:
    ids = np.arange(length, dtype=np.uint16)  # an id is its own place
    batches = Streams(ids, batch_size, window)
    seen: set[int] = set()
    before = np.zeros(0)
    for step in range(2 * batches.steps_per_epoch):
        inputs, targets, fresh, _ = batches(step)
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
        inputs, targets, fresh, _ = batches(step)
        assert fresh
        assert inputs[:, 0].tolist() == list(range(start, min(start + window, length - 1)))
        assert (targets == inputs + 1).all()


@given(st.integers(2, 150), st.integers(1, 9), st.integers(1, 20), st.integers(1, 12))
def test_several_windows_are_those_of_single_steps(
    length: int, rows: int, window: int, most: int
) -> None:
    ids = (np.arange(length) % 7).astype(np.uint8)
    documents = ids.copy()
    documents[4::5] = documents[-1] = END_ID
    for batches in (
        Streams(ids, rows, window),
        SlidingWindows(ids, window, rows),
        ShuffledDocuments(documents, END_ID, rows, window, seed=3),
    ):
        step = 0
        while step < 2 * batches.steps_per_epoch:
            inputs, targets, fresh = batches.several(step, most)
            assert 1 <= len(inputs) == len(targets) == len(fresh) <= most
            for index in range(len(fresh)):
                batch = batches(step + index)
                assert inputs[index].tolist() == batch.inputs.tolist()
                assert targets[index].tolist() == batch.targets.tolist()
                assert bool(fresh[index]) == batch.fresh
            step += len(fresh)


def documents_of(ids: NDArray[np.integer]) -> list[tuple[int, ...]]:
    """Return the documents of a stream that begins and ends with END."""
    assert ids[0] == END_ID
    ends = np.flatnonzero(ids == END_ID)
    return [tuple(ids[a + 1 : b]) for a, b in pairwise(ends)]


def joined(documents: list[list[int]]) -> NDArray[np.uint8]:
    return np.array([id_ for d in documents for id_ in [*d, END_ID]], np.uint8)


def streams_of_an_epoch(batches: ShuffledDocuments, epoch: int) -> NDArray[np.intp]:
    """Return what each row reads in an epoch, its first input included, (·, B)."""
    first = epoch * batches.steps_per_epoch
    read = [batches(first).inputs[:1]]
    for step in range(first, first + batches.steps_per_epoch):
        inputs, targets, fresh, _ = batches(step)
        assert fresh == (step == first)
        assert inputs.dtype == targets.dtype == np.intp
        assert inputs.shape == targets.shape == (batches.window, batches.rows)
        assert (inputs[1:] == targets[:-1]).all()
        assert (inputs[0] == read[-1][-1]).all()  # contiguous with the window before
        read.append(targets)
    return np.concatenate(read)


lists = st.lists(st.lists(st.integers(0, 8), max_size=12), min_size=1, max_size=40)


@given(lists, st.integers(1, 9), st.integers(1, 30), st.integers(1, 200), st.integers(0, 2**63 - 1))
def test_an_epoch_reads_every_document_once_in_another_order(
    documents: list[list[int]], batch_size: int, window: int, at_once: int, seed: int
) -> None:
    ids = joined(documents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GATHERED_AT_ONCE", at_once)
        batches = ShuffledDocuments(ids, END_ID, batch_size, window, seed)
        for epoch in range(3):
            read = streams_of_an_epoch(batches, epoch)
            # The rows are consecutive in one stream, of which each row skips less than a window.
            order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(len(documents))
            stream = np.concatenate([[END_ID], joined([documents[i] for i in order])])
            assert sorted(documents_of(stream)) == sorted(map(tuple, documents))
            for row in range(batches.rows):
                start = row * batches.row_length
                assert (read[:, row] == stream[start : start + len(read)]).all()
            assert 0 <= batches.row_length - (len(read) - 1) < batches.window
            assert batches.rows * batches.row_length > len(ids) - batches.rows


def test_one_row_of_a_fitting_window_reads_whole_documents() -> None:
    documents = [[1, 2, 3], [4], [], [5, 6], [7, 7, 7, 7]]  # with their ends, 15 ids
    batches = ShuffledDocuments(joined(documents), END_ID, 1, 5, 3)
    orders = []
    for epoch in range(6):
        found = documents_of(streams_of_an_epoch(batches, epoch)[:, 0])
        assert sorted(found) == sorted(map(tuple, documents))
        orders.append(tuple(found))
    assert len(set(orders)) > 3


def test_batches_of_documents_follow_from_the_seed_and_the_step() -> None:
    ids = joined([[n % 9] * (n % 7) for n in range(300)])
    one, other = (ShuffledDocuments(ids, END_ID, 4, 16, seed) for seed in (5, 6))
    in_order = [one(step) for step in range(3 * one.steps_per_epoch)]
    assert any((a.inputs != other(step).inputs).any() for step, a in enumerate(in_order))
    again = ShuffledDocuments(ids, END_ID, 4, 16, 5)
    for step in np.random.default_rng(0).permutation(len(in_order)):
        inputs, targets, fresh, _ = again(int(step))
        assert (inputs == in_order[step].inputs).all()
        assert (targets == in_order[step].targets).all()
        assert fresh == in_order[step].fresh


@pytest.mark.parametrize(
    ("documents", "rows", "window"),
    [
        ([[1] * 100], 3, 30),  # one document, longer than a row
        ([[1]], 1, 2),  # fewer ids than a window
        ([[]], 1, 1),
        ([[]] * 200, 6, 30),  # windows of ENDs only
    ],
)
def test_unusual_documents(documents: list[list[int]], rows: int, window: int) -> None:
    batches = ShuffledDocuments(joined(documents), END_ID, 8, 30, 0)
    assert (batches.rows, batches.window) == (rows, window)
    read = streams_of_an_epoch(batches, 1)
    assert len(read) == batches.steps_per_epoch * window + 1
    assert set(np.unique(read)) <= {1, END_ID}


def test_every_document_is_read_about_once_an_epoch() -> None:
    rng = np.random.default_rng(0)
    ids = joined([[int(i) % 9 for i in rng.integers(0, 9, n)] for n in rng.integers(1, 20, 2_000)])
    batches = ShuffledDocuments(ids, END_ID, 16, 64)
    assert batches.steps_per_epoch * batches.rows * batches.window > 0.95 * len(ids)


def test_documents_of_a_memory_mapped_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = joined([[n % 9] * (n % 50) for n in range(10_000)])
    monkeypatch.setattr("charloom.text.excerpt.READ_AT_ONCE", len(ids) // 3)
    path = tmp_path / "ids"
    ids.tofile(path)
    stored = ShuffledDocuments(np.memmap(path, np.uint8, "r"), END_ID, 32, 64, 1)
    held = ShuffledDocuments(ids, END_ID, 32, 64, 1)
    for step in (0, 1, 700, held.steps_per_epoch + 5):
        assert (stored(step).targets == held(step).targets).all()


def test_documents_without_a_last_end_are_refused() -> None:
    with pytest.raises(ValueError, match="no end"):
        ShuffledDocuments(np.zeros(9, np.uint8), END_ID, 1, 4)(0)


def labeled(ids: NDArray[np.integer]) -> ExtraInputs:
    """Return extra inputs that name the id and the place that they are read with."""
    rows = np.stack([ids.astype(np.float16), np.arange(len(ids), dtype=np.float16) / 2], axis=1)
    return ExtraInputs(rows, lambda found: found.astype(np.float32) * np.float32([1, 2]))


@pytest.mark.parametrize("kind", ["streams", "documents", "sliding windows"])
def test_extra_inputs_are_those_of_the_inputs(kind: str) -> None:
    generator = np.random.default_rng(2)
    ids = joined([generator.integers(0, 9, n % 8).tolist() for n in range(120)])
    extra = labeled(ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GATHERED_AT_ONCE", 100)
        batches: Batches = {
            "streams": lambda: Streams(ids, 3, 14, extra),
            "documents": lambda: ShuffledDocuments(ids, END_ID, 3, 14, 5, extra),
            "sliding windows": lambda: SlidingWindows(ids, 14, 5, extra=extra),
        }[kind]()
        for step in [*range(3 * batches.steps_per_epoch), 1, 40, 3]:
            inputs, targets, _, beside = batches(step)
            assert beside is not None
            assert beside.dtype == np.float32
            assert beside.shape == (*inputs.shape, 2)
            assert (beside[..., 0] == inputs).all()
            places = beside[..., 1].astype(int)
            # Inputs are consecutive places, of documents except after an END.
            inside = inputs[:-1] != (END_ID if kind == "documents" else -1)
            assert (np.diff(places, axis=0)[inside] == 1).all()
            follows = inputs != (END_ID if kind == "documents" else -1)
            assert (ids[places[follows] + 1] == targets[follows]).all()


def test_extra_inputs_of_some_ids_are_selected_again() -> None:
    extra = labeled(np.arange(8))
    some = extra.select(np.array([5, 1, 7]))
    assert (len(extra), len(some), some.size) == (8, 3, 2)
    assert some.gather(np.array([[2, 0]])).tolist() == [[[7, 7], [5, 5]]]
    assert some.select(np.array([1, 2])).gather(np.array([1]))[0].tolist() == [7, 7]

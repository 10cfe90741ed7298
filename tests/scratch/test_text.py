"""The text on one page: vocabulary, one-hot slices and windows."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom import scratch
from charloom.scratch import OneHot, train_data_generator, vocabulary
from helpers.scratch import VERSE, lively_network, one_hot

# --- The text -------------------------------------------------------------------------------------


@given(st.text())
def test_the_vocabulary_is_sorted_and_reversible(text: str) -> None:
    char_to_indexes, indexes_to_char = vocabulary(text)
    assert list(char_to_indexes) == sorted(set(text))
    assert "".join(indexes_to_char[char_to_indexes[ch]] for ch in text) == text


def test_no_run_orders_the_characters_or_trains_differently(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_bytes(VERSE.encode())
    program = (
        "import sys; from charloom.scratch import *; text = open(sys.argv[1]).read()\n"
        "tables = vocabulary(text); print(tables)\n"
        "data = OneHot([tables[0][ch] for ch in text], len(tables[0]))\n"
        "rnn = RNN(len(tables[0]), seed=5); print(list(train(rnn, data, n_epochs=2))[-1])\n"
        "print(rnn.sample(0, 40))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program, str(book)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            timeout=100,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert b"smooth_loss" in outputs.pop()


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(-2, 14), st.integers(-2, 14))
def test_one_hot_slices_equal_the_whole_array(indexes: list[int], start: int, end: int) -> None:
    rows = OneHot(indexes, 5)
    whole = one_hot(np.array(indexes, dtype=int), 5)
    assert len(rows) == len(whole)
    assert rows[start:end].dtype == np.float64
    np.testing.assert_array_equal(rows[start:end], whole[start:end])


def test_training_never_builds_the_whole_one_hot_array(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    book = tmp_path / "book.txt"
    alphabet = "".join(map(chr, range(32, 122)))
    book.write_text(alphabet * 2500, encoding="utf-8")  # one-hot: 162 MB
    tracemalloc.start()
    try:
        assert scratch.main([str(book), "--steps", "2"]) == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30e6
    assert "vocabulary size: 90" in capsys.readouterr().out


@given(st.integers(1, 40), st.data())
def test_windows_hold_each_input_with_the_character_after_it(N: int, draw: st.DataObject) -> None:
    step = draw.draw(st.integers(1, N))
    chunk_size = draw.draw(st.integers(1, 45))
    ids = np.random.default_rng(N).integers(0, 6, size=N)
    whole = one_hot(ids, 6)
    windows = list(train_data_generator(whole, step, chunk_size))
    assert len(windows) == len(range(0, N - 1, step))
    for k, (x, y) in enumerate(windows):
        places = np.arange(k * step, min(k * step + chunk_size, N - 1))
        np.testing.assert_array_equal(x, whole[places])
        np.testing.assert_array_equal(y, ids[places + 1])
    for kind in (whole, OneHot(ids, 6)):
        with_rows = list(train_data_generator(kind, step, chunk_size, one_hot_targets=True))
        assert len(with_rows) == len(windows)
        for (x, y), (x_rows, y_rows) in zip(windows, with_rows, strict=True):
            np.testing.assert_array_equal(x_rows, x)
            np.testing.assert_array_equal(y_rows, one_hot(y, 6))


def test_every_window_of_a_text_passes_through_the_network() -> None:
    rnn = lively_network()
    data = one_hot(np.random.default_rng(0).integers(0, 5, size=20), 5)
    lengths = []
    for x, y in train_data_generator(data, step=2, chunk_size=6):
        _, _, _, probabilities = rnn.forward(x, y)
        rnn.backpropagate_loss(probabilities, x, y)
        lengths.append(len(x))
    assert lengths == [6] * 7 + [5, 3, 1]


@pytest.mark.parametrize(
    ("N", "step", "chunk_size"),
    [(8, 0, 3), (8, -1, 3), (8, 9, 3), (8, 1, 0), (8, 1, -4), (0, 1, 3), (0, 0, 3)],
)
def test_windows_that_would_never_end_are_refused_at_the_call(
    N: int, step: int, chunk_size: int
) -> None:
    with pytest.raises(ValueError, match="must be"):
        train_data_generator(np.zeros((N, 3)), step, chunk_size)


def test_one_character_has_nothing_to_predict() -> None:
    assert list(train_data_generator(np.eye(3)[:1])) == []

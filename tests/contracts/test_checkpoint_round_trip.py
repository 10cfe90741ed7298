"""Whatever checkpoint was saved is loaded to the bit, and saves to the same bytes again."""

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from charloom.network.parameters import GATES, STATES, ModelConfig, Parameters
from charloom.ngrams.mixing import Mixture, feature_count
from charloom.prediction.mixture import fit_ngram_table
from charloom.storage.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from charloom.text.vocabulary import Vocabulary
from helpers.checkpoints import EXOTIC, assert_same_checkpoint, json_values

entries = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=8), json_values, max_size=3
)


def finite_numbers(draw: st.DrawFn, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Random bits as numbers, so that subnormal ones and both zeros come too."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    bits = generator.integers(0, 256, (*shape, np.dtype(dtype).itemsize), dtype=np.uint8)
    values = bits.view(dtype)[..., 0].copy()
    values[~np.isfinite(values)] = -0.0
    return values


@st.composite
def checkpoints(draw: st.DrawFn) -> Checkpoint:
    as_bytes = draw(st.booleans())
    character = st.characters(codec="latin-1" if as_bytes else "utf-8") | st.sampled_from(
        [c for c in EXOTIC if not as_bytes or ord(c) < 256]
    )
    characters = draw(st.lists(character, min_size=1, max_size=8, unique=True))
    config = ModelConfig(
        cell=draw(st.sampled_from(sorted(GATES))),
        hidden_size=draw(st.integers(1, 5)),
        layers=draw(st.integers(1, 3)),
        vocabulary_size=len(characters),
        dropout=draw(st.sampled_from([0.0, 0.1, 0.5])),
        dtype=draw(st.sampled_from(["float32", "float64"])),
    )
    size, dtype = config.parameter_count, config.dtype
    checkpoint = Checkpoint(
        Parameters(config, finite_numbers(draw, (size,), dtype)),
        Vocabulary(tuple(characters), as_bytes),
        training=draw(entries),
        text=draw(entries),
        metrics=draw(entries),
    )
    if draw(st.booleans()):
        text = draw(st.lists(st.integers(0, len(characters) - 1), max_size=30))
        table = fit_ngram_table(
            np.array(text, np.uint8), len(characters), draw(st.integers(0, 3)), 1e6
        )
        theta = finite_numbers(draw, (feature_count(table.context),), "float64")
        checkpoint.mixture = Mixture(table, theta)
    if draw(st.booleans()):
        for name in draw(st.sets(st.sampled_from(["momentum", "square", "first"]))):
            checkpoint.optimizer[name] = finite_numbers(draw, (size,), dtype)
        rows = draw(st.integers(1, 3))
        shape = (STATES[config.cell], config.layers, rows, config.hidden_size)
        checkpoint.state = finite_numbers(draw, shape, dtype)
        checkpoint.position = draw(entries)
    return checkpoint


@given(checkpoints())
@settings(max_examples=60)
def test_save_and_load_round_trip_to_the_bit(module_folder: Path, checkpoint: Checkpoint) -> None:
    path = module_folder / "model"
    save_checkpoint(path, checkpoint)
    assert_same_checkpoint(load_checkpoint(path), checkpoint)
    assert not list(module_folder.glob(".*"))


@given(checkpoints())
@settings(max_examples=60)
def test_saving_twice_gives_the_same_bytes(module_folder: Path, checkpoint: Checkpoint) -> None:
    path = module_folder / "model"
    save_checkpoint(path, checkpoint)
    first = path.read_bytes()
    save_checkpoint(path, checkpoint)
    assert path.read_bytes() == first

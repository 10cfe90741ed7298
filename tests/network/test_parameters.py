"""Shapes, initialization, growing vocabularies, dropout masks."""

import math
from dataclasses import replace

import numpy as np
import pytest

from charloom.engines.backend import Backend
from charloom.engines.protocol import ENGINES
from charloom.errors import CharloomError
from charloom.network.dropout import dropout_mask, weight_mask
from charloom.network.initialization import grow_vocabulary, initialize, initialize_classic
from charloom.network.parameters import ModelConfig, Parameters

CELLS = ("rnn", "lstm", "gru")


@pytest.mark.parametrize("cell", CELLS)
def test_the_views_cover_the_flat_vector(cell: str) -> None:
    config = ModelConfig(cell, 5, 3, 7)
    parameters = Parameters(config)
    assert sum(view.size for view in parameters.values()) == config.parameter_count
    for number, view in enumerate(parameters.values(), 1):
        assert not view.any()
        view[...] = number
    assert set(np.unique(parameters.flat)) == set(range(1, len(parameters) + 1))


def test_a_flat_vector_must_fit() -> None:
    config = ModelConfig("rnn", 5, 1, 7)
    with pytest.raises(CharloomError, match="does not fit"):
        Parameters(config, np.zeros(3, "float32"))
    with pytest.raises(CharloomError, match="does not fit"):
        Parameters(config, np.zeros(config.parameter_count, "float64"))


@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_weights_start_orthogonal(cell: str) -> None:
    parameters = initialize(ModelConfig(cell, 8, 2, 5, dtype="float64"), seed=1)
    for layer in range(2):
        for block in parameters[f"rnn.weight_hh_l{layer}"].reshape(-1, 8, 8):
            np.testing.assert_allclose(block @ block.T, np.eye(8), atol=1e-12)


def test_the_forget_gates_biases_sum_to_one() -> None:
    parameters = initialize(ModelConfig("lstm", 4, 2, 5), seed=1)
    for layer in range(2):
        sums = parameters[f"rnn.bias_ih_l{layer}"] + parameters[f"rnn.bias_hh_l{layer}"]
        assert sums.tolist() == [0] * 4 + [1] * 4 + [0] * 8


@pytest.mark.parametrize(
    ("norm", "units", "bias"), [("none", 4, 0), ("rms", 4, 2), ("rms", 288, 0)]
)
def test_update_gates_of_small_normalized_networks_begin_to_keep_the_state(
    norm: str, units: int, bias: int
) -> None:
    parameters = initialize(ModelConfig("gru", units, 2, 5, norm=norm), seed=1)
    for layer in range(2):
        sums = parameters[f"rnn.bias_ih_l{layer}"] + parameters[f"rnn.bias_hh_l{layer}"]
        assert sums.tolist() == [0] * units + [bias] * units + [0] * units


def test_classic_starts_as_the_notebook_did() -> None:
    parameters = initialize_classic(ModelConfig("rnn", 100, 1, 86), seed=1)
    assert parameters["rnn.weight_ih_l0"].std() == pytest.approx(0.01, rel=0.05)
    assert not parameters["rnn.bias_ih_l0"].any()
    assert not parameters["decoder.bias"].any()


@pytest.mark.parametrize("make", [initialize, initialize_classic])
def test_a_seed_decides_the_parameters(make) -> None:  # type: ignore[no-untyped-def]
    config = ModelConfig("gru", 6, 2, 5)
    assert (make(config, 3).flat == make(config, 3).flat).all()
    assert (make(config, 3).flat != make(config, 4).flat).any()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("new", [1, 9])
def test_new_characters_are_unlikely_in_every_state(cell: str, new: int) -> None:
    config = ModelConfig(cell, 9, 2, 6)
    old = initialize(config, seed=2)
    generator = np.random.default_rng(0)
    old.flat[:] += generator.normal(size=old.flat.shape).astype("float32")
    old["decoder.bias"][:] *= 3
    grown = grow_vocabulary(old, replace(config, vocabulary_size=6 + new))
    before, after = Backend("reference").open(old), Backend("reference").open(grown)
    # Also states that no text would lead to, the corner of the cube where logits are least too.
    states = generator.uniform(-1, 1, (20, *config.zero_state(1).shape)).astype("float32")
    states[0] = np.sign(old["decoder.weight"].mean(axis=0)) * -1
    for state in states:
        for character in range(6):
            ids = np.array([character])
            logits, old_state = before.step(ids, state)
            more, new_state = after.step(ids, state)
            assert logits[0].tobytes() == more[0, :6].tobytes()
            assert old_state.tobytes() == new_state.tobytes()
            p = np.exp(more[0].astype(float) - more[0].max())
            assert p[6:].sum() / p.sum() <= 1e-3


@pytest.mark.parametrize("name", [name for name in ENGINES if name != "auto"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_new_characters_change_no_byte_beside_extra_inputs(name: str, dtype: str) -> None:
    config = ModelConfig("gru", 40, 2, 6, dtype=dtype, extra_inputs=21)
    old = initialize(config, seed=2)
    grown = grow_vocabulary(old, replace(config, vocabulary_size=9))
    assert (grown["rnn.weight_ih_l0"][:, 9:] == old["rnn.weight_ih_l0"][:, 6:]).all()
    wider = grow_vocabulary(old, replace(config, vocabulary_size=9, extra_inputs=24))
    assert (wider["rnn.weight_ih_l0"][:, :30] == grown["rnn.weight_ih_l0"]).all()
    assert not wider["rnn.weight_ih_l0"][:, 30:].any()
    generator = np.random.default_rng(0)
    state = generator.normal(0, 0.5, config.zero_state(6).shape).astype(dtype)
    extra = generator.dirichlet(np.ones(21), 6).astype(dtype)
    engines = (Backend(name, threads=1).open(parameters) for parameters in (old, grown))
    (logits, after), (more, other) = (e.step(np.arange(6), state, extra=extra) for e in engines)
    more_extra = np.concatenate([extra, extra[:, :3]], axis=1)
    widest, _ = Backend(name, threads=1).open(wider).step(np.arange(6), state, extra=more_extra)
    assert np.allclose(widest, more, rtol=1e-5, atol=1e-6)
    assert logits.tobytes() == np.ascontiguousarray(more[:, :6]).tobytes()
    assert after.tobytes() == other.tobytes()


def test_a_configuration_without_extra_inputs_is_written_as_before() -> None:
    written = ModelConfig("gru", 6, 2, 5).as_dict()
    assert set(written) == {
        "cell", "hidden_size", "layers", "vocabulary_size", "dropout", "dtype", "weight_drop"
    }  # fmt: skip
    assert ModelConfig.from_dict(written).extra_inputs == 0
    config = ModelConfig("gru", 6, 2, 5, extra_inputs=4)
    assert config.as_dict() == written | {"extra_inputs": 4}
    assert ModelConfig.from_dict(config.as_dict()) == config
    for wrong in (-1, 1.5, "4", True):
        with pytest.raises(CharloomError, match="extra_inputs"):
            ModelConfig.from_dict(written | {"extra_inputs": wrong})


def test_only_the_vocabulary_may_grow() -> None:
    config = ModelConfig("rnn", 4, 1, 6)
    for change in ({"hidden_size": 5}, {"vocabulary_size": 5}, {"extra_inputs": 1}):
        other = replace(config, **change)
        with pytest.raises(CharloomError, match="only the vocabulary of a model can grow"):
            grow_vocabulary(Parameters(config), other)


def test_a_dropout_mask_is_keyed_by_all_that_names_it() -> None:
    shape = (6, 4, 50)
    mask = dropout_mask(1, 2, 0, shape, 0.25, "float64")
    assert set(np.unique(mask)) == {0.0, 1 / 0.75}
    assert (mask == dropout_mask(1, 2, 0, shape, 0.25, "float64")).all()
    for other in ((9, 2, 0), (1, 9, 0), (1, 2, 1)):
        assert (mask != dropout_mask(*other, shape, 0.25, "float64")).any()
    # A row's mask depends on no other row, nor on how many there are.
    assert (mask[:, :2] == dropout_mask(1, 2, 0, (6, 2, 50), 0.25, "float64")).all()
    assert (mask[:, 0] != mask[:, 1]).any()
    assert (mask[0] != mask[1]).any()


def test_weight_masks_are_no_dropout_masks() -> None:
    mask = weight_mask(1, 2, 0, (30, 40), 0.25, "float64")
    assert mask.shape == (30, 40)
    assert set(np.unique(mask)) == {0, 1 / 0.75}
    assert (mask == weight_mask(1, 2, 0, (30, 40), 0.25, "float64")).all()
    for other in ((2, 2, 0), (1, 3, 0), (1, 2, 1)):
        assert (mask != weight_mask(*other, (30, 40), 0.25, "float64")).any()
    assert (mask != dropout_mask(1, 2, 0, (1, 30, 40), 0.25, "float64")[0]).any()
    assert abs(weight_mask(0, 0, 0, (300, 300), 0.3, "float32").mean() - 1) < 0.01


def test_dropout_drops_as_many_as_asked_and_keeps_the_mean() -> None:
    mask = dropout_mask(0, 0, 0, (50, 20, 100), 0.3, "float32")
    assert (mask == 0).mean() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / mask.size))
    assert mask.mean() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cell": "cnn"}, "cell"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": 10**12}, "hidden_size"),
        ({"hidden_size": 2.5}, "hidden_size"),
        ({"layers": 0}, "layers"),
        ({"layers": 10**9}, "layers"),
        ({"vocabulary_size": -1}, "vocabulary_size"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
        ({"weight_drop": 1}, "weight_drop"),
        ({"weight_drop": -0.1}, "weight_drop"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(CharloomError, match=said):
        replace(ModelConfig("rnn", 4, 1, 6), **change)

"""Every engine against the reference, over ten steps of training.

Every cell, depth, dtype, shape of windows and number of threads, for a book and for documents;
in float64 the parameters under every optimizer; in float32 the parameters under SGD and the losses
under the others, for a first step of AdaGrad or Adam is a sign, which rounding flips.
"""

import functools
import itertools

import numpy as np
import pytest

from charloom.engines.backend import Backend
from charloom.engines.protocol import ENGINES, Engine
from charloom.engines.reference import ReferenceEngine
from charloom.network.initialization import initialize
from charloom.network.optimizers import SGD, AdaGrad, Adam, AdamW, Optimizer, RMSProp
from charloom.network.parameters import ModelConfig, Parameters
from helpers.engines import probabilities

STEPS = 10


OTHERS = [name for name in ENGINES if name not in ("auto", "reference")]


SHAPES = [(1, 1), (1, 5), (7, 1), (5, 3), (3, 13), (6, 26)]  # (T, B)


OPTIMIZERS = {
    "sgd": lambda: SGD(0.1, 1.0),
    "adagrad": lambda: AdaGrad(0.02, 1.0),
    "notebook's adagrad": lambda: AdaGrad(0.02, epsilon=1e-8, epsilon_inside=True),
    "rmsprop": lambda: RMSProp(0.001, 0.5),
    "adam": lambda: Adam(0.002),
    "adamw": lambda: AdamW(0.002, 1.0, weight_decay=0.1),
}


@pytest.fixture(autouse=True)
def small_work_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads even where they do not pay."""
    pytest.importorskip("numba", reason="the compiled engine needs Numba")
    monkeypatch.setattr("charloom.engines.compiled.engine.LEAST_FOR_ROWS", 0)
    monkeypatch.setattr("charloom.engines.compiled.engine.LEAST_FOR_UNITS", 0)


def pair(
    name: str, config: ModelConfig, threads: int, classic: bool = False, compile: bool = False
) -> tuple[ReferenceEngine, Engine]:
    reference = ReferenceEngine(untrained(config), seed=6, classic=classic)
    return reference, opened(name, config, threads, classic, compile)


def opened(
    name: str, config: ModelConfig, threads: int, classic: bool = False, compile: bool = False
) -> Engine:
    backend = Backend(name, threads, compile=compile)
    return backend.open(untrained(config), seed=6, classic=classic)


@functools.lru_cache(200)
def first_weights(config: ModelConfig) -> np.ndarray:
    flat = initialize(config, seed=2).flat
    return (flat + np.random.default_rng(3).normal(0, 0.1, flat.shape)).astype(config.dtype)


def untrained(config: ModelConfig) -> Parameters:
    parameters = Parameters(config)
    parameters.flat[:] = first_weights(config)
    return parameters


def train(engine: Engine, optimizer: Optimizer, steps: int, rows: int) -> list[float]:
    """Ten windows with carried state; the losses."""
    generator = np.random.default_rng(4)
    size = engine.config.vocabulary_size
    state = generator.normal(0, 0.3, engine.config.zero_state(rows).shape)
    state = state.astype(engine.config.dtype)
    losses = []
    for step in range(STEPS):
        inputs, targets = generator.integers(0, size, (2, steps, rows))
        if engine.config.end_id is not None:
            inputs[generator.random(inputs.shape) < 0.3] = engine.config.end_id
        extra = {}
        if engine.config.extra_inputs:
            extra = probabilities(engine, steps, rows, seed=step)
        loss, norm, state = engine.train_step(inputs, targets, state, optimizer, **extra)
        assert np.isfinite(norm)
        losses.append(loss)
    assert optimizer.step_count == STEPS
    return losses


@functools.lru_cache(40)
def reference_run(
    config: ModelConfig, optimizer: str, steps: int, rows: int
) -> tuple[list[float], Parameters, dict[str, np.ndarray]]:
    """The losses, parameters and slots of the reference, kept for the engine that comes next."""
    engine, one = ReferenceEngine(untrained(config), seed=6), OPTIMIZERS[optimizer]()
    losses = train(engine, one, steps, rows)
    return losses, engine.parameters, dict(one.slots)


# All depths under all optimizers; of documents under two, because no optimizer sees documents.
# Those that stand for the others are not slow.
every_depth = pytest.mark.parametrize(
    ("layers", "optimizer", "documents"),
    [
        pytest.param(layers, optimizer, documents, marks=[] if quick else pytest.mark.slow)
        for layers in (1, 2, 3)
        for optimizer in OPTIMIZERS
        for documents in ((False, True) if optimizer in ("sgd", "adam") else (False,))
        for quick in [
            (layers == 2 and optimizer in ("sgd", "adam")) or (layers == 1 and not documents)
        ]
    ],
)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@every_depth
def test_float64_parity(name: str, cell: str, layers: int, optimizer: str, documents: bool) -> None:
    cases = itertools.product(SHAPES, [(9, 11), (33, 70)], [0.0, 0.3], [1, 2, 3])
    for index, ((steps, rows), (hidden, vocabulary), dropout, threads) in enumerate(cases):
        if index % 5 != (layers + len(optimizer)) % 5:  # each case with several of the optimizers
            continue
        config = ModelConfig(
            cell, hidden, layers, vocabulary, dropout, "float64", dropout * 1.5,
            end_id=vocabulary - 1 if documents else None,
        )  # fmt: skip
        ours = opened(name, config, threads)
        other = OPTIMIZERS[optimizer]()
        expected, parameters, slots = reference_run(config, optimizer, steps, rows)
        np.testing.assert_allclose(train(ours, other, steps, rows), expected, rtol=1e-10)
        for tensor, values in parameters.items():
            assert relative(ours.parameters[tensor], values) <= 1e-9, (tensor, steps, rows)
        for slot, values in slots.items():
            assert relative(other.slots[slot], values) <= 1e-8


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@every_depth
def test_float32_parity(name: str, cell: str, layers: int, optimizer: str, documents: bool) -> None:
    cases = itertools.product(SHAPES, [(9, 11), (67, 70)], [0.0, 0.3], [1, 2])
    for index, ((steps, rows), (hidden, vocabulary), dropout, threads) in enumerate(cases):
        if index % 3 != (layers + len(optimizer)) % 3:
            continue
        config = ModelConfig(
            cell, hidden, layers, vocabulary, dropout, "float32", dropout / 2,
            end_id=vocabulary - 1 if documents else None,
        )  # fmt: skip
        ours = opened(name, config, threads)
        expected, parameters, _ = reference_run(config, optimizer, steps, rows)
        found = train(ours, OPTIMIZERS[optimizer](), steps, rows)
        # Ten steps on one or a few characters can go anywhere but under SGD's small ones.
        few = steps * rows < 10 and optimizer != "sgd"
        np.testing.assert_allclose(found, expected, rtol=1e-3 if few else 1e-4)
        if optimizer == "sgd":
            for tensor, values in parameters.items():
                assert relative(ours.parameters[tensor], values) <= 1e-5, (tensor, steps, rows)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_parity_with_extra_inputs(name: str, cell: str, optimizer: str) -> None:
    """All cases together have every shape; PyTorch, which is slow on small ones, has one each."""
    sizes = [(9, 11, 1), (9, 11, 11), (33, 70, 400)]
    cases = itertools.product(SHAPES, sizes, [1, 2])
    number = list(OPTIMIZERS).index(optimizer)
    for index, ((steps, rows), (hidden, vocabulary, extra_inputs), threads) in enumerate(cases):
        if index % 7 != number or (name == "pytorch" and index != 8 * number % 35):
            continue
        dtype = "float32" if optimizer == "sgd" and index % 4 < 2 else "float64"
        exact = dtype == "float64"
        config = ModelConfig(
            cell, hidden, 1 + index % 2, vocabulary, 0.2, dtype, 0.1 if rows > 3 else 0.0,
            vocabulary - 1 if steps > 5 else None, extra_inputs,
        )  # fmt: skip
        theirs, ours = pair(name, config, threads)
        one, other = OPTIMIZERS[optimizer](), OPTIMIZERS[optimizer]()
        expected = train(theirs, one, steps, rows)
        found = train(ours, other, steps, rows)
        np.testing.assert_allclose(found, expected, rtol=1e-10 if exact else 1e-4)
        for tensor, values in theirs.parameters.items():
            assert relative(ours.parameters[tensor], values) <= (1e-9 if exact else 1e-5), tensor
        for slot, values in one.slots.items():
            assert not exact or relative(other.slots[slot], values) <= 1e-8


# PyTorch hides this one, which it causes itself as it compiles for a row alone.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("name", ["pytorch"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize(
    ("dtype", "end_id"), [("float32", None), ("float64", None), ("float64", 4)]
)
def test_torch_compile_parity(
    warm_compiler: None, name: str, cell: str, dtype: str, end_id: int | None
) -> None:
    exact = dtype == "float64"
    cases = (((5, 3), "adamw"), ((6, 26), "sgd"), ((7, 1), "sgd"))
    for (steps, rows), optimizer in cases if exact else cases[:2]:
        config = ModelConfig(cell, 9, 2, 11, 0.3, dtype, 0.2, end_id)
        theirs, ours = pair(name, config, 1, compile=True)
        expected = train(theirs, OPTIMIZERS[optimizer](), steps, rows)
        found = train(ours, OPTIMIZERS[optimizer](), steps, rows)
        np.testing.assert_allclose(found, expected, rtol=1e-10 if exact else 1e-4)
        if exact or optimizer == "sgd":
            for tensor, values in theirs.parameters.items():
                assert relative(ours.parameters[tensor], values) <= (1e-9 if exact else 1e-5)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("end_id", "extra_inputs"), [(None, 0), (4, 0), (4, 6)])
def test_classic_objective_parity(
    name: str, dtype: str, end_id: int | None, extra_inputs: int
) -> None:
    config = ModelConfig("rnn", 20, 1, 13, dtype=dtype, end_id=end_id, extra_inputs=extra_inputs)
    theirs, ours = pair(name, config, 1, classic=True)
    for engine in (theirs, ours):
        engine.parameters["rnn.bias_hh_l0"][...] = 0
    expected = train(theirs, SGD(1e-3), 25, 1)
    np.testing.assert_allclose(
        train(ours, SGD(1e-3), 25, 1), expected, rtol=1e-5 if dtype == "float32" else 1e-12
    )
    assert not ours.parameters["rnn.bias_hh_l0"].any()


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("end_id", [None, 50])
def test_long_window_scoring_parity(name: str, cell: str, dtype: str, end_id: int | None) -> None:
    for layers, rows, steps, threads in ((1, 1, 300, 1), (2, 3, 200, 2), (3, 40, 9, 2)):
        config = ModelConfig(cell, 37, layers, 101, 0.5, dtype, end_id=end_id)
        theirs, ours = pair(name, config, threads)
        generator = np.random.default_rng(1)
        ids = generator.integers(0, 101, (steps, rows))
        if end_id is not None:
            ids[generator.random(ids.shape) < 0.15] = end_id
        state = generator.normal(0, 0.3, config.zero_state(rows).shape).astype(dtype)
        expected, end = theirs.log_probabilities(ids, state)
        found, our_end = ours.log_probabilities(ids, state)
        tolerance = 5e-5 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(found, expected, atol=tolerance)
        np.testing.assert_allclose(our_end, end, atol=tolerance)
        assert found.dtype == our_end.dtype == np.dtype(dtype)

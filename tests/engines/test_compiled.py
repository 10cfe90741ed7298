"""What the compiled engine promises beside the right numbers.

The same bytes again, kernels that are compiled once and kept safely, threads that come and go, no
memory that grows.
"""

import gc
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from charloom.engines.compiled import engine as compiled
from charloom.engines.compiled.engine import CompiledEngine
from charloom.engines.decoding import SamplingSettings
from charloom.kernels.crew import STOPPED
from charloom.network.initialization import initialize
from charloom.network.optimizers import SGD, AdaGrad, Adam, NonFiniteGradientError
from charloom.network.parameters import ModelConfig
from helpers.processes import in_a_new_process
from helpers.waiting import wait_until

pytest.importorskip("numba", reason="the compiled engine needs Numba")


def engine(cell: str = "lstm", threads: int = 2, **settings: object) -> CompiledEngine:
    config = ModelConfig(cell, 33, 2, 40, **settings)  # type: ignore[arg-type]
    return CompiledEngine(initialize(config, seed=1), threads=threads)


def windows(steps: int, rows: int, seed: int = 0) -> np.ndarray:
    """Inputs and targets, (2, T, B)."""
    return np.random.default_rng(seed).integers(0, 40, (2, steps, rows))


@pytest.fixture
def several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "LEAST_FOR_ROWS", 0)
    monkeypatch.setattr(compiled, "LEAST_FOR_UNITS", 0)


@pytest.mark.usefixtures("several_threads")
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_training_gives_the_same_bytes_for_the_same_threads(cell: str, threads: int) -> None:
    results = []
    for _ in range(2):
        one = engine(cell, threads, dropout=0.2)
        optimizer = Adam(0.01, 1.0)
        state = one.config.zero_state(7)
        for step in range(6):
            loss, norm, state = one.train_step(*windows(9, 7, step), state, optimizer)
            if step == 3:
                time.sleep(0.01)  # the threads are asleep again
        results.append((loss, norm, state.tobytes(), one.parameters.flat.tobytes()))
    assert results[0] == results[1]


@pytest.mark.usefixtures("several_threads")
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_inference_gives_the_same_bytes_for_any_threads(cell: str) -> None:
    found = []
    for threads in (1, 2, 3):
        one = engine(cell, threads)
        ids, uniforms = windows(150, 5)[0], np.random.default_rng(2).random((40, 5))
        log_p, state = one.log_probabilities(ids, one.config.zero_state(5))
        drawn, end = one.generate(ids[0], state, SamplingSettings(0.8, top_k=9), uniforms)
        logits, last = one.step(drawn[-1], end)
        found.append([array.tobytes() for array in (log_p, state, drawn, end, logits, last)])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_scoring_equals_steps_to_the_byte(cell: str) -> None:
    one = engine(cell)
    ids = windows(30, 3)[0]
    state = one.config.zero_state(3)
    _, whole = one.log_probabilities(ids, state)
    for t in range(30):
        _, state = one.step(ids[t], state)
    assert state.tobytes() == whole.tobytes()


def test_sampling_settings_combine() -> None:
    from charloom.engines.decoding import choose

    one = engine()
    generator = np.random.default_rng(5)
    for settings in (
        SamplingSettings(0),
        SamplingSettings(1e-3),
        SamplingSettings(1e-310),
        SamplingSettings(1.3, top_k=1),
        SamplingSettings(1.0, top_k=400, top_p=1.0),
        SamplingSettings(0.7, top_k=17, top_p=0.6, min_p=0.03),
        SamplingSettings(1.0, top_p=1e-9),
        SamplingSettings(1.0, min_p=1.0),
    ):
        ids, state = windows(1, 6)[0][0], one.config.zero_state(6)
        uniforms = generator.random((30, 6))
        uniforms[3] = 0
        uniforms[4] = np.nextafter(1, 0)
        drawn, _ = one.generate(ids, state, settings, uniforms)
        for t in range(30):
            logits, state = one.step(ids, state)
            ids = choose(logits, settings, uniforms[t])
            np.testing.assert_array_equal(drawn[t], ids)


@pytest.mark.usefixtures("several_threads")
def test_uninitialized_memory_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What memory held before does not matter: here it is full of NaN, or of other numbers."""
    found = []
    for rubbish in (np.nan, 7.0, -np.inf):

        def full(shape: object, dtype: object = float, rubbish: float = rubbish) -> np.ndarray:
            whole = np.issubdtype(dtype, np.integer)
            return np.full(shape, 3 if whole else rubbish, dtype)

        one = engine(dropout=0.2)
        ids, uniforms = windows(30, 3)[0], np.random.default_rng(2).random((30, 3))
        with monkeypatch.context() as patched:
            patched.setattr(np, "empty", full)
            optimizer = Adam(0.01)
            _, _, state = one.train_step(*windows(9, 3), one.config.zero_state(3), optimizer)
            log_p, state = one.log_probabilities(ids, state)
            drawn, state = one.generate(ids[0], state, SamplingSettings(0.9), uniforms)
            more, state = one.generate(drawn[-1], state, SamplingSettings(1, top_p=0.8), uniforms)
            logits, state = one.step(more[-1], state)
        results = (log_p, drawn, more, logits, state, one.parameters.flat)
        found.append([array.tobytes() for array in results])
    assert found[0] == found[1] == found[2]


def test_manual_parameter_changes_are_seen() -> None:
    one = engine()
    ids, state = windows(1, 1)[0][0], one.config.zero_state(1)
    before, _ = one.step(ids, state)
    one.parameters["decoder.bias"][3] += 1
    one.parameters_changed()
    after, _ = one.step(ids, state)
    assert after[0, 3] == pytest.approx(before[0, 3] + 1, rel=1e-5)
    # Training sees it by itself.
    loss, _ = one.loss_and_gradients(*windows(4, 2), one.config.zero_state(2))
    one.parameters["decoder.bias"][3] += 5
    other, _ = one.loss_and_gradients(*windows(4, 2), one.config.zero_state(2))
    assert other != loss


@pytest.mark.usefixtures("several_threads")
@pytest.mark.parametrize("wrong", [-1, 40, 2**40])
def test_id_outside_the_vocabulary_is_refused(wrong: int) -> None:
    one = engine()
    inputs, targets = windows(5, 4)
    good = one.train_step(inputs, targets, one.config.zero_state(4), SGD(0.0))[0]
    for spoiled in ("inputs", "targets"):
        arrays = {"inputs": inputs.copy(), "targets": targets.copy()}
        arrays[spoiled][3, 2] = wrong
        with pytest.raises(IndexError, match="not in the vocabulary"):
            one.train_step(*arrays.values(), one.config.zero_state(4), SGD(0.1))
    with pytest.raises(IndexError, match="not in the vocabulary"):
        one.step(np.array([wrong]), one.config.zero_state(1))
    assert one.train_step(inputs, targets, one.config.zero_state(4), SGD(0.0))[0] == good


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_gradient_is_not_applied(dtype: str, value: float) -> None:
    for tensor in ("decoder.weight", "rnn.weight_hh_l0", "rnn.bias_ih_l1", "decoder.bias"):
        one = engine(dtype=dtype)
        optimizer = AdaGrad(0.1, 1.0)
        one.train_step(*windows(4, 3), one.config.zero_state(3), optimizer)
        one.parameters[tensor].flat[0] = value
        before = one.parameters.flat.copy(), optimizer.slots["squares"].copy()
        try:
            loss, _, _ = one.train_step(*windows(4, 3), one.config.zero_state(3), optimizer)
        except NonFiniteGradientError:
            np.testing.assert_array_equal(one.parameters.flat, before[0])
            np.testing.assert_array_equal(optimizer.slots["squares"], before[1])
            assert optimizer.step_count == 1
        else:  # an infinite gate is closed or open, as in the reference
            assert np.isinf(value)
            assert np.isfinite(loss)


def test_a_norm_whose_square_overflows() -> None:
    one = engine("rnn", dtype="float64")
    one.parameters["decoder.weight"][...] *= 1e200
    before = one.parameters.flat.copy()
    with pytest.raises(NonFiniteGradientError):
        one.train_step(*windows(4, 3), one.config.zero_state(3), SGD(0.1))
    assert (one.parameters.flat == before).all()


MEMORY = """
    import gc, os
    from pathlib import Path
    import numpy as np
    from charloom.engines.decoding import SamplingSettings
    from charloom.engines.backend import Backend
    from charloom.network.parameters import ModelConfig
    from charloom.network.initialization import initialize
    from charloom.network.optimizers import Adam

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    parameters = initialize(ModelConfig("lstm", 16, 1, 40), 0)
    engine = Backend("compiled", threads=2).open(parameters)
    optimizer, settings = Adam(0.001, 1.0), SamplingSettings()
    inputs, targets = np.random.default_rng(0).integers(0, 40, (2, 5, 3))
    state = engine.config.zero_state(3)
    sizes, objects = [], []
    for step in range(44_000):
        _, _, state = engine.train_step(inputs, targets, state, optimizer)
        if step % 4 == 0:
            engine.generate(inputs[0], state, settings, np.full((5, 3), 0.5))
        if step in (24_000, 43_999):
            gc.collect()
            sizes.append(resident())
            objects.append(len(gc.get_objects()))
    print(sizes[1] - sizes[0], objects[1] - objects[0])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_over_20_000_steps() -> None:
    """In a process of its own, whose memory nothing else grows."""
    done = in_a_new_process(MEMORY)
    assert done.returncode == 0, done.stderr
    size, objects = map(int, done.stdout.split())
    assert size < 500_000
    assert objects < 100


@pytest.mark.usefixtures("several_threads")
def test_threads_end_with_their_engine() -> None:
    before = threading.active_count()
    one = engine(threads=3)
    one.train_step(*windows(5, 4), one.config.zero_state(4), SGD(0.1))
    assert threading.active_count() > before
    del one
    gc.collect()
    wait_until(lambda: threading.active_count() <= before)


@pytest.mark.usefixtures("several_threads")
def test_two_engines_in_two_threads() -> None:
    def losses(seed: int) -> list[float]:
        one = engine(threads=3)
        optimizer = SGD(0.1)
        state = one.config.zero_state(6)
        return [one.train_step(*windows(5, 6, seed), state, optimizer)[0] for _ in range(100)]

    expected = [losses(0), losses(1)]
    found: dict[int, list[float]] = {}
    workers = [threading.Thread(target=lambda s=s: found.update({s: losses(s)})) for s in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [found[0], found[1]] == expected


@pytest.mark.usefixtures("several_threads")
def test_one_engine_asked_by_several_threads() -> None:
    one = engine(threads=2)
    ids = windows(40, 3)[0]
    expected = one.log_probabilities(ids, one.config.zero_state(3))[0].tobytes()
    found: list[bool] = []

    def ask() -> None:
        for _ in range(50):
            log_p, _ = one.log_probabilities(ids, one.config.zero_state(3))
            found.append(log_p.tobytes() == expected)

    workers = [threading.Thread(target=ask) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert found == [True] * 150


def test_a_state_for_other_rows_is_refused() -> None:
    one = engine()
    for state in (one.config.zero_state(2), one.config.zero_state(3)[:1]):
        with pytest.raises(ValueError, match="for 3 rows"):
            one.step(np.zeros(3, np.intp), state)
        with pytest.raises(ValueError, match="for 3 rows"):
            one.generate(np.zeros(3, np.intp), state, SamplingSettings(), np.full((4, 3), 0.5))
    with pytest.raises(ValueError, match="broadcast"):
        one.train_step(*windows(5, 3), one.config.zero_state(2), SGD(0.1))


@pytest.mark.usefixtures("several_threads")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    one = engine(threads=2)
    state, optimizer = one.config.zero_state(4), SGD(0.1)
    one.train_step(*windows(5, 4), state, optimizer)
    child = os.fork()
    if child == 0:
        try:
            one.train_step(*windows(5, 4), state, optimizer)
        except BaseException:
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + 60
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(done[1]) == 0


@pytest.mark.usefixtures("several_threads")
def test_interrupt_while_entering_a_kernel() -> None:
    one = engine(threads=2)
    inputs, targets = windows(5, 4)
    state = one.config.zero_state(4)
    optimizer = SGD(0.0)
    expected = one.train_step(inputs, targets, state, optimizer)[0]
    crew = one._training_windows[5, 4].crew
    sync = crew.sync

    def interrupted() -> None:
        raise KeyboardInterrupt

    crew._calls[0] = interrupted
    with pytest.raises(KeyboardInterrupt):
        one.train_step(inputs, targets, state, optimizer)
    assert sync[STOPPED] == 1
    assert one.train_step(inputs, targets, state, optimizer)[0] == expected

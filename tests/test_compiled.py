"""What the compiled engine promises beside the right numbers.

The same bytes again, kernels that are compiled once and kept safely, threads that come and go, no
memory that grows.
"""

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="the compiled engine needs Numba")


from charloom.engines.backend import Backend
from charloom.engines.compiled import engine as compiled
from charloom.engines.compiled.engine import CompiledEngine
from charloom.engines.decoding import SamplingSettings
from charloom.errors import CharloomError
from charloom.kernels import compiling
from charloom.kernels.compiling import Kernel, cache_folder
from charloom.kernels.threads import STOPPED
from charloom.network.initialization import initialize
from charloom.network.optimizers import SGD, AdaGrad, Adam, NonFiniteGradientError
from charloom.network.parameters import ModelConfig


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


# The same bytes


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
def test_scoring_is_stepping_to_the_byte(cell: str) -> None:
    one = engine(cell)
    ids = windows(30, 3)[0]
    state = one.config.zero_state(3)
    _, whole = one.log_probabilities(ids, state)
    for t in range(30):
        _, state = one.step(ids[t], state)
    assert state.tobytes() == whole.tobytes()


def test_drawing_takes_every_setting_together() -> None:
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
def test_nothing_is_read_that_was_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_parameters_changed_by_hand() -> None:
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


# What goes wrong


@pytest.mark.usefixtures("several_threads")
@pytest.mark.parametrize("wrong", [-1, 40, 2**40])
def test_an_id_outside_the_vocabulary(wrong: int) -> None:
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
def test_what_is_not_finite_is_not_learned(dtype: str, value: float) -> None:
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


# Memory and threads


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_over_20_000_steps() -> None:
    one = CompiledEngine(initialize(ModelConfig("lstm", 16, 1, 40), 0), threads=2)
    optimizer = Adam(0.001, 1.0)
    settings = SamplingSettings()
    inputs, targets = windows(5, 3)
    state = one.config.zero_state(3)
    sizes = []
    objects = []
    for step in range(20_000):
        _, _, state = one.train_step(inputs, targets, state, optimizer)
        if step % 4 == 0:
            one.generate(inputs[0], state, settings, np.full((5, 3), 0.5))
        if step in (4_000, 19_999):
            gc.collect()
            sizes.append(resident())
            objects.append(len(gc.get_objects()))
    assert sizes[1] - sizes[0] < 500_000
    assert objects[1] - objects[0] < 100


@pytest.mark.usefixtures("several_threads")
def test_threads_end_with_their_engine() -> None:
    before = threading.active_count()
    one = engine(threads=3)
    one.train_step(*windows(5, 4), one.config.zero_state(4), SGD(0.1))
    assert threading.active_count() > before
    del one
    gc.collect()
    deadline = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.usefixtures("several_threads")
def test_two_engines_in_two_threads() -> None:
    def losses(seed: int) -> list[float]:
        one = engine(threads=3)
        optimizer = SGD(0.1)
        state = one.config.zero_state(6)
        return [one.train_step(*windows(5, 6, seed), state, optimizer)[0] for _ in range(200)]

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
    deadline = time.monotonic() + 30
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(done[1]) == 0


@pytest.mark.usefixtures("several_threads")
def test_an_interrupt_on_the_way_in(monkeypatch: pytest.MonkeyPatch) -> None:
    one = engine(threads=2)
    inputs, targets = windows(5, 4)
    state = one.config.zero_state(4)
    optimizer = SGD(0.0)
    expected = one.train_step(inputs, targets, state, optimizer)[0]
    crew = one._training_windows[5, 4].crew
    kept, sync = one._train, crew.sync

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    one._train = interrupted
    with pytest.raises(KeyboardInterrupt):
        one.train_step(inputs, targets, state, optimizer)
    assert sync[STOPPED] == 1
    one._train = kept
    assert one.train_step(inputs, targets, state, optimizer)[0] == expected


# Compiling


def in_a_new_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )


STEP = """
    import numpy as np
    from charloom.engines.backend import Backend
    from charloom.network.parameters import ModelConfig
    from charloom.network.initialization import initialize
    engine = Backend("compiled").open(initialize(ModelConfig("rnn", 8, 1, 5), 0))
    engine.step(np.array([1]), engine.config.zero_state(1))
"""


def kernels(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.kernel"))


def test_a_kernel_is_compiled_once_and_says_so(tmp_path: Path) -> None:
    first = in_a_new_process(STEP, NUMBA_CACHE_DIR=str(tmp_path))
    assert first.returncode == 0, first.stderr
    assert first.stderr.count("\n") == 1
    assert "compiling the kernel for inference" in first.stderr
    (kernel,) = kernels(tmp_path)
    again = in_a_new_process(STEP, NUMBA_CACHE_DIR=str(tmp_path))
    assert (again.returncode, again.stderr) == (0, "")
    assert kernels(tmp_path) == [kernel]
    # A file that was cut off or tampered with is compiled anew.
    (path,) = tmp_path.rglob("*.kernel")
    path.write_bytes(path.read_bytes()[:-100])
    third = in_a_new_process(STEP, NUMBA_CACHE_DIR=str(tmp_path))
    assert third.returncode == 0
    assert "compiling" in third.stderr


def test_importing_compiles_nothing_and_sets_nothing_of_numba_s(tmp_path: Path) -> None:
    code = (
        """
        import numba
        names = [n for n in dir(numba.config) if n.isupper()]
        before = {n: getattr(numba.config, n) for n in names}
        import charloom.engines.compiled
        from charloom.engines.compiled.engine import INFER, TRAIN
        assert TRAIN._dispatcher is None and INFER._dispatcher is None
    """
        + STEP.replace("\n    ", "\n        ")
        + """
        after = {n: getattr(numba.config, n) for n in names}
        assert {n for n in names if before[n] is not after[n] and before[n] != after[n]} == set()
        assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
    """
    )
    done = in_a_new_process(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr


def one(place, value):  # type: ignore[no-untyped-def]
    place[0] += value


def tiny_kernel() -> Kernel:
    return Kernel(one, "a test")


def run(kernel: Kernel) -> float:
    place = np.zeros(1)
    kernel.compiled((place, 2.0))(place, 2.0)
    return float(place[0])


def test_without_a_home_there_is_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home, temporary = tmp_path / "file", tmp_path / "temporary"
    home.write_text("no folder can be made here")
    temporary.mkdir()
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(compiling.platformdirs, "user_cache_dir", lambda name: str(home / name))
    monkeypatch.setattr(compiling.tempfile, "gettempdir", lambda: str(temporary))
    folder = cache_folder()
    assert folder is not None
    assert folder.parent == temporary
    assert folder.stat().st_mode & 0o077 == 0
    assert run(tiny_kernel()) == 2
    assert len(kernels(temporary)) == 1
    # Nor there: the kernel is compiled for this process alone.
    monkeypatch.setattr(compiling.tempfile, "gettempdir", lambda: str(home))
    assert cache_folder() is None
    assert run(tiny_kernel()) == 2
    assert "once on this machine" in caplog.records[0].getMessage()
    assert "in every process" in caplog.records[1].getMessage()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs owners of files")
def test_a_folder_that_others_may_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    folder = cache_folder()
    assert folder == tmp_path / "charloom"
    folder.chmod(0o777)
    assert cache_folder() != folder
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert cache_folder() != folder


def test_a_change_of_any_source_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "compiling.py").write_text("")
    (sources / "cells.py").write_text("x = 1")
    monkeypatch.setattr(compiling, "__file__", str(sources / "compiling.py"))
    run(tiny_kernel())
    run(tiny_kernel())
    assert len(kernels(tmp_path)) == 1
    (sources / "cells.py").write_text("x = 2")
    run(tiny_kernel())
    assert len(kernels(tmp_path)) == 2


def test_processes_that_compile_at_once(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(STEP)],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert len(kernels(tmp_path)) == 1
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".part-")]
    again = in_a_new_process(STEP, NUMBA_CACHE_DIR=str(tmp_path))
    assert (again.returncode, again.stderr) == (0, "")


# Choosing it


def test_auto_takes_the_compiled_engine() -> None:
    parameters = initialize(ModelConfig("rnn", 4, 1, 5), 0)
    assert Backend("auto").open(parameters).name == "compiled"
    assert Backend("reference").open(parameters).name == "reference"
    assert Backend("auto", threads=7).open(parameters).threads == 7


WITHOUT_NUMBA = """
    import sys
    sys.modules["numba"] = None
    import charloom
    from charloom.engines.backend import Backend
    from charloom.network.parameters import ModelConfig
    from charloom.network.initialization import initialize
    parameters = initialize(ModelConfig("rnn", 4, 1, 5), 0)
    print(Backend("auto").open(parameters).name, Backend("auto").open(parameters).name)
    try:
        Backend("compiled").open(parameters)
    except charloom.CharloomError as error:
        print(error)
"""


def test_without_numba_the_reference_serves_and_says_so_once() -> None:
    done = in_a_new_process(WITHOUT_NUMBA)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "reference reference"
    assert "needs Numba" in done.stdout.splitlines()[1]
    assert "--engine reference" in done.stdout.splitlines()[1]
    assert len(done.stderr.splitlines()) == 1
    assert "the reference engine computes" in done.stderr


def test_an_engine_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    code = """
        import sys
        sys.modules["numba"] = None
        from charloom.cli.main import main
        text = "a line of text\\n" * 200
        open("text.txt", "w").write(text)
        sys.exit(main(["train", "text.txt", "--steps", "1", "--engine", "compiled"]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "pip install numba" in done.stderr.splitlines()[-1]


def test_the_error_names_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "charloom.engines.compiled", None)
    with pytest.raises(CharloomError, match="cannot be imported"):
        Backend("compiled").open(initialize(ModelConfig("rnn", 4, 1, 5), 0))

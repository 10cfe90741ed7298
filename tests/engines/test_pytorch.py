"""The PyTorch engine where it is not like the others: devices, memory, resuming, what is refused.

What every engine does is tested in contracts/ and network/test_units.py, for this one too.
"""

import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charloom
from charloom.cli.main import main
from charloom.engines.backend import Backend
from charloom.engines.protocol import Engine
from charloom.engines.reference import ReferenceEngine
from charloom.errors import CharloomError
from charloom.network.initialization import grow_vocabulary, initialize
from charloom.network.optimizers import OPTIMIZERS, SGD, Adam, NonFiniteGradientError, Optimizer
from charloom.network.parameters import ModelConfig, Parameters
from charloom.storage.checkpoint import load_checkpoint
from charloom.training.planner import measure_speed
from helpers.cli import refused
from helpers.paths import ROOT
from helpers.texts import EINMALEINS

CELLS = ("rnn", "lstm", "gru")


SMALL = ("--hidden-size=12", "--window=16", "--batch-size=4", "--seed=1", "--no-mix")


with_torch = pytest.mark.torch


def open_pytorch(parameters: Parameters, **settings: Any) -> Engine:
    names = {f.name for f in fields(Backend)} & set(settings)
    backend = Backend("pytorch", **{name: settings.pop(name) for name in names})
    return backend.open(parameters, **settings)


def windows(config: ModelConfig, count: int, steps: int = 6, rows: int = 3) -> Sequence[Any]:
    """Inputs and targets of so many windows, each (T, B)."""
    generator = np.random.default_rng(1)
    return generator.integers(0, config.vocabulary_size, (count, 2, steps, rows))


@with_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_new_characters_leave_old_logits_bit_identical(torch: Any, cell: str, dtype: str) -> None:
    config = ModelConfig(cell, 33, 2, 7, dtype=dtype)
    old = initialize(config, seed=1)
    grown = grow_vocabulary(old, replace(config, vocabulary_size=3_000))
    state = np.random.default_rng(2).normal(0, 0.5, config.zero_state(4).shape).astype(dtype)
    ids = np.array([0, 3, 6, 3])
    logits, after = open_pytorch(old).step(ids, state)
    more, same = open_pytorch(grown).step(ids, state)
    assert np.ascontiguousarray(more[:, :7]).tobytes() == logits.tobytes()
    assert same.tobytes() == after.tobytes()


class Halving(Optimizer):
    """An optimizer that the engine does not know."""

    default_learning_rate = 1.0

    def _step(self, p: Any, g: Any, a: Any, b: Any) -> None:
        p -= self.learning_rate * g / 2


@with_torch
def test_custom_optimizer_works(torch: Any) -> None:
    config = ModelConfig("gru", 6, 1, 5, dtype="float64")
    flat = initialize(config, seed=1).flat
    ours = open_pytorch(Parameters(config, flat.copy()))
    theirs = ReferenceEngine(Parameters(config, flat.copy()))
    one, other = Halving(0.2, 0.5), Halving(0.2, 0.5)
    for inputs, targets in windows(config, 3):
        state = config.zero_state(3)
        _, norm, _ = ours.train_step(inputs, targets, state, one)
        _, expected, _ = theirs.train_step(inputs, targets, state, other)
        assert norm == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(ours.parameters.flat, theirs.parameters.flat, rtol=1e-10)
    assert one.step_count == 3


@with_torch
def test_process_settings_are_restored(torch: Any) -> None:
    before = torch.get_num_threads()
    engine = open_pytorch(initialize(ModelConfig("gru", 6, 1, 5), 0), threads=before + 1)
    engine.log_probabilities(np.zeros((2, 1), np.intp), engine.zero_state(1))
    assert torch.get_num_threads() == before
    engine.parameters.flat[:] = np.inf
    inputs, targets = windows(engine.config, 1)[0]
    with pytest.raises(NonFiniteGradientError):
        engine.train_step(inputs, targets, engine.zero_state(3), SGD(0.1))
    assert torch.get_num_threads() == before


@with_torch
def test_out_of_memory_is_reported(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_pytorch(initialize(ModelConfig("gru", 6, 1, 5), 0))
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ):

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(engine, "_forward", fail)
        with pytest.raises(MemoryError):
            engine.log_probabilities(np.zeros((1, 1), np.intp), engine.zero_state(1))


@pytest.fixture(params=["a memory of its own", "cuda"])
def apart(request: pytest.FixtureRequest, torch: Any) -> Any:
    """Opens an engine whose parameters do not lie in the host's memory: on a GPU, where there is
    one, and on the CPU as if there were."""
    from charloom.engines.pytorch import PytorchEngine

    class Apart(PytorchEngine):
        def __init__(self, parameters: Parameters, **settings: Any) -> None:
            super().__init__(parameters, **settings)
            self._shares = False
            self._place(self._host.clone())

    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("there is no GPU here")
        return lambda parameters: PytorchEngine(parameters, seed=6, device="cuda")
    return lambda parameters: Apart(parameters, seed=6)


def train(engine: Engine, optimizer: Optimizer, count: int) -> list[float]:
    state = engine.zero_state(3)
    losses = []
    for inputs, targets in windows(engine.config, count):
        loss, _, state = engine.train_step(inputs, targets, state, optimizer)
        losses.append(loss)
    return losses


@with_torch
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("cell", CELLS)
def test_training_on_a_device_equals_the_reference(apart: Any, cell: str, optimizer: str) -> None:
    config = ModelConfig(cell, 9, 2, 11, 0.3, "float64", 0.2)
    flat = initialize(config, seed=1).flat
    ours, theirs = (
        apart(Parameters(config, flat.copy())),
        ReferenceEngine(Parameters(config, flat.copy()), seed=6),
    )
    one, other = OPTIMIZERS[optimizer](0.01, 1.0), OPTIMIZERS[optimizer](0.01, 1.0)
    np.testing.assert_allclose(train(ours, one, 5), train(theirs, other, 5), rtol=1e-10)
    # Scoring sees the steps without being told, and so does whoever reads the parameters.
    inputs, targets = windows(config, 1)[0]
    state = config.zero_state(3)
    expected, _ = theirs.log_probabilities(inputs, state)
    np.testing.assert_allclose(ours.log_probabilities(inputs, state)[0], expected, rtol=1e-9)
    np.testing.assert_allclose(ours.parameters.flat, theirs.parameters.flat, rtol=1e-8)
    for slot, values in other.slots.items():
        np.testing.assert_allclose(one.slots[slot], values, rtol=1e-7, atol=1e-12)
    # What is written to the parameters and slots, after they were read, counts.
    for engine, its in ((ours, one), (theirs, other)):
        engine.parameters.flat[:] *= 0.5
        for values in its.slots.values():
            values *= 0.5
    np.testing.assert_allclose(
        ours.loss_and_gradients(inputs, targets, state)[0],
        theirs.loss_and_gradients(inputs, targets, state)[0],
        rtol=1e-10,
    )
    np.testing.assert_allclose(train(ours, one, 3), train(theirs, other, 3), rtol=1e-10)
    ours.parameters.flat[:] = theirs.parameters.flat[:] = flat
    ours.parameters_changed()
    found, _ = ours.step(inputs[0], state)
    np.testing.assert_allclose(found, theirs.step(inputs[0], state)[0], rtol=1e-10, atol=1e-12)


@with_torch
def test_optimizer_can_be_swapped_on_a_device(apart: Any) -> None:
    config = ModelConfig("gru", 9, 1, 11, dtype="float64")
    flat = initialize(config, seed=1).flat
    ours, theirs = (
        apart(Parameters(config, flat.copy())),
        ReferenceEngine(Parameters(config, flat.copy()), seed=6),
    )
    for engine in (ours, theirs):
        first, second = Adam(0.01), SGD(0.1)
        for optimizer in (first, second, first):
            train(engine, optimizer, 2)
        assert first.step_count == 4
    np.testing.assert_allclose(ours.parameters.flat, theirs.parameters.flat, rtol=1e-9)


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("tables.txt").write_text(EINMALEINS, encoding="utf-8")
    return "tables.txt"


@with_torch
def test_a_run_goes_on_to_the_same_bytes(torch: Any, text: str) -> None:
    options = (*SMALL, "--engine=pytorch", "--threads=1", "--layers=2", "--dropout=0.2")
    assert main(["train", text, "--out=whole", "--steps=24", *options]) == 0
    stopped: list[int] = []

    def stop(event: Any) -> None:
        stopped.append(event.step)
        if event.step == 11:
            raise KeyboardInterrupt

    given = {
        "hidden_size": 12, "window": 16, "batch_size": 4, "seed": 1, "no_mix": True, "steps": 24,
        "engine": "pytorch", "threads": 1, "layers": 2, "dropout": 0.2,
    }  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        charloom.train(Path(text), out="cut", progress=stop, **given)
    assert stopped[-1] == 11
    assert main(["train", text, "--out=cut", "--resume"]) == 0
    assert (
        Path("cut/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    )
    one, other = (
        load_checkpoint(Path(trained_run, "resume.safetensors")) for trained_run in ("cut", "whole")
    )
    assert one.parameters.flat.tobytes() == other.parameters.flat.tobytes()
    assert set(one.optimizer) == {"first_moment", "second_moment"}
    for slot, values in one.optimizer.items():
        assert values.tobytes() == other.optimizer[slot].tobytes()


@with_torch
def test_every_command_accepts_the_engine(
    torch: Any, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", text, "--out=run", "--steps=8", *SMALL]) == 0
    capfd.readouterr()
    printed = {}
    for engine in ("compiled", "pytorch"):
        for command in (
            ["sample", "run", "--length=40", "--seed=3"],
            ["evaluate", "run", "--json"],
            ["score", "run", text, "--csv"],
            ["explore", "run", text, "--json"],
        ):
            assert main([*command, f"--engine={engine}", "--device=cpu"]) == 0
            printed[command[0], engine] = capfd.readouterr().out
    assert printed["sample", "pytorch"] == printed["sample", "compiled"]
    assert all(printed.values())
    assert main(["train", text, "--out=run", "--resume", "--steps=9", "--engine=pytorch"]) == 0
    assert "resumes with pytorch" in capfd.readouterr().err
    model = charloom.load("run", engine="pytorch")
    assert model.evaluate(with_baselines=False, protocol="adaptive").bits_per_character > 0


COMMANDS = (
    ["train", "tables.txt", "--out=new", "--steps=1"],
    ["train", "tables.txt", "--out=new", "--minutes=1"],
    ["sample", "run"],
    ["evaluate", "run"],
    ["score", "run", "tables.txt"],
    ["explore", "run", "tables.txt"],
)


@pytest.fixture
def trained_run(text: str) -> None:
    assert main(["train", text, "--out=run", "--steps=1", *SMALL]) == 0


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_without_pytorch_the_extra_is_named(
    trained_run: None, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "charloom.engines.pytorch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    line = refused(*command, "--engine=pytorch")
    assert "pip install 'charloom[torch]'" in line
    assert not Path("new").exists()


@with_torch
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_missing_gpu_is_refused(
    torch: Any, trained_run: None, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "PyTorch finds no usable GPU" in refused(*command, "--engine=pytorch", "--device=cuda")
    assert not Path("new").exists()


@pytest.mark.parametrize("engine", ["auto", "compiled", "reference"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_gpu_requires_engine_pytorch(trained_run: None, command: list[str], engine: str) -> None:
    line = refused(*command, f"--engine={engine}", "--device=cuda")
    assert "--device cuda is for the PyTorch engine" in line
    assert not Path("new").exists()


@with_torch
def test_benchmark_without_gpu_is_refused(
    torch: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["python -m benchmarks.gpu"])
    assert importlib.import_module("benchmarks.gpu").main() == 2
    out, err = capfd.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert "no usable GPU found" in err


def skip_without_bfloat16(torch: Any, cell: str) -> None:
    """Skip a test on processors for which oneDNN has no lstm in bfloat16."""
    if cell == "lstm" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no lstm in bfloat16 for this processor")


@with_torch
def test_an_lstm_in_bfloat16_is_refused_if_the_processor_cannot(
    torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    parameters = initialize(ModelConfig("lstm", 8, 1, 5), seed=1)
    with pytest.raises(CharloomError, match="no lstm in bfloat16 for this processor"):
        open_pytorch(parameters, bf16=True)
    open_pytorch(parameters)
    open_pytorch(initialize(ModelConfig("gru", 8, 1, 5), seed=1), bf16=True)


@with_torch
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("end_id", [None, 5])
def test_bfloat16_reaches_a_similar_loss(torch: Any, cell: str, end_id: int | None) -> None:
    skip_without_bfloat16(torch, cell)
    config = ModelConfig(cell, 32, 2, 40, 0.2, "float32", 0.1, end_id)
    flat = initialize(config, seed=1).flat
    losses = []
    for bf16 in (False, True):
        engine = open_pytorch(Parameters(config, flat.copy()), seed=6, bf16=bf16)
        losses.append(train(engine, Adam(0.01), 10))
        assert engine.train_step(
            *windows(config, 1)[0], engine.zero_state(3), Adam(0.01)
        )[2].dtype == np.float32  # fmt: skip
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
    # Scoring knows nothing of it.
    other = open_pytorch(Parameters(config, engine.parameters.flat.copy()))
    inputs, _ = windows(config, 1)[0]
    one, _ = engine.log_probabilities(inputs, engine.zero_state(3))
    two, _ = other.log_probabilities(inputs, engine.zero_state(3))
    assert one.tobytes() == two.tobytes()


@with_torch
def test_bfloat16_is_kept_and_noted(
    torch: Any, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [*SMALL, "--engine=pytorch", "--threads=1"]
    assert main(["train", text, "--out=run", "--steps=2", *options]) == 0
    assert main(["train", text, "--out=run", "--resume", "--steps=3", "--bf16"]) == 0
    assert "resumes with pytorch on 1 threads in bfloat16" in capfd.readouterr().err
    assert main(["train", text, "--out=run", "--resume", "--steps=4"]) == 0
    assert "not repeat" not in capfd.readouterr().err
    assert "bf16" in Path("run/report.html").read_text("utf-8")


@with_torch
@pytest.mark.parametrize("option", ["--dtype=float64", "--preset=classic"])
def test_bfloat16_for_other_numbers_is_refused(torch: Any, text: str, option: str) -> None:
    arguments = ["train", text, "--out=new", "--steps=1", "--bf16", "--engine=pytorch", option]
    assert "--bf16 is for float32" in refused(*arguments)
    assert not Path("new").exists()


def test_bfloat16_requires_engine_pytorch(text: str) -> None:
    line = refused("train", text, "--out=new", "--steps=1", "--bf16")
    assert "--bf16 is for the PyTorch engine" in line
    assert not Path("new").exists()


@with_torch
def test_compile_happens_when_the_engine_opens(compiler: None, torch: Any) -> None:
    config = ModelConfig("gru", 12, 2, 21, 0.2)
    engine = open_pytorch(initialize(config, 0), seed=6, compile=True)
    assert not any(p.grad is not None for p in engine._tensors.values())  # type: ignore[attr-defined]
    optimizer = Adam(0.01)
    with torch.compiler.set_stance("fail_on_recompile"):
        for steps, rows in ((6, 3), (16, 4), (3, 17), (64, 2)):
            inputs, targets = windows(config, 1, steps, rows)[0]
            engine.train_step(inputs, targets, engine.zero_state(rows), optimizer)


@with_torch
@pytest.mark.parametrize("cell", CELLS)
def test_compiled_bfloat16_is_similar(warm_compiler: None, torch: Any, cell: str) -> None:
    skip_without_bfloat16(torch, cell)
    config = ModelConfig(cell, 12, 2, 21, 0.2)
    flat = initialize(config, seed=1).flat
    losses = []
    for compile in (False, True):
        parameters = Parameters(config, flat.copy())
        engine = open_pytorch(parameters, seed=6, bf16=True, compile=compile)
        losses.append(train(engine, Adam(0.01), 5))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


@with_torch
def test_compiled_run_resumes(
    warm_compiler: None, torch: Any, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [*SMALL, "--engine=pytorch", "--threads=1"]
    assert main(["train", text, "--out=run", "--steps=2", *options]) == 0
    assert main(["train", text, "--out=run", "--resume", "--steps=3", "--compile"]) == 0
    assert "resumes with pytorch on 1 threads with --compile" in capfd.readouterr().err
    assert main(["train", text, "--out=run", "--resume", "--steps=4"]) == 0
    assert "not repeat" not in capfd.readouterr().err
    assert "compile" in Path("run/report.html").read_text("utf-8")
    for trained_run in ("one", "two"):
        assert (
            main(["train", text, f"--out={trained_run}", "--steps=3", "--compile", *options]) == 0
        )
    assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()


@with_torch
def test_compiled_speed_is_measured(warm_compiler: None, torch: Any) -> None:
    assert measure_speed(Backend("pytorch", 1, compile=True)) > 0


@with_torch
@pytest.mark.parametrize("environment", [{"PATH": "nowhere"}, {"CXX": "no-compiler"}])
def test_missing_compiler_is_refused(torch: Any, text: str, environment: dict[str, str]) -> None:
    before = os.environ.copy()
    before.pop("CXX", None)
    command = [sys.executable, "-m", "charloom", "train", text, "--out=new", "--steps=1", *SMALL]
    done = subprocess.run(
        [*command, "--engine=pytorch", "--compile"],
        env={**before, "TORCHINDUCTOR_CACHE_DIR": str(Path("cache").absolute()), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("charloom: --compile needs a C++ compiler that PyTorch can use")
    assert not done.stdout
    assert not Path("new").exists()


@with_torch
def test_failing_compiler_is_one_line(
    compiler: None, torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile(*_: Any, **__: Any) -> Any:
        raise RuntimeError("C++ compile error\n\nCommand:\ng++ x.cpp\n")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: compile)
    with pytest.raises(CharloomError, match=r"needs a C\+\+ compiler .*C\+\+ compile error"):
        open_pytorch(initialize(ModelConfig("rnn", 2, 1, 2), 0), compile=True)


@with_torch
def test_compile_refuses_preset_classic_in_float64(torch: Any, text: str) -> None:
    arguments = ["train", text, "--out=new", "--steps=1", "--compile", "--engine=pytorch"]
    line = refused(*arguments, "--preset=classic", "--dtype=float64")
    assert "--compile: NumPy computes the preset classic in float64" in line
    assert not Path("new").exists()


@pytest.mark.parametrize("engine", ["auto", "compiled", "reference"])
def test_compile_requires_engine_pytorch(text: str, engine: str) -> None:
    line = refused("train", text, "--out=new", "--steps=1", "--compile", f"--engine={engine}")
    assert "--compile is for the PyTorch engine" in line
    assert not Path("new").exists()


def test_unknown_device_is_refused() -> None:
    with pytest.raises(CharloomError, match="device 'tpu' is not one of cpu, cuda"):
        Backend("reference", device="tpu").open(initialize(ModelConfig("rnn", 2, 1, 2), 0))

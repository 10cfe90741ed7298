"""ONNX Runtime computes our logits from an exported model."""

import json
from pathlib import Path

import numpy as np
import pytest

from charloom.engines.reference import ReferenceEngine, log_softmax
from charloom.exchange.onnx import export_onnx
from charloom.storage.checkpoint import Checkpoint
from charloom.text.vocabulary import Vocabulary
from helpers.exchange import CHARACTERS, OF_DOCUMENTS, every_cell, every_depth, some_model


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.onnx
@every_cell
@every_depth
@pytest.mark.parametrize(("dtype", "hidden"), [("float32", 13), ("float64", 64)])
def test_onnxruntime_gives_our_logits(cell: str, layers: int, dtype: str, hidden: int) -> None:
    pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    parameters = some_model(cell, layers, dtype, hidden)
    export_onnx(Checkpoint(parameters, Vocabulary(CHARACTERS)), Path("a.onnx"))
    session = onnxruntime.InferenceSession("a.onnx", providers=["CPUExecutionProvider"])
    engine = ReferenceEngine(parameters)
    generator = np.random.default_rng(2)
    for steps, rows in ((1, 1), (7, 3), (40, 2)):
        ids = generator.integers(0, len(CHARACTERS), (steps, rows))
        state = generator.normal(0, 0.5, engine.zero_state(rows).shape).astype("float32")
        logits, after = session.run(["logits", "next_state"], {"ids": ids, "state": state})
        assert logits.shape == (steps, rows, len(CHARACTERS))
        now = state.astype(dtype)
        for t in range(steps):
            expected, now = engine.step(ids[t], now)
            np.testing.assert_allclose(logits[t], expected, atol=1e-5, rtol=0)
        np.testing.assert_allclose(after, now, atol=1e-5, rtol=0)
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["vocabulary"]) == list(CHARACTERS)
    assert session.get_modelmeta().description == ""


@pytest.mark.onnx
@every_cell
@pytest.mark.parametrize("layers", [1, 2])
def test_onnxruntime_reads_documents_whose_state_the_caller_empties(cell: str, layers: int) -> None:
    pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    parameters = some_model(cell, layers, characters=OF_DOCUMENTS)
    export_onnx(Checkpoint(parameters, Vocabulary(OF_DOCUMENTS)), Path("a.onnx"))
    session = onnxruntime.InferenceSession("a.onnx", providers=["CPUExecutionProvider"])
    found = session.get_modelmeta()
    end_id = json.loads(found.custom_metadata_map["config"])["end_id"]
    assert json.loads(found.custom_metadata_map["vocabulary"]) == [*CHARACTERS, ""]
    assert end_id == len(CHARACTERS)
    assert f"Id {end_id} is the end of a document" in found.description
    engine = ReferenceEngine(parameters)
    generator = np.random.default_rng(2)
    ids = generator.integers(0, len(CHARACTERS), (12, 3))
    ids[0], ids[4, 1], ids[7, 1], ids[8, 2], ids[9, 2] = [end_id] * 5
    state = generator.normal(0, 0.5, engine.zero_state(3).shape).astype("float32")
    expected, after = engine.log_probabilities(ids, state)
    for t in range(len(ids)):
        state[:, :, ids[t] == end_id] = 0
        logits, state = session.run(
            ["logits", "next_state"], {"ids": ids[t : t + 1], "state": state}
        )
        np.testing.assert_allclose(log_softmax(logits[0]), expected[t], atol=1e-5)
    np.testing.assert_allclose(state, after, atol=1e-5)


@pytest.mark.onnx
@every_cell
@pytest.mark.parametrize("norm", ["none", "rms"])
def test_onnxruntime_reads_extra_inputs(cell: str, norm: str) -> None:
    pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    parameters = some_model(cell, 2, extra_inputs=5, norm=norm)
    export_onnx(Checkpoint(parameters, Vocabulary(CHARACTERS)), Path("a.onnx"))
    session = onnxruntime.InferenceSession("a.onnx", providers=["CPUExecutionProvider"])
    ids_, extra_, _ = session.get_inputs()
    assert (ids_.name, extra_.name, extra_.shape) == ("ids", "extra", ["T", "B", 5])
    found = session.get_modelmeta()
    assert json.loads(found.custom_metadata_map["config"])["extra_inputs"] == 5
    assert "`extra`, (T, B, 5)" in found.description
    engine = ReferenceEngine(parameters)
    generator = np.random.default_rng(2)
    ids = generator.integers(0, len(CHARACTERS), (12, 3))
    extra = generator.dirichlet(np.ones(5), (12, 3)).astype("float32")
    state = generator.normal(0, 0.5, engine.zero_state(3).shape).astype("float32")
    inputs = {"ids": ids, "extra": extra, "state": state}
    logits, after = session.run(["logits", "next_state"], inputs)
    expected, expected_after = engine.log_probabilities(ids, state, extra=extra)
    np.testing.assert_allclose(log_softmax(logits), expected, atol=1e-5)
    np.testing.assert_allclose(after, expected_after, atol=1e-5)

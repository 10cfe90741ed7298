"""Export to ONNX without running what was exported."""

import sys
from pathlib import Path

import pytest

from helpers.cli import refused, run
from helpers.exchange import kept, some_model


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    line = refused("export", kept(some_model("rnn")), "--to=onnx", "--out=a.onnx")
    assert "pip install 'charloom[onnx]'" in line


@pytest.mark.onnx
def test_a_float64_model_is_exported_in_float32_and_that_is_said() -> None:
    pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    model = kept(some_model("gru", dtype="float64"))
    status, _, errors = run("export", model, "--to=onnx", "--out=a.onnx")
    assert status == 0
    assert "computes in float32, not float64" in errors

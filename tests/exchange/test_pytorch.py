"""Models for PyTorch, and PyTorch's state dicts as models: equal, and safe to open."""

import json
import os
import pickle
import runpy
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import charloom
from charloom.engines.reference import ReferenceEngine
from charloom.errors import CharloomError
from charloom.exchange.pytorch import import_pytorch
from charloom.network.parameters import ModelConfig, Parameters
from charloom.storage.checkpoint import load_checkpoint
from charloom.text.vocabulary import Vocabulary
from helpers.cli import refusal, refused, run
from helpers.exchange import (
    CHARACTERS,
    OF_DOCUMENTS,
    every_cell,
    every_depth,
    kept,
    some_model,
)
from helpers.texts import QUOTING_WOODS


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.torch
@every_cell
@pytest.mark.parametrize(("layers", "dtype"), [(1, "float32"), (2, "float64"), (3, "float32")])
def test_printed_pytorch_code_gives_our_logits(cell: str, layers: int, dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch (extra `torch`) is not installed")
    parameters = some_model(cell, layers, dtype)
    out = "it's \\ odd.safetensors"
    status, printed, errors = run("export", kept(parameters), "--to=pytorch", f"--out={out}")
    assert status == 0, errors
    assert out in errors
    script = Path(out).with_suffix(".py")
    assert printed in script.read_text("utf-8")
    assert len(printed.splitlines()) <= 12
    names = runpy.run_path(str(script))
    engine = ReferenceEngine(parameters)
    expected, _ = engine.step(np.array([0]), engine.zero_state(1))
    np.testing.assert_allclose(names["logits"].detach().numpy()[0], expected, atol=1e-5)
    # And a longer text, from the modules that the lines made.
    ids = np.random.default_rng(1).integers(0, len(CHARACTERS), (9, 2))
    one_hot = torch.nn.functional.one_hot(torch.tensor(ids)).to(getattr(torch, dtype))
    y, _ = names["rnn"](one_hot)
    log_p = torch.log_softmax(names["decoder"](y), 2).detach().numpy()
    expected, _ = engine.log_probabilities(ids, engine.zero_state(2))
    np.testing.assert_allclose(log_p, expected, atol=1e-5 if dtype == "float32" else 1e-12)
    assert names["vocabulary"] == list(CHARACTERS)


@pytest.mark.torch
@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_printed_pytorch_code_begins_a_document(cell: str, dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch (extra `torch`) is not installed")
    parameters = some_model(cell, 2, dtype, characters=OF_DOCUMENTS)
    out = "a.safetensors"
    status, printed, errors = run("export", kept(parameters), "--to=pytorch", f"--out={out}")
    assert status == 0, errors
    assert 'for c in [""]]' in printed
    assert "the end of a document" in printed
    names = runpy.run_path("a.py")
    assert names["vocabulary"] == [*CHARACTERS, ""]
    engine = ReferenceEngine(parameters)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    end_id = len(CHARACTERS)
    state = np.full_like(engine.zero_state(1), 0.5)  # the engine empties it, and the code as well
    expected, _ = engine.step(np.array([end_id]), state)
    np.testing.assert_allclose(names["logits"].detach().numpy()[0], expected, atol=tolerance)
    ids = np.random.default_rng(1).integers(0, end_id, (9, 1))
    ids[0] = end_id
    one_hot = torch.nn.functional.one_hot(torch.tensor(ids), end_id + 1)
    y, _ = names["rnn"](one_hot.to(getattr(torch, dtype)))
    log_p = torch.log_softmax(names["decoder"](y), 2).detach().numpy()
    expected, _ = engine.log_probabilities(ids, state)
    np.testing.assert_allclose(log_p, expected, atol=tolerance)


def test_a_model_of_documents_is_exported_and_imported() -> None:
    parameters = some_model("lstm", 2, characters=OF_DOCUMENTS)
    assert run("export", kept(parameters), "--to=pytorch", "--out=a.safetensors")[0] == 0
    with safe_open("a.safetensors", "numpy") as file:
        header = file.metadata()
    assert json.loads(header["vocabulary"]) == [*CHARACTERS, ""]
    assert json.loads(header["config"])["end_id"] == len(CHARACTERS)
    assert run("import", "a.safetensors", "--out=second")[0] == 0
    found = load_checkpoint(Path("second/model.safetensors"))
    assert found.config == parameters.config
    assert found.vocabulary == Vocabulary(OF_DOCUMENTS)
    assert found.parameters.flat.tobytes() == parameters.flat.tobytes()
    # A vocabulary of one's own can have the end of a document anywhere.
    arguments = write(state_dict(some_model("gru")), ["", *"\n abcdé"])
    assert run(*arguments)[0] == 0
    assert load_checkpoint(Path("run/model.safetensors")).config.end_id == 0


@pytest.mark.torch
@every_cell
def test_normalized_products_are_exported_and_imported(cell: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch (extra `torch`) is not installed")
    parameters = some_model(cell, 2, extra_inputs=3, norm="rms")
    status, _, errors = run("export", kept(parameters), "--to=pytorch", "--out=a.safetensors")
    assert status == 0, errors
    assert "import charloom" not in Path("a.py").read_text("utf-8")
    names = runpy.run_path("a.py")
    engine = ReferenceEngine(parameters)
    ids = np.random.default_rng(1).integers(0, len(CHARACTERS), (9, 2))
    extra = np.random.default_rng(2).dirichlet(np.ones(3), (9, 2)).astype("float32")
    one_hot = torch.nn.functional.one_hot(torch.tensor(ids), len(CHARACTERS)).float()
    y, state = names["rnn"](torch.cat([one_hot, torch.tensor(extra)], 2))
    again, _ = names["rnn"](torch.cat([one_hot, torch.tensor(extra)], 2), state)
    assert not torch.equal(y, again)
    log_p = torch.log_softmax(names["decoder"](y), 2).detach().numpy()
    expected, _ = engine.log_probabilities(ids, engine.zero_state(2), extra=extra)
    np.testing.assert_allclose(log_p, expected, atol=1e-5)
    import_pytorch("a.safetensors", out="imported")
    imported = load_checkpoint(Path("imported/model.safetensors")).parameters
    assert imported.config == parameters.config
    assert imported.flat.tobytes() == parameters.flat.tobytes()


def test_a_model_with_extra_inputs_is_exported_and_imported() -> None:
    parameters = some_model("lstm", 2, extra_inputs=3)
    assert parameters["rnn.weight_ih_l0"].shape == (52, 8 + 3)
    path = kept(parameters)
    assert run("export", path, "--to=pytorch", "--out=a.safetensors")[0] == 0
    assert run("import", "a.safetensors", "--out=second")[0] == 0
    found = load_checkpoint(Path("second/model.safetensors"))
    assert found.config == parameters.config
    assert found.parameters.flat.tobytes() == parameters.flat.tobytes()
    _, printed, _ = run("info", "second")
    assert "float32, 3 extra inputs" in printed
    # Without the header, nothing distinguishes them from characters that the vocabulary lacks.
    line = refused(*write(load_file("a.safetensors")))
    assert "rnn.weight_ih_l0 has shape (52, 11), not (52, 8)" in line
    assert "unless the file is an export of charloom, whose header counts them" in line


@pytest.mark.torch
def test_printed_pytorch_code_reads_extra_inputs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch (extra `torch`) is not installed")
    parameters = some_model("gru", 2, "float64", extra_inputs=3)
    assert run("export", kept(parameters), "--to=pytorch", "--out=a.safetensors")[0] == 0
    names = runpy.run_path("a.py")
    engine = ReferenceEngine(parameters)
    expected, _ = engine.step(np.array([0]), engine.zero_state(1), extra=np.zeros((1, 3)))
    np.testing.assert_allclose(names["logits"].detach().numpy()[0], expected, atol=1e-12)
    ids = np.random.default_rng(1).integers(0, len(CHARACTERS), (9, 2))
    extra = np.random.default_rng(2).random((9, 2, 3))
    one_hot = torch.nn.functional.one_hot(torch.tensor(ids)).to(torch.float64)
    y, _ = names["rnn"](torch.cat([one_hot, torch.tensor(extra)], 2))
    log_p = torch.log_softmax(names["decoder"](y), 2).detach().numpy()
    expected, _ = engine.log_probabilities(ids, engine.zero_state(2), extra=extra)
    np.testing.assert_allclose(log_p, expected, atol=1e-12)


def test_the_state_dict_carries_configuration_and_vocabulary() -> None:
    parameters = some_model("gru", 2)
    assert run("export", kept(parameters), "--to=pytorch", "--out=a.safetensors")[0] == 0
    assert set(load_file("a.safetensors")) == set(parameters)
    with safe_open("a.safetensors", "numpy") as file:
        header = file.metadata()
    assert json.loads(header["vocabulary"]) == list(CHARACTERS)
    assert ModelConfig(**{k: v for k, v in json.loads(header["config"]).items() if k != "bytes"})
    once = Path("a.safetensors").read_bytes()
    # Written again over our own lines, it is the same; over another's, it is refused.
    assert run("export", "model.safetensors", "--to=pytorch", "--out=a.safetensors")[0] == 0
    assert Path("a.safetensors").read_bytes() == once
    Path("a.py").write_text("mine = 1\n")
    line = refused("export", "model.safetensors", "--to=pytorch", "--out=a.safetensors")
    assert "a.py exists and is not charloom's" in line
    assert Path("a.py").read_text() == "mine = 1\n"


def test_counts_are_not_exported_and_that_is_said() -> None:
    charloom.train(
        QUOTING_WOODS, out="mixed", steps=3, hidden_size=8, window=16, batch_size=4, seed=1
    )
    assert load_checkpoint(Path("mixed/model.safetensors")).mixture is not None
    status, _, errors = run("export", "mixed", "--to=pytorch", "--out=a.safetensors")
    assert status == 0, errors
    assert "without the n-gram model" in errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--to is '': pass html, pytorch, onnx or huggingface"),
        (["--to=onnx"], "--out is missing"),
        (["--to=tensorflow", "--out=a"], "--to is 'tensorflow'"),
        (["--to=onnx", "--out="], "--out is missing"),
        (["--to=pytorch", "--out=a.pt"], "pass a file name that ends in .safetensors"),
        (["--to=onnx", "--out=a.pb"], "pass a file name that ends in .onnx"),
        (["--to=pytorch", "--out=nowhere/a.safetensors"], "nowhere"),
        (["--to=pytorch", "--out=model.safetensors"], "--out is the model itself"),
    ],
)
def test_bad_export_is_refused(options: list[str], said: str) -> None:
    before = Path(kept(some_model("rnn"))).read_bytes()
    assert said in refused("export", "model.safetensors", *options)
    assert Path("model.safetensors").read_bytes() == before
    assert [path.name for path in Path.cwd().iterdir()] == ["model.safetensors"]


def test_without_huggingface_hub_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for name in ("card", "hub", "hub_client", "hub_folder", "hub_library"):
        monkeypatch.delitem(sys.modules, f"charloom.exchange.{name}", raising=False)
    line = refused("export", kept(some_model("rnn")), "--to=huggingface", "--out=a")
    assert "pip install 'charloom[hub]'" in line
    assert not Path("a").exists()
    with pytest.raises(CharloomError, match=r"charloom\[hub\]"):
        import charloom.exchange.hub_library  # noqa: F401


def state_dict(
    parameters: Parameters, prefix: str = "rnn.", decoder: str = "decoder."
) -> dict[str, Any]:
    return {
        name.replace("rnn.", prefix).replace("decoder.", decoder): values.copy()
        for name, values in parameters.items()
    }


def write(tensors: dict[str, Any], characters: Any = CHARACTERS) -> list[str]:
    """The arguments of an import of these tensors and this vocabulary, whose files are written."""
    save_file(tensors, "theirs.safetensors")
    Path("characters.json").write_text(json.dumps(characters), encoding="utf-8")
    return ["import", "theirs.safetensors", "--vocabulary=characters.json", "--out=run"]


@every_cell
@every_depth
@pytest.mark.parametrize(
    ("prefix", "decoder"), [("rnn.", "decoder."), ("", "fc."), ("model.lstm.", "head.out.")]
)
def test_a_state_dict_becomes_a_model(cell: str, layers: int, prefix: str, decoder: str) -> None:
    dtype = "float64" if layers == 2 else "float32"
    parameters = some_model(cell, layers, dtype)
    arguments = write(state_dict(parameters, prefix, decoder), "".join(CHARACTERS))
    status, printed, _ = run(*arguments)
    assert (status, printed.strip()) == (0, str(Path("run/model.safetensors")))
    found = load_checkpoint(Path("run/model.safetensors"))
    assert found.config == parameters.config
    assert found.vocabulary == Vocabulary(CHARACTERS)
    assert found.parameters.flat.tobytes() == parameters.flat.tobytes()


@pytest.mark.parametrize("as_bytes", [False, True])
def test_export_import_round_trip(as_bytes: bool) -> None:
    options = {"steps": 3, "hidden_size": 8, "window": 16, "batch_size": 4, "no_mix": True}
    Path("text.txt").write_bytes(QUOTING_WOODS.encode())
    charloom.train(Path("text.txt"), out="first", bytes=as_bytes, **options)
    assert run("export", "first", "--to=pytorch", "--out=a.safetensors")[0] == 0
    assert run("import", "a.safetensors", "--out=second")[0] == 0
    for command in (
        ["sample", "--length=60", "--seed=2", "--prompt=The "],
        ["evaluate", "text.txt", "--json", "--protocol=cold-16"],
        ["score", "text.txt", "--csv"],
        ["info"],
    ):
        name, *rest = command
        status, one, errors = run(name, "first", *rest)
        _, other, _ = run(name, "second", *rest)
        assert status == 0, errors
        if name in ("sample", "score"):
            assert one == other
        if name == "evaluate":
            figures = [json.loads(text)["bits_per_character"] for text in (one, other)]
            assert figures[0] == figures[1]
    assert "no record of its training text" in refused("evaluate", "second")
    more = run("train", "text.txt", "--from=second", "--out=third", "--steps=2", "--window=16",
               *(["--bytes"] if as_bytes else []))  # fmt: skip
    assert more[0] == 0, more[2]


def without(name: str) -> Any:
    return lambda tensors: tensors.pop(name)


def shaped(name: str, *shape: int) -> Any:
    return lambda tensors: tensors.update({name: np.zeros(shape, "float32")})


def rename(tensors: dict[str, Any]) -> None:
    tensors["other.weight_hh_l0"] = tensors.pop("rnn.weight_hh_l0")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("rnn.weight_ih_l1"), "lacks tensors: rnn.weight_ih_l1"),
        (without("rnn.bias_hh_l0"), "lacks tensors: rnn.bias_hh_l0"),
        (without("rnn.weight_hh_l0"), "rnn.weight_hh_l0 is missing"),
        (without("decoder.weight"), "lacks tensors: decoder.weight"),
        (without("decoder.bias"), "lacks tensors: decoder.bias"),
        (shaped("embedding.table", 3, 4, 5), "unexpected tensors: embedding.table"),
        (shaped("encoder.weight", 8, 13), "encoder.weight"),
        (shaped("rnn.weight_ih_l0_reverse", 39, 8), "rnn.weight_ih_l0_reverse"),
        (shaped("rnn.weight_hr_l0", 13, 13), "rnn.weight_hr_l0"),
        (shaped("rnn.weight_hh_l9999", 39, 13), "layers is 10000"),
        (shaped("rnn.weight_hh_l4", 39, 13), "lacks tensors: rnn.bias_hh_l2"),
        (shaped("rnn.weight_hh_l0", 40, 13), "rnn.weight_hh_l0 has shape (40, 13)"),
        (shaped("rnn.weight_hh_l0", 26, 13), "rnn.weight_hh_l0 has shape (26, 13)"),
        (shaped("rnn.weight_hh_l0", 39), "rnn.weight_hh_l0 has shape (39,)"),
        (shaped("rnn.weight_hh_l0", 0, 0), "rnn.weight_hh_l0 has shape (0, 0)"),
        (shaped("rnn.weight_ih_l0", 39, 9), "rnn.weight_ih_l0 has shape (39, 9), not (39, 8)"),
        (shaped("rnn.bias_ih_l1", 38), "rnn.bias_ih_l1 has shape (38,), not (39,)"),
        (shaped("decoder.weight", 9, 13), "decoder.weight has shape (9, 13), not (8, 13)"),
        (shaped("decoder.bias", 9), "decoder.bias has shape (9,), not (8,)"),
        (rename, "2 recurrent networks"),
        (lambda tensors: [tensors.pop(n) for n in list(tensors) if "rnn" in n], "no recurrent"),
        (lambda tensors: tensors.update({"decoder.bias": np.zeros(8, "int32")}), "F32, I32"),
        (lambda tensors: tensors["decoder.bias"].fill(np.nan), "NaN"),
    ],
)
def test_bad_state_dict_is_refused(change: Any, said: str) -> None:
    tensors = state_dict(some_model("gru", 2))
    change(tensors)
    assert said in refusal(*write(tensors))
    assert not Path("run/model.safetensors").exists()


@pytest.mark.parametrize(
    ("characters", "said"),
    [
        ("abc", "rnn.weight_ih_l0 has shape (39, 8), not (39, 3), with 3 characters"),
        ([], "at least one character"),
        (["a", "bc"], "must be one character"),
        ("aabcdefg", "a character twice"),
        (["a", 1], "is not a vocabulary"),
        ({"a": 0}, "is not a vocabulary"),
        (None, "is not a vocabulary"),
        ("\ud800bcdefgh", "half of a surrogate pair"),
        ("\udc03cdefghi", "half of a surrogate pair"),
        ([*"abcdef", "", ""], "a character twice"),
    ],
)
def test_bad_vocabulary_is_refused(characters: Any, said: str) -> None:
    assert said in refused(*write(state_dict(some_model("gru")), characters))


def test_bad_import_files_are_refused() -> None:
    arguments = write(state_dict(some_model("gru")))
    assert "--vocabulary FILE.json" in refused("import", "theirs.safetensors", "--out=run")
    for text in ("{", "[" * 100_000, '"\\'):
        Path("characters.json").write_text(text)
        assert "characters.json is not valid JSON" in refused(*arguments)
    Path("characters.json").write_bytes(b"\xff\xfe")
    assert "characters.json is not valid JSON" in refused(*arguments)
    Path("characters.json").unlink()
    assert "not found" in refused(*arguments)
    assert "not found" in refused("import", "nothing.safetensors", *arguments[2:])
    Path("folder").mkdir()
    assert "cannot read" in refused("import", "folder", *arguments[2:])
    arguments = write(state_dict(some_model("gru")))
    data = Path("theirs.safetensors").read_bytes()
    for damaged in (b"", data[:50], data[:-1], data + b"0"):
        Path("theirs.safetensors").write_bytes(damaged)
        assert "damaged" in refused(*arguments)
    Path("theirs.safetensors").write_bytes(data)
    Path("run").mkdir()
    Path("run/mine.txt").write_text("mine")
    assert "run is not empty" in refused(*arguments)
    assert "cannot write to" in refused(*arguments[:-1], "--out=run/mine.txt")
    assert [path.name for path in Path("run").iterdir()] == ["mine.txt"]


class Payload:
    """A pickle of it makes a folder when it is opened."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("name", ["theirs.pt", "theirs.pth", "theirs.safetensors"])
def test_a_pickle_is_refused_and_does_not_run(name: str, archived: bool) -> None:
    arguments = write(state_dict(some_model("gru")))
    victim = Path("victim").absolute()
    payload = pickle.dumps(Payload(victim), 2)
    pickle.loads(payload)
    victim.rmdir()  # it would have run
    if archived:
        with zipfile.ZipFile(name, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
    else:
        Path(name).write_bytes(payload)
    line = refused("import", name, *arguments[2:])
    assert "pickle" in line
    assert "run code" in line
    assert not victim.exists()
    with pytest.raises(CharloomError, match="pickle"):
        import_pytorch(name, out="run")
    assert not Path("run").exists()

"""A folder in the layout of Hugging Face's hub: what is saved comes back, and nothing is lost."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard, ModelHubMixin

import charloom
from charloom.errors import CharloomError
from charloom.exchange.hub import HubModel
from charloom.storage.checkpoint import load_checkpoint, save_checkpoint
from helpers.cli import files_of, refused, run
from helpers.hub import FEW, FILES, NO_MODEL, configured, saved, some_checkpoint
from helpers.texts import QUOTING_WOODS

# huggingface_hub's own, where it uploads without hf_xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize(
    "more", [{}, {"dtype": "float64", "layers": 2}, {"as_bytes": True}, {"dropout": 0.5}]
)
def test_folder_round_trip(cell: str, more: dict[str, Any]) -> None:
    before = HubModel(some_checkpoint(cell, **more), engine="reference")
    assert isinstance(before, ModelHubMixin)
    assert before.save_pretrained("book") is None
    after = HubModel.from_pretrained("book", engine="reference")
    assert after.config == before.config
    assert after.vocabulary == before.vocabulary
    assert after.checkpoint.parameters.flat.tobytes() == before.checkpoint.parameters.flat.tobytes()
    plain = charloom.load("book", engine="reference")
    text = before.sample(length=40, seed=3)
    assert [model.sample(length=40, seed=3) for model in (after, plain)] == [text, text]
    assert sorted(files_of(Path("book"))) == FILES
    config = json.loads(Path("book/config.json").read_text())
    assert config["model_type"] == "charloom"
    assert config["cell"] == cell
    assert config["dtype"] == more.get("dtype", "float32")
    assert config["bytes"] is more.get("as_bytes", False)
    assert config["vocabulary"] == list(before.vocabulary.characters)
    assert run("info", "book", "--json")[0] == 0


def test_model_file_is_byte_identical_to_the_run(evaluated_run: Path) -> None:
    model = HubModel.from_pretrained(evaluated_run)
    assert model.mixture is not None
    model.save_pretrained(Path("copy-1"))
    HubModel.from_pretrained("copy-1").save_pretrained("copy-2")
    there = (evaluated_run / "model.safetensors").read_bytes()
    once, twice = files_of(Path("copy-1")), files_of(Path("copy-2"))
    assert once["model.safetensors"] == twice["model.safetensors"] == there
    assert once["evaluations.json"] == twice["evaluations.json"]
    assert (
        once["README.md"].replace(b"copy-1", b"copy-2").rpartition(b"SHA-256")[0]
        == (twice["README.md"].rpartition(b"SHA-256")[0])
    )
    status, printed, errors = run("export", str(evaluated_run), "--to=huggingface", "--out=thrice")
    assert (status, printed) == (0, "")
    assert "hf upload OWNER/thrice thrice" in errors
    assert files_of(Path("thrice"))["model.safetensors"] == there
    scored = [charloom.load(folder).score("The dark").bits for folder in (evaluated_run, "thrice")]
    np.testing.assert_array_equal(*scored)
    assert HubModel.from_pretrained("copy-1", network_only=True).mixture is None


def test_a_model_in_memory_can_be_saved() -> None:
    trained = charloom.train(QUOTING_WOODS, **FEW)
    HubModel(trained.checkpoint).save_pretrained("book")
    assert charloom.load("book").sample(length=30) == trained.sample(length=30)


def test_resume_data_is_not_exported(evaluated_run: Path) -> None:
    resume = evaluated_run / "resume.safetensors"
    assert run("export", str(resume), "--to=huggingface", "--out=book")[0] == 0
    found = load_checkpoint(Path("book/model.safetensors"))
    assert found.position is None
    assert not found.optimizer
    assert found.parameters.flat.tobytes() == load_checkpoint(resume).parameters.flat.tobytes()
    assert json.loads(Path("book/evaluations.json").read_text()) == []  # of other weights


def test_own_folder_is_overwritten() -> None:
    saved(license="mit")
    Path("book/.gitattributes").write_text("*.safetensors filter=lfs\n")
    HubModel(some_checkpoint("lstm")).save_pretrained("book")
    assert HubModel.from_pretrained("book").config.cell == "lstm"
    assert ModelCard.load("book/README.md").data.license is None
    assert Path("book/.gitattributes").read_text() == "*.safetensors filter=lfs\n"


def test_half_written_folder_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("charloom.exchange.hub_folder.save_checkpoint", full)
        with pytest.raises(CharloomError, match=r"cannot write to 'book' \(No space left"):
            HubModel(some_checkpoint()).save_pretrained("book")
    assert sorted(files_of(Path("book"))) == ["config.json"]
    saved()
    before = files_of(Path("book"))
    with monkeypatch.context() as patched:
        patched.setattr("charloom.exchange.hub_folder.save_checkpoint", full)
        with pytest.raises(CharloomError, match="cannot write"):
            HubModel(some_checkpoint("lstm")).save_pretrained("book")
    after = files_of(Path("book"))
    assert sorted(after) == FILES
    assert {k: v for k, v in after.items() if k != "config.json"} == {
        k: v for k, v in before.items() if k != "config.json"
    }
    saved()
    assert files_of(Path("book")) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"theirs"),
        ("evaluations.json", b"[]"),
        ("config.json", b'{"model_type": "gpt2"}'),
        ("config.json", b"{"),
        ("config.json", b"[" * 100_000),
        ("config.json", b'["model_type"]'),
    ],
)
def test_foreign_files_are_not_overwritten(name: str, content: bytes) -> None:
    save_checkpoint(Path("model.safetensors"), some_checkpoint())
    Path("book").mkdir()
    Path("book", name).write_bytes(content)
    line = refused("export", "model.safetensors", "--to=huggingface", "--out=book")
    assert f"{Path('book', name)} exists" in line
    assert "pass a new folder" in line
    with pytest.raises(CharloomError, match="exists"):
        HubModel.from_pretrained("model.safetensors").save_pretrained("book")
    assert files_of(Path("book")) == {name: content}


def test_a_run_is_not_overwritten(evaluated_run: Path) -> None:
    shutil.copytree(evaluated_run, "other")
    before = files_of(Path("other"))
    for out in ("other", "other/."):
        line = refused("export", str(evaluated_run), "--to=huggingface", f"--out={out}")
        assert "model.safetensors exists and would be overwritten" in line
    assert files_of(Path("other")) == before


@pytest.mark.parametrize("out", ["model.safetensors", "model.safetensors/book", "a" * 300, "a\0b"])
def test_a_folder_that_cannot_be_written(out: str) -> None:
    save_checkpoint(Path("model.safetensors"), some_checkpoint())
    line = refused("export", "model.safetensors", "--to=huggingface", f"--out={out}")
    assert "cannot write to" in line
    assert [path.name for path in Path.cwd().iterdir()] == ["model.safetensors"]


def test_a_configuration_cannot_be_given() -> None:
    with pytest.raises(CharloomError, match="omit config"):
        HubModel(some_checkpoint()).save_pretrained("book", config={"cell": "lstm"})  # type: ignore[arg-type]
    assert not Path("book").exists()


@pytest.mark.parametrize(("change", "said"), NO_MODEL)
def test_folder_without_a_model_is_refused(change: Any, said: str) -> None:
    change(saved())
    with pytest.raises(CharloomError, match=re.escape(said)) as caught:
        HubModel.from_pretrained("book")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400
    assert not Path("victim").exists()


def test_a_folder_needs_only_the_model() -> None:
    folder = saved()
    for name in FILES[:-1]:
        (folder / name).unlink()
    assert HubModel.from_pretrained(folder).config.hidden_size == 7
    configured_more = saved("other")
    configured(more_of_mine=1)(configured_more)
    HubModel.from_pretrained(configured_more)

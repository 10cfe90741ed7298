"""Runs on documents: what fine-tuning says of other documents, and what the command shows."""

from pathlib import Path

import pytest

from charloom.cli.main import main
from charloom.runs.opening import open_run
from charloom.runs.run import TrainingRun
from charloom.storage.checkpoint import load_checkpoint
from charloom.text.format import open_texts
from helpers.documents import NAMES

OPTIONS = {"batch_size": 4, "window": 12, "steps": 3, "threads": 1, "no_mix": True}


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("".join(f"{name}\n" for name in NAMES), encoding="utf-8")
    return path


def train(path: Path, name: str, **options: object) -> TrainingRun:
    given = {**OPTIONS, **({} if "from_run" in options else {"hidden_size": 8}), **options}
    run = open_run(lambda reading: open_texts([path], reading), path.parent / name, given)
    list(run)
    return run


def test_model_of_a_book_gets_a_symbol_for_the_end(names: Path) -> None:
    book = train(names, "book")
    assert book.dataset.vocabulary.end_id is None
    run = train(names, "names", from_run=str(book.folder), lines=True)
    assert any("trained on one book" in note for note in run.notes)
    known = book.dataset.vocabulary.characters
    assert run.dataset.vocabulary.characters[: len(known)] == known
    assert run.engine.config.end_id == len(known)
    found = load_checkpoint(run.folder / "model.safetensors")
    assert (found.config.end_id, found.text["documents"]) == (len(known), len(NAMES))


def test_model_of_lines_is_fine_tuned_on_lines(names: Path) -> None:
    base = train(names, "base", lines=True)
    assert [note for note in base.notes if "is short" not in note] == []
    again = train(names, "again", from_run=str(base.folder), lines=True)
    assert not any("--from" in note for note in again.notes)
    run = train(names, "more", from_run=str(base.folder))
    assert "documents are read as for the model of --from: each line is one" in run.notes
    assert (run.dataset.ids == base.dataset.ids).all()
    assert run.config.lines


def test_book_is_one_document_for_a_model_of_files(tmp_path: Path, names: Path) -> None:
    (tmp_path / "files").mkdir()
    for name in NAMES[:30]:
        (tmp_path / "files" / f"{name}.txt").write_text(name)
    base = train(tmp_path / "files", "base")
    run = train(names, "book", from_run=str(base.folder))
    assert run.dataset.documents == 1
    assert run.engine.config.end_id == base.engine.config.end_id
    assert run.dataset.ids[-1] == run.engine.config.end_id
    assert "\n" in run.dataset.vocabulary.characters


def test_documents_of_a_sample_are_told_apart_on_a_terminal(
    names: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--lines", "--steps=30", "--hidden-size=8", "--batch-size=4", "--window=12"]
    assert main(["train", str(names), "--out", str(names.parent / "run"), *words]) == 0
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("    ")]
    assert shown
    assert any(line.count(" · ") > 3 for line in shown)


def test_classic_preset_is_refused_in_one_line(
    names: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = names.parent / "run"
    words = ["--lines", "--preset", "classic", "--steps", "3"]
    assert main(["train", str(names), "--out", str(folder), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("charloom: the preset classic reads a text as one book")
    assert not folder.exists()

"""Collections on the command line: folders, lines, separators, columns, parts of one's own."""

import gzip
import io
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import charloom
from charloom.cli.main import main
from charloom.runs.opening import open_run
from charloom.storage.checkpoint import load_checkpoint
from charloom.text.format import open_texts
from helpers.cli import Captured, refusal, refused
from helpers.runs import TINY
from helpers.texts import WOODS

STEP = ("--steps=1", *TINY)


@pytest.fixture
def names() -> list[str]:
    choose = random.Random(1)
    return ["".join(choose.choices("abcdeilnorstu", k=choose.randint(3, 9))) for _ in range(300)]


def write_inputs(names: list[str]) -> None:
    Path("names.txt").write_text("\n".join(names) + "\n")
    Path("dos.txt").write_bytes(("\r\n".join(names) + "\r\n").encode())
    Path("names.txt.gz").write_bytes(gzip.compress(("\n".join(names) + "\n").encode()))
    Path("recipes.txt").write_text("\n\n".join(f"{n}\nof {n}" for n in names) + "\n")
    Path("fortunes").write_text("%\n".join(f"{n}\n" for n in names))
    Path("t.csv").write_text("id,name\n" + "".join(f'{i},"{n}"\n' for i, n in enumerate(names)))
    Path("t.tsv").write_text("id\tname\n" + "".join(f"{i}\t{n}\n" for i, n in enumerate(names)))
    Path("t.jsonl").write_text("".join(json.dumps({"id": 1, "name": n}) + "\n" for n in names))
    Path("bad.csv").write_text("id,name\n1,a\n2\n")
    Path("bad.jsonl").write_text('{"name": "a"}\n{"name": "b"\n')
    Path("pictures").mkdir()
    Path("pictures/a.png").write_bytes(b"\x89PNG")
    Path("empty").mkdir()
    Path("poems/more").mkdir(parents=True)
    for index, name in enumerate(names[:9]):
        Path("poems", "more" if index % 2 else "", f"{name}.txt").write_text(WOODS[:99] + name)


def documents_of(run: str) -> int:
    return int(load_checkpoint(Path(run, "model.safetensors")).text["documents"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("names.txt", "--lines"),
        ("dos.txt", "--lines"),
        ("names.txt.gz", "--lines"),
        ("names.txt", "--lines", "--bytes"),
        ("dos.txt", "--lines", "--normalize-newlines"),
        ("recipes.txt", "--separator", r"\n\n"),
        ("fortunes", "--separator", r"%\n"),
        ("t.csv", "--column", "name"),
        ("t.tsv", "--column", "name"),
        ("t.jsonl", "--column", "name"),
        ("t.jsonl", "--column", "name", "--bytes"),
    ],
    ids=" ".join,
)
def test_collections_are_trained_on_and_evaluated(
    capsys: Captured, names: list[str], arguments: tuple[str, ...]
) -> None:
    write_inputs(names)
    assert main(["train", *arguments, "--out", "run", *STEP]) == 0
    said = capsys.readouterr().err
    assert "300 documents" in said
    assert "documents are split by a hash of their content" in said
    checkpoint = load_checkpoint(Path("run/model.safetensors"))
    assert checkpoint.text["documents"] == 300
    assert 0 < checkpoint.text["unseen"] < 0.1
    assert checkpoint.config.end_id == len(checkpoint.vocabulary) - 1
    assert not {"\r", "%", '"'} & set(checkpoint.vocabulary.characters)
    assert main(["evaluate", "run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["text"] == "test split"
    # A text to evaluate is read in the same way, without an option.
    assert main(["evaluate", "run", arguments[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 300
    assert main(["info", "run"]) == 0
    assert "text documents               300" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("empty",), "has no files"),
        (("pictures",), "no text files, but 1 of .png"),
        (("poems", "--column", "name"), "has no tables, but 9 of .txt"),
        (("t.csv", "--column", "title"), "no column 'title': pass one of 'id', 'name'"),
        (("t.jsonl", "--column", "title"), "no column 'title': pass one of 'id', 'name'"),
        (("names.txt", "--column", "name"), "'names.txt' is not a table"),
        (("bad.csv", "--column", "name"), "line 3 of 'bad.csv' begins a row of 1 field"),
        (("bad.jsonl", "--column", "name"), "line 2 of 'bad.jsonl' is not valid JSON"),
        (("names.txt", "--separator", "@@"), "--separator '@@' does not occur"),
        (("names.txt", "--lines", "--separator", "x"), "cannot be combined"),
        (("names.txt", "--lines", "--validation", "nowhere"), "--validation: there is no file"),
        (("names.txt", "--min-count", "99999"), "--min-count 99999 leaves no character"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_unsuitable_collections_are_refused(
    names: list[str], arguments: tuple[str, ...], said: str
) -> None:
    write_inputs(names)
    assert said in refused("train", *arguments, *STEP)


def test_a_folder_is_found_again_and_can_move(capsys: Captured, names: list[str]) -> None:
    write_inputs(names)
    assert main(["train", "poems", "--out", "run", *STEP]) == 0
    assert documents_of("run") == 9
    assert main(["evaluate", "run", "--json"]) == 0
    before = json.loads(capsys.readouterr().out)["nats_per_character"]
    Path("poems").rename("moved")
    assert "was not found at" in refusal("evaluate", "run")
    files = sorted(map(str, Path("moved").rglob("*.txt")), key=lambda p: Path(p).parts)
    for places in (["moved"], files):
        assert main(["evaluate", "run", "--json", "--training-text", *places]) == 0
        assert json.loads(capsys.readouterr().out)["nats_per_character"] == before


def test_origins_of_several_files_are_shown(capsys: Captured, names: list[str]) -> None:
    write_inputs(names)
    assert main(["train", "fortunes", "recipes.txt", "--out", "run", *STEP]) == 0
    assert documents_of("run") == 2
    assert main(["info", "run"]) == 0
    shown = capsys.readouterr().out
    assert f"{Path('fortunes').absolute()}, {Path('recipes.txt').absolute()}" in shown
    assert "\0" not in shown
    assert "\udc03" not in shown
    Path("recipes.txt").rename("moved.txt")
    places = ["--training-text", "fortunes", "moved.txt"]
    assert main(["evaluate", "run", *places]) == 0
    assert "is not the one" in refusal("evaluate", "run", "--training-text", "fortunes")


def test_standard_input_is_a_collection(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    write_inputs(names)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("t.csv").read_bytes())))
    assert main(["train", "-", "--column", "name", "--out", "run", *STEP]) == 0
    assert "300 documents" in capsys.readouterr().err


def test_a_list_and_a_table_get_a_suggestion(capsys: Captured, names: list[str]) -> None:
    Path("names.txt").write_text("\n".join(sorted(names)) + "\n")
    Path("t.csv").write_text("id,name\n" + "".join(f"{i},{n}\n" for i, n in enumerate(names)))
    assert main(["train", "names.txt", "--out", "book", *STEP]) == 0
    said = capsys.readouterr().err
    assert "names.txt looks like a list of 300 lines" in said
    assert "names.txt --out runs/names-documents --lines`" in said
    assert "documents" not in load_checkpoint(Path("book/model.safetensors")).text
    assert main(["train", "t.csv", "--out", "table", *STEP]) == 0
    assert "t.csv --out runs/t-documents --column NAME`" in capsys.readouterr().err
    assert main(["train", "names.txt", "--lines", "--out", "lines", *STEP]) == 0
    assert "looks like" not in capsys.readouterr().err


def test_texts_of_ones_own_are_found_again(capsys: Captured, names: list[str]) -> None:
    write_inputs(names)
    Path("held.txt").write_text("anna\nbo\n")
    Path("final.txt").write_text("zoe\n")
    own = ["--validation", "held.txt", "--test", "final.txt"]
    train = ["train", "names.txt", "--lines", *own, "--out", "run"]
    assert main([*train, *STEP]) == 0
    said = capsys.readouterr().err
    assert "300 to train, 2 to validate, 1 to test (validates on held, tests on final)" in said
    assert main(["evaluate", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["characters"] == 4
    assert main([*train, "--resume", "--steps=2"]) == 0
    Path("final.txt").write_text("zoo\n")
    assert "as --test" in refusal("evaluate", "run")
    assert "as --test" in refusal(*train, "--resume", "--steps=3")


def test_a_book_has_a_test_text_of_its_own(capsys: Captured) -> None:
    Path("book.txt").write_text(WOODS * 20)
    Path("test.txt").write_text(WOODS * 2)
    assert main(["train", "book.txt", "--test", "test.txt", "--out", "run", *STEP]) == 0
    assert "(tests on test)" in capsys.readouterr().err
    assert main(["evaluate", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["characters"] == len(WOODS * 2)


def test_options_of_documents_in_a_configuration_file(names: list[str]) -> None:
    write_inputs(names)
    Path("c.toml").write_text('separator = "\\n\\n"\nmin-count = 2\n')
    assert main(["train", "recipes.txt", "--config", "c.toml", "--out", "run", *STEP]) == 0
    training = load_checkpoint(Path("run/model.safetensors")).training
    assert (training["separator"], training["min_count"]) == ("\n\n", 2)
    assert documents_of("run") == 300


def test_fine_tuning_reads_documents_like_the_model(capsys: Captured, names: list[str]) -> None:
    write_inputs(names)
    assert main(["train", "names.txt", "--lines", "--out", "run", *STEP]) == 0
    Path("names.txt").write_text("\n".join([*names, "zoe"]) + "\n")
    line = refusal("train", "names.txt", "--lines", "--out", "run", "--resume", "--steps=2")
    assert "has grown by 1 document since" in line
    assert "`charloom train names.txt --from run --out run-2`" in line
    capsys.readouterr()
    assert main(["train", "names.txt", "--from", "run", "--out", "more", *STEP]) == 0
    said = capsys.readouterr().err
    assert "documents are read as for the model of --from: each line is one" in said
    assert documents_of("more") == 301


def test_unicode_names_are_a_collection(capsys: Captured) -> None:
    assert main(["train", "unicode-names", "--out", "run", "--no-mix", *STEP]) == 0
    assert " documents, " in capsys.readouterr().err
    assert load_checkpoint(Path("run/model.safetensors")).training["lines"] is True
    assert main(["train", "unicode-names", "--out", "run", "--resume", "--steps=2"]) == 0
    assert main(["corpora"]) == 0
    assert "each line a document" in capsys.readouterr().out


@pytest.mark.parametrize("sources", [["names.txt", "recipes.txt"], ["unicode-names"]])
def test_runs_without_ends_of_documents_still_read_one_book(
    names: list[str], sources: list[str]
) -> None:
    """Older versions joined several texts, and had no documents at all."""
    write_inputs(names)
    options = {"steps": 1, "hidden_size": 8, "threads": 1, "window": 16}
    run = open_run(
        lambda reading: open_texts(sources, replace(reading, joined=True)), Path("run"), options
    )
    list(run)
    checkpoint = load_checkpoint(Path("run/model.safetensors"))
    assert checkpoint.config.end_id is None
    assert "documents" not in checkpoint.text
    assert main(["evaluate", "run"]) == 0
    assert main(["evaluate", "run", "--training-text", *sources]) == 0
    assert main(["train", *sources, "--out", "run", "--resume", "--steps=2"]) == 0
    again = load_checkpoint(Path("run/resume.safetensors"))
    assert again.text == checkpoint.text
    assert again.vocabulary == checkpoint.vocabulary


def test_collections_in_python(names: list[str]) -> None:
    write_inputs(names)
    options = {"steps": 1, "hidden_size": 8, "threads": 1, "window": 16}
    texts = ["poem one\nof two lines", "poem two\n", "poem three\n"]
    files = charloom.train([Path("names.txt"), Path("recipes.txt")], **options)
    folder = charloom.train(Path("poems"), **options)
    strings = charloom.train(texts, **options)
    lines = charloom.train("\n".join(names), lines=True, **options)
    found = [model.checkpoint.text["documents"] for model in (files, folder, strings, lines)]
    assert found == [2, 9, 3, 300]
    book = charloom.train("a line\n" * 300, **options)
    assert "documents" not in book.checkpoint.text

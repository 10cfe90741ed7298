"""`charloom sample` with models of collections: whole documents, distinct ones and new ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from charloom.cli.main import main
from helpers.cli import refused, run
from helpers.runs import FEW
from helpers.texts import WOODS

NAMES = [a + b + c for a in "bdk" for b in "aeo" for c in ("", "na", "ri", "lo")]
RECIPES = ["Eggs\nboil\n", "Tea\nwait\npour", "Rice\nboil\nstir\n"] * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of names, one of recipes, and one of a single text."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "names.txt").write_text("\n".join(NAMES * 4) + "\n", encoding="utf-8")
    (folder / "recipes.txt").write_text("%%".join(RECIPES), encoding="utf-8")
    (folder / "woods.txt").write_text(WOODS, encoding="utf-8")
    (folder / "files").mkdir()
    for number, recipe in enumerate(RECIPES):
        (folder / "files" / f"{number}.txt").write_text(recipe, encoding="utf-8")
    few = ["--hidden-size=16", "--batch-size=4", "--window=16", "--steps=60", "--seed=1"]
    for name, text, options in (
        ("names", "names.txt", ["--lines"]),
        ("recipes", "recipes.txt", ["--separator=%%"]),
        ("of-files", "files", []),
    ):
        assert main(["train", str(folder / text), f"--out={folder / name}", *few, *options]) == 0
    assert main(["train", str(folder / "woods.txt"), f"--out={folder / 'woods'}", *FEW]) == 0
    return folder


def sampled(*arguments: str) -> str:
    status, output, _ = run("sample", *arguments)
    assert status == 0
    return output


def objects(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sampled(*arguments, "--json").splitlines()]


def test_a_sample_is_one_document(folder: Path) -> None:
    names = str(folder / "names")
    (alone,) = objects(names, "--seed=3")
    assert list(alone) == ["text", "log_probability", "finish_reason", "seed", "index"]
    assert (alone["finish_reason"], alone["seed"], alone["index"]) == ("stop", 3, 0)
    assert alone["log_probability"] < 0
    assert sampled(names, "--seed=3") == alone["text"] + "\n"
    several = objects(names, "--seed=3", "--count=40")
    assert several[0] == alone
    assert [document["index"] for document in several] == list(range(40))
    lines = sampled(names, "--seed=3", "--count=40").split("\n")
    assert lines == [document["text"] for document in several] + [""]
    cut = objects(names, "--seed=3", "--count=40", "--length=3")
    assert {document["finish_reason"] for document in cut} == {"stop", "length"}
    assert all(len(document["text"]) <= 3 for document in cut)


def test_a_prompt_can_be_left_out(folder: Path) -> None:
    for model in ("names", "woods"):
        command = [str(folder / model), "--seed=1", "--prompt=a", "--length=20"]
        for more in ([], ["--count=3"]):
            with_prompt = sampled(*command, *more)
            without = sampled(*command, *more, "--no-prompt")
            assert with_prompt.startswith("a")
            assert with_prompt[1:] == without if not more else len(with_prompt) == len(without) + 3
        one, other = objects(*command), objects(*command, "--no-prompt")
        assert one == [{**other[0], "text": "a" + other[0]["text"]}]


def test_documents_of_several_lines_can_be_told_apart(folder: Path) -> None:
    for model, separator in (("of-files", "---\n"), ("recipes", "%%")):
        command = [str(folder / model), "--seed=2", "--count=6", "--length=60"]
        texts = [document["text"] for document in objects(*command)]
        assert any("\n" in text for text in texts)
        output = sampled(*command)
        assert output.endswith("\n")
        if separator == "%%":
            assert output.removesuffix("\n").split(separator) == [
                *texts[:-1],
                texts[-1].removesuffix("\n"),
            ]
        else:
            lines = [text if text.endswith("\n") else text + "\n" for text in texts]
            assert output == separator.join(lines)


def test_new_documents_are_not_in_the_training_text(folder: Path) -> None:
    names = str(folder / "names")
    plain = [document["text"] for document in objects(names, "--seed=1", "--count=60")]
    assert set(plain) & set(NAMES)
    found = objects(names, "--seed=1", "--count=20", "--new", "--unique")
    texts = [document["text"] for document in found]
    assert len(set(texts)) == 20
    assert not {"", *NAMES} & set(texts)
    everything = objects(names, "--seed=1", f"--count={found[-1]['index'] + 1}")
    assert found == [everything[document["index"]] for document in found]
    repeated = [document["text"] for document in objects(names, "--seed=1", "--new", "--count=60")]
    assert list(dict.fromkeys(repeated))[:5] == texts[:5]


def test_too_few_documents_are_reported(folder: Path) -> None:
    names = str(folder / "names")
    command = ["sample", names, "--seed=1", "--count=50", "--unique", "--temperature=0"]
    status, output, errors = run(*command)
    assert (status, len(output.splitlines())) == (0, 1)
    assert "only 1 of 50 distinct documents found in 1,000 samples: raise --temperature" in errors
    options = ["--prompt=ba", "--length=0", "--new", "--count=3"]
    assert "ba" in NAMES
    line = refused("sample", names, "--seed=1", *options)
    assert "none of 1,000 samples is a new document" in line


def test_many_samples_of_a_book_need_an_end(folder: Path) -> None:
    book = str(folder / "woods")
    for option in ("--json", "--unique"):
        assert "length is unlimited" in refused("sample", book, "--length=inf", option)
    command = [book, "--length=inf", "--stop=e", "--seed=1", "--count=5"]
    texts = [document["text"] for document in objects(*command)]
    assert "".join(text + "\n" for text in texts) == sampled(*command)
    assert not any("e" in text for text in texts)


def test_new_needs_a_collection_and_its_text(folder: Path, tmp_path: Path) -> None:
    line = refused("sample", str(folder / "woods"), "--new")
    assert "--new requires a model of a collection" in line
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_text("other\nnames\n", encoding="utf-8")
    line = refused("sample", str(folder / "names"), "--new", f"--training-text={elsewhere}")
    assert "is not the one that the run was trained on" in line


def test_overlap_names_the_document(folder: Path) -> None:
    names = str(folder / "names")
    status, _, errors = run("sample", names, "--seed=1", "--count=5", "--report-overlap")
    assert status == 0
    lines = [line for line in errors.splitlines() if "longest verbatim overlap" in line]
    assert lines
    for line in lines:
        document = line.split("(in the document '")[1].removesuffix("')")
        assert document in NAMES
    guarded = objects(names, "--seed=1", "--count=30", "--max-overlap=2")
    stretches = {name[i : i + 3] for name in NAMES for i in range(len(name) - 2)}
    for document in guarded:
        text = document["text"]
        assert not stretches & {text[i : i + 3] for i in range(len(text) - 2)}

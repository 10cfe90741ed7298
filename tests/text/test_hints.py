"""Texts that are lists or tables are recognized, and books are not."""

import random
from pathlib import Path

import pytest

from charloom.text.corpora import open_text
from charloom.text.format import TextFormat, open_texts
from charloom.text.hints import is_list, suggestion
from charloom.text.source import text_from_string
from helpers.texts import WOODS


def names(count: int) -> list[str]:
    choose = random.Random(1)
    return ["".join(choose.choices("abcdeilnorstu", k=choose.randint(3, 9))) for _ in range(count)]


@pytest.mark.parametrize(
    "lines",
    [
        sorted(names(300)),
        sorted(names(300), reverse=True),
        names(2000),
        [
            f"2024-01-{i % 30 + 1:02} 10:{i % 60:02} INFO {name}"
            for i, name in enumerate(names(2000))
        ],
        [f'{{"id": {i}, "text": "{name * 9}"}}' for i, name in enumerate(names(2000))],
    ],
    ids=["sorted", "descending", "mixed", "log", "records"],
)
def test_lists_are_recognized(lines: list[str]) -> None:
    assert is_list(lines, len(lines))


def code(count: int) -> list[str]:
    return [line for name in names(count) for line in (f"def {name}():", f"    return {name!r}")]


@pytest.mark.parametrize(
    "lines",
    [
        (WOODS * 20).split("\n"),
        names(100),
        [line for name in names(2000) for line in (name, "")],
        code(2000),
        [" ".join(names(12)[i % 5 :]) for i in range(3000)],
    ],
    ids=["verse", "few", "paragraphs", "code", "prose"],
)
def test_books_are_not_taken_for_lists(lines: list[str]) -> None:
    assert not is_list(lines, len(lines))


@pytest.mark.parametrize("name", ["python-docs", "python-stdlib"])
def test_corpora_are_not_taken_for_lists(name: str) -> None:
    lines = next(open_text(name).chunks()).split("\n")
    assert not is_list(lines, len(lines))


def test_books_on_this_machine_are_not_taken_for_lists(austen: Path, shakespeare: Path) -> None:
    for path in (austen, shakespeare):
        lines = path.read_text(encoding="utf-8").split("\n")
        assert suggestion(open_text(path), len(lines)) is None


def test_the_suggestion_names_the_option(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(sorted(names(500))) + "\n")
    said = suggestion(open_text(path), 500)
    assert said == (
        "names.txt looks like a list of 500 lines: to learn each line as a document, use "
        f"`charloom train {path} --out runs/names-documents --lines`"
    )
    assert suggestion(open_texts([path], TextFormat(lines=True)), 500) is None
    table = tmp_path / "t.csv"
    table.write_text('id,"a title"\n1,x\n')
    said = suggestion(open_text(table), 2) or ""
    assert said.startswith("t.csv is a table: to learn the fields of a column (id, a title)")
    assert said.endswith("--out runs/t-documents --column NAME`")
    assert suggestion(text_from_string("a\n"), 1) is None

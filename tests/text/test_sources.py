"""Texts as a caller in Python passes them: a text, the name of one, or a refusal with a remedy."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from charloom.errors import CharloomError
from charloom.text.corpora import open_text
from charloom.text.format import TextFormat
from charloom.text.source import Text, text_from_string
from charloom.text.sources import (
    source_option,
    strings_to_score,
    texts_to_score,
    texts_to_train_on,
)

PLAIN = TextFormat()
LONG_LINE = "It was the best of times, it was the worst of times, " * 8


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a text, a folder of texts, and standard input that must not be read."""
    (tmp_path / "names.txt").write_text("anna\nolivia\n")
    (tmp_path / "poems").mkdir()
    (tmp_path / "poems" / "one.txt").write_text("O rose\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", None)
    return tmp_path


def opened(texts: Any, format: TextFormat = PLAIN) -> Text:
    return texts_to_train_on(texts)(format)


@pytest.mark.parametrize(
    "texts",
    [
        ["emma", "olivia", "ava"],
        ("emma", "olivia", "ava"),
        np.array(["emma", "olivia", "ava"]),
        np.array(["emma", "olivia", "ava"], object),
        (name for name in ("emma", "olivia", "ava")),
        dict.fromkeys(["emma", "olivia", "ava"]).keys().__iter__(),
        ["emma", "", text_from_string("olivia"), "ava"],
        Text.from_documents(["emma", "olivia", "ava"]),
    ],
)
def test_strings_in_a_list_are_documents(texts: Any) -> None:
    text = opened(texts)
    assert list(text.documents()) == ["emma", "olivia", "ava"]
    assert text.origin == ""


def test_options_that_cut_texts_cut_those_of_a_list() -> None:
    lines = TextFormat(lines=True)
    assert list(opened(["a\nb\n", "c"], lines).documents()) == ["a", "b", "c"]
    assert list(opened(["a\r\nb", "c"], PLAIN).documents()) == [
        "a\nb",
        "c",
    ]
    assert not opened(["one text\n"]).ends
    assert opened(["é"], TextFormat(as_bytes=True)).read() == "Ã©"


def test_a_path_is_a_file_or_a_folder() -> None:
    assert opened(Path("names.txt")).read() == "anna\nolivia\n"
    assert list(opened([Path("names.txt"), Path("poems")]).documents()) == [
        "anna\nolivia\n",
        "O rose\n",
    ]
    assert list(opened([Path("names.txt"), "a poem"]).documents()) == ["anna\nolivia\n", "a poem"]
    with pytest.raises(CharloomError, match="there is no file '-'"):
        opened(Path("-"))


def test_a_single_string_to_train_on_is_a_name_unless_only_a_text_can_be_meant() -> None:
    assert opened("names.txt").name == "names"
    assert opened("unicode-names").name == "unicode-names"
    assert opened("names.txt\n").read() == "names.txt\n"
    assert opened(LONG_LINE).read() == LONG_LINE
    deep = Path("x" * 200, "y" * 200)
    deep.mkdir(parents=True)
    (deep / "t.txt").write_text("deep")
    assert opened(str(deep / "t.txt")).read() == "deep"
    with pytest.raises(CharloomError, match=r"no file 'It was the .*Text\.from_string"):
        opened(LONG_LINE[:150])
    assert opened(Text.from_string(LONG_LINE[:150])).read() == LONG_LINE[:150]


@pytest.mark.parametrize(
    ("texts", "remedy"),
    [
        (["a\nb..", "names.txt"], r"the file: pass pathlib\.Path\('names\.txt'\)"),
        (["names.txt", "poems"], r"Text\.from_documents if all of the list are texts"),
        (["emma", "poems"], r"the folder: pass pathlib\.Path\('poems'\)"),
        (["emma", "poems/one.txt"], r"the file: pass pathlib\.Path\('poems/one\.txt'\)"),
        (["emma", "./poems"], "the folder"),
        (["two\nlines", "-"], r"standard input: pass charloom\.open_text\('-'\)"),
        (["python-docs", "emma"], r"the corpus: pass charloom\.open_text\('python-docs'\)"),
    ],
)
def test_a_string_of_a_list_that_could_be_a_name_is_refused(texts: list[str], remedy: str) -> None:
    with pytest.raises(CharloomError, match=remedy):
        texts_to_train_on(texts)
    with pytest.raises(CharloomError, match=remedy):
        texts_to_score(texts, checks_names=True)
    assert texts_to_score(texts, checks_names=False) == texts
    assert list(opened(Text.from_documents(texts)).documents()) == texts


@pytest.mark.parametrize("name", ["names.txt", "poems", "-", "python-docs"])
def test_a_single_string_to_evaluate_that_could_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(CharloomError, match=rf"'{name}' is a text, but could be .*Text\.from_str"):
        texts_to_score(name, checks_names=True)
    assert texts_to_score(name, checks_names=False) == name
    assert texts_to_score("emma", checks_names=True) == "emma"


class Frame:
    """A table, as pandas has them: its elements are the names of its columns."""

    columns = ("text",)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


OTHERS: list[tuple[Callable[[], Any], str]] = [
    (lambda: None, "the text is None: pass a str"),
    (lambda: 42, "the text is 42, of type int"),
    (list, "is empty: pass at least one text"),
    (lambda: iter(()), "is empty: pass at least one text"),
    (lambda: ["emma", None], "text 2 of the list is None"),
    (lambda: ["emma", float("nan")], "text 2 of the list is nan, of type float"),
    (lambda: [["emma"], ["ava"]], "text 1 of the list is .'emma'., of type list"),
    (lambda: np.array([["a", "b"]]), "text 1 of the list is array.*, of type ndarray"),
    (lambda: np.array("emma"), r"the text is array.*, of type ndarray"),
    (lambda: {"a": "emma"}, r"in a dict: pass a list, such as list\(texts.values\(\)\)"),
    (lambda: {"emma", "ava"}, r"in a set, without an order: pass sorted\(texts\)"),
    (Frame, "in a table: pass one of its columns"),
    (lambda: io.StringIO("emma\n"), "an open file: pass its Path"),
    (lambda: ["em\ud800ma"], "half of a surrogate pair"),
    (lambda: SimpleNamespace(), "of type SimpleNamespace"),
]


@pytest.mark.parametrize(("make", "problem"), OTHERS)
def test_what_is_no_text_is_refused_with_a_remedy(make: Callable[[], Any], problem: str) -> None:
    for check in (texts_to_train_on, lambda value: texts_to_score(value, checks_names=True)):
        with pytest.raises(CharloomError, match=problem):
            check(make())


def test_bytes_are_a_text_for_a_model_of_bytes() -> None:
    assert opened(b"caf\xe9", TextFormat(as_bytes=True)).read() == "café"
    with pytest.raises(CharloomError, match="of type bytes: decode it, or pass bytes=True"):
        opened(b"caf\xe9")


def test_an_opened_text_is_read_in_the_format() -> None:
    as_bytes = TextFormat(as_bytes=True)
    text = Text.from_documents(["é", "a"])
    assert list(opened(text, as_bytes).documents()) == ["Ã©", "a"]
    assert opened([text, "é"], as_bytes).as_bytes
    with pytest.raises(CharloomError, match="open it without as_bytes"):
        opened(open_text("names.txt", as_bytes=True))
    for wrong in (None, ["names.txt"], b"names.txt"):
        with pytest.raises(CharloomError, match=r"the source is .*: pass a str or"):
            open_text(wrong)  # type: ignore[arg-type]


def test_strings_that_are_scored_one_by_one() -> None:
    assert strings_to_score(iter(["names.txt", "-"]), "line") == ["names.txt", "-"]
    for wrong in ("emma", b"emma", Path("names.txt"), None, {"emma"}, ["emma", 3], [Path("a")]):
        with pytest.raises(CharloomError, match=": pass "):
            strings_to_score(wrong, "line")  # type: ignore[arg-type]


def test_an_option_names_a_text_that_is_found_again(folder: Path) -> None:
    assert source_option("test", Path("names.txt")) == str(folder / "names.txt")
    assert source_option("test", "names.txt") == str(folder / "names.txt")
    assert source_option("test", Path("python-docs")) == str(folder / "python-docs")
    assert source_option("test", "python-docs") == "python-docs"
    for wrong in ("a\nb", ["names.txt"], b"names.txt", 3, text_from_string("a")):
        with pytest.raises(CharloomError, match=r"test is .*: pass the path of a file"):
            source_option("test", wrong)


def test_explicit_texts_are_checked() -> None:
    for wrong in (None, b"a", 3):
        with pytest.raises(CharloomError, match="not a str"):
            Text.from_string(wrong)  # type: ignore[arg-type]
        with pytest.raises(CharloomError, match="document 2 is"):
            Text.from_documents(["a", wrong])  # type: ignore[list-item]
    with pytest.raises(CharloomError, match="a single string"):
        Text.from_documents("emma")
    with pytest.raises(CharloomError, match="surrogate"):
        Text.from_documents(["\udc03"])
    twice = Text.from_documents(name for name in ("emma", "ava"))
    assert list(twice.documents()) == list(twice.documents()) == ["emma", "ava"]

"""The fields of a column of CSV, TSV and JSON lines become documents."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.errors import CharloomError
from charloom.text.format import TextFormat, open_texts
from charloom.text.source import text_from_string
from charloom.text.tables import Kind, Table
from charloom.text.vocabulary import END
from helpers.documents import documents_of


def fields(
    content: str, column: str, kind: Kind | None = None, *, as_bytes: bool = False
) -> list[str]:
    pieces = [content[i : i + 3] for i in range(0, len(content), 3)]
    whole = "".join(Table(column, "'t'", kind, as_bytes).cut(pieces))
    assert not whole or whole.endswith(END)
    return whole.split(END)[:-1]


TEXTS = st.text(st.sampled_from('ab,;"\n\r\té—'), min_size=1, max_size=12)


@given(st.lists(TEXTS, min_size=1), st.sampled_from(["csv", "tsv"]))
def test_fields_with_quotes_and_line_breaks_come_back(texts: list[str], kind: Kind) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter="," if kind == "csv" else "\t")
    writer.writerow(["id", "text"])
    writer.writerows([number, text] for number, text in enumerate(texts))
    assert fields(file.getvalue(), "text", kind) == texts
    assert fields(file.getvalue(), "id", kind) == [str(i) for i in range(len(texts))]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)))
def test_fields_of_json_lines_come_back(texts: list[str]) -> None:
    content = "".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts) + "\n"
    assert fields(content + '{"text": "last"}', "text", "jsonl") == [*texts, "last"]


def test_empty_and_missing_fields_are_no_documents_and_numbers_are() -> None:
    assert fields("a,b\n,1\nx,2\n\n,3\n", "a") == ["x"]
    rows = '{"a": null}\n{"a": ""}\n{"b": 1}\n{"a": 2.5}\n{"a": 12345678901234567890}\n'
    assert fields(rows, "a") == ["2.5", "12345678901234567890"]


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        ("id,title\n1,x\n", "csv", "no column 'name': pass one of 'id', 'title'"),
        ('{"id": 1, "title": "x"}\n', "jsonl", "no column 'name': pass one of 'id', 'title'"),
        ("", "csv", None),
        ("", "jsonl", "no column 'name': pass one of no columns"),
        (
            "name,b\n1,2\n3\n",
            "csv",
            "line 3 of 't' begins a row of 1 field, but the first row names 2",
        ),
        ('name,b\n"x\ny",2\n"z', "csv", "line 4 of .* does not begin a valid row"),
        ('name,b\n"x"y,2\n', "csv", "line 2 of .* does not begin a valid row"),
        ('{"name": "x"}\n\n{"name": "x"\n', "jsonl", "line 3 of 't' is not valid JSON"),
        ('{"name": "x"}\n[1]\n', "jsonl", "line 2 of 't' is .*, not an object"),
        ('{"name": ["x"]}\n', "jsonl", "column 'name' holds .* in line 1 of 't'"),
        ('{"name": true}\n', "jsonl", "column 'name' holds True in line 1"),
        ('{"name": "x"}\n{"name": "\\udc03"}\n', "jsonl", "surrogate pair in line 2"),
        ('{"name": "x"}\n{"name": "a\\u0000"}\n', "jsonl", "null character in line 2"),
        ("[" * 100_000, "jsonl", "line 1 of 't' is not valid JSON"),
    ],
)
def test_broken_tables_are_refused_with_the_line(
    content: str, kind: Kind, said: str | None
) -> None:
    if said is None:
        assert fields(content, "name", kind) == []
        return
    with pytest.raises(CharloomError, match=said) as refusal:
        fields(content, "name", kind)
    assert "\n" not in str(refusal.value)


def test_the_kind_of_a_table_without_a_file_name_is_seen() -> None:
    assert fields("a,b\n1,2\n", "b") == ["2"]
    assert fields("a\tb\n1,1\t2\n", "b") == ["2"]
    assert fields('{"a": "x,y"}\n', "a") == ["x,y"]
    assert fields("only\nx\ny\n", "only") == ["x", "y"]


def test_bytes_of_a_table_are_those_of_its_fields() -> None:
    for content in ("é,b\nœ,1\n", '{"é": "\\u0153"}\n', '{"é": "œ"}\n'):
        found = fields(content.encode().decode("latin-1"), "é", as_bytes=True)
        assert [field.encode("latin-1").decode() for field in found] == ["œ"]


def test_a_field_of_a_megabyte() -> None:
    long = "word " * 300_000
    assert fields(f'a,b\n"{long}",1\nx,2\n', "a", "csv") == [long, "x"]


def test_byte_order_mark_and_line_breaks_inside_fields() -> None:
    table = text_from_string('\ufeffa,b\r\n"x\r\ny",1\r\n')
    kept = TextFormat(column="a", keep_newlines=True)
    assert list(open_texts([table], kept).documents()) == ["x\r\ny"]
    format = TextFormat(column="a")
    assert documents_of('{"a": "x\\r\\ny\\rz"}\n', format) == ["x\ny\nz"]

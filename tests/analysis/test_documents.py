"""Scores and explorations of collections: whole documents, their ends and unknown characters."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

import charloom
from charloom.analysis.exploration import explore
from charloom.analysis.labels import label_text
from charloom.cli.main import main
from charloom.errors import CharloomError
from charloom.text.vocabulary import END
from helpers.cli import Captured, refused
from helpers.documents import shuffled_names

SMALL = ["--steps=60", "--hidden-size=16", "--threads=1", "--seed=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collections by line, by file and by row, with a model of each."""
    folder = tmp_path_factory.mktemp("collections")
    names = shuffled_names()
    (folder / "names.txt").write_text("\n".join(names) + "\nXq\n", encoding="utf-8")
    (folder / "poems").mkdir()
    for number in range(12):
        verses = "\n".join(names[9 * number : 9 * number + 9])
        (folder / "poems" / f"{number:02}.txt").write_text(verses + "\n", encoding="utf-8")
    with (folder / "titles.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["id", "title"], *([n, f"{a}\n{a}, x"] for n, a in enumerate(names))])
    for text, options in (
        ("names.txt", ["--lines"]),
        ("poems", []),
        ("titles.csv", ["--column=title"]),
    ):
        out = folder / "runs" / text.partition(".")[0]
        assert main(["train", str(folder / text), *options, *SMALL, "--out", str(out)]) == 0
    book = ["--out", str(folder / "runs" / "book"), *SMALL]
    assert main(["train", str(folder / "names.txt"), *book]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def score(capsys: Captured, *arguments: str) -> str:
    capsys.readouterr()
    assert main(["score", *arguments]) == 0
    return capsys.readouterr().out


def test_lines_are_whole_documents(capsys: Captured) -> None:
    lines = ["anlia", "", "bethx", "An字", "jo"]
    Path("lines.txt").write_text("\r\n".join(lines), encoding="utf-8")
    model = charloom.load("runs/names")
    rows = json.loads(score(capsys, "runs/names", "lines.txt", "--lines", "--json"))
    assert [row["line"] for row in rows] == [1, 3, 4, 5]  # empty lines are skipped
    assert [row["text"] for row in rows] == ["anlia", "bethx", "An字", "jo"]
    assert [row["unknown"] for row in rows] == [0, 1, 2, 0]
    nats = model.score_documents([line for line in lines if line])
    for row, total in zip(rows, nats, strict=True):
        assert row["total_bits"] == pytest.approx(-total / math.log(2), abs=6e-4)
        with_end = row["characters"] + 1
        assert row["bits_per_character"] == pytest.approx(row["total_bits"] / with_end, abs=1e-3)
    begun = json.loads(score(capsys, "runs/names", "lines.txt", "--lines", "--json", "--prefix"))
    for whole, prefix in zip(rows, begun, strict=True):
        assert prefix["total_bits"] < whole["total_bits"]
    assert score(capsys, "runs/names", "lines.txt", "--json") == (
        score(capsys, "runs/names", "lines.txt", "--lines", "--json")
    )
    table = score(capsys, "runs/names", "lines.txt", "--lines").splitlines()
    assert table[0].split() == ["bits/symbol", "bits", "line", "unknown", "text"]
    assert table[1].split()[2:] == ["4", "2", "An字"]  # the most foreign one
    top = list(
        csv.DictReader(io.StringIO(score(capsys, "runs/names", "lines.txt", "--csv", "--top=2")))
    )
    assert [row["line"] for row in top] == ["4", "3"]


def test_documents_have_the_names_of_their_places(capsys: Captured) -> None:
    rows = json.loads(score(capsys, "runs/poems", "poems", "--json"))
    assert [row["document"] for row in rows] == [f"poems/{n:02}.txt" for n in range(12)]
    assert rows[3]["text"] == Path("poems/03.txt").read_text("utf-8")
    two = ["poems/03.txt", "poems/01.txt"]
    some = json.loads(score(capsys, "runs/poems", *two, "--json"))
    assert [row["document"] for row in some] == two
    assert [row["total_bits"] for row in some] == [rows[3]["total_bits"], rows[1]["total_bits"]]
    Path("few.csv").write_text('id,title\n1,"an\nelia"\n2,\n\n3,jo\n', encoding="utf-8")
    rows = json.loads(score(capsys, "runs/titles", "few.csv", "--json"))
    assert [(row["document"], row["text"]) for row in rows] == [
        ("row 1", "an\nelia"),
        ("row 3", "jo"),
    ]
    by_line = json.loads(score(capsys, "runs/poems", *two, "--lines", "--json"))
    assert by_line[0]["document"] == "poems/03.txt, line 1"


def test_skipped_files_are_named(capsys: Captured) -> None:
    Path("mixed").mkdir()
    Path("mixed/a.txt").write_text("anlia\n", encoding="utf-8")
    Path("mixed/b.png").write_bytes(b"\x89PNG")
    for command in ("score", "evaluate"):
        capsys.readouterr()
        assert main([command, "runs/poems", "mixed"]) == 0
        assert "1 files are read, and 1 skipped" in capsys.readouterr().err


def test_rare_characters_are_charged_in_the_runs_own_split(capsys: Captured) -> None:
    names = [name + "ÄÖÜßçéèêâô"[n % 10] * (n % 12 == 0) for n, name in enumerate(shuffled_names())]
    Path("rare.txt").write_text("\n".join(names), encoding="utf-8")
    split = ["--split=60/20/20", "--lines", "--min-count=40"]
    assert main(["train", "rare.txt", *split, *SMALL, "--out", "runs/rare"]) == 0
    model = charloom.load("runs/rare")
    found = model.evaluate()
    assert found.unknown_characters > 0
    assert found.characters > 0
    known = model.evaluate(with_baselines=False)
    assert known.nats_per_character == found.nats_per_character
    capsys.readouterr()
    assert main(["evaluate", "runs/rare"]) == 0
    assert "unknown to the model: " in capsys.readouterr().out


def test_characters_show_the_end(capsys: Captured, tmp_path: Path) -> None:
    Path("lines.txt").write_text("anlia\n字a\n", encoding="utf-8")
    page = tmp_path / "page.html"
    out = score(capsys, "runs/names", "lines.txt", "--characters", "--json")
    found = json.loads(out)
    shown = [entry["character"] for entry in found["scores"]]
    assert shown == [*"anlia", "<end>", "字", "a", "<end>"]
    assert (found["characters"], found["documents"], found["unknown_characters"]) == (9, 2, 1)
    assert found["protocol"] == "documents"
    table = score(capsys, "runs/names", "lines.txt", "--characters", "--csv")
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [row["document"] for row in rows] == ["1"] * 6 + ["2"] * 3
    assert "<end>" in {row[f"guess{k}"] for row in rows for k in range(1, 6)}
    # The sum of the characters is the document's.
    documents = json.loads(score(capsys, "runs/names", "lines.txt", "--json"))
    assert sum(float(row["bits"]) for row in rows[:6]) == pytest.approx(
        documents[0]["total_bits"], abs=0.01
    )
    table = score(capsys, "runs/names", "lines.txt", "--html", str(page))
    assert "2 documents, 7 characters" in table
    assert "bits = " in table
    assert "per symbol" in table
    for text in (out, table, page.read_text("utf-8")):
        assert END not in text
        assert "udc03" not in text.lower()


def test_top_lists_places_in_order(capsys: Captured) -> None:
    found = json.loads(score(capsys, "runs/poems", "poems", "--characters", "--json", "--top=3"))
    bits = [entry["bits"] for entry in found["scores"]]
    assert len(bits) == 3
    assert bits == sorted(bits, reverse=True)
    whole = json.loads(score(capsys, "runs/poems", "poems", "--characters", "--json"))["scores"]
    for entry in found["scores"]:
        assert whole[entry["place"]]["bits"] == entry["bits"]
    table = score(capsys, "runs/poems", "poems", "--characters", "--csv", "--top=3")
    assert [row["place"] for row in csv.DictReader(io.StringIO(table))] == [
        str(entry["place"]) for entry in found["scores"]
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["runs/book", "names.txt", "--prefix", "--lines"],
            "--prefix is for models of collections",
        ),
        (
            ["runs/names", "names.txt", "--prefix", "--characters"],
            "--prefix is for scores of lines",
        ),
        (["runs/names", "names.txt", "--lines", "--characters"], "cannot be combined"),
        (["runs/names", "names.txt", "--protocol", "carried"], "use documents"),
        (["runs/book", "names.txt", "--protocol", "documents"], "use carried"),
        (["runs/names", "empty.txt"], "has no characters to score"),
        (["runs/titles", "names.txt"], "is not a table"),
    ],
)
def test_unsuitable_options_are_refused(arguments: list[str], said: str) -> None:
    Path("empty.txt").write_text("\n\n", encoding="utf-8")
    assert said in refused("score", *arguments)


def test_documents_in_python() -> None:
    model = charloom.load("runs/names")
    whole = model.score_documents(["anlia", "", "字字", "joX" * 2_000])
    assert (whole == model.score_lines(["anlia", "", "字字", "joX" * 2_000])).all()
    prefix = model.score_documents(["anlia", "", "字字", "joX" * 2_000], prefix=True)
    assert (prefix > whole).all()
    assert prefix[1] == 0
    scores = model.score("anlia\n\n字字\n")
    assert scores.ids.tolist()[-3:] == [-1, -1, model.vocabulary.end_id]
    assert scores.log_probabilities[:6].sum() == pytest.approx(whole[0])
    assert scores.log_probabilities[6:].sum() == pytest.approx(whole[2])
    same = model.score(["anlia", "字字"])
    assert same.log_probabilities.tobytes() == scores.log_probabilities.tobytes()
    skipped = model.score_documents(["an字lia", "anlia"], skip_unknown=True)
    assert skipped[0] == skipped[1] > whole[0]
    assert model.score_documents([]).shape == (0,)
    for wrong in (["a\udc03"], ["\udc03"], ["\ud800"]):
        for method in (model.score_documents, model.score_lines, model.evaluate, model.score):
            with pytest.raises(CharloomError, match="half of a surrogate pair"):
                method(wrong)  # type: ignore[operator]
    with pytest.raises(CharloomError, match="single string"):
        model.score_documents("anlia")
    with pytest.raises(CharloomError, match="is empty: pass at least one text"):
        model.evaluate([])
    book = charloom.load("runs/book")
    with pytest.raises(CharloomError, match="use score_lines"):
        book.score_documents(["anlia"])
    with pytest.raises(CharloomError, match="pass one text"):
        book.evaluate(["anlia"])


def test_the_most_foreign_line_of_a_book_ranks_first(capsys: Captured) -> None:
    """Cases of a log: a line with one new character, and one with new ones only."""
    lines = ["anlia", "beth", "漢字漢字", "", "anWlia"]
    Path("log.txt").write_text("\n".join(lines), encoding="utf-8")
    table = score(capsys, "runs/book", "log.txt", "--lines").splitlines()
    assert [row.split()[-1] for row in table[1:3]] == ["漢字漢字", "anWlia"]
    rows = json.loads(score(capsys, "runs/book", "log.txt", "--lines", "--json"))
    assert [row["text"] for row in rows] == lines
    assert [row["unknown"] for row in rows] == [0, 0, 4, 0, 1]
    assert rows[3]["bits_per_character"] is None


def test_evaluation_of_documents(capsys: Captured) -> None:
    capsys.readouterr()
    assert main(["evaluate", "runs/names", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    model = charloom.load("runs/names")
    assert (found["protocol"], found["text"]) == ("documents", "test split")
    assert found["nats_per_document"] == pytest.approx(
        found["nats_per_character"] * found["characters"] / found["documents"]
    )
    documents = ["anlia", "beth", "jo字"]
    mine = model.evaluate(documents)
    assert (mine.documents, mine.characters, mine.unknown_characters) == (3, 15, 1)
    assert mine.utf8_bytes == len("anlia\nbeth\njo字\n".encode())
    totals = model.score_documents(documents)
    assert mine.nats_per_document == pytest.approx(-totals.mean())
    assert mine.nats_per_character == pytest.approx(-totals.sum() / 15)
    assert set(mine.baselines) == {"network", "uniform", "unigram", "ngram", "xz", "bzip2"}
    assert mine.baselines["ngram"].protocol == "documents"
    for protocol in ("cold-3", "adaptive"):
        other = model.evaluate(documents, protocol=protocol)
        assert (other.protocol, other.documents) == (protocol, 3)
    capsys.readouterr()
    assert main(["evaluate", "runs/names"]) == 0
    out = capsys.readouterr().out
    assert "bits per symbol" in out
    assert "nats = " in out
    assert "bits per document" in out


def test_unit_labels_of_documents() -> None:
    text = f'a "b{END}c" d{END}'
    labels = label_text(text)
    plain = label_text("ab\n")
    new = ["at the beginning of a document", "position in the document"]
    new.append("the next is the end of the document")
    assert [name for name in labels if name not in plain] == new
    assert labels[new[0]].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert labels[new[1]].tolist() == [1, 2, 3, 4, 0, 1, 2, 3, 4, 0]
    assert labels[new[2]].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    assert labels["position in the line"].tolist() == [1, 2, 3, 4, 0, 1, 2, 3, 4, 0]
    assert not labels["after a line break"].any()
    assert labels["after punctuation"].tolist() == [0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    assert labels["inside double quotes"].tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 1, 0]
    brackets = label_text(f"(a{END}b)(c)")
    assert brackets["inside parentheses"].tolist() == [0, 0, 0, 0, 0, 1, 1, 0]


def test_exploration_of_documents(capsys: Captured, tmp_path: Path) -> None:
    model = charloom.load("runs/names", network_only=True)
    found = explore(model, ["anlia", "beth"] * 30, units=["h1"])
    assert (len(found.ids), found.documents) == (60 * 5 + 30, 60)
    # Every document begins with the same state.
    values = found.activations[found.named[0]][found.ids == model.vocabulary.end_id]
    assert len(set(values.tolist())) == 1
    capsys.readouterr()
    page = tmp_path / "units.html"
    assert main(["explore", "runs/names", "names.txt", "--json", "--out", str(page)]) == 0
    out = capsys.readouterr().out
    names = [row["label"] for row in json.loads(out)["labels"]]
    assert "the next is the end of the document" in names
    for text in (out, page.read_text("utf-8")):
        assert "udc03" not in text.lower()
    assert main(["explore", "runs/poems", "poems"]) == 0
    assert "12 documents" in capsys.readouterr().out


def test_many_lines_and_a_long_one() -> None:
    model = charloom.load("runs/names", network_only=True, threads=1)
    many = ["anlia", "beth", "字"] * 33_333
    nats = model.score_documents(many)
    np.testing.assert_array_equal(nats, np.tile(nats[:3], 33_333))
    long = model.score_documents(["a" * 1_000_000, "anlia"])
    assert long[1] == nats[0]
    assert long[0] < -100_000

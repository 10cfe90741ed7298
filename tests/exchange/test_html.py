"""A model as a web page, without a browser: its size, its cost and its errors."""

import math
from pathlib import Path

import pytest

import charloom
from charloom.errors import CharloomError
from charloom.exchange.html import HtmlPage, export_html
from charloom.language_model import LanguageModel
from charloom.storage.checkpoint import Checkpoint
from charloom.text.vocabulary import Vocabulary
from helpers.cli import refused, run
from helpers.exchange import CHARACTERS, OF_DOCUMENTS, kept, some_model
from helpers.player import header_of
from helpers.runs import TINY, train_tiny

TEXT = "The woods are lovely, dark and deep; but I have promises to keep.\n" * 40


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def mixed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = [*TINY, "--steps=20", "--split=80/10/10", "--counts=context-mixing", "--read-counts"]
    return train_tiny(tmp_path_factory.mktemp("html"), TEXT, *options)


def test_a_page_is_as_large_as_allowed_and_its_cost_is_printed(mixed_run: Path) -> None:
    status, output, errors = run("export", str(mixed_run), "--to=html", "--out=page.html")
    assert (status, output) == (0, "")
    whole = Path("page.html").read_text("utf-8")
    cost = header_of(whole)["cost"]
    assert cost["sentence"] in errors
    assert cost["measured_on"] == "the test split"
    assert cost["bits"] == pytest.approx(cost["before"], abs=0.002)
    assert (cost["weights"], cost["kept"]) == ("int16", 1.0)
    units = header_of(whole)["units"]
    assert all(0 <= unit["unit"] < 8 and abs(unit["correlation"]) >= 0.3 for unit in units)
    assert "space" in " ".join(unit["label"] for unit in units)
    size = (len(whole.encode()) - 1) / 1e6
    page = charloom.export_html(charloom.load(mixed_run), size=size)
    assert len(page.encode()) <= size * 1e6
    cost = header_of(page)["cost"]
    assert cost["weights"] == "int8"
    assert cost["before"] < cost["bits"] + 0.01
    assert cost["sentence"] == page.cost


def test_a_size_that_is_too_small_names_the_least_one(mixed_run: Path) -> None:
    line = refused("export", str(mixed_run), "--to=html", "--out=page.html", "--size=0.02")
    least = line.split(" MB")[0].split()[-1]
    assert not Path("page.html").exists()
    status, _, errors = run(
        "export", str(mixed_run), "--to=html", "--out=page.html", f"--size={least}"
    )
    assert status == 0
    assert "weights of 8 bits" in errors
    assert Path("page.html").stat().st_size <= 1e6 * float(least)
    size = float(least) - 0.03
    assert least in refused("export", str(mixed_run), "--to=html", "--out=b.html", f"--size={size}")
    assert Path("page.html").stat().st_size <= float(least) * 1e6


def test_mistakes_are_one_line(mixed_run: Path) -> None:
    arguments = ("export", str(mixed_run), "--to=html")
    assert "above 0" in refused(*arguments, "--out=page.html", "--size=0")
    assert "--size is for --to html" in refused(
        "export", str(mixed_run), "--to=onnx", "--out=a.onnx", "--size=3"
    )
    assert "--out is missing" in refused(*arguments)
    Path("notes.txt").write_text("mine", "utf-8")
    assert "the existing file is not a page" in refused(*arguments, "--out=notes.txt")
    assert Path("notes.txt").read_text("utf-8") == "mine"
    damaged = refused("export", "notes.txt", "--to=html", "--out=page.html")
    assert "notes.txt is damaged" in damaged
    assert not Path("page.html").exists()
    with pytest.raises(CharloomError, match="size is nan"):
        export_html(mixed_run, size=float("nan"))


def test_a_model_of_documents_writes_several_to_measure_the_cost() -> None:
    parameters = some_model("gru", characters=OF_DOCUMENTS)
    header = header_of(export_html(kept(parameters)))
    assert header["end"] == header["start"] == len(OF_DOCUMENTS) - 1
    assert header["vocabulary"][-1] == ""
    assert header["cost"]["bits"] == pytest.approx(header["cost"]["before"], abs=0.01)


def test_a_notebook_displays_the_page_in_a_frame_of_its_own() -> None:
    page = export_html(kept(some_model("gru")))
    assert isinstance(page, HtmlPage)
    assert page.startswith("<!doctype html>")
    assert "a text that the model wrote itself" in page.cost
    frame = page._repr_html_()
    assert frame.count("<") == 2
    assert frame.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert 'sandbox="allow-scripts allow-downloads"' in frame
    assert "allow-same-origin" not in frame


def test_a_page_scores_unknown_characters_as_charloom_does() -> None:
    text = {"unseen": 0.25, "characters": 300}
    model = LanguageModel(Checkpoint(some_model("gru"), Vocabulary(CHARACTERS), text=text))
    unseen = header_of(export_html(model))["unseen"]
    assert unseen["known"] == pytest.approx(-math.log2(0.75))
    assert unseen["unknown"] == pytest.approx(model.score("x").bits[0])
    assert header_of(export_html(kept(some_model("gru"))))["unseen"] is None

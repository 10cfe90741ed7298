"""Samples of the finished model for a report: each equals that of its seed, and only those of the
current weights are shown."""

import json
import shlex
from pathlib import Path

import pytest

import charloom
from charloom.errors import CharloomError
from charloom.runs.final_samples import draw_samples, read_drawn, sample_command
from helpers.reports import drawn, written
from helpers.texts import TIMES_TABLES

OPTIONS = {"hidden_size": 8, "batch_size": 4, "window": 16, "seed": 1, "steps": 3}


@pytest.mark.parametrize("documents", [False, pytest.param(True, marks=pytest.mark.extended)])
def test_samples_are_those_of_their_seeds(documents: bool, tmp_path: Path) -> None:
    text = tmp_path / "tables.txt"
    text.write_text(TIMES_TABLES, encoding="utf-8")
    folder = tmp_path / "run"
    model = charloom.train(text, out=folder, lines=documents, **OPTIONS)
    assert drawn(folder)["runs"][0]["drawn"] == []
    charloom.write_report(folder)
    found = drawn(folder)["runs"][0]["drawn"]
    assert [one["seed"] for one in found] == [1, 2, 3, 4, 5, 6]
    for one in found[:2]:
        if documents:
            expected = [d.text for d in model.sample_documents(10, length=500, seed=one["seed"])]
        else:
            expected = [model.sample(length=500, seed=one["seed"])]
        assert one["texts"] == expected
    kept = folder / "drawn.json"
    before = kept.stat().st_mtime_ns
    charloom.write_report(folder)  # samples nothing again
    assert kept.stat().st_mtime_ns == before
    changed = json.loads(kept.read_text()) | {"sha256": "0"}
    kept.write_text(json.dumps(changed))
    assert drawn(folder)["runs"][0]["drawn"] == []
    charloom.train(text, out=folder, lines=documents, resume=True, **OPTIONS | {"steps": 4})


@pytest.mark.parametrize("content", ["", "3", "{}", '{"sha256": "1", "samples": [{"seed": "x"}]}'])
def test_a_damaged_file_has_no_samples(content: str, tmp_path: Path) -> None:
    (tmp_path / "drawn.json").write_text(content)
    assert read_drawn(tmp_path, "1") == []


def test_a_run_without_a_model_has_no_samples(tmp_path: Path) -> None:
    draw_samples(written(tmp_path, []))
    assert not (tmp_path / "drawn.json").exists()


def test_samples_that_cannot_be_written(tmp_path: Path) -> None:
    text = tmp_path / "tables.txt"
    text.write_text(TIMES_TABLES, encoding="utf-8")
    charloom.train(text, out=tmp_path / "run", **OPTIONS)
    (tmp_path / "run" / "drawn.json").mkdir()
    with pytest.raises(CharloomError, match="the report has no samples of the finished model"):
        draw_samples(tmp_path / "run")
    assert charloom.write_report(tmp_path / "run").is_file()


def test_the_command_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inside = sample_command(tmp_path / "runs" / "a b", 3, documents=True)
    assert shlex.split(inside) == (
        ["charloom", "sample", "runs/a b", "--count", "10", "--length", "500", "--seed", "3"]
    )
    outside = sample_command(Path("/home/someone/private/book"), 1, documents=False)
    assert shlex.split(outside)[2] == "book"

"""A search on a collection of documents."""

import tomllib
from pathlib import Path

import pytest

from charloom.cli.main import main
from charloom.storage.checkpoint import load_checkpoint
from charloom.text.vocabulary import END
from charloom.training.planner import plan
from charloom.tuning.api import tune
from charloom.tuning.space import ranges_around
from helpers.documents import NAMES, dataset_of
from helpers.searches import QUICK, flags, resumed

pytest.importorskip("optuna")


def test_search_reads_lines_as_documents_and_its_options_train_again(tmp_path: Path) -> None:
    text, folder = tmp_path / "names.txt", tmp_path / "search"
    text.write_text("".join(f"{name}\n" for name in NAMES), encoding="utf-8")
    options = [*flags(**QUICK), "--lines", "--threads=1", "--no-mix"]
    assert main(["tune", str(text), "--out", str(folder), *options]) == 0
    best = load_checkpoint(folder / "best" / "model.safetensors")
    assert best.config.end_id == len(best.vocabulary) - 1
    assert best.training["lines"] is True
    assert END.encode("utf-8", "surrogatepass") not in (folder / "report.html").read_bytes()
    again = resumed(str(text), folder)  # without the option
    assert again.dataset.documents == len(NAMES)
    assert again.best_options["lines"] is True
    assert "--lines" in again.settings.command(again.best, [str(text)])  # type: ignore[arg-type]
    assert tomllib.loads((folder / "best.toml").read_text())["lines"] is True
    tuned = tune(text, out=tmp_path / "tuned", from_run=folder / "best", threads=1, **QUICK)
    assert tuned.dataset.documents == len(NAMES)
    assert tuned.notes == ["documents are read as for the model of --from: each line is one"]
    words = ["--config", str(folder / "best.toml"), "--steps", "2", "--out", str(tmp_path / "run")]
    assert main(["train", str(text), *words]) == 0


def test_windows_longer_than_the_validation_split_are_searched_for_documents() -> None:
    dataset = dataset_of(["anna", "otto"] * 50, ["anna"] * 10)
    planned = plan(10, 1, dataset, {}).options
    assert planned["window"] == 64
    ranges = ranges_around(planned | {"window": 64}, {}, 3, None)
    assert ranges["window"] == {"low": 32, "high": 128, "step": 16}
    assert ranges_around(planned | {"window": 64}, {}, 3, 80)["window"]["high"] == 80

"""Evaluations are kept beside a run and shown in its report."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import charloom
from charloom.cli.main import main
from charloom.storage.checkpoint import load_checkpoint, save_checkpoint
from helpers.cli import Captured
from helpers.reports import data_of, drawn

# --- Evaluations ----------------------------------------------------------------------------------


def evaluated(capsys: Captured, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["evaluate", *arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_an_evaluation_is_kept_and_shown(run_copy: Path, capsys: Captured) -> None:
    found = evaluated(capsys, str(run_copy))
    page = data_of((run_copy / "report.html").read_text("utf-8"))
    (kept,) = page["runs"][0]["evaluations"]
    assert json.loads((run_copy / "evaluations.json").read_text())[0]["evaluation"] == found
    for there, name in {"nats": "nats_per_character", "bits": "bits_per_character"}.items():
        assert kept[there] == found[name]
    for name in ("text", "protocol", "characters", "bits_per_byte", "perplexity", "accuracy"):
        assert kept[name] == found[name]
    assert kept["interval"] == found["nats_per_character_95_percent"]
    assert kept["overlap"]["characters"] == found["longest_overlap"]["characters"]
    # In the order in which the command prints it.
    assert main(["evaluate", str(run_copy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    begin = next(i for i, line in enumerate(lines) if "bits per character  predictor" in line)
    printed = [line.split()[0] for line in lines[begin + 1 : begin + 1 + len(kept["rows"])]]
    assert printed == [f"{row[0]:.4f}" for row in kept["rows"]]
    assert len(kept["rows"]) == 1 + len(found["baselines"])


def test_the_latest_of_each_kind_is_kept(run_copy: Path, capsys: Captured) -> None:
    for options in ([], ["--network-only"], ["--protocol=cold-16"], []):
        evaluated(capsys, str(run_copy), *options)
    kept = [(e["protocol"], e["ours"]) for e in drawn(run_copy)["runs"][0]["evaluations"]]
    assert kept == [("carried", "this gru"), ("cold-16", "mixture"), ("carried", "mixture")]


def test_another_text_or_a_file_is_not_kept(
    run_copy: Path, tables_folder: Path, capsys: Captured
) -> None:
    before = (run_copy / "report.html").read_bytes()
    evaluated(capsys, str(run_copy), str(tables_folder / "tables.txt"))
    evaluated(capsys, str(run_copy / "model.safetensors"))
    assert not (run_copy / "evaluations.json").exists()
    assert (run_copy / "report.html").read_bytes() == before


def test_non_run_folder_is_left_alone(run_copy: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "shared").mkdir()
    shutil.copy(run_copy / "model.safetensors", tmp_path / "shared")
    evaluated(capsys, str(tmp_path / "shared"))
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["model.safetensors"]


def test_metrics_of_earlier_weights_are_not_shown(run_copy: Path, capsys: Captured) -> None:
    evaluated(capsys, str(run_copy))
    checkpoint = load_checkpoint(run_copy / "model.safetensors")
    checkpoint.parameters.flat[0] += 1
    save_checkpoint(run_copy / "model.safetensors", checkpoint)
    (found,) = drawn(run_copy)["runs"]
    assert (found["evaluations"], found["stale_evaluations"]) == ([], 1)
    evaluated(capsys, str(run_copy), "--protocol=cold-16")
    (found,) = drawn(run_copy)["runs"]
    assert ([e["protocol"] for e in found["evaluations"]], found["stale_evaluations"]) == (
        ["cold-16"],
        0,
    )


def test_an_evaluation_that_cannot_be_kept_is_still_printed(
    run_copy: Path, capsys: Captured
) -> None:
    (run_copy / "evaluations.json").mkdir()
    assert main(["evaluate", str(run_copy)]) == 0
    out, err = capsys.readouterr()
    assert "bits per character" in out
    (line,) = err.splitlines()
    assert "evaluations.json" in line
    assert "not kept" in line


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[" * 10_000,
        '[1, {"evaluation": 3, "sha256": "x"}]',
        '[{"evaluation": {"model": "mixture"}, "sha256": SHA256}]',
        '[{"evaluation": {"model": "network", "bits_per_character": NaN}, "sha256": SHA256}]',
    ],
)
def test_damaged_evaluations_file_is_recreated(
    content: str, run_copy: Path, capsys: Captured
) -> None:
    sha256 = load_checkpoint(run_copy / "model.safetensors").sha256
    (run_copy / "evaluations.json").write_text(content.replace("SHA256", json.dumps(sha256)))
    assert drawn(run_copy)["runs"][0]["evaluations"] == []
    evaluated(capsys, str(run_copy))
    assert len(drawn(run_copy)["runs"][0]["evaluations"]) == 1


def test_evaluated_run_resumes(run_copy: Path, tables_folder: Path, capsys: Captured) -> None:
    evaluated(capsys, str(run_copy))
    charloom.train(tables_folder / "tables.txt", out=run_copy, resume=True, steps=24)
    assert drawn(run_copy)["runs"][0]["last_step"] == 24

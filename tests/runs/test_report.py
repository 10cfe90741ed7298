"""A run's report: its figures are those of the run's files, and it can be drawn of whatever a run
leaves; evaluations that are kept; event files for TensorBoard."""

import bz2
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charloom
from charloom.cli.main import main
from charloom.errors import CharloomError
from charloom.runs import report as report_module
from charloom.runs.history import METRIC_NAMES
from charloom.runs.report import make_report, write_report
from charloom.storage.checkpoint import load_checkpoint
from helpers.cli import Captured
from helpers.reports import (
    OPTIONS,
    data_of,
    drawn,
    lines_of,
    report_line,
    training_run,
    validation_line,
    written,
)
from helpers.texts import TIMES_TABLES

# --- What a page holds ----------------------------------------------------------------------------


def test_report_holds_the_metrics_of_the_run(reported_run: tuple[Path, list[str]]) -> None:
    folder, samples = reported_run
    (found,) = drawn(folder)["runs"]
    lines = lines_of(folder)
    reports = [line for line in lines if line["event"] == "report"]
    for name, there in {"step": "step", "epoch": "epoch", **METRIC_NAMES}.items():
        assert found["reports"][name] == [line[there] for line in reports]
    timings = [line["timing"] for line in reports]
    assert found["reports"]["seconds"] == [timing["elapsed_seconds"] for timing in timings]
    assert found["reports"]["speed"] == [timing["characters_per_second"] for timing in timings]
    validations = [line for line in lines if line["event"] == "validation"]
    assert len(validations) == 6
    for name in ("step", "epoch"):
        assert found["validations"][name] == [line[name] for line in validations]
    nats = [line["validation"]["nats_per_character"] for line in validations]
    assert found["validations"]["nats"] == nats
    assert found["validations"]["best"] == [int(line["best"]) for line in validations]
    assert [sample["text"] for sample in found["samples"]] == samples
    assert [sample["step"] for sample in found["samples"]] == found["validations"]["step"]
    assert [sample["nats"] for sample in found["samples"]] == nats


def test_the_configuration_is_the_runs_own(reported_run: tuple[Path, list[str]]) -> None:
    rows = {row["name"]: row["values"] for row in drawn(reported_run[0])["configuration"]}
    assert rows["hidden-size"] == ["8"]
    assert rows["steps"] == ["20"]
    assert rows["epochs"] == ["–"]
    assert rows["text"] == ["tables"]
    assert rows["characters of text"] == [f"{len(TIMES_TABLES):,}"]


def test_baselines_are_those_of_the_validation_part(reported_run: tuple[Path, list[str]]) -> None:
    folder, _ = reported_run
    start = lines_of(folder)[0]
    assert start["event"] == "start"
    bits = {name: b["bits_per_character"] for name, b in start["baselines"].items()}
    first, second = len(TIMES_TABLES) * 90 // 100, len(TIMES_TABLES) * 95 // 100
    train, part = TIMES_TABLES[:first], TIMES_TABLES[first:second]
    counts = {c: train.count(c) + 1 for c in set(TIMES_TABLES)}
    total = sum(counts.values())
    assert bits["uniform"] == math.log2(len(counts))
    unigram = -sum(math.log2(counts[c] / total) for c in part) / len(part)
    assert bits["unigram"] == pytest.approx(unigram, abs=1e-12)
    added = len(bz2.compress((train + part).encode())) - len(bz2.compress(train.encode()))
    assert bits["bzip2"] == 8 * added / len(part)
    assert 0 < bits["ngram"] < bits["unigram"]
    (found,) = drawn(folder)["runs"]
    assert {row["name"]: row["bits"] for row in found["baselines"]} == bits


def test_a_short_budget_compresses_nothing(tables_folder: Path, tmp_path: Path) -> None:
    charloom.train(
        tables_folder / "tables.txt",
        out=tmp_path / "run",
        minutes=0.03,
        engine="reference",
        no_mix=True,
    )
    assert set(lines_of(tmp_path / "run")[0]["baselines"]) == {"uniform", "unigram"}


def test_long_run_is_thinned_but_keeps_validations(tmp_path: Path) -> None:
    lines: list[Any] = []
    for step in range(1, 5_001):
        lines.append(report_line(step))
        if step % 2 == 0:
            lines.append(validation_line(step, 1.5))
    (found,) = drawn(written(tmp_path / "run", lines))["runs"]
    steps = found["reports"]["step"]
    assert len(steps) == report_module.MOST_POINTS
    assert steps == sorted(set(steps))
    assert steps[-1] == 5_000
    assert set(np.diff(steps)) == {2, 3}
    assert found["validations"]["step"] == list(range(2, 5_001, 2))


def test_samples_are_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [validation_line(step, 1.5) for step in range(100)]
    samples = "".join(f"--- step {step}, 1.5000 nats\n{step:>300}\n\n" for step in range(100))
    folder = written(tmp_path / "run", lines, samples)
    assert len(drawn(folder)["runs"][0]["samples"]) == 100
    monkeypatch.setattr(report_module, "MOST_SAMPLE_CHARACTERS", 20_000)
    (found,) = drawn(folder)["runs"]
    assert found["samples_drawn"] == 100
    assert 5 <= len(found["samples"]) <= 11
    assert [int(sample["text"]) for sample in found["samples"]][-1] == 99
    assert all(sample["number"] == int(sample["text"]) + 1 for sample in found["samples"])


def test_a_sample_can_hold_what_looks_like_a_heading(tmp_path: Path) -> None:
    first = ("fox\r\n\n--- step 2\nand\n\n--- step 3, 1.5000 nats\n\n" + "x" * 300)[:300]
    samples = f"--- step 0\n{first}\n\n--- step 2\n{'y' * 300}\n\n"
    folder = written(
        tmp_path / "run", [validation_line(0, None), validation_line(2, None)], samples
    )
    assert [s["text"] for s in drawn(folder)["runs"][0]["samples"]] == [first, "y" * 300]


def test_samples_of_documents_have_any_length(tmp_path: Path) -> None:
    texts = ["anna\notto", "", "x" * 297, "a\n<end>\n\n\nb\n<end>" * 12, "c" * 300, "y" * 17]
    samples = "".join(f"--- step {step}\n{text}\n\n" for step, text in enumerate(texts))
    lines = [validation_line(step, None) for step in range(len(texts))]
    folder = written(tmp_path / "run", lines, samples)
    (found,) = drawn(folder)["runs"]
    assert [sample["text"] for sample in found["samples"]] == texts
    assert [sample["step"] for sample in found["samples"]] == list(range(len(texts)))


def test_a_model_of_bytes_has_samples_in_its_text(tmp_path: Path) -> None:
    (tmp_path / "woods.txt").write_text("Wälder → 字\n" * 200, encoding="utf-8")
    charloom.train(
        tmp_path / "woods.txt", out=tmp_path / "run", steps=400, bytes=True, no_mix=True, **OPTIONS
    )
    found = drawn(tmp_path / "run")["runs"][0]["samples"]
    assert "→ 字\n" in found[-1]["text"]
    # Earlier versions wrote a character for each byte.
    file = tmp_path / "run" / "samples.txt"
    content = file.read_text(encoding="utf-8")
    assert found[-1]["text"] in content
    file.write_text(content.encode().decode("latin-1"), encoding="utf-8")
    assert drawn(tmp_path / "run")["runs"][0]["samples"] == found


# --- What a run may leave -------------------------------------------------------------------------

ODD_LINES: list[Any] = [
    [],
    None,
    "text",
    {},
    {"event": "report"},
    {"event": "start", "baselines": {"uniform": None, "unigram": {"bits_per_character": "2"}}},
    {"event": "start", "baselines": ["uniform"]},
    {"event": "validation", "step": 3, "validation": [1], "timing": 7},
    report_line(3, loss=math.nan, smoothed_loss=math.inf, learning_rate="fast", epoch=None),
    report_line(3, gradient_norm=10**400, timing=None),
]


def test_odd_lines_are_skipped(tmp_path: Path) -> None:
    lines = [report_line(2), *ODD_LINES, report_line(4)]
    (found,) = drawn(written(tmp_path / "run", lines))["runs"]
    assert found["reports"]["step"] == [2, 3, 3, 4]
    assert found["reports"]["loss"] == [2.0, None, 2.0, 2.0]
    assert found["validations"]["nats"] == [None]


@pytest.mark.parametrize(
    "torn", [b'{"event": "report", "st', b"\xff\xfe", b"\0" * 100, b"[" * 10**5]
)
def test_torn_last_line_is_skipped(torn: bytes, run_copy: Path) -> None:
    whole = drawn(run_copy)["runs"]
    with (run_copy / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    assert drawn(run_copy)["runs"] == whole


@pytest.mark.parametrize(
    "name", ["samples.txt", "model.safetensors", "resume.safetensors", "metrics.jsonl"]
)
@pytest.mark.parametrize("how", ["gone", "empty", "cut", "noise"])
def test_damaged_file_leaves_the_others_usable(name: str, how: str, run_copy: Path) -> None:
    (run_copy / "evaluations.json").write_text("[{}, 3]")
    content = (run_copy / name).read_bytes()
    if how == "gone":
        (run_copy / name).unlink()
    else:
        noise = np.random.default_rng(0).bytes(500)
        (run_copy / name).write_bytes(
            {"empty": b"", "cut": content[: len(content) // 2], "noise": noise}[how]
        )
    (found,) = drawn(run_copy)["runs"]
    if name != "metrics.jsonl":
        assert found["validations"]["step"] == [0, 4, 8, 12, 16, 20]


def test_a_run_without_a_validation_part(tables_folder: Path, tmp_path: Path) -> None:
    charloom.train(
        tables_folder / "tables.txt", out=tmp_path / "run", steps=3, split="100/0/0", **OPTIONS
    )
    (found,) = drawn(tmp_path / "run")["runs"]
    assert set(found["validations"]["nats"]) == {None}
    assert found["baselines"] == []
    assert [len(sample["text"]) for sample in found["samples"]] == [300] * 4


def test_a_run_that_is_interrupted_at_once(tables_folder: Path, tmp_path: Path) -> None:
    for _ in training_run(tables_folder, tmp_path / "run", should_stop=lambda: True):
        pass
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert data_of(page)["standing"]["state"] == "interrupted"
    assert data_of(page)["runs"][0]["reports"]["step"] == []
    assert drawn(tmp_path / "run")["standing"] is None


# --- While it trains ------------------------------------------------------------------------------


def test_a_page_is_there_from_the_start(
    tables_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charloom.runs.checkpointing.SAVE_INTERVAL", -1.0)
    monkeypatch.setattr("charloom.pages.live.REST", 0.0)
    standings, steps = [], []
    for progress in training_run(tables_folder, tmp_path / "run"):
        data = data_of((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
        standings.append(data["standing"])
        steps.append(data["runs"][0]["last_step"])
        assert progress.kind == "validating" or steps[-1] == progress.step
    assert {standing["state"] for standing in standings} == {"training"}
    assert [standing["done"] for standing in standings] == sorted(s["done"] for s in standings)
    data = data_of((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert data["standing"] == {"state": "finished", "done": 1.0}


def test_a_run_that_fails_no_longer_trains(
    tables_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise CharloomError("a failure")

    run_copy = training_run(tables_folder, tmp_path / "run")
    monkeypatch.setattr(run_copy.checkpoints, "save_best", fail)
    with pytest.raises(CharloomError, match="a failure"):
        list(run_copy)
    data = data_of((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert data["standing"]["state"] == "interrupted"


def test_unwritable_page_does_not_end_training(
    tables_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def refuse(*_: Any) -> None:
        raise CharloomError("cannot write the page (the disk is on holiday)")

    monkeypatch.setattr(report_module, "write_page", refuse)
    monkeypatch.setattr("charloom.runs.checkpointing.SAVE_INTERVAL", -1.0)
    command = [
        "train",
        str(tables_folder / "tables.txt"),
        "--out",
        str(tmp_path / "run"),
        "--steps=6",
    ]
    assert main([*command, "--hidden-size=8", "--batch-size=4", "--window=16"]) == 0
    err = capsys.readouterr().err
    assert err.count("holiday") == 1
    assert "training continues" in err
    load_checkpoint(tmp_path / "run" / "model.safetensors")


def test_a_report_belongs_to_a_run(tmp_path: Path, tables_folder: Path) -> None:
    run_copy = training_run(tables_folder, tmp_path / "run")
    (tmp_path / "run" / ".report.html.abc.tmp").write_text("what a killed trainer left")
    list(run_copy)
    (tmp_path / "run" / ".report.html.abc.tmp").write_text("what a killed trainer left")
    list(training_run(tables_folder, tmp_path / "run", resume=True))
    assert not (tmp_path / "run" / ".report.html.abc.tmp").exists()


# --- charloom report ------------------------------------------------------------------------------


def test_the_command_prints_where_the_page_is(
    run_copy: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (run_copy / "report.html").unlink()
    assert main(["report", str(run_copy)]) == 0
    assert capsys.readouterr().out == f"{run_copy / 'report.html'}\n"
    assert drawn(run_copy)["runs"] == data_of((run_copy / "report.html").read_text("utf-8"))["runs"]
    assert main(["report", str(run_copy), str(run_copy)]) == 0
    assert capsys.readouterr().out == "report.html\n"
    assert len(data_of(Path("report.html").read_text("utf-8"))["runs"]) == 2
    assert main(["report", str(run_copy), "--out", "other.html"]) == 0
    assert capsys.readouterr().out == "other.html\n"
    assert Path("other.html").is_file()


def test_several_runs_are_told_apart(run_copy: Path, tmp_path: Path) -> None:
    for tables_folder in ("a/one", "b/one", "b/two"):
        shutil.copytree(run_copy, tmp_path / tables_folder)
    data = drawn(tmp_path / "a/one", tmp_path / "b/one", tmp_path / "b/two", tmp_path / "b/two")
    names = [found["name"] for found in data["runs"]]
    assert names[:2] == ["a/one", "b/one"]
    assert names[2].endswith("b/two")
    assert names[3] == f"{names[2]} (2)"
    assert drawn(tmp_path / "b/one", tmp_path / "b/two")["runs"][1]["name"] == "two"


def test_what_differs_is_marked(run_copy: Path, tables_folder: Path, tmp_path: Path) -> None:
    charloom.train(
        tables_folder / "tables.txt", out=tmp_path / "other", steps=2, cell="rnn", **OPTIONS
    )
    rows = drawn(run_copy, tmp_path / "other")["configuration"]
    differs = {row["name"] for row in rows if row["differs"]}
    assert differs == {"cell", "parameters", "steps", "validate-every"}
    assert next(row["values"] for row in rows if row["name"] == "cell") == ["gru", "rnn"]


def test_a_page_that_no_browser_could_open(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "LARGEST", 1_000)
    with pytest.raises(CharloomError, match="too large"):
        make_report([run_copy])


def test_write_report_returns_its_path(run_copy: Path, tmp_path: Path) -> None:
    assert write_report([run_copy]) == run_copy / "report.html"
    assert write_report([run_copy], tmp_path / "x.html") == tmp_path / "x.html"

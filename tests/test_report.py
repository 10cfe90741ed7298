"""A run's report: its figures are those of the run's files, and it can be drawn of whatever a run
leaves; evaluations that are kept; event files for TensorBoard."""

import bz2
import json
import math
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charloom
from charloom.cli.main import main
from charloom.errors import CharloomError
from charloom.runs import report as report_module
from charloom.runs.opening import open_run
from charloom.runs.report import LiveReport, Standing, make_report, write_report
from charloom.runs.run import RunControl, TrainingRun
from charloom.storage.checkpoint import load_checkpoint, save_checkpoint
from charloom.text.corpora import open_text
from charloom.text.source import Text
from charloom.training.options import TrainingConfig
from charloom.training.state import Progress

TEXT = "".join(f"{i} times {j} is {i * j}\n" for i in range(25) for j in range(25))
OPTIONS: dict[str, Any] = {"hidden_size": 8, "batch_size": 4, "window": 16, "seed": 1}

Captured = pytest.CaptureFixture[str]


# --- Helpers --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "tables.txt").write_text(TEXT, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(place: Path) -> tuple[Path, list[str]]:
    """A run's folder, and its samples as they were drawn."""
    samples: list[str] = []

    def keep(progress: Progress) -> None:
        if progress.sample is not None:
            samples.append(progress.sample)

    charloom.train(
        place / "tables.txt",
        out=place / "run",
        steps=20,
        validate_every=4,
        progress=keep,
        **OPTIONS,
    )
    return place / "run", samples


@pytest.fixture
def run(trained: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """A copy of it, to do things to."""
    return Path(shutil.copytree(trained[0], tmp_path / "copied"))


def data_of(page: str) -> dict[str, Any]:
    """What a page holds for its script."""
    begin = page.index('id="data">') + len('id="data">')
    return json.loads(page[begin : page.index("</script>", begin)])


def drawn(*folders: Path) -> dict[str, Any]:
    return data_of(make_report(folders))


def lines_of(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def report_line(step: int, **figures: Any) -> dict[str, Any]:
    line = {
        "event": "report",
        "step": step,
        "epoch": step / 100,
        "loss": 2.0,
        "smoothed_loss": 2.5,
        "learning_rate": 0.01,
        "gradient_norm": 0.5,
        "timing": {"elapsed_seconds": step / 10, "characters_per_second": 1000.0},
    }
    return line | figures


def validation_line(step: int, nats: float | None) -> dict[str, Any]:
    found = nats and {"nats_per_character": nats, "characters": 500, "protocol": "carried"}
    return report_line(step, event="validation", validation=found, best=True)


def written(folder: Path, lines: list[Any], samples: str = "") -> Path:
    """A run's folder with these lines and samples, and nothing else."""
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    (folder / "samples.txt").write_bytes(samples.encode())
    return folder


# --- What a page holds ----------------------------------------------------------------------------


def test_its_figures_are_those_of_the_run(trained: tuple[Path, list[str]]) -> None:
    folder, samples = trained
    (found,) = drawn(folder)["runs"]
    lines = lines_of(folder)
    reports = [line for line in lines if line["event"] == "report"]
    for name, there in {"step": "step", "epoch": "epoch", **report_module.FIGURES}.items():
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


def test_the_configuration_is_the_runs_own(trained: tuple[Path, list[str]]) -> None:
    rows = {row["name"]: row["values"] for row in drawn(trained[0])["configuration"]}
    assert rows["hidden-size"] == ["8"]
    assert rows["steps"] == ["20"]
    assert rows["epochs"] == ["–"]
    assert rows["text"] == ["tables"]
    assert rows["characters of text"] == [f"{len(TEXT):,}"]


def test_baselines_are_those_of_the_validation_part(trained: tuple[Path, list[str]]) -> None:
    folder, _ = trained
    start = lines_of(folder)[0]
    assert start["event"] == "start"
    bits = {name: b["bits_per_character"] for name, b in start["baselines"].items()}
    first, second = len(TEXT) * 90 // 100, len(TEXT) * 95 // 100
    train, part = TEXT[:first], TEXT[first:second]
    counts = {c: train.count(c) + 1 for c in set(TEXT)}
    total = sum(counts.values())
    assert bits["uniform"] == math.log2(len(counts))
    unigram = -sum(math.log2(counts[c] / total) for c in part) / len(part)
    assert bits["unigram"] == pytest.approx(unigram, abs=1e-12)
    added = len(bz2.compress((train + part).encode())) - len(bz2.compress(train.encode()))
    assert bits["bzip2"] == 8 * added / len(part)
    assert 0 < bits["ngram"] < bits["unigram"]
    (found,) = drawn(folder)["runs"]
    assert {row["name"]: row["bits"] for row in found["baselines"]} == bits


def test_a_short_budget_compresses_nothing(place: Path, tmp_path: Path) -> None:
    charloom.train(
        place / "tables.txt", out=tmp_path / "run", minutes=0.03, engine="reference", no_mix=True
    )
    assert set(lines_of(tmp_path / "run")[0]["baselines"]) == {"uniform", "unigram"}


def test_a_long_run_is_thinned_but_no_validation(tmp_path: Path) -> None:
    lines: list[Any] = []
    for step in range(1, 5_001):
        lines.append(report_line(step))
        if step % 2 == 0:
            lines.append(validation_line(step, 1.5))
    (found,) = drawn(written(tmp_path / "run", lines))["runs"]
    steps = found["reports"]["step"]
    assert len(steps) == report_module.POINTS
    assert steps == sorted(set(steps))
    assert steps[-1] == 5_000
    assert set(np.diff(steps)) == {2, 3}
    assert found["validations"]["step"] == list(range(2, 5_001, 2))


def test_of_too_many_samples_some_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [validation_line(step, 1.5) for step in range(100)]
    samples = "".join(f"--- step {step}, 1.5000 nats\n{step:>300}\n\n" for step in range(100))
    folder = written(tmp_path / "run", lines, samples)
    assert len(drawn(folder)["runs"][0]["samples"]) == 100
    monkeypatch.setattr(report_module, "SAMPLES", 20_000)
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


def test_a_model_of_bytes_has_samples_in_its_text(tmp_path: Path) -> None:
    (tmp_path / "woods.txt").write_text("Wälder → 字\n" * 200, encoding="utf-8")
    charloom.train(
        tmp_path / "woods.txt", out=tmp_path / "run", steps=400, bytes=True, no_mix=True, **OPTIONS
    )
    assert "→ 字\n" in drawn(tmp_path / "run")["runs"][0]["samples"][-1]["text"]


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


def test_lines_that_are_odd_are_passed_over(tmp_path: Path) -> None:
    lines = [report_line(2), *ODD_LINES, report_line(4)]
    (found,) = drawn(written(tmp_path / "run", lines))["runs"]
    assert found["reports"]["step"] == [2, 3, 3, 4]
    assert found["reports"]["loss"] == [2.0, None, 2.0, 2.0]
    assert found["validations"]["nats"] == [None]


@pytest.mark.parametrize(
    "torn", [b'{"event": "report", "st', b"\xff\xfe", b"\0" * 100, b"[" * 10**5]
)
def test_a_torn_last_line_is_passed_over(torn: bytes, run: Path) -> None:
    whole = drawn(run)["runs"]
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    assert drawn(run)["runs"] == whole


@pytest.mark.parametrize(
    "name", ["samples.txt", "model.safetensors", "resume.safetensors", "metrics.jsonl"]
)
@pytest.mark.parametrize("how", ["gone", "empty", "cut", "noise"])
def test_a_file_that_is_not_whole_leaves_the_rest(name: str, how: str, run: Path) -> None:
    (run / "evaluations.json").write_text("[{}, 3]")
    content = (run / name).read_bytes()
    if how == "gone":
        (run / name).unlink()
    else:
        noise = np.random.default_rng(0).bytes(500)
        (run / name).write_bytes(
            {"empty": b"", "cut": content[: len(content) // 2], "noise": noise}[how]
        )
    (found,) = drawn(run)["runs"]
    if name != "metrics.jsonl":
        assert found["validations"]["step"] == [0, 4, 8, 12, 16, 20]


def test_a_run_without_a_validation_part(place: Path, tmp_path: Path) -> None:
    charloom.train(place / "tables.txt", out=tmp_path / "run", steps=3, split="100/0/0", **OPTIONS)
    (found,) = drawn(tmp_path / "run")["runs"]
    assert set(found["validations"]["nats"]) == {None}
    assert found["baselines"] == []
    assert [len(sample["text"]) for sample in found["samples"]] == [300] * 4


def training_run(place: Path, folder: Path, *, resume: bool = False, **control: Any) -> TrainingRun:
    def open_source(config: TrainingConfig) -> Text:
        return open_text(place / "tables.txt")

    options = {"steps": 6, **OPTIONS}
    return open_run(open_source, folder, options, resume=resume, control=RunControl(**control))


def test_a_run_that_is_interrupted_at_once(place: Path, tmp_path: Path) -> None:
    for _ in training_run(place, tmp_path / "run", should_stop=lambda: True):
        pass
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert data_of(page)["standing"]["state"] == "interrupted"
    assert data_of(page)["runs"][0]["reports"]["step"] == []
    assert drawn(tmp_path / "run")["standing"] is None


# --- While it trains ------------------------------------------------------------------------------


def test_a_page_is_there_from_the_start(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charloom.runs.checkpointing.SAVE_INTERVAL", -1.0)
    monkeypatch.setattr(report_module, "REST", 0.0)
    standings, steps = [], []
    for progress in training_run(place, tmp_path / "run"):
        data = data_of((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
        standings.append(data["standing"])
        steps.append(data["runs"][0]["last_step"])
        assert progress.kind == "validating" or steps[-1] == progress.step
    assert {standing["state"] for standing in standings} == {"training"}
    assert [standing["done"] for standing in standings] == sorted(s["done"] for s in standings)
    data = data_of((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert data["standing"] == {"state": "finished", "done": 1.0}


def test_a_run_that_fails_no_longer_trains(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise CharloomError("a failure")

    run = training_run(place, tmp_path / "run")
    monkeypatch.setattr(run.checkpoints, "save_best", fail)
    with pytest.raises(CharloomError, match="a failure"):
        list(run)
    data = data_of((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert data["standing"]["state"] == "interrupted"


def test_a_page_that_cannot_be_written_ends_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def refuse(*_: Any) -> None:
        raise CharloomError("cannot write the page (the disk is on holiday)")

    monkeypatch.setattr(report_module, "write_page", refuse)
    monkeypatch.setattr("charloom.runs.checkpointing.SAVE_INTERVAL", -1.0)
    command = ["train", str(place / "tables.txt"), "--out", str(tmp_path / "run"), "--steps=6"]
    assert main([*command, "--hidden-size=8", "--batch-size=4", "--window=16"]) == 0
    err = capsys.readouterr().err
    assert err.count("holiday") == 1
    assert "training goes on" in err
    load_checkpoint(tmp_path / "run" / "model.safetensors")


def test_drawing_rests_between_two_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    drawings: list[float] = []

    def draw(*_: Any, **__: Any) -> None:
        drawings.append(clock[0])
        clock[0] += 0.5

    monkeypatch.setattr(report_module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(report_module, "refresh_report", draw)
    live = LiveReport(tmp_path, lambda note: None)
    for _ in range(100):
        live.draw(Standing("training", 0.5))
        clock[0] += 1
    assert np.diff(drawings).tolist() == [25.5] * 3  # every 25 seconds it may take half of one
    live.draw(Standing("finished", 1.0), now=True)
    assert drawings[-1] == clock[0] - 0.5


def test_a_report_belongs_to_a_run(tmp_path: Path, place: Path) -> None:
    run = training_run(place, tmp_path / "run")
    (tmp_path / "run" / ".report.html.abc.tmp").write_text("what a killed trainer left")
    list(run)
    (tmp_path / "run" / ".report.html.abc.tmp").write_text("what a killed trainer left")
    list(training_run(place, tmp_path / "run", resume=True))
    assert not (tmp_path / "run" / ".report.html.abc.tmp").exists()


# --- charloom report ------------------------------------------------------------------------------


def test_the_command_prints_where_the_page_is(
    run: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert drawn(run)["runs"] == data_of((run / "report.html").read_text("utf-8"))["runs"]
    assert main(["report", str(run), str(run)]) == 0
    assert capsys.readouterr().out == "report.html\n"
    assert len(data_of(Path("report.html").read_text("utf-8"))["runs"]) == 2
    assert main(["report", str(run), "--out", "other.html"]) == 0
    assert capsys.readouterr().out == "other.html\n"
    assert Path("other.html").is_file()


def test_several_runs_are_told_apart(run: Path, tmp_path: Path) -> None:
    for place in ("a/one", "b/one", "b/two"):
        shutil.copytree(run, tmp_path / place)
    data = drawn(tmp_path / "a/one", tmp_path / "b/one", tmp_path / "b/two", tmp_path / "b/two")
    names = [found["name"] for found in data["runs"]]
    assert names[:2] == ["a/one", "b/one"]
    assert names[2].endswith("b/two")
    assert names[3] == f"{names[2]} (2)"
    assert drawn(tmp_path / "b/one", tmp_path / "b/two")["runs"][1]["name"] == "two"


def test_what_differs_is_marked(run: Path, place: Path, tmp_path: Path) -> None:
    charloom.train(place / "tables.txt", out=tmp_path / "other", steps=2, cell="rnn", **OPTIONS)
    rows = drawn(run, tmp_path / "other")["configuration"]
    differs = {row["name"] for row in rows if row["differs"]}
    assert differs == {"cell", "parameters", "steps", "validate-every"}
    assert next(row["values"] for row in rows if row["name"] == "cell") == ["gru", "rnn"]


# --- Evaluations ----------------------------------------------------------------------------------


def evaluated(capsys: Captured, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["evaluate", *arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_an_evaluation_is_kept_and_shown(run: Path, capsys: Captured) -> None:
    found = evaluated(capsys, str(run))
    page = data_of((run / "report.html").read_text("utf-8"))
    (kept,) = page["runs"][0]["evaluations"]
    assert json.loads((run / "evaluations.json").read_text())[0]["evaluation"] == found
    for there, name in {"nats": "nats_per_character", "bits": "bits_per_character"}.items():
        assert kept[there] == found[name]
    for name in ("text", "protocol", "characters", "bits_per_byte", "perplexity", "accuracy"):
        assert kept[name] == found[name]
    assert kept["interval"] == found["nats_per_character_95_percent"]
    assert kept["overlap"]["characters"] == found["longest_overlap"]["characters"]
    # In the order in which the command prints it.
    assert main(["evaluate", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    begin = next(i for i, line in enumerate(lines) if "bits per character  predictor" in line)
    printed = [line.split()[0] for line in lines[begin + 1 : begin + 1 + len(kept["rows"])]]
    assert printed == [f"{row[0]:.4f}" for row in kept["rows"]]
    assert len(kept["rows"]) == 1 + len(found["baselines"])


def test_the_latest_of_each_kind_is_kept(run: Path, capsys: Captured) -> None:
    for options in ([], ["--network-only"], ["--protocol=cold-16"], []):
        evaluated(capsys, str(run), *options)
    kept = [(e["protocol"], e["ours"]) for e in drawn(run)["runs"][0]["evaluations"]]
    assert kept == [("carried", "this gru"), ("cold-16", "mixture"), ("carried", "mixture")]


def test_another_text_or_a_file_is_not_kept(run: Path, place: Path, capsys: Captured) -> None:
    before = (run / "report.html").read_bytes()
    evaluated(capsys, str(run), str(place / "tables.txt"))
    evaluated(capsys, str(run / "model.safetensors"))
    assert not (run / "evaluations.json").exists()
    assert (run / "report.html").read_bytes() == before


def test_a_folder_that_is_no_runs_is_left_alone(
    run: Path, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "shared").mkdir()
    shutil.copy(run / "model.safetensors", tmp_path / "shared")
    evaluated(capsys, str(tmp_path / "shared"))
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["model.safetensors"]


def test_figures_of_earlier_weights_are_not_shown(run: Path, capsys: Captured) -> None:
    evaluated(capsys, str(run))
    checkpoint = load_checkpoint(run / "model.safetensors")
    checkpoint.parameters.flat[0] += 1
    save_checkpoint(run / "model.safetensors", checkpoint)
    (found,) = drawn(run)["runs"]
    assert (found["evaluations"], found["stale_evaluations"]) == ([], 1)
    evaluated(capsys, str(run), "--protocol=cold-16")
    (found,) = drawn(run)["runs"]
    assert ([e["protocol"] for e in found["evaluations"]], found["stale_evaluations"]) == (
        ["cold-16"],
        0,
    )


def test_an_evaluation_that_cannot_be_kept_is_still_printed(run: Path, capsys: Captured) -> None:
    (run / "evaluations.json").mkdir()
    assert main(["evaluate", str(run)]) == 0
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
def test_a_damaged_file_of_evaluations_is_made_anew(
    content: str, run: Path, capsys: Captured
) -> None:
    sha256 = load_checkpoint(run / "model.safetensors").sha256
    (run / "evaluations.json").write_text(content.replace("SHA256", json.dumps(sha256)))
    assert drawn(run)["runs"][0]["evaluations"] == []
    evaluated(capsys, str(run))
    assert len(drawn(run)["runs"][0]["evaluations"]) == 1


def test_a_run_that_was_evaluated_goes_on(run: Path, place: Path, capsys: Captured) -> None:
    evaluated(capsys, str(run))
    charloom.train(place / "tables.txt", out=run, resume=True, steps=24)
    assert drawn(run)["runs"][0]["last_step"] == 24


# --- TensorBoard ----------------------------------------------------------------------------------


def events_of(folder: Path) -> list[Any]:
    """Every event of a folder's files, oldest first, less what a later file says is taken again."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    events: list[Any] = []
    paths = sorted(folder.iterdir(), key=lambda path: int(path.suffix[1:]))
    for path in paths:
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            event = event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
            place += 16 + length
            if event.HasField("session_log"):
                assert event.session_log.status == event_pb2.SessionLog.START
                events = [earlier for earlier in events if earlier.step < event.step]
            elif event.HasField("summary"):
                events.append(event)
    return events


def expected_events(folder: Path, samples: bool = True) -> dict[tuple[str, int], float]:
    expected = {}
    for line in lines_of(folder):
        step = line["step"]
        if line["event"] == "validation":
            expected["loss/validation", step] = line["validation"]["nats_per_character"]
        elif line["event"] == "report":
            expected["loss/training", step] = line["loss"]
            expected["loss/smoothed", step] = line["smoothed_loss"]
            expected["learning_rate", step] = line["learning_rate"]
            expected["gradient_norm", step] = line["gradient_norm"]
            speed = line["timing"]["characters_per_second"]
            if speed is not None:
                expected["characters_per_second", step] = speed
    return expected


def test_event_files_hold_what_the_metrics_hold(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    command = ["train", str(place / "tables.txt"), "--out", str(tmp_path / "run"), "--steps=9"]
    command += ["--hidden-size=8", "--batch-size=4", "--window=16", "--seed=1"]
    assert main([*command, "--tensorboard"]) == 0
    events = events_of(tmp_path / "run" / "tensorboard")
    values = [(event.summary.value[0], event.step) for event in events]
    scalars = {(v.tag, step): v.simple_value for v, step in values if not v.HasField("tensor")}
    expected = {key: np.float32(v) for key, v in expected_events(tmp_path / "run").items()}
    assert scalars == expected
    texts = [v.tensor.string_val[0].decode() for v, _ in values if v.HasField("tensor")]
    samples = [sample["text"] for sample in drawn(tmp_path / "run")["runs"][0]["samples"]]
    assert texts == ["".join(f"    {line}\n" for line in s.split("\n")) for s in samples]
    # It changes nothing else.
    assert main([*command[:3], str(tmp_path / "without"), *command[4:]]) == 0
    for name in ("model.safetensors", "samples.txt"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


@pytest.mark.parametrize("kind", ["report", "validation"])
def test_no_step_appears_twice_after_a_crash(
    kind: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    monkeypatch.setattr("charloom.runs.checkpointing.SAVE_INTERVAL", -1.0)
    folder = tmp_path / "run"

    def keep(progress: Progress) -> None:
        if progress.step == 6 and progress.kind == kind:  # the step that is validated, and before
            shutil.copy(folder / "resume.safetensors", tmp_path)

    options = {**OPTIONS, "out": folder, "steps": 10, "tensorboard": True}
    charloom.train(place / "tables.txt", validate_every=3, progress=keep, **options)
    shutil.copy(tmp_path / "resume.safetensors", folder)  # all that came after is lost
    charloom.train(place / "tables.txt", resume=True, **{**options, "seed": None})
    events = events_of(folder / "tensorboard")
    found = [(value.tag, event.step) for event in events for value in event.summary.value]
    assert len(found) == len(set(found))
    expected = set(expected_events(folder))
    assert {key for key in found if "sample" not in key[0]} == expected
    assert [step for tag, step in found if "sample" in tag] == [0, 3, 6, 9, 10]


def test_a_page_that_no_browser_could_open(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "LARGEST", 1_000)
    with pytest.raises(CharloomError, match="too large"):
        make_report([run])


def test_write_report_returns_its_path(run: Path, tmp_path: Path) -> None:
    assert write_report([run]) == run / "report.html"
    assert write_report([run], tmp_path / "x.html") == tmp_path / "x.html"

"""Event files for TensorBoard hold what the metrics hold, each step once."""

import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charloom
from charloom.cli.main import main
from charloom.training.state import Progress
from helpers.reports import OPTIONS, drawn, lines_of

# --- TensorBoard ----------------------------------------------------------------------------------


def events_of(folder: Path) -> list[Any]:
    """Every event of a folder's files, oldest first, less what a later file says is taken again."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    events: list[Any] = []
    paths = sorted(folder.iterdir(), key=lambda path: int(path.suffix[1:]))
    for path in paths:
        data, tables_folder = path.read_bytes(), 0
        while tables_folder < len(data):
            (length,) = struct.unpack_from("<Q", data, tables_folder)
            event = event_pb2.Event.FromString(
                data[tables_folder + 12 : tables_folder + 12 + length]
            )
            tables_folder += 16 + length
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


def test_event_files_hold_what_the_metrics_hold(tables_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    command = [
        "train",
        str(tables_folder / "tables.txt"),
        "--out",
        str(tmp_path / "run"),
        "--steps=9",
    ]
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
    kind: str, tables_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    monkeypatch.setattr("charloom.runs.checkpointing.SAVE_INTERVAL", -1.0)
    folder = tmp_path / "run"

    def keep(progress: Progress) -> None:
        if progress.step == 6 and progress.kind == kind:  # the step that is validated, and before
            shutil.copy(folder / "resume.safetensors", tmp_path)

    options = {**OPTIONS, "out": folder, "steps": 10, "tensorboard": True}
    charloom.train(tables_folder / "tables.txt", validate_every=3, progress=keep, **options)
    shutil.copy(tmp_path / "resume.safetensors", folder)  # all that came after is lost
    charloom.train(tables_folder / "tables.txt", resume=True, **{**options, "seed": None})
    events = events_of(folder / "tensorboard")
    found = [(value.tag, event.step) for event in events for value in event.summary.value]
    assert len(found) == len(set(found))
    expected = set(expected_events(folder))
    assert {key for key in found if "sample" not in key[0]} == expected
    assert [step for tag, step in found if "sample" in tag] == [0, 3, 6, 9, 10]

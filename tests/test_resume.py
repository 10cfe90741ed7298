"""What a run promises about being stopped and going on.

- Killed (SIGKILL) at any moment, halfway through a write and between two renames too, a run that
  goes on with --resume ends in the same weights, optimizer state, samples and metrics, byte for
  byte, as one that ran through; only times may differ.
- SIGINT and SIGTERM finish the step, save, and print a command that goes on; a second signal
  leaves at once. Neither loses anything.
- --resume starts what is not there yet, refuses another text or other options and changes nothing
  then, and goes on further when an end is raised.
- A loss that is not finite, a full disk and a second trainer end in one sentence and leave a folder
  that can be gone on with.

Kills are exact, not timed: a driver runs the command and counts points, before and after whatever
it does to a file, before every step and every piece of a validation. At a point that a test names
it kills itself, sends itself signals, waits, or finds the disk full.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from charloom.cli.main import main
from charloom.engines.backend import Backend
from charloom.storage.checkpoint import load_checkpoint

posix_only = pytest.mark.skipif(
    os.name != "posix", reason="Windows has no SIGKILL, and its SIGINT and SIGTERM are others"
)

DRIVER = """
import errno, json, os, signal, stat, sys, tempfile, time
from collections import Counter
from pathlib import Path

from charloom.cli.main import main
from charloom.cli.terminal import Interrupts
from charloom.engines.backend import Backend
from charloom.runs import checkpointing, report
from charloom.training import loop

plan = json.loads(sys.argv[1])
notes = plan["notes"]
actions = plan.get("actions", {})
counts, points = Counter(), []
disk_is_full = False


def point(name, writes=False):
    global disk_is_full
    counts[name] += 1
    points.append(f"{name} #{counts[name]}")
    action = actions.get(points[-1])
    if action == "wait":
        Path(notes + ".reached").touch()
        deadline = time.monotonic() + 60
        while not Path(notes + ".released").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    elif action == "full disk":
        disk_is_full = True
    elif action is not None:
        for name in action.split():
            os.kill(os.getpid(), signal.Signals[name])
    if writes and disk_is_full:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def watched(function, describe, writes=False):
    def call(*arguments, **named):
        name = describe(*arguments, **named)
        point("before " + name, writes)
        result = function(*arguments, **named)
        point("after " + name)
        return result

    return call


class WatchedFile:
    def __init__(self, file, name):
        self.file, self.name = file, name

    def write(self, data):
        half = len(data) // 2
        point("before writing " + self.name, writes=True)
        self.file.write(data[:half])
        self.file.flush()
        point("halfway through writing " + self.name, writes=True)
        self.file.write(data[half:])
        point("after writing " + self.name)
        return len(data)

    def truncate(self, size):
        point("before cutting " + self.name)
        self.file.truncate(size)
        point("after cutting " + self.name)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.__exit__(*error)


names = {}
make_temporary, open_handle, open_path = tempfile.mkstemp, os.fdopen, Path.open


def watched_make_temporary(*arguments, prefix, **named):
    name = prefix.strip(".")
    point("before making a temporary " + name, writes=True)
    handle, path = make_temporary(*arguments, prefix=prefix, **named)
    names[handle] = name
    point("after making a temporary " + name)
    return handle, path


def watched_open_path(self, mode="r", *arguments, **named):
    file = open_path(self, mode, *arguments, **named)
    return WatchedFile(file, self.name) if "a" in mode else file


def watched_validate(*arguments):
    scoring = validate(*arguments)
    while True:
        point("before a piece of validation")
        try:
            scored = next(scoring)
        except StopIteration as end:
            return end.value
        yield scored


def watched_open(*arguments, **named):
    engine = open_engine(*arguments, **named)
    engine.train_step = watched(engine.train_step, lambda *_: "a step")
    return engine


def watched_handle(self, number, frame):
    handle(self, number, frame)
    Path(notes + ".received").touch()


def kind(handle):
    return "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"


tempfile.mkstemp = watched_make_temporary
os.fdopen = lambda handle, mode: WatchedFile(open_handle(handle, mode), names[handle])
os.fsync = watched(os.fsync, lambda handle: "syncing a " + kind(handle), writes=True)
Path.open = watched_open_path
Path.chmod = watched(Path.chmod, lambda *_: "chmod")
Path.replace = watched(Path.replace, lambda _, new: "renaming to " + Path(new).name)
Path.unlink = watched(Path.unlink, lambda *_, **__: "unlinking")
Path.mkdir = watched(Path.mkdir, lambda *_, **__: "making a folder")
validate, loop.validate = loop.validate, watched_validate
open_engine, Backend.open = Backend.open, watched_open
handle, Interrupts._handle = Interrupts._handle, watched_handle
checkpointing.SAVE_INTERVAL = plan.get("save_every", -1.0)  # after every step
report.REST = 0.0  # each time with it, whatever a clock says
if "largest_file" in plan:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (plan["largest_file"],) * 2)
status = main(sys.argv[2:])
with open(notes + ".points", "w") as file:
    json.dump(points, file)
sys.exit(status)
"""

SENTENCES = (
    "The cat sat on the mat.\n",
    "A dog ran after the ball, and the cat ran too.\n",
    "Why does it rain?\n",
    "“It rains,” said the dog.\n",
)

# They differ in what a run carries from step to step: hidden state, masks, each optimizer's slots,
# the place in an epoch, the best validation. Each passes over the text more than once, but classic.
CONFIGURATIONS = {
    "lstm": "--cell lstm --layers 2 --dropout 0.3 --weight-drop 0.2 --hidden-size 8 "
    "--batch-size 8 --window 16 --steps 24",
    "gru": "--cell gru --optimizer sgd --schedule linear --hidden-size 8 --batch-size 8 "
    "--window 16 --seed 5 --steps 24 --refit 0.4",
    "classic": "--preset classic --hidden-size 8 --steps 24",
    "whole": "--cell rnn --optimizer rmsprop --split 100/0/0 --hidden-size 8 --batch-size 8 "
    "--window 16 --steps 24",
    "float64": "--dtype float64 --optimizer adagrad --hidden-size 8 --batch-size 8 --window 16 "
    "--epochs 2.2",
}
CONFIGURATIONS = {name: f"{what} --validate-every 5" for name, what in CONFIGURATIONS.items()}
SMALL = "--hidden-size 4 --batch-size 4 --window 8 --validate-every 3"


def generated_text(sentences: Sequence[str], count: int, seed: int) -> str:
    chance = random.Random(seed)
    return "".join(chance.choice(sentences) for _ in range(count))


class Workshop:
    """A folder with a text and the driver, and runs on that text that ran through."""

    def __init__(self, path: Path) -> None:
        self.text = path / "text.txt"
        self.text.write_text(generated_text(SENTENCES, 48, seed=1), encoding="utf-8")
        self._path = path
        self._driver = path / "driver.py"
        self._driver.write_text(DRIVER, encoding="utf-8")
        self._through: dict[str, dict[str, Any]] = {}
        self._kept: dict[str, Path] = {}

    def arguments(self, folder: Path, options: str) -> list[str]:
        return ["train", str(self.text), "--out", str(folder), *options.split()]

    def train(self, folder: Path, options: str) -> subprocess.CompletedProcess[str]:
        """The command itself, in a process of its own."""
        return run([sys.executable, "-m", "charloom", *self.arguments(folder, options)])

    def driven(self, folder: Path, options: str, **plan: Any) -> list[str]:
        """The command under the driver, to be run."""
        text = json.dumps({"notes": str(note(folder, "")), **plan})
        return [sys.executable, str(self._driver), text, *self.arguments(folder, options)]

    def drive(self, folder: Path, options: str, **plan: Any) -> subprocess.CompletedProcess[str]:
        return run(self.driven(folder, options, **plan))

    def copy(self, folder: Path, options: str, **plan: Any) -> Path:
        """A copy of the folder that the driver leaves, which is made once."""
        key = json.dumps([options, plan])
        if key not in self._kept:
            self._kept[key] = self._path / f"kept-{len(self._kept)}"
            done = self.drive(self._kept[key], options, **plan)
            assert done.returncode == 0 or plan, done.stderr
        return Path(shutil.copytree(self._kept[key], folder))

    def points(self, options: str) -> list[str]:
        """The points that the driver passes in a run, in turn."""
        folder = self._path / f"driven-{len(list(self._path.iterdir()))}"
        done = self.drive(folder, options)
        assert done.returncode == 0, done.stderr
        # Saving after every step, as the driver does, changes nothing.
        assert differences(folder, self.through(options)) == []
        return list(json.loads(note(folder, ".points").read_text(encoding="utf-8")))

    def through(self, options: str) -> dict[str, Any]:
        """The content of a run with these options that nothing stopped."""
        if options not in self._through:
            folder = self._path / f"through-{len(self._through)}"
            done = self.train(folder, options)
            assert done.returncode == 0, done.stderr
            self._through[options] = content_of(folder)
        return self._through[options]

    def resume_and_compare(self, folder: Path, options: str, *, here: bool = True) -> list[str]:
        """Goes on to the end, in this process or another: what then differs from a run with the
        same options that ran through.

        The options are left out, they are the run's, if it has got so far as to be saved.
        """
        started = (folder / "resume.safetensors").exists()
        options_now = "--resume" if started else f"{options} --resume"
        if here:
            assert main(self.arguments(folder, options_now)) == 0
        else:
            done = self.train(folder, options_now)
            assert done.returncode == 0, done.stderr
            said(done.stderr)
        return differences(folder, self.through(options))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


def run(command: Sequence[str], **settings: Any) -> subprocess.CompletedProcess[str]:
    settings = {"check": False, "timeout": 60, **settings}
    return subprocess.run(command, capture_output=True, encoding="utf-8", **settings)


def note(folder: Path, name: str) -> Path:
    """Where the driver writes what it has to say about the run in a folder."""
    return folder.with_name(folder.name + name)


def said(errors: str) -> list[str]:
    """What the command said for itself; nothing unforeseen may stand beside it."""
    assert "Traceback" not in errors, errors
    assert "Warning" not in errors, errors
    return [line for line in errors.splitlines() if line.startswith("charloom: ")]


def content_of(folder: Path) -> dict[str, Any]:
    """All that two runs with the same options must have alike, by name."""
    content: dict[str, Any] = {"files": file_names(folder)}
    for name in ("model.safetensors", "samples.txt"):
        content[name] = (folder / name).read_bytes()
    for index, line in enumerate(metrics_of(folder)):
        assert line.pop("timing")
        content[f"metrics line {index}"] = json.dumps(line)
    return content | content_of_resume_file(folder / "resume.safetensors")


def content_of_resume_file(path: Path) -> dict[str, Any]:
    """Every tensor's bytes and every entry of the header, without what a clock decided."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    tensors = json.loads(data[8:begin])
    header = tensors.pop("__metadata__")
    position = json.loads(header.pop("position"))
    del header["sha256"], position["state"]["elapsed"]
    content = {f"header {name}": value for name, value in header.items()}
    content |= {f"position {name}": value for name, value in position.items()}
    for name, tensor in tensors.items():
        first, last = tensor["data_offsets"]
        values = data[begin + first : begin + last]
        content[f"tensor {name}"] = (tensor["dtype"], tensor["shape"], values)
    return content


def tensors_of(folder: Path) -> dict[str, Any]:
    content = content_of_resume_file(folder / "resume.safetensors")
    return {name: value for name, value in content.items() if name.startswith("tensor ")}


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def differences(folder: Path, expected: dict[str, Any]) -> list[str]:
    """What is not as expected in a run's folder: its name, and both values if they are short."""
    content = content_of(folder)
    found = []
    for name in sorted(content.keys() | expected.keys()):
        if content.get(name) != expected.get(name):
            bulky = name.startswith("tensor") or "." in name
            values = "" if bulky else f": {content.get(name)}, not {expected.get(name)}"
            found.append(name + values)
    return found


def file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def file_hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, "the process ended before it should have"
        assert time.monotonic() < deadline, f"there is no {path.name} after a minute"
        time.sleep(0.005)


def command_line(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> tuple[int, str]:
    """The command in this process: its exit status, and all that it wrote to standard error."""
    capsys.readouterr()
    status = main(arguments)
    return status, capsys.readouterr().err


def refusal(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> str:
    """The one line with which a command is refused."""
    status, errors = command_line(capsys, arguments)
    assert status == 2, errors
    (line,) = errors.strip().splitlines()
    return line


# Killed


def sampled(points: Sequence[str], share: int) -> list[str]:
    """A share of the kinds of points, each at a moment of the run that is chosen by chance, but
    always the same; and in the last validation, between the renames of its two files.

    Between the point after one thing and the point before the next nothing happens to a file.
    """
    chance = random.Random(share)
    kinds: dict[str, list[str]] = {}
    for point in points:
        if not point.startswith("after"):
            kinds.setdefault(point.partition(" #")[0], []).append(point)
    chosen = [chance.choice(kinds[kind]) for kind in sorted(kinds)[share :: len(CONFIGURATIONS)]]
    last = max(n for n, point in enumerate(points) if point.startswith("after writing samples.txt"))
    renames = [point for point in points[last:] if point.startswith("before renaming to")]
    return [renames[1], *chosen]


@posix_only
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_killed_run_ends_like_one_that_ran_through(
    name: str, workshop: Workshop, tmp_path: Path
) -> None:
    options = CONFIGURATIONS[name]

    def kill_and_go_on(point: str) -> list[str]:
        folder = tmp_path / point.replace(" ", "-")
        killed = workshop.drive(folder, options, actions={point: "SIGKILL"})
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        return workshop.resume_and_compare(folder, options, here=False)

    chosen = sampled(workshop.points(options), list(CONFIGURATIONS).index(name))
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(chosen, pool.map(kill_and_go_on, chosen), strict=True))
    assert {point: what for point, what in found.items() if what} == {}


@posix_only
def test_a_run_can_be_killed_again_and_again(workshop: Workshop, tmp_path: Path) -> None:
    options, folder = CONFIGURATIONS["lstm"], tmp_path / "run"
    for resume, point in (
        ("", "halfway through writing metrics.jsonl #9"),
        (" --resume", "after cutting metrics.jsonl #1"),
        (" --resume", "halfway through writing resume.safetensors #6"),
        (" --resume", "before unlinking #1"),
        (" --resume", "after renaming to model.safetensors #1"),
    ):
        killed = workshop.drive(folder, options + resume, actions={point: "SIGKILL"})
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert workshop.resume_and_compare(folder, options) == []


@posix_only
@pytest.mark.parametrize("point", ["before a step #9", "before writing samples.txt #2"])
def test_killed_between_a_report_and_a_validation(
    point: str, workshop: Workshop, tmp_path: Path
) -> None:
    # In a longer run not every step is reported: this validation, after step 9, tells the loss
    # that was reported after step 8.
    options, folder = f"{SMALL} --steps 220 --validate-every 9", tmp_path / "run"
    killed = workshop.drive(folder, options, actions={point: "SIGKILL"})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert workshop.resume_and_compare(folder, options) == []


@posix_only
def test_files_are_on_the_disk_before_they_have_their_names(workshop: Workshop) -> None:
    # What a power cut would show and no kill can: each file is synced, renamed, and its name too.
    points = [point.partition(" #")[0] for point in workshop.points(CONFIGURATIONS["gru"])]
    renames = [n for n, point in enumerate(points) if point.startswith("before renaming to")]
    assert len(renames) > 24
    for number in renames:
        name = points[number].rpartition(" ")[2]
        written = number - points[number::-1].index(f"after writing {name}")
        assert "after syncing a file" in points[written:number]
        assert points[number + 1 : number + 3] == [
            f"after renaming to {name}",
            "before syncing a folder",
        ]
        if name == "resume.safetensors":  # it tells how long the two texts are
            made = number - points[number::-1].index(f"before making a temporary {name}")
            assert points[made - 4 : made].count("after syncing a file") == 2


# Signals


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which `charloom` is the command that is tested."""
    script = tmp_path / "bin" / "charloom"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m charloom "$@"\n')
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"}


def printed_command(errors: str) -> str:
    (line,) = said(errors)
    assert line.startswith("charloom: interrupted at step "), line
    return line.partition("all is saved. To go on: ")[2]


@posix_only
@pytest.mark.parametrize(
    ("name", "status", "point"),
    [
        ("SIGINT", 130, "before a step #8"),
        ("SIGTERM", 143, "before a step #10"),  # whose validation is then still to come
        ("SIGINT", 130, "halfway through writing resume.safetensors #2"),
        ("SIGTERM", 143, "before writing samples.txt #2"),
    ],
)
def test_a_signal_saves_and_the_printed_command_goes_on(
    name: str,
    status: int,
    point: str,
    workshop: Workshop,
    tmp_path: Path,
    shell: dict[str, str],
) -> None:
    options, folder = CONFIGURATIONS["lstm"], tmp_path / "a run's folder"
    stopped = workshop.drive(folder, options, actions={point: name}, save_every=1e9)
    assert stopped.returncode == status, stopped.stderr
    position = load_checkpoint(folder / "resume.safetensors").position
    assert position is not None
    assert f"interrupted at step {position['state']['step']}; all is saved" in stopped.stderr
    assert position["state"]["step"] == metrics_of(folder)[-1]["step"]
    done = run(printed_command(stopped.stderr), shell=True, env=shell, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert differences(folder, workshop.through(options)) == []


@posix_only
def test_a_signal_within_a_validation_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    workshop.text.write_text(generated_text(SENTENCES, 3500, seed=2), encoding="utf-8")
    options = f"{SMALL} --split 5/95/0 --steps 4 --validate-every 2"
    folder = tmp_path / "run"
    pieces = [point for point in workshop.points(options) if point.startswith("before a piece")]
    in_each = len(pieces) // 3  # of the validations after steps 0, 2 and 4
    assert in_each >= 4, "the validation part is too short for several pieces"
    stopped = workshop.drive(folder, options, actions={pieces[in_each + 1]: "SIGINT"})
    assert stopped.returncode == 130, stopped.stderr
    assert "interrupted at step 2;" in stopped.stderr
    assert len([line for line in metrics_of(folder) if line["event"] == "validation"]) == 1
    assert workshop.resume_and_compare(folder, options) == []


@posix_only
@pytest.mark.parametrize(
    ("names", "status", "point"),
    [
        ("SIGINT SIGINT", 130, "before a step #8"),
        ("SIGTERM SIGTERM", 143, "halfway through writing resume.safetensors #9"),
        ("SIGINT SIGTERM", 143, "after renaming to model.safetensors #2"),
    ],
)
def test_a_second_signal_leaves_at_once(
    names: str, status: int, point: str, workshop: Workshop, tmp_path: Path
) -> None:
    options, folder = CONFIGURATIONS["lstm"], tmp_path / "run"
    stopped = workshop.drive(folder, options, actions={point: names})
    assert stopped.returncode == status, stopped.stderr
    assert said(stopped.stderr) == []
    assert workshop.resume_and_compare(folder, options) == []


@posix_only
@pytest.mark.parametrize("second", [None, signal.SIGINT, signal.SIGTERM])
def test_signals_from_outside(
    second: signal.Signals | None, workshop: Workshop, tmp_path: Path
) -> None:
    options, folder = CONFIGURATIONS["gru"], tmp_path / "run"
    command = workshop.driven(folder, options, actions={"before a step #9": "wait"})
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        wait_for(note(folder, ".reached"), process)
        process.send_signal(signal.SIGINT)
        wait_for(note(folder, ".received"), process)
        assert process.poll() is None  # the step is not finished
        if second is None:
            note(folder, ".released").touch()
        else:
            process.send_signal(second)
        errors = process.communicate(timeout=30)[1]
    assert process.returncode == 128 + (second or signal.SIGINT)
    assert ("all is saved" in errors) == (second is None)
    assert metrics_of(folder)[-1]["step"] == (9 if second is None else 8)
    assert workshop.resume_and_compare(folder, options) == []


@posix_only
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_before_the_first_step_leaves_at_once(
    name: str, status: int, workshop: Workshop, tmp_path: Path
) -> None:
    options, folder = CONFIGURATIONS["gru"], tmp_path / "run"
    workshop.drive(folder, options, actions={"before a step #9": "SIGKILL"})
    before = (folder / "resume.safetensors").read_bytes()
    stopped = workshop.drive(folder, "--resume", actions={"before cutting samples.txt #1": name})
    assert stopped.returncode == status, stopped.stderr
    assert said(stopped.stderr) == []
    assert (folder / "resume.safetensors").read_bytes() == before
    assert workshop.resume_and_compare(folder, options) == []


# Where there is no run yet, or another


@pytest.mark.parametrize("there", [(), ("empty folder",), ("empty folder", "killed before a save")])
def test_resume_starts_where_there_is_no_checkpoint(
    there: tuple[str, ...],
    workshop: Workshop,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options, folder = CONFIGURATIONS["gru"], tmp_path / "deep" / "run"
    if "empty folder" in there:
        folder.mkdir(parents=True)
    if "killed before a save" in there:
        (folder / "metrics.jsonl").write_text('{"event": "validation", "st', encoding="utf-8")
        (folder / "samples.txt").write_text("--- step 0", encoding="utf-8")
        (folder / ".model.safetensors.abcdefgh.tmp").write_bytes(b"half")
    status, errors = command_line(capsys, workshop.arguments(folder, f"{options} --resume"))
    assert status == 0, errors
    assert differences(folder, workshop.through(options)) == []


@pytest.fixture
def finished(workshop: Workshop, tmp_path: Path) -> Path:
    """The folder of a run that came to its end."""
    return workshop.copy(tmp_path / "finished", f"{SMALL} --steps 6")


def test_a_used_folder_is_refused_without_resume(
    finished: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file_hashes(finished)
    line = refusal(capsys, workshop.arguments(finished, f"{SMALL} --steps 6"))
    assert "already holds a run" in line
    assert "--resume" in line
    assert file_hashes(finished) == before


def test_a_folder_of_something_else_is_refused_and_left_alone(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "letters"
    folder.mkdir()
    for name in ("letter.txt", ".letter.txt.tmp"):
        (folder / name).write_text("Dear")
    before = file_hashes(folder)
    assert "is not empty" in refusal(capsys, workshop.arguments(folder, SMALL))
    assert {name: found for name, found in file_hashes(folder).items() if name != ".lock"} == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--hidden-size 5", "--hidden-size is 5, but the run has 4"),
        ("--cell lstm", "--cell is lstm, but the run has gru"),
        ("--layers 2", "--layers is 2, but the run has 1"),
        ("--dropout 0.5", "--dropout is 0.5, but the run has 0"),
        ("--dtype float64", "--dtype is float64, but the run has float32"),
        ("--batch-size 2", "--batch-size is 2, but the run has 4"),
        ("--window 9", "--window is 9, but the run has 8"),
        ("--optimizer sgd", "--optimizer is sgd, but the run has adamw"),
        ("--learning-rate 0.1", "--learning-rate is 0.1, but the run has 0.004"),
        ("--schedule linear", "--schedule is linear, but the run has cosine"),
        ("--warmup 0.5", "--warmup is 0.5, but the run has 0.02"),
        ("--clip 2", "--clip is 2.0, but the run has 1"),
        ("--split 80/10/10", "--split is 80/10/10, but the run has 90/5/5"),
        ("--seed 1", "--seed is 1, but the run has 0"),
        ("--validate-every 2", "--validate-every is 2, but the run has 3"),
        ("--preset classic", "--preset is classic, but the run has auto"),
        ("--normalize-newlines", "--normalize-newlines is"),
        ("--bytes", "--bytes is"),
        ("--from elsewhere", "--from is"),
        ("--steps 5", "--steps 5 is less than the run's 6"),
        ("--hidden-size 0", "--hidden-size is 0"),
    ],
)
def test_other_options_are_refused_by_name(
    options: str,
    named: str,
    finished: Path,
    workshop: Workshop,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = file_hashes(finished)
    line = refusal(capsys, workshop.arguments(finished, f"{options} --resume"))
    assert named in line
    assert file_hashes(finished) == before


def test_another_text_is_refused(
    finished: Path, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / workshop.text.name
    other.write_text(workshop.text.read_text(encoding="utf-8") + ".", encoding="utf-8")
    before = file_hashes(finished)
    line = refusal(capsys, ["train", str(other), "--out", str(finished), "--resume"])
    assert "is not the one that the run was trained on" in line
    assert file_hashes(finished) == before


@pytest.mark.parametrize("options", ["", f"{SMALL} --steps 6 --seed 0 --cell gru"])
def test_a_finished_run_stays_as_it_is(
    options: str, finished: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    content, before = content_of(finished), file_hashes(finished)
    status, errors = command_line(capsys, workshop.arguments(finished, f"{options} --resume"))
    assert status == 0, errors
    assert differences(finished, content) == []
    after = file_hashes(finished)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {"resume.safetensors", "report.html"}
    assert "the best validation was" in errors


def test_a_file_of_options_is_compared_like_options(
    finished: Path, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.toml"
    arguments = [*workshop.arguments(finished, "--resume"), "--config", str(file)]
    file.write_text("hidden-size = 4\ndropout = 0\n")
    assert command_line(capsys, arguments)[0] == 0
    file.write_text("hidden-size = 4\nwindow = 9\n")
    assert "--window is 9, but the run has 8" in refusal(capsys, arguments)


@pytest.mark.parametrize(
    ("name", "content", "option"),
    [
        ("crlf.txt", ("The cat sat.\r\nThe dog sat.\r\n" * 40).encode(), "--normalize-newlines"),
        ("latin.txt", ("Le chat était là.\n" * 40).encode("latin-1"), "--bytes"),
    ],
)
def test_options_left_out_are_the_run_s_in_its_usual_folder_too(
    name: str,
    content: bytes,
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    assert main(["train", name, option, *SMALL.split(), "--steps", "2"]) == 0
    status, errors = command_line(capsys, ["train", name, "--resume", "--steps", "4"])
    assert status == 0, errors
    assert metrics_of(tmp_path / "runs" / Path(name).stem)[-1]["step"] == 4


# Further


@pytest.mark.parametrize(
    ("first", "less", "more"),
    [
        ("--steps 6", "--steps 5", "--steps 12"),
        ("--epochs 0.25", "--epochs 0.2", "--epochs 0.5"),
        ("--minutes 800 --steps 6", "--minutes 700", "--minutes 900 --steps 12"),
    ],
)
def test_an_end_can_be_raised_and_not_lowered(
    first: str,
    less: str,
    more: str,
    workshop: Workshop,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Only with a constant learning rate do the first steps not depend on where the run ends.
    constant = f"{SMALL} --schedule constant --warmup 0"
    folder, through = tmp_path / "run", tmp_path / "through"
    assert main(workshop.arguments(through, f"{constant} {more}")) == 0
    assert main(workshop.arguments(folder, f"{constant} {first}")) == 0
    lines, samples = metrics_of(folder), (folder / "samples.txt").read_bytes()
    line = refusal(capsys, workshop.arguments(folder, f"{less} --resume"))
    assert line.startswith(f"charloom: {less}")
    assert "is less than the run's" in line
    assert main(workshop.arguments(folder, f"{more} --resume")) == 0
    assert lines[-1]["step"] < metrics_of(folder)[-1]["step"] == metrics_of(through)[-1]["step"]
    assert metrics_of(folder)[: len(lines)] == lines
    assert (folder / "samples.txt").read_bytes().startswith(samples)
    assert tensors_of(folder) == tensors_of(through)


def test_more_minutes_go_on(
    workshop: Workshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seconds = 0.0

    def clock() -> float:
        nonlocal seconds
        seconds += 0.05
        return seconds

    for module in ("cli.main", "runs.clock", "training.schedule"):
        monkeypatch.setattr(f"charloom.{module}.time", SimpleNamespace(monotonic=clock))
    folder, steps = tmp_path / "run", [0]
    for minutes in (0.1, 0.2, 0.4):
        seconds += 10_000  # between the commands
        options = SMALL if minutes == 0.1 else "--resume"
        assert main(workshop.arguments(folder, f"{options} --minutes {minutes}")) == 0
        lines = metrics_of(folder)
        elapsed = [line["timing"]["elapsed_seconds"] for line in lines]
        assert elapsed == sorted(elapsed)
        assert 30 * minutes < elapsed[-1] < 60 * minutes + 1
        assert lines[-1]["step"] > steps[-1]
        steps.append(lines[-1]["step"])
    refusal(capsys, workshop.arguments(folder, "--resume --minutes 0.3"))


@pytest.mark.parametrize("options", ["--threads 1", "--engine reference --threads 3"])
def test_other_threads_are_only_noted(
    options: str, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(workshop.arguments(folder, f"{SMALL} --steps 3 --threads 2")) == 0
    arguments = workshop.arguments(folder, "--resume --steps 4")
    status, errors = command_line(capsys, arguments)
    assert status == 0
    assert "threads: 2" in errors  # the run's own
    assert "not repeat" not in errors
    arguments = workshop.arguments(folder, f"--resume --steps 6 {options}")
    status, errors = command_line(capsys, arguments)
    assert status == 0
    assert f"threads: {options[-1]}" in errors
    notes = [line for line in errors.splitlines() if "will not repeat to the byte" in line]
    assert len(notes) == 1
    assert "compiled on 2 threads" in notes[0]
    assert metrics_of(folder)[-1]["step"] == 6


def test_an_engine_left_out_is_the_run_s(
    workshop: Workshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # As if there were another engine, which `auto` prefers to the one that the run asked for.
    open_backend = Backend.open

    def open_one_of_two(self: Backend, *arguments: Any, **named: Any) -> Any:
        engine = open_backend(Backend("reference", self.threads), *arguments, **named)
        engine.name = {"auto": "other"}.get(self.engine, self.engine)
        return engine

    monkeypatch.setattr(Backend, "open", open_one_of_two)
    folder = tmp_path / "run"
    assert main(workshop.arguments(folder, f"{SMALL} --steps 3 --engine reference")) == 0
    status, errors = command_line(capsys, workshop.arguments(folder, "--resume --steps 6"))
    assert status == 0, errors
    assert "engine reference" in errors
    assert "not repeat" not in errors


# What goes wrong


@pytest.mark.parametrize("more", ["", "--steps 8"])
def test_a_model_that_is_gone_is_looked_for_anew(
    more: str, finished: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished / "model.safetensors").unlink()
    status, errors = command_line(capsys, workshop.arguments(finished, f"--resume {more}"))
    assert status == 0, errors
    assert "the search for the best weights starts again" in errors
    assert "the best validation was" in errors
    load_checkpoint(finished / "model.safetensors")


def test_samples_that_are_gone_are_not_made_up(finished: Path, workshop: Workshop) -> None:
    (finished / "samples.txt").unlink()
    assert main(workshop.arguments(finished, "--resume --steps 8")) == 0
    assert (finished / "samples.txt").read_text(encoding="utf-8").startswith("--- step 8, ")


@pytest.mark.parametrize(
    "options",
    [
        "--cell lstm --learning-rate 1e6 --clip 0",
        "--cell gru --learning-rate 1e6 --optimizer adamw --clip 1",
        "--cell rnn --learning-rate 1e6 --clip 0 --split 100/0/0",
        "--cell lstm --learning-rate 1e5 --clip 0 --validate-every 1",
        "--cell lstm --learning-rate 1e6 --clip 0 --split 100/0/0 --validate-every 1",
    ],
)
def test_a_loss_that_is_not_finite_ends_in_a_sentence(
    options: str, workshop: Workshop, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    done = workshop.train(folder, f"{SMALL} --steps 200 {options}")
    assert done.returncode == 2, done.stderr
    (line,) = said(done.stderr)
    assert "the loss became NaN or infinite at step " in line
    assert "--learning-rate" in line
    assert "smaller --clip (it is 0)" not in line  # there is no limit to make smaller
    for name in ("model.safetensors", "resume.safetensors"):
        checkpoint = load_checkpoint(folder / name)
        assert np.isfinite(checkpoint.parameters.flat).all()
    assert file_names(folder) == sorted(
        ["metrics.jsonl", "model.safetensors", "report.html", "resume.safetensors", "samples.txt"]
    )


@pytest.fixture
def killed(workshop: Workshop, tmp_path: Path) -> Path:
    """The folder of an lstm's run that was killed after eight of its steps."""
    actions = {"before a step #9": "SIGKILL"}
    return workshop.copy(tmp_path / "killed", CONFIGURATIONS["lstm"], actions=actions)


def refused_write(errors: str) -> None:
    """A report that could not be drawn before, which ends nothing, may have been told of."""
    *notes, line = said(errors)
    assert all("report.html" in note and "training goes on" in note for note in notes)
    assert len(notes) <= 1
    assert line.startswith("charloom: cannot write to ")
    assert "the last checkpoint there is intact" in line
    assert "--resume" in line


@posix_only
@pytest.mark.parametrize(
    "point",
    [
        "before making a temporary resume.safetensors #1",
        "halfway through writing resume.safetensors #1",
        "before syncing a file #4",  # after report.html, metrics.jsonl and samples.txt
        "halfway through writing model.safetensors #1",
        "halfway through writing metrics.jsonl #1",
        "before writing samples.txt #1",
    ],
)
def test_a_full_disk_leaves_the_checkpoint(point: str, killed: Path, workshop: Workshop) -> None:
    before = (killed / "resume.safetensors").read_bytes()
    after_first = "model" in point or "samples" in point  # which come with the next validation
    stopped = workshop.drive(killed, "--resume", actions={point: "full disk"})
    assert stopped.returncode == 2, stopped.stderr
    refused_write(stopped.stderr)
    assert after_first or (killed / "resume.safetensors").read_bytes() == before
    assert file_names(killed) == workshop.through(CONFIGURATIONS["lstm"])["files"]
    assert load_checkpoint(killed / "resume.safetensors").position is not None
    load_checkpoint(killed / "model.safetensors")
    assert workshop.resume_and_compare(killed, CONFIGURATIONS["lstm"]) == []


@posix_only
def test_a_disk_full_from_the_start_leaves_a_folder_to_start_in(
    workshop: Workshop, tmp_path: Path
) -> None:
    options, folder = CONFIGURATIONS["gru"], tmp_path / "run"
    actions = {"halfway through writing resume.safetensors #1": "full disk"}
    stopped = workshop.drive(folder, options, actions=actions)
    assert stopped.returncode == 2, stopped.stderr
    refused_write(stopped.stderr)
    assert file_names(folder) == ["metrics.jsonl", "samples.txt"]
    assert workshop.resume_and_compare(folder, options) == []


@posix_only
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS may end a process at this limit")
def test_a_limit_on_the_size_of_files(killed: Path, workshop: Workshop) -> None:
    before = (killed / "resume.safetensors").read_bytes()
    stopped = workshop.drive(killed, "--resume", largest_file=len(before) // 2)
    assert stopped.returncode == 2, stopped.stderr
    refused_write(stopped.stderr)
    assert (killed / "resume.safetensors").read_bytes() == before
    assert file_names(killed) == workshop.through(CONFIGURATIONS["lstm"])["files"]
    assert workshop.resume_and_compare(killed, CONFIGURATIONS["lstm"]) == []


@posix_only
def test_a_disk_that_is_really_full(killed: Path, workshop: Workshop, tmp_path: Path) -> None:
    disk, result = tmp_path / "disk", tmp_path / "result"
    disk.mkdir()
    in_own_mounts = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
    mount = 'mount -t tmpfs -o size=1m tmpfs "$0"'
    if shutil.which("unshare") is None or run([*in_own_mounts, mount, str(disk)]).returncode:
        pytest.skip("this system lets a test mount no disk of its own")
    script = f"""{mount}
        cp -R "$1" "$0/run"
        cat /dev/zero > "$0/filler" 2> /dev/null || true
        cp "$0/run/resume.safetensors" "$2.before"
        shift 2
        status=0
        "$@" || status=$?
        cp -R "$0/run" "$RESULT"
        exit $status"""
    command = [sys.executable, "-m", "charloom", *workshop.arguments(disk / "run", "--resume")]
    stopped = run(
        [*in_own_mounts, script, str(disk), str(killed), str(result), *command],
        env={**os.environ, "RESULT": str(result)},
    )
    assert stopped.returncode == 2, stopped.stderr
    refused_write(stopped.stderr)
    assert "No space left" in stopped.stderr
    before = (killed / "resume.safetensors").read_bytes()
    assert (result / "resume.safetensors").read_bytes() == before
    assert file_names(result) == workshop.through(CONFIGURATIONS["lstm"])["files"]
    assert workshop.resume_and_compare(result, CONFIGURATIONS["lstm"]) == []


# Two trainers


@posix_only
def test_a_second_trainer_is_refused(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, folder = CONFIGURATIONS["gru"], tmp_path / "run"
    command = workshop.driven(folder, options, actions={"before a step #9": "wait"})
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        wait_for(note(folder, ".reached"), process)
        before = file_hashes(folder)
        for more in ("", " --resume"):
            line = refusal(capsys, workshop.arguments(folder, options + more))
            assert "another charloom is training in" in line
        assert file_hashes(folder) == before
        note(folder, ".released").touch()
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 0, errors
    assert differences(folder, workshop.through(options)) == []


@posix_only
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\x00 garbage \n" * 99, f"{os.getpid()}\n".encode()],
    ids=["empty", "garbage", "living process"],
)
def test_a_lock_that_was_left_behind_is_no_lock(
    content: bytes, killed: Path, workshop: Workshop
) -> None:
    assert (killed / ".lock").exists()
    (killed / ".lock").write_bytes(content)
    assert workshop.resume_and_compare(killed, CONFIGURATIONS["lstm"]) == []


# Fine-tuning


@posix_only
@pytest.mark.parametrize("point", ["after renaming to model.safetensors #1", "before a step #11"])
def test_fine_tuning_goes_on_like_any_run(
    point: str, finished: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    workshop = Workshop(tmp_path_factory.mktemp("other"))
    sentences = (*SENTENCES, "Ça va? — Déjà 1 × 2 = 3!\n")
    workshop.text.write_text(generated_text(sentences, 48, seed=3), encoding="utf-8")
    options = f"--from {finished} --batch-size 4 --window 8 --steps 12 --validate-every 5"
    folder = tmp_path / "run"
    killed = workshop.drive(folder, options, actions={point: "SIGKILL"})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    workshop.through(options)
    if "step" in point:
        shutil.rmtree(finished)  # what was saved needs nothing else
        base = None
    else:
        base = load_checkpoint(finished / "model.safetensors")
    assert workshop.resume_and_compare(folder, options) == []
    if base is not None:
        known = base.vocabulary.characters
        found = load_checkpoint(folder / "model.safetensors").vocabulary.characters
        assert found[: len(known)] == known
        added = set(workshop.text.read_text(encoding="utf-8")) - set(known)
        assert found[len(known) :] == tuple(sorted(added))
        assert "é" in added

"""A driver that stops a run at every write: it kills it, signals it, or fills its disk.

Kills are exact, not timed: the driver runs the command and counts points, before and after whatever
it does to a file, before every step and every piece of a validation. At a point that a test names
it kills itself, sends itself signals, waits, or finds the disk full.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from charloom.cli.main import main

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
from charloom.pages import live
from charloom.runs import checkpointing
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


def watched_validate(*arguments, **named):
    scoring = validate(*arguments, **named)
    while True:
        point("before a piece of validation")
        try:
            scored = next(scoring)
        except StopIteration as end:
            return end.value
        yield scored


def watched_open(*arguments, **named):
    engine = open_engine(*arguments, **named)
    engine.train_step = watched(engine.train_step, lambda *_, **__: "a step")
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
live.REST = 0.0  # each time with it, whatever a clock says
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
    "--batch-size 8 --window 16 --steps 24 --reset-state 0.3",
    "gru": "--cell gru --optimizer sgd --schedule linear --hidden-size 8 --batch-size 8 "
    "--window 16 --seed 5 --steps 24 --refit 0.4",
    "classic": "--preset classic --hidden-size 8 --steps 24",
    "whole": "--cell rnn --optimizer rmsprop --split 100/0/0 --hidden-size 8 --batch-size 8 "
    "--window 16 --steps 24",
    "float64": "--dtype float64 --optimizer adagrad --hidden-size 8 --batch-size 8 --window 16 "
    "--epochs 2.2",
    "counts": "--counts context-mixing --read-counts --hidden-size 8 --batch-size 8 --window 16 "
    "--steps 24 --refit 0.4",
}


# The text is short, so by default the last weights would be kept.
CONFIGURATIONS = {
    name: f"{what} --validate-every 5 --keep best" for name, what in CONFIGURATIONS.items()
}


SMALL = "--hidden-size 4 --batch-size 4 --window 8 --validate-every 3 --keep best"


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
        return run_program([sys.executable, "-m", "charloom", *self.arguments(folder, options)])

    def driven(self, folder: Path, options: str, **plan: Any) -> list[str]:
        """The command under the driver, to be run."""
        text = json.dumps({"notes": str(note(folder, "")), **plan})
        return [sys.executable, str(self._driver), text, *self.arguments(folder, options)]

    def drive(self, folder: Path, options: str, **plan: Any) -> subprocess.CompletedProcess[str]:
        return run_program(self.driven(folder, options, **plan))

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
        self.through(options)  # first, so that no kernel is compiled at one of them
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


def run_program(command: Sequence[str], **settings: Any) -> subprocess.CompletedProcess[str]:
    settings = {"check": False, "timeout": 100, **settings}
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

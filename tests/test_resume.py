"""What a run promises about being stopped and going on.

- Killed (SIGKILL) at any moment, halfway through a write or between the renames of two files too, a
  run that goes on with --resume ends in the same weights, optimizer state, samples and metrics, byte
  for byte, as one that ran through; only times may differ.
- SIGINT and SIGTERM finish the step, save, and print a command that goes on; a second signal leaves
  at once. Neither loses anything.
- --resume starts what is not there yet, refuses another text or other options and changes nothing
  then, and goes on further when an end is raised.
- A loss that is not finite, a full disk and a second trainer end in one sentence and leave a folder
  that can be gone on with.

Kills are exact, not timed: a driver runs the command and counts points, before and after whatever
it does to a file, and before every step and piece of a validation. At a point that a test names it
kills itself, sends itself signals, or lets the disk be full.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

posix_only = pytest.mark.skipif(
    os.name != "posix", reason="Windows has no SIGKILL, and delivers SIGINT and SIGTERM differently"
)

DRIVER = '''
"""Runs charloom's command by a plan: what is to happen at which of the points that it passes."""

import errno, json, os, signal, stat, sys, tempfile, time
from pathlib import Path

import charloom.checkpoint, charloom.cli, charloom.runs, charloom.scoring, charloom.training

plan = json.loads(sys.argv[1])
actions = {int(number): action for number, action in plan.get("actions", {}).items()}
reached, released = Path(plan["notes"] + ".reached"), Path(plan["notes"] + ".released")
points = []
disk_is_full = False


def point(name, writes=False):
    global disk_is_full
    action = actions.get(len(points))
    points.append(name)
    if action == "wait":
        reached.touch()
        deadline = time.monotonic() + 60
        while not released.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    elif action == "full disk":
        disk_is_full = True
    elif action is not None:
        for name in action.split():
            os.kill(os.getpid(), signal.Signals[name])
    if writes and disk_is_full:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def around(function, describe, writes=False):
    def watched(*arguments, **named):
        name = describe(*arguments)
        point("before " + name, writes)
        result = function(*arguments, **named)
        point("after " + name)
        return result

    return watched


class WatchedFile:
    def __init__(self, file, name):
        self.file, self.name = file, name

    def write(self, data):
        point("before writing " + self.name, True)
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        point("halfway through writing " + self.name, True)
        self.file.write(data[len(data) // 2 :])
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


def watched_make_temporary(*arguments, **named):
    name = named["prefix"].strip(".")
    point("before making a temporary " + name, True)
    handle, path = make_temporary(*arguments, **named)
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


def watched_open_engine(*arguments, **named):
    engine = open_engine(*arguments, **named)
    engine.train_step = around(engine.train_step, lambda *_: "a step")
    return engine


def watched_handle(self, number, frame):
    handle(self, number, frame)
    Path(plan["notes"] + ".received").touch()


def kind(handle):
    return "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"


tempfile.mkstemp = watched_make_temporary
os.fdopen = lambda handle, mode: WatchedFile(open_handle(handle, mode), names[handle])
os.fsync = around(os.fsync, lambda handle: "syncing a " + kind(handle))
Path.open = watched_open_path
Path.chmod = around(Path.chmod, lambda *_: "chmod")
Path.replace = around(Path.replace, lambda _, new: "renaming to " + Path(new).name)
Path.unlink = around(Path.unlink, lambda *_: "unlinking")
Path.mkdir = around(Path.mkdir, lambda *_: "making the folder")
validate, charloom.training.validate = charloom.training.validate, watched_validate
open_engine, charloom.runs.open_engine = charloom.runs.open_engine, watched_open_engine
handle, charloom.cli.Interrupts._handle = charloom.cli.Interrupts._handle, watched_handle
charloom.scoring.PROBABILITIES_AT_ONCE = plan.get(
    "probabilities_at_once", charloom.scoring.PROBABILITIES_AT_ONCE
)
charloom.runs.SAVE_EVERY = plan.get("save_every", -1.0)  # after every step
if "largest_file" in plan:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (plan["largest_file"],) * 2)
status = charloom.cli.main(sys.argv[2:])
if "points" in plan:
    with open(plan["points"], "w") as file:
        json.dump(points, file)
sys.exit(status)
'''

SENTENCES = (
    "The cat sat on the mat.\n",
    "A dog ran after the ball, and the cat ran too.\n",
    "Why does it rain?\n",
    "“It rains,” said the dog.\n",
)

# What differs between them is what a run carries from step to step: hidden state, masks, slots of
# each optimizer, the place in an epoch, the best validation.
CONFIGURATIONS = {
    "lstm": "--cell lstm --layers 2 --dropout 0.3 --hidden-size 8 --batch-size 8 --window 16",
    "gru": "--cell gru --optimizer sgd --schedule linear --hidden-size 8 --batch-size 4 "
    "--window 16 --seed 5",
    "classic": "--preset classic --hidden-size 8",
    "whole": "--cell rnn --optimizer rmsprop --split 100/0/0 --hidden-size 8 --window 16",
    "float64": "--dtype float64 --optimizer adagrad --hidden-size 8 --batch-size 8 --window 16",
}
ENDS = dict.fromkeys(CONFIGURATIONS, "--steps 24 --validate-every 5")
ENDS["float64"] = "--epochs 2.2 --validate-every 5"


def generated_text(sentences: Sequence[str], count: int, seed: int) -> str:
    choose = random.Random(seed)
    return "".join(choose.choice(sentences) for _ in range(count))


def run_command(arguments: Sequence[str], **settings: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "charloom", *arguments]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", timeout=60, check=False, **settings
    )


class Place:
    """A folder with a text and the driver, and the runs in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path / "text.txt"
        self.text.write_text(generated_text(SENTENCES, 48, seed=1), encoding="utf-8")
        self.driver = path / "driver.py"
        self.driver.write_text(DRIVER, encoding="utf-8")

    def train(self, folder: Path, options: str, *more: str) -> subprocess.CompletedProcess[str]:
        """The command itself, in a process of its own."""
        return run_command(self._arguments(folder, options, more))

    def start(
        self, folder: Path, options: str, *more: str, text: Path | None = None, **plan: Any
    ) -> subprocess.Popen[str]:
        """The command under the driver. Its standard error goes to a file."""
        notes = folder.with_name(folder.name + ".notes")
        plan = {"notes": str(notes), **plan}
        command = [sys.executable, str(self.driver), json.dumps(plan)]
        with self.errors_of(folder).open("w", encoding="utf-8") as errors:
            return subprocess.Popen(
                [*command, *self._arguments(folder, options, more, text)], stderr=errors, text=True
            )

    def drive(self, folder: Path, options: str, *more: str, **plan: Any) -> int:
        """The same, to its end; its exit status."""
        return self.start(folder, options, *more, **plan).wait(timeout=60)

    def _arguments(
        self, folder: Path, options: str, more: Sequence[str], text: Path | None = None
    ) -> list[str]:
        return ["train", str(text or self.text), "--out", str(folder), *options.split(), *more]

    def errors_of(self, folder: Path) -> Path:
        return folder.with_name(folder.name + ".errors")

    def complaints(self, folder: Path) -> list[str]:
        """What the driven command said for itself; anything unforeseen fails the test."""
        return complaints(self.errors_of(folder).read_text(encoding="utf-8"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def complaints(errors: str) -> list[str]:
    assert "Traceback" not in errors, errors
    assert "Warning" not in errors, errors
    return [line for line in errors.splitlines() if line.startswith("charloom: ")]


def safetensors_content(path: Path) -> dict[str, Any]:
    """Every tensor's bytes and every entry of the header, without what a clock decided."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    entries = header.pop("__metadata__")
    del entries["sha256"]
    position = json.loads(entries.pop("position"))
    del position["state"]["elapsed"]
    content = {f"header {name}": value for name, value in entries.items()}
    content |= {f"position {name}": value for name, value in position.items()}
    for name, tensor in header.items():
        first, last = tensor["data_offsets"]
        content[name] = (tensor["dtype"], tensor["shape"], data[begin + first : begin + last])
    return content


def metrics_without_timing(path: Path) -> list[str]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert all(line.pop("timing") for line in lines)
    return [json.dumps(line) for line in lines]


def run_content(folder: Path) -> dict[str, Any]:
    """All that two runs of the same options must have alike."""
    content = {name: (folder / name).read_bytes() for name in ("model.safetensors", "samples.txt")}
    for index, line in enumerate(metrics_without_timing(folder / "metrics.jsonl")):
        content[f"metrics line {index}"] = line
    content |= safetensors_content(folder / "resume.safetensors")
    content["files"] = file_names(folder)
    return content


def differences(folder: Path, expected: dict[str, Any]) -> list[str]:
    """The names of what is not as expected in a run's folder, with both values where short."""
    content = run_content(folder)
    found = []
    for name in sorted(content.keys() | expected.keys()):
        if content.get(name) != expected.get(name):
            values = "" if "." in name else f": {content.get(name)} for {expected.get(name)}"
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
        assert time.monotonic() < deadline, f"no {path.name} in a minute"
        time.sleep(0.005)


class Reference:
    """A run of each configuration that ran through, and the points that the driver passes in it."""

    def __init__(self, place: Place) -> None:
        self.place = place

    @functools.cached_property
    def _through(self) -> dict[str, dict[str, Any]]:
        def train(name: str) -> dict[str, Any]:
            folder = self.place.path / f"{name}-through"
            done = self.place.train(folder, f"{CONFIGURATIONS[name]} {ENDS[name]}")
            assert done.returncode == 0, done.stderr
            return run_content(folder)

        with ThreadPoolExecutor(2) as pool:
            return dict(zip(CONFIGURATIONS, pool.map(train, CONFIGURATIONS), strict=True))

    def through(self, name: str) -> dict[str, Any]:
        return self._through[name]

    def options(self, name: str) -> str:
        return f"{CONFIGURATIONS[name]} {ENDS[name]}"

    @functools.cache  # noqa: B019 — there is one for the whole file
    def points(self, name: str, **plan: Any) -> list[str]:
        """Their names, in turn. That run saved after every step and must end like the command."""
        folder = self.place.path / f"{name}-driven-{len(list(self.place.path.iterdir()))}"
        listing = folder.with_suffix(".json")
        assert self.place.drive(folder, self.options(name), points=str(listing), **plan) == 0
        assert differences(folder, self.through(name)) == []
        return list(json.loads(listing.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference(Place(tmp_path_factory.mktemp("reference")))


def places_of(points: Sequence[str], name: str) -> list[int]:
    return [number for number, point in enumerate(points) if point == name]


def point_in_validation(points: Sequence[str], name: str, which: int) -> int:
    """The number of a point's first occurrence in or after the validation of that number."""
    begin = places_of(points, "before writing samples.txt")[which]
    return begin + list(points[begin:]).index(name)


# Killed


def sampled_points(points: Sequence[str], share: int, shares: int) -> list[int]:
    """One of every so many kinds of points, at a chance moment that is always the same; and after
    the first rename of a save and before the second."""
    chance = random.Random(share)
    kinds = sorted(set(points))
    chosen = [chance.choice(places_of(points, kind)) for kind in kinds[share::shares]]
    return [point_in_validation(points, "after renaming to model.safetensors", 1), *chosen]


@posix_only
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_killed_run_ends_like_one_that_ran_through(
    name: str, place: Place, reference: Reference
) -> None:
    options, points = reference.options(name), reference.points(name)
    share = list(CONFIGURATIONS).index(name)

    def kill_and_resume(number: int) -> tuple[int, list[str]]:
        folder = place.path / f"run-{number}"
        status = place.drive(folder, options, actions={number: "SIGKILL"}, text=reference.place.text)
        done = place.train_text(reference.place.text, folder, options, "--resume")
        assert done.returncode == 0, done.stderr
        assert complaints(done.stderr)
        return status, differences(folder, reference.through(name))

    chosen = sampled_points(points, share, len(CONFIGURATIONS))
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(kill_and_resume, chosen))
    assert all(status == -signal.SIGKILL for status, _ in results)
    wrong = {f"{n} {points[n]}": found for n, (_, found) in zip(chosen, results, strict=True) if found}
    assert not wrong

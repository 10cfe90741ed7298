"""Files that would run code, take all memory or reach the terminal: none of it happens."""

import json
import os
import pickle
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charloom
from charloom.cli.main import main
from charloom.errors import CharloomError
from charloom.storage.checkpoint import Checkpoint, load_checkpoint
from helpers.checkpoints import (
    TRILLION,
    changed,
    claimed_offsets,
    claimed_shape,
    everything_claimed,
    tensor,
    with_header,
    within,
)
from helpers.cli import refused
from helpers.texts import PROMISES

# --- Files that would run code or take all memory -------------------------------------------------


class Payload:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def torch_archive(path: Path, payload: bytes) -> None:
    """A file as `torch.save` writes one: a ZIP archive with a pickle in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", payload)
        archive.writestr("model/version", "3\n")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_pickle_is_never_opened(
    tmp_path: Path,
    protocol: int,
    archived: bool,
    name: str,
) -> None:
    victim, path = tmp_path / "victim", tmp_path / name
    payload = pickle.dumps(Payload(victim), protocol)
    pickle.loads(payload)
    assert victim.exists(), "the payload must be one that works"
    victim.unlink()
    if archived:
        torch_archive(path, payload)
    else:
        path.write_bytes(payload)
    with pytest.raises(CharloomError, match="pickle" if archived or protocol >= 2 else "damaged"):
        charloom.load(path)
    for command in ("info", "sample", "evaluate"):
        refused(command, str(path))
    assert list(tmp_path.iterdir()) == [path]


CLAIMS: dict[str, Callable[[bytes], bytes]] = {
    "in-the-configuration": lambda file: changed(file, within("config", hidden_size=TRILLION)),
    "in-the-configuration-and-within-limits": lambda file: changed(
        file, within("config", hidden_size=65_536, layers=64)
    ),
    "in-the-vocabulary's-size": lambda file: changed(
        file, within("config", vocabulary_size=TRILLION)
    ),
    "in-the-number-of-layers": lambda file: changed(file, within("config", layers=TRILLION)),
    "in-a-tensor's-shape": lambda file: claimed_shape(file, [TRILLION, TRILLION]),
    "in-a-tensor's-place": lambda file: claimed_offsets(file, [0, 4 * TRILLION]),
    "everywhere": lambda file: everything_claimed(file, TRILLION),
    "everywhere-and-within-limits": lambda file: everything_claimed(file, 65_536),
    "in-the-header's-length": lambda file: with_header(b"{}", b"", TRILLION),
}


@pytest.mark.parametrize("place", CLAIMS)
def test_a_claim_of_a_trillion_units_costs_no_memory(
    model_file: bytes, tmp_path: Path, place: str
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(CLAIMS[place](model_file))
    load_checkpoint_or_error(path)  # what is imported and cached at first is not counted
    tracemalloc.start()
    try:
        with pytest.raises(CharloomError):
            load_checkpoint(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def load_checkpoint_or_error(path: Path) -> Checkpoint | CharloomError:
    try:
        return load_checkpoint(path)
    except CharloomError as error:
        return error


@pytest.mark.skipif(os.name != "posix", reason="limits as POSIX has them")
def test_a_claim_is_refused_where_memory_is_short(model_file: bytes, tmp_path: Path) -> None:
    """As above, of all that a process may take: NumPy's memory, safetensors' own, and mappings."""
    resource = pytest.importorskip("resource")
    used = Path("/proc/self/statm")
    if not used.exists():
        pytest.skip("this system does not tell how much memory a process has")
    path = tmp_path / "model.safetensors"
    room = int(used.read_text().split()[0]) * resource.getpagesize() + (64 << 20)
    before = resource.getrlimit(resource.RLIMIT_AS)
    for make in CLAIMS.values():
        path.write_bytes(make(model_file))
        resource.setrlimit(resource.RLIMIT_AS, (room, before[1]))
        try:
            found = load_checkpoint_or_error(path)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        assert isinstance(found, CharloomError)


# --- What a stranger's file says is not believed, nor shown as it is ------------------------------

ODD_VALUES: list[Any] = [None, 3, "", "\x1b[2J", [], {}, "x" * 5000]


@pytest.mark.parametrize("value", ODD_VALUES, ids=range(len(ODD_VALUES)))
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("text", "origin"),
        ("text", "name"),
        ("text", "sha256"),
        ("training", "split"),
        ("training", "raw"),
        ("metrics", "validation"),
    ],
)
def test_odd_entries_harm_no_command(
    model_file: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    key: str,
    value: Any,
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(changed(model_file, within(name, **{key: value})))
    text = tmp_path / "another.txt"
    text.write_text(PROMISES[:30], encoding="utf-8")
    for command in (
        ["info", str(path)],
        ["sample", str(path), "--length", "3"],
        ["evaluate", str(path)],
        ["evaluate", str(path), str(text)],
    ):
        status = main(command)
        out, err = capsys.readouterr()
        assert status in (0, 2)
        assert "Traceback" not in err
        assert "\x1b" not in out + err, "what a file holds must not reach the terminal as it is"
    assert {*tmp_path.iterdir()} == {path, text}


@pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX has them")
@pytest.mark.parametrize("origin", ["/dev/stdin", "/dev/fd/0", "a pipe"])
def test_checkpoint_origin_cannot_block_a_command(
    model_file: bytes, tmp_path: Path, origin: str
) -> None:
    """Where it says its training text was is looked for, but nothing is waited for there."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    place = str(pipe) if origin == "a pipe" else origin
    path = tmp_path / "model.safetensors"
    path.write_bytes(changed(model_file, within("text", origin=place)))
    text = tmp_path / "another.txt"
    text.write_text(PROMISES[:30], encoding="utf-8")
    command = [sys.executable, "-m", "charloom", "evaluate", str(path), str(text), "--json"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as evaluating:
        try:
            assert evaluating.wait(timeout=100) == 0
        finally:
            evaluating.kill()
        assert evaluating.stdout is not None
        assert json.loads(evaluating.stdout.read())["baselines"]["xz"]["reason"]


def test_weights_that_overflow_are_one_line_or_a_number(
    trained_run: Path, model_file: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each weight is finite, their sums are not: no NaN may be passed off as a measurement."""
    path = tmp_path / "model.safetensors"
    largest = np.finfo(np.float32).max
    path.write_bytes(
        changed(model_file, tensor("decoder.weight", lambda w: np.where(w > 0, largest, -largest)))
    )
    for command in (
        ["sample", str(path), "--length", "20", "--seed", "1"],
        ["evaluate", str(path), str(trained_run.parent / "woods.txt"), "--json"],
    ):
        status = main(command)
        out, err = capsys.readouterr()
        assert status in (0, 2)
        assert "NaN" not in out
        assert "Infinity" not in out
        assert "Warning" not in err

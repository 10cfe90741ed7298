"""Training on several ranks: the same run as in one process, and what goes wrong between ranks."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from charloom.cli.main import main
from charloom.engines.distributed import started_by_torchrun
from charloom.errors import CharloomError
from charloom.network.parameters import Parameters
from charloom.text.vocabulary import Vocabulary
from charloom.training.counts import compile_mixer
from charloom.training.options import TrainingConfig
from charloom.training.setup import model_config
from helpers.clients import free_port
from helpers.paths import ROOT
from helpers.texts import SQUARES
from helpers.waiting import wait_until

OPTIONS = ["--hidden-size", "12", "--batch-size", "5", "--window", "16", "--no-mix"]


SOURCES = str(ROOT / "src")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(SQUARES)
    return path


def environment(**more: Any) -> dict[str, str]:
    settings = {"PYTHONPATH": SOURCES, "OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}
    return os.environ | settings | {name: str(value) for name, value in more.items()}


def start(rank: int, size: int, port: int, command: Sequence[str]) -> subprocess.Popen[str]:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return subprocess.Popen(
        [sys.executable, *command],
        env=environment(RANK=rank, WORLD_SIZE=size, LOCAL_RANK=rank, **place),
        stderr=subprocess.PIPE,
        text=True,
    )


def run_ranks(*commands: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Starts a rank for each command; their exit statuses and lines on standard error."""
    port = free_port()
    ranks = [start(rank, len(commands), port, command) for rank, command in enumerate(commands)]
    said = [rank.communicate(timeout=300)[1].splitlines() for rank in ranks]
    return [(rank.returncode, lines) for rank, lines in zip(ranks, said, strict=True)]


def train(text: Path, out: Path, *options: Any) -> list[str]:
    words = ["-m", "charloom", "train", str(text), "--out", str(out), *OPTIONS]
    return [*words, *map(str, options)]


def train_rank(text: Path, out: Path, *options: Any) -> list[str]:
    """The command of each of several ranks; alone, `train` refuses the option that it adds."""
    return train(text, out, "--rank-timeout", 60, *options)


def resumed(folder: Path) -> dict[str, Any]:
    return dict(load_file(folder / "resume.safetensors"))


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["event"] == "report"]


def difference(one: Any, other: Any) -> float:
    return float(np.abs(one - other).max() / np.abs(other).max())


# Every kind of run, by both ranks of one pair of processes: importing PyTorch takes a while.
SHARED = """
import json, sys
from pathlib import Path
from charloom.text.format import open_texts
from charloom.engines.distributed import TorchProcessGroup
from charloom.runs.opening import open_run
from charloom.runs.distributed import follow

cases = json.loads(sys.argv[2])

def open_source(format):
    return open_texts([sys.argv[1]], format)

with TorchProcessGroup(60.0) as group:
    for name, given in cases.items():
        if not group.leads:
            assert follow(open_source, given, group)
            continue
        out = Path(sys.argv[3]) / name
        list(open_run(open_source, out, given, process_group=group))
"""


BASE = {"hidden_size": 12, "batch_size": 5, "window": 16, "no_mix": True, "seed": 3}


BASE["validate_every"] = 1_000


CASES: dict[str, dict[str, Any]] = {
    f"{cell} {dtype}": {
        "cell": cell,
        "layers": 2,
        "dtype": dtype,
        "dropout": 0.2,
        "weight_drop": 0.1,
        "reset_state": 0.3,
        "optimizer": "adamw" if dtype == "float64" else "sgd",
        "steps": 50,
        **BASE,
    }
    for cell in ("rnn", "lstm", "gru")
    for dtype in ("float64", "float32")
}


CASES["adam"] = {"optimizer": "adam", "steps": 50, **BASE}


# Only while it learns from the validation part too is there text for a fifth row.
CASES["refit"] = {"refit": 0.5, "split": "60/30/10", "steps": 12, "dtype": "float64", **BASE}


CASES["refit"]["window"] = 2_000  # of which PyTorch takes one step after another


CASES["documents"] = {"refit": 0.5, "split": "60/30/10", "steps": 40, "dtype": "float64", **BASE}


CASES["documents"] |= {"lines": True, "layers": 2, "dropout": 0.2}


# Every rank learns the text by itself.
CASES["counts"] = {"counts": "context-mixing", "read_counts": True, **CASES["refit"]}


CASES["counts"] |= {"no_mix": False, "window": 16, "steps": 40}


@pytest.mark.torch
def test_two_ranks_equal_one_process(torch: Any, text: Path, tmp_path: Path) -> None:
    compile_mixer()
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    command = [str(script), str(text), json.dumps(CASES), str(tmp_path / "two")]
    for status, lines in run_ranks(command, command):
        assert (status, lines) == (0, [])
    from charloom import train as train_here

    for name, given in CASES.items():
        train_here(text, out=tmp_path / "one" / name, engine="pytorch", threads=1, **given)
        one, two = resumed(tmp_path / "one" / name), resumed(tmp_path / "two" / name)
        assert {n: v.shape for n, v in one.items()} == {n: v.shape for n, v in two.items()}
        exact = given.get("dtype") == "float64"
        ours, theirs = losses(tmp_path / "two" / name), losses(tmp_path / "one" / name)
        assert len(ours) == given["steps"]
        np.testing.assert_allclose(ours, theirs, rtol=1e-10 if exact else 1e-4)
        if name == "adam":  # it divides by what may be rounding alone
            continue
        compared = (
            one
            if exact
            else Parameters(
                model_config(TrainingConfig(**given), Vocabulary.of("abcdefghijklmnopqrst"))
            )
        )
        for tensor in compared:
            assert difference(two[tensor], one[tensor]) < (1e-10 if exact else 1e-4), (name, tensor)
    assert resumed(tmp_path / "one" / "refit")["state"].shape[2] > 3


@pytest.mark.torch
def test_run_resumes_with_another_number_of_ranks(torch: Any, text: Path, tmp_path: Path) -> None:
    exact = ["--dtype", "float64", "--dropout", "0.3", "--engine", "pytorch"]
    exact += ["--validate-every", "100"]  # samples would take longer than all steps
    constant = ["--schedule", "constant", "--warmup", "0"]  # as the ends move, so would the rate
    for status, _ in run_ranks(
        *[train_rank(text, tmp_path / "moved", "--steps", 7, *exact, *constant)] * 3
    ):
        assert status == 0
    alone = [*exact, *constant, "--resume"]
    assert main(train(text, tmp_path / "moved", "--steps", 11, *alone)[2:]) == 0
    ranks = run_ranks(*[train_rank(text, tmp_path / "moved", "--steps", 15, *alone)] * 2)
    assert [status for status, _ in ranks] == [0, 0]
    assert any("resumes with pytorch on 1 threads of 2 ranks" in line for line in ranks[0][1])
    assert ranks[1][1] == []
    assert main(train(text, tmp_path / "straight", "--steps", 15, *exact, *constant)[2:]) == 0
    moved, straight = resumed(tmp_path / "moved"), resumed(tmp_path / "straight")
    for tensor in straight:
        assert difference(moved[tensor], straight[tensor]) < 1e-10, tensor


@pytest.mark.torch
def test_killed_rank_restarts_and_the_run_is_byte_identical(
    torch: Any, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    options = ["--steps", 120, "--validate-every", 25, "--dtype", "float64", "--resume"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--max-restarts", "2", "--master-port", str(free_port())]
    agent = subprocess.Popen(
        [*torchrun, *train_rank(text, out, *options)],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(
            lambda: (out / "samples.txt").exists() and "step 25" in samples(out), seconds=300
        )
        os.kill(rank_of(agent.pid, 1), signal.SIGKILL)
        _, said = agent.communicate(timeout=300)
    finally:
        if agent.poll() is None:
            os.killpg(agent.pid, signal.SIGKILL)
    assert agent.returncode == 0, said
    assert said.count("23 distinct") == 2, said  # it was started twice
    assert "rank 0 lost the others" in said, said
    assert "Traceback" not in said.replace("To enable traceback", "")
    ranks = run_ranks(*[train_rank(text, tmp_path / "whole", *options)] * 2)
    assert [status for status, _ in ranks] == [0, 0]
    for file in ("model.safetensors", "samples.txt"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def samples(folder: Path) -> str:
    return (folder / "samples.txt").read_text("utf-8")


def rank_of(agent: int, rank: int) -> int:
    """The process of that rank among torchrun's children."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
            settings = (process / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if parent == agent and f"RANK={rank}".encode() in settings:
            return int(process.name)
    pytest.skip("this system does not tell which process is which")


@pytest.mark.torch
def test_an_interrupt_saves_and_ends_all(torch: Any, text: Path, tmp_path: Path) -> None:
    out, port = tmp_path / "run", free_port()
    command = train_rank(text, out, "--steps", 100_000, "--validate-every", 50)
    ranks = [start(rank, 2, port, command) for rank in (0, 1)]
    wait_until(lambda: (out / "samples.txt").exists() and "step 50" in samples(out), seconds=300)
    for rank in ranks:  # as a terminal and torchrun do
        rank.send_signal(signal.SIGINT)
    said = [rank.communicate(timeout=100)[1].splitlines() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [128 + signal.SIGINT, 0]
    assert "everything is saved. To resume: torchrun … -m charloom train" in said[0][-1]
    assert said[1] == []
    assert resumed(out)["state"].shape[2] == 5  # the rows of both


# The options of rank 0, what differs at rank 1, and the message.
MISMATCHES: dict[str, tuple[list[str], Any, str]] = {
    "other options": ([], ["--seed", "3"], "--seed is 3 at rank 1 and None at rank 0"),
    "other text": ([], "other.txt", "rank 1: its text is not that of rank 0"),
    "no text": ([], "missing.txt", "rank 1: there is no file"),
    "too few rows": (["--preset", "classic"], None, "1 row for 2 ranks"),
    "other engine": (["--engine", "compiled"], None, "--engine compiled trains in one process"),
    "nonsense": (["--steps", "0"], None, "--steps is 0"),
}


# All of them by both ranks of one pair of processes, because importing PyTorch takes a while.
MISMATCHED = """
import contextlib, io, json, os, sys
from pathlib import Path
from charloom.cli.main import main

found = []
for port, words in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        status = main(words)
    found.append((status, errors.getvalue().splitlines()))
Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")
"""


def mismatched(name: str, text: Path, out: Path) -> tuple[list[str], list[str]]:
    """The arguments of both ranks."""
    first, second, _ = MISMATCHES[name]
    theirs = text.with_name(second) if isinstance(second, str) else text
    more = second if isinstance(second, list) else first if second is None else []
    leader = ["train", str(text), "--out", str(out), "--steps", "5", *first]
    return leader, ["train", str(theirs), "--out", str(out), "--steps", "5", *more]


def check_refused(name: str, leader: Any, follower: Any, out: Path) -> None:
    assert leader[0] == follower[0] == 2, name
    (line,) = leader[1]
    assert line.startswith("charloom: ")
    assert MISMATCHES[name][2] in line
    assert follower[1] in ([], [line])
    assert not out.exists()


@pytest.mark.torch
def test_rank_mismatch_is_refused_before_the_first_step(
    torch: Any, text: Path, tmp_path: Path
) -> None:
    text.with_name("other.txt").write_text(SQUARES[1:])
    out = tmp_path / "run"
    script = tmp_path / "mismatched.py"
    script.write_text(MISMATCHED)
    ports = [free_port() for _ in MISMATCHES]
    commands = []
    for rank in (0, 1):
        words = [mismatched(name, text, out)[rank] for name in MISMATCHES]
        cases = json.dumps(list(zip(ports, words, strict=True)))
        commands.append([str(script), cases, str(tmp_path / f"{rank}.json")])
    assert run_ranks(*commands) == [(0, [])] * 2
    leaders, followers = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for name, leader, follower in zip(MISMATCHES, leaders, followers, strict=True):
        check_refused(name, leader, follower, out)


@pytest.mark.torch
def test_rank_mismatch_ends_both_commands(torch: Any, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    commands = [["-m", "charloom", *words] for words in mismatched("other options", text, out)]
    check_refused("other options", *run_ranks(*commands), out)


@pytest.mark.torch
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_cannot_reach_the_others_says_so(
    torch: Any, text: Path, tmp_path: Path, rank: int
) -> None:
    command = train(text, tmp_path / "run", "--steps", 5, "--rank-timeout", 1)
    alone = start(rank, 2, free_port(), command)
    _, said = alone.communicate(timeout=100)
    assert alone.returncode == 2
    (line,) = said.splitlines()
    assert line.startswith(f"charloom: rank {rank} of 2 did not reach the others at 127.0.0.1:")
    assert "--rank-timeout" in line
    assert not (tmp_path / "run").exists()


def told(monkeypatch: pytest.MonkeyPatch, rank: str, size: str, port: str = "29500") -> None:
    for name, value in {"RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")


def test_torchrun_environment_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not started_by_torchrun()
    told(monkeypatch, "0", "1")
    assert not started_by_torchrun()
    told(monkeypatch, "1", "2")
    assert started_by_torchrun()
    for rank, size, port in (("2", "2", "1"), ("x", "2", "1"), ("0", "0", "1"), ("0", "2", "y")):
        told(monkeypatch, rank, size, port)
        with pytest.raises(CharloomError, match="start with torchrun"):
            started_by_torchrun()


def test_missing_torch_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: Path
) -> None:
    told(monkeypatch, "1", "2")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["train", str(text), "--steps", "5"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'charloom[torch]', or start without torchrun" in line

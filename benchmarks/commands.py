"""Measure whole commands and programs, from the start of the process to its end.

Start-up is the time of a command that does little: kernels are compiled, the model is a default one
of the text. The whole training is `charloom train TEXT --preset classic --minutes 1`. It includes
everything before, between and after the steps.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

START_UP, WHOLE = "start-up", "whole command"
CHARLOOM = "-m", "charloom"
WINDOW = 25  # characters that a step of the preset classic predicts
SCORE = "import sys, charloom; charloom.load(sys.argv[1]).score('To be, or not to be')"


def start_up(text: str, repeats: int, smoke: bool) -> dict[str, float]:
    """Return median seconds by command, for a model of this text."""
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        size = "8" if smoke else "256"
        few = ("--no-mix",) if smoke else ()
        _seconds(*CHARLOOM, "train", text, "--out", run, "--steps=20", "--hidden-size", size, *few)
        commands = {
            "charloom sample RUN --length 10": (*CHARLOOM, "sample", run, "--length", "10"),
            "import charloom; charloom.load(RUN).score(…)": ("-c", SCORE, run),
        }
        found = {}
        for name, command in commands.items():
            _seconds(*command)  # compiles
            found[name] = statistics.median(_seconds(*command) for _ in range(repeats))
        return found


def whole(text: str, minutes: float) -> dict[str, float]:
    """Return the seconds and the characters per second of a training of the notebook's network."""
    with tempfile.TemporaryDirectory() as folder:
        command = (*CHARLOOM, "train", text, "--preset", "classic")
        _seconds(*command, "--out", f"{folder}/first", "--steps=50")  # compiles
        run = Path(folder) / "run"
        seconds = _seconds(*command, "--out", str(run), f"--minutes={minutes:g}")
        lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
        step: int = json.loads(lines[-1])["step"]
        return {"seconds": seconds, "steps": step, "speed": step * WINDOW / seconds}


def share_of_kernel(results: dict[str, Any]) -> float | None:
    """Return the whole command's share of the speed of the notebook's row; None without it."""
    for row in results["rows"]:
        if row["workload"]["classic"]:
            share: float = results["whole"]["speed"] / row["systems"]["charloom"]["best"]
            return share
    return None


def _seconds(*arguments: str) -> float:
    """Return the seconds that Python takes with these arguments."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()[-300:]}")
    return time.perf_counter() - started

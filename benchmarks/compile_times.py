"""Measure the first call with a cold and a warm kernel cache, and `charloom --help`.

Each measurement runs in its own process. First calls exclude imports.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

FIRST_CALL = """
import sys, time
import numpy as np
from charloom.engines.compiled.engine import CompiledEngine
from charloom.engines.decoding import SamplingSettings
from charloom.network.parameters import ModelConfig
from charloom.network.initialization import initialize
from charloom.network.optimizers import AdamW
cell, what = sys.argv[1:]
config = ModelConfig(cell, 128, 1, 65)
engine, optimizer = CompiledEngine(initialize(config, 0)), AdamW(1e-3)
ids, state = np.zeros((8, 4), np.intp), config.zero_state(4)
started = time.perf_counter()
if what == "training":
    engine.train_step(ids, ids, state, optimizer)
else:
    engine.generate(ids[0], state, SamplingSettings(), np.zeros((8, 4)))
print(time.perf_counter() - started)
"""


def first_calls(repeats: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return median seconds by cell, first call (training or sampling) and cache (cold or warm)."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for cell in ("rnn", "lstm", "gru"):
        for what in ("training", "sampling"):
            cold, warm = [], []
            for _ in range(repeats):
                with tempfile.TemporaryDirectory() as folder:
                    cold.append(_first_call(cell, what, folder))
                    warm.append(_first_call(cell, what, folder))
            found.setdefault(cell, {})[what] = {
                "cold": statistics.median(cold),
                "warm": statistics.median(warm),
            }
    return found


def _first_call(cell: str, what: str, folder: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CALL, cell, what],
        env={**os.environ, "NUMBA_CACHE_DIR": folder},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def help_time(repeats: int) -> float:
    """Return the median duration of `charloom --help` in seconds."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "charloom", "--help"], capture_output=True, check=True
        )
        times.append(time.perf_counter() - started)
    return statistics.median(times)

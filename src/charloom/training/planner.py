"""Choose hyperparameters for a time budget (--minutes).

The rules come from experiments, which `benchmarks/learning.py` runs and records; docs/log.md has
their table. Speeds, units by time and the learning rate are fitted to the records; the other rules
were chosen by hand between them. Seconds are those of the reference machine, on which the
experiments ran; `measure_speed` compares this machine with it.

H: hidden units; L: layers; G: gates; V: characters in the vocabulary; N: characters to train on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from charloom.base_model.choices import ENGLISH
from charloom.engines.backend import Backend
from charloom.errors import plural
from charloom.kernels.kernel import finish_compiling
from charloom.network.choices import Cell
from charloom.network.initialization import initialize
from charloom.network.optimizers import AdamW
from charloom.network.parameters import GATES, ModelConfig
from charloom.ngrams.choosing import TRAINING_AT_MOST
from charloom.text.dataset import Dataset
from charloom.training.counts import (
    MOST_MIXED,
    MOST_READ,
    can_mix,
    compile_mixer,
    mixer_is_compiled,
)
from charloom.training.options import TrainingConfig
from charloom.training.schedule import LEAST_TRAINING
from charloom.training.short import SHORT_TEXT

SHORT = 30.0  # seconds; a shorter run does not repay compiling the kernels first
# Seconds of a step on the reference machine, for each character: a constant, and a share for each
# multiplication of the forward pass.
SECONDS_PER_CHARACTER = 3.634e-8
SECONDS_PER_MULTIPLICATION = 2.749e-11
PROBE = ModelConfig("gru", 128, 1, 64)
PROBE_ROWS, PROBE_WINDOW = 16, 64
PROBED_FOR = 0.3  # seconds

# The rules. Seconds are of training, on the reference machine; passes are over the text.
UNITS, UNITS_BY_TIME = 73.0, 0.40  # H = a · seconds^b
UNITS_BY_TEXT, TEXT_POWER = 51.0, 0.19  # H at most a · N^b
RATE, RATE_BY_UNITS = 0.346, -0.68  # learning rate = a · H^b
# The maximum norm of the gradient of a network with normalized products. Gradients are longer, also
# at the end. Each step therefore has the same weight in Adam's means, although they shrink. That
# helps networks of some 200 units. Those of 350 to 400 were worse, on a slower machine.
CLIP, CLIPPED_UNITS = 0.1, 256
# Dropout of outputs and of recurrent weights. The three numbers: the passes up to which it is zero,
# its increase for each doubling of the passes beyond them, and its maximum.
OUTPUTS_DROPPED = (3.0, 0.14, 0.45)
WEIGHTS_DROPPED = (4.0, 0.09, 0.35)
# On texts of at least this length, a network has normalized products. On shorter ones, they let it
# memorize too soon.
LEAST_TO_NORMALIZE = 50_000  # characters
MOST_PASSES, ENOUGH_CHARACTERS = 60.0, 5e6  # a run reads at most the larger of the two
# A short text without a validation split is memorized. With more passes or units, or less dropout,
# samples copy longer parts of it. The passes are a + b · N. A row has at least four windows: if it
# had one, every window would always begin at the same character, and samples would run in circles.
UNITS_TO_MEMORIZE, OUTPUTS_DROPPED_THEN, WEIGHTS_DROPPED_THEN = 112, 0.33, 0.18
PASSES_TO_MEMORIZE, PASSES_BY_TEXT, WINDOWS_IN_A_ROW = 40.0, 1 / 12, 4
PASSES_OF_SHORT_DOCUMENTS = 200.0  # by 16 rows; after more passes, most samples would be copies
# How often a row's window of a network alone begins at a zero state, as a prompt does. A network
# beside counts gains nothing from it.
RESET = 0.25
FEWEST_UNITS, MOST_UNITS = 32, 1024
BATCH, WINDOW = 16, 64
# Of a long collection of short documents: a window of about two documents, and fewer units. A short
# collection overfits sooner that way.
LONG_COLLECTION = 100_000  # characters
DOCUMENTS_IN_A_WINDOW, SHORTEST_WINDOW = 2, 16
UNITS_OF_SHORT_DOCUMENTS = 0.73
# In its last part a run also trains on the validation split. The split must be long enough to
# choose on, and the model must not be evaluated on it.
REFIT, LEAST_TO_REFIT = 0.5, 5_000
# Seconds of context mixing for each character: to learn, and to record the extra inputs of the
# network. They are those of two threads of the reference machine, before the training. Mixing waits
# for memory, so that a machine of half the speed takes less than twice as long. Shares are of the
# whole time.
SECONDS_TO_LEARN, SECONDS_TO_RECORD, MIXING_BY_SPEED = 0.65e-5, 0.47e-5, -0.65
LEAST_TO_MIX = 20_000  # characters
MOST_OF_THE_TIME, MOST_OF_THE_TIME_UNREAD = 0.6, 0.65
# The units and the dropout of a network that reads counts, as shares of those of another one.
READING = 0.65, 0.7
# A run from the base model: a lower rate, dropout of outputs and of recurrent weights. The
# limit of passes is for it too.
RATE_FROM_BASE, DROPPED_FROM_BASE = 1.5e-3, (0.45, 0.25)
PASSES_FROM_BASE = 12.0
MOST_RECORDED = 4e9  # bytes, one for each character of the text and of the vocabulary


@dataclass(frozen=True)
class Choice:
    """Options of TrainingConfig by name, and the reason for them in one sentence."""

    options: dict[str, Any]
    reason: str


def multiplications(
    cell: Cell, hidden_size: int, layers: int, vocabulary_size: int, extra_inputs: int = 0
) -> float:
    """Return the multiplications of the forward pass for one character."""
    of_gate = hidden_size * (2 * layers - 1) + extra_inputs
    return float(hidden_size * (GATES[cell] * of_gate + vocabulary_size))


def seconds_per_character(work: float) -> float:
    """Return the seconds of a training step for each character, on the reference machine.

    Args:
        work: the result of `multiplications`.
    """
    return SECONDS_PER_CHARACTER + SECONDS_PER_MULTIPLICATION * work


def measure_speed(backend: Backend) -> float:
    """Measure how fast a backend trains here, relative to the reference machine."""
    probe = backend.open(initialize(PROBE, 0))
    optimizer = AdamW(1e-3, 1.0)
    ids = np.arange(PROBE_WINDOW * PROBE_ROWS).reshape(PROBE_WINDOW, PROBE_ROWS) * 7 % 64
    state = probe.zero_state(PROBE_ROWS)
    durations: list[float] = []
    began = time.perf_counter()
    while len(durations) < 3 or time.perf_counter() - began < PROBED_FOR:
        before = time.perf_counter()
        _, _, state = probe.train_step(ids, ids, state, optimizer)
        durations.append(time.perf_counter() - before)
        if len(durations) == 1:
            probe.log_probabilities(ids[:1, :1], probe.zero_state(1))
            finish_compiling()
            began = time.perf_counter()  # because kernels may have been compiled so far
    # The median, so that neither the best nor the worst moment of a busy machine counts.
    return _probe_seconds() / float(np.median(durations[1:]))


def _probe_seconds() -> float:
    work = multiplications(PROBE.cell, PROBE.hidden_size, 1, PROBE.vocabulary_size)
    return PROBE_ROWS * PROBE_WINDOW * seconds_per_character(work)


def complete(
    config: TrainingConfig,
    dataset: Dataset,
    fixed: dict[str, Any],
    elapsed: Callable[[], float],
    speed: float | None = None,
) -> tuple[TrainingConfig, str]:
    """Choose the options that a run with a time budget leaves open.

    Args:
        config: the run's options; `minutes` is its budget.
        dataset: the text.
        fixed: the options that stay as they are, by name.
        elapsed: returns the seconds of the budget that have passed.
        speed: that of this machine, as `measure_speed` returns it; None to measure it now.

    Returns:
        The completed options, and the reason for them in one sentence.
    """
    assert config.minutes is not None
    if speed is None:
        speed = measure_speed(config.backend)
    seconds = config.minutes * 60
    mixes = can_mix() and (seconds >= SHORT or mixer_is_compiled())
    left = seconds - elapsed()
    if choose_counts(left, speed, dataset, fixed, mixes=mixes)["counts"] == "context-mixing":
        compile_mixer()
    seconds = max(seconds - elapsed(), LEAST_TRAINING)
    choice = plan(seconds, speed, dataset, fixed, mixes=mixes)
    return replace(config, **choice.options), choice.reason


def choose_counts(
    seconds: float, speed: float, dataset: Dataset, fixed: Mapping[str, Any], *, mixes: bool
) -> dict[str, Any]:
    """Return the options `counts` and `read_counts`.

    Args:
        seconds: the time for learning and training.
        speed: that of this machine, as `measure_speed` returns it.
        dataset: the text.
        fixed: the options that stay as they are, by name.
        mixes: whether the run can have context mixing.
    """
    neither = {"counts": "kneser-ney", "read_counts": False}
    held_out = fixed.get("keep", "best") == "best" and len(dataset.validation) > 0
    if fixed.get("no_mix") or fixed.get("counts") == "kneser-ney":
        return neither
    chosen = fixed.get("counts") == "context-mixing"
    suits = held_out and len(dataset.train) > LEAST_TO_MIX and len(dataset.vocabulary) <= MOST_MIXED
    if not chosen and not (mixes and suits):
        return neither
    if fixed.get("read_counts"):
        return {"counts": "context-mixing", "read_counts": True}
    size = len(dataset.vocabulary)
    reads = (
        suits
        and "read_counts" not in fixed
        and size <= MOST_READ
        and size * dataset.boundaries[1] <= MOST_RECORDED
        and seconds_to_learn(dataset, speed, reads=True) <= MOST_OF_THE_TIME * seconds
    )
    fits = seconds_to_learn(dataset, speed, reads=False) <= MOST_OF_THE_TIME_UNREAD * seconds
    if reads or chosen or fits:
        return {"counts": "context-mixing", "read_counts": reads}
    return neither


def seconds_to_learn(dataset: Dataset, speed: float, *, reads: bool) -> float:
    """Return the seconds of context mixing.

    Args:
        dataset: the text.
        speed: that of this machine, as `measure_speed` returns it.
        reads: whether the network reads the counts. If not, a part of a long text is enough.
    """
    characters = len(dataset.train) + len(dataset.validation)
    if reads:
        each = SECONDS_TO_LEARN + SECONDS_TO_RECORD
    else:
        each, characters = SECONDS_TO_LEARN, min(characters, TRAINING_AT_MOST)
    return characters * each * float(speed**MIXING_BY_SPEED)


def plan(
    seconds: float,
    speed: float,
    dataset: Dataset,
    fixed: dict[str, Any],
    *,
    mixes: bool | None = None,
) -> Choice:
    """Choose options for a text and a time budget.

    Args:
        seconds: the time for training.
        speed: that of this machine, as `measure_speed` returns it.
        dataset: the text.
        fixed: the options that stay as they are, by name.
        mixes: whether the run can have context mixing; None to leave the counts open.
    """
    characters, validation = len(dataset.train), len(dataset.validation)
    counts: dict[str, Any] = {}
    if mixes is not None:
        counts = choose_counts(seconds, speed, dataset, fixed, mixes=mixes)
    learning, read = 0.0, 0
    if counts.get("counts") == "context-mixing":
        learning = seconds_to_learn(dataset, speed, reads=counts["read_counts"])
        read = len(dataset.vocabulary) if counts["read_counts"] else 0
    usable = max((seconds - learning) * speed, 1.0)
    units_share, dropped_share = READING if read else (1.0, 1.0)
    memorized = _memorized(dataset)
    by_time = UNITS * usable**UNITS_BY_TIME
    by_text = UNITS_BY_TEXT * characters**TEXT_POWER
    window = _window(dataset)
    if dataset.vocabulary.end_id is not None and window < WINDOW:
        by_text *= UNITS_OF_SHORT_DOCUMENTS
    by_time, by_text = by_time * units_share, by_text * units_share
    if memorized is not None:
        by_text = by_time = UNITS_TO_MEMORIZE
    units = fixed.get("hidden_size", _round(min(by_time, by_text)))
    cell, layers = fixed.get("cell", "gru"), fixed.get("layers", 1)
    work = multiplications(cell, units, layers, len(dataset.vocabulary), read)
    passes = usable / seconds_per_character(work) / characters
    most = max(MOST_PASSES, ENOUGH_CHARACTERS / characters)
    if memorized is not None:
        most = memorized.passes
    options = counts | {
        "cell": cell,
        "hidden_size": units,
        "layers": layers,
        "batch_size": BATCH,
        "window": window,
        "dropout": _dropped(*OUTPUTS_DROPPED, min(passes, most), dropped_share),
        "weight_drop": _dropped(*WEIGHTS_DROPPED, min(passes, most), dropped_share),
        "refit": REFIT if len(dataset.test) and validation >= LEAST_TO_REFIT else 0.0,
    }
    if memorized is None and characters >= LEAST_TO_NORMALIZE:
        options["norm"] = "rms"
    if fixed.get("no_mix") and memorized is None and dataset.vocabulary.end_id is None:
        options["reset_state"] = RESET
    if memorized is not None:
        share = min(passes / most, 1.0)
        options["batch_size"] = memorized.rows
        options["dropout"] = round(OUTPUTS_DROPPED_THEN * share, 2)
        options["weight_drop"] = round(WEIGHTS_DROPPED_THEN * share, 2)
    base = fixed.get("from_run") == ENGLISH
    if base:
        most = PASSES_FROM_BASE
        options["dropout"], options["weight_drop"] = DROPPED_FROM_BASE
    # The experiments fitted no rule for other optimizers.
    if fixed.get("optimizer", "adamw") in ("adam", "adamw"):
        rate = RATE_FROM_BASE if base else RATE * units**RATE_BY_UNITS
        options["learning_rate"] = float(f"{rate:.2g}")
        normalizes = fixed.get("norm", options.get("norm")) == "rms"
        if normalizes and units <= CLIPPED_UNITS:
            options["clip"] = CLIP
    if passes > most:
        options["epochs"] = round(most, 1)
    options |= {name: value for name, value in fixed.items() if name in options}
    limit = "limited by the text" if by_text <= by_time else "limited by the time"
    if "hidden_size" in fixed:
        limit = "those of the base model" if base else "as set"
    normalized = " with normalized products" if options.get("norm") == "rms" else ""
    reason = (
        f"chosen for {_duration(seconds)} at {speed:.2g} times the reference speed: {cell} of "
        f"{units} units{normalized} ({limit}), "
        f"{plural(round(min(passes, most)), 'pass')} through {plural(characters, 'character')}"
        + (" (more gain nothing)" if passes > most else "")
        + f", dropout {options['dropout']:.0%} of outputs, {options['weight_drop']:.0%} of "
        "recurrent weights"
    )
    if learning:
        does = ", which the network reads" if read else ""
        reason += f", after about {_duration(learning)} of context mixing{does}"
    return Choice(options, reason)


class _Memorized(NamedTuple):
    """The passes through a text that is memorized, and the rows of a batch."""

    passes: float
    rows: int


def _memorized(dataset: Dataset) -> _Memorized | None:
    """Return how a short text without a validation split is memorized; None for another text."""
    characters = len(dataset.train)
    if len(dataset.validation) or characters >= SHORT_TEXT:
        return None
    end_id, length = dataset.vocabulary.end_id, _mean_length(dataset)
    if end_id is not None and length * DOCUMENTS_IN_A_WINDOW <= WINDOW:
        return _Memorized(PASSES_OF_SHORT_DOCUMENTS, BATCH)
    rows = characters // (WINDOWS_IN_A_ROW * WINDOW)
    passes = PASSES_TO_MEMORIZE + PASSES_BY_TEXT * characters
    return _Memorized(passes, min(max(rows, 1), BATCH))


def _mean_length(dataset: Dataset) -> float:
    """Return the mean length of a document of the training split, with its end."""
    return len(dataset.train) / max(1, dataset.pieces[0])


def _window(dataset: Dataset) -> int:
    """Return the length of a window, at most that of the validation split of a single text.

    An update after every few short documents is worth more than the speed of long windows.
    """
    validation = len(dataset.validation)
    if dataset.vocabulary.end_id is not None:
        if len(dataset.train) < LONG_COLLECTION:
            return WINDOW
        multiple = round(DOCUMENTS_IN_A_WINDOW * _mean_length(dataset) / SHORTEST_WINDOW)
        return min(max(multiple, 1) * SHORTEST_WINDOW, WINDOW)
    return min(WINDOW, validation) if validation else WINDOW


def _dropped(least: float, step: float, most: float, passes: float, share: float) -> float:
    return round(share * min(step * math.log2(max(passes / least, 1)), most), 2)


def _round(units: float) -> int:
    """Round to a size that the kernels compute efficiently."""
    step = 16 if units < 128 else 32
    return int(min(max(round(units / step) * step, FEWEST_UNITS), MOST_UNITS))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.3g} min"

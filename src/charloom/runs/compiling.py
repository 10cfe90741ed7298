"""Kernels that a run will need, compiled by a second process beside this one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from charloom.engines.compiled.engine import TRAIN, CompiledEngine
from charloom.engines.protocol import available_cores
from charloom.kernels import helper
from charloom.network.choices import NumberType
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.ngrams.counts import Counts
from charloom.ngrams.mixing import Mixture, feature_count
from charloom.prediction.mixture import MixedPredictor, fit_ngram_table
from charloom.text.dataset import Dataset
from charloom.text.vocabulary import Vocabulary
from charloom.training.counts import compile_mixer, mixer_is_compiled, mixes_contexts
from charloom.training.options import TrainingConfig
from charloom.training.planner import LEAST_TO_MIX

Kernels = Literal["engine", "mixer", "table"]


def compile_ahead(config: TrainingConfig, fixed: Mapping[str, Any], dataset: Dataset) -> None:
    """Let a second process compile kernels that a new run needs later, if it lacks those too.

    Args:
        config: the options of the run.
        fixed: those of them that the planner does not choose, by name.
        dataset: the text.
    """
    if config.engine not in ("auto", "compiled") or config.no_mix:
        return
    if available_cores() < 2 or config.threads == 1 or TRAIN.is_kept():
        return
    planned, mixes = config.is_to_be_planned, mixes_contexts(config)
    if planned and "counts" not in fixed:
        mixes = len(dataset.train) > LEAST_TO_MIX
    # A planned run needs the engine before its counts, and every run inference before training.
    which: Kernels = "engine" if mixes and not planned else "mixer" if mixes else "table"
    if not (mixes and mixer_is_compiled()):
        helper.start(
            "from charloom.runs.compiling import compile_now\n"
            f"compile_now({which!r}, {config.dtype!r})"
        )


def compile_now(which: Kernels, dtype: NumberType) -> None:
    """Compile the kernels of a kind, for models of a type of numbers."""
    ids = np.zeros((2, 1), np.intp)
    engine = CompiledEngine(initialize(ModelConfig("gru", 4, 1, 2, dtype=dtype), 0), threads=1)
    if which == "engine":
        engine.log_probabilities(ids, engine.zero_state(1))
        engine.loss_and_gradients(ids, ids, engine.zero_state(1))
        return
    counts: Counts
    if which == "mixer":
        from charloom.context_mixing.mixer import ContextMixer

        compile_mixer()
        counts = ContextMixer.empty(Vocabulary(("a", "b")), np.arange(2), 2)
    else:
        engine.loss_and_gradients(ids, ids, engine.zero_state(1))
        counts = fit_ngram_table(np.arange(2), 2, 1, math.inf)
        counts.predict(ids, counts.zero_state(1))
    both = MixedPredictor(engine, Mixture(counts, np.zeros(feature_count(counts.context))))
    both.read(ids, both.zero_state(1))

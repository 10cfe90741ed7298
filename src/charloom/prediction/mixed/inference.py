"""A network of the compiled engine and counts as one predictor, whose methods are one kernel's.

T is the number of time steps, B that of rows, V that of characters in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.context_mixing.mixer import ContextMixer
from charloom.engines.compiled.buffers import GENERATE, LOG_PROBABILITIES, LOGITS, PACK, Call
from charloom.engines.compiled.engine import (
    DOUBLE,
    INT,
    NO_NUMBERS,
    NO_UNIFORMS,
    CompiledEngine,
    plain,
    settings_numbers,
)
from charloom.engines.compiled.plan import DECODED_AT_ONCE
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import Engine, Ids
from charloom.engines.restrictions import NO_RESTRICTIONS, Restrictions
from charloom.kernels.kernel import Kernel
from charloom.network.parameters import Float
from charloom.network.units import Clamp
from charloom.ngrams.mixing import Mixture
from charloom.ngrams.table import NGramTable
from charloom.prediction.mixed.buffers import READ, Beside
from charloom.prediction.rows import MixedState

WITH_MIXER = Kernel(
    "charloom.prediction.mixed.kernel:infer_with_mixer", "inference with context mixing"
)
WITH_TABLE = Kernel(
    "charloom.prediction.mixed.kernel:infer_with_table", "inference with an n-gram model"
)
# Multiplications of the network that take as long as the counts' prediction of a character.
WORK_OF_A_MIXER, WORK_OF_A_TABLE = 5e5, 5e4
READ_AT_ONCE = 1024  # characters of a prompt, whose predictions are in memory


class CompiledMixture:
    """An engine and counts with the methods of a `Predictor`. Several threads can call them.

    Args:
        engine: the network.
        mixture: the counts, and the weights of the mixture.
        network_only: whether the predictions are the network's, as it reads the counts.
    """

    def __init__(self, engine: CompiledEngine, mixture: Mixture, network_only: bool) -> None:
        self._engine, self._counts = engine, mixture.counts
        self._dtype = np.dtype(engine.config.dtype)
        self._nothing = np.zeros(0, self._dtype)
        self._theta = np.zeros(0) if network_only else np.array(mixture.theta, np.float64)
        self._kernel: Any = None
        self._threads = 0  # for which there is scratch memory
        self._blocks = -1  # that a mixer had learned
        self._arguments: Any = None  # of the counts
        self._held: Any = None

    @classmethod
    def of(cls, engine: Engine, mixture: Mixture, network_only: bool) -> CompiledMixture | None:
        """Return the kernel of an engine and counts, None for others."""
        known = isinstance(mixture.counts, (NGramTable, ContextMixer))
        if not known or not isinstance(engine, CompiledEngine):
            return None
        return cls(engine, mixture, network_only)

    def log_probabilities(self, inputs: Ids, state: MixedState) -> tuple[Float, MixedState]:
        return self._run(LOG_PROBABILITIES, inputs, state)

    def read(self, inputs: Ids, state: MixedState) -> MixedState:
        for begin in range(0, len(inputs), READ_AT_ONCE):
            _, state = self._run(READ, inputs[begin : begin + READ_AT_ONCE], state)
        return state

    def step(
        self, ids: Ids, state: MixedState, clamps: Sequence[Clamp] = ()
    ) -> tuple[Float, MixedState]:
        logits, state = self._run(LOGITS, ids[None], state, clamps=clamps)
        return logits[0], state

    def generate(
        self,
        ids: Ids,
        state: MixedState,
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
        clamps: Sequence[Clamp] = (),
        rules: Restrictions = NO_RESTRICTIONS,
    ) -> tuple[Ids, MixedState]:
        return self._run(GENERATE, ids, state, settings, uniforms, clamps, rules)

    def _run(
        self,
        mode: int,
        ids: Ids,
        state: MixedState,
        settings: SamplingSettings | None = None,
        uniforms: NDArray[np.float64] | None = None,
        clamps: Sequence[Clamp] = (),
        rules: Restrictions = NO_RESTRICTIONS,
    ) -> tuple[Any, MixedState]:
        """Run a mode of `charloom.prediction.mixed.kernel`.

        Args:
            mode: GENERATE, LOGITS, LOG_PROBABILITIES or READ.
            ids: (T, B); in GENERATE those before the sample, (B,).
            state: that before them, which does not change.
            settings: those of GENERATE.
            uniforms: random numbers for GENERATE, (T, B).
            clamps: units that are held at a value.
            rules: restrictions of the rows in GENERATE, which change.

        Returns:
            The sampled ids, (T, B), or the logits or log-probabilities, (T, B, V), or an empty
            array. The state after the ids, in GENERATE before the last ones.

        Raises:
            IndexError: for an id that is not in the vocabulary.
            ValueError: for a state of other rows.
        """
        config, counts = self._engine.config, self._counts
        generating = mode == GENERATE
        if uniforms is None:
            given, (steps, batch) = plain(ids, INT), ids.shape
        else:
            steps, batch = uniforms.shape
            given = np.empty((steps + 1, batch), INT)
            given[0] = ids
        size, out = config.vocabulary_size, self._nothing
        chunk = 1
        if mode in (LOGITS, LOG_PROBABILITIES):
            out = np.empty((steps, batch, size), self._dtype)
            chunk = min(max(DECODED_AT_ONCE // max(batch, 1), 1), max(steps, 1))
        expected = (*config.zero_state(0).shape[:2], batch, config.hidden_size)
        if state.network.shape != expected or len(state.context) != batch:
            raise ValueError(f"the state is {state.network.shape}, for {batch} rows of ids")
        places = batch if generating else steps * batch
        found = np.empty(places * size, np.float32)
        extra = found if self._dtype == found.dtype else np.empty(places * size, self._dtype)
        new_state = np.empty(state.network.shape, self._dtype)
        numbers = NO_NUMBERS
        if settings is not None or clamps:
            numbers = settings_numbers(settings or SamplingSettings(), clamps)
        call = Call(
            ids=given,
            extra=extra,
            state=plain(state.network, self._dtype),
            new_state=new_state,
            out=out.reshape(-1),
            settings=numbers,
            uniforms=NO_UNIFORMS if uniforms is None else plain(uniforms, DOUBLE),
            rules=rules,
        )
        of_mixer = isinstance(counts, ContextMixer)
        work = WORK_OF_A_MIXER if of_mixer else WORK_OF_A_TABLE
        several = batch > 1 or (steps > 1 and not generating)
        with self._engine.inference(chunk, batch, work if several else 0) as (windows, packed):
            crew, threads = windows.crew, windows.threads
            by_time = batch < threads and steps > 1 and not generating
            states = np.repeat(state.context[None], threads if by_time else 1, axis=0)
            beside = Beside(
                states=states.reshape(-1),
                found=found,
                lengths=np.empty(places, np.int32),
                shares=np.empty(places, np.float32),
                theta=self._theta,
            )
            mixing = np.array(
                [mode, steps, state.context.shape[1], counts.context, len(self._theta) > 0]
            )
            self._prepare(threads)
            arguments = (windows.places, call, beside, self._arguments)
            if self._kernel is None:
                kernel = WITH_MIXER if of_mixer else WITH_TABLE
                self._kernel = kernel.compiled((*arguments, mixing, crew.sync, 1, 0))
            if not packed:
                crew.run(self._kernel, (*arguments, np.array([PACK, 0, 0, 0, 0])))
            crew.run(self._kernel, (*arguments, mixing))
        return given[1:] if generating else out, MixedState(new_state, states[-1])

    def _prepare(self, threads: int) -> None:
        """Collect the arrays of the counts, with scratch memory for some threads."""
        blocks = self._counts.blocks if isinstance(self._counts, ContextMixer) else 0
        if self._threads >= threads and self._blocks == blocks:
            return
        self._threads, self._blocks = max(self._threads, threads), blocks
        threads = self._threads
        if isinstance(self._counts, ContextMixer):
            *self._arguments, self._held = self._counts.frozen_places(threads)
            self._arguments = tuple(self._arguments)
        else:
            assert isinstance(self._counts, NGramTable)
            self._arguments = self._counts.trie

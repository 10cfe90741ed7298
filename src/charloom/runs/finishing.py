"""Finish a run: add the n-gram model to the best network, and reserve the time for that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from charloom.engines.protocol import Engine
from charloom.ngrams.mixing import Mixture
from charloom.prediction.mixture import (
    FITTED_ON,
    FITTED_ON_ITSELF,
    fit_mixture,
    fit_mixture_on_training_text,
    fit_ngram_table,
    fit_predicted_mixture,
)
from charloom.runs.checkpointing import Checkpoints
from charloom.runs.counting import LearnedCounts, is_unfitted
from charloom.runs.material import PreparedText
from charloom.training.counts import validation_decides
from charloom.training.options import TrainingConfig
from charloom.training.planner import multiplications, seconds_per_character
from charloom.training.setup import VALIDATED_AT_ONCE, rows_of_validation, validated_part

MIXING = 2e-8  # seconds for each number that fitting a mixture reads
READING = 2.0  # time of reading a character in few rows, as a multiple of that of training on it
COUNTING = 1.2  # time of counting at the end, as a multiple of the time to choose the context


class Finish:
    """The end of a run, after its last validation.

    Args:
        config: the run's options.
        prepared: the text.
        checkpoints: the run's checkpoints.
        adds_mixture: called when training is over; False omits the mixture. With it, the time of
            the mixture is not part of the run's --minutes.
        note: called with a sentence for the user.
    """

    def __init__(
        self,
        config: TrainingConfig,
        prepared: PreparedText,
        checkpoints: Checkpoints,
        adds_mixture: Callable[[], bool] | None,
        note: Callable[[str], None],
    ) -> None:
        self._config = config
        self._prepared = prepared
        self._checkpoints = checkpoints
        self._adds_mixture = adds_mixture
        self._note = note

    def seconds(self, validation: float, drawing: float, *, refit: bool) -> float:
        """Return the seconds to reserve for the end.

        Args:
            validation: seconds that a validation takes.
            drawing: seconds that drawing the report takes.
            refit: whether the run trains on a part of the validation split too.
        """
        vocabulary = self._prepared.dataset.vocabulary
        needed = 2 * self._checkpoints.saving_seconds + drawing + 0.1
        if self._prepared.context is not None and self._adds_mixture is None:
            fit, holdout = self._prepared.dataset.fit_and_holdout(refit)
            places, times = min(len(holdout), VALIDATED_AT_ONCE, FITTED_ON), 1
            if not self._validation_decides:
                places = min(len(fit), FITTED_ON_ITSELF)
                times = 11 if len(fit) <= FITTED_ON_ITSELF else 2  # see _parts_to_fit_on
            if self._prepared.learned is not None:
                places, times = min(len(self._prepared.learned.part.ids), FITTED_ON), 0
            if not self._validation_decides:
                validation = places * READING * seconds_per_character(self._multiplications)
            numbers = places * (len(vocabulary) + 1000)
            needed += validation + numbers * MIXING + COUNTING * self._prepared.counting * times
        return needed

    def add_mixture(self) -> None:
        """Add the n-gram model to the best model, with weights fitted on the holdout.

        It writes the same bytes after an interruption.
        """
        if self._adds_mixture is not None and not self._adds_mixture():
            return
        context = self._prepared.context
        if context is None or not self._checkpoints.best_exists():
            return
        best = self._checkpoints.load_best()
        if best.mixture is not None and not is_unfitted(best.mixture):
            return  # no better model has been found since it was added
        network = self._config.backend.for_inference().open(best.parameters)
        if self._prepared.learned is None:
            refit = best.metrics.get("refit", False)
            best.mixture = self._fit_mixture(network, context, refit)
        else:
            best.mixture = self._mix_with(network, self._prepared.learned)
        if best.mixture is None:
            self._note("the network has memorized the text, so no n-gram model is mixed with it")
        else:
            self._checkpoints.save_best(best)

    def _mix_with(self, network: Engine, learned: LearnedCounts) -> Mixture | None:
        """Return the mixture of a network and the counts that were made before its training."""
        rows, held_out = rows_of_validation(len(learned.part.ids)), self._validation_decides
        return fit_predicted_mixture(
            network, learned.mixer, learned.part, rows, trained_on=not held_out
        )

    def _fit_mixture(self, network: Engine, context: int, refit: bool) -> Mixture | None:
        dataset, most_bytes = self._prepared.dataset, self._config.mix_megabytes * 1e6
        size, end_id = len(dataset.vocabulary), dataset.vocabulary.end_id
        fit, holdout = dataset.fit_and_holdout(refit)
        if not self._validation_decides:
            return fit_mixture_on_training_text(network, fit, context, most_bytes, end_id)
        holdout = validated_part(dataset, holdout, self._config.validate_characters)
        table = fit_ngram_table(fit, size, context, most_bytes, end_id)
        mixture = fit_mixture(
            network, table, holdout, int(fit[-1]), rows_of_validation(len(holdout))
        )
        if refit:  # every choice has been made, so the n-gram model can count the holdout too
            known = dataset.ids[: dataset.boundaries[1]]
            table = fit_ngram_table(known, size, table.context, math.inf, end_id)
            mixture = replace(mixture, counts=table)
        return mixture

    @property
    def _multiplications(self) -> float:
        config = self._config
        size = len(self._prepared.dataset.vocabulary)
        extra = size if config.read_counts else 0
        return multiplications(config.cell, config.hidden_size, config.layers, size, extra)

    @property
    def _validation_decides(self) -> bool:
        """True if the mixture's weights are fitted on the validation split."""
        return validation_decides(self._config, self._prepared.dataset)

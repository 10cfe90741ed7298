"""Finish a run: add the n-gram model to the best network, and reserve the time for that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from charloom.prediction.mixture import FITTED_ON, fit_mixture, fit_ngram_table
from charloom.runs.checkpointing import Checkpoints
from charloom.runs.material import PreparedText
from charloom.training.options import TrainingConfig
from charloom.training.setup import VALIDATED_AT_ONCE, rows_of_validation, validated_part

MIXING = 2e-8  # seconds for each number that fitting a mixture reads
COUNTING = 1.2  # time of counting at the end, as a multiple of the time to choose the context


class Finish:
    """The end of a run, after its last validation.

    Args:
        config: the run's options.
        prepared: the text.
        checkpoints: the run's checkpoints.
        adds_mixture: called when training is over; False omits the mixture. With it, the time of
            the mixture is not part of the run's --minutes.
    """

    def __init__(
        self,
        config: TrainingConfig,
        prepared: PreparedText,
        checkpoints: Checkpoints,
        adds_mixture: Callable[[], bool] | None,
    ) -> None:
        self._config = config
        self._prepared = prepared
        self._checkpoints = checkpoints
        self._adds_mixture = adds_mixture

    def seconds(self, validation: float, drawing: float, *, refit: bool) -> float:
        """Return the seconds to reserve for the end.

        Args:
            validation: seconds that a validation takes.
            drawing: seconds that drawing the report takes.
            refit: whether the run trains on a part of the validation split too.
        """
        needed = 2 * self._checkpoints.saving_seconds + drawing + 0.1
        if self._prepared.context is not None and self._adds_mixture is None:
            _, holdout = self._prepared.dataset.fit_and_holdout(refit)
            numbers = min(len(holdout), VALIDATED_AT_ONCE, FITTED_ON) * (
                len(self._prepared.dataset.vocabulary) + 1000
            )
            needed += validation + numbers * MIXING + COUNTING * self._prepared.counting
        return needed

    def add_mixture(self) -> None:
        """Add the n-gram model to the best model, with weights fitted on the holdout.

        It writes the same bytes after an interruption.
        """
        if self._adds_mixture is not None and not self._adds_mixture():
            return
        context, dataset = self._prepared.context, self._prepared.dataset
        if context is None or not self._checkpoints.best_exists():
            return
        best = self._checkpoints.load_best()
        if best.mixture is not None:
            return  # no better model has been found since it was added
        network = self._config.backend.for_inference().open(best.parameters)
        size = len(dataset.vocabulary)
        refit = best.metrics.get("refit", False)
        fit, holdout = dataset.fit_and_holdout(refit)
        holdout = validated_part(dataset, holdout)
        end_id = dataset.vocabulary.end_id
        table = fit_ngram_table(fit, size, context, self._config.mix_megabytes * 1e6, end_id)
        best.mixture = fit_mixture(
            network, table, holdout, int(fit[-1]), rows_of_validation(len(holdout))
        )
        if refit:  # every choice has been made, so the n-gram model can count the holdout too
            known = dataset.ids[: dataset.boundaries[1]]
            table = fit_ngram_table(known, size, table.context, math.inf, end_id)
            best.mixture = replace(best.mixture, table=table)
        self._checkpoints.save_best(best)

"""Prepare a training text: encode and split it, and compute the validation baselines."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.evaluation.baselines import baselines_of_validation
from charloom.prediction.mixture import choose_ngram_context
from charloom.progress import OnProgress
from charloom.runs.counting import LearnedCounts, learn_counts
from charloom.runs.resuming import recorded_options
from charloom.storage.checkpoint import Checkpoint
from charloom.text.dataset import Dataset, character_counts
from charloom.text.hints import suggestion
from charloom.text.loading import read_dataset
from charloom.text.source import Text
from charloom.training.counts import mixes_contexts, refuse_if_impossible
from charloom.training.options import TrainingConfig
from charloom.training.planner import SHORT
from charloom.training.position import mixer_version
from charloom.training.setup import validated_part

# The largest text that is compressed for a baseline, in characters: in all, and for each second of
# the budget.
LONGEST_COMPRESSED, COMPRESSED_A_SECOND = 10_000_000, 40_000


@dataclass(frozen=True)
class PreparedText:
    """A text as training needs it. Runs with the same text and split can share it.

    Attributes:
        dataset: the encoded text.
        counts: occurrences of each character in the training split, (V,); None if the run resumes.
        context: characters of context of the n-gram model; None without one.
        counting: seconds that choosing the context took.
        baselines: results to compare validations with, by name.
        notes: sentences about the text for the user.
        learned: the counts of context mixing, None without them.
        kept: those of runs with the same text, by the options that decide them.
        mixer_version: of the mixer of a run that resumes; None for the newest.
    """

    dataset: Dataset
    counts: NDArray[np.int64] | None
    context: int | None
    counting: float
    baselines: dict[str, Any]
    notes: tuple[str, ...] = ()
    learned: LearnedCounts | None = None
    kept: dict[tuple[Any, ...], LearnedCounts] = field(default_factory=dict)
    mixer_version: int | None = None

    def with_counts(
        self, config: TrainingConfig, folder: Path | None, on_reading: OnProgress | None
    ) -> PreparedText:
        """Return the text with everything that context mixing adds, if the run has that.

        Args:
            config: the run's options.
            folder: where a long record's temporary file is created.
            on_reading: called as the mixer learns.

        Raises:
            CharloomError: if the text cannot have these counts.
        """
        if not mixes_contexts(config):
            return self
        refuse_if_impossible(config, len(self.dataset.vocabulary))
        key = config.read_counts, config.refit > 0, config.keep, config.mix_megabytes
        if key not in self.kept:
            self.kept[key] = learn_counts(
                self.dataset, config, folder, on_reading, self.mixer_version
            )
        learned = self.kept[key]
        return replace(self, dataset=replace(self.dataset, extra=learned.extra), learned=learned)


def prepare_text(
    text: Text,
    config: TrainingConfig,
    *,
    base: Checkpoint | None = None,
    earlier: Checkpoint | None = None,
    folder: Path | None = None,
    on_reading: OnProgress | None = None,
) -> PreparedText:
    """Read a text and compute everything that a run with this configuration needs from it.

    Args:
        text: the text.
        config: the run's options.
        base: the model that the run fine-tunes.
        earlier: the run's own checkpoint, which has the text's SHA-256 and needs no baselines.
        folder: where a long text's temporary file is created.
        on_reading: called as the text is read.

    Raises:
        OtherTextError: if it is not the text of `earlier`.
        CharloomError: if no model can be trained on the text.
    """
    known = earlier or base
    dataset = read_dataset(
        text,
        asdict(config) if earlier is None else recorded_options(earlier, config),
        base=None if known is None else known.vocabulary,
        record=None if earlier is None else earlier.text,
        folder=folder,
        on_progress=on_reading,
    )
    before = time.monotonic()
    context, loss_of_ngrams = None, None
    if not config.no_mix:
        context, loss_of_ngrams = choose_ngram_context(
            dataset.train,
            dataset.validation,
            len(dataset.vocabulary),
            dataset.vocabulary.end_id,
        )
    counting = time.monotonic() - before
    if earlier is not None:
        version = mixer_version(earlier.position)
        return PreparedText(dataset, None, context, counting, {}, mixer_version=version)
    counts = character_counts(dataset.train, len(dataset.vocabulary))
    baselines = _baselines(dataset, config, counts, loss_of_ngrams)
    return PreparedText(dataset, counts, context, counting, baselines, _notes(text, dataset))


def _notes(text: Text, dataset: Dataset) -> tuple[str, ...]:
    """Return the decisions made as the text was read, and the option that it seems to need."""
    newline = int(dataset.vocabulary.ids_or_minus_one("\n")[0])
    lines = character_counts(dataset.ids, len(dataset.vocabulary))[newline] if newline >= 0 else 0
    hint = suggestion(text, int(lines))
    return dataset.notes if hint is None else (*dataset.notes, hint)


def _baselines(
    dataset: Dataset,
    config: TrainingConfig,
    counts: NDArray[np.int64],
    loss_of_ngrams: float | None,
) -> dict[str, Any]:
    """Compute the baselines that are quick to compute.

    Their time is predicted and not measured, so that no clock decides which of them are recorded.
    """
    holdout = validated_part(dataset, dataset.validation)
    if not len(holdout):
        return {}
    most = LONGEST_COMPRESSED
    if config.minutes is not None:
        seconds = config.minutes * 60
        most = min(most, int(seconds * COMPRESSED_A_SECOND)) if seconds >= SHORT else 0
    found = baselines_of_validation(
        dataset.vocabulary,
        dataset.train,
        holdout,
        counts=counts,
        ngram=loss_of_ngrams,
        compressed=len(dataset.ids) <= most,
    )
    return {name: baseline.as_dict() for name, baseline in found.items()}

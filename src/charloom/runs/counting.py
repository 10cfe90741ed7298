"""Learn a run's text by context mixing, before the network is trained.

A network that reads counts reads, beside each character of its training text, what the mixer
predicted before it had learned that part. The part of the text that the weights of the mixture are
fitted on is predicted by a mixer that has not learned any of it, as any other text will be. Then
the mixer learns that part too. The same text gives the same bytes, so that a resumed run and every
rank compute the same.

N is the number of ids that are learned, n that of the part, V that of characters.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from charloom.engines.protocol import available_cores
from charloom.errors import CharloomError, error_reason, plural
from charloom.ngrams.choosing import counted_part
from charloom.ngrams.mixing import Mixture, feature_count
from charloom.ngrams.table import NGramPredictions
from charloom.prediction.mixture import FITTED_ON_ITSELF, PredictedText
from charloom.progress import OnProgress
from charloom.text.dataset import Dataset, TextIds, character_counts
from charloom.text.extra_inputs import ExtraInputs
from charloom.training.counts import validation_decides
from charloom.training.options import TrainingConfig
from charloom.training.setup import validated_part, validated_places

if TYPE_CHECKING:
    from charloom.context_mixing.mixer import ContextMixer

IN_MEMORY = 400_000_000  # bytes of a record; a longer one is a temporary file
LEARNED_AT_ONCE = 32  # blocks
NETWORK_ALONE = 30.0  # the logit of the network's weight before the weights are fitted


@dataclass(frozen=True)
class LearnedCounts:
    """A mixer that has learned a run's text.

    Attributes:
        mixer: the mixer, equal to the one in the model's file.
        extra: what the network reads beside each id of the training and the validation split; None
            for a network that does not read counts.
        part: the part of the text that the weights of the mixture are fitted on, and what was
            predicted of it before any of it was learned.
        note: a sentence for the user.
    """

    mixer: ContextMixer
    extra: ExtraInputs | None
    part: PredictedText
    note: str

    def unfitted(self) -> Mixture:
        """Return the mixture of a run that is not over: the network's predictions alone."""
        return Mixture(self.mixer, _unfitted_theta(self.mixer.context))


def is_unfitted(mixture: Mixture) -> bool:
    """Return whether a mixture is that of a run that was not over."""
    return np.array_equal(mixture.theta, _unfitted_theta(mixture.counts.context))


def _unfitted_theta(context: int) -> NDArray[np.float64]:
    theta = np.zeros(feature_count(context))
    theta[0] = NETWORK_ALONE
    return theta


def learn_counts(
    dataset: Dataset,
    config: TrainingConfig,
    folder: Path | None = None,
    on_progress: OnProgress | None = None,
) -> LearnedCounts:
    """Learn a text, and record what a network reads of it.

    Args:
        dataset: the text.
        config: the run's options.
        folder: where a long record's temporary file is created.
        on_progress: called with the stage, the characters learned and their number.
    """
    from charloom.context_mixing.mixer import decode_probabilities
    from charloom.context_mixing.packing import settled

    began = time.monotonic()
    fit, part = _known_and_fitted_on(dataset, config)
    vocabulary, end_id = dataset.vocabulary, dataset.vocabulary.end_id
    size, reads = len(vocabulary), config.read_counts
    learned = fit if reads else counted_part(fit, end_id)
    learner = _Learner(dataset, config, len(learned) + len(part), learned, on_progress)
    mixer = learner.mixer
    record = None
    if reads:
        record = _empty_record((len(fit) + len(part), size), folder)
    known = len(learned) - 1
    learner.learn(learned[:known], None if record is None else record[:known])
    before = mixer.state.copy()  # that of the last character, which the part follows
    learner.learn(learned[known:], None if record is None else record[known : len(learned)])
    places = validated_places(dataset, fit, part)
    inputs = np.append(fit[-1], part) if reads else dataset.ids[places]
    codes, length, weight = learner.predict(inputs, before)
    if record is not None:
        record[len(fit) - 1 :] = codes
        at = places - (len(fit) - 1)
        codes, length, weight = codes[at], length[at], weight[at]
    if config.refit > 0 or not validation_decides(config, dataset):
        learner.learn(part)
    result = settled(mixer, vocabulary, config.mix_megabytes * 1e6)
    note = (
        f"learned {plural(learner.done, 'character')} by context mixing in "
        f"{time.monotonic() - began:.0f} s, {result.packed / 1e6:.1f} MB in the model's file"
    )
    if result.left_out:
        note += (
            f"; {plural(result.left_out, 'context')} seen most rarely had to be left out, because "
            f"--mix-megabytes is {config.mix_megabytes:g}"
        )
    extra = None if record is None else ExtraInputs(record, decode_probabilities)
    predicted = PredictedText(
        validated_part(dataset, part),
        int(fit[-1]),
        None if extra is None else extra.select(places),
        lambda at: NGramPredictions(_normalized(codes[at]), length[at], weight[at]),
    )
    return LearnedCounts(result.mixer, extra, predicted, note)


def _normalized(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return probabilities, (n, V), that add up to 1: those near 1 are the least exact as bytes."""
    from charloom.context_mixing.mixer import decode_probabilities

    p = decode_probabilities(codes)
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def _known_and_fitted_on(dataset: Dataset, config: TrainingConfig) -> tuple[TextIds, TextIds]:
    """Return the text that the mixer learns first, and the part after it.

    The part is what the run validates on until its end. If that does not decide, it is the end of
    the training split.
    """
    if validation_decides(config, dataset):
        return dataset.fit_and_holdout(config.refit > 0)
    fit, end_id = dataset.train, dataset.vocabulary.end_id
    first = len(fit) - max(1, min(len(fit) // 10, FITTED_ON_ITSELF))
    if end_id is not None:
        ends = np.flatnonzero(fit[:first] == end_id)
        first = int(ends[-1]) + 1 if len(ends) else first
    return fit[:first], fit[first:]


def _empty_record(shape: tuple[int, int], folder: Path | None) -> NDArray[np.uint8]:
    """Return an empty record, (N, V); a long one is a memory-mapped file without a name."""
    if shape[0] * shape[1] <= IN_MEMORY:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            if hasattr(os, "posix_fallocate"):  # else a full disk would be noticed too late
                os.posix_fallocate(file.fileno(), 0, shape[0] * shape[1])
        except OSError as error:
            raise CharloomError(
                f"what the network reads of the counts needs {shape[0] * shape[1] / 1e9:.1f} GB of "
                f"the disk ({error_reason(error)}): omit --read-counts, or free some space"
            ) from None
        # The mapping keeps the file's bytes alive after the file is closed.
        return np.memmap(cast(BinaryIO, file), dtype=np.uint8, mode="w+", shape=shape)


class _Learner:
    """A mixer that learns a text piece by piece, and reports how far it is."""

    def __init__(
        self,
        dataset: Dataset,
        config: TrainingConfig,
        characters: int,
        text: TextIds,
        on_progress: OnProgress | None,
    ) -> None:
        from charloom.context_mixing.layout import BLOCK
        from charloom.context_mixing.mixer import ContextMixer

        vocabulary = dataset.vocabulary
        counts = character_counts(text, len(vocabulary))
        self.mixer = ContextMixer.empty(vocabulary, counts, characters)
        self.done = 0
        self._total = characters
        self._at_once = BLOCK * LEARNED_AT_ONCE
        self._threads = config.threads or available_cores()
        self._on_progress = on_progress

    def learn(self, ids: TextIds, record: NDArray[np.uint8] | None = None) -> None:
        """Learn the ids that follow, (N,), and record what was predicted after each, (N, V)."""
        for begin in range(0, len(ids), self._at_once):
            piece = slice(begin, begin + self._at_once)
            rows = None if record is None else record[piece]
            self.mixer.learn(ids[piece], rows, self._threads)
            self.done += len(ids[piece])
            if self._on_progress is not None:
                self._on_progress("learning contexts", self.done, self._total)

    def predict(
        self, ids: TextIds, state: NDArray[np.uint64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.float32]]:
        """Return what is predicted after each of the ids, (N, V), as bytes, with nothing learned.

        Also return the lengths and the weights of these predictions, (N,).
        """
        from charloom.context_mixing.layout import BLOCK
        from charloom.context_mixing.mixer import encode_probabilities

        codes = np.empty((len(ids), self.mixer.vocabulary_size), np.uint8)
        length, weight = np.empty(len(ids), np.int32), np.empty(len(ids), np.float32)
        states = state[None]
        for begin in range(0, len(ids), BLOCK):
            piece = slice(begin, begin + BLOCK)
            found, states = self.mixer.predict(ids[piece].astype(np.int64)[:, None], states)
            codes[piece] = encode_probabilities(found.probabilities)
            length[piece], weight[piece] = found.length, found.weight
        return codes, length, weight

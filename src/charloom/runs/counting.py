"""Train a context mixer on a run's text, before the network is trained.

A network that reads the mixer reads, beside each character, the mixer's prediction from the text
before that block of characters. One part of the text is predicted by a mixer that has seen none of
it, as any other text will be. The weights of the mixture are fitted on this part. Then the mixer
learns it too. The same text gives the same bytes, so that a resumed run and every rank compute the
same.

N is the number of ids of a text, n that of the part, V that of characters in the vocabulary.
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
    """A mixer that was trained on a run's text.

    Attributes:
        mixer: the mixer, equal to the one in the model's file.
        extra: the extra inputs of the training and the validation split; None for a network that
            does not read counts.
        part: the part of the text that the weights of the mixture are fitted on, with the
            predictions of a mixer that has seen none of it.
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
    version: int | None = None,
) -> LearnedCounts:
    """Train a mixer on a text, and record the extra inputs of a network that reads it.

    Args:
        dataset: the text.
        config: the run's options.
        folder: where a long record's temporary file is created.
        on_progress: called with the stage, the characters done and their number.
        version: of the mixer, None for the newest; a run keeps the one that it began with.
    """
    from charloom.context_mixing.layout import VERSION
    from charloom.context_mixing.mixer import decode_probabilities
    from charloom.context_mixing.packing import settled

    began = time.monotonic()
    known, part = _known_and_fitted_on(dataset, config)
    vocabulary, end = dataset.vocabulary, dataset.boundaries[1]
    reads, refits = config.read_counts, config.refit > 0
    text = known if reads else counted_part(known, vocabulary.end_id)
    later = end - len(known)
    learner = _Learner(dataset, config, text, later, on_progress, version or VERSION)
    record = _empty_record((end if reads else 0, len(vocabulary)), folder)
    learner.learn(text, record)
    ids, places = validated_part(dataset, part), validated_places(dataset, known, part)
    codes, length, weight = learner.predict(part if reads else ids)
    if reads:
        first = len(known) - 1
        record[first : first + len(codes)] = codes
        chosen = places - first
        codes, length, weight = codes[chosen], length[chosen], weight[chosen]
    decides = validation_decides(config, dataset)
    if refits or not decides:
        learner.learn(part)
    if not decides:
        fit, holdout = dataset.fit_and_holdout(refits)
        if refits:
            learner.learn(fit[dataset.boundaries[0] :], record[dataset.boundaries[0] :])
        if reads:
            record[len(fit) - 1 :] = learner.predict(holdout)[0]
        if refits:
            learner.learn(holdout)
    result = settled(learner.mixer, vocabulary, config.mix_megabytes * 1e6)
    note = (
        f"learned {plural(learner.done, 'character')} by context mixing in "
        f"{time.monotonic() - began:.0f} s, {result.packed / 1e6:.1f} MB in the model's file"
    )
    if result.omitted:
        note += (
            f"; it omits {plural(result.omitted, 'context')} that were seen most rarely, because "
            f"--mix-megabytes is {config.mix_megabytes:g}"
        )
    extra = ExtraInputs(record, decode_probabilities) if reads else None
    predicted = PredictedText(
        ids,
        int(known[-1]),
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

    The part is the text that the run validates on until its end. If that text does not decide, it
    is the end of the training split.
    """
    if validation_decides(config, dataset):
        return dataset.fit_and_holdout(config.refit > 0)
    train, end_id = dataset.train, dataset.vocabulary.end_id
    first = len(train) - max(1, min(len(train) // 10, FITTED_ON_ITSELF))
    if end_id is not None:
        ends = np.flatnonzero(train[:first] == end_id)
        first = int(ends[-1]) + 1 if len(ends) else first
    return train[:first], train[first:]


def _empty_record(shape: tuple[int, int], folder: Path | None) -> NDArray[np.uint8]:
    """Return an empty record, (N, V); a long one is a memory-mapped file without a name."""
    size = shape[0] * shape[1]
    if size <= IN_MEMORY:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            if hasattr(os, "posix_fallocate"):  # else a full disk would be noticed too late
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise CharloomError(
                f"--read-counts needs {size / 1e9:.1f} GB of the disk ({error_reason(error)}): "
                "omit it, or free some space"
            ) from None
        # The mapping keeps the file's bytes alive after the file is closed.
        return np.memmap(cast(BinaryIO, file), dtype=np.uint8, mode="w+", shape=shape)


class _Learner:
    """A mixer that learns a text piece by piece.

    Attributes:
        mixer: the mixer.
        done: the number of characters so far.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: TrainingConfig,
        text: TextIds,
        later: int,
        on_progress: OnProgress | None,
        version: int,
    ) -> None:
        from charloom.context_mixing.layout import BLOCK
        from charloom.context_mixing.mixer import ContextMixer

        vocabulary = dataset.vocabulary
        counts = character_counts(text, len(vocabulary))
        self._total = len(text) + later
        self.mixer = ContextMixer.empty(vocabulary, counts, self._total, text=text, version=version)
        self.done = 0
        self._block = BLOCK
        self._threads = config.threads or available_cores()
        self._on_progress = on_progress
        self._last: TextIds = text[:0]  # the latest id
        self._before = self.mixer.state  # the state before it

    def learn(self, ids: TextIds, record: NDArray[np.uint8] | None = None) -> None:
        """Learn the ids that follow, (N,).

        The predictions after each of them are written to the first N rows of `record`, if it has
        any rows.
        """
        if not len(ids):
            return
        rows = None if record is None or not len(record) else record
        last = len(ids) - 1
        for begin, end in [*_pieces(last, self._block * LEARNED_AT_ONCE), (last, last + 1)]:
            if begin == last:
                self._last, self._before = ids[begin:end], self.mixer.state.copy()
            written = None if rows is None else rows[begin:end]
            self.mixer.learn(ids[begin:end], written, self._threads)
            self.done += end - begin
            if self._on_progress is not None:
                self._on_progress("learning contexts", self.done, self._total)

    def predict(
        self, ids: TextIds
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.float32]]:
        """Predict the ids that follow, (N,), without learning them.

        Returns:
            The probabilities after the latest learned id and after each of these, as bytes,
            (N + 1, V), their lengths and their weights, (N + 1,).
        """
        from charloom.context_mixing.mixer import encode_probabilities

        inputs = np.concatenate([self._last, ids]).astype(np.int64)
        codes = np.empty((len(inputs), self.mixer.vocabulary_size), np.uint8)
        length, weight = np.empty(len(inputs), np.int32), np.empty(len(inputs), np.float32)
        states = self._before[None]
        for begin, end in _pieces(len(inputs), self._block):
            found, states = self.mixer.predict(inputs[begin:end, None], states)
            codes[begin:end] = encode_probabilities(found.probabilities)
            length[begin:end], weight[begin:end] = found.length, found.weight
        return codes, length, weight


def _pieces(count: int, at_once: int) -> list[tuple[int, int]]:
    """Return the begins and ends of the pieces of N things."""
    return [(begin, min(begin + at_once, count)) for begin in range(0, count, at_once)]

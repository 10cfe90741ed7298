"""Evaluate a model on held-out text: scores, confidence interval, overlap, table of predictors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.base_model.choices import base_of
from charloom.errors import CharloomError
from charloom.evaluation.baselines import COMPRESSORS, Baseline, baselines
from charloom.evaluation.intervals import IntervalSums
from charloom.evaluation.score_text import TrainedModel, score_text
from charloom.evaluation.scored_text import ScoredText
from charloom.evaluation.training_text import TrainingText
from charloom.ngrams.counts import NGRAM_MODEL, name_of
from charloom.prediction.mixture import MixedPredictor
from charloom.prediction.scoring import Protocol, Scores, Total
from charloom.progress import OnProgress
from charloom.text.dataset import TextIds
from charloom.text.overlap import LONGEST_TO_INDEX, Overlap, longest_overlap
from charloom.text.typed import as_shown
from charloom.text.vocabulary import END, Vocabulary


class Row(NamedTuple):
    """A predictor's result in an evaluation's table; without `bits`, the note is the reason."""

    bits: float | None
    predictor: str
    protocol: str
    note: str


@dataclass(frozen=True)
class Evaluation:
    """Results of evaluating a model on a text.

    Attributes:
        text: the text's name.
        protocol: the protocol by which it was scored.
        characters: its length. The end of each document of a collection counts as a character.
        utf8_bytes: its length in bytes. The end of a document counts as a byte.
        nats_per_character: the mean negative log-likelihood.
        accuracy: the share of characters that were the model's top guess.
        model: `mixture` of network and counts, or `network`.
        counts: the kind of counts that are mixed with the network, or that it reads, `n-gram model`
            or `context mixer`; None without any.
        interval: the 95% confidence interval of nats_per_character, None for a short text.
        overlap: the longest verbatim overlap with the training text, None if it is unknown.
        overlap_text: the characters of that overlap.
        baselines: the results of simple predictors on the same text, by name.
        skipped_characters: the number of unknown characters that were skipped.
        unknown_characters: the number of unknown characters that were scored.
        documents: the number of documents, None for a single text.
        base: the carried model that this one descends from, `english`; None without one. Its
            results do not compare with those of models of this text alone.
    """

    text: str
    protocol: str
    characters: int
    utf8_bytes: int
    nats_per_character: float
    accuracy: float
    model: str = "network"
    counts: str | None = None
    interval: tuple[float, float] | None = None
    overlap: Overlap | None = None
    overlap_text: str = field(default="", repr=False)
    baselines: dict[str, Baseline] = field(default_factory=dict)
    skipped_characters: int = 0
    unknown_characters: int = 0
    documents: int | None = None
    base: str | None = None

    @property
    def unit(self) -> str:
        """The unit that results are per: `symbol` where the ends of documents are scored too."""
        return "character" if self.documents is None else "symbol"

    @property
    def nats_per_document(self) -> float | None:
        """The mean negative log-likelihood of a document with its end, None for a single text."""
        if self.documents is None:
            return None
        return self.nats_per_character * self.characters / self.documents

    @property
    def bits_per_character(self) -> float:
        return self.nats_per_character / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        return self.bits_per_character * self.characters / self.utf8_bytes

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.nats_per_character, 700))

    def predictor(self, cell: str) -> str:
        """Return the model's name in the table."""
        return "mixture" if self.model == "mixture" else f"this {cell}"

    def rows(self, cell: str) -> list[Row]:
        """Return the table of all predictors, best first, then those without a result.

        `cell` is that of the model's network, which is named after it.
        """
        network = f"this {cell}"
        note = "" if self.counts is None else f"reads the {self.counts}"
        if self.model == "mixture":
            note = f"{network} and the {self.counts or NGRAM_MODEL}"
        if self.base is not None:
            note += f"{', ' if note else ''}started from {self.base}"
        found = [Row(self.bits_per_character, self.predictor(cell), self.protocol, note)]
        missing = []
        for name, baseline in self.baselines.items():
            shown, bits = network if name == "network" else name, baseline.bits_per_character
            if bits is None:
                missing.append(Row(None, shown, baseline.protocol, baseline.reason or ""))
            else:
                found.append(Row(bits, shown, baseline.protocol, baseline.note))
        return sorted(found) + missing

    def as_dict(self) -> dict[str, Any]:
        """Return the evaluation as plain JSON values."""
        return {
            "text": self.text,
            "model": self.model,
            "counts": self.counts,
            "base": self.base,
            "protocol": self.protocol,
            "characters": self.characters,
            "utf8_bytes": self.utf8_bytes,
            "skipped_characters": self.skipped_characters,
            "unknown_characters": self.unknown_characters,
            "documents": self.documents,
            "nats_per_document": self.nats_per_document,
            "nats_per_character": self.nats_per_character,
            "nats_per_character_95_percent": self.interval and list(self.interval),
            "bits_per_character": self.bits_per_character,
            "bits_per_byte": self.bits_per_byte,
            "perplexity": self.perplexity,
            "accuracy": self.accuracy,
            "longest_overlap": self.overlap
            and {
                "characters": self.overlap.length,
                "place": self.overlap.place,
                "training_place": self.overlap.training_place,
                "text": self.overlap_text,
            },
            "baselines": {name: baseline.as_dict() for name, baseline in self.baselines.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Read an evaluation from JSON values in the form of `as_dict`.

        Raises:
            CharloomError: if an entry is missing, has a wrong type or is not a finite number.
        """
        try:
            interval, overlap = values["nats_per_character_95_percent"], values["longest_overlap"]
            found = cls(
                text=str(values["text"]),
                protocol=str(values["protocol"]),
                characters=int(values["characters"]),
                utf8_bytes=int(values["utf8_bytes"]),
                nats_per_character=float(values["nats_per_character"]),
                accuracy=float(values["accuracy"]),
                model=str(values["model"]),
                counts=None if values.get("counts") is None else str(values["counts"]),
                interval=None if interval is None else (float(interval[0]), float(interval[1])),
                overlap=None if overlap is None else _overlap_from(overlap),
                overlap_text="" if overlap is None else str(overlap["text"]),
                baselines={
                    str(name): Baseline.from_dict(baseline)
                    for name, baseline in values["baselines"].items()
                },
                skipped_characters=int(values["skipped_characters"]),
                # Evaluations by earlier versions lack these.
                unknown_characters=int(values.get("unknown_characters", 0)),
                documents=_number_of_documents(values.get("documents")),
                base=base_of(values),
            )
            json.dumps(found.as_dict(), allow_nan=False)
        except (
            LookupError,
            TypeError,
            ValueError,
            ArithmeticError,
            AttributeError,
            RecursionError,
        ):
            raise CharloomError("the evaluation is damaged: evaluate the model again") from None
        return found


def _number_of_documents(value: Any) -> int | None:
    if value is None:
        return None
    if int(value) < 1:
        raise ValueError("an evaluation of documents has at least one")
    return int(value)


def _overlap_from(values: Mapping[str, Any]) -> Overlap:
    length, place, training_place = (
        int(values[name]) for name in ("characters", "place", "training_place")
    )
    return Overlap(length, place, training_place)


def evaluate(
    model: TrainedModel,
    text: ScoredText,
    protocol: Protocol,
    training: TrainingText,
    *,
    with_baselines: bool = True,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Evaluate a model on a text.

    Args:
        model: the model.
        text: the text.
        protocol: the protocol by which the text is scored.
        training: the model's training text. If it is not available, the baselines that are
            trained on it are empty and contain the reason.
        with_baselines: whether baselines and the overlap with the training text are computed.
        on_progress: called with the stage, the number of characters scored, and their total.

    Raises:
        CharloomError: if the text is empty, if the adaptive protocol requires the training text
            and it is not available, or if the model's numbers overflow.
    """
    if len(text.ids) == 0:
        raise CharloomError(f"{text.name} has no characters to evaluate")
    sums, of_network = ScoreSums(text, model.vocabulary), Total()
    for scores, network in score_text(
        model, text, protocol, training, on_progress=on_progress, both=True
    ):
        sums.add(scores)
        if network is not None:
            of_network.add(network.log_probabilities)
    reads = isinstance(model.network, MixedPredictor)
    evaluation = replace(
        sums.evaluation(protocol),
        model="network" if model.mixture is None else "mixture",
        base=base_of(model.checkpoint.text),
    )
    if isinstance(model.predictor, MixedPredictor):
        evaluation = replace(evaluation, counts=name_of(model.predictor.mixture.counts))
    found = {}
    if model.mixture is not None:
        bits = with_folded(-of_network.value / len(text.ids), text) / math.log(2)
        note = f"{'reads' if reads else 'without'} the {evaluation.counts}"
        found["network"] = Baseline(bits, str(protocol), note)
    del sums  # large, for a long text
    if not with_baselines:
        return replace(evaluation, baselines=found)
    if on_progress is not None:
        on_progress("computing baselines", 0, None)
    parts = training.parts_beside(text.split)
    known = text.known(model.vocabulary)
    if len(known) == 0:  # Only unknown characters: they cost every baseline the same.
        known = np.array([text.before], text.ids.dtype)
    found |= charged(
        text,
        model.vocabulary,
        baselines(
            model.vocabulary,
            known,
            protocol,
            before=text.before,
            train=None if parts is None else parts.known,
            counted=None if parts is None else parts.train,
            validation=None if parts is None else parts.validation,
            reason=training.problem,
        ),
    )
    overlap = (
        None if parts is None else find_overlap(parts.known, text.ids, model.vocabulary.end_id)
    )
    if overlap is None:
        return replace(evaluation, baselines=found)
    copied = text.ids[overlap.place : overlap.place + overlap.length]
    return replace(
        evaluation,
        baselines=found,
        overlap=overlap,
        overlap_text=as_shown(text.symbols(model.vocabulary).decode(copied), model.vocabulary),
    )


def charged(
    text: ScoredText, vocabulary: Vocabulary, found: dict[str, Baseline]
) -> dict[str, Baseline]:
    """Return the baselines of a text's known characters with the cost of all its characters.

    An unknown character costs every baseline as much as the model. Of the baselines, only
    compressors leave nothing to unknown characters.
    """
    if text.unseen is None:
        return found
    known = int(text.counts(vocabulary)[: len(vocabulary)].sum())
    total = len(text.ids) + text.folded
    of_known, of_unknown = (
        -log_p / math.log(2) for log_p in (text.unseen.log_known, text.unseen.log_probability)
    )
    result = {}
    for name, baseline in found.items():
        bits = baseline.bits_per_character
        if bits is not None:
            bits += 0 if name in COMPRESSORS else of_known
            bits = (known * bits + (total - known) * of_unknown) / total
        result[name] = replace(baseline, bits_per_character=bits)
    return result


class ScoreSums:
    """The sums of the scores of a text, which arrive in stretches."""

    def __init__(self, text: ScoredText, vocabulary: Vocabulary) -> None:
        self._text, self._symbols = text, text.symbols(vocabulary)
        self._counts = text.counts(vocabulary)
        self._unknown = int(self._counts[len(vocabulary) :].sum())
        end_id = vocabulary.end_id
        self._documents = None
        if end_id is not None:  # The last one can lack its end.
            self._documents = int(self._counts[end_id]) + int(text.ids[-1] != end_id)
        self._end_id = -2 if end_id is None else end_id  # -1 is an unknown character.
        self._nats, self._guessed = Total(), 0
        self._interval = IntervalSums(len(text.ids), self._documents)

    def add(self, scores: Scores) -> None:
        """Add the scores of the next characters."""
        self._nats.add(-scores.log_probabilities)
        self._guessed += int(np.count_nonzero(scores.guessed))
        self._interval.add(scores.log_probabilities, scores.ids == self._end_id)

    def evaluation(self, protocol: Protocol) -> Evaluation:
        """Return the evaluation without baselines.

        Raises:
            CharloomError: if the mean log-probability is not finite.
        """
        text = self._text
        nats = with_folded(self._nats.value / len(text.ids), text)
        if not math.isfinite(nats):
            raise CharloomError(
                "a character has probability 0, or the model's numbers overflow: train again with "
                "a lower --learning-rate"
            )
        interval = self._interval.interval()
        if interval is not None:
            interval = with_folded(interval[0], text), with_folded(interval[1], text)
        characters = len(text.ids) + text.folded
        return Evaluation(
            text=text.name,
            protocol=str(protocol),
            characters=characters,
            utf8_bytes=bytes_of(self._symbols, self._counts) + text.folded,
            nats_per_character=nats,
            accuracy=float(self._guessed / characters),
            interval=interval,
            skipped_characters=text.skipped,
            unknown_characters=self._unknown + text.folded,
            documents=self._documents,
        )


def evaluation_of(
    scores: Scores, text: ScoredText, protocol: Protocol, vocabulary: Vocabulary
) -> Evaluation:
    """Summarize the scores of a text, without baselines. Raises CharloomError as `ScoreSums`."""
    sums = ScoreSums(text, vocabulary)
    sums.add(scores)
    return sums.evaluation(protocol)


def with_folded(nats: float, text: ScoredText) -> float:
    """Return nats per character of a text, given those without its folded characters."""
    if text.unseen is None or not text.folded:
        return nats
    of_folded = -text.folded * text.unseen.log_probability
    return (nats * len(text.ids) + of_folded) / (len(text.ids) + text.folded)


def find_overlap(train: TextIds, text: TextIds, end_id: int | None = None) -> Overlap | None:
    """Return the longest verbatim overlap of a text, (N,), with the training text.

    It is None if the texts are too long to search, or if pydivsufsort is missing. In a collection
    it is inside a document, because the document that follows is not copied with it.

    Args:
        train: the training text's ids.
        text: the text's, (N,).
        end_id: the id of END in a collection, else None.
    """
    if len(train) + len(text) > LONGEST_TO_INDEX:
        return None
    if end_id is not None:
        # END becomes a character that the training text does not contain.
        other = 1 + max(int(train.max(initial=0)), int(text.max(initial=0)))
        text = np.where(text == end_id, np.min_scalar_type(other).type(other), text)
    try:
        return longest_overlap(train, text)
    except ImportError:
        return None


def bytes_of(vocabulary: Vocabulary, counts: NDArray[np.int64]) -> int:
    """Return the size in bytes of a text in UTF-8, from the count of each character, (V,).

    In a vocabulary of bytes, each character is one byte. The end of a document is one byte too.
    """
    sizes = np.array(
        [1 if vocabulary.as_bytes or c == END else len(c.encode()) for c in vocabulary.characters]
    )
    return int(counts @ sizes)

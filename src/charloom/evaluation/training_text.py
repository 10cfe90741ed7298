"""A model's training text: find it again, verify it, split it and index it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from charloom.errors import CharloomError, CharloomWarning, shortened
from charloom.evaluation.scored_text import ScoredText
from charloom.prediction.unseen import UnseenCharacters
from charloom.storage.checkpoint import Checkpoint
from charloom.text.corpora import CORPORA, can_be_read_again
from charloom.text.dataset import Dataset, TextIds
from charloom.text.format import Opener, TextFormat, open_texts
from charloom.text.growth import GrownTextError
from charloom.text.loading import read_dataset
from charloom.text.overlap import LONGEST_TO_INDEX, TrainingIndex
from charloom.text.source import ORIGIN_SEPARATOR, Text, shown_origin


@dataclass(frozen=True)
class TrainingParts:
    """A training text, divided by its use.

    Attributes:
        fit: the characters that the network was trained on, (N,).
        holdout: the characters that it was validated on at the end, (N,).
        known: the characters that the baselines can use, (N,).
        train: the training split, (N,).
        validation: the split on which options of the baselines are chosen, (N,), if any.
    """

    fit: TextIds
    holdout: TextIds
    known: TextIds
    train: TextIds
    validation: TextIds | None


class TrainingText:
    """A model's training text, which is read on first use and only if it is needed.

    Args:
        checkpoint: the model, whose header records the text's origin, SHA-256 and splits.
        elsewhere: opens the text in its format, if it is not at its recorded origin.
        dataset: the text, if it is already in memory.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        elsewhere: Opener | None = None,
        dataset: Dataset | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self._elsewhere = elsewhere
        self._dataset = dataset if elsewhere is None else None

    @cached_property
    def _result(self) -> Dataset | CharloomError:
        # An error is cached too, so that a long text with another SHA-256 is read only once.
        try:
            return self._read() if self._dataset is None else self._dataset
        except CharloomError as error:
            return error

    @property
    def problem(self) -> str:
        """The reason why the text is not available, empty if it is."""
        if not isinstance(self._result, CharloomError):
            return ""
        return f"{'' if self._elsewhere is None else '--training-text: '}{self._result}"

    def require(self, purpose: str) -> Dataset:
        """Return the text.

        Raises:
            CharloomError: if it is not available, with the purpose and the reason.
        """
        if isinstance(self._result, CharloomError):
            raise CharloomError(
                f"{purpose} requires the training text, but {self.problem}"
                + self._remedy("its path")
            )
        return self._result

    def _remedy(self, what: str) -> str:
        """Return the end of an error; that of a text that was passed has its own remedy."""
        return f": pass {what} with --training-text" if self._elsewhere is None else ""

    def held_out(self) -> ScoredText:
        """Return the test split, or the validation split of a text without a test split.

        Raises:
            CharloomError: if the text is not available or has neither split.
        """
        dataset = self._result
        if isinstance(dataset, CharloomError):
            raise CharloomError(
                self.problem + self._remedy("a text to evaluate, or the path of the training text")
            )
        first, second = dataset.boundaries
        if len(dataset.test):
            text = ScoredText(
                "test split", dataset.test, int(dataset.ids[second - 1]), split="test"
            )
            return self._with_folded(text, dataset.folded[2])
        if len(dataset.validation):
            before = int(dataset.ids[first - 1])
            text = ScoredText("validation split", dataset.validation, before, split="validation")
            return self._with_folded(text, dataset.folded[1])
        raise CharloomError(
            "the run was trained on the whole text, so it has no test split: pass another text to "
            "evaluate, or train with --split 90/5/5 and another --out"
        )

    def parts_beside(self, split: str | None) -> TrainingParts | None:
        """Return the parts that can be used to score a text, None if they are not available.

        `split` is the split of the training text that is scored, if it is one.

        If the validation split is itself scored, it is not used to choose anything.
        """
        if isinstance(self._result, CharloomError):
            return None
        parts = self._parts(self._result)
        if split == "validation":
            return replace(parts, holdout=parts.holdout[:0], validation=None)
        return parts

    def _with_folded(self, text: ScoredText, folded: int) -> ScoredText:
        """Return a split with the cost of the characters that --min-count excludes from it.

        Without such an option the vocabulary contains every character of every split, so that a
        split leaves nothing to unknown characters.
        """
        if not self._checkpoint.text.get("folded"):
            return text
        unseen = UnseenCharacters.of(self._checkpoint.text, self._checkpoint.vocabulary)
        return text if unseen is None else replace(text, folded=folded, unseen=unseen)

    def index(self) -> TrainingIndex:
        """Index the whole text, its validation and test splits included, for overlap lookups.

        Raises:
            CharloomError: if the text is not available or too long, or pydivsufsort is missing.
        """
        dataset = self.require("searching for verbatim overlap")
        if len(dataset.ids) > LONGEST_TO_INDEX:
            raise CharloomError(
                f"the training text has {len(dataset.ids):,} characters: verbatim overlap is only "
                f"searched in texts of at most {LONGEST_TO_INDEX:,}"
            )
        try:
            return TrainingIndex(dataset.ids, len(self._checkpoint.vocabulary))
        except ImportError as error:
            raise CharloomError(
                "searching for verbatim overlap requires pydivsufsort, which cannot be imported "
                f"({error}): pip install pydivsufsort"
            ) from None

    def _parts(self, dataset: Dataset) -> TrainingParts:
        refit = bool(self._checkpoint.metrics.get("refit"))
        fit, holdout = dataset.fit_and_holdout(refit)
        known = dataset.train
        if refit:  # the n-gram model was then trained on everything but the test split
            known = dataset.ids[: len(fit) + len(holdout)]
        return TrainingParts(fit, holdout, known, dataset.train, dataset.validation)

    def _read(self) -> Dataset:
        """Read the text. Raise CharloomError if it is missing or not the model's."""
        recorded = self._checkpoint.text
        if not isinstance(recorded.get("sha256"), str):
            raise CharloomError("the model has no record of its training text")
        text = self._open(str(recorded.get("name", "")), str(recorded.get("origin", "")))
        training, vocabulary = self._checkpoint.training, self._checkpoint.vocabulary
        try:
            return read_dataset(text, training, base=vocabulary, record=recorded)
        except GrownTextError as error:
            warnings.warn(f"{error}: only its beginning is used", CharloomWarning, stacklevel=2)
            return read_dataset(error.beginning, training, base=vocabulary, record=recorded)

    def _open(self, name: str, origin: str) -> Text:
        vocabulary = self._checkpoint.vocabulary
        reading = TextFormat.of_training(
            self._checkpoint.training,
            as_bytes=vocabulary.as_bytes,
            collection=vocabulary.end_id is not None,
        )
        if self._elsewhere is not None:
            return self._elsewhere(reading)
        if not can_be_read_again(origin):
            where = f" at {shown_origin(origin)}" if origin not in ("", "-") else ""
            raise CharloomError(f"the training text {shortened(name)} was not found{where}")
        sources = origin.split(ORIGIN_SEPARATOR)
        for source in sources:
            if source not in CORPORA and not Path(source).exists():
                raise CharloomError(
                    f"the training text {shortened(name)} was not found at {shown_origin(source)}"
                )
        return open_texts(sources, reading)

"""Scores of a text with its unknown characters, by any protocol, in consecutive stretches.

N is the number of characters of the text, V that of the model's vocabulary.
"""

from __future__ import annotations

import itertools
import typing
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from charloom.engines.protocol import Engine, Predictor
from charloom.evaluation.scored_text import ScoredText
from charloom.evaluation.training_text import TrainingText
from charloom.ngrams.mixing import Mixture
from charloom.prediction.adaptive import choose_adaptation, score_adaptively
from charloom.prediction.mixture import MixedPredictor
from charloom.prediction.scoring import Protocol, Scores, stream_scores
from charloom.prediction.unseen import UnseenCharacters
from charloom.progress import OnProgress
from charloom.storage.checkpoint import Checkpoint
from charloom.text.dataset import TextIds
from charloom.text.vocabulary import Vocabulary

KNOWN_AT_ONCE = 1 << 17  # ids, of which the unknown ones are set apart

# The scores of the model, and those of the network of a mixture alone, if both are computed.
Stretch = tuple[Scores, Scores | None]


class TrainedModel(typing.Protocol):
    """A model that can be scored: a network, and an n-gram model where it has one."""

    @property
    def checkpoint(self) -> Checkpoint: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def mixture(self) -> Mixture | None: ...

    @property
    def predictor(self) -> Predictor:
        """The mixture's predictions, or the network's."""
        ...

    @property
    def network(self) -> Predictor:
        """The network's predictions, which can depend on the counts that it reads."""
        ...


def score_text(
    model: TrainedModel,
    text: ScoredText,
    protocol: Protocol,
    training: TrainingText,
    *,
    on_progress: OnProgress | None = None,
    likeliest: int = 0,
    both: bool = False,
) -> Iterator[Stretch]:
    """Score a text by a protocol, and yield the scores of consecutive stretches.

    Args:
        model: the model.
        text: the text.
        protocol: the protocol.
        training: the model's training text, which only the adaptive protocol requires.
        on_progress: called with the stage, the number of characters scored, and their total.
        likeliest: the number of likeliest characters to return at each position.
        both: whether the network of a mixture is also scored alone.

    Raises:
        CharloomError: if the training text is required and not available.
    """
    return score_blocks(
        model,
        _in_blocks(text.ids) if text.unknown else [text.ids],
        protocol,
        training,
        text.unseen,
        on_progress=on_progress,
        likeliest=likeliest,
        both=both,
        before=text.before,
        split=text.split,
        total=len(text.ids),
        all_known=not text.unknown,
    )


def score_blocks(
    model: TrainedModel,
    blocks: Iterable[TextIds],
    protocol: Protocol,
    training: TrainingText,
    unseen: UnseenCharacters | None,
    *,
    on_progress: OnProgress | None = None,
    likeliest: int = 0,
    both: bool = False,
    before: int | None = None,
    split: str | None = None,
    total: int | None = None,
    all_known: bool = False,
) -> Iterator[Stretch]:
    """Score a text like `score_text`, while its ids are read.

    Args:
        model, protocol, training, on_progress, likeliest, both: as in `score_text`.
        blocks: consecutive ids. Those of unknown characters follow the model's vocabulary.
        unseen: the probability of unknown characters, None if the model leaves them none.
        before: the id of the character before the text, by default the one at the beginning.
        split: the split of the training text that is scored, if any.
        total: the length of the text, if it is known.
        all_known: whether it is certain that no character is unknown.
    """
    first = model.vocabulary.start_id if before is None else before

    def score(known: Iterable[TextIds]) -> Iterator[Stretch]:
        if protocol.adaptive:
            training.require("the adaptive protocol")
            parts = training.parts_beside(split)
            assert parts is not None
            mixture = model.mixture
            if isinstance(model.network, MixedPredictor):
                mixture = model.network.mixture
            adaptation = choose_adaptation(
                model.engine,
                mixture,
                parts.fit,
                parts.holdout,
                on_progress,
                network_only=model.mixture is None,
            )
            for mixed, network in score_adaptively(
                model.engine, known, first, adaptation, on_progress, likeliest, total=total
            ):
                yield (network, None) if mixed is None else (mixed, network)
            return
        alone: Iterator[Scores] | None = None
        if both and model.mixture is not None:
            known, others = itertools.tee(known)
            alone = stream_scores(model.network, others, first, protocol)
        for scores in stream_scores(
            model.predictor, known, first, protocol, on_progress, likeliest, total=total
        ):
            yield scores, None if alone is None else next(alone)

    if unseen is None:
        stretches = score(blocks)
    elif all_known:
        stretches = (
            _charged(stretch, np.ones(len(stretch[0]), dtype=bool), unseen)
            for stretch in score(blocks)
        )
    else:
        stretches = _with_unknown(score, blocks, len(model.vocabulary), first, unseen)
    return _without_warnings(stretches)


def _charged(stretch: Stretch, known: NDArray[np.bool_], unseen: UnseenCharacters) -> Stretch:
    """Return scores with those of unknown characters, as `Scores.with_unknown` does."""
    first, second = stretch
    return (
        first.with_unknown(known, unseen),
        None if second is None else second.with_unknown(known, unseen),
    )


def _with_unknown(
    score: Callable[[Iterable[TextIds]], Iterator[Stretch]],
    blocks: Iterable[TextIds],
    size: int,
    before: int,
    unseen: UnseenCharacters,
) -> Iterator[Stretch]:
    """Score the known characters of a text, and yield the scores of all.

    Args:
        score: scores known ids.
        blocks: consecutive ids of the text, of which unknown ones are `size` or larger.
        size: V.
        before: a known id.
        unseen: the probability of unknown characters.
    """
    masks: deque[NDArray[np.bool_]] = deque()  # of blocks whose scores have not been yielded

    def known_ids() -> Iterator[TextIds]:
        known = np.ones(1, dtype=bool)
        for block in blocks:
            if len(block):
                known = np.asarray(block < size)
                masks.append(known)
                yield block[known]
        if not known[-1]:  # for the guesses at the last places
            yield np.array([before], np.uint32)

    held: list[Stretch] = []
    count = 0
    for stretch in score(known_ids()):
        held.append(stretch)
        count += len(stretch[0])
        while masks:
            known = masks[0]
            used = int(known.sum())
            needed = used + (not known[-1])  # The next known character has the guesses.
            if count < needed:
                break
            masks.popleft()
            joined = _joined(held, count)
            yield _charged(_part(joined, slice(needed)), known, unseen)
            held = [_part(joined, slice(used, None))]
            count -= used


def _part(stretch: Stretch, places: slice) -> Stretch:
    first, second = stretch
    return first.part(places), None if second is None else second.part(places)


def _joined(stretches: list[Stretch], count: int) -> Stretch:
    """Return consecutive stretches of n = `count` characters as one."""
    firsts = [first for first, _ in stretches]
    seconds = [second for _, second in stretches if second is not None]
    return (
        Scores.collected(firsts, count, firsts[0].likeliest.shape[1]),
        Scores.collected(seconds, count, seconds[0].likeliest.shape[1]) if seconds else None,
    )


def _without_warnings(stretches: Iterator[Stretch]) -> Iterator[Stretch]:
    """Return an iterator that computes each stretch without NumPy's warnings of overflow."""
    while True:
        with np.errstate(all="ignore"):
            stretch = next(stretches, None)
        if stretch is None:
            return
        yield stretch


def _in_blocks(ids: TextIds) -> Iterator[TextIds]:
    for begin in range(0, len(ids), KNOWN_AT_ONCE):
        yield ids[begin : begin + KNOWN_AT_ONCE]

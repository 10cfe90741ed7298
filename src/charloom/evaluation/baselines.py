"""Baselines on the same text: uniform, unigram, n-gram model, xz and bzip2."""

from __future__ import annotations

import bz2
import lzma
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.ngrams.kneser_ney import NGramModel, choose_context_on_splits
from charloom.prediction.scoring import Protocol
from charloom.text.dataset import Ids, character_counts
from charloom.text.vocabulary import Vocabulary

LONGEST_FOR_BASELINES = 50_000_000  # characters; counting and compressing more takes too long


@dataclass(frozen=True)
class Baseline:
    """A simple predictor's figure on the same part; `reason` says why there is none."""

    bits_per_character: float | None
    protocol: str
    note: str = ""
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The baseline as plain JSON values."""
        return {
            "bits_per_character": self.bits_per_character,
            "protocol": self.protocol,
            "note": self.note,
            "reason": self.reason,
        }


def _encoded(vocabulary: Vocabulary, ids: Ids) -> bytes:
    return vocabulary.decode(ids).encode("latin-1" if vocabulary.as_bytes else "utf-8")


def baselines(
    vocabulary: Vocabulary,
    part: Ids,
    protocol: Protocol,
    *,
    before: int | None = None,
    train: Ids | None = None,
    counted: Ids | None = None,
    validation: Ids | None = None,
    reason: str = "the training text is not at hand",
) -> dict[str, Baseline]:
    """What counting and compressing make of the same part, (N,).

    train: what is counted; None leaves those rows empty, for that `reason`. validation: where the
    n-gram model's order is chosen, by counts of `counted` (by default `train`); None takes the last
    tenth of the latter, which counts again once the order is chosen. before: the character before
    the part, for the n-gram.
    """
    size = len(vocabulary)
    static = Protocol() if protocol.adaptive else protocol  # these counts learn nothing further
    result = {"uniform": _uniform(size)}
    if train is not None and len(train) + len(part) > LONGEST_FOR_BASELINES:
        reason = f"the text is longer than {LONGEST_FOR_BASELINES:,} characters"
        train = None
    if train is None or len(train) == 0:
        result["unigram"] = Baseline(None, "static", reason=reason)
        result["ngram"] = Baseline(None, str(static), reason=reason)
        result["xz"] = Baseline(None, "adaptive", reason=reason)
        result["bzip2"] = Baseline(None, "adaptive", reason=reason)
        return result
    result["unigram"] = _unigram(character_counts(train, size), part)
    context, chosen_on, _ = choose_context_on_splits(
        train if counted is None else counted, validation, size
    )
    model = NGramModel.fit(train, size, context)
    preceding = None
    if before is not None:
        preceding = np.array([before])
    log_p = model.log_probabilities(part, preceding=preceding, window=static.window)
    result["ngram"] = Baseline(
        -float(log_p.mean()) / math.log(2),
        str(static),
        f"Kneser-Ney, {context} characters of context, chosen on {chosen_on}",
    )
    train_bytes, part_bytes = _encoded(vocabulary, train), _encoded(vocabulary, part)
    compressors: dict[str, Callable[[bytes], bytes]] = {"xz": _xz, "bzip2": bz2.compress}
    for name, compress in compressors.items():
        result[name] = _compressed(compress, train_bytes, part_bytes, len(part))
    return result


def baselines_of_validation(
    vocabulary: Vocabulary,
    train: Ids,
    part: Ids,
    *,
    counts: NDArray[np.integer],
    ngram: float | None,
    compressed: bool,
) -> dict[str, Baseline]:
    """What a run's validations can be held against: the same figures, of a part (N,) of at least
    one character, as far as they take hardly any time.

    counts: of the training part's characters, (V,). ngram: nats per character of the n-grams that
    the run counts anyway. compressed: with bzip2, whose time grows with the training text.
    """
    result = {"uniform": _uniform(len(vocabulary)), "unigram": _unigram(counts, part)}
    if ngram is not None:
        note = "Kneser-Ney, the best context on this part"
        result["ngram"] = Baseline(ngram / math.log(2), "carried", note)
    if compressed:
        train_bytes, part_bytes = _encoded(vocabulary, train), _encoded(vocabulary, part)
        result["bzip2"] = _compressed(bz2.compress, train_bytes, part_bytes, len(part))
    return result


def _uniform(size: int) -> Baseline:
    return Baseline(math.log2(size), "static", f"each of {size} characters alike")


def _unigram(counts: NDArray[np.integer], part: Ids) -> Baseline:
    # One added to every count, so that a character of the part that never occurs has a probability.
    one_more = counts + 1.0
    unigram = -float(np.log2(one_more / one_more.sum())[part].mean())
    return Baseline(unigram, "static", "how often each character occurs")


def _compressed(
    compress: Callable[[bytes], bytes], train: bytes, part: bytes, characters: int
) -> Baseline:
    added = len(compress(train + part)) - len(compress(train))
    note = "bytes that the part adds to the compressed training part"
    return Baseline(8 * added / characters, "adaptive", note)


def _xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)

"""Baselines on an evaluated text: uniform, unigram, n-gram model, xz and bzip2.

In a collection, every baseline predicts the ends of documents too, and its result is in bits per
symbol. The compressors read the documents joined by line breaks.
"""

from __future__ import annotations

import bz2
import lzma
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.errors import plural
from charloom.ngrams.choosing import choose_context_on_splits
from charloom.ngrams.kneser_ney import NGramModel
from charloom.prediction.scoring import Protocol, Total
from charloom.text.dataset import TextIds, character_counts
from charloom.text.vocabulary import END, Vocabulary, code_points

LONGEST_FOR_BASELINES = 50_000_000  # characters; baselines of a longer text take too long
ENCODED_AT_ONCE = 1 << 20  # characters


class Compressor(typing.Protocol):
    """A compressor of a stream of bytes."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


COMPRESSORS: Mapping[str, Callable[[], Compressor]] = {
    "xz": lambda: lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME),
    "bzip2": bz2.BZ2Compressor,
}


@dataclass(frozen=True)
class Baseline:
    """The result of a simple predictor on the evaluated text.

    Attributes:
        bits_per_character: the result, None if there is a `reason` instead.
        protocol: the protocol by which the text was scored.
        note: a description of the predictor.
        reason: the reason why the result is missing.
    """

    bits_per_character: float | None
    protocol: str
    note: str = ""
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the baseline as plain JSON values."""
        return {
            "bits_per_character": self.bits_per_character,
            "protocol": self.protocol,
            "note": self.note,
            "reason": self.reason,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Baseline:
        """Read a baseline from JSON values in the form of `as_dict`.

        Raises:
            LookupError, TypeError, ValueError: if the values are damaged.
        """
        bits, reason = values["bits_per_character"], values["reason"]
        return cls(
            None if bits is None else float(bits),
            str(values["protocol"]),
            str(values["note"]),
            None if reason is None else str(reason),
        )


def _encoded(vocabulary: Vocabulary, ids: TextIds) -> Iterator[bytes]:
    """Yield the bytes that are compressed; a line break takes the place of END."""
    encoding = "latin-1" if vocabulary.as_bytes else "utf-8"
    codes = code_points("".join(vocabulary.characters).replace(END, "\n")).astype("<u4")
    for begin in range(0, len(ids), ENCODED_AT_ONCE):
        block = codes[ids[begin : begin + ENCODED_AT_ONCE]].tobytes()
        yield block.decode("utf-32-le").encode(encoding)


def baselines(
    vocabulary: Vocabulary,
    text: TextIds,
    protocol: Protocol,
    *,
    before: int | None = None,
    train: TextIds | None = None,
    counted: TextIds | None = None,
    validation: TextIds | None = None,
    reason: str = "the training text is not available",
) -> dict[str, Baseline]:
    """Evaluate the baselines on a text.

    Args:
        vocabulary: the characters of the ids.
        text: the evaluated text, (N,).
        protocol: the protocol by which the n-gram model is scored.
        before: the character before the text.
        train: the text on which the baselines are trained. If it is None, the baselines that
            require it are empty and contain the `reason`.
        counted: the text on which n-gram models are trained to choose the context length, by
            default `train`.
        validation: the text on which that choice is validated, by default the last tenth of
            `counted`. The chosen model is then trained on all of `train`.
        reason: the reason why `train` is missing.
    """
    size = len(vocabulary)
    static = Protocol() if protocol.adaptive else protocol  # its counts are not updated
    result = {"uniform": _uniform(size)}
    if train is None or len(train) == 0:
        result["unigram"] = Baseline(None, "static", reason=reason)
    else:
        result["unigram"] = _unigram(character_counts(train, size), text)
        if len(train) + len(text) > LONGEST_FOR_BASELINES:
            reason = f"the text is longer than {LONGEST_FOR_BASELINES:,} characters"
            train = None
    if train is None or len(train) == 0:
        result["ngram"] = Baseline(None, str(static), reason=reason)
        result["xz"] = Baseline(None, "adaptive", reason=reason)
        result["bzip2"] = Baseline(None, "adaptive", reason=reason)
        return result
    context, chosen_on, _ = choose_context_on_splits(
        train if counted is None else counted, validation, size, vocabulary.end_id
    )
    model = NGramModel.fit(train, size, context, vocabulary.end_id)
    preceding = None if before is None else np.array([before])
    nats = Total()
    for log_p in model.log_probability_blocks(text, preceding=preceding, window=static.window):
        nats.add(-log_p)
    del model
    result["ngram"] = Baseline(
        nats.value / len(text) / math.log(2),
        str(static),
        f"Kneser-Ney, {plural(context, 'character')} of context, chosen on {chosen_on}",
    )
    for name, compressor in COMPRESSORS.items():
        result[name] = _compressed(compressor, vocabulary, train, text)
    return result


def baselines_of_validation(
    vocabulary: Vocabulary,
    train: TextIds,
    validation: TextIds,
    *,
    counts: NDArray[np.integer],
    ngram: float | None,
    compressed: bool,
) -> dict[str, Baseline]:
    """Evaluate the baselines that take hardly any time, for comparison with a run's validations.

    Args:
        vocabulary: the characters of the ids.
        train: the training split.
        validation: the validation split, (N,), of at least one character.
        counts: the number of occurrences of each character in the training split, (V,).
        ngram: nats per character of the run's n-gram model, if it has one.
        compressed: whether bzip2 is included, whose time grows with the training text.
    """
    result = {"uniform": _uniform(len(vocabulary)), "unigram": _unigram(counts, validation)}
    if ngram is not None:
        note = "Kneser-Ney, the best context length on this split"
        result["ngram"] = Baseline(ngram / math.log(2), "carried", note)
    if compressed:
        result["bzip2"] = _compressed(COMPRESSORS["bzip2"], vocabulary, train, validation)
    return result


def _uniform(size: int) -> Baseline:
    return Baseline(math.log2(size), "static", f"{size} symbols with equal probability")


def _unigram(counts: NDArray[np.integer], text: TextIds) -> Baseline:
    # Each count is increased by one, so that a character without occurrences has a probability.
    one_more = counts + 1.0
    bits = -np.log2(one_more / one_more.sum())
    unigram = float(bits @ character_counts(text, len(counts))) / len(text)
    return Baseline(unigram, "static", "character frequencies")


def _compressed(
    compressor: Callable[[], Compressor], vocabulary: Vocabulary, train: TextIds, text: TextIds
) -> Baseline:
    def size(*parts: TextIds) -> int:
        stream = compressor()
        blocks = (block for part in parts for block in _encoded(vocabulary, part))
        return sum(len(stream.compress(block)) for block in blocks) + len(stream.flush())

    added = size(train, text) - size(train)
    note = "bytes added to the compressed training text"
    return Baseline(8 * added / len(text), "adaptive", note)

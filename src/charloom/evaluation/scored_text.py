"""A text to score, as ids: a whole one, or pieces that are scored by themselves.

A model of documents scores the end of each document like a character. An unknown character has no
id in the model's vocabulary, but it can have a probability.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from charloom.engines.protocol import Predictor
from charloom.errors import CharloomError, printable
from charloom.prediction.scoring import total_of_pieces
from charloom.prediction.unseen import UnseenCharacters
from charloom.progress import OnProgress
from charloom.text.dataset import (
    TextIds,
    character_counts,
    encode_text,
    encode_without_folded,
    scan,
)
from charloom.text.format import Opener, TextFormat, open_texts
from charloom.text.source import Text, refuse_surrogates
from charloom.text.sources import Texts, strings_to_score, texts_to_score
from charloom.text.splitting import store_ids
from charloom.text.typed import as_read, compose_pieces
from charloom.text.vocabulary import END, UnknownCharacterError, Vocabulary

KNOWN_AT_ONCE = 1 << 20  # ids


@dataclass(frozen=True)
class ScoredText:
    """A text to score.

    Attributes:
        name: its name in the output.
        ids: its characters, (N,). In a model of documents, each document has its end.
        before: the id of the character before it.
        skipped: the number of unknown characters that were skipped in it.
        split: the split of the training text, if it is one.
        unknown: its unknown characters, whose ids follow those of the model's vocabulary.
        folded: the number of further unknown characters, which are not among the ids, because
            --min-count excludes them.
        unseen: the probability of unknown characters, None if the model has no record of it, or
            if unknown characters are skipped.
    """

    name: str
    ids: TextIds
    before: int
    skipped: int = 0
    split: Literal["validation", "test"] | None = None
    unknown: tuple[str, ...] = ()
    folded: int = 0
    unseen: UnseenCharacters | None = None

    @classmethod
    def of(
        cls,
        name: str,
        content: str,
        vocabulary: Vocabulary,
        unseen: UnseenCharacters | None,
        *,
        skip_unknown: bool = False,
    ) -> ScoredText:
        """Encode a text.

        Args:
            name: its name in the output.
            content: its characters, with END after each document of a collection.
            vocabulary: the model's vocabulary.
            unseen: the probability of unknown characters, if the model has a record of it.
            skip_unknown: whether unknown characters are skipped.

        Raises:
            UnknownCharacterError: if a character is unknown, has no probability and is not skipped.
        """
        before = vocabulary.start_id
        if skip_unknown:
            ids, skipped = vocabulary.encode_known(content)
            return cls(name, ids, before, skipped)
        new = tuple(sorted(set(content) - set(vocabulary.characters)))
        if unseen is None or not all(unseen.include(character) for character in new):
            return cls(name, vocabulary.encode(content), before)
        symbols = vocabulary.grown(new)
        return cls(name, symbols.encode(content), before, unknown=new, unseen=unseen)

    @classmethod
    def read(
        cls,
        text: Text,
        vocabulary: Vocabulary,
        unseen: UnseenCharacters | None,
        *,
        skip_unknown: bool = False,
        on_progress: OnProgress | None = None,
    ) -> ScoredText:
        """Read a text of any length, of which only the ids are stored.

        Args:
            text: the text, with END after each document of a collection.
            vocabulary, unseen, skip_unknown: as in `of`.
            on_progress: called while the text is read ("reading") and encoded ("encoding").

        Raises:
            CharloomError: if the text cannot be read.
            UnknownCharacterError: as in `of`.
        """
        before = vocabulary.start_id
        scanned = scan(text, on_progress, with_hashes=False)
        if skip_unknown:
            ids, _ = encode_without_folded(text, scanned, vocabulary, None, on_progress)
            return cls(text.name, ids, before, scanned.characters - len(ids))
        new = tuple(sorted(set(scanned.distinct) - set(vocabulary.characters)))
        if unseen is None or not all(unseen.include(character) for character in new):
            new, unseen = (), None
        symbols = vocabulary.grown(new)
        ids = encode_text(text, scanned.characters, symbols, None, on_progress)
        return cls(text.name, ids, before, unknown=new, unseen=unseen)

    def symbols(self, vocabulary: Vocabulary) -> Vocabulary:
        """Return the characters of the ids, given the model's vocabulary."""
        return vocabulary.grown(self.unknown) if self.unknown else vocabulary

    def known(self, vocabulary: Vocabulary) -> TextIds:
        """Return the ids of the characters of the model's vocabulary."""
        if not self.unknown:
            return self.ids
        size = len(vocabulary)
        count = int(self.counts(vocabulary)[:size].sum())
        blocks = (
            self.ids[begin : begin + KNOWN_AT_ONCE]
            for begin in range(0, len(self.ids), KNOWN_AT_ONCE)
        )
        return store_ids((block[block < size] for block in blocks), count, self.ids.dtype)

    def counts(self, vocabulary: Vocabulary) -> NDArray[np.int64]:
        """Return the number of occurrences of each of the `symbols`, (V + unknown,)."""
        return character_counts(self.ids, len(vocabulary) + len(self.unknown))


class TextEncoder:
    """An encoder of a text to score whose pieces arrive one after the other.

    Attributes:
        symbols: the characters of the ids so far. Those after the model's are unknown to it.
        skipped: the number of unknown characters that were skipped so far.
    """

    def __init__(
        self, vocabulary: Vocabulary, unseen: UnseenCharacters | None, *, skip_unknown: bool
    ) -> None:
        self.symbols, self.skipped = vocabulary, 0
        self._unseen, self._skip_unknown = unseen, skip_unknown
        self._position = 0

    def encode(self, piece: str) -> TextIds:
        """Return the ids of the next piece of the text.

        Raises:
            UnknownCharacterError: if a character is unknown, has no probability and is not skipped.
        """
        self._position += len(piece)
        if self._skip_unknown:
            ids, skipped = self.symbols.encode_known(piece)
            self.skipped += skipped
            return ids
        new = set(piece) - self.symbols.known - {END}
        if new and self._unseen is not None and all(map(self._unseen.include, new)):
            self.symbols = self.symbols.grown(new)
        return self.symbols.encode(piece, position=self._position - len(piece))


@dataclass(frozen=True)
class ScoredPieces:
    """Lines or documents, of which each is scored by itself.

    Attributes:
        ids: the known characters of all pieces and their ends, (N,).
        lengths: their number in each piece, (D,).
        unknown: the number of unknown characters in each piece, (D,).
        unseen: the probability of unknown characters, None if they are skipped.
    """

    ids: TextIds
    lengths: NDArray[np.intp]
    unknown: NDArray[np.intp]
    unseen: UnseenCharacters | None

    @classmethod
    def of(
        cls,
        pieces: Sequence[str],
        vocabulary: Vocabulary,
        unseen: UnseenCharacters | None,
        *,
        end_id: int | None = None,
        skip_unknown: bool = False,
        kind: str = "line",
        places: Sequence[int] | Sequence[str] | None = None,
    ) -> ScoredPieces:
        """Encode pieces.

        Args:
            pieces: their characters of the model.
            vocabulary: the model's vocabulary.
            unseen: the probability of unknown characters, if the model has a record of it.
            end_id: the id that is scored after each piece, if any.
            skip_unknown: whether unknown characters are skipped.
            kind: `line` or `document`, for error messages.
            places: the number or the name of each piece, for error messages.

        Raises:
            CharloomError: if a piece holds half of a surrogate pair.
            UnknownCharacterError: if a character is unknown, has no probability and is not skipped.
        """
        content = "".join(pieces)
        lengths = np.array([len(piece) for piece in pieces], dtype=np.intp)
        refused = set(content) - set(vocabulary.characters)
        if skip_unknown:
            refused = set()
        elif unseen is not None:
            refused = {character for character in refused if not unseen.include(character)}
        # The end of a document has an id, but is not a character of a text.
        if refused or END in content:
            _refuse(pieces, vocabulary, refused, kind, places or range(1, len(pieces) + 1))
        ends, of_known = np.cumsum(lengths), np.zeros(len(pieces), np.intp)
        parts = [np.zeros(0, vocabulary.id_type)]
        for begin in range(0, len(content), KNOWN_AT_ONCE):
            ids = vocabulary.ids_or_minus_one(content[begin : begin + KNOWN_AT_ONCE])
            known = ids >= 0
            parts.append(ids[known].astype(vocabulary.id_type))
            piece = np.searchsorted(ends, begin + np.flatnonzero(known), side="right")
            if len(piece):
                of_known[piece[0] : piece[-1] + 1] += np.bincount(piece - piece[0])
        encoded = np.concatenate(parts)
        if end_id is not None:
            encoded = np.insert(encoded, np.cumsum(of_known), end_id)
        return cls(
            encoded,
            of_known + (end_id is not None),
            lengths - of_known,
            None if skip_unknown else unseen,
        )

    def score(
        self, predictor: Predictor, before: int, on_progress: OnProgress | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Return the log-probability and the number of unknown characters of each piece, (D,).

        Args:
            predictor: the model.
            before: the id that is the first input of every piece.
            on_progress: called with the stage "scoring", the characters scored and their total.
        """
        totals = total_of_pieces(predictor, self.ids, self.lengths, before, on_progress)
        if self.unseen is not None:
            known, unknown = self.unseen.log_known, self.unseen.log_probability
            totals = np.asarray(totals + self.lengths * known + self.unknown * unknown)
        return totals, self.unknown


def open_and_encode(
    passed: Texts,
    format: TextFormat,
    vocabulary: Vocabulary,
    unseen: UnseenCharacters | None,
    *,
    skip_unknown: bool = False,
    checks_names: bool = True,
    on_progress: OnProgress | None = None,
) -> ScoredText:
    """Open and encode a text. Of a file, only the ids are stored, on disk if they are many.

    Arguments and errors are those of `open_to_score` and `ScoredText.read`.
    """
    text = texts_to_score(passed, checks_names=checks_names)
    opened = open_to_score(text, format, vocabulary)
    if isinstance(text, str | bytes | list):
        return ScoredText.of(
            opened.name, opened.read(), vocabulary, unseen, skip_unknown=skip_unknown
        )
    return ScoredText.read(
        opened, vocabulary, unseen, skip_unknown=skip_unknown, on_progress=on_progress
    )


def open_to_score(
    text: str | bytes | list[str | bytes] | Opener, format: TextFormat, vocabulary: Vocabulary
) -> Text:
    """Return a text as characters of the model, with END after each document of a collection.

    Its Unicode form becomes the one that the vocabulary knows.

    Args:
        text: the text, as `texts_to_score` returns it.
        format: how the model's training text was read.
        vocabulary: the model's vocabulary.

    Raises:
        CharloomError: if the text cannot be read, or is a list of strings and the format is that of
            a book.
    """
    if isinstance(text, str | bytes):
        content = as_read(text, format, vocabulary)
        opened = Text("text", "", vocabulary.as_bytes, lambda: iter((content,)))
        if format.cuts:
            opened = open_texts([opened], replace(format, collection=True))
    elif not isinstance(text, list):
        opened = text(format)
    elif format.collection:
        documents = "".join(as_read(document, format, vocabulary) + END for document in text)
        return Text("text", "", vocabulary.as_bytes, lambda: iter((documents,)), ends=True)
    else:
        raise CharloomError(
            "a list of texts is for models of documents, and this one was trained on a single "
            "text: pass one text, or use score_lines"
        )
    end = END if format.collection and not opened.ends else ""
    pieces = opened.pieces
    return replace(
        opened, pieces=lambda: itertools.chain(compose_pieces(pieces(), vocabulary), [end])
    )


def pieces_as_read(
    pieces: Iterable[str | bytes], kind: str, format: TextFormat, vocabulary: Vocabulary
) -> list[str]:
    """Return lines or documents as characters of the model; `kind` names one in messages.

    Raises:
        CharloomError: if they are a single string, or one of them is not text.
    """
    found = []
    for number, piece in enumerate(strings_to_score(pieces, kind), 1):
        try:
            found.append(as_read(piece, format, vocabulary))
        except CharloomError as error:
            raise CharloomError(f"{kind} {number:,}: {error}") from None
    return found


def _refuse(
    pieces: Sequence[str],
    vocabulary: Vocabulary,
    refused: set[str],
    kind: str,
    places: Sequence[int] | Sequence[str],
) -> None:
    """Raise CharloomError for the first piece with a character that has no probability."""
    for place, piece in zip(places, pieces, strict=True):
        label = f"{kind} {place:,}" if isinstance(place, int) else printable(str(place))
        try:
            refuse_surrogates(piece)
            if refused.intersection(piece):
                vocabulary.encode(piece)
        except UnknownCharacterError as error:
            raise UnknownCharacterError(f"{label}: {error}") from None
        except CharloomError as error:
            raise CharloomError(f"{label}: {error}") from None

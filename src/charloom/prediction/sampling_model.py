"""Everything that a model samples: the base class of LanguageModel."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from charloom.engines.decoding import SamplingSettings
from charloom.errors import CharloomError, plural, shortened
from charloom.network.units import parse_clamps
from charloom.prediction.sampling import OverlapGuard, SampleRequest, TextStream, stream_text
from charloom.text.stops import read_stops
from charloom.text.typed import ShownText, as_read, as_shown

if TYPE_CHECKING:  # imports that a plain sample does not need are inside methods
    from charloom.constraints.options import Bias
    from charloom.constraints.protocol import Constraints
    from charloom.engines.protocol import Predictor
    from charloom.network.parameters import ModelConfig
    from charloom.prediction.likeliest import Blank, LikelyText
    from charloom.prediction.side_by_side import SampledDocument
    from charloom.prediction.unseen import UnseenCharacters
    from charloom.text.document_set import DocumentSet
    from charloom.text.format import TextFormat
    from charloom.text.overlap import TrainingIndex
    from charloom.text.sources import Texts
    from charloom.text.vocabulary import Vocabulary

LENGTH_OF_A_BOOK, LENGTH_OF_A_DOCUMENT = 500, 10_000  # characters of a sample, by default
BLANK = "_{3,}"
WORD = r"\w+"  # fills a blank, by default


class SamplingModel(ABC):
    """A model that samples. LanguageModel has the rest: scores, evaluations and files."""

    predictor: Predictor
    unseen: UnseenCharacters | None

    @property
    @abstractmethod
    def config(self) -> ModelConfig: ...

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary: ...

    @property
    @abstractmethod
    def text_format(self) -> TextFormat: ...

    @abstractmethod
    def training_documents(self, training_text: Texts | None = None) -> DocumentSet: ...

    @abstractmethod
    def training_index(self, training_text: Texts | None = None) -> TrainingIndex: ...

    def as_read(self, text: str | bytes, *, skip_unknown: bool = False) -> str:
        """Return a text that a user typed as characters of the model, which are bytes for some.

        It is read like the training text: its line ends, and its UTF-8 in a model of bytes. Its
        Unicode form becomes the one that the vocabulary knows.

        With `skip_unknown`, halves of surrogate pairs are removed, which are otherwise an error.

        Raises:
            CharloomError: if it is not text.
        """
        return as_read(text, self.text_format, self.vocabulary, skip_unknown=skip_unknown)

    def encode(
        self, text: str | bytes, *, skip_unknown: bool = False
    ) -> NDArray[np.unsignedinteger]:
        """Encode a text as ids, (N,). In a model of bytes, these are the bytes of its UTF-8.

        Raises:
            UnknownCharacterError: if a character is unknown and `skip_unknown` is not set.
        """
        read, vocabulary = self.as_read(text, skip_unknown=skip_unknown), self.vocabulary
        return vocabulary.encode_known(read)[0] if skip_unknown else vocabulary.encode(read)

    # Each sampling option is a keyword here, because this is the signature for users, who need no
    # other type. Internally, the options are one SampleRequest.
    def stream(
        self,
        prompt: str | bytes = "",
        *,
        length: int | Literal["auto"] | None = "auto",
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        stop: str | bytes | Sequence[str | bytes] = (),
        seed: int = 0,
        index: int = 0,
        skip_unknown: bool = False,
        clamp: Mapping[str, float] | Sequence[str] | str = (),
        max_overlap: int | None = None,
        training_text: Texts | None = None,
        match: str | None = None,
        forbid: str | Sequence[str] = (),
        require: str | Sequence[str] = (),
        alphabet: str | None = None,
        bias: Bias = (),
        json_schema: Any = None,
        grammar: str | None = None,
    ) -> TextStream:
        """Return a sample in pieces while it is generated, without its prompt.

        A model of a collection samples one document, up to its end. Prompt and stop texts are read
        like the training text, in the Unicode form that the model knows. A model of bytes reads the
        bytes of their UTF-8. Bytes objects are used as they are.

        Args:
            prompt: the text that precedes the sample.
            length: the largest number of characters, or of bytes, to sample; None is unlimited. By
                default 500, and 10,000 for a document of a collection, which ends before.
            temperature: the divisor of the logits; 0 is greedy.
            top_k: sample only from the k likeliest characters.
            top_p: sample only from the likeliest characters whose probabilities add up to p.
            min_p: sample only from characters at least p times as likely as the likeliest one.
            stop: texts that end the sample and are not part of it, with any line break as \\n.
            seed: the random seed.
            index: the number of the sample under that seed.
            skip_unknown: whether unknown characters of the prompt are skipped.
            clamp: units that are held at a value, such as {"h17": 0.9}; `explore` finds them.
            max_overlap: the maximum number of consecutive characters copied from the training
                text, its validation and test splits included. A copy can begin in the prompt.
            training_text: the training text as in `evaluate`, which only `max_overlap` requires.
            match: a regular expression of Python's `re` that the whole sample matches, without the
                prompt. The sample ends only where the pattern can end: where nothing can follow, or
                at the end of a document. A model of a single text ends it by a line break that the
                pattern does not allow there.
            forbid: texts that the sample does not contain, or classes of characters such as [0-9].
            require: texts that it contains.
            alphabet: the class of the characters that it consists of, such as [a-z ].
            bias: additions to the logits of characters, like {"e": -5} or "e=-5". -inf excludes a
                character, and <end> is the end of a document.
            json_schema: a JSON schema that the whole sample meets, as a dict or a JSON text.
            grammar: a grammar of Lark or GBNF, of which the whole sample is a text. Both require
                the extra `constrain`.

        Raises:
            CharloomError: if an option is invalid, a stop text cannot occur, or no sample of this
                length meets the constraints. Also if `max_overlap` excludes every next character or
                requires the training text, which is missing.
            UnknownCharacterError: if the prompt has an unknown character and `skip_unknown` is
                not set.
        """
        settings = SamplingSettings(temperature, top_k, top_p, min_p)
        if max_overlap is not None and not (isinstance(max_overlap, int) and max_overlap > 0):
            raise CharloomError(
                f"max_overlap is {max_overlap!r}: pass a whole number of at least 1, or omit it"
            )
        if length == "auto":
            is_book = self.vocabulary.end_id is None
            length = LENGTH_OF_A_BOOK if is_book else LENGTH_OF_A_DOCUMENT
        stops = read_stops(stop, self.text_format, self.vocabulary)
        restricting = match, forbid, require, alphabet, bias, json_schema, grammar
        request = SampleRequest(
            prompt=self.encode(prompt, skip_unknown=skip_unknown),
            length=length,
            settings=settings,
            stop=stops,
            seed=seed,
            index=index,
            clamps=tuple(parse_clamps(clamp, self.config)),
            guard=None
            if max_overlap is None
            else OverlapGuard(self.training_index(training_text), max_overlap),
            constraints=self._constraints(restricting, stops),
        )
        return stream_text(self.predictor, self.vocabulary, request)

    def _constraints(
        self, restricting: tuple[Any, ...], stops: Sequence[str] = ()
    ) -> Constraints | None:
        """Return the constraints of ConstraintOptions of these values, None without any."""
        if all(option is None or option in ((), []) for option in restricting):
            return None
        from charloom.constraints.options import ConstraintOptions

        return ConstraintOptions(*restricting).read(self.vocabulary, self.as_read, stops)

    def sample(
        self, prompt: str | bytes = "", *, length: int | Literal["auto"] = "auto", **settings: Any
    ) -> str:
        """Return the prompt and a sample of at most `length` characters after it.

        A model of a collection returns one document.

        Args:
            prompt: the text that precedes the sample.
            length: the largest number of characters to sample, as in `stream`.
            **settings: the other options of `stream`, such as `temperature`, `top_k`, `stop`,
                `seed` and `match`.

        Raises:
            CharloomError: as in `stream`.
        """
        stream = self.stream(prompt, length=length, **settings)
        return self._shown_prompt(prompt) + "".join(stream)

    def likeliest(
        self,
        count: int,
        *,
        prompt: str | bytes = "",
        length: int | Literal["auto"] = "auto",
        **settings: Any,
    ) -> list[LikelyText]:
        """Return the likeliest completions of a prompt, by beam search.

        The other options are those of `stream` that restrict a sample. A completion has `length`
        characters unless it ends before, as a sample does.

        Args:
            count: the number of completions, and of beginnings that the search keeps.
            prompt: the text that precedes them.
            length: the largest number of characters.

        Raises:
            CharloomError: as in `stream`.
        """
        from charloom.prediction.likeliest import find_likeliest

        request = self.stream(prompt, length=length, **settings).request
        return find_likeliest(self.predictor, self.vocabulary, request, count)

    def fill(
        self,
        text: str,
        *,
        count: int = 5,
        match: str | Sequence[str] = WORD,
        length: int | Sequence[int] = 20,
        samples: int = 256,
        seed: int = 0,
    ) -> list[LikelyText]:
        """Return texts for the blanks of a text, the likeliest first.

        A blank is a run of at least three underscores. Texts are sampled for it, and weighed by the
        probability of the text after it. It ends where the model chooses the character after the
        blank. If the pattern allows that one there, every beginning of a sampled text is weighed.

        Args:
            text: the text with blanks.
            count: the largest number of texts to return.
            match: a regular expression that each blank matches, or one for each; by default a word.
            length: the largest number of characters of each blank, or one for each.
            samples: the number of texts to sample, fewer for a long blank that can end anywhere.
            seed: the random seed.

        Raises:
            CharloomError: if the text has no blank, or an option is invalid.
        """
        from charloom.constraints.options import encode_known
        from charloom.prediction.likeliest import MOST_BEAMS, LikelyText, fill_blanks

        begins = [0, *(blank.end() for blank in re.finditer(BLANK, text))]
        pieces = [self.as_read(piece) for piece in re.split(BLANK, text)]
        blanks = len(pieces) - 1
        patterns = (match,) * max(1, blanks) if isinstance(match, str) else tuple(match)
        if not blanks:
            raise CharloomError("the text has no blank: write at least three underscores for one")
        lengths = (length,) * blanks if isinstance(length, int) else tuple(length)
        for given, name in ((patterns, "pattern"), (lengths, "length")):
            if len(given) != blanks:
                raise CharloomError(
                    f"{plural(len(given), name)} for {plural(blanks, 'blank')}: pass one for all, "
                    "or one for each"
                )
        for name, number, most in (("samples", samples, MOST_BEAMS), ("count", count, samples)):
            if not 1 <= number <= most:
                raise CharloomError(f"{name} is {number}: pass 1 to {most:,}")
        ids = [
            encode_known(piece, self.vocabulary, "the text", begin)
            for piece, begin in zip(pieces, begins, strict=True)
        ]
        found = fill_blanks(
            self.predictor,
            self.vocabulary,
            ids[0],
            [self._blank(*one) for one in zip(patterns, lengths, ids[1:], strict=True)],
            rows=samples,
            seed=seed,
        )
        return [
            LikelyText(
                as_shown(
                    pieces[0] + "".join(map("".join, zip(parts, pieces[1:], strict=True))),
                    self.vocabulary,
                ),
                log_p,
                False,
                tuple(as_shown(part, self.vocabulary) for part in parts),
            )
            for log_p, parts in found[:count]
        ]

    def _blank(self, pattern: str, length: int, ids: NDArray[np.unsignedinteger]) -> Blank:
        from charloom.constraints.automaton import Automaton
        from charloom.constraints.options import ConstraintOptions
        from charloom.prediction.likeliest import MOST_BEGINNINGS, Blank

        read = ConstraintOptions(match=pattern).read(self.vocabulary, self.as_read)
        assert read is not None
        if length < read.least:
            raise CharloomError(
                f"a blank that matches {shortened(pattern)} has at least "
                f"{plural(read.least, 'character')}, and length is {length}: pass a larger one"
            )
        if not len(ids):
            return Blank(read, length, ids)
        is_open = isinstance(read.constraint, Automaton) and read.constraint.continues(int(ids[0]))
        if is_open and length >= MOST_BEGINNINGS:
            raise CharloomError(
                f"a blank that the text after it can continue has at most {MOST_BEGINNINGS - 1:,} "
                f"characters, and length is {length:,}: pass a smaller one"
            )
        return Blank(replace(read, end_ids=() if is_open else (int(ids[0]),)), length, ids, is_open)

    def _shown_prompt(self, prompt: str | bytes) -> str:
        """Return a prompt as the text before a sample."""
        if isinstance(prompt, str):
            return prompt
        # The sample completes a character that the bytes cut.
        return ShownText(self.vocabulary).add(self.as_read(prompt))

    def sample_documents(self, count: int, **settings: Any) -> list[SampledDocument]:
        """Return the samples of `stream_documents` in a list. The settings are the same."""
        return list(self.stream_documents(count, **settings))

    def stream_documents(
        self,
        count: int,
        *,
        prompt: str | bytes = "",
        seed: int = 0,
        unique: bool = False,
        new: bool = False,
        min_length: int | None = None,
        exact: bool = False,
        training_text: Texts | None = None,
        **settings: Any,
    ) -> Iterator[SampledDocument]:
        """Yield n samples, which are taken side by side in one batch, and so fast.

        Document i is the text that `sample` returns for the index i. The options are checked at
        once. `unique`, `new` and `min_length` exclude documents. The search ends after 20 samples a
        document, but not before 1,000, so that there can be fewer than `count`.

        Args:
            count: the number of documents.
            prompt: the text with which each document begins.
            seed: the random seed.
            unique: whether the documents must differ from each other.
            new: whether the documents must differ from every document of the training text, its
                validation and test splits included. Whole documents are compared, and an empty
                one is never new.
            min_length: the smallest number of characters, or of bytes, after the prompt.
            exact: whether the samples under constraints have the probabilities that the model gives
                to whole texts, by rejection. Otherwise each character is sampled from the allowed
                ones, however improbable the rest is then.
            training_text: the training text as in `evaluate`, which only `new` and `max_overlap`
                require.
            settings: the other options of `stream`. `index` is the number of the first sample.

        Raises:
            CharloomError: as in `stream`, or if no document is found.
        """
        from charloom.prediction.side_by_side import sample_documents

        if not isinstance(count, int) or count < 1:
            raise CharloomError(f"count is {count!r}: pass 1 or more")
        known = self.training_documents(training_text) if new else None
        request = self.stream(prompt, seed=seed, training_text=training_text, **settings).request
        return sample_documents(
            self.predictor,
            self.vocabulary,
            request,
            count,
            unique=unique,
            known=known,
            min_length=min_length,
            exact=exact,
            prompt_text=self._shown_prompt(prompt),
            unseen=self.unseen,
        )

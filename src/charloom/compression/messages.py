"""Compression with a model that both sides have: short texts in a few bytes.

A message consists of

    form          1 byte: D0 to D3 with a mixer, D4 to D7 with the whole model; bit 0 for
                  exceptions, bit 1 for a mixer that learns the text
    length        characters, without exceptions
    model         4 bytes, the beginning of the model's digest, for 256 characters or more
    exceptions    their number, if there are any
    content       the coder's bytes: exceptions, then characters
    check         2 bytes, from 256 characters on 8, of the SHA-256 of the digest and the text

An exception is a character that the model does not know. Numbers are as in `container`.

A mixer's numbers are the same on every machine. Those of a network are not, so the whole model's
digest includes the machine's arithmetic (`arithmetic`). K: exceptions, N: characters, V: those of
the vocabulary.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import llvmlite.binding
import numpy as np
from numpy.typing import NDArray

from charloom.compression.characters import LARGEST_CODE, codes_of_bytes, codes_of_characters
from charloom.compression.container import ARITHMETIC, number_bytes, read_number
from charloom.compression.layout import Damage
from charloom.compression.text_coder import (
    BYTES_OF_DECISION,
    CODE_PREDICTED,
    Ids,
    Reader,
    TextCoder,
    Writer,
    code_rows,
)
from charloom.context_mixing.mixer import ContextMixer
from charloom.engines.backend import Backend
from charloom.kernels.sizes import VECTOR_BYTES
from charloom.progress import OnProgress

if TYPE_CHECKING:
    from charloom.language_model import LanguageModel

FORM, EXCEPTIONS, LEARNS, WHOLE_MODEL = 0xD0, 1, 2, 4
FORMS = range(FORM, FORM + 8)
LONG = 256  # characters from which the model is named, and the check is long
LEARNED_FROM = 4096  # characters from which a mixer learns the text
NAME, SHORT_CHECK, LONG_CHECK = 4, 2, 8
MOST_EXCEPTIONS = 100_000
MOST_DECISIONS = 16  # of a character of the whole model


class WrongModelError(Exception):
    """A message was compressed with another model, or with another arithmetic."""


class SharedModel:
    """A model as messages need it: its digest, and the coder of its predictions."""

    def __init__(self, model: LanguageModel) -> None:
        self.vocabulary = model.vocabulary
        self._predictor = model.predictor
        counts = None if model.mixture is None else model.mixture.counts
        self._mixer = counts if isinstance(counts, ContextMixer) else None
        digest = hashlib.sha256(
            repr((self.vocabulary.characters, self.vocabulary.as_bytes)).encode()
        )
        if self._mixer is not None:
            digest.update(bytes([ARITHMETIC]))
            for array in _arrays(self._mixer):
                digest.update(array.data)
        else:
            digest.update(model.checkpoint.parameters.flat.tobytes())
            if model.mixture is not None:
                digest.update(model.mixture.theta.tobytes())
            digest.update(arithmetic(Backend.of(model.engine)).encode())
        self.digest = digest.digest()
        self._coder: TextCoder | None = None

    @property
    def form(self) -> int:
        """The first byte of its messages, without flags."""
        return FORM if self._mixer is not None else FORM | WHOLE_MODEL

    def code(
        self,
        ids: Ids,
        stream: Writer | Reader,
        learns: bool,
        stage: str,
        on_progress: OnProgress | None,
    ) -> None:
        """Write a text's ids, (N,), or read them into the array."""
        if self._mixer is None:
            self._code_by_predictor(ids, stream, stage, on_progress)
            return
        if learns:
            mixer = self._mixer.copy()
            coder = TextCoder(mixer, mixer.adaptive)
        else:
            if self._coder is None:
                self._coder = TextCoder(self._mixer, self._mixer.frozen, learns=False)
            coder = self._coder
        start = np.array([[self.vocabulary.start_id]])
        coder.state[:] = self._mixer.read(start, self._mixer.zero_state(1))[0]
        coder.code(ids, stream, stage, on_progress)

    def _code_by_predictor(
        self, ids: Ids, stream: Writer | Reader, stage: str, on_progress: OnProgress | None
    ) -> None:
        state = self._predictor.zero_state(1)
        last = self.vocabulary.start_id
        buffer = stream.buffer(LONG * BYTES_OF_DECISION * MOST_DECISIONS)
        for i in range(len(ids)):
            logits, state = self._predictor.step(np.array([last]), state)
            x = logits.astype(np.float64)
            p = np.exp(x - x.max())
            CODE_PREDICTED(ids[i : i + 1], p, stream.coder, buffer)
            last = int(ids[i])
            if i % LONG == LONG - 1 or i == len(ids) - 1:
                stream.take_over(buffer)
                if on_progress is not None:
                    on_progress(stage, i + 1, len(ids))


_KNOWN: weakref.WeakKeyDictionary[LanguageModel, SharedModel] = weakref.WeakKeyDictionary()


def shared_model(model: LanguageModel) -> SharedModel:
    """Return the shared form of a model, which is computed on the first call."""
    if model not in _KNOWN:
        _KNOWN[model] = SharedModel(model)
    return _KNOWN[model]


def arithmetic(backend: Backend) -> str:
    """Return a name of the numbers that a network's engine computes on this machine."""
    processor = llvmlite.binding.get_host_cpu_name()
    return f"{backend.engine} {processor} {VECTOR_BYTES} {np.__version__}"


def write_message(
    text: bytes, model: SharedModel, on_progress: OnProgress | None = None
) -> bytes | None:
    """Return a message, or None for bytes that are mostly not of the model's kind."""
    as_bytes = model.vocabulary.as_bytes
    codes = codes_of_bytes(text) if as_bytes else codes_of_characters(text)
    if codes is None:
        return None
    shown = codes.astype("<u4").tobytes().decode("utf-32-le")
    ids = model.vocabulary.ids_or_minus_one(shown).astype(np.int64)
    unknown = np.flatnonzero(ids < 0)
    known = ids[ids >= 0]
    if len(unknown) > min(len(known), MOST_EXCEPTIONS):
        return None
    learns = len(known) >= LEARNED_FROM
    form = model.form | (EXCEPTIONS if len(unknown) else 0) | (LEARNS if learns else 0)
    head = bytes([form]) + number_bytes(len(known))
    if len(known) >= LONG:
        head += model.digest[:NAME]
    writer = Writer()
    if len(unknown):
        head += number_bytes(len(unknown))
        code_rows(np.stack([np.diff(unknown, prepend=-1), codes[unknown] + 1], axis=1), writer)
    model.code(known, writer, learns, "compressing", on_progress)
    return head + writer.all_bytes() + _check(model, text, len(known))


def read_message(
    data: bytes, model: SharedModel, most_bytes: int, on_progress: OnProgress | None = None
) -> bytes:
    """Return the text of a message.

    Raises:
        Damage: if it is not one.
        TooLargeError: if the text has more than `most_bytes` characters.
        WrongModelError: if it was compressed otherwise.
    """
    form = data[0]
    length, place = read_number(data, 1)
    if form & WHOLE_MODEL != model.form & WHOLE_MODEL:
        raise WrongModelError
    if length >= LONG:
        if data[place : place + NAME] != model.digest[:NAME]:
            raise WrongModelError
        place += NAME
    count = 0
    if form & EXCEPTIONS:
        count, place = read_number(data, place)
    if count > MOST_EXCEPTIONS:
        raise Damage
    if length + count > most_bytes:
        raise TooLargeError(length + count)
    check = LONG_CHECK if length >= LONG else SHORT_CHECK
    if len(data) < place + check:
        raise Damage
    try:
        reader = Reader(data[place:-check])
        rows = np.ones((count, 2), np.int64)
        if count:
            code_rows(rows, reader)
        ids = np.zeros(length, np.int64)
        model.code(ids, reader, bool(form & LEARNS), "decompressing", on_progress)
        text = _bytes_of(_with_exceptions(ids, rows, model), model)
        if _check(model, text, length) != data[-check:]:
            raise Damage
    except Damage:
        if length < LONG:  # A message that does not name its model can be another one's.
            raise WrongModelError from None
        raise
    return text


class TooLargeError(Exception):
    """A text is larger than the caller accepts."""


def _arrays(mixer: ContextMixer) -> Iterator[NDArray[Any]]:
    """Yield all numbers of a mixer, in the same order of bytes on every machine."""
    for part in (mixer.tree, mixer.tables, mixer.frozen, mixer.adaptive, (mixer.state,)):
        for array in part:
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            yield np.ascontiguousarray(little).reshape(-1)


def _with_exceptions(ids: Ids, rows: NDArray[np.int64], model: SharedModel) -> NDArray[np.int64]:
    codes = np.array([ord(c) for c in model.vocabulary.characters], np.int64)[ids]
    places = np.cumsum(rows[:, 0]) - 1
    whole = len(ids) + len(rows)
    if len(rows) and places[-1] >= whole:
        raise Damage
    result = np.zeros(whole, np.int64)
    known = np.ones(whole, np.bool_)
    known[places] = False
    if known.sum() != len(ids):
        raise Damage
    result[known], result[places] = codes, rows[:, 1] - 1
    return result


def _bytes_of(codes: NDArray[np.int64], model: SharedModel) -> bytes:
    most = 255 if model.vocabulary.as_bytes else LARGEST_CODE
    if len(codes) and codes.max() > most:
        raise Damage
    if model.vocabulary.as_bytes:
        return codes.astype(np.uint8).tobytes()
    try:
        return codes.astype("<u4").tobytes().decode("utf-32-le").encode("utf-8")
    except UnicodeError:
        raise Damage from None


def _check(model: SharedModel, text: bytes, length: int) -> bytes:
    whole = hashlib.sha256(model.digest + text).digest()
    return whole[: LONG_CHECK if length >= LONG else SHORT_CHECK]

"""`charloom.compress` and `charloom.decompress`."""

from __future__ import annotations

import lzma
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from charloom.base_model.carried import CARRIED
from charloom.base_model.choices import ENGLISH
from charloom.compression.adaptive import read_text, write_text
from charloom.compression.branches import worthwhile_branches
from charloom.compression.characters import Alphabet, as_bytes, codes_of_bytes, codes_of_characters
from charloom.compression.container import (
    BYTES,
    CHARACTERS,
    MARK,
    NEWEST,
    STORED,
    Header,
    OtherVersionError,
    digest_of,
    read_file,
    write_file,
)
from charloom.compression.layout import Damage
from charloom.compression.network import MULTIPLE, NetworkPlan, is_too_large
from charloom.compression.planning import MOST_PASSES, MOST_UNITS, plan_for
from charloom.context_mixing.layout import LARGEST_VOCABULARY
from charloom.errors import CharloomError
from charloom.progress import OnProgress

if TYPE_CHECKING:
    from charloom.language_model import LanguageModel

LARGEST = 1_000_000_000  # bytes of a text that is compressed
EXPECTED = 100_000_000  # bytes of a text that is restored without a larger limit
MOST_ADDED = 64  # bytes by which a compressed text is longer, at most
LARGEST_TABLES = 1_000  # megabytes
MOST_MINUTES = 1e6
TABLES, MOST_TABLES = 64, 256  # megabytes of the mixer's lists: usually, and for long texts
TRIED = 200_000  # bytes of a text that is coded both as characters and as bytes, at most
CODED_TWICE = 20_000  # characters of a text that is coded with both trees, at most
# Noise has nearly 8 bits of entropy in a byte, and xz finds no repetitions in it.
NOISE_BITS, NOISE_SHARE = 7.9, 0.99
LARGEST_DICTIONARY = 1 << 24
DAMAGED = "the compressed bytes are damaged or incomplete: use an intact copy"
WRONG_MODEL = (
    "these bytes do not fit the model: they are damaged, or those of another model, of another "
    "version of charloom, or of a machine whose arithmetic differs"
)
Model = "LanguageModel | str | os.PathLike[str]"


def compress(
    data: str | bytes,
    model: LanguageModel | str | os.PathLike[str] | None = None,
    *,
    minutes: float | None = None,
    on_progress: OnProgress | None = None,
) -> bytes:
    """Compress a text, or any bytes, without loss.

    Args:
        data: the text. A str is compressed as UTF-8.
        model: a model, or the path of a run, which `decompress` then requires too. "english" is the
            base model of the package. Without one, the result contains everything, and a model
            learns the text while it is compressed.
        minutes: the time limit of compression, and of decompression after it. A network learns the
            text beside the counts if there is time for it. How large it is depends on the speed
            of this machine, which is measured. By default no network is used.
        on_progress: called with the stage, the number of characters coded, and their total.

    Returns:
        The compressed bytes, at most 64 more than `data` has.

    Raises:
        CharloomError: if the text is too long, or the model cannot be loaded.
    """
    text = _as_bytes(data)
    if len(text) > LARGEST:
        raise CharloomError(f"the text has more than {LARGEST:,} bytes: compress it in parts")
    if minutes is not None and not 0 < minutes <= MOST_MINUTES:
        raise CharloomError(f"minutes is {minutes}: pass a number above 0, up to 1,000,000")
    best = write_file(Header(STORED, len(text)), text, text)
    least = len(best) - len(text)  # no file is shorter
    if model is not None:
        from charloom.compression.messages import shared_model, write_message

        found = write_message(text, shared_model(_loaded(model)), on_progress)
        if found is not None:
            best = min(best, found, key=len)
    if len(best) <= least:
        return best
    # A model of other texts can predict worse than none.
    return min([best, *_alone(text, minutes, on_progress)], key=len)


def decompress(
    data: bytes,
    model: LanguageModel | str | os.PathLike[str] | None = None,
    *,
    most_bytes: int = EXPECTED,
    on_progress: OnProgress | None = None,
) -> bytes:
    """Return the text of compressed bytes.

    Args:
        data: the result of `compress`.
        model: the model that `compress` had.
        most_bytes: the largest size of a text that is accepted.
        on_progress: as in `compress`.

    Raises:
        CharloomError: if the bytes are damaged, not charloom's, those of a larger text, or were
            compressed with another model.
    """
    data = _as_bytes(data)
    if len(data) > most_bytes + MOST_ADDED:
        raise CharloomError(
            f"a text of at most {most_bytes:,} bytes has fewer compressed ones: allow more with "
            "--max-bytes (in Python, most_bytes)"
        )
    try:
        if data.startswith(MARK):
            return _from_file(data, most_bytes, on_progress)
        return _from_message(data, model, most_bytes, on_progress)
    except OtherVersionError:
        raise CharloomError(
            "another version of charloom compressed this, with numbers that this one does not "
            "compute: use that version"
        ) from None
    except Damage:
        raise CharloomError(DAMAGED) from None


def _from_file(data: bytes, most_bytes: int, on_progress: OnProgress | None) -> bytes:
    header, content, digest = read_file(data)
    _check_size(header.size, most_bytes)
    if header.form == STORED:
        text = content
    else:
        if header.megabytes > LARGEST_TABLES or not 1 <= header.alphabet <= LARGEST_VOCABULARY:
            raise Damage
        plan = NetworkPlan(header.units * MULTIPLE, header.passes)
        # Larger networks than are written would let a short file take hours.
        if plan.hidden > MOST_UNITS or plan.passes > MOST_PASSES:
            raise Damage
        if is_too_large(header.alphabet, plan):
            raise Damage
        alphabet, ids = read_text(
            content, header.alphabet, header.length, header.megabytes, plan, header.form == BYTES,
            on_progress, has_branches=header.branches,
        )  # fmt: skip
        text = as_bytes(alphabet.codes[ids], alphabet)
    if len(text) != header.size or digest_of(text) != digest:
        raise Damage
    return text


def _from_message(
    data: bytes,
    model: LanguageModel | str | os.PathLike[str] | None,
    most_bytes: int,
    on_progress: OnProgress | None,
) -> bytes:
    from charloom.compression import messages

    if not data or data[0] not in messages.FORMS:
        raise CharloomError(
            "these bytes were not compressed by charloom: pass those of `charloom compress`"
        )
    if model is None:
        raise CharloomError(
            "these bytes were compressed with a model, or are not charloom's: pass the model"
        )
    shared = messages.shared_model(_loaded(model))
    try:
        return messages.read_message(data, shared, min(most_bytes, LARGEST), on_progress)
    except messages.WrongModelError:
        raise CharloomError(f"{WRONG_MODEL}: use the same model and version") from None
    except messages.TooLargeError as error:
        _check_size(error.args[0], most_bytes)
        raise


def _check_size(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise CharloomError(
            f"the text has {size:,} bytes, above the limit of {most_bytes:,}: allow more with "
            "--max-bytes (in Python, most_bytes)"
        )
    if size > LARGEST:  # Nothing writes such a size, and memory for it need not exist.
        raise Damage


def _loaded(model: LanguageModel | str | os.PathLike[str]) -> LanguageModel:
    from charloom.language_model import LanguageModel, load

    if isinstance(model, LanguageModel):
        return model
    if not isinstance(model, str | os.PathLike):
        name = type(model).__name__
        raise CharloomError(f"the model is of type {name}: pass a LanguageModel or a path")
    return load(CARRIED if model == ENGLISH else model)


def _as_bytes(data: str | bytes) -> bytes:
    if isinstance(data, str):
        try:
            return data.encode("utf-8")
        except UnicodeEncodeError:
            raise CharloomError(
                "the text contains half of a surrogate pair: pass bytes instead"
            ) from None
    if not isinstance(data, bytes | bytearray | memoryview):
        raise CharloomError(f"the text is of type {type(data).__name__}: pass a str or bytes")
    return bytes(data)


def _forms(text: bytes) -> list[bool]:
    """Return whether a text is coded as bytes: one way or both, or neither."""
    if not text or _is_noise(text):
        return []
    codes = codes_of_characters(text)
    if codes is None or np.count_nonzero(np.bincount(codes)) > LARGEST_VOCABULARY:
        return [True]
    if len(codes) == len(text) or len(text) > TRIED:
        return [False]
    return [False, True]


def _is_noise(text: bytes) -> bool:
    """Return whether a long text is like random numbers, which would take minutes for nothing."""
    if len(text) <= TRIED:
        return False
    counts = np.bincount(np.frombuffer(text, np.uint8))
    shares = counts[counts > 0] / len(text)
    if -(shares * np.log2(shares)).sum() < NOISE_BITS:
        return False
    size = min(len(text), LARGEST_DICTIONARY)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": size}]
    packed = lzma.compress(text, lzma.FORMAT_RAW, filters=filters)
    return len(packed) > NOISE_SHARE * len(text)


def _alone(text: bytes, minutes: float | None, on_progress: OnProgress | None) -> Iterator[bytes]:
    """Yield the compressed bytes of a text without a model, one way or several."""
    forms = _forms(text)
    if minutes is None or len(text) <= TRIED:
        # A network can be of no use to a short text, which is therefore coded without one too.
        # Only the better form gets the time of a network.
        plain = {form: _coded(text, form, None, on_progress) for form in forms}
        yield from plain.values()
        forms = sorted(forms, key=lambda form: len(plain[form]))[:1]
    if minutes is not None:
        for form in forms:
            yield _coded(text, form, minutes, on_progress)


def _coded(
    text: bytes, as_single_bytes: bool, minutes: float | None, on_progress: OnProgress | None
) -> bytes:
    """Return the compressed bytes of a text in one form, with the tree that is better for it."""
    codes = codes_of_bytes(text) if as_single_bytes else codes_of_characters(text)
    assert codes is not None
    alphabet, ids = Alphabet.of(codes, as_single_bytes)
    megabytes = max(TABLES, min(MOST_TABLES, TABLES * len(codes) // 2_000_000))
    plan = NetworkPlan()
    if minutes is not None:
        plan = plan_for(len(codes), len(alphabet.codes), 60 * minutes)
    header = Header(
        BYTES if as_single_bytes else CHARACTERS, len(text), len(codes), len(alphabet.codes),
        megabytes, plan.hidden // MULTIPLE, plan.passes if plan.hidden else 0,
    )  # fmt: skip
    branches = worthwhile_branches(alphabet, ids)
    trees = [branches]
    if branches is not None and len(codes) <= CODED_TWICE and not plan.hidden:
        trees = [None, branches]
    files = []
    for tree in trees:
        content = write_text(alphabet, ids, megabytes, plan, on_progress, branches=tree)
        if tree is not None:  # Other files can be read by charloom before branches.
            header = header._replace(arithmetic=NEWEST, branches=True)
        files.append(write_file(header, content, text))
    return min(files, key=len)

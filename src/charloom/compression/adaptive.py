"""Compression without a model: writer and reader begin with the same empty mixer."""

from __future__ import annotations

import numpy as np

from charloom.compression.characters import COLUMNS, Alphabet, Codes
from charloom.compression.layout import Damage
from charloom.compression.network import NetworkPlan
from charloom.compression.text_coder import Reader, TextCoder, Writer, code_rows
from charloom.compression.weights import first_weights
from charloom.progress import OnProgress

MEGABYTE = 1_000_000
FIRST_GUESSES: tuple[tuple[int, ...], ...] = (), (52_000, 54_000, 40_000, 3_000)


def write_text(
    alphabet: Alphabet,
    ids: Codes,
    megabytes: int,
    plan: NetworkPlan,
    on_progress: OnProgress | None = None,
) -> bytes:
    """Return the coder's bytes of a list and a text.

    Args:
        alphabet: the list.
        ids: the places of the text's characters in it, (N,).
        megabytes: of the mixer's lists, at most.
        plan: the network.
        on_progress: called with the stage, the number of characters coded, and their total.
    """
    writer = Writer()
    code_rows(alphabet.rows(), writer, FIRST_GUESSES)
    mixer = alphabet.mixer(len(ids), megabytes * MEGABYTE)
    coder = TextCoder(mixer, first_weights(), plan, length=len(ids))
    coder.code(ids, writer, "compressing", on_progress)
    return writer.all_bytes()


def read_text(
    content: bytes,
    size: int,
    length: int,
    megabytes: int,
    plan: NetworkPlan,
    as_bytes: bool,
    on_progress: OnProgress | None = None,
) -> tuple[Alphabet, Codes]:
    """Return the list and the text, (N,), that `write_text` wrote.

    Args:
        content: the bytes.
        size: the characters of the list, V.
        length: those of the text, N.
        megabytes, plan, as_bytes: as they were written.
        on_progress: as in `write_text`.

    Raises:
        Damage: if the list is not one, or the bytes end too early.
    """
    reader = Reader(content)
    rows = np.zeros((size, COLUMNS), np.int64)
    code_rows(rows, reader, FIRST_GUESSES)
    alphabet = Alphabet.from_rows(rows, as_bytes)
    ids = np.zeros(length, np.int64)
    try:
        mixer = alphabet.mixer(length, megabytes * MEGABYTE)
    except ValueError:  # because made-up counts have too deep a tree
        raise Damage from None
    coder = TextCoder(mixer, first_weights(), plan, length=length)
    coder.code(ids, reader, "decompressing", on_progress)
    return alphabet, ids

"""Compression without a model: writer and reader begin with the same empty mixer."""

from __future__ import annotations

import numpy as np

from charloom.compression.branches import LEAST_ALPHABET, code_branches
from charloom.compression.characters import COLUMNS, Alphabet, Codes
from charloom.compression.layout import Damage
from charloom.compression.network import NetworkPlan
from charloom.compression.text_coder import Reader, TextCoder, Writer, code_rows
from charloom.context_mixing.trees import Branches
from charloom.progress import OnProgress

MEGABYTE = 1_000_000
FIRST_GUESSES: tuple[tuple[int, ...], ...] = (), (52_000, 54_000, 40_000, 3_000)


def write_text(
    alphabet: Alphabet,
    ids: Codes,
    megabytes: int,
    plan: NetworkPlan,
    on_progress: OnProgress | None = None,
    *,
    branches: Branches | None = None,
) -> bytes:
    """Return the coder's bytes of a list and a text.

    Args:
        alphabet: the list.
        ids: the places of the text's characters in it, (N,).
        megabytes: of the mixer's lists, at most.
        plan: the network.
        on_progress: called with the stage, the number of characters coded, and their total.
        branches: of the mixer's tree, which are written too; None for the Huffman tree.
    """
    writer = Writer()
    code_rows(alphabet.rows(), writer, FIRST_GUESSES)
    if branches is not None:
        branches = code_branches(branches, alphabet, writer)
    mixer = alphabet.mixer(len(ids), megabytes * MEGABYTE, branches)
    coder = TextCoder(mixer, mixer.adaptive, plan, length=len(ids))
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
    *,
    has_branches: bool = False,
) -> tuple[Alphabet, Codes]:
    """Return the list and the text, (N,), that `write_text` wrote.

    Args:
        content: the bytes.
        size: the characters of the list, V.
        length: those of the text, N.
        megabytes, plan, as_bytes: as they were written.
        on_progress: as in `write_text`.
        has_branches: whether branches were written.

    Raises:
        Damage: if the list or the tree is not one, or the bytes end too early.
    """
    reader = Reader(content)
    rows = np.zeros((size, COLUMNS), np.int64)
    code_rows(rows, reader, FIRST_GUESSES)
    alphabet = Alphabet.from_rows(rows, as_bytes)
    ids = np.zeros(length, np.int64)
    if has_branches and size < LEAST_ALPHABET:
        raise Damage
    branches = code_branches(None, alphabet, reader) if has_branches else None
    try:
        mixer = alphabet.mixer(length, megabytes * MEGABYTE, branches)
    except ValueError:  # because made-up counts or branches have too deep a tree
        raise Damage from None
    coder = TextCoder(mixer, mixer.adaptive, plan, length=length)
    coder.code(ids, reader, "decompressing", on_progress)
    return alphabet, ids

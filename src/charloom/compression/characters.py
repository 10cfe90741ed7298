"""The symbols of a text: its characters, or bytes where it is not UTF-8.

A list of all characters that occur precedes the text, with about how often each occurs. N is the
number of characters of a text, V that of the list.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from charloom.compression.layout import Damage
from charloom.compression.weights import first_weights
from charloom.context_mixing.layout import LETTER, OTHER, VERSION, Tree
from charloom.context_mixing.mixer import ContextMixer
from charloom.context_mixing.trees import Branches, tree_with
from charloom.text.vocabulary import Vocabulary, code_points

COLUMNS = 2  # of the list: the distance from the code before, and the class of the count
LARGEST_CODE = 0x10FFFF
FIRST_OF_PAIRS, LAST_OF_PAIRS = 0xD800, 0xDFFF  # halves of surrogate pairs, which no text has
# Scripts with two cases, whose pairs of letters Unicode does not change any more.
LAST_WITH_CASES = 0x058F
CLASSES_OF_COUNTS = 62
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Alphabet:
    """The codes that occur, (V,), in rising order, and the class of how often each occurs, (V,).

    Codes are those of characters, or bytes where `as_bytes`.
    """

    codes: Codes
    classes: Codes
    as_bytes: bool

    @classmethod
    def of(cls, codes: Codes, as_bytes: bool) -> tuple[Alphabet, Codes]:
        """Return the alphabet of a text's codes, (N,), and the place of each in it, (N,)."""
        counts = np.bincount(codes)
        found = np.flatnonzero(counts)
        place = np.zeros(len(counts), np.int64)
        place[found] = np.arange(len(found))
        classes = np.array([_class_of(count) for count in counts[found].tolist()], np.int64)
        return cls(found.astype(np.int64), classes, as_bytes), place[codes]

    def rows(self) -> NDArray[np.int64]:
        """Return the list as numbers from 1 on, (V, COLUMNS)."""
        distances = np.diff(self.codes, prepend=-1)
        return np.stack([distances, self.classes + 1], axis=1)

    @classmethod
    def from_rows(cls, rows: NDArray[np.int64], as_bytes: bool) -> Alphabet:
        """Return the alphabet of a list. Raises Damage if it is not one."""
        codes, classes = np.cumsum(rows[:, 0]) - 1, rows[:, 1] - 1
        halves = (codes >= FIRST_OF_PAIRS) & (codes <= LAST_OF_PAIRS)
        most = 255 if as_bytes else LARGEST_CODE
        if codes.max() > most or halves.any() or classes.max() > CLASSES_OF_COUNTS:
            raise Damage
        return cls(codes, classes, as_bytes)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """About how often each character occurs, (V,)."""
        return np.array([_count_of(int(c)) for c in self.classes], np.int64)

    @cached_property
    def characters(self) -> tuple[str, ...]:
        """The characters, or characters that stand for bytes, V of them."""
        shown = self.codes
        if self.as_bytes:
            # Those above 127 are parts of characters. They are shown as letters of no case.
            shown = np.where(shown > 127, shown + 0x4E00, shown)
        return tuple(map(chr, shown.tolist()))

    def mixer(self, length: int, most_bytes: int, branches: Branches | None = None) -> ContextMixer:
        """Return a mixer that has learned nothing, with one copy of `first_weights`.

        Args:
            length: of the text.
            most_bytes: of its lists.
            branches: of its tree; None for a mixer of version 1, with the Huffman tree.

        Raises:
            ValueError: if the tree is too deep.
        """
        mixer = ContextMixer.empty(
            Vocabulary(self.characters), self.counts, length, most_bytes,
            version=1 if branches is None else VERSION, weights=first_weights(),
        )  # fmt: skip
        tree = mixer.tree if branches is None else self._tree(branches)
        return replace(mixer, tree=_with_lasting_kinds(tree, self.characters))

    def has_tree(self, branches: Branches) -> bool:
        """Return whether a tree with these branches is not too deep."""
        try:
            self._tree(branches)
        except ValueError:
            return False
        return True

    def _tree(self, branches: Branches) -> Tree:
        return tree_with(branches, self.counts, self.characters, None)


def _class_of(count: int) -> int:
    """Return the class of a count: two for each doubling."""
    length = count.bit_length() - 1
    return 2 * length + ((count >> (length - 1)) & 1 if length else 0)


def _count_of(count_class: int) -> int:
    """Return a count from the middle of a class."""
    length, upper = divmod(count_class, 2)
    if length < 2:
        return (1 << length) + (upper << (length - 1) if length else 0)
    return (1 << length) + (upper << (length - 1)) + (1 << (length - 2)) - 1


def _with_lasting_kinds(tree: Tree, characters: tuple[str, ...]) -> Tree:
    """Return the tree with kinds that do not depend on the version of Unicode that Python has.

    Letters and digits are those of Unicode 3.2, which every Python knows.
    """
    known = {character: i for i, character in enumerate(characters)}
    kind, folded = tree.kind.copy(), tree.folded.copy()
    for i, character in enumerate(characters):
        if character.isascii():
            continue
        category = unicodedata.ucd_3_2_0.category(character)
        kind[i] = LETTER if category[0] in "LN" else OTHER
        has_cases = ord(character) <= LAST_WITH_CASES and category in ("Lu", "Ll")
        folded[i] = known.get(character.lower(), i) if has_cases else i
    return tree._replace(kind=kind, folded=folded)


def codes_of_characters(data: bytes) -> Codes | None:
    """Return the codes of a text's characters, (N,), or None for bytes that are not UTF-8."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return code_points(text).astype(np.int64)


def codes_of_bytes(data: bytes) -> Codes:
    """Return bytes as codes, (N,)."""
    return np.frombuffer(data, np.uint8).astype(np.int64)


def as_bytes(codes: Codes, alphabet: Alphabet) -> bytes:
    """Return the bytes that codes stand for."""
    if alphabet.as_bytes:
        return codes.astype(np.uint8).tobytes()
    return codes.astype("<u4").tobytes().decode("utf-32-le").encode("utf-8")

"""Characters that a model never saw: their share, and the sum of all probabilities."""

import math
from typing import Any

import pytest

from charloom.prediction.unseen import UnseenCharacters
from charloom.text.vocabulary import END, Vocabulary

LETTERS = Vocabulary.of("abc字" + END)
TEXT: dict[str, Any] = {"characters": 1_000, "unseen": 0.003}


@pytest.mark.parametrize(
    ("vocabulary", "characters"),
    [
        (LETTERS, 0x110000 - 0x800),
        (Vocabulary.of("abc\n"), 0x110000 - 0x800),
        (Vocabulary.of("abc\xff" + END, as_bytes=True), 256),
    ],
)
@pytest.mark.parametrize("share", [0, 0.003, 0.4, 1])
def test_all_probabilities_add_up_to_one(
    vocabulary: Vocabulary, characters: int, share: float
) -> None:
    found = UnseenCharacters.of(TEXT | {"unseen": share}, vocabulary)
    assert found is not None
    unknown = [
        c for c in map(chr, range(0x110000)) if c not in vocabulary.characters and found.include(c)
    ]
    assert len(unknown) == characters - len([c for c in vocabulary.characters if c != END])
    of_unknown = len(unknown) * math.exp(found.log_probability)
    assert of_unknown + math.exp(found.log_known) == pytest.approx(1, abs=1e-12)
    assert 0 < of_unknown < 1


def test_nothing_seen_once_leaves_the_next_character() -> None:
    found = UnseenCharacters.of(TEXT | {"unseen": 0}, LETTERS)
    assert found is not None
    assert found.share == pytest.approx(1 / 1_001)


@pytest.mark.parametrize("share", [5e-324, 1e-9, 0.25, math.nextafter(1, 0)])
def test_a_recorded_share_is_kept(share: float) -> None:
    found = UnseenCharacters.of(TEXT | {"unseen": share}, LETTERS)
    assert found is not None
    assert found.share == share
    assert math.isfinite(found.log_probability)
    assert math.isfinite(found.log_known)


@pytest.mark.parametrize(
    "text",
    [{}, {"characters": 5}, {"unseen": 0.1}, TEXT | {"unseen": "0.1"}, TEXT | {"unseen": True}]
    + [TEXT | {"unseen": value} for value in (-0.1, 1.1, math.nan, None)]
    + [TEXT | {"characters": value} for value in (0, 1.5, "9", 10**400)],
)
def test_without_a_record_nothing_is_charged(text: dict[str, Any]) -> None:
    assert UnseenCharacters.of(text, LETTERS) is None


def test_with_all_bytes_known_nothing_is_unseen() -> None:
    vocabulary = Vocabulary.of("".join(map(chr, range(256))) + END, as_bytes=True)
    assert UnseenCharacters.of(TEXT, vocabulary) is None

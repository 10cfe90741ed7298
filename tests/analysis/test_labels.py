"""Labels of a text, by texts that show them."""

import numpy as np
import pytest

from charloom.analysis.labels import label_text


def marked(label: str, text: str) -> str:
    """Where a flag is set: a caret under each such character."""
    return "".join("^" if value else "." for value in label_text(text)[label])


@pytest.mark.parametrize(
    ("label", "text", "expected"),
    [
        ("inside double quotes", 'a "bc" d', "..^^^..."),
        ("inside double quotes", "a “b «c»” d", "..^^^^^^..."),
        ("inside double quotes", 'a "b\n\nc "d" e', "..^^....^^..."),
        ("inside double quotes", "a” b “c", "......."),
        ("inside double quotes", "„ab“ c", "^^^..."),
        ("inside parentheses", "a (b [c] d) e", "..^^^^^^^^..."),
        ("inside parentheses", "a :) b ( c", ".........."),
        ("inside square or curly brackets", "a (b [c] {d})", ".....^^..^^.."),
        ("inside a tag <…>", "<b>x</b> 1 < 2 > 0", "^^..^^^..........."),
        ("inside a comment (# or //)", "a # b\nc // d", "..^^^...^^^^"),
        ("inside a comment (# or //)", "see http://a.b //c", "...............^^^"),
        ("in the spaces that begin a line", "a\n  b c\n\td", "..^^....^."),
        ("in a line's first word", "ab c\n  de f", "^^.....^^.."),
        ("after an empty line", "a\n\nb\n", "..^.."),
        ("after a capital", "aBÄc", ".^^."),
        ("in a word that began with a capital", "The cat, Éva's", "^^^......^^^.."),
        ("in a word in capitals", "I AM not OK", "..^^.....^^"),
        ("in a number", "a 3.14, 5 1,000.", "..^^^^..^.^^^^^."),
        ("in a word of one or two letters so far", "the a don't", "^^..^.^^..."),
        ("after a vowel", "cat y", ".^..^"),
        ("after a consonant", "cat y", "^.^.."),
        ("after punctuation", "a, b!", ".^..^"),
        ("the next character is a space", "a b", "^.."),
        ("the next character is a line break", "ab\nc", ".^.."),
        ("the next character is a capital", "a B", ".^."),
        ("the next character is punctuation", "a.", "^."),
    ],
)
def test_flags(label: str, text: str, expected: str) -> None:
    assert marked(label, text) == expected


@pytest.mark.parametrize(
    ("label", "text", "expected"),
    [
        ("nesting depth of brackets", "a(b[c]d)e", [0, 1, 1, 2, 2, 1, 1, 0, 0]),
        ("position in the line", "ab\ncd", [1, 2, 0, 1, 2]),
        ("position in the word", "ab cd's", [1, 2, 0, 1, 2, 3, 4]),
        ("distance since the last full stop", "a. b!c", [1, 0, 1, 2, 0, 1]),
        ("characters since a capital", "aBcd", [1, 0, 1, 2]),
        ("indentation of the line", "a\n  b\nc", [0, 0, 1, 2, 2, 0, 0]),
    ],
)
def test_numbers(label: str, text: str, expected: list[int]) -> None:
    assert label_text(text)[label].tolist() == expected


@pytest.mark.parametrize("text", ["", "a", "\0", "\n", '"', "(" * 3000, "字🦉\u0301", "a\r\nb"])
def test_every_label_covers_every_text(text: str) -> None:
    for values in label_text(text).values():
        assert values.shape == (len(text),)
        assert np.isfinite(values).all()


def test_labels_look_ahead_one_character_at_most() -> None:
    """But quotation marks and brackets, which are only ones if they are closed, and words in
    capitals."""
    text = 'He said: "No, Mr. Bond." (He was 42.5 years old.)\n  AND so on\n' * 3
    whole, part = label_text(text), label_text(text[:70])
    for name, values in part.items():
        if not name.startswith(("inside", "nesting", "in a word in capitals")):
            assert (values[:68] == whole[name][:68]).all(), name

"""The form in which messages and tables show text: as itself, on one line."""

import pytest

from charloom.errors import plural, printable, quoted, quoted_path, shortened

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
SHOWN = [
    "Мороз и солнце; день чудесный!",
    "红楼梦第一回。\u3000下回",  # an ideographic space is a space
    "Qui est là\u202f? «\u00a0Moi\u00a0»",  # so are those that do not break
    "سلام دنیا",
    "می\u200cخواهم",  # a non-joiner inside a Persian word
    "שָׁלוֹם",
    "क्\u200dष हिन्दी",
    "e\u0301t\u00e9",
    FAMILY,
    "❤\ufe0f\u200d🔥 ☺\ufe0f",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # a flag
    r"C:\new\table",  # one backslash is one backslash
    "",
]
ESCAPED = [
    ("a\nb\tc\r", r"a\nb\tc\r"),
    ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
    ("\x00\x7f\x85", r"\x00\x7f\x85"),
    ("a\u202eb\u2066c\u2069\u200f\u061c", r"a\u202eb\u2066c\u2069\u200f\u061c"),
    ("zero\u200bwidth \u2060\ufeff\u00ad", r"zero\u200bwidth \u2060\ufeff\xad"),
    ("line\u2028paragraph\u2029", r"line\u2028paragraph\u2029"),
    ("\ue000\U000f0000", r"\ue000\U000f0000"),  # private use
    ("\u0378\U0001fffe", r"\u0378\U0001fffe"),  # unassigned
    ("\ud800\udcff", r"\ud800\udcff"),
    ("pay\u200dpal", r"pay\u200dpal"),  # a joiner where no script has one
    ("\u200d" + FAMILY, r"\u200d" + FAMILY),
    ("\U000e0067", r"\U000e0067"),
]
MARKS = [
    ("\u0301", "◌\u0301"),
    ("\u0301e\u0301", "◌\u0301e\u0301"),
    ("\n\u0301\u0302", "\\n◌\u0301\u0302"),
    ("\u093f", "◌\u093f"),
    ("◌\u0301", "◌\u0301"),
]


@pytest.mark.parametrize("text", SHOWN)
def test_characters_are_shown_as_themselves(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(("text", "shown"), ESCAPED)
def test_controls_and_invisible_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(("text", "shown"), MARKS)
def test_a_mark_without_a_character_is_on_a_circle(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("text", [*SHOWN, *(text for text, _ in ESCAPED + MARKS)])
def test_what_is_printable_remains_as_it_is(text: str) -> None:
    assert printable(printable(text)) == printable(text)


def test_quotes_are_added_without_further_escapes() -> None:
    assert quoted("день\n") == r"'день\n'"
    assert quoted("l’été") == "'l’été'"
    assert quoted("don't") == '"don\'t"'
    assert quoted("\\") == "'\\'"
    assert quoted_path(r"C:\Texte\Größe.txt") == r"'C:\Texte\Größe.txt'"
    assert shortened("字" * 100) == f"'{'字' * 29}…{'字' * 14}'"
    assert shortened(["a\u202e"]) == r"['a\u202e']"
    assert shortened(10**9000) == "a number of thousands of digits"


def test_nouns_agree_with_their_numbers() -> None:
    assert [plural(n, "character") for n in (0, 1, 2, 12345)] == [
        "0 characters",
        "1 character",
        "2 characters",
        "12,345 characters",
    ]

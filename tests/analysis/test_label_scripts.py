"""Labels of texts in other scripts, and of bytes."""

import numpy as np
import pytest

from charloom.analysis.labels import label_text
from charloom.text.vocabulary import END


def selected(label: str, text: str) -> str:
    """The characters at which a flag is set."""
    values = label_text(text)[label]
    return "".join(character for character, value in zip(text, values, strict=True) if value)


@pytest.mark.parametrize(
    ("text", "vowels", "consonants"),
    [
        ("ÉÀåãõőÿıæøœəİŐÅǾ", "ÉÀåãõőÿıæøœəİŐÅǾ", ""),  # Latin
        ("Việt đường, çñßłþŠ ﬁ Ｗａ", "iệườａ", "VtđngçñßłþŠﬁＷ"),
        ("le\u0301 N\u0303o", "e\u0301o", "lN\u0303"),  # with combining marks
        ("оаеиоуыэюя ЁІЇЄѐӘӥ", "оаеиоуыэюяЁІЇЄѐӘӥ", ""),  # Cyrillic
        ("Чудесный объём, ўсё щука", "уеыоёёуа", "Чдснйбмўсщк"),
        ("αάέήίόύώϊΐΩᾷῆ", "αάέήίόύώϊΐΩᾷῆ", ""),  # Greek
        ("Λόγος ψυχή", "όουή", "Λγςψχ"),
        ("سلام، كيف الحال؟", "", ""),  # Arabic
        ("שָׁלוֹם עולם", "", ""),  # Hebrew
        ("红楼梦第一回。", "", ""),  # Chinese
        ("こんにちは、カナと漢字", "", ""),  # Japanese
        ("한국어 말", "", ""),  # Korean
        ("हिन्दी भाषा", "", ""),  # Devanagari
        ("ภาษาไทย ไม่", "", ""),  # Thai
        ("ქართული ენა, հայերեն", "", ""),  # Georgian and Armenian
        ("a١2é字я", "aéя", ""),
    ],
)
def test_vowels_and_consonants(text: str, vowels: str, consonants: str) -> None:
    assert selected("after a vowel", text) == vowels
    assert selected("after a consonant", text) == consonants
    later = label_text("." + text)["the next character is a vowel"]
    assert (later[:-1] == label_text(text)["after a vowel"]).all()


@pytest.mark.parametrize(
    ("text", "stops", "commas"),
    [
        ("Да. Нет! Как? Ну…", ".!?…", ""),
        ("一回。二！三？四．五｡六，七、八", "。！？．｡", "，、"),
        ("نعم؟ لا۔ حسنا، شكرا؛", "؟۔", "،"),
        ("एक। दो॥ तीन, चार", "।॥", ","),
        ("Մեկ։ ինչո՞ւ, երկու", "։", ","),
        ("አንድ። ሁለት፧ ሶስት፣", "።፧", "፣"),
        ("ကို။ ខ្មែរ។", "။។", ""),
        ("Τι\u037e Γεια; ¿Qué? ¡Sí!", "\u037e?!", ""),
        ("What‽ No⁉", "‽⁉", ""),
    ],
)
def test_ends_of_sentences_and_commas(text: str, stops: str, commas: str) -> None:
    assert selected("after a full stop", text) == stops
    assert selected("after a comma", text) == commas
    distances = label_text(text)["distance since the last full stop"]
    assert selected("after a full stop", text) == "".join(
        c for c, distance in zip(text, distances, strict=True) if distance == 0
    )


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("Il dit « non » et ‹ oui ›.", "« non ‹ oui "),
        ("Er sagt: „nein“, sie »ja«.", "„nein»ja"),
        ("Hon sade: ”nej”, hon sade »ja» igen.", "”nej»ja"),
        ("On mówi: „nie”.", "„nie"),
        ("他说：「不，『是』。」走了", "「不，『是』。"),
        ("彼は“はい”と言った。＂a＂", "“はい＂a"),
        ("»Eins«, sagte er, »zwei«.\n»Drei«", "»Eins»zwei»Drei"),
        ("« Un »\n« Deux », « trois »", "« Un « Deux « trois "),
    ],
)
def test_quotation_marks(text: str, inside: str) -> None:
    assert selected("inside double quotes", text) == inside


def test_brackets() -> None:
    text = "（一【二】三）《四》［五］〔六］(七)"
    assert selected("inside parentheses", text) == "（一【二】三(七"
    assert selected("inside square or curly brackets", text) == "【二《四［五"
    assert label_text(text)["nesting depth of brackets"].max() == 2


@pytest.mark.parametrize(
    ("text", "capitals"),
    [("Мороз И Ёж", "МИЁ"), ("Ώρα Λ", "ΏΛ"), ("紅楼 Abc", "A"), ("ქართული", ""), ("שלום", "")],
)
def test_capitals_exist_where_a_script_has_case(text: str, capitals: str) -> None:
    assert selected("after a capital", text) == capitals
    assert bool(label_text(text)["characters since a capital"].any()) is bool(capitals)


@pytest.mark.parametrize(
    "text", ["红楼梦，第一回。\n甄士隐", "سلام دنیا", "ภาษาไทย 12", "한국어 말"]
)
def test_labels_without_a_notion_do_not_vary(text: str) -> None:
    labels = label_text(text)
    for name in (
        *("after a vowel", "after a consonant", "the next character is a vowel"),
        *("after a capital", "the next character is a capital", "characters since a capital"),
        *("in a word that began with a capital", "in a word in capitals"),
    ):
        assert not labels[name].any(), name


def test_words_are_what_spaces_separate() -> None:
    text = "день и\n红楼ab梦，字 हिन्दी क"
    assert label_text(text)["position in the word"].tolist() == [
        *(1, 2, 3, 4, 0, 1, 0),
        *(0, 0, 1, 2, 0, 0, 0, 0),
        *(1, 2, 3, 4, 5, 6, 0, 1),
    ]
    assert selected("in a line's first word", text) == "день"
    assert selected("in a line's first word", "ab字 c\n字 d\n\u3000") == "ab"
    assert selected("after punctuation", "é! 字。 क्ष😀€ $_") == "!。$_"
    assert selected("after a space", "a b\u00a0c\u3000d\te") == " \u00a0\u3000"
    assert selected("in a word in capitals", "E\u0301 E\u0301TE ЁЖ Ёж") == "E\u0301TEЁЖ"


def test_every_line_break_ends_a_line() -> None:
    for line_break in ("\n", "\r", "\u2028"):
        text = f"  ab{line_break}c d"
        assert label_text(text)["position in the line"].tolist() == [1, 2, 3, 4, 0, 1, 2, 3]
        assert selected("in a line's first word", text) == "abc"
    assert selected("after a line break", "a\r\nb") == "\n"


def test_bytes_have_the_labels_of_their_characters() -> None:
    text = "Le café, «où»?\nДень。字"
    labels = label_text(text)
    of_bytes = label_text(text.encode().decode("latin-1"), as_bytes=True)
    repeats = [len(character.encode()) for character in text]
    assert list(of_bytes) == list(labels)
    for name, values in labels.items():
        assert (of_bytes[name] == np.repeat(values, repeats)).all(), name
    text = "é" * 3
    assert label_text(text.encode().decode("latin-1"), as_bytes=True)["after a vowel"].all()


def test_bytes_that_are_not_utf_8_have_no_class() -> None:
    text = f"caf\xe9 \xff!\xc3{END}\xa9\xc3\xa9"  # latin-1, and a character that an end interrupts
    labels = label_text(text, as_bytes=True)
    assert labels["after a vowel"].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert labels["after punctuation"].tolist() == [0] * 6 + [1] + [0] * 5
    assert labels["at the beginning of a document"].tolist() == [0] * 8 + [1] + [0] * 3

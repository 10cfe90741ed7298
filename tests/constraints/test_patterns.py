"""A pattern's automaton contains the texts that Python's `re` matches, and no others."""

import itertools
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.constraints.automaton import Automaton, containing, everything, intersection
from charloom.constraints.options import ConstraintOptions
from charloom.constraints.patterns import compile_pattern
from charloom.errors import CharloomError
from charloom.text.vocabulary import END, Vocabulary

LETTERS = Vocabulary(("a", "b", "A", "-", "\n", END))
LATIN = Vocabulary(("a", "b", "é", "-"))
BYTES = Vocabulary(tuple(map(chr, range(256))), as_bytes=True)

atoms = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\w", r"\W", "", "(?s:.)"])
patterns = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("({0[0]}|{0[1]})".format),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,3}", "{0,2}?"])).map(
            "(?:{0[0]}){0[1]}".format
        ),
        inner.map("(?i:{})".format),
        inner.map("^{}".format),
        inner.map("(?:{})$".format),
    ),
    max_leaves=8,
)


@given(patterns, st.lists(st.text("abA-\n", max_size=6), min_size=5, max_size=20))
def test_a_pattern_means_what_re_matches(pattern: str, texts: list[str]) -> None:
    matcher = re.compile(pattern.replace("$", r"\Z"))  # which ignores a last line break
    try:
        automaton = compile_pattern(pattern, LETTERS)
    except CharloomError:
        assert not any(map(matcher.fullmatch, texts))
        return
    for text in texts:
        matches = matcher.fullmatch(text) is not None
        assert automaton.contains(LETTERS.encode(text).tolist()) == matches
        assert len(text) >= automaton.least or not matches


@pytest.mark.parametrize(
    ("pattern", "text"),
    [(r"(?a)(?u:\W)", "é"), (r"(?a)(?u:\w)", "é"), ("a*$^", "aaa"), (r"(-b)*\Z(?:\A|b)", "-b")],
)
def test_flags_and_places_that_exclude_others(pattern: str, text: str) -> None:
    found = compile_pattern(pattern, LATIN)
    matches = re.fullmatch(pattern, text) is not None
    assert found.contains(LATIN.encode(text).tolist()) == matches


def test_characters_of_a_model_of_bytes_are_their_utf_8() -> None:
    pattern = r"é+.[^x€]\w"
    automaton = compile_pattern(pattern, BYTES)
    assert automaton.least == 5
    for text in ["éé4äß", "é漢x_", "é漢y_", "é😀zé", "é😀€é", "é\ud7ff!Ж"]:
        ids = list(text.encode())
        assert automaton.contains(ids) == (re.fullmatch(pattern, text) is not None)
        assert not automaton.contains([*ids[:-1], 0xFF])


@pytest.mark.parametrize(
    ("pattern", "meaning"),
    [
        (r"\p{Lu}\p{Ll}*", "[A-ZÄЖ][a-zß]*"),
        (r"[^\p{L}\d]+", r"[^A-ZÄЖa-zß字\d]+"),
        (r"[]\P{Uppercase_Letter}]", r"[^A-ZÄЖ]"),
        (r"\p{^N}\\p", r"\D\\p"),
    ],
)
def test_categories_of_unicode(pattern: str, meaning: str) -> None:
    vocabulary = Vocabulary(tuple("AzÄßЖ字1 ]\\p"))
    automaton = compile_pattern(pattern, vocabulary)
    for size in range(3):
        for letters in map("".join, itertools.product("AzßЖ字1 ]\\p", repeat=size)):
            ids = vocabulary.encode(letters).tolist()
            assert automaton.contains(ids) == (re.fullmatch(meaning, letters) is not None)


def test_categories_of_unicode_in_utf_8() -> None:
    automaton = compile_pattern(r"\p{Lu}[\P{L}x]", BYTES)
    for text, inside in [("A1", True), ("Ж€", True), ("Äx", True), ("ß1", False), ("Aß", False)]:
        assert automaton.contains(list(text.encode())) == inside


@pytest.mark.parametrize(
    ("options", "text", "meets"),
    [
        ({"alphabet": "[а-я ]"}, "и то", True),
        ({"alphabet": "[а-я ]"}, "и то.", False),
        ({"alphabet": r"[\w]"}, "то", True),
        ({"forbid": "[тa]"}, "и о", True),
        ({"forbid": "[тa]"}, "и то", False),
        ({"forbid": "[^т]"}, "тт", True),
        ({"forbid": "[^^а]"}, "^а", True),
        ({"forbid": "[^^а]"}, "b", False),
        ({"forbid": "[^^]"}, "^^", True),
    ],
)
def test_classes_of_a_model_of_bytes_have_whole_characters(
    options: dict[str, Any], text: str, meets: bool
) -> None:
    read = ConstraintOptions(**options).read(BYTES, str)
    assert read is not None
    assert isinstance(read.constraint, Automaton)
    assert read.constraint.contains(list(text.encode())) == meets


def test_the_distance_is_that_of_the_shortest_rest() -> None:
    automaton = compile_pattern("a{3}(b|a{5})", LETTERS)
    a, b = LETTERS.encode("ab").tolist()
    state = automaton.start()
    assert automaton.least == 4
    for _ in range(3):
        state = automaton.advance(state, a)
    assert automaton.allowed(state, 5)[[a, b]].tolist() == [True, True]
    assert automaton.allowed(state, 4)[[a, b]].tolist() == [False, True]
    assert not automaton.allowed(state, 5)[LETTERS.end_id]


@pytest.mark.parametrize("contains", [True, False])
@pytest.mark.parametrize("text", ["a", "aa", "aba", "abaab"])
def test_texts_with_and_without_a_text(text: str, contains: bool) -> None:
    found = containing(LETTERS.encode(text).tolist(), len(LETTERS), contains=contains)
    product = intersection([found, everything(len(LETTERS)).without([3])])
    for length in range(7):
        for letters in map("".join, itertools.product("ab-", repeat=length)):
            ids = LETTERS.encode(letters).tolist()
            assert found.contains(ids) == ((text in letters) == contains)
            assert product.contains(ids) == (((text in letters) == contains) and "-" not in letters)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(a", "match '(a' is not a regular expression (missing )"),
        (r"(a)\1", "match has a reference to a group, which is not supported: omit it"),
        ("(?=a)b", "match has a lookahead or lookbehind, which is not supported"),
        ("(?!a)b", "match has a negative lookahead"),
        (r"a\bb", r"match has \b, which"),
        (r"\p{Greek}", "match has the unknown category 'Greek': pass one of Unicode's general"),
        (r"\p", "match '\\p' is not a regular expression (bad escape"),
        ("a++", "match has a possessive repetition"),
        ("(?>a)b", "match has an atomic group"),
        ("(?m:^a)", "flag m"),
        ("aЖ", "does not know the character 'Ж'"),
        ("[xyz]", "no text of the model's characters matches match '[xyz]'"),
        ("a{1,100000}", "too large: use smaller repetitions"),
        ("(a{1,300}){1,300}", "too large"),
        ("(a|b)*a(a|b){16}", "more than 20,000 states"),
        ("(" * 5000 + ")" * 5000, "nested too deeply, use fewer"),
        ("a" * 10_001, "match has 10,001 characters: pass at most 10,000"),
    ],
)
def test_patterns_that_cannot_be_compiled(pattern: str, message: str) -> None:
    begin = time.monotonic()
    with pytest.raises(CharloomError, match=re.escape(message)) as caught:
        compile_pattern(pattern, LETTERS)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize("pattern", ["(a|a)*b", "((a*)*)*b", "(a|b|ab)*b", "(a?){40}a{40}b"])
def test_patterns_on_which_a_matcher_backtracks_compile(pattern: str) -> None:
    automaton = compile_pattern(pattern, LETTERS)
    assert automaton.contains(LETTERS.encode("a" * 60 + "b").tolist())

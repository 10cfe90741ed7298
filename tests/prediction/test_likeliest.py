"""The likeliest completions, and texts for blanks, beside those found by enumeration."""

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest

from charloom.constraints.options import ConstraintOptions
from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import Predictor
from charloom.errors import CharloomError
from charloom.language_model import LanguageModel
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.prediction.likeliest import Blank, fill_blanks, find_likeliest
from charloom.prediction.sampling import SampleRequest
from charloom.text.vocabulary import Vocabulary
from helpers.document_models import LETTERS, model_of_documents

BOOK = Vocabulary(tuple("\nabcd"))


@pytest.fixture(scope="module")
def book() -> Predictor:
    parameters = initialize(ModelConfig("gru", 8, 1, len(BOOK)), seed=3)
    parameters.flat[:] *= 3
    return Backend("reference").open(parameters)


def log_p(predictor: Predictor, text: str) -> float:
    ids = BOOK.encode(f"\n{text}").astype(np.intp)
    found, _ = predictor.log_probabilities(ids[:-1, None], predictor.zero_state(1))
    return float(found[np.arange(len(text)), 0, ids[1:]].sum())


def test_an_exhausted_search_is_exact(book: Predictor) -> None:
    texts = ["".join(letters) for letters in itertools.product("abcd\n", repeat=4)]
    expected = sorted(((log_p(book, text), text) for text in texts), reverse=True)
    found = find_likeliest(book, BOOK, SampleRequest(length=4), 700)
    assert len(found) == len(texts)
    assert all(one.exact for one in found)
    assert [one.text for one in found[:50]] == [text for _, text in expected[:50]]
    assert found[7].log_probability == pytest.approx(expected[7][0], abs=1e-5)
    assert sum(math.exp(one.log_probability) for one in found) == pytest.approx(1, abs=1e-5)
    some = find_likeliest(book, BOOK, SampleRequest(length=4), 8)
    exact = [one.text for one in some if one.exact]
    assert exact == [text for _, text in expected[: len(exact)]]


def test_a_pattern_restricts_the_search(book: Predictor) -> None:
    rules = ConstraintOptions(match="a(b|c)d?").read(BOOK, str)
    found = find_likeliest(book, BOOK, SampleRequest(length=5, constraints=rules), 10)
    assert {one.text for one in found} == {"ab", "ac", "abd", "acd"}
    values = {one.text: one.log_probability for one in found}
    assert values["abd"] == pytest.approx(log_p(book, "abd"), abs=1e-5)
    assert values["ab"] == pytest.approx(log_p(book, "ab\n"), abs=1e-5)


def test_documents_end_in_the_search() -> None:
    predictor = Backend("reference").open(model_of_documents())
    found = find_likeliest(predictor, LETTERS, SampleRequest(length=3), 4000)
    assert "" in {one.text for one in found}
    assert sum(math.exp(one.log_probability) for one in found) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("request_", "count", "message"),
    [
        (SampleRequest(length=4), 0, "beam is 0: pass 1 to 4,096"),
        (SampleRequest(length=None), 2, "length is unlimited"),
        (SampleRequest(length=4, stop=("a",)), 2, "omit temperature, top_k"),
        (SampleRequest(length=4, settings=SamplingSettings(0.5)), 2, "omit temperature, top_k"),
        (
            SampleRequest(length=4, constraints=ConstraintOptions(bias={"a": 5}).read(BOOK, str)),
            2,
            "ranks by the model's own probabilities, which a bias does not change",
        ),
    ],
)
def test_searches_that_cannot_be_made(
    book: Predictor, request_: SampleRequest, count: int, message: str
) -> None:
    with pytest.raises(CharloomError, match=message):
        find_likeliest(book, BOOK, request_, count)


def test_what_follows_a_blank_decides(book: Predictor) -> None:
    """The shares of the rows approach the probabilities given both sides."""
    rules = ConstraintOptions(match="[a-d]").read(BOOK, str)
    assert rules is not None
    following = BOOK.encode("cab")
    blank = Blank(rules, 1, following)
    exact = {letter: math.exp(log_p(book, f"d{letter}cab")) for letter in "abcd"}
    found = fill_blanks(book, BOOK, BOOK.encode("d"), [blank], rows=400, seed=1)
    best = max(exact, key=lambda letter: exact[letter])
    assert found[0][1] == (best,)
    assert found[0][0] == pytest.approx(math.log(exact[best]) - log_p(book, "d"), abs=1e-4)
    again = fill_blanks(book, BOOK, BOOK.encode("d"), [blank], rows=400, seed=1)
    assert again == found


def test_a_blank_can_end_before_a_character_that_it_can_contain(book: Predictor) -> None:
    """Every beginning of a text is weighed, so that the best of all lengths is found."""
    rules = ConstraintOptions(match="[a-c]*").read(BOOK, str)
    assert rules is not None
    open_rules = type(rules)(rules.constraint, None, (), {})
    blank = Blank(open_rules, 3, BOOK.encode("abdabd"), is_open=True)
    found = fill_blanks(book, BOOK, BOOK.encode("d"), [blank], rows=200, seed=1)
    texts = ["".join(t) for n in range(4) for t in itertools.product("abc", repeat=n)]
    exact = {text: log_p(book, f"d{text}abdabd") - log_p(book, "d") for text in texts}
    best = max(exact, key=lambda text: exact[text])
    assert found[0] == (pytest.approx(exact[best], abs=1e-4), (best,))
    assert all(value == pytest.approx(exact[parts[0]], abs=1e-4) for value, parts in found)


def test_two_blanks_inside_words_are_weighed_together(book: Predictor) -> None:
    rules = ConstraintOptions(match="[a-c]*").read(BOOK, str)
    assert rules is not None
    first, second = (
        Blank(type(rules)(rules.constraint, None, (), {}), 1, BOOK.encode(text), is_open=True)
        for text in ("abdab", "c")
    )
    found = fill_blanks(book, BOOK, BOOK.encode("d"), [first, second], rows=1000, seed=1)
    exact = {
        (a, b): log_p(book, f"d{a}abdab{b}c") - log_p(book, "d")
        for a, b in itertools.product(("", "a", "b", "c"), repeat=2)
    }
    assert found[0][1] == max(exact, key=lambda parts: exact[parts])
    assert all(value == pytest.approx(exact[parts], abs=1e-4) for value, parts in found)


def test_fill_weighs_all_lengths_inside_a_word(served_model: LanguageModel) -> None:
    found = served_model.fill("t___e ", samples=64)
    assert any(len(one.parts[0]) < 20 for one in found)


def test_several_blanks_end_before_what_follows(book: Predictor) -> None:
    rules = ConstraintOptions(match="[a-c]+").read(BOOK, str)
    assert rules is not None
    d = int(BOOK.encode("d")[0])
    ends_with_d = type(rules)(rules.constraint, None, (d,), True)
    blanks = [Blank(ends_with_d, 6, BOOK.encode("db")), Blank(rules, 3, BOOK.encode(""))]
    found = fill_blanks(book, BOOK, BOOK.encode("a"), blanks, rows=50, seed=1)
    assert all(set("".join(parts)) <= set("abc") and all(parts) for _, parts in found)
    first, second = found[0][1]
    assert len(first) <= 6
    assert len(second) <= 3
    assert found[0][0] == pytest.approx(
        log_p(book, f"a{first}db{second}") - log_p(book, "a"), abs=1e-4
    )


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("___", {}, r"\w+"),
        ("the ____ so ___", {"length": (3, 9), "match": ("[a-c]+", "[m-o ]+")},
         "the [a-c]{1,3} so [m-o ]{1,9}"),
        ("____, ___ and ____\n___ the ___", {"length": 4, "match": "[a-z]+"},
         "[a-z]{1,4}, [a-z]{1,4} and [a-z]{1,4}\n[a-z]{1,4} the [a-z]{1,4}"),
        ("a ___ ___", {"match": ("", "o{2}|n"), "count": 2}, "a  (?:oo|n)"),
    ],
)  # fmt: skip
def test_blanks_with_lengths_and_patterns_of_their_own(
    served_model: LanguageModel, text: str, options: dict[str, Any], expected: str
) -> None:
    found = served_model.fill(text, samples=32, **options)
    assert 0 < len(found) <= options.get("count", 5)
    assert [one.log_probability for one in found] == sorted(
        (one.log_probability for one in found), reverse=True
    )
    pieces = re.split("_{3,}", text)
    for one in found:
        assert re.fullmatch(expected, one.text)
        filled = "".join(itertools.chain(*zip(one.parts, pieces[1:], strict=True)))
        assert one.text == pieces[0] + filled


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("no blank", {}, "the text has no blank: write at least three underscores"),
        ("a __ b", {}, "the text has no blank"),
        ("a ___", {"length": (3, 4)}, "2 lengths for 1 blank: pass one for all"),
        ("___ ___", {"match": ("a",) * 3}, "3 patterns for 2 blanks: pass one for all"),
        ("a ___", {"match": "a{9}", "length": 3}, "has at least 9 characters, and length is 3"),
        ("t___e", {"length": 9000}, "has at most 8,191 characters, and length is 9,000"),
        ("a ___", {"length": 0}, "has at least 1 character, and length is 0"),
        ("a ___", {"match": "(a"}, "is not a regular expression"),
        (
            "a ___ \u0416",
            {},
            "the text has the character '\u0416' (U+0416 CYRILLIC CAPITAL LETTER ZHE) at "
            "position 6, which the model does not know: remove it",
        ),
        ("a ___", {"count": 0}, "count is 0: pass 1 to 256"),
        ("a ___", {"samples": 5000, "count": 1}, "samples is 5000: pass 1 to 4,096"),
        ("a ___", {"samples": 0}, "samples is 0: pass 1 to 4,096"),
    ],
)
def test_blanks_that_cannot_be_filled(
    served_model: LanguageModel, text: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CharloomError) as caught:
        served_model.fill(text, **options)
    assert message in str(caught.value)

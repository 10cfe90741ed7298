"""Samples under constraints meet them, end where they can, and follow the model's distribution."""

import itertools
import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from charloom.constraints.options import ConstraintOptions
from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import Predictor
from charloom.errors import CharloomError
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.prediction.sampling import OverlapGuard, SampleRequest, stream_text
from charloom.prediction.side_by_side import sample_documents, sample_side_by_side
from charloom.text.document_set import DocumentSet
from charloom.text.overlap import TrainingIndex
from charloom.text.vocabulary import END, Vocabulary
from helpers.document_models import LETTERS, model_of_documents

BOOK = Vocabulary(tuple("\nabcdefgh"))


@pytest.fixture(scope="module")
def book() -> Predictor:
    parameters = initialize(ModelConfig("gru", 8, 1, len(BOOK)), seed=3)
    parameters.flat[:] *= 3
    return Backend("reference").open(parameters)


def request_for(
    vocabulary: Vocabulary, length: int | None = 30, stop: tuple[str, ...] = (), **options: object
) -> SampleRequest:
    read = ConstraintOptions(**options).read(vocabulary, str, stop)  # type: ignore[arg-type]
    return SampleRequest(length=length, stop=stop, constraints=read)


PATTERNS = ["a(b|c)*d", "[a-d]{3}(h|gg)?", "(?:ab|ba){2,}", "[^a]{0,4}a?", "", ".{30}", "(.\n)*a"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_whole_samples_match_alone_and_side_by_side(book: Predictor, pattern: str) -> None:
    request = request_for(BOOK, match=pattern)
    documents = list(sample_side_by_side(book, BOOK, request, range(40), 7))
    for index, document in enumerate(documents):
        assert re.fullmatch(pattern, document.characters)
        stream = stream_text(book, BOOK, replace(request, index=index))
        assert "".join(stream) == document.characters
        assert stream.finish_reason == document.finish_reason
    if pattern == "a(b|c)*d":
        assert {document.finish_reason for document in documents} == {"stop"}


@pytest.mark.parametrize("pattern", ["[a-e]+", "(ab|c)*", "a?b?c?"])
def test_documents_end_where_the_pattern_can(pattern: str) -> None:
    predictor = Backend("reference").open(model_of_documents())
    request = request_for(LETTERS, 8, match=pattern)
    for document in sample_side_by_side(predictor, LETTERS, request, range(60), 9):
        assert re.fullmatch(pattern, document.characters)
        assert len(document.characters) == 8 or document.finish_reason == "stop"


def test_frequencies_are_the_renormalized_model(book: Predictor) -> None:
    """Every text of a small pattern has the product of its renormalized probabilities."""
    request = request_for(BOOK, match="(a|bc){2}h?")
    texts = ["".join(parts) for parts in itertools.product(("a", "bc"), repeat=2)]
    texts += [text + "h" for text in texts]
    expected = {text: _conditioned(book, text, texts) for text in texts}
    assert sum(expected.values()) == pytest.approx(1)
    count = 4000
    found = Counter()
    for document in sample_side_by_side(book, BOOK, request, range(count), 200):
        found[document.characters] += 1
        conditioned = document.conditioned_log_probability
        assert conditioned == pytest.approx(math.log(expected[document.characters]), abs=1e-6)
    for text, p in expected.items():
        assert abs(found[text] - count * p) < 5 * math.sqrt(count * p * (1 - p)) + 1


def test_exact_samples_have_the_models_own_frequencies(book: Predictor) -> None:
    """The greedy choice of a prefix differs from them: few texts can follow some prefixes."""
    texts = ["ab", "ac", "bdh", "bdg"]
    request = request_for(BOOK, match="a[bc]|bd[gh]")
    own = {}
    for text in texts:
        ids = BOOK.encode(f"\n{text}").astype(np.intp)
        found, _ = book.log_probabilities(ids[:-1, None], book.zero_state(1))
        own[text] = math.exp(float(found[np.arange(len(text)), 0, ids[1:]].sum()))
    count = 400
    accepted = sample_documents(book, BOOK, request, count, exact=True)
    frequencies = Counter(document.characters for document in accepted)
    assert sum(frequencies.values()) == count
    for text, p in own.items():
        share = p / sum(own.values())
        assert abs(frequencies[text] - count * share) < 5 * math.sqrt(count * share) + 1
    greedy = {text: _conditioned(book, text, texts) for text in texts}
    assert any(abs(greedy[text] - own[text] / sum(own.values())) > 0.05 for text in texts)
    other = replace(request, settings=SamplingSettings(0.5))
    with pytest.raises(CharloomError, match="omit temperature"):
        next(sample_documents(book, BOOK, other, 1, exact=True))


def _conditioned(predictor: Predictor, text: str, texts: list[str]) -> float:
    """Return a text's probability if only the characters of some texts can be chosen."""
    state, last, p = predictor.zero_state(1), BOOK.start_id, 1.0
    for place in range(len(text) + 1):
        following = {t[place : place + 1] or "\n" for t in texts if t.startswith(text[:place])}
        logits, state = predictor.step(np.array([last]), state)
        if following == {"\n"}:
            break
        weights = np.exp(logits[0].astype(np.float64))
        chosen = text[place : place + 1] or "\n"
        p *= weights[BOOK.ids_or_minus_one(chosen)[0]]
        p /= sum(weights[BOOK.ids_or_minus_one(c)[0]] for c in following)
        last = int(BOOK.ids_or_minus_one(chosen)[0])
    return float(p)


@pytest.mark.parametrize(
    "settings",
    [SamplingSettings(0), SamplingSettings(2.0, top_k=2), SamplingSettings(1.0, None, 0.5, 0.2)],
)
def test_constraints_combine_with_settings_and_a_guard(
    book: Predictor, settings: SamplingSettings
) -> None:
    ids = BOOK.encode("abcdefgh" * 3)
    request = request_for(BOOK, 20, match="[a-d]+[e-h]", forbid=["ab", "[c]"], require=["dda"])
    request = replace(
        request, settings=settings, guard=OverlapGuard(TrainingIndex(ids, len(BOOK)), 3)
    )
    documents = list(sample_side_by_side(book, BOOK, request, range(20), 6))
    for index, document in enumerate(documents):
        text = document.characters
        assert re.fullmatch("[abd]+[e-h]", text)
        assert "ab" not in text
        assert "dda" in text
        assert "".join(stream_text(book, BOOK, replace(request, index=index))) == text


def test_a_text_begins_anew_where_guard_and_constraints_leave_nothing(book: Predictor) -> None:
    ids = BOOK.encode("abcdefgh" * 3)
    guard = OverlapGuard(TrainingIndex(ids, len(BOOK)), 2)
    request = replace(request_for(BOOK, 9, match="[a-f]{3}(ab[ch]|h)"), guard=guard)
    documents = list(sample_side_by_side(book, BOOK, request, range(40), 6))
    for index, document in enumerate(documents):
        text = document.characters
        assert re.fullmatch("[a-f]{3}(abh|h)", text)
        assert not any(text[i : i + 3] in "abcdefghabc" for i in range(len(text) - 2))
        assert "".join(stream_text(book, BOOK, replace(request, index=index))) == text
    request = replace(request_for(BOOK, 3, match="abc"), guard=guard)
    for sample in (
        lambda: list(sample_side_by_side(book, BOOK, request, range(2), 2)),
        lambda: list(stream_text(book, BOOK, request)),
    ):
        with pytest.raises(CharloomError, match="would copy more than 2 in a row"):
            sample()
    seen: list[str] = []
    with pytest.raises(CharloomError, match="after 2 characters"):
        seen.extend(stream_text(book, BOOK, replace(request, length=None)))
    assert seen == ["ab"]


def test_texts_that_must_not_and_must_occur(book: Predictor) -> None:
    request = request_for(BOOK, 12, forbid=["ab", "[g-h]", "c"], require=["fed"], alphabet="[a-h]")
    for document in sample_side_by_side(book, BOOK, request, range(50), 8):
        assert len(document.characters) == 12
        assert "fed" in document.characters
        assert not re.search("ab|[cgh]|\n", document.characters)


def test_a_text_ends_where_forbidden_texts_leave_nothing(book: Predictor) -> None:
    request = request_for(BOOK, 9, forbid=["[^ab]", "aa", "ab", "bba"])
    found = list(sample_side_by_side(book, BOOK, request, range(40), 8))
    assert all(re.fullmatch("b?a|b{9}", document.characters) for document in found)
    for index in range(5):
        stream = stream_text(book, BOOK, replace(request, index=index))
        assert "".join(stream) == found[index].characters


def test_a_bias_is_added_to_the_logits(book: Predictor) -> None:
    request = request_for(BOOK, 200, bias=["a=-inf", "b=3"])
    text = "".join(stream_text(book, BOOK, request))
    plain = "".join(stream_text(book, BOOK, replace(request, constraints=None)))
    assert "a" not in text
    assert text.count("b") > plain.count("b")


def test_a_bias_that_excludes_a_character_counts_as_forbidden(book: Predictor) -> None:
    request = request_for(BOOK, match="[ab]{4}|c{8}", bias=["a=-inf"], forbid="bb")
    assert "".join(stream_text(book, BOOK, request)) == "cccccccc"
    with pytest.raises(CharloomError, match="no text of the model's characters meets all"):
        request_for(BOOK, match="a+", bias=["a=-inf"])


def test_a_line_break_ends_samples_of_any_length(book: Predictor) -> None:
    request = request_for(BOOK, None, match="[a-h]{2,}")
    for document in sample_documents(book, BOOK, request, 3):
        assert re.fullmatch("[a-h]{2,}", document.characters)
    with pytest.raises(CharloomError, match="length is unlimited"):
        sample_documents(book, BOOK, request_for(BOOK, None, forbid="a"), 3)


def test_a_stop_text_ends_a_complete_sample_only(book: Predictor) -> None:
    request = request_for(BOOK, 30, stop=("h", "gg"), match="[a-h]{2,}(ab)")
    for document in sample_side_by_side(book, BOOK, request, range(30), 8):
        assert re.fullmatch("[a-h]{2,}ab", document.characters)
        assert not re.search("h|gg", document.characters)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"match": "a{40}"}, "has at least 40 characters, and length is 30: pass a larger one"),
        ({"match": "a+", "forbid": "a"}, "no text of the model's characters meets all"),
        (
            {"require": "az"},
            "require has the character 'z' (U+007A LATIN SMALL LETTER Z) at position 1",
        ),
        ({"alphabet": r"[^\x00-\xff]"}, "no text of the model's characters meets all constraints"),
        ({"forbid": "[a-h\n]"}, "no text of the model's characters meets all constraints"),
        ({"alphabet": "abc"}, "alphabet is 'abc': pass a class of characters such as [a-z ]"),
        ({"alphabet": "[a-c]d]"}, "is not one class of characters"),
        ({"forbid": [""]}, "forbid has an empty text"),
        ({"bias": ["e"]}, "is not a character with a number"),
        ({"bias": ["z=1"]}, "bias names 'z', which is not a character of the model: omit it"),
        ({"bias": dict.fromkeys("\nabcdefgh", -math.inf)}, "bias excludes every character"),
    ],
)
def test_constraints_that_cannot_be_met(options: dict[str, object], message: str) -> None:
    with pytest.raises(CharloomError) as caught:
        request_for(BOOK, **options)
    assert message in str(caught.value)


def test_constraints_combine_with_new_documents_and_a_least_length() -> None:
    predictor = Backend("reference").open(model_of_documents())
    known = DocumentSet(LETTERS.encode(f"ab{END}abc{END}bca{END}"), LETTERS)
    request = request_for(LETTERS, 8, match="[abc]+", forbid="cc")
    documents = list(
        sample_documents(predictor, LETTERS, request, 5, unique=True, known=known, min_length=2)
    )
    texts = [document.characters for document in documents]
    assert len(set(texts)) == len(texts)
    assert not {"ab", "abc", "bca"} & set(texts)
    assert all(re.fullmatch("[abc]{2,}", text) and "cc" not in text for text in texts)

"""The kernels predict the same as the definition in plain Python.

A probability of the kernels can differ by the rounding of its sums, about 1e-6 of itself. Seldom,
a rounded number crosses a limit. Then it finds the next of 4,096 logits, and an input changes by
1 / (4096 p (1 - p)). Or a node is just reached often enough to be decided.
"""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from charloom.context_mixing import layout, reference
from charloom.context_mixing import mixer as mixer_module
from charloom.context_mixing.layout import (
    CONTEXT_COUNT,
    CONTEXTS,
    INDIRECT,
    LONG,
    MOST,
    MOST_RECENT,
    VERSION,
)
from charloom.context_mixing.mixer import ContextMixer, encode_probabilities
from charloom.context_mixing.reference import Follower, Reading, ReferenceMixer, with_one_more
from charloom.context_mixing.trees import make_tree
from charloom.text.vocabulary import END, Vocabulary
from helpers.paths import ROOT

USUAL, LARGEST = 2e-5, 0.1  # difference of log p: of 95 in 100 of them, and of all
MOVED = 0.001  # the largest sum of differences of a distribution
BLOCK = 96

WORDS = [
    "the",
    "and",
    "of",
    "my",
    "lord",
    "thou",
    "is",
    "not",
    "king",
    "what",
    "in",
    "that",
    "will",
]


def speeches(length: int, rng: np.random.Generator) -> str:
    """Return English with speakers, lines and blank lines."""
    lines: list[str] = []
    while sum(map(len, lines)) < length:
        lines.append(f"{rng.choice(['ROMEO', 'FIRST LADY', 'Nurse'])}:\n")
        for _ in range(rng.integers(1, 4)):
            words = " ".join(rng.choice(WORDS, rng.integers(3, 9)))
            lines.append(f"{words.capitalize()},\n")
        lines.append("\n")
    return "".join(lines)[:length]


def columns(length: int, rng: np.random.Generator) -> str:
    rows = (
        f"{n},{rng.choice(['paid', 'open'])},{rng.integers(10, 99)}.50,EUR\n"
        for n in range(100, 100 + length // 12)
    )
    return "".join(rows)[:length]


def documents(length: int, rng: np.random.Generator) -> str:
    words = (f"{rng.choice(WORDS)}{rng.choice([' ', ', ', END])}" for _ in range(length))
    return "".join(words)[:length]


def two_scripts(length: int, rng: np.random.Generator) -> str:
    """Return Russian, and characters of which there are many."""
    russian = ["и", "в", "не", "что", "он", "как", "его", "она", "был", "вот", "только"]
    chinese = [chr(0x4E00 + i) for i in range(300)]
    words = (
        str(rng.choice(russian)) + " " + "".join(rng.choice(chinese, 2)) + "。"
        for _ in range(length)
    )
    return "".join(words)[:length]


def coins(length: int, rng: np.random.Generator) -> str:
    return "".join(rng.choice(["a", "b"], length, p=[0.8, 0.2]))


def one_character(length: int, rng: np.random.Generator) -> str:
    return "a" * length


def thousands(length: int, rng: np.random.Generator) -> str:
    """Return a text for a vocabulary of 3,000: deep trees, lists of a single character."""
    ids = np.minimum(rng.zipf(1.3, length), 3000) - 1
    return "".join(chr(0x3400 + i) for i in ids)


TEXTS = [speeches, columns, documents, two_scripts, coins, one_character, thousands]


def pair(
    text: str, vocabulary: Vocabulary, version: int = VERSION
) -> tuple[ContextMixer, ReferenceMixer, np.ndarray]:
    """Return a compiled and a plain mixer that have learned a text, and its ids."""
    ids = vocabulary.encode(text)
    counts = np.bincount(ids, minlength=len(vocabulary))
    length = 100 * len(ids) + 20_000
    compiled = ContextMixer.empty(vocabulary, counts, length, text=ids, version=version)
    plain = ReferenceMixer(vocabulary, counts, BLOCK, text=ids, version=version)
    compiled.learn(ids)
    plain.learn(ids)
    # Otherwise two contexts share an entry, as one in some 10,000 does: take another text.
    assert np.count_nonzero(compiled.tables.singles) == len(plain.lists)
    return compiled, plain, ids


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixer_module, "BLOCK", BLOCK)


def assert_same(one: np.ndarray, other: np.ndarray) -> None:
    assert one.shape == other.shape
    assert one.min() > 0
    difference = np.abs(np.log(one.astype(np.float64)) - np.log(other.astype(np.float64)))
    assert np.quantile(difference, 0.95) <= USUAL
    assert difference.max() <= LARGEST
    assert np.abs(one - other).sum(axis=-1).max() <= MOVED


def compare(text: str, vocabulary: Vocabulary, version: int = VERSION) -> None:
    compiled, plain, ids = pair(text, vocabulary, version)
    # Frozen, in two rows: after the text, and at the beginning of one.
    rows = np.stack([ids[5:30], ids[40:65]], axis=1)
    states = np.concatenate([compiled.state[None], compiled.zero_state(1)])
    found, after = compiled.predict(rows, states)
    expected, readings = plain.predict(rows, [plain.reading, Reading()])
    np.testing.assert_array_equal(found.length, expected.length)
    np.testing.assert_array_equal(found.weight, expected.weight)
    # Adaptive, with counts and weights that change at every character.
    more = ids[20:60]
    adaptive = np.concatenate([part.probabilities for part in compiled.follow(more)])
    expected_adaptive = np.stack(list(plain.follow(more)))
    # And from the states and the counts after both.
    last, _ = compiled.predict(rows[:3], after)
    expected_last, _ = plain.predict(rows[:3], readings)
    assert_same(
        np.concatenate([found.probabilities, adaptive, last.probabilities]),
        np.concatenate([expected.probabilities, expected_adaptive, expected_last.probabilities]),
    )


@pytest.mark.parametrize("write", TEXTS)
@pytest.mark.usefixtures("short_blocks")
def test_kernels_equal_the_definition(write: Callable[..., str]) -> None:
    text = write(220, np.random.default_rng(5))
    characters = {*text, *(chr(0x3400 + i) for i in range(3000) if write is thousands)}
    compare(text, Vocabulary(tuple(sorted(characters))))


@pytest.mark.usefixtures("short_blocks")
def test_kernels_equal_the_definition_of_version_1() -> None:
    text = speeches(220, np.random.default_rng(5))
    compare(text, Vocabulary.of(text), 1)


@pytest.mark.extended
@pytest.mark.parametrize("write", TEXTS)
@pytest.mark.usefixtures("short_blocks")
def test_kernels_equal_the_definition_after_longer_texts(write: Callable[..., str]) -> None:
    text = write(900, np.random.default_rng(6))
    compare(text, Vocabulary(tuple(sorted({*text}))))


@pytest.mark.usefixtures("short_blocks")
def test_the_record_is_what_the_definition_predicts_before_each_block() -> None:
    text = columns(2 * BLOCK + 20, np.random.default_rng(7))
    vocabulary = Vocabulary.of(text)
    ids = vocabulary.encode(text)
    counts = np.bincount(ids)
    compiled = ContextMixer.empty(vocabulary, counts, 50_000)
    plain = ReferenceMixer(vocabulary, counts, block=BLOCK)
    record = np.zeros((len(ids), len(vocabulary)), np.uint8)
    compiled.learn(ids, record)
    for begin in range(0, len(ids), BLOCK):
        block = ids[begin : begin + BLOCK]
        expected = plain.predict(block[:, None], [plain.reading])[0].probabilities
        plain.learn(block)
        codes = encode_probabilities(expected).astype(int)
        assert np.abs(codes - record[begin : begin + BLOCK]).max() <= 1
        assert np.mean(codes != record[begin : begin + BLOCK]) < 0.001


def test_the_definition_shares_sizes_and_hashes_with_kernels_and_imports_no_numba() -> None:
    tree = ast.parse(Path(reference.__file__).read_text(encoding="utf-8"))
    modules = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    shared = {name for name in modules if name.startswith("charloom.context_mixing")}
    of_package = {name.removeprefix("charloom.context_mixing.") for name in shared}
    assert of_package == {"hashes", "layout", "trees"}
    command = "import sys, charloom.context_mixing.reference; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"


def test_the_definition_has_the_contexts_that_are_listed() -> None:
    vocabulary = Vocabulary.of("ab")
    plain = ReferenceMixer(vocabulary, np.array([1, 1]))
    found = plain.contexts(Reading())
    assert [context[0] for context in found] == list(range(CONTEXT_COUNT))
    assert len(CONTEXTS) == CONTEXT_COUNT
    assert len(reference.direct_contexts(Reading(), plain.tree)) == CONTEXT_COUNT - INDIRECT


def read(text: str) -> tuple[Reading, Vocabulary]:
    vocabulary = Vocabulary.of(text)
    tree = make_tree(np.ones(len(vocabulary)), vocabulary.characters, vocabulary.end_id)
    reading = Reading()
    for character in vocabulary.encode(text):
        reading = reading.after(int(character), tree)
    return reading, vocabulary


def test_a_reading_knows_words_lines_and_the_speaker() -> None:
    reading, vocabulary = read("ROMEO:\nOh my loVe, is it THE")
    assert vocabulary.decode(reading.word) == "the"
    assert vocabulary.decode(reading.word_before) == "it"
    assert vocabulary.decode(reading.word_before_that) == "is"
    assert vocabulary.decode(reading.short_line) == "Romeo"
    assert vocabulary.decode(reading.above) == "ROMEO:"
    assert vocabulary.decode(reading.latest) == "EHT ti s"
    assert reading.column == 21
    assert read("a b\n" + END)[0] == Reading()


def test_a_list_has_the_latest_first_and_halves_its_counts() -> None:
    followers: list[Follower] = []
    for character in (3, 3, 3, 3, 5, 3, 4):
        followers = with_one_more(followers, character)
    assert followers == [Follower(4, 1, 1), Follower(3, 5, 3), Follower(5, 1, 1)]
    for _ in range(2 * MOST):
        followers = with_one_more(followers, 3)
    assert followers[0].recent == MOST_RECENT
    assert [follower.times for follower in followers[1:]] == [1, 1]
    assert MOST // 2 < followers[0].times <= MOST
    alone = [Follower(3, MOST, 1)]
    assert with_one_more(alone, 3) == [Follower(3, MOST, 2)]


@pytest.mark.usefixtures("short_blocks")
def test_a_full_list_loses_the_rarest() -> None:
    characters = "".join(chr(0x4E00 + i) for i in range(LONG + 4))
    text = "".join(f"a{c}" for c in characters[:40] + characters[3:])
    compiled, plain, ids = pair(text, Vocabulary.of(text))
    found = compiled.predict(ids[:1, None], compiled.zero_state(1))[0]
    expected = plain.predict(ids[:1, None], [Reading()])[0]
    assert_same(found.probabilities, expected.probabilities)
    assert max(map(len, plain.lists.values())) == LONG
    assert found.weight == expected.weight


def test_the_numbers_in_the_documentation_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "math.md").read_text(encoding="utf-8")
    section = text.split("\n## Context mixing\n")[1].split("\n## ")[0]
    for number in (
        f"{layout.BLOCK:,}",
        f"{layout.RATE:.4f} + \\frac{{{layout.EARLY_RATE}}}",
        f"{layout.EARLY:,.0f}".replace(",", "{,}"),
        f"{layout.FINAL_RATE:.4f}",
        f"{layout.REFINED_RATE}\\, (\\beta - g)",
        f"below {layout.NEGLIGIBLE:.4f}",
        f"\\delta = {layout.PRIOR_COUNT}",
        f"{layout.MOST_SEEN:,}",
    ):
        assert number in section, number


@pytest.mark.usefixtures("short_blocks")
def test_counts_above_the_limit_are_halved_alike() -> None:
    text = ("a" * 25 + "b") * 43
    compiled, plain, ids = pair(text, Vocabulary.of(text))
    found = compiled.predict(ids[:30, None], compiled.zero_state(1))[0]
    expected = plain.predict(ids[:30, None], [Reading()])[0]
    assert_same(found.probabilities, expected.probabilities)
    np.testing.assert_array_equal(found.weight, expected.weight)
    after_a = next(followers for context, followers in plain.lists.items() if context[:2] == (0, 0))
    assert MOST // 2 < sum(follower.times for follower in after_a) < MOST

"""Distributions, blocks, documents and rows of a context mixer, whatever its tables have lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charloom.context_mixing import mixer as mixer_module
from charloom.context_mixing.buffers import list_places, weight_places
from charloom.context_mixing.layout import (
    DEEPEST,
    LARGEST_VOCABULARY,
    LIST_WAYS,
    LONG_WORDS,
    ORDERS,
    make_noted,
)
from charloom.context_mixing.mixer import LEARN, LOOK_UP, ContextMixer, encode_probabilities
from charloom.context_mixing.tables import (
    MOVED,
    NARROW,
    WIDE,
    make_tables,
    width_of,
    words_of,
)
from charloom.context_mixing.trees import make_tree
from charloom.errors import CharloomError
from charloom.text.vocabulary import END, Vocabulary

BLOCK = 100
TEXT = (
    "MARY:\nThe cat sat on the mat,\nand the dog sat on the log.\n\n"
    "JOHN:\nHow many cats, and what did they eat?\n\n"
) * 4
VOCABULARY = Vocabulary.of(TEXT + END)
IDS = VOCABULARY.encode(TEXT)
COUNTS = np.bincount(IDS, minlength=len(VOCABULARY))
END_ID = len(VOCABULARY) - 1


def letters(size: int) -> Vocabulary:
    return Vocabulary(tuple(chr(0x3400 + i) if i % 5 else chr(0x2500 + i) for i in range(size)))


def empty(length: int = 4000, most_bytes: float = 1e9) -> ContextMixer:
    return ContextMixer.empty(VOCABULARY, COUNTS, length, most_bytes)


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixer_module, "BLOCK", BLOCK)


@pytest.fixture
def trained() -> ContextMixer:
    mixer = empty()
    mixer.learn(IDS)
    return mixer


def after(mixer: ContextMixer, ids: np.ndarray, state: np.ndarray | None = None) -> np.ndarray:
    state = mixer.state[None] if state is None else state
    return mixer.predict(np.asarray(ids).reshape(-1, 1), state)[0].probabilities


def assert_distributions(p: np.ndarray) -> None:
    assert np.isfinite(p).all()
    assert p.min() > 0
    np.testing.assert_allclose(p.sum(axis=-1, dtype=np.float64), 1, atol=1e-5)


def lists_of(rows: np.ndarray) -> np.ndarray:
    """Return the lists in use, (n, words - 1), that have not moved to longer ones."""
    rows = rows[rows[:, 0] != 0, 1:]
    return rows[rows[:, 0] >> 16 != MOVED]


def assert_lists_are_valid(mixer: ContextMixer) -> None:
    shorts, longs = words_of(mixer.tables.shorts), mixer.tables.longs.reshape(-1, LONG_WORDS)
    for words in (shorts, longs):
        for entries in lists_of(words):
            used = np.count_nonzero(entries)
            assert used >= 2
            assert not entries[used:].any()  # no gap
            characters = entries[:used] >> 16
            assert len(set(characters)) == used
            assert characters.max() < mixer.vocabulary_size
            assert (entries[:used] >> 6 & 1023).min() > 0


@settings(max_examples=25)
@given(
    st.integers(2, 200),
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)),
    st.integers(0, 2**32 - 1),
)
def test_lists_that_are_replaced_leave_distributions(
    size: int, buckets: tuple[int, int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ids = np.minimum(rng.geometric(rng.choice([0.02, 0.1, 0.5]), 400) - 1, size - 1)
    vocabulary = letters(size)
    mixer = ContextMixer.empty(vocabulary, rng.integers(0, 1000, size), 100)
    mixer.tables = make_tables(*buckets, width_of(size))
    mixer.learn(ids[:300])
    assert_lists_are_valid(mixer)
    assert_distributions(after(mixer, ids[300:320]))
    assert_distributions(np.concatenate([p.probabilities for p in mixer.follow(ids[320:])]))
    assert_lists_are_valid(mixer)


def test_characters_of_8_bits_are_counted_like_others() -> None:
    rng = np.random.default_rng(5)
    ids = np.minimum(rng.geometric(0.02, 3000) - 1, 254)
    found, kept = [], []
    for width in (NARROW, WIDE):
        mixer = ContextMixer.empty(letters(255), np.bincount(ids, minlength=255), 100)
        mixer.tables = make_tables(200, 40, 20, width)
        mixer.learn(ids)
        found.append(after(mixer, ids[-50:]))
        kept.append((words_of(mixer.tables.shorts), mixer.tables.longs, mixer.tables.singles))
    assert found[0].tobytes() == found[1].tobytes()
    assert all(np.array_equal(one, other) for one, other in zip(*kept, strict=True))
    assert width_of(255) == NARROW
    assert width_of(256) == WIDE


@pytest.mark.parametrize("size", [65, 4000])
def test_a_mixer_takes_64_megabytes_at_most(size: int) -> None:
    for length in (10**6, 10**9):
        assert ContextMixer.empty(letters(size), np.ones(size), length).nbytes < 64_000_000


def test_lists_grow_from_one_to_the_longest_and_lose_the_rarest() -> None:
    size = 100
    followers = np.arange(1, size)
    ids = np.stack([np.zeros_like(followers), followers], axis=1).ravel()  # 0 1 0 2 0 3 …
    seen = []
    for n in (1, 2, 7, 8, 63, 99):
        mixer = ContextMixer.empty(letters(size), np.ones(size), 20_000)
        mixer.learn(ids[: 2 * n])
        # Two 0 were never beside each other, so that the longest known context is one of them.
        found = mixer.predict(np.array([[0], [0]]), mixer.zero_state(1))[0]
        assert found.length[1] == 1
        seen.append(round(1 / float(found.weight[1])) - 1)
        assert_distributions(found.probabilities)
    assert seen == [1, 2, 7, 8, 63, 63]
    longs = mixer.tables.longs.reshape(-1, LONG_WORDS)
    assert (lists_of(longs) != 0).sum(axis=1).max() == LONG_WORDS - 1


@pytest.mark.parametrize("most_bytes", [0, 100, 2000])
def test_the_smallest_tables_work(most_bytes: float) -> None:
    mixer = empty(10**6, most_bytes)
    assert len(mixer.tables.shorts) >= LIST_WAYS
    mixer.learn(IDS)
    assert_distributions(after(mixer, IDS[:50]))


def test_a_character_that_never_occurred_has_a_probability() -> None:
    """Beside 10⁹ others, the share of one that was never seen is below the smallest of 1 - p."""
    for counts in ([10**9, 0], [0, 10**9], [10**9, 0, 0, 0], [10**9, 10**9, 0, 1]):
        vocabulary = letters(len(counts))
        mixer = ContextMixer.empty(vocabulary, np.array(counts), 1000)
        assert_distributions(after(mixer, np.array([0, 1, 0])))
        mixer.learn(np.zeros(2000, int))
        assert_distributions(after(mixer, np.array([0, 1, 0])))


def test_every_id_can_be_read_and_predicted() -> None:
    for size in (1, 2, 3, 1000):
        mixer = ContextMixer.empty(letters(size), np.ones(size), 2000)
        ids = np.array([0, size - 1, size - 1, 0] * 30)
        record = np.zeros((len(ids), size), np.uint8)
        mixer.learn(ids, record)
        assert_distributions(after(mixer, ids[:8]))
        assert_distributions(next(mixer.follow(ids[:8])).probabilities)


def test_a_record_is_predicted_before_its_block_is_learned() -> None:
    mixer, gradually = empty(), empty()
    record = np.zeros((len(IDS), len(VOCABULARY)), np.uint8)
    mixer.learn(IDS, record)
    for begin in range(0, len(IDS), BLOCK):
        block = IDS[begin : begin + BLOCK]
        expected = encode_probabilities(after(gradually, block))
        np.testing.assert_array_equal(record[begin : begin + BLOCK], expected)
        gradually.learn(block)


@pytest.mark.parametrize("place", [1, BLOCK - 1, BLOCK, BLOCK + 40])
def test_a_record_does_not_know_what_comes_later(place: int) -> None:
    other = IDS.copy()
    other[place:] = other[place:][::-1]
    records = np.zeros((2, len(IDS), len(VOCABULARY)), np.uint8)
    empty().learn(IDS, records[0])
    empty().learn(other, records[1])
    np.testing.assert_array_equal(records[0, :place], records[1, :place])
    assert (records[0, place:] != records[1, place:]).any()


def test_threads_change_no_byte() -> None:
    one, several = (np.zeros((len(IDS), len(VOCABULARY)), np.uint8) for _ in range(2))
    mixers = empty(), empty()
    mixer_module.BLOCK = 300  # is restored by the fixture
    mixers[0].learn(IDS, one)
    mixers[1].learn(IDS, several, threads=3)
    np.testing.assert_array_equal(one, several)
    np.testing.assert_array_equal(mixers[0].state, mixers[1].state)


def assert_paths_are_exact(mixer: ContextMixer, text: np.ndarray) -> None:
    """Learning decides only along one path, and computes the same number to the last bit."""
    p = np.empty(len(text), np.float32)
    noted = make_noted(len(text), mixer.vocabulary_size)
    lists = list_places(noted)
    with mixer.workspace() as workspace:
        places, weights = mixer.places, weight_places(mixer.frozen)
        state = mixer.state.copy()
        LOOK_UP(text, state.copy(), places, workspace.places, lists, p, 0)
        LEARN(text, state, places, weights, workspace.places, lists, p, 0)
    distributions = after(mixer, text[:-1])
    np.testing.assert_array_equal(p[1:], distributions[np.arange(len(text) - 1), text[1:]])
    assert 0 < p[0] < 1


def test_the_path_of_a_character_has_its_probability_in_the_distribution(
    trained: ContextMixer,
) -> None:
    assert_paths_are_exact(trained, np.ascontiguousarray(IDS[30:130], np.int64))


def test_the_longest_path_has_its_probability_too() -> None:
    counts = (1.9 ** np.arange(DEEPEST + 1)).astype(np.int64)
    mixer = ContextMixer.empty(letters(len(counts)), counts, 3000)
    assert mixer.tree.depth.max() == DEEPEST
    ids = np.random.default_rng(3).integers(0, len(counts), 2000)
    mixer.learn(np.repeat(ids, 2))
    assert_paths_are_exact(mixer, np.arange(len(counts)))


def test_nothing_before_the_end_of_a_document_changes_what_follows(trained: ContextMixer) -> None:
    follows = np.concatenate([[END_ID], IDS[:60]])
    readings = [trained.zero_state(1), trained.state[None]]
    readings += [trained.read(IDS[:n, None], trained.zero_state(1)) for n in (3, 40, 101)]
    answers = [after(trained, follows, state) for state in readings]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])
    assert not trained.read(np.array([[END_ID]]), trained.state[None]).any()


def test_a_row_does_not_depend_on_its_companions(trained: ContextMixer) -> None:
    ids = np.stack([IDS[:50], IDS[50:100], IDS[100:150]], axis=1)
    state = trained.read(ids[:7], trained.zero_state(3))
    together, states = trained.predict(ids, state)
    for row in range(3):
        alone, one = trained.predict(ids[:, row : row + 1], state[row : row + 1])
        np.testing.assert_array_equal(alone.probabilities, together.probabilities[row::3])
        np.testing.assert_array_equal(alone.length, together.length[row::3])
        np.testing.assert_array_equal(alone.weight, together.weight[row::3])
        np.testing.assert_array_equal(one[0], states[row])


def test_reading_and_predicting_reach_the_same_state(trained: ContextMixer) -> None:
    ids = IDS[:120].reshape(2, 60).T
    state = trained.zero_state(2)
    all_at_once, end = trained.predict(ids, state)
    later, same_end = trained.predict(ids[20:], trained.read(ids[:20], state))
    np.testing.assert_array_equal(later.probabilities, all_at_once.probabilities[40:])
    np.testing.assert_array_equal(end, same_end)
    np.testing.assert_array_equal(end, trained.read(ids, state))
    assert not state.any()  # the caller's own is not changed
    assert all_at_once.length.min() >= 0
    assert all_at_once.length.max() <= ORDERS == trained.context
    assert (all_at_once.weight > 0).all()
    assert (all_at_once.weight <= 1).all()


def test_predictions_and_copies_change_nothing(trained: ContextMixer) -> None:
    before = after(trained, IDS[:40])
    other = trained.copy()
    other.learn(IDS[::-1])
    np.testing.assert_array_equal(after(trained, IDS[:40]), before)
    learned = after(other, IDS[:40], trained.state[None])
    assert (learned != before).any()
    # What a mixer has prepared for predictions is obsolete when it learns again.
    other.learn(IDS)
    again = after(other, IDS[:40], trained.state[None])
    assert (again != learned).any()
    np.testing.assert_array_equal(after(other.copy(), IDS[:40], trained.state[None]), again)


def test_following_learns_what_learning_does(trained: ContextMixer) -> None:
    """A frozen model's weights stay, because they predict text that is not counted."""
    learning, following = trained.copy(), trained.copy()
    learning.learn(IDS[5:250])
    assert sum(len(part.probabilities) for part in following.follow(IDS[5:250])) == 245
    for one, other in zip(
        (*learning.tables, *learning.adaptive, learning.state),
        (*following.tables, *following.adaptive, following.state),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(following.frozen, trained.frozen, strict=True):
        np.testing.assert_array_equal(one, other)


def test_learning_in_parts_that_are_blocks_is_learning_at_once() -> None:
    whole, parts = empty(), empty()
    whole.learn(IDS)
    parts.learn(IDS[: 2 * BLOCK])
    parts.learn(IDS[2 * BLOCK :])
    np.testing.assert_array_equal(after(whole, IDS[:40]), after(parts, IDS[:40]))


def test_a_repeated_text_is_predicted_ever_better() -> None:
    mixer = empty()
    record = np.zeros((len(IDS), len(VOCABULARY)), np.uint8)
    mixer.learn(IDS, record)
    bits = record[np.arange(len(IDS) - 1), IDS[1:]] / mixer_module.CODES_PER_BIT
    assert bits[:BLOCK].mean() > 4
    assert bits[-BLOCK:].mean() < 1


@pytest.mark.parametrize("size", [1, 2, 3, 50, 700])
def test_a_tree_leads_to_every_character(size: int) -> None:
    counts = np.random.default_rng(1).integers(0, 1000, size)
    tree = make_tree(counts, letters(size).characters, None)
    for character in range(size):
        node = 0
        for j in range(tree.depth[character]):
            assert tree.path[character, j] == node
            node = tree.children[node, tree.turns[character, j]]
        assert node == (-1 - character if size > 1 else 0)
    if size > 1:  # more frequent characters are not deeper
        order = np.argsort(-counts, kind="stable")
        assert (np.diff(tree.depth[order])[np.diff(counts[order]) < 0] >= 0).all()
        share = np.ones(size)
        for character in range(size):
            for j in range(tree.depth[character]):
                p = tree.prior[tree.path[character, j]]
                share[character] *= p if tree.turns[character, j] else 1 - p
        np.testing.assert_allclose(share, (counts + 0.1) / (counts + 0.1).sum(), rtol=1e-3)


def test_a_tree_takes_little_memory_and_is_at_most_64_deep() -> None:
    size = 8000
    tree = make_tree(np.ones(size), letters(size).characters, None)
    assert sum(array.nbytes for array in tree) < 2_000_000
    # Counts that grow as fast as these make the tree a list, here of 10¹² characters together.
    counts = np.array([int(1.65**i) for i in range(55)])
    tree = make_tree(counts, letters(len(counts)).characters, None)
    assert 50 < tree.depth.max() <= 64


def test_a_vocabulary_with_too_many_characters_is_refused() -> None:
    vocabulary = Vocabulary(tuple(chr(0x10000 + i) for i in range(LARGEST_VOCABULARY + 1)))
    with pytest.raises(CharloomError, match="at most 65,535"):
        ContextMixer.empty(vocabulary, np.ones(len(vocabulary)), 1000)

"""A context mixer in few bytes: nothing is lost but digits of weights, and nothing is believed."""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from charloom.context_mixing.layout import (
    ABOVE,
    ABOVE_LENGTH,
    COLUMN,
    LIST_WAYS,
    LONG_WORDS,
    SINGLE_WAYS,
    STATE,
)
from charloom.context_mixing.mixer import ContextMixer
from charloom.context_mixing.packing import (
    Arrays,
    array_names,
    pack,
    packed_bytes,
    settled,
    unpack,
)
from charloom.context_mixing.tables import (
    MOVED,
    Tables,
    words_of,
)
from charloom.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary.of("abcdefgh .\n")


def text(count: int, seed: int = 0) -> Any:
    """Return ids of a text of few words and some noise, (N,)."""
    chance = np.random.default_rng(seed)
    words = ["abc", "bad", "cab", "dead", "egg", "fed", "gag.\n", "head"]
    made = " ".join(
        word if chance.random() < 0.9 else word[::-1] for word in chance.choice(words, count)
    )
    return VOCABULARY.encode(made).astype(np.int64)


def learned(count: int = 600) -> ContextMixer:
    ids = text(count)
    counts = np.bincount(ids, minlength=len(VOCABULARY))
    mixer = ContextMixer.empty(VOCABULARY, counts, len(ids))
    mixer.learn(ids)
    return mixer


@pytest.fixture(scope="module")
def packed() -> Arrays:
    return pack(learned())


def lists(tables: Tables, name: str) -> list[list[tuple[int, ...]]]:
    """Return the lists of each bucket of a table, up to where one ends or has moved."""
    if name == "singles":
        pairs = zip(tables.checks.tolist(), tables.singles.tolist(), strict=True)
        both = list(pairs)
        buckets = [both[i : i + SINGLE_WAYS] for i in range(0, len(both), SINGLE_WAYS)]
        return [[pair for pair in bucket if pair[1]] for bucket in buckets]
    found = []
    longs = tables.longs.reshape(-1, LONG_WORDS)
    words = longs if name == "longs" else words_of(tables.shorts)
    for bucket in words.reshape(-1, LIST_WAYS, words.shape[1]):
        kept = []
        for check, *entries in bucket.tolist():
            if not check:
                continue
            if entries[0] >> 16 == MOVED:
                entries = entries[:1]
            kept.append((check, *[n for n in entries if n]))
        found.append(kept)
    return found


def test_every_list_and_every_count_is_kept(packed: Arrays) -> None:
    mixer, again = learned(), unpack(packed, VOCABULARY)
    for name in ("singles", "shorts", "longs"):
        before, after = getattr(mixer.tables, name), getattr(again.tables, name)
        assert before.shape == after.shape
        assert lists(mixer.tables, name) == lists(again.tables, name)
        assert any(lists(mixer.tables, name))
    assert np.array_equal(again.state, mixer.state)
    assert again.blocks == mixer.blocks
    for before, after in zip(mixer.tree, again.tree, strict=True):
        assert np.array_equal(before, after)


def test_weights_keep_four_digits_and_a_second_rounding_changes_nothing(packed: Arrays) -> None:
    mixer, again = learned(), unpack(packed, VOCABULARY)
    for chosen in ("frozen", "adaptive"):
        for before, after in zip(getattr(mixer, chosen), getattr(again, chosen), strict=True):
            assert after.dtype == before.dtype
            assert np.abs(before - after).max() < 1e-3
    twice = pack(again)
    assert twice.keys() == packed.keys() == set(array_names())
    assert all(np.array_equal(twice[name], packed[name]) for name in packed)


def test_a_settled_mixer_predicts_and_goes_on_learning_like_its_file() -> None:
    mixer = settled(learned(), VOCABULARY, 1e9).mixer
    again = unpack({name: values.copy() for name, values in pack(mixer).items()}, VOCABULARY)
    ids = text(80, seed=1)
    for one, other in zip(mixer.follow(ids), again.follow(ids), strict=True):
        assert one.probabilities.tobytes() == other.probabilities.tobytes()
    columns = ids[: len(ids) // 2 * 2].reshape(-1, 2)
    one, _ = mixer.predict(columns, mixer.zero_state(2))
    other, _ = again.predict(columns, again.zero_state(2))
    assert one.probabilities.tobytes() == other.probabilities.tobytes()


def test_what_was_seen_most_rarely_is_omitted_of_a_small_file() -> None:
    whole = settled(learned(4000), VOCABULARY, 1e9)
    assert whole.omitted == 0
    limit = whole.packed - 6_000
    small = settled(learned(4000), VOCABULARY, limit)
    assert small.omitted > 0
    assert small.packed == packed_bytes(pack(small.mixer)) <= limit
    counts = [
        (mixer.tables.singles[mixer.tables.singles != 0] >> 6) & 1023
        for mixer in (whole.mixer, small.mixer)
    ]
    assert len(counts[0]) - len(counts[1]) == small.omitted
    assert (counts[0] > 1).sum() == (counts[1] > 1).sum()
    nothing = settled(learned(), VOCABULARY, 0)
    moved = nothing.mixer.tables.singles[nothing.mixer.tables.singles != 0]
    assert (moved >> 16 == MOVED).all()


def opened(values: Any, kind: Any) -> Any:
    """Return the values of a compressed array."""
    size = np.dtype(kind).itemsize
    planes = np.frombuffer(zlib.decompress(values.tobytes()), np.uint8).reshape(size, -1)
    return np.ascontiguousarray(planes.T).view(kind).reshape(-1).copy()


def closed(values: Any) -> Any:
    planes = values.view(np.uint8).reshape(-1, values.dtype.itemsize).T
    return np.frombuffer(zlib.compress(planes.tobytes()), np.uint8)


def put(name: str, kind: Any, change: Callable[[Any], Any]) -> Callable[[Arrays], None]:
    """Return a change of the values of a compressed array."""

    def apply(arrays: Arrays) -> None:
        values = opened(arrays[name], kind)
        arrays[name] = closed(change(values).astype(kind))

    return apply


def with_first(value: Any) -> Callable[[Any], Any]:
    return lambda values: np.append(value, values[1:])


def at(place: int, value: int) -> Callable[[Any], Any]:
    def change(values: Any) -> Any:
        values[place] = value
        return values

    return change


DAMAGE: dict[str, tuple[Callable[[Arrays], None], str]] = {
    "no bucket": (put("shorts_used", np.uint8, lambda v: v[:0]), "no buckets"),
    "a bucket too full": (put("longs_used", np.uint8, with_first(5)), "too full"),
    "one list more": (put("singles_used", np.uint8, lambda v: np.append(v, 1)), "checks"),
    "no length": (put("shorts_lengths", np.uint8, with_first(0)), "impossible length"),
    "a length too large": (put("shorts_lengths", np.uint8, with_first(8)), "impossible length"),
    "other lengths": (put("longs_lengths", np.uint8, lambda v: np.minimum(v, 2)), "codes"),
    "an even check": (lambda a: a["shorts_checks"].__setitem__(0, 2), "impossible checks"),
    "an unknown code": (put("singles_codes", np.uint8, with_first(254)), "unknown codes"),
    "another other": (put("longs_codes", np.uint8, with_first(255)), "others"),
    "never seen": (lambda a: a["singles_pairs"].__setitem__(0, 63), "never seen"),
    "moved too far": (lambda a: a["longs_pairs"].__setitem__(0, 0), "moved nowhere"),
    "moved and more": (lambda a: a["shorts_pairs"].__setitem__(0, 0), "moved nowhere"),
    "an unknown character": (
        put("shorts_characters", np.uint16, with_first(len(VOCABULARY))),
        "outside the vocabulary",
    ),
    "a cycle": (put("children", np.int32, with_first(0)), "tree"),
    "a twin": (put("children", np.int32, lambda v: np.append(v[-1], v[1:])), "tree"),
    "a node of nowhere": (put("children", np.int32, with_first(9_999)), "wrong children"),
    "certainty": (put("prior", np.float32, with_first(1.0)), "outside 0 and 1"),
    "a rank too high": (put("rank", np.uint16, with_first(256)), "ranks"),
    "infinity": (put("frozen_sets", np.float16, with_first(np.inf)), "not finite"),
    "NaN": (put("adaptive_final", np.float16, with_first(np.nan)), "not finite"),
    "negative steps": (put("frozen_steps", np.int64, with_first(-1)), "not finite"),
    "fewer weights": (put("frozen_refined", np.uint16, lambda v: v[1:]), "frozen_refined"),
    "more weights": (put("adaptive_counts", np.uint16, lambda v: np.append(v, 1)), "length"),
    "an unknown last character": (put("state", np.uint64, with_first(12)), "vocabulary"),
    "an unknown line": (put("state", np.uint64, at(ABOVE, 99)), "vocabulary"),
    "a long line": (put("state", np.uint64, at(ABOVE_LENGTH, 65)), "impossible length"),
    "a far column": (put("state", np.uint64, at(COLUMN, 2**63)), "impossible length"),
    "a short state": (put("state", np.uint64, lambda v: v[: STATE - 1]), "state"),
    "no zlib": (lambda a: a.update(prior=np.zeros(9, np.uint8)), "decompressed"),
    "a bomb": (lambda a: a.update(rank=closed(np.zeros(10**6, np.uint16))), "length"),
    "another type": (lambda a: a.update(rank=a["rank"].astype(np.uint16)), "type"),
    "codes of another type": (
        lambda a: a.update(shorts_pairs=a["shorts_pairs"].astype(np.uint8)),
        "impossible shape",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_refused_before_a_kernel_reads_it(what: str, packed: Arrays) -> None:
    change, expected = DAMAGE[what]
    arrays = {name: values.copy() for name, values in packed.items()}
    change(arrays)
    with pytest.raises(ValueError, match=expected):
        unpack(arrays, VOCABULARY)
    with pytest.raises(ValueError, match="its"):
        unpack(packed, Vocabulary.of("abcdefgh ."))

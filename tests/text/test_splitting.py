"""A collection is split by document: by hash, or each document by itself; and it stays split."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.text import dataset as dataset_module
from charloom.text import splitting
from charloom.text.dataset import Dataset, OtherTextError, OwnParts, Split, load_dataset
from charloom.text.format import TextFormat, open_texts
from charloom.text.source import Text, text_from_string
from charloom.text.splitting import Pieces, order_of
from charloom.text.vocabulary import END

Parts = list[list[str]]

PUBLISHED_VALIDATION = ["name 13807", "name 19695", "name 47514", "name 64265"]
PUBLISHED_TEST = ["name 18782"]


def collection(documents: Sequence[str]) -> Text:
    return Text("docs", "", False, lambda: iter([d + END for d in documents]), ends=True)


def parts_of(data: Dataset) -> Parts:
    found = []
    for part in (data.train, data.validation, data.test):
        whole = data.vocabulary.decode(part)
        assert not whole or whole.endswith(END)
        found.append(whole.split(END)[:-1])
    assert [len(documents) for documents in found] == list(data.pieces)
    return found


def split_of(documents: Sequence[str], split: str = "90/5/5", **options: Any) -> Parts:
    return parts_of(load_dataset(collection(documents), Split.parse(split), **options))


def words(count: int) -> list[str]:
    return [f"name {i * 7919 % 100_003}" for i in range(count)]


DOCUMENTS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=3, max_size=40)


@given(DOCUMENTS, st.sampled_from(["90/5/5", "50/50/0", "80/0/20", "100/0/0", "34/33/33"]))
def test_every_document_is_in_one_part_with_its_copies(documents: list[str], split: str) -> None:
    parts = split_of(documents, split)
    assert Counter(d for part in parts for d in part) == Counter(documents)
    assert sum(len(set(part)) for part in parts) == len(set(documents))
    wanted = Split.parse(split)
    shares = (wanted.train, wanted.validation, wanted.test)
    for part, share in zip(parts, shares, strict=True):
        assert share > 0 or not part
    if len(set(documents)) >= sum(share > 0 for share in shares):
        assert all(part for part, share in zip(parts, shares, strict=True) if share > 0)


@given(st.permutations(words(30)))
def test_the_order_of_documents_changes_nothing(documents: list[str]) -> None:
    copies = [*documents, *documents[:5]]
    found = load_dataset(collection(copies), Split())
    expected = load_dataset(collection(sorted(copies)), Split())
    np.testing.assert_array_equal(found.ids, expected.ids)
    assert found.boundaries == expected.boundaries


def test_a_collection_that_grows_keeps_its_splits() -> None:
    few, many = split_of(words(2000)), split_of(words(4000))
    for before, after in zip(few, many, strict=True):
        assert set(before) <= set(after)
    shares = np.array([len(part) for part in many]) / 4000
    np.testing.assert_allclose(shares, [0.9, 0.05, 0.05], atol=0.012)


def test_the_split_is_the_published_one() -> None:
    """The hash must never change, or runs would be evaluated on documents they trained on."""
    _, validation, test = split_of(words(60))
    assert sorted(validation) == PUBLISHED_VALIDATION
    assert sorted(test) == PUBLISHED_TEST


def test_frequent_documents_are_for_training() -> None:
    documents = [*words(1000), *["anna"] * 99_000]
    train, validation, test = split_of(documents)
    assert train.count("anna") == 99_000
    assert 25 < len(validation) < 80
    assert 25 < len(test) < 80
    # Wherever its hash is: each of many words alone.
    for word in words(40):
        train, *others = split_of([*words(300), *[word] * 100])
        assert train.count(word) == 101
        assert word not in [document for part in others for document in part]


def test_a_document_that_is_most_of_the_text_is_for_training() -> None:
    for i in range(20):
        giant = f"{i} " * 100_000
        train, validation, test = split_of([*words(150), giant])
        assert giant in train
        assert validation
        assert test


@pytest.mark.parametrize("count", [3, 5, 20])
def test_few_short_documents_fill_every_part(count: int) -> None:
    train, validation, test = split_of(words(count))
    assert train
    assert validation
    assert test
    assert len(train) + len(validation) + len(test) == count
    assert len(train) >= count - 4 or count == 20


def test_equal_documents_are_all_for_training_and_it_is_said() -> None:
    data = load_dataset(collection(["anna"] * 50), Split())
    assert data.pieces == (50, 0, 0)
    (said,) = data.notes
    assert "validation split and the test split would need more documents" in said


def test_few_long_documents_are_cut_by_themselves() -> None:
    lines = ["".join(f"line {i} of {d}\n" for i in range(2000)) for d in "abc"]
    data = load_dataset(collection(lines), Split())
    parts = parts_of(data)
    assert data.documents == 3
    assert data.pieces == (3, 3, 3)
    assert "each document is split 90/5/5 by itself" in data.rule
    for document, *pieces in zip(lines, *parts, strict=True):
        assert "".join(pieces) == document
        assert all(piece.endswith("\n") for piece in pieces)
        shares = [len(piece) / len(document) for piece in pieces]
        np.testing.assert_allclose(shares, [0.9, 0.05, 0.05], atol=0.001)


@pytest.mark.parametrize("documents", [["abcdef"], ["abc", "defghij" * 9]])
def test_one_and_two_documents_are_cut_by_themselves(documents: list[str]) -> None:
    parts = split_of(documents)
    assert ["".join(pieces) for pieces in zip(*parts, strict=True)] == documents
    assert split_of(["a"]) == [["a"], [], []]
    train, validation, test = split_of(documents, "100/0/0")
    assert (train, validation, test) == (documents, [], [])
    assert not split_of(documents, "50/50/0")[2]


def test_a_list_with_a_line_of_a_megabyte_is_not_cut() -> None:
    documents = [*words(50), "x" * 1_000_000]
    parts = split_of(documents)
    assert Counter(d for part in parts for d in part) == Counter(documents)
    assert documents[-1] in parts[0]


def test_texts_of_ones_own_are_parts() -> None:
    own = OwnParts(collection(["z", "y"]), collection(["x"]))
    data = load_dataset(collection(words(50)), Split(), own=own)
    train, validation, test = parts_of(data)
    assert sorted(train) == sorted(words(50))
    assert sorted(validation) == ["y", "z"]
    assert test == ["x"]
    assert data.documents == 53
    assert {"x", "y", "z"} <= set(data.vocabulary.characters)
    # One of them leaves the other split as it is.
    _, validation, test = split_of(words(50), own=OwnParts(test=collection(["x"])))
    assert validation == split_of(words(50))[1]
    assert test == ["x"]
    sha256 = data.own["test"]["sha256"]
    for expected, refused in ((sha256, False), ("0" * 64, True)):
        again = OwnParts(own.validation, own.test, {"test": expected})
        if refused:
            with pytest.raises(OtherTextError, match="as --test"):
                load_dataset(collection(words(50)), Split(), own=again)
        else:
            load_dataset(collection(words(50)), Split(), own=again)


def test_texts_of_ones_own_are_parts_of_a_book() -> None:
    text = text_from_string("abcdefghij" * 10)
    own = OwnParts(test=text_from_string("xyz"))
    data = load_dataset(text, Split(), own=own)
    decode = data.vocabulary.decode
    assert decode(data.train) + decode(data.validation) == text.read()
    assert len(data.train) == 95
    assert decode(data.test) == "xyz"
    both = load_dataset(text, Split(), own=OwnParts(text_from_string("q"), own.test))
    assert both.vocabulary.decode(both.ids) == text.read() + "qxyz"
    assert both.boundaries == (100, 101)


@given(DOCUMENTS, st.integers(1, 20))
def test_documents_in_a_mapped_file_are_the_same(documents: list[str], at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        expected = load_dataset(collection(documents), Split())
        patch.setattr(splitting, "COPIED_AT_ONCE", at_once)
        patch.setattr(splitting, "IN_MEMORY_AT_MOST", 0)
        patch.setattr(splitting.store_ids, "__defaults__", (None, 0))
        patch.setattr(dataset_module.encode_text, "__kwdefaults__", {"in_memory": 0})
        found = load_dataset(collection(documents), Split())
        assert isinstance(found.ids, np.memmap)
        np.testing.assert_array_equal(found.ids, expected.ids)
        assert found.boundaries == expected.boundaries


def test_hashes_are_those_of_contents_wherever_chunks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = ["é" * 5, "ab", "c" * 700_000, "d", "e" * 700_000]
    found = dataset_module.scan(collection(documents))
    alone = [dataset_module.scan(collection([document])).hashes[0] for document in documents]
    assert found.hashes.tolist() == alone
    as_bytes = Text(
        "docs", "", True, lambda: iter(["é".encode().decode("latin-1") * 5 + END]), True
    )
    assert dataset_module.scan(as_bytes).hashes[0] == alone[0]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_the_order_does_not_depend_on_the_order_before(numbers: list[int]) -> None:
    hashes = np.array(numbers, np.uint64)
    order = order_of(hashes)
    assert sorted(order.tolist()) == list(range(len(numbers)))
    again = np.sort(hashes)
    np.testing.assert_array_equal(hashes[order], again[order_of(again)])


def test_pieces_longer_than_a_block_are_copied_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "COPIED_AT_ONCE", 7)
    ids = np.arange(100, dtype=np.uint8)
    starts, lengths = np.array([50, 3, 0, 90, 20]), np.array([30, 2, 0, 7, 8])
    blocks = list(Pieces(ids, starts, lengths).blocks())
    assert max(map(len, blocks)) <= 7
    expected = [ids[s : s + n] for s, n in zip(starts, lengths, strict=True)]
    np.testing.assert_array_equal(np.concatenate(blocks), np.concatenate(expected))


# --- Characters that are left out, and the share of those never seen ------------------------------


def test_rare_characters_get_no_id_and_are_counted() -> None:
    documents = [*(f"common {'abc'[i % 3]}" for i in range(60)), "q common", "z", "commonq"]
    data = load_dataset(collection(documents), Split(), min_count=3)
    assert not {"q", "z"} & set(data.vocabulary.characters)
    assert data.vocabulary.end_id is not None
    assert sum(data.folded) == 3
    text = "".join(documents)
    kept = Counter(c for c in text if c not in "qz")
    assert Counter(data.vocabulary.decode(data.ids).replace(END, "")) == kept
    everything = load_dataset(collection(documents), Split())
    for part in range(3):
        whole = "".join(parts_of(everything)[part])
        assert data.folded[part] == sum(whole.count(c) for c in "qz")
    symbols = len(data.train) + data.folded[0]
    assert data.unseen == pytest.approx((data.folded[0] or symbols / (symbols + 1)) / symbols)


def test_rare_characters_of_a_book_are_counted_where_they_are() -> None:
    text = "ab" * 45 + "q" + "ab" * 2 + "r" + "ab" * 2 + "s"
    data = load_dataset(text_from_string(text), Split.parse("90/5/5"), min_count=2)
    assert data.vocabulary.decode(data.ids) == "ab" * 49
    assert sum(data.folded) == 3
    assert data.notes == (
        "--min-count 2 removes 3 distinct characters with 3 occurrences, which `charloom evaluate` "
        "counts as unknown",
    )
    assert data.folded[2] >= 1
    whole = load_dataset(text_from_string(text), Split())
    assert data.vocabulary == load_dataset(text_from_string("ab" * 9), Split()).vocabulary
    assert whole.folded == (0, 0, 0)
    assert whole.notes == ()


def test_few_long_documents_count_rare_characters_once() -> None:
    document = "".join(f"line {i}\n" for i in range(4000))
    data = load_dataset(collection([document + "€", "¥" + document]), Split(), min_count=2)
    assert data.folded == (1, 0, 1)


def test_the_unseen_share_is_that_of_characters_seen_once() -> None:
    data = load_dataset(text_from_string("aabbcd" + "ab" * 7), Split.parse("100/0/0"))
    assert data.unseen == 2 / 20
    none = load_dataset(text_from_string("abab"), Split.parse("100/0/0"))
    assert none.unseen == 1 / 5
    documents = load_dataset(collection(["aab", "ba", "ac"]), Split.parse("100/0/0"))
    assert documents.unseen == 1 / 10  # the end occurs three times, and is no character


def test_lines_of_a_file_are_split_like_the_same_documents(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(words(100)) + "\n")
    text = open_texts([path], TextFormat(lines=True))
    assert parts_of(load_dataset(text, Split())) == split_of(words(100))
    record = load_dataset(text, Split()).record()
    assert record["documents"] == 100
    assert record["characters"] == sum(map(len, words(100)))

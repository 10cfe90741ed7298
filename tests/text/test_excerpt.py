"""Excerpts of a collection consist of whole documents from all parts of it."""

import numpy as np
import pytest

from charloom.text import excerpt as module
from charloom.text.excerpt import document_ends, excerpt, hold_out_tenth

END = 9


def collection(lengths: list[int]) -> np.ndarray:
    """Return documents of these lengths, their END included, of ids that repeat from 0 to 8."""
    documents = [np.append(np.arange(n - 1) % 9, END) for n in lengths]
    return np.concatenate([*documents, np.zeros(0, int)]).astype(np.uint8)


def test_the_ends_of_documents_are_found_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [3, 1, 1, 12, 5, 2]
    monkeypatch.setattr(module, "READ_AT_ONCE", 4)
    ids = collection(lengths)
    assert document_ends(ids, END).tolist() == np.cumsum(lengths).tolist()
    assert document_ends(ids[:-1], END).tolist() == [3, 4, 5, 17, 22, 23]
    assert document_ends(ids[:0], END).tolist() == []


def test_an_excerpt_of_short_documents_is_whole_documents_from_everywhere() -> None:
    # Sorted: the first id of a document, 0 to 99, is its number divided by 20.
    documents = [[n // 20, *[100] * (n % 7), 101] for n in range(2_000)]
    ids = np.array([w for document in documents for w in document])
    found = excerpt(ids, 2_000, 101)
    assert 1_900 < len(found) <= 2_000
    parts = np.split(found, document_ends(found, 101)[:-1])
    assert all(part.tolist() in documents for part in parts)
    beginnings = np.array([part[0] for part in parts])
    assert (np.diff(beginnings) >= 0).all()
    assert set(np.bincount(beginnings, minlength=100).tolist()) <= {3, 4, 5}  # of 20 each


def test_an_excerpt_of_long_documents_has_the_end_of_each() -> None:
    ids = collection([30_000, 10_000, 20_000] + [10] * 4_000)
    found = excerpt(ids, 10_000, END)
    assert 9_900 < len(found) <= 10_000
    lengths = np.diff(document_ends(found, END), prepend=0).tolist()
    assert lengths[:3] == [3_000, 1_000, 2_000]
    assert set(lengths[3:]) == {10}
    np.testing.assert_array_equal(found[:3_000], ids[27_000:30_000])


def test_an_excerpt_of_many_documents_has_long_pieces_of_few() -> None:
    ids = collection([1_000] * 2_000 + [100_000] * 10 + [10] * 100_000)
    found = excerpt(ids, 10_000, END)
    assert 9_700 < len(found) <= 10_000
    lengths = np.diff(document_ends(found, END), prepend=0)
    assert set(lengths.tolist()) == {10, 500}
    long, short = lengths[lengths > 10].sum(), lengths[lengths == 10].sum()
    assert long / short == pytest.approx(3, rel=0.15)  # as in the collection


@pytest.mark.parametrize("lengths", [[], [1], [1] * 50, [7, 60, 1]])
@pytest.mark.parametrize("limit", [1, 10, 1000])
def test_no_excerpt_exceeds_its_limit(lengths: list[int], limit: int) -> None:
    ids = collection(lengths)
    found = excerpt(ids, limit, END)
    assert len(found) <= limit
    assert len(found) or not lengths
    assert found.dtype == ids.dtype
    if len(ids) <= limit:
        np.testing.assert_array_equal(found, ids)


def test_a_tenth_of_the_documents_is_held_out() -> None:
    ids = collection([1 + n % 9 for n in range(500)])
    split = hold_out_tenth(ids, END)
    assert split is not None
    kept, held_out = split
    assert len(document_ends(kept, END)) == 450
    assert len(document_ends(held_out, END)) == 50
    np.testing.assert_array_equal(np.bincount(kept) + np.bincount(held_out), np.bincount(ids))
    assert hold_out_tenth(collection([5] * 9), END) is None

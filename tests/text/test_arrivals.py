"""Batches of lines: of a fixed size, or with all lines that have arrived."""

import threading
from collections.abc import Iterator

import pytest

from charloom.text import arrivals
from charloom.text.arrivals import in_batches


def test_batches_have_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "CHARACTERS_AT_ONCE", 10)
    monkeypatch.setattr(arrivals, "ITEMS_AT_ONCE", 3)
    lines = ["a" * 12, "b" * 9, "c", "", "", "d", "e"]
    assert list(in_batches(lines, len)) == [["a" * 12], ["b" * 9, "c"], ["", "", "d"], ["e"]]
    assert list(in_batches([], len)) == []


@pytest.mark.parametrize("most", [1, 5, 1_000_000])
def test_everything_that_arrives_is_in_a_batch(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(arrivals, "CHARACTERS_AT_ONCE", most)
    lines = [str(number) for number in range(2_000)]
    batches = list(in_batches(iter(lines), len, live=True))
    assert [line for batch in batches for line in batch] == lines
    assert all(batches)
    assert max(sum(map(len, batch[:-1])) for batch in batches) < most


def test_a_batch_does_not_wait_for_the_next_item() -> None:
    taken = threading.Event()

    def arriving() -> Iterator[str]:
        yield "first"
        assert taken.wait(60), "the first item was held back"
        yield "second"
        yield "third"

    batches = in_batches(arriving(), len, live=True)
    assert next(batches) == ["first"]
    taken.set()
    assert [line for batch in batches for line in batch] == ["second", "third"]


def test_an_error_comes_after_what_arrived_before_it() -> None:
    def arriving() -> Iterator[str]:
        yield "first"
        raise OSError("gone")

    batches = in_batches(arriving(), len, live=True)
    assert next(batches) == ["first"]
    with pytest.raises(OSError, match="gone"):
        next(batches)

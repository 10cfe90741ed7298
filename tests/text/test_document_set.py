"""The documents of a collection as a set."""

import pytest

from charloom.text import document_set
from charloom.text.document_set import DocumentSet
from charloom.text.vocabulary import END, Vocabulary


@pytest.mark.parametrize("at_once", [1, 3, 1 << 22])
@pytest.mark.parametrize("alphabet", ["abc\n", "".join(map(chr, range(0x4E00, 0x4F50))) + "a🦉"])
def test_whole_documents_are_found(
    alphabet: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_set, "IDS_AT_ONCE", at_once)
    vocabulary = Vocabulary.of(alphabet + END)
    letters = vocabulary.characters[:-1]
    documents = [letters[0], letters[-1] * 5, letters[0] + letters[-1], letters[-1] * 5]
    found = DocumentSet(vocabulary.encode("".join(d + END for d in documents)), vocabulary)
    assert len(found) == 3
    assert all(document in found for document in documents)
    assert not any(text in found for text in ("", letters[-1], documents[1] + "x", END, "§"))


def test_an_empty_collection_contains_nothing() -> None:
    vocabulary = Vocabulary.of("a" + END)
    assert "" not in DocumentSet(vocabulary.encode(""), vocabulary)

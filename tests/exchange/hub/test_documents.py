"""Models of documents: their configuration and their card."""

import json
from pathlib import Path
from typing import Any

import pytest

from charloom.exchange.hub import HubModel
from charloom.text.vocabulary import END
from helpers.documents import VOCABULARY, model_of_documents
from helpers.hub import some_checkpoint


def card_of(training: dict[str, Any], **text: Any) -> str:
    checkpoint = model_of_documents(**text).checkpoint
    checkpoint.training = training
    return str(HubModel(checkpoint).generate_model_card("names").text)


def test_folder_names_the_end_and_is_read_back() -> None:
    before = HubModel(model_of_documents().checkpoint)
    before.save_pretrained("names")
    content = Path("names/config.json").read_text("ascii")
    assert "udc03" not in content
    config = json.loads(content)
    end_id = VOCABULARY.end_id
    assert config["end_id"] == config["bos_token_id"] == config["eos_token_id"] == end_id
    assert config["vocabulary"] == [*VOCABULARY.characters[:end_id], ""]
    after = HubModel.from_pretrained("names")
    assert after.vocabulary == before.vocabulary
    assert after.config.end_id == end_id
    assert after.sample(length=30, seed=2) == before.sample(length=30, seed=2)
    assert END not in Path("names/README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"lines": True}, "A document is a line of the text."),
        ({"separator": "\\n\\n"}, r"A document is the text between two separators `'\n\n'`."),
        ({"separator": "`%`\n"}, r"separators ``'`%`\n'``."),
        ({"column": "a *title*", "lines": False}, "A document is the field `a *title*` of a row."),
        ({"lines": False, "separator": None, "column": None}, "A document is a file."),
        ({}, "A document is a file."),
    ],
)
def test_card_says_what_a_document_is(training: dict[str, Any], expected: str) -> None:
    text = card_of(training)
    assert expected in text
    assert f"a vocabulary of {len(VOCABULARY) - 1} characters and the end of a document" in text
    assert f"(id {VOCABULARY.end_id})" in text
    assert "`letters`, 50 documents, 1,000 characters" in text
    assert "begins with an empty state" in text


def test_card_counts_documents() -> None:
    assert "`letters`, 1 document, 1,000" in card_of({}, documents=1)
    assert "`letters`, 33,033 documents, 1,000" in card_of({}, documents=33_033)
    assert "`letters`, 1,000 characters" in card_of({}, documents="many")


def test_card_describes_the_protocol() -> None:
    checkpoint = model_of_documents().checkpoint
    checkpoint.sha256 = "0" * 64
    evaluation = {
        "text": "test split",
        "model": "network",
        "protocol": "documents",
        "characters": 100,
        "utf8_bytes": 104,
        "skipped_characters": 0,
        "nats_per_character": 1.5,
        "nats_per_character_95_percent": None,
        "bits_per_character": 2.2,
        "bits_per_byte": 2.1,
        "perplexity": 4.5,
        "accuracy": 0.5,
        "longest_overlap": None,
        "baselines": {},
    }
    entry = {"sha256": "0" * 64, "evaluation": evaluation}
    text = str(HubModel(checkpoint, evaluations=[entry]).generate_model_card("names").text)
    assert "100 characters, protocol documents:" in text
    assert "`documents`: those of the same document" in text
    assert "its end is predicted too" in text


def test_a_book_has_no_documents_on_its_card() -> None:
    text = str(HubModel(some_checkpoint()).generate_model_card("book").text)
    assert "document" not in text

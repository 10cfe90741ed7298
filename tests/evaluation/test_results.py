"""The results of an evaluation: table, JSON values and back."""

import copy
import json
from typing import Any

import pytest

from charloom.errors import CharloomError
from charloom.evaluation.baselines import Baseline
from charloom.evaluation.evaluation import Evaluation
from charloom.evaluation.records import evaluations_of
from charloom.text.overlap import Overlap

MIXTURE = Evaluation(
    text="test split",
    protocol="carried",
    characters=100,
    utf8_bytes=104,
    nats_per_character=1.5,
    accuracy=0.5,
    model="mixture",
    interval=(1.4, 1.6),
    overlap=Overlap(3, 1, 2),
    overlap_text="abc",
    baselines={
        "network": Baseline(2.0, "carried", "without the n-gram model"),
        "uniform": Baseline(6.0, "static", "note"),
        "ngram": Baseline(2.1, "carried"),
        "xz": Baseline(None, "adaptive", reason="the text is gone"),
        "bzip2": Baseline(1.9, "adaptive"),
    },
)


def test_rows_are_sorted_with_missing_results_last() -> None:
    assert [row.predictor for row in MIXTURE.rows("gru")] == [
        "bzip2",
        "this gru",
        "ngram",
        "mixture",
        "uniform",
        "xz",
    ]
    assert MIXTURE.rows("gru")[-1] == (None, "xz", "adaptive", "the text is gone")


def test_a_network_alone_is_named_by_its_cell() -> None:
    alone = Evaluation("text", "cold-9", 9, 9, 1.0, 0.1)
    ((bits, predictor, protocol, note),) = alone.rows("lstm")
    assert (bits, predictor, protocol, note) == (
        alone.bits_per_character,
        "this lstm",
        "cold-9",
        "",
    )


def test_json_values_are_read_back() -> None:
    values = json.loads(json.dumps(MIXTURE.as_dict()))
    assert Evaluation.from_dict(values) == MIXTURE
    plain = Evaluation("text", "carried", 9, 9, 1.0, 0.1)
    assert Evaluation.from_dict(json.loads(json.dumps(plain.as_dict()))) == plain


@pytest.mark.parametrize("wrong", [None, [], {}, "x", float("nan"), float("inf"), 10**400])
def test_damaged_values_are_skipped(wrong: Any) -> None:
    names = ("characters", "utf8_bytes", "nats_per_character", "accuracy", "baselines")
    for name in names:
        if (name, wrong) == ("baselines", {}):
            continue  # an evaluation without baselines
        values = copy.deepcopy(MIXTURE.as_dict()) | {name: wrong}
        with pytest.raises(CharloomError, match="damaged"):
            Evaluation.from_dict(values)
        assert evaluations_of([{"sha256": "1", "evaluation": values}], "1") == []


@pytest.mark.parametrize("name", MIXTURE.as_dict())
def test_an_entry_that_is_missing_is_damage_unless_it_is_derived(name: str) -> None:
    values = MIXTURE.as_dict()
    del values[name]
    derived = ("bits_per_character", "bits_per_byte", "perplexity", "nats_per_document")
    added_later = ("base", "counts", "unknown_characters", "documents")
    if name in (*derived, *added_later):
        assert Evaluation.from_dict(values) == MIXTURE
    else:
        with pytest.raises(CharloomError, match="damaged"):
            Evaluation.from_dict(values)


def test_evaluations_of_other_weights_are_skipped() -> None:
    records = [{"sha256": digest, "evaluation": MIXTURE.as_dict()} for digest in ("1", "2", "1")]
    assert evaluations_of(records, "1") == [MIXTURE, MIXTURE]
    assert evaluations_of(records, None) == []


def test_documents_are_kept() -> None:
    found = Evaluation("text", "documents", 60, 60, 2.0, 0.5, documents=10, unknown_characters=3)
    assert found.nats_per_document == 12
    assert found.unit == "symbol"
    assert MIXTURE.unit == "character"
    assert MIXTURE.nats_per_document is None
    values = json.loads(json.dumps(found.as_dict()))
    assert (values["documents"], values["nats_per_document"]) == (10, 12)
    assert Evaluation.from_dict(values) == found
    for wrong in (0, -1, "x", [], float("nan")):
        with pytest.raises(CharloomError, match="damaged"):
            Evaluation.from_dict(values | {"documents": wrong})

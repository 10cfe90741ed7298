"""The headline of a report: the result, the bars and the sentence, from results of every kind."""

import math
from typing import Any

import pytest

from charloom.runs.headline import headline

ROWS = [
    [1.6, "mixture", "carried", ""],
    [2.0, "xz", "adaptive", ""],
    [2.4, "bzip2", "adaptive", ""],
    [2.8, "this gru", "carried", ""],
    [None, "ngram", "carried", "no training text"],
]


def evaluation(**changes: Any) -> dict[str, Any]:
    found = {
        "text": "test split",
        "ours": "mixture",
        "protocol": "carried",
        "unit": "character",
        "bits": 1.6,
        "bits_per_byte": 1.2,  # of a text whose characters have more than one byte
        "accuracy": 0.654,
        "rows": ROWS,
    }
    return found | changes


def run(name: str = "book", nats: Any = (), **changes: Any) -> dict[str, Any]:
    found = {
        "name": name,
        "unit": "character",
        "text_sha256": "0",
        "evaluations": [],
        "baselines": [{"name": "uniform", "bits": 6.0}, {"name": "ngram", "bits": 2.5}],
        "validations": {"nats": list(nats), "characters": [500] * len(nats)},
    }
    return found | changes


def test_an_evaluation_is_the_headline() -> None:
    found = headline([run(nats=[1.5], evaluations=[evaluation()])])
    assert found is not None
    assert found["bits"] == 1.6
    assert found["of"] == "bits per character of the test split"
    assert found["sentence"] == (
        "It guesses 65 of 100 characters right in text held back from its training, and could "
        "store that text in 15% of its size; the compressor xz needs 19%."
    )
    names = [(bar["name"], bar["note"], bar["ours"]) for bar in found["bars"]]
    assert names == [
        ("this model", "carried", True),
        ("xz", "adaptive", False),
        ("bzip2", "adaptive", False),
        ("network alone", "carried", False),
    ]


def test_the_whole_model_under_a_plain_protocol_is_chosen() -> None:
    kinds = [("adaptive", "mixture"), ("carried", "this gru"), ("carried", "mixture")]
    found = [
        evaluation(protocol=protocol, ours=ours, bits=float(i))
        for i, (protocol, ours) in enumerate(kinds, 1)
    ]
    chosen = headline([run(evaluations=found)])
    assert chosen is not None
    assert chosen["bits"] == 3.0


def test_a_network_alone_is_this_model() -> None:
    found = headline([run(evaluations=[evaluation(ours="this gru", unit="byte")])])
    assert found is not None
    assert [bar["name"] for bar in found["bars"] if bar["ours"]] == ["this model"]
    assert "of 100 bytes right" in found["sentence"]


def test_validations_are_the_headline_before_an_evaluation() -> None:
    nats = [2.0, None, 1.0, 0.5]
    validations = {"nats": nats, "characters": [500, 500, 500, 100]}  # the last one after a refit
    found = headline([run(validations=validations)])
    assert found is not None
    assert found["bits"] == pytest.approx(1 / math.log(2))
    assert found["sentence"] == (
        "The network needs 1.44 bits for each character of text held back from training; blind "
        "guesses would need 6.00."
    )
    assert [bar["name"] for bar in found["bars"]] == ["this network", "n-gram model", "uniform"]
    assert headline([run()]) is None


def test_runs_are_compared_by_the_same_measure() -> None:
    first, second = run("first", [1.5]), run("second", [1.0])
    found = headline([first, second])
    assert found is not None
    assert [bar["name"] for bar in found["bars"]] == ["second", "first"]
    assert found["of"] == "Best validation of the network alone, bits per character"
    assert found["sentence"] == (
        "second needs the fewest bits per character: 1.44, before first with 2.16."
    )
    first["evaluations"] = [evaluation(bits=1.1)]
    mixed = headline([first, second])
    assert mixed is not None
    assert mixed["bars"] == found["bars"]
    second["evaluations"] = [evaluation(bits=1.2)]
    evaluated = headline([first, second | {"text_sha256": "1"}])
    assert evaluated is not None
    assert [bar["bits"] for bar in evaluated["bars"]] == [1.1, 1.2]
    assert "different texts" in evaluated["note"]
    assert headline([run(), run("other")]) is None

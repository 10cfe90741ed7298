"""The sentences that say which predictor is better."""

import pytest

from charloom.evaluation.baselines import Baseline
from charloom.evaluation.evaluation import Evaluation
from charloom.evaluation.verdict import cost_without_mixture, verdict

LN2 = 0.6931471805599453
BEATS_ALL = "This model beats every baseline here."


def evaluation(bits: float, *, model: str = "mixture", **baselines: float | None) -> Evaluation:
    return Evaluation(
        text="test split",
        protocol="carried",
        characters=100,
        utf8_bytes=100,
        nats_per_character=bits * LN2,
        accuracy=0.5,
        model=model,
        baselines={name: Baseline(value, "carried") for name, value in baselines.items()},
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (evaluation(2.9856, network=3.1, uniform=6.0, ngram=3.0, xz=3.5), BEATS_ALL),
        (
            evaluation(2.9856, network=2.9848, uniform=6.0, ngram=3.0),
            f"{BEATS_ALL} The n-gram model does not help here (network 2.9848, mixture 2.9856).",
        ),
        (
            evaluation(2.12571, network=2.12569, ngram=3.0),
            f"{BEATS_ALL} The n-gram model makes no difference here (network and mixture 2.1257).",
        ),
        (
            evaluation(2.0, network=2.2, xz=1.5, bzip2=1.75, ngram=1.9, uniform=5.0),
            "xz, bzip2 and the n-gram model beat this model here.",
        ),
        (
            evaluation(2.0, network=2.2, ngram=1.9, xz=3.0),
            "The n-gram model beats this model here.",
        ),
        (
            evaluation(2.0, network=2.2, ngram=2.00001, xz=1.99999, bzip2=2.1),
            "xz and the n-gram model are as good as this model here (2.0000).",
        ),
        (
            evaluation(2.0, network=2.2, ngram=2.00001, xz=1.9),
            "xz beats this model here. The n-gram model is as good as this model here (2.0000).",
        ),
        (
            evaluation(2.0, model="network", ngram=1.5, unigram=1.9),
            "The n-gram model and the unigram model beat this model here.",
        ),
        (
            evaluation(7.0, model="network", uniform=6.0),
            "The uniform distribution beats this model here.",
        ),
        (
            evaluation(2.0, network=2.1, uniform=6.0, ngram=None, xz=None),
            "This model beats every baseline that has a result here.",
        ),
        (evaluation(2.0, model="network"), ""),
        (
            evaluation(2.0, network=1.9),
            "The n-gram model does not help here (network 1.9000, mixture 2.0000).",
        ),
    ],
)
def test_results_are_compared_as_they_are_printed(found: Evaluation, expected: str) -> None:
    assert verdict(found) == expected


def test_what_a_network_loses_without_its_n_gram_model() -> None:
    alone, both = evaluation(2.0, model="network"), evaluation(2.8408, network=2.92)
    assert cost_without_mixture([alone, both]) == (
        " (2.9200 instead of 2.8408 bits per character on the test split)"
    )
    assert cost_without_mixture([alone, evaluation(2.0)]) == ""

"""What is chosen for a time and a text."""

import importlib
import json
import math
from typing import Any

import numpy as np
import pytest

from charloom.engines.backend import Backend
from charloom.text.dataset import Dataset, Split, load_dataset
from charloom.text.source import text_from_string
from charloom.training import planner as planning
from charloom.training.options import TrainingConfig
from charloom.training.planner import measure_speed, multiplications, plan
from helpers.documents import dataset_of
from helpers.paths import ROOT


def dataset(characters: int, split: str = "85/5/10") -> Dataset:
    letters = np.random.default_rng(0).integers(97, 123, characters).astype(np.uint8)
    return load_dataset(text_from_string(letters.tobytes().decode()), Split.parse(split))


def options(characters: int, seconds: float, speed: float = 1.0, **given: Any) -> dict[str, Any]:
    return plan(seconds, speed, dataset(characters), given).options


def test_more_time_and_more_text_allow_more_units() -> None:
    by_time = [options(1_000_000, s)["hidden_size"] for s in (1, 10, 30, 120, 600)]
    assert by_time == sorted(set(by_time))
    by_text = [options(n, 600)["hidden_size"] for n in (2_000, 20_000, 200_000, 1_000_000)]
    assert by_text == sorted(set(by_text))
    # A machine of half the speed has half the time.
    assert options(500_000, 60, 0.5) == options(500_000, 30)


def test_more_passes_drop_more() -> None:
    few, more, many = (options(1_000_000, s) for s in (20, 300, 1200))
    assert few["weight_drop"] <= 0.1
    assert few["weight_drop"] < more["weight_drop"] < many["weight_drop"] < 0.6
    assert few["dropout"] < more["dropout"] < many["dropout"] < 0.6


@pytest.mark.parametrize("characters", [50, 500, 2_000, 50_000])
@pytest.mark.parametrize("seconds", [0.1, 1, 30, 600, 360_000])
def test_whatever_the_time_and_the_text_the_options_are_possible(
    characters: int, seconds: float
) -> None:
    chosen = options(characters, seconds)
    config = TrainingConfig.of({"minutes": 1.0, "split": "85/5/10", **chosen})
    assert config.window <= max(1, len(dataset(characters).validation))
    if seconds == 360_000:
        # Not a hundred hours for a short text.
        assert chosen["epochs"] * characters < 3 * planning.ENOUGH_CHARACTERS


def test_a_network_alone_learns_from_zero_states() -> None:
    alone = {"no_mix": True}
    assert 0.1 < options(300_000, 60, **alone)["reset_state"] < 0.5
    assert options(300_000, 60, reset_state=0.125, **alone)["reset_state"] == 0.125
    assert "reset_state" not in options(300_000, 60)  # counts beside it
    assert "reset_state" not in plan(60, 1.0, dataset(2_000, "100/0/0"), alone).options
    documents = dataset_of(["abc def", "ghi"] * 3_000)
    assert "reset_state" not in plan(60, 1.0, documents, alone).options


def test_given_options_stay_and_the_rest_is_planned() -> None:
    given = {"hidden_size": 700, "cell": "lstm", "layers": 2, "window": 100, "dropout": 0.25}
    chosen = options(300_000, 60, **given)
    assert given.items() <= chosen.items()
    assert chosen["learning_rate"] < options(300_000, 60)["learning_rate"]


def test_the_fitted_learning_rate_is_adam_s() -> None:
    assert "learning_rate" in options(300_000, 60, optimizer="adam")
    assert "learning_rate" not in options(300_000, 60, optimizer="sgd")


def test_gradients_are_clipped_where_each_adam_step_has_the_same_weight() -> None:
    assert options(300_000, 15)["clip"] < 0.2
    assert options(300_000, 15, clip=1.0)["clip"] == 1
    assert "clip" not in options(300_000, 15, optimizer="sgd")
    assert "clip" not in options(20_000, 15)
    assert "clip" not in options(300_000, 15, norm="none")
    assert options(20_000, 15, norm="rms")["clip"] < 0.2
    assert options(300_000, 60, hidden_size=256)["clip"] < 0.2
    assert "clip" not in options(300_000, 60, hidden_size=257)
    assert "clip" not in options(300_000, 60)  # it has more units


def test_the_validation_part_is_learned_from_where_it_is_long_and_not_the_last() -> None:
    assert plan(60, 1, dataset(200_000), {}).options["refit"] > 0
    assert plan(60, 1, dataset(200_000, "90/10/0"), {}).options["refit"] == 0
    assert plan(60, 1, dataset(20_000), {}).options["refit"] == 0
    assert plan(60, 1, dataset(200_000), {"refit": 0.0}).options["refit"] == 0


def test_plan_is_explained_in_one_line() -> None:
    reason = plan(600, 1, dataset(5_000), {}).reason
    assert "\n" not in reason
    assert "limited by the text" in reason
    assert "more gain nothing" in reason
    assert "as set" in plan(600, 1, dataset(5_000), {"hidden_size": 64}).reason
    assert "limited by the time" in plan(5, 1, dataset(900_000), {}).reason


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_the_speed_is_measured(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PROBED_FOR", 0.02)
    assert 0 < measure_speed(Backend(engine, 1)) < 1e4


def test_the_rules_are_those_that_fit_the_experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    found = importlib.import_module("benchmarks.learning").rules()
    for name, value in found.items():
        assert getattr(planning, name) == pytest.approx(value, rel=0.02), name


def test_multiplications_are_those_of_the_parameters() -> None:
    # Every weight is used once for a character, but for the first layer's, which are looked up.
    assert multiplications("gru", 10, 2, 7) == 3 * 10 * 10 * 3 + 7 * 10


def test_the_experiments_are_recorded_whole() -> None:
    path = ROOT / "benchmarks" / "results" / "learning.jsonl"
    records = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    assert len(records) > 20
    for record in records:
        assert math.isfinite(record["carried"])
        assert record["steps"] > 0


def test_short_documents_get_short_windows_and_fewer_units() -> None:
    def planned(length: int) -> dict[str, Any]:
        documents = ["ab" * (length // 2)] * (200_000 // length)
        return plan(600, 1, dataset_of(documents, documents[:100]), {}).options

    windows = [planned(length)["window"] for length in (2, 8, 14, 24, 200)]
    assert windows == [16, 16, 32, 48, 64]
    assert planned(8)["hidden_size"] < planned(200)["hidden_size"]


def counts(seconds: float, characters: int = 100_000, **given: Any) -> tuple[str, bool]:
    chosen = plan(seconds, 1.0, dataset(characters), given, mixes=True).options
    return chosen["counts"], chosen["read_counts"]


def test_contexts_are_mixed_where_the_time_allows_it() -> None:
    assert counts(60) == ("context-mixing", True)
    assert counts(60, 15_000) == ("kneser-ney", False)
    by_time = [counts(seconds) for seconds in (0.5, 1.3, 15)]
    assert by_time == [("kneser-ney", False), ("context-mixing", False), ("context-mixing", True)]
    for given in ({"no_mix": True}, {"counts": "kneser-ney"}, {"keep": "last"}):
        assert counts(60, **given) == ("kneser-ney", False)
    text = dataset(100_000)
    assert plan(60, 1.0, text, {}, mixes=False).options["counts"] == "kneser-ney"
    assert "counts" not in plan(60, 1.0, text, {}).options
    # What is set stays.
    assert counts(0.5, counts="context-mixing") == ("context-mixing", False)
    assert counts(0.5, counts="context-mixing", read_counts=True) == ("context-mixing", True)
    assert counts(60, read_counts=False) == ("context-mixing", False)
    assert counts(0.5, read_counts=False) == ("kneser-ney", False)


def test_long_texts_are_learned_with_normalized_products() -> None:
    for length, norm in ((20_000, None), (55_000, None), (60_000, "rms"), (1_000_000, "rms")):
        choice = plan(60, 1.0, dataset(length), {})
        assert choice.options.get("norm") == norm
        assert (" units with normalized products (" in choice.reason) == (norm == "rms")
    assert plan(60, 1.0, dataset(1_000_000), {"norm": "none"}).options["norm"] == "none"


def test_no_network_reads_more_than_a_disk_should_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MOST_RECORDED", 26 * 90_000 - 1)
    assert counts(60) == ("context-mixing", False)
    monkeypatch.setattr(planning, "MOST_RECORDED", 26 * 90_000)
    assert counts(60) == ("context-mixing", True)


def test_context_mixing_takes_its_time_from_the_training() -> None:
    text = dataset(1_000_000)
    plain = plan(120, 1.0, text, {}, mixes=False)
    read = plan(120, 1.0, text, {}, mixes=True)
    assert read.options["read_counts"]
    learning = planning.seconds_to_learn(text, 1.0, reads=True)
    assert 0 < learning < 0.4 * 120
    assert read.options["hidden_size"] < plain.options["hidden_size"]
    assert f"after about {learning:.0f} s of context mixing, which the network reads" in read.reason
    assert "context mixing" not in plain.reason
    # A machine of half the speed learns for less than twice as long, because memory is no slower.
    longer = planning.seconds_to_learn(text, 0.5, reads=True)
    assert 1.4 * learning < longer < 1.8 * learning
    slow = plan(longer + 2 * (120 - learning), 0.5, text, {}, mixes=True)
    assert slow.options == read.options
    assert f"after about {longer:.0f} s of context mixing" in slow.reason
    long_text = dataset(8_000_000)
    assert planning.seconds_to_learn(long_text, 1, reads=False) == 4e6 * planning.SECONDS_TO_LEARN

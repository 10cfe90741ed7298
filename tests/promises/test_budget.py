"""Runs that fit a time: odd times, odd texts, and a machine that becomes slower."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charloom
from charloom.cli.main import main
from charloom.engines.backend import Backend
from charloom.engines.protocol import available_cores
from charloom.errors import CharloomError
from charloom.network.initialization import initialize
from charloom.prediction import mixture as mixture_module
from charloom.prediction.mixture import fit_ngram_table
from charloom.runs import finishing
from charloom.text.dataset import Split, load_dataset
from charloom.text.source import text_from_string
from charloom.training import planner as planning
from charloom.training.loop import train_steps
from charloom.training.options import TrainingConfig
from charloom.training.schedule import LEAST_TRAINING, PATIENCE
from charloom.training.setup import make_optimizer, model_config
from charloom.training.state import TrainingState
from helpers.cli import refused
from helpers.texts import wheel_barrows

TEXT = wheel_barrows(20_000)


def text_file(folder: Path, text: str) -> str:
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


@pytest.mark.parametrize("minutes", ["0", "-1", "-0.5", "nan", "1e9"])
def test_no_time_is_refused(minutes: str, tmp_path: Path) -> None:
    text = text_file(tmp_path, TEXT)
    out = tmp_path / "run"
    line = refused("train", text, f"--minutes={minutes}", "--out", str(out))
    assert "--minutes" in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "told"), [("", "empty"), ("a", "one character"), ("a" * 3_000, "one distinct")]
)
def test_nothing_to_learn_is_refused(text: str, told: str, tmp_path: Path) -> None:
    line = refused("train", text_file(tmp_path, text), "--minutes", "0.1", "--out", "run")
    assert told in line


@pytest.mark.parametrize("characters", [50, 2_000])
@pytest.mark.parametrize("split", ["90/5/5", "85/5/10", "90/10/0", "100/0/0"])
def test_short_texts_are_learned_from(
    characters: int, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "PROBED_FOR", 0.02)
    out = tmp_path / "run"
    text = text_file(tmp_path, TEXT[:characters])
    assert main(["train", text, "--minutes", "0.02", "--split", split, "--out", str(out)]) == 0
    model = charloom.load(out)
    assert len(model.sample(length=20)) == 20
    if split != "100/0/0":
        assert np.isfinite(model.evaluate().nats_per_character)


def test_a_hundred_hours_end_when_nothing_more_is_to_be_gained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planning, "PROBED_FOR", 0.02)
    out, text = tmp_path / "run", text_file(tmp_path, TEXT[:2_000])
    assert main(["train", text, "--minutes", "6000", "--out", str(out)]) == 0
    told = capsys.readouterr().err
    assert "more gain nothing" in told
    last = json.loads((out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["epoch"] <= planning.ENOUGH_CHARACTERS / 1_800 + 1


def test_a_second_is_enough_for_a_model(tmp_path: Path) -> None:
    """Ten seconds over are allowed below thirty; compiled kernels or not.

    Counted in the processor's time, which other processes do not lengthen.
    """
    text, steps = text_file(tmp_path, TEXT), 0
    for attempt in range(3):  # other processes can take the whole second
        out = tmp_path / f"run-{attempt}"
        began = time.process_time()
        assert main(["train", text, f"--minutes={1 / 60}", "--out", str(out)]) == 0
        assert time.process_time() - began < 11 * available_cores()
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        steps = json.loads(lines[-1])["step"]
        if steps:
            break
    assert steps


def test_with_nothing_compiled_and_no_time_the_reference_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("numba", reason="the compiled engine needs Numba")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kernels"))
    out, text = tmp_path / "run", text_file(tmp_path, TEXT)
    assert main(["train", text, "--minutes=0.05", "--no-mix", "--out", str(out)]) == 0
    told = capsys.readouterr().err
    assert "not compiled yet" in told
    assert "engine reference" in told


def test_characters_that_training_never_saw_are_no_trouble(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    letters = TEXT[:9_000] + TEXT[:1_000].upper()
    out, text = tmp_path / "run", text_file(tmp_path, letters)
    options = ["--minutes=0.03", "--split", "85/5/10"]
    assert main(["train", text, *options, "--out", str(out)]) == 0
    capsys.readouterr()
    for protocol in ("carried", "cold-64", "adaptive"):
        assert main(["evaluate", str(out), "--protocol", protocol, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert np.isfinite(found["nats_per_character"])
        assert found["model"] == "mixture"


class Clock:
    """Time that goes on by so much at every look, more slowly or faster after a while."""

    def __init__(self, first: float, after: float, then: float) -> None:
        self.now, self.first, self.after, self.then = 0.0, first, after, then

    def __call__(self) -> float:
        self.now += self.first if self.now < self.after else self.then
        return self.now


def planned(
    minutes: float | None, elapsed: Any, text: str = TEXT, **options: Any
) -> tuple[Any, Any]:
    given = {"hidden_size": 16, "batch_size": 4, "window": 16, "minutes": minutes, **options}
    config = TrainingConfig.of(given)
    data = load_dataset(text_from_string(text), Split.parse(config.split))
    parameters = initialize(model_config(config, data.vocabulary), 0)
    engine = Backend("auto", threads=1).open(parameters)
    state = TrainingState()
    optimizer = make_optimizer(config)
    return train_steps(engine, optimizer, data, config, state, elapsed), state


def test_the_deadline_holds_when_the_machine_becomes_slower() -> None:
    clock = Clock(0.02, 15, 0.04)
    events, _ = planned(0.5, clock)
    rates = [p.learning_rate for p in events if p.kind == "step"]
    assert 28 < clock.now <= 30.5
    assert rates[-1] < 0.01 * max(rates)  # and the learning rate has come down all the same


def test_what_comes_after_the_training_has_its_time() -> None:
    clock = Clock(0.02, 1e9, 0.02)
    config = TrainingConfig.of({"hidden_size": 16, "batch_size": 4, "window": 16, "minutes": 0.5})
    data = load_dataset(text_from_string(TEXT), Split.parse(config.split))
    engine = Backend().open(initialize(model_config(config, data.vocabulary), 0))
    optimizer = make_optimizer(config)
    list(train_steps(engine, optimizer, data, config, TrainingState(), clock, lambda _: 6.0))
    assert 22 < clock.now < 24.3


def test_something_is_learned_even_if_the_time_was_up_before() -> None:
    clock = Clock(0.02, 1e9, 0.02)
    clock.now = 100.0
    events, state = planned(0.5, clock)
    list(events)
    assert state.step > 10
    assert clock.now < 100 + 1.2 * LEAST_TRAINING


def test_a_planned_run_ends_when_nothing_more_is_learned() -> None:
    noise = "".join(np.random.default_rng(4).choice(list("abcdefgh"), 1_500))
    clock = Clock(0.01, 1e9, 0.01)
    events, state = planned(1.0, clock, noise, hidden_size=64, learning_rate=0.02, split="70/30/0")
    last = list(events)[-1]
    assert last.done < 0.9
    assert last.done - state.best_done > PATIENCE - 0.01
    # Not where something else than `auto` was asked for.
    clock = Clock(0.01, 1e9, 0.01)
    events, state = planned(
        1.0, clock, noise, hidden_size=64, learning_rate=0.02, split="70/30/0", preset="small"
    )
    assert list(events)[-1].done == 1


def test_a_run_with_slow_validations_does_not_end_before_its_second_one() -> None:
    """It would be the untrained network's."""
    clock = Clock(0.3, 1, 0.02)  # in the first validation, that is; ten times as long is waited
    events, state = planned(0.1, clock)
    last = list(events)[-1]
    assert last.kind == "validation"
    assert last.done == 1
    assert state.best_step == state.step > 0


def test_the_last_part_learns_from_the_validation_part_too() -> None:
    half = TEXT[:20_000] + TEXT[:20_000].swapcase()
    options = {"steps": 400, "split": "50/40/10", "window": 32}
    without, _ = planned(None, None, half, **options)
    refit, state = planned(None, None, half, refit=0.5, **options)
    losses = [p.validation for p in without if p.validation]
    refit_losses = [p.validation for p in refit if p.validation]
    assert state.refit_step == 200
    assert [v.characters for v in losses] == [16_000] * len(losses)
    assert {v.characters for v in refit_losses} == {16_000, 3_200}
    assert refit_losses[-1].characters == 3_200  # what was never learned from
    assert refit_losses[-1].nats_per_character < losses[-1].nats_per_character - 0.3


def test_the_mixture_is_fitted_on_what_neither_part_of_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = []
    fit = mixture_module.fit_mixture

    def keep(engine: Any, table: Any, ids: Any, before: int, rows: int) -> Any:
        fitted.append((table, ids.copy()))
        return fit(engine, table, ids, before, rows)

    monkeypatch.setattr(finishing, "fit_mixture", keep)
    options = ["--steps=8", "--hidden-size=8", "--batch-size=2", "--window=8", "--refit=0.5"]
    text, out = text_file(tmp_path, TEXT), str(tmp_path / "run")
    assert main(["train", text, *options, "--split", "50/40/10", "--out", out]) == 0
    model = charloom.load(out)
    ids, (n, v) = model.encode(TEXT), (len(TEXT), len(model.vocabulary))
    learned, end = n // 2 + (int(n * 0.9) - n // 2) * 4 // 5, int(n * 0.9)
    ((table, watched),) = fitted
    np.testing.assert_array_equal(watched, ids[learned:end])
    mixture = model.checkpoint.mixture
    assert mixture is not None
    for found, known in ((table, ids[:learned]), (mixture.counts, ids[:end])):
        expected = fit_ngram_table(known, v, table.context, float("inf"))
        np.testing.assert_array_equal(found.characters, expected.characters)
        np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    assert not np.array_equal(table.probabilities, mixture.counts.probabilities)


def test_nothing_is_learned_from_what_will_be_evaluated() -> None:
    with pytest.raises(CharloomError, match="--refit"):
        TrainingConfig.of({"refit": 0.5, "split": "90/10/0"})


def test_several_texts_are_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.txt").write_text("First lines\nof a text", encoding="utf-8")
    (tmp_path / "two.txt").write_text("and a second one\n" * 30, encoding="utf-8")
    (tmp_path / "three.txt").write_text("the third " * 30, encoding="utf-8")
    paths = [str(tmp_path / f"{name}.txt") for name in ("one", "two", "three")]
    options = ["--steps=3", "--hidden-size=8", "--batch-size=2", "--window=8"]
    assert main(["train", *paths, *options, "--out", str(tmp_path / "run")]) == 0
    model = charloom.load(tmp_path / "run")
    texts = ["First lines\nof a text", "and a second one\n" * 30, "the third " * 30]
    assert model.checkpoint.text["characters"] == sum(map(len, texts))
    assert model.checkpoint.text["documents"] == 3
    assert model.checkpoint.mixture is not None
    capsys.readouterr()
    # The training text is found again, all of it.
    assert main(["evaluate", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["baselines"]["ngram"]["bits_per_character"] is not None
    # And the same from Python, and to fine-tune on.
    again = charloom.train(
        [Path(path) for path in paths], from_run=tmp_path / "run", steps=2, window=8, batch_size=2
    )
    assert again.checkpoint.text["sha256"] == model.checkpoint.text["sha256"]
    with pytest.raises(CharloomError, match="is empty: pass at least one text"):
        charloom.train([])


def test_counts_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = text_file(tmp_path, TEXT[:5_000])
    options = ["--steps=20", "--hidden-size=8", "--batch-size=2", "--window=8"]
    run, without = str(tmp_path / "run"), str(tmp_path / "without")
    assert main(["train", text, *options, "--out", run]) == 0
    assert main(["train", text, *options, "--no-mix", "--out", without]) == 0
    mixed, plain = charloom.load(run), charloom.load(without)
    assert mixed.checkpoint.mixture is not None
    assert plain.checkpoint.mixture is None
    assert mixed.sample("so ", seed=1) != plain.sample("so ", seed=1)
    only = charloom.load(run, network_only=True)
    assert only.sample("so ", seed=1) == plain.sample("so ", seed=1)
    capsys.readouterr()
    assert main(["sample", run, "--seed=1", "--network-only"]) == 0
    assert capsys.readouterr().out == plain.sample(seed=1)
    assert main(["evaluate", run, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert main(["evaluate", run, "--json", "--network-only"]) == 0
    network = json.loads(capsys.readouterr().out)
    assert whole["model"] == "mixture"
    assert network["model"] == "network"
    parts = whole["baselines"]["network"]["bits_per_character"]
    assert parts == pytest.approx(network["bits_per_character"])
    assert whole["bits_per_character"] < parts - 1  # counting is far better than 20 steps


def test_the_counts_keep_to_their_size(tmp_path: Path) -> None:
    text = text_file(tmp_path, TEXT)
    options = ["--steps=2", "--hidden-size=8", "--batch-size=2", "--window=8"]
    out = str(tmp_path / "run")
    assert main(["train", text, *options, "--mix-megabytes=0.002", "--out", out]) == 0
    mixture = charloom.load(out).checkpoint.mixture
    assert mixture is not None
    assert mixture.counts.nbytes <= 2_000


def test_counts_of_a_long_text_are_of_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charloom.ngrams.choosing.TRAINING_AT_MOST", 1_000)
    monkeypatch.setattr("charloom.training.setup.VALIDATED_AT_ONCE", 300)
    text = text_file(tmp_path, "x" * 5_000 + TEXT[:20_000])
    options = ["--steps=2", "--hidden-size=8", "--batch-size=2", "--window=8"]
    out = str(tmp_path / "run")
    assert main(["train", text, *options, "--out", out]) == 0
    model = charloom.load(out)
    assert model.checkpoint.mixture is not None
    answers = model.checkpoint.mixture.counts.look_up(
        np.full((1, model.checkpoint.mixture.counts.context), model.encode("x")[0], np.int32)
    )
    assert answers.probabilities[0, model.encode("x")[0]] < 0.1

"""The commands with a model whose network reads a context mixer."""

import json
from pathlib import Path

import numpy as np
import pytest

import charloom
from helpers.cli import run
from helpers.texts import QUOTING_WOODS


@pytest.fixture(scope="module")
def reading_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("reading")
    (folder / "text.txt").write_text(QUOTING_WOODS * 3, "utf-8")
    options = {"steps": 20, "hidden_size": 8, "window": 16, "batch_size": 4, "seed": 1}
    charloom.train(
        folder / "text.txt",
        out=folder / "run",
        counts="context-mixing",
        read_counts=True,
        split="80/10/10",
        **options,
    )
    return str(folder / "run")


@pytest.mark.parametrize("protocol", ["carried", "cold-64", "adaptive"])
def test_it_is_evaluated_with_its_network_beside_it(reading_run: str, protocol: str) -> None:
    status, out, errors = run("evaluate", reading_run, f"--protocol={protocol}", "--json")
    assert status == 0, errors
    found = json.loads(out)
    assert (found["model"], found["counts"]) == ("mixture", "context mixer")
    assert found["baselines"]["network"]["note"] == "reads the context mixer"
    alone = json.loads(
        run("evaluate", reading_run, f"--protocol={protocol}", "--json", "--network-only")[1]
    )
    assert (alone["model"], alone["counts"]) == ("network", "context mixer")
    expected = found["baselines"]["network"]["bits_per_character"]
    assert alone["bits_per_character"] == pytest.approx(expected, rel=1e-6)
    assert alone["bits_per_character"] != found["bits_per_character"]


def test_its_scores_add_up_to_those_of_single_steps(reading_run: str) -> None:
    model = charloom.load(reading_run)
    ids = model.encode(QUOTING_WOODS[:60])
    last, state, expected = model.vocabulary.start_id, model.predictor.zero_state(1), []
    for id_ in ids:
        log_p, state = model.predictor.step(np.array([last]), state)
        expected.append(log_p[0, id_])
        last = int(id_)
    for engine in ("auto", "reference"):
        scores = charloom.load(reading_run, engine=engine).score(QUOTING_WOODS[:60])
        factor = 0.0 if model.unseen is None else model.unseen.log_known
        np.testing.assert_allclose(scores.log_probabilities, np.array(expected) + factor, atol=1e-4)


def test_it_samples_and_explains_itself(reading_run: str) -> None:
    samples = set()
    for options in ([], ["--network-only"], ["--network-only", "--clamp", "h1=0.9"]):
        status, out, errors = run("sample", reading_run, "--length=80", "--seed=3", *options)
        assert status == 0, errors
        samples.add(out)
    assert len(samples) == 3
    assert run("explore", reading_run, reading_run.replace("/run", "/text.txt"))[0] == 0
    lines = run("info", reading_run)[1].splitlines()
    assert lines[1].endswith("extra inputs")
    assert lines[2].startswith("mixed with a context mixer: ")
    assert lines[2].endswith(", which the network also reads")


def test_its_network_is_exported_with_a_warning(reading_run: str) -> None:
    status, out, errors = run("export", reading_run, "--to=pytorch", "--out=a.safetensors")
    assert status == 0, errors
    assert "It reads the model's predictions of the next character as extra inputs" in errors
    assert "extra = " in out
    assert Path("a.safetensors").exists()
    # An imported network has no counts to read.
    status, _, errors = run("import", "a.safetensors", "--out=imported")
    assert status == 0, errors
    assert "it cannot sample by itself" in errors
    status, _, errors = run("sample", "imported")
    assert status == 2
    assert "extra inputs, and the model has no context mixer that predicts them: use" in errors

"""The Python interface: train, load, sample, stream, score, evaluate, save."""

import math
from pathlib import Path

import numpy as np
import pytest

import charloom
from charloom.language_model import LanguageModel
from charloom.vocabulary import UnknownCharacterError

TEXT = "".join(f"{i} times {j} is {i * j}\n" for i in range(30) for j in range(30))
OPTIONS = {"steps": 30, "hidden_size": 16, "seed": 1, "window": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, whose training text lies beside it."""
    base = tmp_path_factory.mktemp("runs")
    (base / "tables.txt").write_text(TEXT)
    charloom.train(base / "tables.txt", out=base / "run", **OPTIONS)
    return base / "run"


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return charloom.load(folder)


def test_a_text_itself_can_be_trained_on(model: LanguageModel) -> None:
    other = charloom.train(TEXT, **OPTIONS)
    assert other.checkpoint.parameters.flat.tobytes() == model.checkpoint.parameters.flat.tobytes()
    # Its text was in no file, but it is still at hand.
    assert other.evaluate().as_dict() == model.evaluate().as_dict()


def test_names_and_paths_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text(TEXT)
    assert charloom.train("t.txt", **OPTIONS).checkpoint.text["name"] == "t"
    with pytest.raises(charloom.CharloomError, match=r"nowhere\.txt"):
        charloom.train("nowhere.txt")
    with pytest.raises(charloom.CharloomError, match="empty"):
        charloom.train("")
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]


def test_progress_is_told() -> None:
    seen: list[str] = []
    charloom.train(TEXT, progress=lambda p: seen.append(p.kind), **{**OPTIONS, "steps": 3})
    assert {"report", "validation"} <= set(seen)


def test_sampling_and_streaming_agree(model: LanguageModel) -> None:
    text = model.sample("3 times", length=80, temperature=0.8, top_p=0.9, seed=4)
    assert text.startswith("3 times")
    assert len(text) == 87
    pieces = list(model.stream("3 times", length=80, temperature=0.8, top_p=0.9, seed=4))
    assert "3 times" + "".join(pieces) == text
    assert len(pieces) > 1
    assert "\n" not in model.sample("3", length=500, stop="\n", seed=4)


def test_unknown_characters_are_named_or_skipped(model: LanguageModel) -> None:
    with pytest.raises(UnknownCharacterError, match="position 2"):
        model.sample("3 €")
    assert (
        model.sample("3€", length=9, seed=1, skip_unknown=True)[2:]
        == (model.sample("3", length=9, seed=1)[1:])
    )
    with pytest.raises(UnknownCharacterError):
        model.score("3 € 4")
    assert len(model.score("3 € 4", skip_unknown=True).log_probabilities) == 4


def test_a_score_is_the_chain_rule(model: LanguageModel) -> None:
    whole = model.score("3 times 4 is 12").log_probabilities
    part = model.score("3 times 4").log_probabilities
    np.testing.assert_allclose(whole[: len(part)], part, rtol=1e-5)
    assert whole.dtype == np.float64
    assert (whole < 0).all()
    assert model.score("3 times 4 is 12", protocol="cold-1").log_probabilities.shape == (15,)
    with pytest.raises(charloom.CharloomError, match="no characters"):
        model.score("")


def test_the_adaptive_protocol_needs_the_training_text(
    model: LanguageModel, tmp_path: Path
) -> None:
    scores = model.score("3 times 4 is 12\n" * 20, protocol="adaptive")
    assert scores.log_probabilities.shape == (320,)
    assert scores.log_probabilities[-100:].mean() > scores.log_probabilities[:100].mean()
    charloom.train(TEXT, **OPTIONS).save(tmp_path / "model.safetensors")
    alone = charloom.load(tmp_path / "model.safetensors")  # which knows no file of its text
    with pytest.raises(charloom.CharloomError, match="--training-text"):
        alone.score("3 times", protocol="adaptive")
    with pytest.raises(charloom.CharloomError, match="--training-text"):
        alone.evaluate("3 times", protocol="adaptive")


def test_evaluation_is_of_the_test_part(model: LanguageModel) -> None:
    e = model.evaluate()
    assert (e.text, e.characters) == ("test part", len(TEXT) - len(TEXT) * 95 // 100)
    assert set(e.baselines) == {"network", "uniform", "unigram", "ngram", "xz", "bzip2"}
    assert all(b.bits_per_character is not None for b in e.baselines.values())
    # The same characters given as a text, but for what comes before them.
    test = TEXT[len(TEXT) * 95 // 100 :]
    before = TEXT[len(TEXT) * 95 // 100 - 1]
    other = model.evaluate(test)
    if before == "\n":
        assert other.nats_per_character == e.nats_per_character
    assert other.nats_per_character == pytest.approx(e.nats_per_character, rel=0.05)
    log_p = model.score(test).log_probabilities
    assert other.bits_per_character == pytest.approx(-log_p.mean() / math.log(2))
    assert model.evaluate(test, protocol="cold-8").protocol == "cold-8"
    assert model.evaluate(with_baselines=False).baselines.keys() == {"network"}


def test_without_baselines_a_given_text_needs_no_training_text(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charloom.language_model.load_dataset", None)  # calling it would fail
    assert model.evaluate("3 times 4 is 12", with_baselines=False).characters == 15


def test_without_a_test_part_the_validation_part_is_evaluated(tmp_path: Path) -> None:
    model = charloom.train(TEXT, **OPTIONS, split="90/10/0", out=tmp_path / "run")
    e = model.evaluate()
    assert (e.text, e.characters) == ("validation part", len(TEXT) - len(TEXT) * 9 // 10)
    assert "last tenth of the training part" in e.baselines["ngram"].note
    whole = charloom.train(TEXT, **OPTIONS, split="100/0/0")
    with pytest.raises(charloom.CharloomError, match="another text"):
        whole.evaluate()


def test_a_training_text_that_is_gone_or_changed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TEXT)
    charloom.train(tmp_path / "t.txt", out=tmp_path / "run", **{**OPTIONS, "steps": 2})
    model = charloom.load(tmp_path / "run")
    (tmp_path / "t.txt").rename(tmp_path / "moved.txt")
    with pytest.raises(charloom.CharloomError, match="--training-text"):
        model.evaluate()
    given = model.evaluate("3 times 4 is 12\n")
    assert given.baselines["xz"].bits_per_character is None
    assert "t.txt" in (given.baselines["xz"].reason or "")
    assert given.baselines["uniform"].bits_per_character is not None
    found = model.evaluate(training_text=tmp_path / "moved.txt")
    assert found.baselines["xz"].bits_per_character is not None
    (tmp_path / "t.txt").write_text(TEXT + "x")
    with pytest.raises(charloom.CharloomError, match="is not the one that the run was trained on"):
        model.evaluate()


def test_a_saved_model_is_the_same_model(model: LanguageModel, tmp_path: Path) -> None:
    model.save(tmp_path / "one.safetensors")
    (tmp_path / "dir").mkdir()
    model.save(tmp_path / "dir")
    for place in ("one.safetensors", "dir", "dir/model.safetensors"):
        other = charloom.load(tmp_path / place)
        assert other.sample("4", length=40, seed=2) == model.sample("4", length=40, seed=2)
        assert other.evaluate().as_dict() == model.evaluate().as_dict()
    with pytest.raises(charloom.CharloomError, match="cannot save"):
        model.save(tmp_path / "no" / "such" / "folder.safetensors")
    with pytest.raises(charloom.CharloomError, match="no such run"):
        charloom.load(tmp_path / "nowhere")


def test_bytes_can_be_learned(tmp_path: Path) -> None:
    data = bytes(np.random.default_rng(1).integers(0, 256, 3000, dtype=np.uint8))
    (tmp_path / "data.bin").write_bytes(data)
    model = charloom.train(
        tmp_path / "data.bin", out=tmp_path / "run", bytes=True, **{**OPTIONS, "steps": 3}
    )
    assert model.vocabulary.as_bytes
    e = charloom.load(tmp_path / "run").evaluate()
    assert e.bits_per_byte == e.bits_per_character
    assert e.baselines["xz"].bits_per_character is not None


def test_the_package_has_a_version_and_no_other_names() -> None:
    assert charloom.__version__
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        charloom.tarin  # noqa: B018

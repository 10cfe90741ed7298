"""The Python interface: train, load, sample, stream, score, evaluate, save."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

import charloom
from charloom.language_model import LanguageModel
from charloom.text.vocabulary import UnknownCharacterError
from helpers.texts import PANGRAMS, TIMES_TABLES

OPTIONS = {"steps": 30, "hidden_size": 16, "seed": 1, "window": 32}


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, whose training text lies beside it."""
    base = tmp_path_factory.mktemp("runs")
    (base / "tables.txt").write_text(TIMES_TABLES)
    charloom.train(base / "tables.txt", out=base / "run", **OPTIONS)
    return base / "run"


@pytest.fixture(scope="module")
def model(trained_run: Path) -> LanguageModel:
    return charloom.load(trained_run)


def test_a_text_itself_can_be_trained_on(model: LanguageModel) -> None:
    other = charloom.train(TIMES_TABLES, **OPTIONS)
    assert other.checkpoint.parameters.flat.tobytes() == model.checkpoint.parameters.flat.tobytes()
    # Its text was in no file, but it is still at hand.
    assert other.evaluate().as_dict() == model.evaluate().as_dict()


def test_names_and_paths_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text(TIMES_TABLES)
    assert charloom.train("t.txt", **OPTIONS).checkpoint.text["name"] == "t"
    with pytest.raises(charloom.CharloomError, match=r"nowhere\.txt"):
        charloom.train("nowhere.txt")
    with pytest.raises(charloom.CharloomError, match="empty"):
        charloom.train("")
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]


def test_progress_is_reported() -> None:
    seen: list[str] = []
    charloom.train(TIMES_TABLES, progress=lambda p: seen.append(p.kind), **{**OPTIONS, "steps": 3})
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
    assert model.score("3 € 4").ids[2] == -1
    assert len(model.score("3 € 4", skip_unknown=True).log_probabilities) == 4


def test_score_follows_the_chain_rule(model: LanguageModel) -> None:
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
    charloom.train(TIMES_TABLES, **OPTIONS).save(tmp_path / "model.safetensors")
    alone = charloom.load(tmp_path / "model.safetensors")  # which knows no file of its text
    with pytest.raises(charloom.CharloomError, match="--training-text"):
        alone.score("3 times", protocol="adaptive")
    with pytest.raises(charloom.CharloomError, match="--training-text"):
        alone.evaluate("3 times", protocol="adaptive")


def test_evaluation_is_of_the_test_part(model: LanguageModel) -> None:
    e = model.evaluate()
    assert (e.text, e.characters) == (
        "test split",
        len(TIMES_TABLES) - len(TIMES_TABLES) * 95 // 100,
    )
    assert set(e.baselines) == {"network", "uniform", "unigram", "ngram", "xz", "bzip2"}
    assert all(b.bits_per_character is not None for b in e.baselines.values())
    # The same characters given as a text, but for what comes before them.
    test = TIMES_TABLES[len(TIMES_TABLES) * 95 // 100 :]
    before = TIMES_TABLES[len(TIMES_TABLES) * 95 // 100 - 1]
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
    monkeypatch.setattr(
        "charloom.evaluation.training_text.read_dataset", None
    )  # calling it would fail
    assert model.evaluate("3 times 4 is 12", with_baselines=False).characters == 15


def test_without_a_test_part_the_validation_part_is_evaluated(tmp_path: Path) -> None:
    model = charloom.train(TIMES_TABLES, **OPTIONS, split="90/10/0", out=tmp_path / "run")
    e = model.evaluate()
    assert (e.text, e.characters) == (
        "validation split",
        len(TIMES_TABLES) - len(TIMES_TABLES) * 9 // 10,
    )
    assert "last 10% of the training split" in e.baselines["ngram"].note
    whole = charloom.train(TIMES_TABLES, **OPTIONS, split="100/0/0")
    with pytest.raises(charloom.CharloomError, match="another text"):
        whole.evaluate()


def test_a_training_text_that_is_gone_or_changed(trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TIMES_TABLES)
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
    (tmp_path / "t.txt").write_text("x" + TIMES_TABLES)
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
    with pytest.raises(charloom.CharloomError, match="does not exist"):
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


@pytest.fixture(scope="module", params=["auto", "reference"])
def parrot(request: pytest.FixtureRequest) -> LanguageModel:
    """A network that has learned its text by heart."""
    options = {"steps": 250, "hidden_size": 48, "window": 32, "batch_size": 8, "seed": 1}
    return charloom.train(
        PANGRAMS, learning_rate=0.01, no_mix=True, engine=request.param, **options
    )


def copies(text: str, training: str, length: int, drawn_from: int) -> bool:
    """Whether a stretch of that length that ends in the drawn part stands in the training text."""
    ends = range(max(length, drawn_from + 1), len(text) + 1)
    return any(text[end - length : end] in training for end in ends)


@pytest.mark.parametrize("temperature", [0, 0.5, 1])
@pytest.mark.parametrize("prompt", ["", "the qui", "quick daft zebras jum"])
def test_max_overlap_stops_a_memorizing_network(
    parrot: LanguageModel, temperature: float, prompt: str
) -> None:
    for seed in range(3):
        settings = {"length": 120, "temperature": temperature, "seed": seed}
        assert copies(parrot.sample(prompt, **settings), PANGRAMS, 9, len(prompt))
        text = parrot.sample(prompt, max_overlap=8, **settings)
        assert len(text) == len(prompt) + 120
        assert not copies(text, PANGRAMS, 9, len(prompt))
        assert parrot.overlap(text, drawn_from=len(prompt)).length <= 8


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("network_only", [False, True])
def test_max_overlap_stops_the_mixture(trained_run: Path, engine: str, network_only: bool) -> None:
    model = charloom.load(trained_run, engine=engine, network_only=network_only)
    assert (model.mixture is None) == network_only
    copied = 0
    for temperature in (0, 0.5, 1):
        for seed, prompt in enumerate(["", "3 times 4 is"]):
            settings = {"length": 120, "temperature": temperature, "seed": seed}
            copied += copies(model.sample(prompt, **settings), TIMES_TABLES, 9, len(prompt))
            text = model.sample(prompt, max_overlap=8, **settings)
            assert len(text) == len(prompt) + 120
            assert not copies(text, TIMES_TABLES, 9, len(prompt))
    assert network_only or copied == 6
    # Where nothing has to be excluded, the guard changes nothing.
    plain = model.sample("3 times", length=200, seed=5)
    assert model.sample("3 times", length=200, seed=5, max_overlap=300) == plain
    longest = model.overlap(plain, drawn_from=7).length
    assert model.sample("3 times", length=200, seed=5, max_overlap=longest - 1) != plain


def test_overlap_is_reported_with_its_places(model: LanguageModel) -> None:
    last = TIMES_TABLES[-40:]  # of the test part, which is a part of the training text here
    found = model.overlap("§3 €" + last + "§ x", drawn_from=10)
    assert (found.length, found.text, found.place) == (40, last, 4)
    assert found.training_place == TIMES_TABLES.index(last)
    assert found.training_line == 1 + TIMES_TABLES[: TIMES_TABLES.index(last)].count("\n")
    # What ends in the prompt is none of the sample's.
    assert model.overlap(last + "§" + "29 times", drawn_from=40).text == "29 times"
    assert model.overlap(last + "29", drawn_from=39).text == last
    assert model.overlap(last, drawn_from=40).length == 0
    assert model.overlap("§§").length == 0
    assert model.overlap("").length == 0
    with pytest.raises(charloom.CharloomError, match="drawn_from"):
        model.overlap("29", drawn_from=-1)


def test_overlap_limit_needs_the_training_text_and_indexes_it_once(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    charloom.train(TIMES_TABLES, **OPTIONS).save(tmp_path / "model.safetensors")
    model = charloom.load(tmp_path / "model.safetensors")  # which knows no file of its text
    for use in (lambda: model.stream(max_overlap=8), lambda: model.overlap("3 times")):
        with pytest.raises(charloom.CharloomError, match="--training-text"):
            use()
    (tmp_path / "t.txt").write_text("x" + TIMES_TABLES)
    with pytest.raises(charloom.CharloomError, match="is not the one that the run was trained on"):
        model.overlap("3 times", training_text=tmp_path / "t.txt")
    for wrong in (0, -1):
        with pytest.raises(charloom.CharloomError, match=f"max_overlap is {wrong}"):
            model.stream(max_overlap=wrong)
    monkeypatch.setattr("charloom.evaluation.training_text.LONGEST_TO_INDEX", len(TIMES_TABLES) - 1)
    given = trained_run.parent / "tables.txt"
    with pytest.raises(charloom.CharloomError, match="at most"):
        model.overlap("3 times", training_text=given)
    monkeypatch.setattr("charloom.evaluation.training_text.LONGEST_TO_INDEX", len(TIMES_TABLES))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pydivsufsort", None)
        with pytest.raises(charloom.CharloomError, match="pip install pydivsufsort"):
            model.overlap("3 times", training_text=given)
    assert model.sample(length=9, seed=1, max_overlap=8, training_text=given)
    monkeypatch.setattr(
        "charloom.evaluation.training_text.read_dataset", None
    )  # calling it would fail
    assert model.overlap("3 times").length == 7
    assert model.sample(length=9, seed=1, max_overlap=8)


def test_overlap_limit_of_a_fine_tuned_model_covers_its_own_text(tmp_path: Path) -> None:
    charloom.train(TIMES_TABLES, out=tmp_path / "first", **OPTIONS)
    other = PANGRAMS.upper()  # which lacks most characters of the first
    model = charloom.train(other, from_run=str(tmp_path / "first"), steps=3, window=16)
    prompt = "3 times 4 is 12\n"
    assert len(model.vocabulary) > len(set(other))
    assert model.overlap(prompt + "THE QUICK", drawn_from=len(prompt)).text == "\nTHE QUICK"
    text = model.sample(prompt, length=100, temperature=0.5, seed=1, max_overlap=2)
    assert not copies(text, other, 3, len(prompt))

"""Context mixing before the training: what a network reads of a text, and what a file keeps."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charloom
from charloom.context_mixing.mixer import decode_probabilities
from charloom.context_mixing.packing import pack, packed_bytes
from charloom.runs import counting
from charloom.runs.counting import is_unfitted, learn_counts
from charloom.storage.checkpoint import load_checkpoint, save_checkpoint
from charloom.text.dataset import Dataset, Split, load_dataset
from charloom.text.source import text_from_string
from charloom.training import counts as possible
from charloom.training import setup
from charloom.training.options import TrainingConfig
from helpers.cli import refused, run
from helpers.documents import dataset_of

MIXES: dict[str, Any] = {"counts": "context-mixing"}
READS: dict[str, Any] = MIXES | {"read_counts": True}
SMALL: dict[str, Any] = {"hidden_size": 8, "batch_size": 8, "window": 16, "threads": 1}


def words(count: int, seed: int = 0) -> str:
    """Return a text of words, which are spelled alike, in random order."""
    chance = np.random.default_rng(9)
    known = ["".join(chance.choice(list("aeinrst"), 3 + n % 5)) for n in range(80)]
    chosen = np.random.default_rng(seed).choice(known, count)
    return "".join(f"{word}{'.' if n % 9 == 8 else ''} " for n, word in enumerate(chosen))


def normalized(p: Any) -> Any:
    return p / p.sum(axis=1, keepdims=True)


def book(characters: int = 6_000, split: str = "80/10/10") -> Dataset:
    text = words(characters // 6)
    return load_dataset(text_from_string(text), Split.parse(split))


def collection() -> Dataset:
    return dataset_of(*([words(9, seed=n) for n in range(a, a + 60)] for a in (0, 60, 120)))


def config(**options: Any) -> TrainingConfig:
    return TrainingConfig.of({"steps": 1, **SMALL, **options})


@pytest.mark.parametrize("make", [book, collection])
@pytest.mark.parametrize("refit", [0.0, 0.5])
def test_a_network_reads_what_was_not_learned_yet(make: Any, refit: float) -> None:
    """A text without its end is read in the same way, up to there: nothing reveals the end."""
    dataset = make()
    learned = learn_counts(dataset, config(**READS, refit=refit))
    extra = learned.extra
    assert extra is not None
    first, second = dataset.boundaries
    assert extra.rows.shape == (second, len(dataset.vocabulary))
    ids = np.array(dataset.ids)
    other = ids.copy()
    fit, part = dataset.fit_and_holdout(refit > 0)
    middle = len(fit) + len(part) // 2
    other[middle:second] = np.random.default_rng(0).choice(ids, second - middle)
    changed = learn_counts(replace(dataset, ids=other), config(**READS, refit=refit))
    assert changed.extra is not None
    assert np.array_equal(changed.extra.rows[:middle], extra.rows[:middle])
    assert not np.array_equal(changed.extra.rows[middle:], extra.rows[middle:])
    # And the text is predicted well.
    p = decode_probabilities(extra.rows)
    assert np.allclose(p.sum(axis=1), 1, atol=0.05)
    later = np.arange(first, second - 1)
    assert -np.log(p[later, ids[later + 1]]).mean() < 1.9


def test_the_part_that_weights_are_fitted_on_is_predicted_by_a_mixer_that_did_not_learn_it() -> (
    None
):
    dataset = book()
    learned = learn_counts(dataset, config(**READS, refit=0.5))
    fit, part = dataset.fit_and_holdout(refit=True)
    assert np.array_equal(learned.part.ids, part)
    assert learned.part.before == fit[-1]
    places = np.arange(len(part))
    found = learned.part.predict(places)
    assert learned.extra is not None
    rows = learned.extra.gather(len(fit) - 1 + places)
    assert np.array_equal(found.probabilities, normalized(rows))
    assert learned.part.extra is not None
    assert np.array_equal(learned.part.extra.gather(places), rows)
    unread = learn_counts(dataset, config(**MIXES, refit=0.5))
    assert unread.extra is None
    again = unread.part.predict(places)
    assert again.probabilities.tobytes() == found.probabilities.tobytes()
    assert again.length.tolist() == found.length.tolist()
    # The mixer itself knows that part by now, if the run trains on validation text too.
    text = np.append(fit[-1], part)[:, None].astype(np.int64)
    p = unread.mixer.predict(text, unread.mixer.zero_state(1))[0].probabilities[places, part]
    assert np.log(p).mean() > np.log(found.probabilities[places, part]).mean() + 0.05
    kept = learn_counts(dataset, config(**MIXES))
    text = np.append(dataset.train[-1], dataset.validation)[:, None].astype(np.int64)
    p = kept.mixer.predict(text, kept.mixer.zero_state(1))[0].probabilities
    before = kept.part.predict(np.arange(len(dataset.validation))).probabilities
    assert np.abs(p[:-1] - before)[100:].max() < 0.05  # where it began from no state, it has read


def test_an_excerpt_of_a_long_collection_is_predicted_at_its_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = collection()
    whole = learn_counts(dataset, config(**READS))
    monkeypatch.setattr(setup, "VALIDATED_AT_ONCE", 900)
    learned = learn_counts(dataset, config(**READS))
    places = setup.validated_places(dataset, *dataset.fit_and_holdout(refit=False))
    assert len(learned.part.ids) == len(places) - 1 < len(dataset.validation)
    assert whole.extra is not None
    found = learned.part.predict(np.arange(len(places) - 1)).probabilities
    assert np.array_equal(found, normalized(whole.extra.gather(places[:-1])))
    unread = learn_counts(dataset, config(**MIXES)).part.predict(np.arange(len(places) - 1))
    ends = dataset.ids[places[:-1]] == dataset.vocabulary.end_id
    assert np.array_equal(unread.probabilities[ends], found[ends])


def test_a_long_record_is_a_file_that_is_gone_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = book()
    known = learn_counts(dataset, config(**READS)).extra
    monkeypatch.setattr(counting, "IN_MEMORY", 1000)
    extra = learn_counts(dataset, config(**READS), tmp_path).extra
    assert extra is not None
    assert known is not None
    assert isinstance(extra.rows, np.memmap)
    assert np.array_equal(extra.rows, known.rows)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "book.txt").write_text(words(900), encoding="utf-8")
    (folder / "other.txt").write_text(words(900, seed=3) + " Ça va?\n" * 9, encoding="utf-8")
    return folder


def train(text: Path, folder: Path, **options: Any) -> charloom.LanguageModel:
    given = {"split": "80/10/10", "keep": "best", "steps": 30, **SMALL, **options}
    return charloom.train(text, out=folder, **given)


@pytest.mark.parametrize("options", [MIXES, READS | {"refit": 0.4}], ids=["mixed", "read"])
def test_a_saved_model_scores_as_it_did_before(
    options: dict[str, Any], texts: Path, tmp_path: Path
) -> None:
    model = train(texts / "book.txt", tmp_path / "run", **options)
    checkpoint = model.checkpoint
    assert checkpoint.mixture is not None
    assert not is_unfitted(checkpoint.mixture)
    assert checkpoint.config.extra_inputs == (9 if "read_counts" in options else 0)
    text = words(80, seed=4)
    before = model.score(text).log_probabilities
    again = charloom.load(tmp_path / "run").score(text).log_probabilities
    assert again.tobytes() == before.tobytes()
    save_checkpoint(tmp_path / "copy.safetensors", checkpoint)
    file = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert (tmp_path / "copy.safetensors").read_bytes() == file
    assert before.mean() > -1.7
    assert len((tmp_path / "run" / "samples.txt").read_text().split("--- step")) > 3


def test_a_run_is_fine_tuned_with_counts_of_the_new_text(texts: Path, tmp_path: Path) -> None:
    train(texts / "book.txt", tmp_path / "run", **READS)
    before = load_checkpoint(tmp_path / "run" / "model.safetensors")
    model = train(texts / "other.txt", tmp_path / "next", from_run=tmp_path / "run", hidden_size=8)
    assert model.config.extra_inputs == len(model.vocabulary) > before.config.extra_inputs
    assert model.checkpoint.training["counts"] == "context-mixing"
    command = ["train", str(texts / "other.txt"), "--from", str(tmp_path / "run"), "--steps", "1"]
    assert "--counts" in refused(*command, "--counts", "kneser-ney", "--out", str(tmp_path / "no"))
    assert "--no-mix" in refused(*command, "--no-mix", "--out", str(tmp_path / "no"))
    train(texts / "book.txt", tmp_path / "alone", no_mix=True, steps=1)
    command[3] = str(tmp_path / "alone")
    line = refused(
        *command, "--counts", "context-mixing", "--read-counts", "--out", str(tmp_path / "no")
    )
    assert "does not read counts" in line


def test_an_interrupted_run_can_be_sampled(texts: Path, tmp_path: Path) -> None:
    """Its network cannot do without the counts, so they are in every model that is saved."""
    train(texts / "book.txt", tmp_path / "run", **READS)
    checkpoint = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert checkpoint.mixture is not None
    learned = learn_counts(
        load_dataset(charloom.open_text(texts / "book.txt"), Split.parse("80/10/10")),
        config(**READS),
    )
    unfitted = learned.unfitted()
    assert is_unfitted(unfitted)
    checkpoint.mixture = unfitted
    save_checkpoint(tmp_path / "half.safetensors", checkpoint)
    half = charloom.load(tmp_path / "half.safetensors")
    alone = charloom.load(tmp_path / "half.safetensors", network_only=True)
    text = words(16, seed=4)
    assert np.allclose(
        half.score(text).log_probabilities, alone.score(text).log_probabilities, atol=1e-3
    )
    assert half.sample(length=20)


def test_without_validation_text_the_end_of_the_training_text_decides(
    texts: Path, tmp_path: Path
) -> None:
    endings = [{"split": "100/0/0"}, {"keep": "last"}, {"keep": "last", "refit": 0.5}]
    for n, options in enumerate(itertools.product(endings, (MIXES, READS))):
        given = options[0] | options[1]
        model = train(texts / "book.txt", tmp_path / str(n), **given)
        assert model.checkpoint.mixture is not None
        assert model.score(words(80, seed=4)).log_probabilities.mean() > -1.7


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--counts words", "--counts"),
        ("--read-counts", "add --counts context-mixing"),
        ("--counts kneser-ney --read-counts", "add --counts context-mixing"),
        ("--counts context-mixing --no-mix", "--counts does nothing here"),
        ("--counts context-mixing --preset classic", "--counts does nothing here"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(
    options: str, named: str, texts: Path, tmp_path: Path
) -> None:
    command = ["train", str(texts / "book.txt"), "--steps", "1", "--out", str(tmp_path / "run")]
    assert named in refused(*command, *options.split())


def test_a_vocabulary_that_is_too_large_and_a_missing_numba_are_refused(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", str(texts / "book.txt"), "--steps", "1", "--counts", "context-mixing"]
    monkeypatch.setattr(possible, "MOST_READ", 8)
    status, _, errors = run(*command, "--read-counts", "--out", str(tmp_path / "a"))
    assert (status, errors.count("\n")) == (2, 1)
    assert "--read-counts is for at most 8 distinct characters, and the text has 9" in errors
    monkeypatch.setattr(possible, "MOST_MIXED", 8)
    status, _, errors = run(*command, "--out", str(tmp_path / "b"))
    assert (status, errors.count("\n")) == (2, 1)
    assert "--counts kneser-ney" in errors
    monkeypatch.setattr(possible, "can_mix", lambda: False)
    status, _, errors = run(*command, "--out", str(tmp_path / "c"))
    assert (status, errors.count("\n")) == (2, 1)
    assert "pip install numba" in errors


def test_info_names_the_counts(texts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    given = "--counts context-mixing --steps 2 --hidden-size 4 --split 80/10/10 --keep best"
    status, _, errors = run("train", str(texts / "book.txt"), "--out", str(folder), *given.split())
    assert status == 0
    assert "by context mixing in" in errors
    _, output, _ = run("info", str(folder))
    assert "mixed with a context mixer: 22 contexts, " in output
    facts = charloom.info(folder)["counts"]
    assert facts["kind"] == "context mixing"
    assert facts["contexts"] == 22


def test_a_small_limit_leaves_contexts_out_and_says_so() -> None:
    dataset = book()
    whole = learn_counts(dataset, config(**MIXES))
    limit = packed_bytes(pack(whole.mixer)) - 2_000
    small = learn_counts(dataset, config(**MIXES, mix_megabytes=limit / 1e6))
    assert packed_bytes(pack(small.mixer)) <= limit
    assert "seen most rarely, because --mix-megabytes is" in small.note
    assert "omits" not in whole.note

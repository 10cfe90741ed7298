"""Surprisal: what `charloom score` and LanguageModel.score say of characters and lines."""

import csv
import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

import charloom
from charloom.analysis.lines import LineSurprisal
from charloom.analysis.surprisal import Surprisal
from charloom.analysis.surprisal_stream import APART
from charloom.cli.main import main
from charloom.errors import CharloomError
from charloom.language_model import LanguageModel
from helpers.cli import Captured
from helpers.runs import train_tiny
from helpers.texts import CATS_AND_DOGS

SENTENCE = "The dog sat on the cat.\nAnd the xat sat.\n"


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = CATS_AND_DOGS + "<script>window.planted = 1</script> & A x\n"
    options = ["--hidden-size=24", "--steps=60", "--split=90/10/0", "--seed=1"]
    return train_tiny(tmp_path_factory.mktemp("surprisal"), text, *options)


@pytest.fixture(scope="module", params=[False, True], ids=["mixture", "network"])
def model(trained_run: Path, request: pytest.FixtureRequest) -> LanguageModel:
    return charloom.load(trained_run, network_only=request.param)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sentence.txt").write_text(SENTENCE, encoding="utf-8")
    return tmp_path


def score(capsys: Captured, *arguments: str) -> str:
    capsys.readouterr()
    assert main(["score", *arguments]) == 0
    return capsys.readouterr().out


def step_by_step(model: LanguageModel, text: str) -> np.ndarray:  # type: ignore[type-arg]
    """log p of every character in its place, (N, V), a step at a time."""
    last, state = model.vocabulary.start_id, model.predictor.zero_state(1)
    rows = []
    for id_ in model.encode(text):
        logits, state = model.predictor.step(np.array([last], dtype=np.intp), state)
        x = logits[0].astype(np.float64)
        left = 0.0 if model.unseen is None else model.unseen.log_known
        rows.append(x - x.max() - math.log(np.exp(x - x.max()).sum()) + left)
        last = int(id_)
    return np.array(rows)


# --- In Python


def test_top_guesses_equal_brute_force(model: LanguageModel) -> None:
    scores = model.score(SENTENCE, likeliest=5)
    log_p = step_by_step(model, SENTENCE)
    ids = model.encode(SENTENCE).astype(int)
    here = np.arange(len(ids))
    np.testing.assert_allclose(scores.log_probabilities, log_p[here, ids], atol=2e-5)
    np.testing.assert_allclose(scores.bits, -log_p[here, ids] / math.log(2), atol=3e-5)
    assert scores.likeliest.shape == (len(ids), 5)
    best = -np.sort(-log_p, axis=1)[:, :5]
    np.testing.assert_allclose(scores.likeliest_probabilities, np.exp(best), atol=2e-5)
    assert (np.diff(scores.likeliest_probabilities, axis=1) <= 0).all()
    assert ((scores.likeliest[:, 0] == ids) == scores.guessed).all()


def test_guesses_are_capped_at_the_vocabulary(model: LanguageModel) -> None:
    size = len(model.vocabulary)
    scores = model.score("cat", likeliest=10_000)
    assert scores.likeliest.shape == (3, size)
    assert (np.sort(scores.likeliest, axis=1) == np.arange(size)).all()
    assert model.unseen is not None
    left = 1 - model.unseen.share
    np.testing.assert_allclose(scores.likeliest_probabilities.sum(axis=1), left, atol=1e-5)
    assert model.score("cat").likeliest.shape == (3, 0)
    with pytest.raises(CharloomError, match="likeliest is -1"):
        model.score("cat", likeliest=-1)


@pytest.mark.parametrize("protocol", ["carried", "cold-7", "adaptive"])
def test_guesses_follow_the_protocol(model: LanguageModel, protocol: str) -> None:
    scores = model.score(SENTENCE, likeliest=3, protocol=protocol)
    first = scores.likeliest_probabilities[:, 0]
    p = np.exp(scores.log_probabilities)
    assert (p <= first + 1e-6).all()
    np.testing.assert_allclose(p[scores.guessed], first[scores.guessed], rtol=1e-4)
    assert scores.guessed.any()
    assert not scores.guessed.all()


def test_line_scores_equal_text_scores(model: LanguageModel) -> None:
    lines = ["The cat sat.", "", "x", "The dog sat on the mat, and " * 40, "log", "cat"] * 30
    totals = model.score_lines(lines)
    for line, total in zip(lines[:6], totals, strict=False):
        expected = model.score(line).log_probabilities.sum() if line else 0.0
        assert total == pytest.approx(expected, rel=1e-5, abs=1e-9)
    for begin in range(6, len(lines), 6):  # whoever is beside them
        np.testing.assert_allclose(totals[begin : begin + 6], totals[:6], rtol=1e-6)
    assert model.score_lines([]).shape == (0,)


def test_long_line_does_not_slow_short_lines(model: LanguageModel) -> None:
    """Rows end with the longest of their group, so groups are of lines about as long."""
    steps: list[int] = []
    ask = model.predictor.log_probabilities

    def counted(inputs, state):  # type: ignore[no-untyped-def]
        steps.append(inputs.size)
        return ask(inputs, state)

    model.predictor.log_probabilities = counted  # type: ignore[method-assign]
    try:
        lines = [CATS_AND_DOGS[:5000], *["The cat sat."] * 63]
        model.score_lines(lines)
    finally:
        del model.predictor.log_probabilities
    assert sum(steps) < 3 * sum(map(len, lines))


def test_older_models_name_or_skip_unknown_characters(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "unseen", None)  # they have no record of the share
    with pytest.raises(CharloomError, match=r"'€' \(U\+20AC EURO SIGN\) at position 3"):
        model.score("The€", likeliest=2)
    with pytest.raises(CharloomError, match=r"line 2: .*EURO SIGN"):
        model.score_lines(["The", "c€t"])
    known = model.score_lines(["The", "c€t"], skip_unknown=True)
    np.testing.assert_allclose(known, model.score_lines(["The", "ct"]), rtol=1e-6)


def test_the_most_surprising_places_are_far_apart(model: LanguageModel) -> None:
    text = SENTENCE * 20
    scores = model.score(text, likeliest=5)
    surprisal = Surprisal("x", "mixture", "carried", model.vocabulary, model.encode(text), scores)
    places = surprisal.most_surprising(12)
    assert len(places) == 12
    assert places[0] == scores.bits.argmax()
    assert (np.diff(scores.bits[places]) <= 0).all()
    assert np.diff(sorted(places)).min() > APART
    others = [p for p in range(len(text)) if min(abs(p - q) for q in places) > APART]
    assert scores.bits[others].max(initial=0) <= scores.bits[places[-1]]
    before, character, after = surprisal.context(places[3])
    place = places[3]
    assert (before + character + after) in text
    assert character == text[place]


def test_numbers_that_overflow_are_refused(model: LanguageModel) -> None:
    scores = model.score("cat", likeliest=2)
    scores.log_probabilities[1] = -np.inf
    with pytest.raises(CharloomError, match="not finite"):
        Surprisal("x", "network", "carried", model.vocabulary, model.encode("cat"), scores)


# --- The command


def test_json_and_csv_equal_the_arrays(trained_run: Path, capsys: Captured) -> None:
    model = charloom.load(trained_run)
    scores = model.score(SENTENCE, likeliest=5)
    found = json.loads(score(capsys, str(trained_run), "sentence.txt", "--json"))
    assert found["characters"] == len(SENTENCE) == len(found["scores"])
    assert found["total_bits"] == pytest.approx(scores.bits.sum())
    assert found["bits_per_character"] == pytest.approx(scores.bits.mean())
    assert found["accuracy"] == pytest.approx(scores.guessed.mean())
    assert (found["model"], found["protocol"], found["text"]) == ("mixture", "carried", "sentence")
    table = list(csv.reader(io.StringIO(score(capsys, str(trained_run), "sentence.txt", "--csv"))))
    assert table[0][:6] == ["place", "line", "character", "bits", "guess1", "probability1"]
    assert len(table) == 1 + len(SENTENCE)
    for place, (entry, row) in enumerate(zip(found["scores"], table[1:], strict=True)):
        assert entry["character"] == SENTENCE[place] == row[2]
        assert entry["bits"] == pytest.approx(scores.bits[place], abs=6e-4)
        assert float(row[3]) == entry["bits"]
        assert int(row[0]) == place
        assert int(row[1]) == 1 + SENTENCE[:place].count("\n")
        guesses = [model.vocabulary.characters[i] for i in scores.likeliest[place]]
        assert [guess for guess, _ in entry["likeliest"]] == guesses == row[4::2]
        chances = [chance for _, chance in entry["likeliest"]]
        np.testing.assert_allclose(chances, scores.likeliest_probabilities[place], atol=6e-5)
        assert [float(x) for x in row[5::2]] == chances


def test_the_table_shows_the_worst_places(trained_run: Path, capsys: Captured) -> None:
    out = score(capsys, str(trained_run), "sentence.txt", "--top", "2")
    scores = charloom.load(trained_run).score(SENTENCE)
    assert f"{scores.bits.mean():.4f} bits = {scores.nats_per_character:.4f} nats" in out
    rows = out.splitlines()[4:]
    assert len(rows) == 2
    assert f"{scores.bits.max():.2f}" in rows[0]
    place = int(scores.bits.argmax())
    assert f"[{SENTENCE[place]}]" in rows[0].replace("\\n", "\n")


def test_lines_are_ranked_and_listed(trained_run: Path, capsys: Captured) -> None:
    lines = ["The dog sat.", "xxAtgh", "", "The cat sat on the log."]
    Path("lines.txt").write_text("\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    nats = charloom.load(trained_run).score_lines(lines)
    found = json.loads(score(capsys, str(trained_run), "lines.txt", "--lines", "--json"))
    assert [row["text"] for row in found] == lines
    assert [row["line"] for row in found] == [1, 2, 3, 4]
    for row, line, total in zip(found, lines, nats, strict=True):
        assert row["characters"] == len(line)
        assert row["total_bits"] == pytest.approx(-total / math.log(2), abs=6e-4)
        mean = None if not line else pytest.approx(-total / math.log(2) / len(line), abs=6e-5)
        assert row["bits_per_character"] == mean
    table = list(
        csv.DictReader(
            io.StringIO(score(capsys, str(trained_run), "lines.txt", "--lines", "--csv"))
        )
    )
    assert [row["text"] for row in table] == lines
    assert table[2]["bits_per_character"] == ""
    out = score(capsys, str(trained_run), "lines.txt", "--lines").splitlines()[1:]
    ranked = sorted(found, key=lambda row: -(row["bits_per_character"] or -1))
    assert [row.split()[-1] for row in out][:1] == ["xxAtgh"]
    assert [int(row.split()[2]) for row in out] == [row["line"] for row in ranked]
    assert (
        len(score(capsys, str(trained_run), "lines.txt", "--lines", "--top", "1").splitlines()) == 2
    )


def test_html_page_is_written_beside_json(trained_run: Path, capsys: Captured) -> None:
    json.loads(score(capsys, str(trained_run), "sentence.txt", "--json", "--html", "page.html"))
    page = Path("page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_one_character_and_bytes(trained_run: Path, capsys: Captured, tmp_path: Path) -> None:
    Path("one.txt").write_text("T", encoding="utf-8")
    assert json.loads(score(capsys, str(trained_run), "one.txt", "--json"))["characters"] == 1
    score(capsys, str(trained_run), "one.txt", "--html", "one.html")
    data = bytes(range(256)) * 40
    Path("data.bin").write_bytes(data)
    out = ["--out", "bytes", "--steps=3", "--hidden-size=8", "--bytes", "--no-mix"]
    assert main(["train", "data.bin", *out]) == 0
    found = json.loads(score(capsys, "bytes", "data.bin", "--json"))
    shown = [chr(i) if i < 128 else f"\\x{i:02x}" for i in range(256)]
    assert [entry["character"] for entry in found["scores"][:256]] == shown


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (b"", [], "has no characters to score"),
        (b"\n\n", ["--lines"], "has no characters to score"),
        (b"\x89PNG\r\n\x1a\n\x00", [], "is a picture, not text"),
        ("€".encode(), ["--skip-unknown"], "has no characters to score"),
        (b"cat", ["--json", "--csv"], "--json and --csv cannot be combined"),
        (b"cat", ["--lines", "--html", "x.html"], "omit --lines"),
        (
            b"cat",
            ["--lines", "--protocol", "cold-3"],
            "--protocol has no effect with --lines: omit it",
        ),
        (b"cat", ["--top", "0"], "--top is 0: pass 1 or more"),
        (b"cat", ["--protocol", "warm"], "unknown protocol 'warm'"),
        (b"cat", ["--html", "."], "cannot write . (it is a folder): use another file"),
        (b"cat", ["--html", "no/such/x.html"], "cannot write no/such/x.html (No such file"),
        (b"cat", ["--html", "x\0y"], "cannot write x\\x00y"),
    ],
)
def test_bad_text_or_option_is_refused(
    trained_run: Path, capsys: Captured, content: bytes, arguments: list[str], said: str
) -> None:
    Path("text.txt").write_bytes(content)
    capsys.readouterr()
    before = sorted(Path.cwd().iterdir())
    assert main(["score", str(trained_run), "text.txt", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""
    assert sorted(Path.cwd().iterdir()) == before


def test_csv_round_trips_any_text(trained_run: Path, capsys: Captured, tmp_path: Path) -> None:
    text = 'a\rb\r\nc,"d"\n' * 200
    (tmp_path / "t.txt").write_text(text, encoding="utf-8", newline="")
    options = ["--steps=2", "--hidden-size=8", "--no-mix", "--keep-newlines"]
    assert main(["train", "t.txt", "--out", "r", *options]) == 0
    table = list(csv.reader(io.StringIO(score(capsys, "r", "t.txt", "--csv"), newline="")))
    assert "".join(row[2] for row in table[1:]) == text
    table = list(
        csv.reader(io.StringIO(score(capsys, "r", "t.txt", "--lines", "--csv"), newline=""))
    )
    assert [row[5] for row in table[1:4]] == ["a\rb", 'c,"d"', "a\rb"]


def test_page_overwrites_only_pages(trained_run: Path, capsys: Captured, tmp_path: Path) -> None:
    before = (tmp_path / "sentence.txt").read_bytes()
    weights = trained_run / "model.safetensors"
    stored = weights.read_bytes()
    for path in ("sentence.txt", str(weights)):
        assert main(["score", str(trained_run), "sentence.txt", "--html", path]) == 2
        assert "the existing file is not a page): use another file" in capsys.readouterr().err
    assert (tmp_path / "sentence.txt").read_bytes() == before
    assert weights.read_bytes() == stored
    os.mkfifo(tmp_path / "pipe")
    assert main(["score", str(trained_run), "sentence.txt", "--html", "pipe"]) == 2
    assert "it is not a regular file" in capsys.readouterr().err
    (tmp_path / "link.html").symlink_to("target.html")
    for _ in range(2):  # what is there the second time is a page
        score(capsys, str(trained_run), "sentence.txt", "--html", "link.html")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "target.html").read_text("utf-8").startswith("<!doctype html>")


def test_unknown_characters_are_counted(trained_run: Path, capsys: Captured) -> None:
    Path("text.txt").write_text("The € cat€\n", encoding="utf-8")
    capsys.readouterr()
    assert main(["score", str(trained_run), "text.txt", "--skip-unknown", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["skipped_characters"] == 2
    assert "2 unknown characters skipped" in captured.err
    assert main(["score", str(trained_run), "text.txt", "--skip-unknown", "--lines", "--json"]) == 0
    captured = capsys.readouterr()
    (row,) = json.loads(captured.out)
    assert (row["text"], row["characters"], row["unknown"]) == ("The € cat€", 10, 2)
    assert row["bits_per_character"] == pytest.approx(row["total_bits"] / 8, abs=1e-4)
    assert "2 unknown characters skipped" in captured.err
    assert main(["score", str(trained_run), "text.txt", "--lines", "--json"]) == 0
    captured = capsys.readouterr()
    (charged,) = json.loads(captured.out)
    assert "2 unknown characters scored at " in captured.err
    assert charged["total_bits"] > row["total_bits"] + 40
    assert charged["bits_per_character"] == pytest.approx(charged["total_bits"] / 10, abs=1e-4)


def test_empty_line_ranks_last() -> None:
    bits, unknown = np.array([0.0, 1.0, 8.0]), np.zeros(3, np.intp)
    lines = LineSurprisal(["", "a", "bb"], [0, 1, 2], bits, unknown, [1, 2, 3])
    assert [row["line"] for row in lines.ranked()] == [3, 2, 1]

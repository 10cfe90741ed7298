"""Which unit follows which label: correlations by hand, a planted unit, and what files say."""

import json
from pathlib import Path

import numpy as np
import pytest

import charloom
from charloom.analysis import exploration as module
from charloom.analysis.exploration import Exploration, _CorrelationSums, confirmed, explore
from charloom.analysis.labels import label_text
from charloom.cli.main import main
from charloom.errors import CharloomError
from charloom.language_model import LanguageModel
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.network.units import Unit
from charloom.storage.checkpoint import Checkpoint, save_checkpoint
from charloom.text.vocabulary import Vocabulary
from helpers.cli import Captured
from helpers.texts import EVERY_LABEL


def make(
    cell: str = "gru", layers: int = 1, hidden_size: int = 12, scale: float = 3
) -> LanguageModel:
    vocabulary = Vocabulary.of(EVERY_LABEL)
    parameters = initialize(ModelConfig(cell, hidden_size, layers, len(vocabulary)), seed=2)
    parameters.flat[:] *= scale
    return LanguageModel(Checkpoint(parameters, vocabulary))


def states_of(model: LanguageModel, text: str) -> np.ndarray:  # type: ignore[type-arg]
    """(N, S, L, H), a step at a time."""
    state = model.engine.zero_state(1)
    _, state = model.engine.step(np.array([model.vocabulary.start_id]), state)
    rows = []
    for id_ in model.encode(text):
        _, state = model.engine.step(np.array([int(id_)]), state)
        rows.append(state[:, :, 0])
    return np.array(rows)


@pytest.mark.parametrize(("cell", "layers"), [("rnn", 1), ("gru", 2), ("lstm", 2)])
def test_correlations_equal_pearsons(cell: str, layers: int) -> None:
    model = make(cell, layers)
    found = explore(model, EVERY_LABEL)
    states = states_of(model, EVERY_LABEL).astype(np.float64)
    labels = label_text(EVERY_LABEL)
    half = len(EVERY_LABEL) // 2
    assert [f.label for f in found.labels] == list(labels)
    flat = states.reshape(len(EVERY_LABEL), -1)
    for f in found.labels:
        values = labels[f.label].astype(np.float64)
        assert f.mean == pytest.approx(values.mean())
        if values[:half].std() == 0:
            assert np.isnan(f.correlation.first)
            continue
        first = np.array([np.corrcoef(values[:half], x[:half])[0, 1] for x in flat.T])
        x = states[:, f.unit.array, f.unit.layer, f.unit.number]
        best = np.corrcoef(values[:half], x[:half])[0, 1]
        assert abs(best) == pytest.approx(np.abs(first).max(), abs=1e-4)
        assert f.correlation.first == pytest.approx(best, abs=1e-4)
        if values[half:].std() > 0:
            second = np.corrcoef(values[half:], x[half:])[0, 1]
            assert f.correlation.second == pytest.approx(second, abs=1e-4)
    for unit in found.units[:5]:
        x = states[:, unit.unit.array, unit.unit.layer, unit.unit.number]
        assert unit.mean == pytest.approx(x.mean(), abs=1e-5)
        assert unit.deviation == pytest.approx(x.std(), abs=1e-4)
    strengths = [confirmed(unit.correlation) for unit in found.units]
    assert strengths == sorted(strengths, reverse=True)
    assert len({unit.unit for unit in found.units}) == flat.shape[1]


def test_random_directions_are_of_the_same_states() -> None:
    model = make()
    found = explore(model, EVERY_LABEL, seed=3)
    states = states_of(model, EVERY_LABEL)[:, 0, 0].astype(np.float64)
    generator = np.random.Generator(np.random.PCG64(3))
    directions = generator.normal(size=(12, 12))  # as many as there are units
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    half = len(EVERY_LABEL) // 2
    values = label_text(EVERY_LABEL)["after a space"]
    along = states @ directions.T
    first = [np.corrcoef(values[:half], x[:half])[0, 1] for x in along.T]
    best = int(np.abs(first).argmax())
    row = next(f for f in found.labels if f.label == "after a space")
    assert row.random.first == pytest.approx(first[best], abs=1e-4)
    second = np.corrcoef(values[half:], along[half:, best])[0, 1]
    assert row.random.second == pytest.approx(second, abs=1e-4)
    other = next(
        f for f in explore(model, EVERY_LABEL, seed=4).labels if f.label == "after a space"
    )
    assert other.random != row.random
    assert other.correlation == row.correlation


def test_a_planted_unit_is_found() -> None:
    """A unit that does nothing but say whether the last character was a space."""
    model = make("rnn")
    p = model.engine.parameters
    p["rnn.weight_hh_l0"][5] = 0
    p["rnn.weight_ih_l0"][5] = -2
    p["rnn.weight_ih_l0"][5, model.vocabulary.characters.index(" ")] = 2
    model.engine.parameters_changed()
    found = explore(model, EVERY_LABEL)
    row = next(f for f in found.labels if f.label == "after a space")
    assert row.unit == Unit(0, 0, 5)
    assert row.correlation.first > 0.999
    assert row.correlation.second > 0.999
    assert abs(row.random.second) < 0.95
    assert found.units[0].unit == Unit(0, 0, 5)
    assert found.units[0].label == "after a space"


def test_small_differences_do_not_drown_in_a_large_mean() -> None:
    sums = _CorrelationSums(ModelConfig("lstm", 2, 1, 5), 1)
    values = np.random.default_rng(1).integers(0, 2, (4000, 1)).astype(np.float64)
    states = np.zeros((4000, 2, 1, 2), np.float32)
    states[:, 1, 0, 0] = 37.3 + 0.02 * values[:, 0]
    states[:, 0, 0, 1] = 0.712 + 1e-4 * values[:, 0]
    states[:, 1, 0, 1] = 37.3  # constant
    for begin in range(0, 4000, 333):
        sums.add(states[begin : begin + 333], values[begin : begin + 333])
    with np.errstate(invalid="ignore"):
        r = sums.correlations()[0]
    assert r[1, 0, 0] == pytest.approx(1, abs=1e-3)
    assert r[0, 0, 1] == pytest.approx(1, abs=1e-2)
    assert np.isnan(r[1, 0, 1])


def test_rows_of_a_long_text_give_similar_correlations(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("lstm", scale=1)  # one that forgets
    one = explore(model, EVERY_LABEL)
    monkeypatch.setattr(module, "LENGTH_OF_ROW", 500)
    rows = explore(model, EVERY_LABEL)
    assert one.protocol == "carried"
    assert rows.protocol == f"carried-{len(EVERY_LABEL) // 500}-rows"
    for a, b in zip(one.labels, rows.labels, strict=True):
        if not np.isnan(a.correlation.first):  # which of two units alike is chosen may differ
            assert abs(a.correlation.first) == pytest.approx(abs(b.correlation.first), abs=0.05)
    for unit, values in one.activations.items():  # warmed with 500 characters
        np.testing.assert_allclose(values / 100, rows.activations[unit] / 100, atol=0.011)


def test_activations_are_states_rounded_to_hundredths() -> None:
    model = make("lstm", 2)
    found = explore(model, EVERY_LABEL)
    states = states_of(model, EVERY_LABEL)
    assert len(found.activations) == 2 * 2 * 12
    for unit, values in found.activations.items():
        x = states[:, unit.array, unit.layer, unit.number]
        np.testing.assert_allclose(values / 100, x, atol=0.0051)


def test_page_holds_activations_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(hidden_size=40)
    monkeypatch.setattr(module, "ALL_UNITS_UP_TO", 1000)
    found = explore(model, EVERY_LABEL, units=["h39", "h0"])
    best = [f.unit for f in found.units[:24]]
    assert set(found.activations) == {*best, Unit(0, 0, 39), Unit(0, 0, 0)}
    short = explore(model, EVERY_LABEL[:900])
    assert len(short.activations) == 40
    data = json.loads(between(found.page(), 'id="data">', "</script>"))
    assert data["carried"] == [
        found.name(f.unit) for f in found.units if f.unit in found.activations
    ]
    assert not data["all"]


def between(text: str, begin: str, end: str) -> str:
    start = text.index(begin) + len(begin)
    return text[start : text.index(end, start)]


def test_page_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(hidden_size=40)
    whole = len(explore(model, EVERY_LABEL).page())
    monkeypatch.setattr("charloom.pages.page.LARGEST", whole - 20_000)
    short = explore(model, EVERY_LABEL, units=["h7"]).page()
    assert len(short) <= whole - 20_000
    data = json.loads(between(short, 'id="data">', "</script>"))
    assert "h7" in data["carried"]
    assert 1 < len(data["carried"]) < 40
    assert data["shown"] == len(EVERY_LABEL)
    monkeypatch.setattr(module, "ALL_UNITS_UP_TO", 10)
    most = len(explore(model, EVERY_LABEL).page()) - 3_000
    monkeypatch.setattr("charloom.pages.page.LARGEST", most)
    long = explore(model, EVERY_LABEL).page()
    data = json.loads(between(long, 'id="data">', "</script>"))
    assert len(long) <= most
    assert len(data["carried"]) == 24
    assert data["shown"] < data["characters"] == len(EVERY_LABEL)


@pytest.mark.parametrize("text", ["T", "Th", "The"])
def test_short_texts_have_no_labels(text: str) -> None:
    found = explore(make(), text)
    assert len(found.ids) == len(text)
    assert all(np.isnan(f.correlation.second) or len(text) > 1 for f in found.labels)
    json.loads("".join(found.json()))
    assert found.page()


# --- The command


@pytest.fixture
def trained_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model = make()
    save_checkpoint(tmp_path / "model.safetensors", model.checkpoint)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(EVERY_LABEL, encoding="utf-8")
    return tmp_path / "model.safetensors"


def test_json_equals_exploration(trained_run: Path, capsys: Captured) -> None:
    arguments = ["explore", str(trained_run), "text.txt", "--units", "h3,h0.11", "--json"]
    assert main([*arguments, "--out", "page.html"]) == 0
    facts = json.loads(capsys.readouterr().out)
    found: Exploration = explore(charloom.load(trained_run), EVERY_LABEL, units=["h3", "h11"])
    assert facts["labels"] == found.as_dict()["labels"]
    assert facts["units"] == found.as_dict()["units"]
    assert list(facts["activations"]) == ["h3", "h11"]
    states = states_of(make(), EVERY_LABEL)[:, 0, 0]
    np.testing.assert_allclose(facts["activations"]["h3"], states[:, 3], atol=0.0051)
    page = json.loads(between(Path("page.html").read_text("utf-8"), 'id="data">', "</script>"))
    assert page["labels"] == facts["labels"]
    assert page["units"] == facts["units"]
    assert main(["explore", str(trained_run), "text.txt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["activations"] == {}


def test_the_table_is_printed(trained_run: Path, capsys: Captured) -> None:
    assert main(["explore", str(trained_run), "text.txt"]) == 0
    out = capsys.readouterr().out
    found = explore(charloom.load(trained_run), EVERY_LABEL, with_activations=False)
    for row in found.as_dict()["labels"]:
        assert row["label"] in out
        if row["first_half"] is not None and row["second_half"] is not None:
            line = next(line for line in out.splitlines() if line.endswith(row["label"]))
            assert [f"{row['second_half']:.3f}", row["unit"]] == line.split()[:3:2]
    assert found.activations == {}


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (b"", [], "has no characters to explore"),
        (b"\x00\xff\xfe", [], "is not UTF-8"),
        ("The €".encode(), [], "the character '€' (U+20AC EURO SIGN) at position 4"),
        ("€".encode(), ["--skip-unknown"], "has no characters to explore"),
        (b"The", ["--units", "h12", "--json"], "there is no unit h12: they go from h0 to h11"),
        (b"The", ["--units", "h1,c2", "--json"], "only an lstm has a cell state"),
        (b"The", ["--units", "all", "--json"], "'all' is not a unit"),
        (b"The", ["--units", "h1"], "--units is for the page and the JSON: add --out FILE.html"),
        (b"The", ["--out", "."], "cannot write . (it is a folder)"),
        (b"The", ["--out", "no/page.html"], "cannot write no/page.html"),
    ],
)
def test_bad_text_or_unit_is_refused(
    trained_run: Path, capsys: Captured, content: bytes, arguments: list[str], said: str
) -> None:
    Path("bad.txt").write_bytes(content)
    assert main(["explore", str(trained_run), "bad.txt", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""


def test_unknown_characters_are_counted(trained_run: Path, capsys: Captured) -> None:
    Path("bad.txt").write_text("The €cat€ said", encoding="utf-8")
    assert main(["explore", str(trained_run), "bad.txt", "--skip-unknown", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["skipped_characters"] == 2
    assert "2 unknown characters skipped" in captured.err


def test_duplicate_units_are_merged(trained_run: Path) -> None:
    found = explore(
        charloom.load(trained_run), EVERY_LABEL, units=["h3", "h0.3"], with_activations=False
    )
    assert list(found.activations) == [Unit(0, 0, 3)]
    with pytest.raises(CharloomError, match="not a unit"):
        explore(charloom.load(trained_run), EVERY_LABEL, units=[""])

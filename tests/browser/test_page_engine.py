"""The engines of an exported page, plain and compiled, beside charloom's own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charloom.context_mixing.mixer import ContextMixer
from charloom.context_mixing.packing import settled
from charloom.engines.backend import Backend
from charloom.exchange.html import Cost, export_html, page_of
from charloom.exchange.page_model import as_page_model
from charloom.language_model import LanguageModel
from charloom.ngrams.mixing import Mixture
from charloom.storage.checkpoint import Checkpoint
from charloom.text.vocabulary import END, Vocabulary
from helpers.counts import predictor_with_counts
from helpers.exchange import CHARACTERS, OF_DOCUMENTS, some_model
from helpers.pages import OpenPage
from helpers.player import run_engine
from helpers.texts import PLANTED

LENGTH = 80
WORDS = f"The cat sat on a mat.\nA dog is at the door of the shop: {PLANTED}\n".split()


def text_of(words: int) -> str:
    generator = np.random.default_rng(7)
    lines = (" ".join(generator.choice(WORDS, 6)) for _ in range(words // 6))
    return "\n".join(lines) + "\n"


def network(
    cell: str, layers: int = 1, *, documents: bool = False, norm: str = "none"
) -> Checkpoint:
    characters = OF_DOCUMENTS if documents else CHARACTERS
    parameters = some_model(cell, layers, characters=characters, norm=norm)
    return Checkpoint(parameters, Vocabulary(characters))


def with_counts(
    kind: str, *, documents: bool = False, as_bytes: bool = False, **config: Any
) -> Checkpoint:
    """Return a network with random weights and counts that have learned a text."""
    text = text_of(600)
    if documents:
        text = text.replace("\n", END)
    if as_bytes:
        text = text.replace("mat", "måt").encode().decode("latin-1")
    vocabulary = Vocabulary.of(text, as_bytes=as_bytes)
    predictor = predictor_with_counts(kind, vocabulary, vocabulary.encode(text), **config)
    mixture = predictor.mixture
    if isinstance(mixture.counts, ContextMixer):  # rounded, as in a file
        mixer = settled(mixture.counts, vocabulary, np.inf).mixer
        mixture = Mixture(mixer, mixture.theta)
    parameters = predictor.engine.parameters
    parameters.flat[:] /= 2  # for a network that is not chaotic, in which rounding does not grow
    for values in parameters.values():
        if values.ndim == 1:  # no two biases or gains of normalized products are equal
            values += np.random.default_rng(8).normal(0, 0.1, values.shape)
    return Checkpoint(parameters, vocabulary, mixture=mixture)


CASES: dict[str, Callable[[], Checkpoint]] = {
    "rnn": lambda: network("rnn"),
    "gru of 2 layers and documents": lambda: network("gru", 2, documents=True),
    "lstm of 3 layers": lambda: network("lstm", 3),
    "n-grams": lambda: with_counts("table", cell="rnn"),
    "documents with n-grams": lambda: with_counts("table", cell="lstm", documents=True),
    "a mixer": lambda: with_counts("mixer", cell="lstm", layers=2),
    "bytes that a network reads from a mixer": lambda: with_counts("mixer-read", as_bytes=True),
    "documents of a mixer": lambda: with_counts("mixer-read", documents=True),
    "normalized lstm of 2 layers": lambda: network("lstm", 2, documents=True, norm="rms"),
    "a mixer that a normalized gru reads": lambda: with_counts("mixer-read", norm="rms"),
}
EXTENDED: dict[str, Callable[[], Checkpoint]] = {
    f"{cell} with {kind} and {layers} layers": (
        lambda kind=kind, cell=cell, layers=layers: with_counts(kind, cell=cell, layers=layers)
    )
    for kind in ("table", "mixer-read")
    for cell in ("rnn", "gru", "lstm")
    for layers in (1, 2)
}
FURTHER = [pytest.param(make, marks=pytest.mark.extended) for make in EXTENDED.values()]
every_case = pytest.mark.parametrize("make", [*CASES.values(), *FURTHER], ids=[*CASES, *EXTENDED])


def page_with(checkpoint: Checkpoint) -> str:
    """Return a page with all of a model."""
    model, fitted = LanguageModel(checkpoint), as_page_model(checkpoint, 16)
    return page_of(model, fitted, Cost.longest(16))


@pytest.fixture(scope="module")
def window(browser: Any) -> Any:
    return browser.new_page()


# Ids and samples, up to the end of a document.
SCRIPT = """
  const state = model.newState();
  const logs = %s.map((id) => Array.from(model.step(state, id)));
  const samples = %s.map(([settings, seed]) => {
    const state = model.newState(), random = new RandomNumbers(seed, 0), ids = [];
    for (let last = header.start; ids.length < %d;) {
      last = chooseNext(model.step(state, last), settings, random.next());
      if (last === header.end) break;
      ids.push(last);
    }
    return ids;
  });
  return { logs, samples };"""


def answers(
    window: Any, page: str, ids: Any, samples: Any = (), *, compiled: bool
) -> tuple[Any, list[list[int]]]:
    """Return the log-probabilities after ids, and samples by settings and seeds."""
    script = SCRIPT % (json.dumps(np.asarray(ids).tolist()), json.dumps(samples), LENGTH)
    found = run_engine(window, page, script, compiled=compiled)
    return np.array(found["logs"]), found["samples"]


def reference_log_probabilities(checkpoint: Checkpoint, ids: Any) -> np.ndarray:
    model = LanguageModel(checkpoint, backend=Backend("reference"))
    inputs = np.asarray(ids, np.intp)[:, None]
    found, _ = model.predictor.log_probabilities(inputs, model.predictor.zero_state(1))
    return np.asarray(found[:, 0])


@every_case
def test_a_page_predicts_as_the_model(make: Callable[[], Checkpoint], window: Any) -> None:
    checkpoint = make()
    model = LanguageModel(checkpoint)
    page = page_with(checkpoint)
    exported = LanguageModel(as_page_model(checkpoint, 16).checkpoint)
    vocabulary = model.vocabulary
    ids = np.random.default_rng(3).integers(0, len(vocabulary), LENGTH)
    written = vocabulary.encode("".join(model.stream(length=LENGTH, seed=1).characters))
    ids = np.concatenate([[vocabulary.start_id], written, ids, written])
    expected = reference_log_probabilities(exported.checkpoint, ids)
    original = reference_log_probabilities(checkpoint, ids)
    settings = {"temperature": 0.8, "top_k": 9, "top_p": 0.95, "min_p": 0.01}
    samples = [({"temperature": 0}, 0), (settings, 5)]
    for compiled in (False, True):
        found, drawn = answers(window, page, ids, samples, compiled=compiled)
        np.testing.assert_allclose(found, expected, atol=1e-4)  # rounded alike
        np.testing.assert_allclose(found, original, atol=1e-3)
        for sample, (chosen, seed) in zip(drawn, samples, strict=True):
            text = exported.stream(length=LENGTH, seed=seed, **chosen).characters
            assert vocabulary.decode(sample) == "".join(text)


def test_a_smaller_page_predicts_almost_the_same(window: Any) -> None:
    checkpoint = with_counts("mixer-read")
    model = LanguageModel(checkpoint)
    smaller = export_html(model, size=len(page_with(checkpoint)) * 0.8e-6)
    assert "weights of 8 bits" in smaller.cost
    assert "of the contexts" in smaller.cost
    ids = np.append(model.vocabulary.start_id, model.vocabulary.encode(text_of(60)))
    original = reference_log_probabilities(checkpoint, ids[:-1])
    places = np.arange(len(original)), ids[1:].astype(np.intp)
    plain, compiled = (
        answers(window, smaller, ids[:-1], compiled=compiled)[0] for compiled in (False, True)
    )
    np.testing.assert_allclose(plain, compiled, atol=1e-4)
    assert abs(plain[places].mean() - original[places].mean()) < 0.2


def test_random_numbers_are_those_of_numpy(window: Any) -> None:
    page = page_with(network("rnn"))
    for seed, index in ((0, 0), (7, 3), (2**32, 0), (2**97 + 12345, 2**33), (10**60, 1)):
        script = f"""
          const random = new RandomNumbers({seed}n, {index}n);
          return Array.from({{ length: 5 }}, () => random.next());"""
        expected = np.random.Generator(np.random.PCG64([seed, index])).random(5)
        assert run_engine(window, page, script) == expected.tolist()


def test_settings_choose_as_they_do_in_python(window: Any) -> None:
    page = page_with(network("rnn"))
    logs = [-0.5, -2.0, -2.0, -1.5, -9.0]
    cases = [
        ({"temperature": 1, "top_k": 2}, None, {0, 3}),
        ({"temperature": 1, "top_k": 3}, None, {0, 1, 3}),  # of equal ones the first
        ({"temperature": 1, "top_p": 0.7}, None, {0, 3}),
        ({"temperature": 1, "min_p": 0.2}, None, {0, 1, 2, 3}),
        ({"temperature": 1, "top_k": 2}, [1, 0, 0, 0, 0], {1, 3}),
        ({"temperature": 0}, [1, 0, 0, 0, 0], {3}),
        ({"temperature": 1e-9}, None, {0}),
    ]
    for settings, excluded, expected in cases:
        script = f"""
          return Array.from({{ length: 100 }}, (_, i) => chooseNext({logs},
            {json.dumps(settings)}, (i + 0.5) / 100, {json.dumps(excluded)}));"""
        assert set(run_engine(window, page, script)) == expected


def test_a_page_reads_text_as_the_model_does(window: Any) -> None:
    texts = ["abé", "abe\u0301", "a\r\nb\rc", "\ufeffab", "字é\n", "a\u0301e\u0301"]
    for checkpoint in (network("rnn"), with_counts("table", as_bytes=True)):
        model = LanguageModel(checkpoint)
        page = page_with(checkpoint)
        for text in texts:
            found = run_engine(window, page, f"return encodeText(header, {json.dumps(text)});")
            assert found["ids"] == model.encode(text, skip_unknown=True).tolist()


def test_html_in_a_corpus_stays_text(open_page: OpenPage, tmp_path: Path) -> None:
    checkpoint = with_counts("table")
    checkpoint.text["name"] = f"</title></script>{PLANTED}"
    page = page_with(checkpoint)
    (path := tmp_path / "page.html").write_text(page, encoding="utf-8")
    opened = open_page(path)
    opened.locator("h1").wait_for()
    assert opened.locator("h1").text_content() == checkpoint.text["name"]
    assert opened.evaluate("window.planted") is None
    assert page.count("<script>") == page.count("<style>") == 1

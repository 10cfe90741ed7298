"""From a prompt to text."""

import itertools

import numpy as np
import pytest

from charloom.decoding import SamplingSettings
from charloom.engines import Engine, open_engine
from charloom.errors import CharloomError
from charloom.model import ModelConfig, initialize
from charloom.sampling import read_prompt, stream_text
from charloom.vocabulary import Vocabulary

VOCABULARY = Vocabulary(tuple("\nabcdefgh"))


@pytest.fixture(scope="module")
def engine() -> Engine:
    parameters = initialize(ModelConfig("gru", 8, 1, len(VOCABULARY)), seed=3)
    parameters.flat[:] *= 3
    return open_engine("auto", parameters)


def draw(engine: Engine, **settings) -> str:  # type: ignore[no-untyped-def]
    return "".join(stream_text(engine, VOCABULARY, **settings))


def test_length_seed_and_index(engine: Engine) -> None:
    text = draw(engine, length=100, seed=5)
    assert len(text) == 100
    assert text == draw(engine, length=100, seed=5)
    assert draw(engine, length=40, seed=5) == text[:40]
    assert draw(engine, length=0) == ""
    assert (
        len({text, draw(engine, length=100, seed=6), draw(engine, length=100, seed=5, index=1)})
        == 3
    )


def test_a_sample_without_end(engine: Engine) -> None:
    pieces = stream_text(engine, VOCABULARY, length=None, seed=5)
    text = "".join(itertools.islice(pieces, 10))
    assert draw(engine, length=len(text), seed=5) == text


def test_the_prompt_is_read_after_a_newline(engine: Engine) -> None:
    prompt = VOCABULARY.encode("abc")
    last, state = read_prompt(engine, VOCABULARY, prompt)
    expected = engine.config.zero_state(1)
    for character in "\nab":
        _, expected = engine.step(VOCABULARY.encode(character).astype(int), expected)
    assert VOCABULARY.characters[last] == "c"
    assert state.tobytes() == expected.tobytes()
    assert draw(engine, prompt=prompt, length=50) != draw(engine, length=50)


@pytest.mark.parametrize("size", [1, 2, 5, 17, 40])
def test_a_stop_text_ends_the_sample_and_is_left_out(engine: Engine, size: int) -> None:
    text = draw(engine, length=300, seed=5)
    stop = text[100 : 100 + size]
    expected = text[: text.index(stop)]
    assert draw(engine, length=300, seed=5, stop=(stop,)) == expected
    assert draw(engine, length=300, seed=5, stop=("not there", stop)) == expected


def test_the_first_of_several_stop_texts_counts(engine: Engine) -> None:
    text = draw(engine, length=300, seed=5)
    late, early = text[200:210], text[120:140]
    assert draw(engine, length=300, seed=5, stop=(late, early)) == text[: text.index(early)]


def test_the_beginning_of_a_stop_text_is_given_out_when_it_does_not_go_on(engine: Engine) -> None:
    text = draw(engine, length=64, seed=5)
    assert draw(engine, length=64, seed=5, stop=(text[60:] + "\n\n\n\n",)) == text


def test_greedy_takes_no_chances(engine: Engine) -> None:
    greedy = SamplingSettings(0)
    assert draw(engine, length=50, settings=greedy, seed=1) == draw(
        engine, length=50, settings=greedy, seed=2
    )


@pytest.mark.parametrize("settings", [{"length": -1}, {"seed": -1}, {"stop": ("",)}])
def test_nonsense_is_refused(engine: Engine, settings: dict[str, int]) -> None:
    with pytest.raises(CharloomError):
        draw(engine, **settings)


def test_samples_do_not_depend_on_pieces(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    text = draw(engine, length=100, seed=5)
    monkeypatch.setattr("charloom.sampling.FIRST_DRAWN", 3)
    monkeypatch.setattr("charloom.sampling.MOST_DRAWN", 7)
    assert draw(engine, length=100, seed=5) == text
    assert np.unique(list(text)).size > 1

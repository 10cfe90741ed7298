"""From a prompt to text."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from charloom.constraints.protocol import Constraints
from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import Engine
from charloom.errors import CharloomError
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.prediction.sampling import (
    OverlapGuard,
    SampleRequest,
    StopTexts,
    read_prompt,
    stream_text,
)
from charloom.text.overlap import TrainingIndex
from charloom.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary(tuple("\nabcdefgh"))


@pytest.fixture(scope="module")
def engine() -> Engine:
    parameters = initialize(ModelConfig("gru", 8, 1, len(VOCABULARY)), seed=3)
    parameters.flat[:] *= 3
    return Backend("auto").open(parameters)


def draw(engine: Engine, **settings) -> str:  # type: ignore[no-untyped-def]
    return "".join(stream_text(engine, VOCABULARY, SampleRequest(**settings)))


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
    pieces = stream_text(engine, VOCABULARY, SampleRequest(length=None, seed=5))
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


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_stop_text_that_is_complete_first_counts(size: int) -> None:
    stops = StopTexts(("bcdef", "d"))
    given, ended = "", False
    for begin in range(0, 8, size):
        ready, ended = stops.add("abcdefgh"[begin : begin + size])
        given += ready
        if ended:
            break
    assert (given, ended) == ("abc", True)


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
    monkeypatch.setattr("charloom.prediction.sampling.FEWEST_AT_ONCE", 3)
    monkeypatch.setattr("charloom.prediction.sampling.MOST_AT_ONCE", 7)
    assert draw(engine, length=100, seed=5) == text
    assert np.unique(list(text)).size > 1


TRAINING = "".join(np.random.default_rng(1).choice(list("\nabcdefgh"), 400))


def guard(most: int, training: str = TRAINING) -> OverlapGuard:
    return OverlapGuard(TrainingIndex(VOCABULARY.encode(training), len(VOCABULARY)), most)


@pytest.mark.parametrize("name", ["auto", "reference"])
@pytest.mark.parametrize("temperature", [0, 0.5, 1])
@pytest.mark.parametrize("prompt", ["", "a", TRAINING[50:90]])
def test_under_a_guard_nothing_longer_is_copied(
    engine: Engine, name: str, temperature: float, prompt: str
) -> None:
    engine = Backend(name).open(engine.parameters)
    settings: dict[str, object] = {"settings": SamplingSettings(temperature), "length": 150}
    settings["prompt"] = VOCABULARY.encode(prompt)
    copied = 0
    for seed in range(5):
        for most in (2, 3):
            text = prompt + draw(engine, seed=seed, guard=guard(most), **settings)
            assert len(text) == len(prompt) + 150
            ends = range(max(len(prompt), most) + 1, len(text) + 1)
            assert not any(text[end - most - 1 : end] in TRAINING for end in ends)
        plain = prompt + draw(engine, seed=seed, **settings)
        ends = range(max(len(prompt), 3) + 1, len(plain) + 1)
        copied += sum(plain[end - 3 : end] in TRAINING for end in ends)
    assert copied, "without a guard there is something to keep from"


@pytest.mark.parametrize("name", ["auto", "reference"])
@pytest.mark.parametrize("most", [1, 12, 401, 10**400])
def test_a_guard_that_excludes_nothing_changes_nothing(
    engine: Engine, name: str, most: int
) -> None:
    engine = Backend(name).open(engine.parameters)
    prompt = VOCABULARY.encode("gab")
    for temperature in (0, 0.7):
        settings = SamplingSettings(temperature, top_k=7, top_p=0.95)
        plain = draw(engine, length=300, prompt=prompt, settings=settings, seed=2)
        training = TRAINING if most > 1 else "a"  # followed by nothing
        guarded = draw(
            engine,
            length=300,
            prompt=prompt,
            settings=settings,
            seed=2,
            guard=guard(most, training),
        )
        assert guarded == plain


@pytest.mark.parametrize("size", [40, 300])  # ids of one byte and of two
@pytest.mark.parametrize("constrained", [False, True])
def test_a_kernel_excludes_copies_as_python_does(
    size: int, constrained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba", reason="the compiled engine needs Numba")
    vocabulary = Vocabulary(("\n", *(chr(0x4E00 + i) for i in range(size - 1))))
    engine = Backend("compiled", 1).open(initialize(ModelConfig("gru", 8, 1, size), seed=1))
    engine.parameters.flat[:] *= 3
    engine.parameters_changed()
    training = np.random.default_rng(2).integers(0, 20, 3000)
    training[::7] = size - 1
    bias = np.where(np.arange(size) < 20, 2.0, 0.0)
    request = SampleRequest(
        np.array([3, size - 1], vocabulary.id_type),
        length=400,
        seed=3,
        guard=OverlapGuard(TrainingIndex(training, size), 2),
        constraints=Constraints(bias=bias) if constrained else None,
    )
    found = "".join(stream_text(engine, vocabulary, request))
    monkeypatch.setattr(type(engine), "takes_restrictions", False)
    assert found == "".join(stream_text(engine, vocabulary, request))
    free = "".join(stream_text(engine, vocabulary, replace(request, guard=None)))
    assert found != free


def test_an_index_of_a_huge_text_is_kept_from_kernels(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pydivsufsort

    expected = draw(engine, length=150, seed=1, guard=guard(2))
    sort = pydivsufsort.divsufsort
    # As it is above 2 GiB.
    monkeypatch.setattr(pydivsufsort, "divsufsort", lambda text: sort(text).astype(np.int64))
    assert draw(engine, length=150, seed=1, guard=guard(2)) == expected


def test_what_is_excluded_leaves_the_choice_to_the_rest(engine: Engine) -> None:
    """Greedy and top_k take the likeliest of what is left, not nothing."""
    likeliest = draw(engine, length=1, settings=SamplingSettings(0), prompt=VOCABULARY.encode("a"))
    for settings in (SamplingSettings(0), SamplingSettings(top_k=1), SamplingSettings(top_p=1e-9)):
        drawn = draw(
            engine,
            length=1,
            settings=settings,
            prompt=VOCABULARY.encode("a"),
            guard=guard(1, "a" + likeliest),
        )
        assert drawn != likeliest
        assert len(drawn) == 1


@pytest.mark.parametrize("constraints", [None, Constraints(bias=np.zeros(len(VOCABULARY)))])
def test_where_nothing_is_left_the_sample_ends_and_says_so(
    engine: Engine, constraints: Constraints | None
) -> None:
    # After an h each of the characters would copy two in a row; after most others only an a would.
    training = "".join("h" + character + "a" for character in VOCABULARY.characters)
    seen: list[str] = []
    request = SampleRequest(length=9999, seed=1, guard=guard(1, training), stop=("hhhh",))
    pieces = stream_text(engine, VOCABULARY, replace(request, constraints=constraints))
    with pytest.raises(CharloomError, match=r"--max-overlap") as caught:
        seen.extend(pieces)
    text = "".join(seen)
    assert text.index("h") == len(text) - 1
    assert f"after {len(text)} characters" in str(caught.value)
    # What was asked for before that is drawn without an error, and so is what a stop text ends.
    assert draw(engine, length=len(text), seed=1, guard=guard(1, training)) == text
    assert draw(engine, length=9999, seed=1, guard=guard(1, training), stop=("h",)) == text[:-1]
    with pytest.raises(CharloomError, match="after 0 characters"):
        draw(engine, prompt=VOCABULARY.encode("h"), guard=guard(1, training))

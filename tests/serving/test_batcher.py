"""Many requests to one model: each gets the text it would get alone."""

import gc
import itertools
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings, choose
from charloom.engines.protocol import Predictor
from charloom.errors import CharloomError
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.prediction.mixture import MixedPredictor, fit_mixture, fit_ngram_table
from charloom.prediction.rows import join_states, rows_of, state_bytes
from charloom.prediction.sampling import SampleRequest, stream_text
from charloom.prediction.scoring import Protocol, score_ids
from charloom.serving import batcher as batcher_module
from charloom.serving import prompt_reader
from charloom.serving.batcher import Batcher
from charloom.serving.prompt_cache import PromptCache
from charloom.serving.requests import Answer, BusyError, Request
from charloom.serving.text_sampler import TextSampler
from charloom.text.vocabulary import Vocabulary
from helpers.counts import predictor_with_counts
from helpers.waiting import wait_until

VOCABULARY = Vocabulary(tuple("\n abcdefghij"))


SIZE = len(VOCABULARY)


IDS = np.random.default_rng(3).integers(0, SIZE, 3_000).astype(np.uint8)


IDS[1500:2500] = IDS[:1000]


def make(kind: str, engine: str = "auto") -> Predictor:
    cell = "lstm" if kind == "lstm" else "gru"
    parameters = initialize(ModelConfig(cell, 24, 2, SIZE), seed=3)
    parameters.flat[:] *= 2
    network = Backend(engine, threads=1).open(parameters)
    if kind == "reading":
        return predictor_with_counts(
            "mixer-read", VOCABULARY, IDS, engine, hidden_size=24, layers=2
        )
    if kind != "mixture":
        return network
    table = fit_ngram_table(IDS[:2000], SIZE, 4, 1e6)
    return MixedPredictor(network, fit_mixture(network, table, IDS[2000:], 0, 4))


@pytest.fixture(
    scope="module",
    params=[
        ("gru", "auto"),
        ("lstm", "auto"),
        ("mixture", "auto"),
        ("mixture", "reference"),
        ("reading", "auto"),
    ],
    ids="-".join,
)
def predictor(request: pytest.FixtureRequest) -> Predictor:
    return make(*request.param)


@pytest.fixture(scope="module")
def small() -> Predictor:
    return make("gru")


@pytest.fixture
def start() -> Iterator[Callable[..., Batcher]]:
    """Makes batchers that end with the test."""
    batchers: list[Batcher] = []

    def make_batcher(predictor: Predictor, **settings: Any) -> Batcher:
        batchers.append(Batcher(predictor, VOCABULARY, **settings))
        return batchers[-1]

    yield make_batcher
    for batcher in batchers:
        batcher.close()


def ids_of(text: str) -> np.ndarray:
    return VOCABULARY.encode("\n" + text)


def alone(predictor: Predictor, request: Request) -> list[str]:
    """The texts as sampling draws them."""
    return [
        "".join(
            stream_text(
                predictor,
                VOCABULARY,
                SampleRequest(
                    prompt=request.prompt[1:],
                    length=request.length,
                    settings=request.settings,
                    stop=tuple(request.stop),
                    seed=request.seed,
                    index=index,
                ),
            )
        )
        for index in request.indices
    ]


def random_request(generator: np.random.Generator) -> Request:
    prompt = "".join(generator.choice(VOCABULARY.characters, generator.integers(0, 80)))
    first = int(generator.integers(0, 3))
    return Request(
        ids_of(prompt),
        int(generator.integers(0, 60)),
        SamplingSettings(
            float(generator.choice([0, 0.6, 1, 1.4])),
            top_k=generator.choice([None, 5]),
            top_p=generator.choice([None, 0.9]),
        ),
        stop=("ab", "bca", "j\n")[: generator.integers(0, 4)],
        seed=int(generator.integers(0, 5)),
        indices=range(first, first + int(generator.integers(1, 4))),
        alternatives=generator.choice([None, 0, 3]),
        scores_prompt=bool(generator.random() < 0.3),
        streams=bool(generator.random() < 0.5),
    )


def text_of(answer: Answer) -> list[str]:
    return [piece.text for piece in answer.wait()]


# --- The text -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("most_texts", "alike"), [(3, False), (40, False), (40, True)])
def test_text_is_independent_of_the_batch(
    predictor: Predictor, start: Callable[..., Batcher], most_texts: int, alike: bool
) -> None:
    batcher = start(predictor, most_texts=most_texts)
    generator = np.random.default_rng(most_texts)
    requests = [random_request(generator) for _ in range(40)]
    if alike:  # then several characters are drawn in one turn
        settings = SamplingSettings(0.8)
        requests = [replace(request, settings=settings, alternatives=None) for request in requests]
    answers: dict[int, Answer] = {}
    texts: dict[int, list[str]] = {}

    def client(numbers: range) -> None:
        for number in numbers:
            while number not in answers:
                try:
                    (answers[number],) = batcher.submit(requests[number])
                except BusyError:
                    time.sleep(0.001)
            if number % 3 == 0:
                texts[number] = text_of(answers[number])

    threads = [threading.Thread(target=client, args=(range(k, 40, 4),)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, request in enumerate(requests):
        found = texts.get(number) or text_of(answers[number])
        assert found == alone(predictor, request)
    wait_until(lambda: batcher.active == batcher.waiting == 0)


def biased_alone(predictor: Predictor, request: Request) -> str:
    """The first text as the definition has it: the bias is added before everything else."""
    (index,) = request.indices
    generator = np.random.Generator(np.random.PCG64([request.seed, index]))
    addition = np.zeros(SIZE)
    addition[list(request.bias)] = list(request.bias.values())
    ids = request.prompt.astype(np.intp)
    state = predictor.read(ids[:-1, None], predictor.zero_state(1))
    text, last = "", ids[-1:]
    for _ in range(request.length):
        logits, state = predictor.step(last, state)
        uniforms = np.array([generator.random()])
        last = choose(logits.astype(np.float64) + addition, request.settings, uniforms)
        text += VOCABULARY.characters[int(last[0])]
    return text


def test_a_bias_changes_its_own_text_alone(
    predictor: Predictor, start: Callable[..., Batcher]
) -> None:
    batcher = start(predictor)
    generator = np.random.default_rng(4)
    plain = [Request(ids_of("ab"), 60, SamplingSettings(0.8), seed=k) for k in range(6)]
    a, b, c = (VOCABULARY.characters.index(character) for character in "abc")
    biased = [
        Request(
            ids_of("".join(generator.choice(VOCABULARY.characters, 20))),
            60,
            SamplingSettings(temperature, top_k=top_k),
            bias=bias,
            seed=k,
            alternatives=k % 2 or None,
        )
        for k, (bias, temperature, top_k) in enumerate(
            [
                ({a: -np.inf}, 0.8, None),
                ({a: 2.5, b: -1.0}, 1.0, 5),
                ({c: 100.0}, 1.0, None),
                ({a: 3.0, b: 3.0}, 0.0, None),
                ({a: -np.inf}, 50.0, None),
            ]
        )
    ]
    answers = batcher.submit(*(one for pair in zip(plain, biased, strict=False) for one in pair))
    for request, answer in zip(plain, answers[::2], strict=False):
        assert text_of(answer) == alone(predictor, request)
    texts = []
    for request, answer in zip(biased, answers[1::2], strict=True):
        (piece,) = answer.wait()
        assert piece.text == biased_alone(predictor, request)
        assert len(piece.scored) == (len(piece.text) if request.alternatives else 0)
        texts.append(piece.text)
    assert "a" not in texts[0] + texts[4]
    assert set(texts[2]) == {"c"}


def test_scores_leave_the_bias_out(small: Predictor, start: Callable[..., Batcher]) -> None:
    request = Request(ids_of("ab"), 20, bias={3: 100.0}, alternatives=0)
    (answer,) = start(small).submit(request)
    (piece,) = answer.wait()
    expected = score_ids(
        small, VOCABULARY.encode("ab" + piece.text), VOCABULARY.start_id, Protocol()
    )
    values = [score.log_probability for score in piece.scored]
    np.testing.assert_allclose(values, expected.log_probabilities[2:], atol=2e-5)


def test_stop_text_is_included_with_its_scores(
    small: Predictor, start: Callable[..., Batcher]
) -> None:
    request = Request(ids_of("ab"), 200, SamplingSettings(0.8), alternatives=0)
    (whole,) = alone(small, request)
    stop = whole[50:53]
    end = whole.index(stop) + 3
    for includes in (True, False):
        stopping = replace(request, stop=(whole[150:160], stop), includes_stop=includes)
        (answer,) = start(small).submit(stopping)
        (piece,) = answer.wait()
        assert piece.text == whole[: end if includes else end - 3]
        assert len(piece.scored) == len(piece.text)
        assert piece.end == "stop"


def test_stream_arrives_in_pieces(
    small: Predictor, start: Callable[..., Batcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of the test's own: ten characters or so at a time."""
    looks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: batcher_module.NOTIFY_INTERVAL / 10 * next(looks))
    monkeypatch.setattr(batcher_module, "time", clock)
    notified: list[Answer] = []
    batcher = start(small, notify=notified.extend)
    request = Request(ids_of("ab"), 3_000, streams=True, alternatives=0, stop=("jij",))
    (answer,) = batcher.submit(request)
    text, pieces, end = "", 0, None
    while end is None:
        for piece in answer.take():
            assert len(piece.scored) == len(piece.text)
            assert "".join(VOCABULARY.characters[s.id] for s in piece.scored) == piece.text
            text, pieces, end = text + piece.text, pieces + 1, piece.end
    assert pieces > 1
    assert [text] == alone(small, request)
    assert 1 < notified.count(answer) < answer.sampled / 2  # not for every character


def test_the_cache_changes_no_text(predictor: Predictor, start: Callable[..., Batcher]) -> None:
    batcher = start(predictor)
    prompt = "".join(np.random.default_rng(5).choice(VOCABULARY.characters, 700))
    first = Request(ids_of(prompt), 30)
    (answer,) = batcher.submit(first)
    (text,) = text_of(answer)
    assert answer.cached == 0
    assert batcher.stats.read == len(prompt)
    # The same again; with another end; from what was drawn; from somewhere in the middle.
    for more, cached in (
        (prompt, 700),
        (prompt + "abc", 700),
        (prompt + text + "a", 700 + 30),
        (prompt[:600] + "jjj", 512),
        (prompt[:200], 0),
    ):
        request = Request(ids_of(more), 20, seed=2)
        read = batcher.stats.read
        (answer,) = batcher.submit(request)
        assert text_of(answer) == alone(predictor, request)
        assert answer.cached == cached
        assert batcher.stats.read - read == len(more) - cached


def test_scores_are_the_protocol_s(predictor: Predictor, start: Callable[..., Batcher]) -> None:
    batcher = start(predictor)
    prompt = "".join(np.random.default_rng(6).choice(VOCABULARY.characters, 300))
    request = Request(ids_of(prompt), 25, alternatives=3, scores_prompt=True)
    (answer,) = batcher.submit(request)
    (piece,) = answer.wait()
    assert [piece.text] == alone(predictor, request)
    ids = VOCABULARY.encode(prompt + piece.text)
    expected = score_ids(predictor, ids, VOCABULARY.start_id, Protocol(), likeliest=3)
    found = answer.prompt_scores + piece.scored
    assert [score.id for score in found] == ids.tolist()
    values = [score.log_probability for score in found]
    np.testing.assert_allclose(values, expected.log_probabilities, atol=2e-5)
    for score, best in zip(found, expected.likeliest_probabilities, strict=True):
        np.testing.assert_allclose(np.exp([p for _, p in score.likeliest]), best, atol=2e-5)
        for id_, log_p in score.likeliest:  # the very same number, which clients look for
            assert id_ != score.id or log_p == score.log_probability


def test_scores_are_the_same_alone_and_in_company(
    predictor: Predictor, start: Callable[..., Batcher]
) -> None:
    batcher = start(predictor)
    generator = np.random.default_rng(8)
    requests = [
        Request(
            ids_of("".join(generator.choice(VOCABULARY.characters, size))),
            20,
            alternatives=2,
            scores_prompt=True,
        )
        for size in generator.integers(0, 600, 30)
    ]
    together = batcher.submit(*requests)
    for request, answer in zip(requests, together, strict=True):
        (piece,) = answer.wait()
        (alone_,) = batcher.submit(request)
        assert alone_.wait() == [piece]
        assert alone_.prompt_scores == answer.prompt_scores
        assert len(answer.prompt_scores) == len(request.prompt) - 1


# --- Coming and going -----------------------------------------------------------------------------


def test_a_cancelled_request_ends_at_once(small: Predictor, start: Callable[..., Batcher]) -> None:
    batcher = start(small, most_texts=2)
    running = Request(ids_of("a"), 10_000_000)
    first, second = batcher.submit(running, running)
    (waiting,) = batcher.submit(Request(ids_of("b"), 5))
    (other,) = batcher.submit(Request(ids_of("c"), 5))
    wait_until(lambda: first.sampled > 10)
    other.cancel()
    second.cancel()
    assert text_of(waiting) == alone(small, Request(ids_of("b"), 5))
    assert not first.ended
    first.cancel()
    wait_until(lambda: batcher.active == batcher.waiting == 0)
    assert batcher.stats.cancelled == 3
    assert other.sampled == 0
    steps = batcher.stats.steps
    time.sleep(0.02)
    assert batcher.stats.steps == steps


def test_requests_beyond_the_queue_are_refused(
    small: Predictor, start: Callable[..., Batcher]
) -> None:
    batcher = start(small, most_texts=2)
    endless = Request(ids_of("a"), 10_000_000)
    answers = [batcher.submit(endless)[0] for _ in range(4)]
    with pytest.raises(BusyError):
        batcher.submit(endless)
    assert batcher.stats.refused == 1
    for answer in answers:
        answer.cancel()
    wait_until(lambda: batcher.active == batcher.waiting == 0)
    batcher.submit(Request(ids_of("a"), 1))[0].wait()


def test_texts_that_begin_are_counted_once(
    small: Predictor, start: Callable[..., Batcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, counted = TextSampler.begin, []

    def count(sampler: TextSampler, prompts: Any) -> None:
        begin(sampler, prompts)
        if prompts:
            counted.append(batcher.active)

    monkeypatch.setattr(TextSampler, "begin", count)
    batcher = start(small, most_texts=2)
    batcher.submit(Request(ids_of("a"), 1, indices=range(2)))[0].wait()
    assert counted == [2]


def test_long_prompts_do_not_block_streams(small: Predictor, start: Callable[..., Batcher]) -> None:
    batcher = start(small)
    (stream,) = batcher.submit(Request(ids_of("a"), 10_000_000))
    wait_until(lambda: stream.sampled > 10)
    prompt = ids_of("abcdefghij" * 2_000)
    scored = Request(prompt, 0, alternatives=1, scores_prompt=True)
    before, turns = stream.sampled, batcher.stats.steps
    for answer in batcher.submit(scored, Request(prompt[:-1], 1)):
        answer.wait()
    # The stream got its characters between the pieces.
    assert stream.sampled - before > len(prompt) / prompt_reader.SCORED_OF_EACH
    assert batcher.stats.steps - turns > len(prompt) / prompt_reader.SCORED_OF_EACH
    stream.cancel()


def record_turns(predictor: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of characters of each text in every turn."""
    turns: list[int] = []
    generate, step = predictor.generate, predictor.step

    def generate_and_record(last: Any, state: Any, settings: Any, uniforms: Any) -> Any:
        turns.append(len(uniforms))
        return generate(last, state, settings, uniforms)

    def step_and_record(*arguments: Any) -> Any:
        turns.append(0)
        return step(*arguments)

    monkeypatch.setattr(predictor, "generate", generate_and_record)
    monkeypatch.setattr(predictor, "step", step_and_record)
    return turns


def test_a_turn_samples_no_more_than_a_text_has(
    start: Callable[..., Batcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, request = make("gru"), Request(ids_of("a"), 300)
    expected = alone(predictor, request)
    turns = record_turns(predictor, monkeypatch)
    assert text_of(start(predictor).submit(request)[0]) == expected
    assert turns == [16, 16, 32, 64, 64, 64, 44]


def test_a_short_prompt_costs_the_others_no_turn(
    start: Callable[..., Batcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = make("gru")
    turns = record_turns(predictor, monkeypatch)
    batcher = start(predictor)
    (stream,) = batcher.submit(Request(ids_of("a"), 10_000_000))
    wait_until(lambda: stream.sampled > 100)
    for _ in range(3):
        batcher.submit(Request(ids_of("b"), 16))[0].wait()
    stream.cancel()
    assert min(turns) == 16


def test_failing_model_fails_its_requests_and_recovers(
    start: Callable[..., Batcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = make("gru")
    batcher = start(predictor)
    generate = predictor.generate

    def fail(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(predictor, "generate", fail)
    (answer,) = batcher.submit(Request(ids_of("a"), 5))
    with pytest.raises(MemoryError):
        answer.wait()
    monkeypatch.setattr(predictor, "generate", generate)
    request = Request(ids_of("a"), 5)
    assert text_of(batcher.submit(request)[0]) == alone(predictor, request)


def test_closing_ends_what_runs(small: Predictor) -> None:
    batcher = Batcher(small, VOCABULARY, most_texts=1)
    answers = batcher.submit(Request(ids_of("a"), 10_000_000), Request(ids_of("b"), 1))
    batcher.close()
    for answer in answers:
        with pytest.raises(CharloomError, match="shutting down"):
            answer.wait()
    with pytest.raises(BusyError):
        batcher.submit(Request(ids_of("a"), 1))
    with pytest.raises(CharloomError, match="too few"):
        Batcher(small, VOCABULARY, most_texts=0)


# --- States and the cache -------------------------------------------------------------------------


def test_states_are_taken_apart_and_joined(predictor: Predictor) -> None:
    state = predictor.zero_state(5)
    for ids in IDS[:50].reshape(10, 5).astype(np.intp):
        logits, state = predictor.step(ids, state)
    apart = [rows_of(state, [row]) for row in (3, 0, 3)]
    joined = join_states([apart[0], join_states(apart[1:])])
    assert 5 * state_bytes(joined) == 3 * state_bytes(state)
    following, _ = predictor.step(np.array([1, 2, 3]), joined)
    expected, _ = predictor.step(np.array([2, 0, 0, 1, 0]), state)
    other, _ = predictor.step(np.array([0, 0, 0, 3, 0]), state)
    assert following[0].tobytes() == expected[3].tobytes()
    assert following[1].tobytes() == expected[0].tobytes()
    assert following[2].tobytes() == other[3].tobytes()
    assert logits.shape == (5, SIZE)


def test_the_cache_keeps_to_its_bytes_and_forgets_the_unused() -> None:
    state = np.zeros((1, 1, 1, 100))
    cache = PromptCache(5 * state.nbytes)
    prompts = [np.arange(n, n + 10) for n in range(8)]
    for prompt in prompts:
        cache.put(prompt, state + prompt[0])
        cache.longest(prompts[0])  # stays in use
        assert cache.bytes <= cache.most_bytes
    assert len(cache) == 5
    length, found = cache.longest(np.append(prompts[0], [1, 2]))
    assert (length, found[0, 0, 0, 0]) == (10, 0)
    assert cache.longest(prompts[1]) == (0, None)
    assert cache.longest(prompts[7])[0] == 10
    assert cache.longest(prompts[7][:9]) == (0, None)
    cache.put(prompts[7][:9], state)
    assert cache.longest(prompts[7])[0] == 10
    assert cache.longest(prompts[7][:9])[0] == 9
    PromptCache(10).put(prompts[0], state)  # too large for it


def test_memory_stays_flat(small: Predictor, start: Callable[..., Batcher]) -> None:
    batcher = start(small, cache_bytes=100_000)
    generator = np.random.default_rng(7)

    def serve(count: int) -> None:
        for _ in range(count // 50):
            prompts = ["".join(generator.choice(VOCABULARY.characters, 9)) for _ in range(50)]
            for answer in batcher.submit(*(Request(ids_of(p), 4) for p in prompts)):
                answer.wait()

    def traced() -> int:
        wait_until(lambda: batcher.active == batcher.waiting == 0)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    serve(1_000)
    tracemalloc.start()
    try:
        serve(200)
        sizes = [traced()]
        for _ in range(3):
            serve(1_000)
            sizes.append(traced())
        # What leaks does so every time; what the process holds for something else does not.
        assert min(np.diff(sizes)) < 50_000
    finally:
        tracemalloc.stop()
    assert batcher.cache.bytes <= 100_000

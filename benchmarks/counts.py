"""Measure models with counts beside the network alone: sampling, scoring and adaptive scores.

    python -m benchmarks.counts            a gru of 256 units, Tiny Shakespeare
    python -m benchmarks.counts --smoke    tiny ones

The networks have random weights. Every round measures all models one after another, and the table
shows medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.measuring import default_text
from charloom.context_mixing.mixer import ContextMixer
from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import Engine, Predictor, available_cores
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.ngrams.counts import Counts
from charloom.ngrams.mixing import Mixture, feature_count
from charloom.prediction.adaptive import Adaptation, score_adaptively
from charloom.prediction.mixture import MixedPredictor, fit_ngram_table
from charloom.text.corpora import open_text
from charloom.text.vocabulary import Vocabulary

STREAMS = (1, 16, 64, 256)
NETWORK, TABLE, MIXER = "network alone", "with Kneser-Ney counts", "with a context mixer, read"


def models(
    ids: np.ndarray, vocabulary: Vocabulary, hidden_size: int, threads: int
) -> Iterator[tuple[str, Engine, Mixture | None]]:
    """Yield the name of each model, its network and its counts, which have learned ids (N,)."""
    size = len(vocabulary)
    frequencies = np.bincount(ids, minlength=size)
    mixer = ContextMixer.empty(vocabulary, frequencies, len(ids), text=ids)
    mixer.learn(ids)
    counts: dict[str, Counts | None] = {
        NETWORK: None, TABLE: fit_ngram_table(ids, size, 7, 24e6), MIXER: mixer,
    }  # fmt: skip
    for name, found in counts.items():
        read = size if name == MIXER else 0
        config = ModelConfig("gru", hidden_size, 1, size, extra_inputs=read)
        engine = Backend("compiled", threads).open(initialize(config, seed=0))
        mixture = None
        if found is not None:
            # The network has learned nothing, so that the counts decide almost alone.
            theta = np.zeros(feature_count(found.context))
            theta[0] = -6
            mixture = Mixture(found, theta)
        yield name, engine, mixture


def jobs(
    engine: Engine, mixture: Mixture | None, ids: np.ndarray, characters: int
) -> Iterator[tuple[str, Callable[[], object], int]]:
    """Yield the name of each workload, a function that runs it, and its number of characters."""
    predictor: Predictor = engine if mixture is None else MixedPredictor(engine, mixture)
    generator = np.random.default_rng(0)
    for rows in STREAMS:
        steps = max(2, characters // rows)
        state, first = predictor.zero_state(rows), np.zeros(rows, np.intp)
        uniforms = generator.random((steps, rows))

        def sample(state=state, first=first, uniforms=uniforms) -> object:  # type: ignore[no-untyped-def]
            return predictor.generate(first, state, SamplingSettings(), uniforms)

        name = f"sampling, {rows} stream{'' if rows == 1 else 's'}"
        yield name, sample, rows * steps
    text = ids[: 2 * characters, None].astype(np.intp)
    zeros = predictor.zero_state(1)
    yield "scoring", lambda: predictor.log_probabilities(text, zeros), len(text)
    means = np.full(len(engine.parameters.flat), 1e-4, engine.config.dtype)
    adaptation = Adaptation(3e-4, means, mixture)
    adapted = ids[:characters]
    yield (
        "adaptive scoring",
        lambda: list(score_adaptively(engine, [adapted], 0, adaptation)),
        len(adapted),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--hidden-size", type=int, default=256, help="hidden units")
    parser.add_argument("--threads", type=int, default=available_cores(), help="most threads")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--smoke", action="store_true", help="measure tiny models")
    arguments = parser.parse_args()
    hidden_size = 8 if arguments.smoke else arguments.hidden_size
    characters, length = (200, 2_000) if arguments.smoke else (4_000, 300_000)
    text = "".join(open_text(default_text()).pieces())[:length]
    vocabulary = Vocabulary.of(text)
    ids = vocabulary.encode(text).astype(np.intp)
    speeds: dict[str, dict[str, list[float]]] = {}
    runs = []
    for model, engine, mixture in models(ids, vocabulary, hidden_size, arguments.threads):
        for job, run, count in jobs(engine, mixture, ids, characters):
            run()  # compiles
            runs.append((model, job, run, count))
    for _ in range(1 if arguments.smoke else arguments.rounds):
        for model, job, run, count in runs:
            started = time.perf_counter()
            run()
            seconds = time.perf_counter() - started
            speeds.setdefault(job, {}).setdefault(model, []).append(count / seconds)
    print(f"Characters per second, gru of {hidden_size} units, {arguments.threads} threads:\n")
    print(f"| workload | {NETWORK} | {TABLE} | share | {MIXER} | share |")
    print("|---|---:|---:|---:|---:|---:|")
    for job, found in speeds.items():
        alone, table, mixed = (statistics.median(found[name]) for name in (NETWORK, TABLE, MIXER))
        print(
            f"| {job} | {alone:,.0f} | {table:,.0f} | {table / alone:.0%} | {mixed:,.0f} | "
            f"{mixed / alone:.0%} |"
        )


if __name__ == "__main__":
    main()

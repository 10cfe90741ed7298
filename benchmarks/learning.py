"""Run the experiments behind the rules of `charloom train --minutes`, and fit the rules to them.

    python -m benchmarks.learning           repeat the experiments in results/learning.jsonl
    python -m benchmarks.learning --fit     fit the rules to the recorded results
    python -m benchmarks.learning --speed   measure training speeds
    python -m benchmarks.learning --names FILE [--seeds N]
                                            train on a list of names, as makemore splits it

An experiment trains on a fixed number of characters, with the schedule of a whole run, and is
evaluated on the validation split only. It does not depend on time, so that experiments can run in
parallel. `seconds` is the time that its characters take on two cores of the original machine, whose
speeds are in `results/learning-speed.jsonl`. The text's last tenth is never read.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

import charloom
from charloom.engines.backend import Backend
from charloom.network.initialization import initialize
from charloom.network.optimizers import AdamW, learning_rate_factor
from charloom.network.parameters import ModelConfig
from charloom.prediction.scoring import Protocol, score_ids
from charloom.prediction.validation import validate
from charloom.text.batches import Streams
from charloom.text.corpora import open_text
from charloom.text.dataset import Dataset, Split, character_counts, load_dataset
from charloom.text.source import text_from_string
from charloom.training.planner import multiplications
from charloom.training.setup import rows_of_validation

RESULTS = Path(__file__).parent / "results" / "learning.jsonl"
SPEEDS = Path(__file__).parent / "results" / "learning-speed.jsonl"
POINTS = 10  # validations during training


@dataclass(frozen=True)
class Experiment:
    """The settings of an experiment. `limit` truncates `text` to its first characters, unless 0."""

    characters: int
    hidden_size: int
    seconds: float | None = None
    cell: str = "gru"
    layers: int = 1
    batch_size: int = 16
    window: int = 64
    learning_rate: float = 5e-3
    dropout: float = 0.0
    weight_drop: float = 0.0
    weight_decay: float = 0.01
    beta2: float = 0.999
    unigram_bias: bool = False
    text: str = "tiny-shakespeare"
    limit: int = 0
    split: str = "85/5/10"
    seed: int = 0


def load(experiment: Experiment) -> Dataset:
    text = open_text(experiment.text)
    if experiment.limit:
        text = text_from_string(text.read()[: experiment.limit])
    return load_dataset(text, Split.parse(experiment.split))


def run(experiment: Experiment, threads: int | None = None) -> dict[str, object]:
    """Train, validate, and return the record of the experiment."""
    e, data = experiment, load(experiment)
    size = len(data.vocabulary)
    config = ModelConfig(
        e.cell, e.hidden_size, e.layers, size, e.dropout, weight_drop=e.weight_drop
    )
    parameters = initialize(config, e.seed)
    if e.unigram_bias:
        counts = character_counts(data.train, size) + 1.0
        parameters["decoder.bias"][:] = np.log(counts / counts.sum())
    engine = Backend("compiled", threads=threads).open(parameters, seed=e.seed)
    optimizer = AdamW(e.learning_rate, 1.0, beta2=e.beta2, weight_decay=e.weight_decay)
    batches = Streams(data.train, e.batch_size, e.window)
    before, rows = int(data.train[-1]), rows_of_validation(len(data.validation))
    read = step = 0
    curve, state, began = [], config.zero_state(batches.rows), time.time()
    while read < e.characters:
        batch = batches(step)
        if batch.fresh:
            state = config.zero_state(batches.rows)
        factor = learning_rate_factor("cosine", 0.02, read / e.characters)
        optimizer.learning_rate = e.learning_rate * factor
        _, _, state = engine.train_step(batch.inputs, batch.targets, state, optimizer)
        read += batch.targets.size
        step += 1
        if read >= e.characters * (len(curve) + 1) / POINTS:
            engine.parameters_changed()
            scoring = validate(engine, data.validation, before, rows)
            while True:
                try:
                    next(scoring)
                except StopIteration as end:
                    curve.append(round(end.value.nats_per_character, 4))
                    break
    carried = score_ids(engine, data.validation, before, Protocol()).nats_per_character
    cold = score_ids(engine, data.validation, before, Protocol(64)).nats_per_character
    return asdict(e) | {
        "passes": round(read / len(data.train), 2),
        "training_characters": len(data.train),
        "steps": step,
        "curve": curve,
        "carried": round(carried, 4),
        "cold_64": round(cold, 4),
        "wall_seconds": round(time.time() - began, 1),
    }


def recorded(path: Path = RESULTS) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def line(x: list[float], y: list[float]) -> tuple[float, float]:
    """Fit y = a · x^b by least squares of the logarithms, and return (a, b)."""
    b, a = np.polyfit(np.log(x), np.log(y), 1)
    return float(np.exp(a)), float(b)


def best(records: list[dict], by: str, of: str) -> dict[float, float]:
    """Return, for each value of `by`, the value of `of` in the record with the lowest loss."""
    groups: dict[float, list[dict]] = {}
    for record in records:
        groups.setdefault(record[by], []).append(record)
    return {
        value: min(group, key=lambda record: record["carried"])[of]
        for value, group in sorted(groups.items())
        if len({record[of] for record in group}) > 1
    }


def fit_speed() -> tuple[float, float]:
    """Fit the seconds per character, and return a constant and the seconds per multiplication.

    The fit minimizes squared relative errors.
    """
    speeds = recorded(SPEEDS)
    work = np.array([multiplications(s["cell"], s["hidden_size"], s["layers"], 65) for s in speeds])
    seconds = np.array([1 / s["characters_per_second"] for s in speeds])
    a = np.column_stack([np.ones_like(work), work]) / seconds[:, None]
    constant, each = np.linalg.lstsq(a, np.ones_like(work), rcond=None)[0]
    return float(constant), float(each)


def measure_speeds() -> None:
    """Print the training speed of several networks on all cores, in characters per second."""
    generator = np.random.default_rng(0)
    for cell, sizes in (("gru", (128, 256, 384, 512, 704, 896)), ("lstm", (128, 256, 512, 704))):
        for hidden_size in sizes:
            config = ModelConfig(cell, hidden_size, 1, 65)
            engine, optimizer = Backend("compiled").open(initialize(config, 0)), AdamW(1e-3, 1.0)
            ids, state = generator.integers(0, 65, (64, 16)), config.zero_state(16)
            steps, began = 0, time.perf_counter()
            while steps < 5 or time.perf_counter() - began < 2:
                if steps == 2:
                    began = time.perf_counter()
                _, _, state = engine.train_step(ids, ids, state, optimizer)
                steps += 1
            speed = (steps - 2) * ids.size / (time.perf_counter() - began)
            record = {"cell": cell, "hidden_size": hidden_size, "layers": 1}
            print(json.dumps(record | {"characters_per_second": round(speed)}), flush=True)


def rules() -> dict[str, float]:
    """Return the constants of the rules, fitted to the recorded results."""
    records = recorded()
    whole = [r for r in records if not r["limit"] and r["seconds"] and r["cell"] == "gru"]
    single = [r for r in whole if r["layers"] == 1]
    by_time = best(single, "seconds", "hidden_size")
    units, units_by_time = line(list(by_time), list(by_time.values()))
    by_units = best(single, "hidden_size", "learning_rate")
    rate, rate_by_units = line(list(by_units), list(by_units.values()))
    constant, each = fit_speed()
    return {
        "SECONDS_PER_CHARACTER": constant,
        "SECONDS_PER_MULTIPLICATION": each,
        "UNITS": units,
        "UNITS_BY_TIME": units_by_time,
        "RATE": rate,
        "RATE_BY_UNITS": rate_by_units,
    }


def makemore_split(names: list[str]) -> tuple[list[str], list[str]]:
    """Return the names that makemore trains on with its default seed, and those it tests on."""
    import torch

    torch.manual_seed(3407)
    order = torch.randperm(len(names)).tolist()
    tested = min(1000, int(len(names) * 0.1))
    return [names[i] for i in order[:-tested]], [names[i] for i in order[-tested:]]


def train_on_names(path: Path, seeds: int, minutes: float = 2) -> None:
    """Print nats per symbol of the test names after two minutes, for each seed, and their means."""
    train, test = makemore_split(path.read_text(encoding="utf-8").split())
    print(f"{len(train):,} names to train, {len(test):,} to test", flush=True)
    figures = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            names, held_out = Path(folder) / "names.txt", Path(folder) / "test.txt"
            names.write_text("\n".join(train) + "\n", encoding="utf-8")
            held_out.write_text("\n".join(test) + "\n", encoding="utf-8")
            model = charloom.train(
                names, lines=True, test=str(held_out), minutes=minutes, seed=seed
            )
            found = model.evaluate()
        bits = {name: b.bits_per_character for name, b in found.baselines.items()}
        network, ngram = (bits[name] * math.log(2) for name in ("network", "ngram"))
        figures.append((network, found.nats_per_character))
        print(
            f"seed {seed}: network {network:.4f}, mixture {found.nats_per_character:.4f}, "
            f"n-gram model {ngram:.4f} nats of {found.characters:,} symbols",
            flush=True,
        )
    network, mixture = np.mean(figures, axis=0)
    print(f"mean: network {network:.4f}, mixture {mixture:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fit", action="store_true", help="fit the rules to the recorded results")
    parser.add_argument("--speed", action="store_true", help="measure training speeds")
    parser.add_argument("--names", type=Path, metavar="FILE", help="a name a line, as makemore's")
    parser.add_argument("--seeds", type=int, default=3, help="seeds for --names (default: 3)")
    parser.add_argument("--threads", type=int, help="number of threads of an experiment")
    arguments = parser.parse_args()
    if arguments.fit:
        for name, value in rules().items():
            print(f"{name} = {value:.4g}")
        return
    if arguments.speed:
        measure_speeds()
        return
    if arguments.names is not None:
        train_on_names(arguments.names, arguments.seeds)
        return
    names = {f.name for f in fields(Experiment)}
    for record in recorded():
        again = Experiment(**{k: v for k, v in record.items() if k in names})
        print(json.dumps(run(again, arguments.threads)), flush=True)


if __name__ == "__main__":
    main()

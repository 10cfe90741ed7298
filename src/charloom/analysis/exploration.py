"""What a network's units track: each label of a text beside the unit that follows it best.

A unit is chosen by its correlation with a label over the first half of the text, and what counts is
its correlation over the second half. The best of as many random directions of the same states,
chosen and confirmed in the same way, shows what luck would find.

N: characters of the text; M: labels; H: hidden units; S: arrays of state; L: layers; D = S·L·H.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.analysis.labels import label_text
from charloom.engines.protocol import Engine
from charloom.errors import CharloomError, printable
from charloom.language_model import LanguageModel
from charloom.network.parameters import ModelConfig
from charloom.network.units import Unit, parse_unit, unit_name
from charloom.pages.page import fit_page
from charloom.prediction.scoring import blocks_in_rows
from charloom.text.dataset import Ids
from charloom.text.vocabulary import Vocabulary

ALL_UNITS_UP_TO = 100_000  # characters of a text whose page carries every unit
BEST_UNITS = 24  # that the page of a longer one carries
MOST_SHOWN = 2_000_000  # characters of a text that a page shows
# A longer text is read in up to so many rows side by side, each of so many characters and warmed
# with so many: many times faster than one after the other.
ROWS, LENGTH_OF_ROW, WARM_UP = 16, 10_000, 500
HUNDREDTHS = 100  # activations are given to two decimals

Numbers = NDArray[np.float64]


class Followed(NamedTuple):
    """A correlation on the half that it was chosen on, and on the other; NaN where there is
    none."""

    first: float
    second: float


@dataclass(frozen=True)
class LabelFound:
    """A label, the unit that follows it best, and the best random direction beside it. mean: of the
    label's values; of a flag, the part of the text that has it."""

    label: str
    mean: float
    unit: Unit
    followed: Followed
    random: Followed


@dataclass(frozen=True)
class UnitFound:
    """A unit, and the label that it follows best; its values' mean and standard deviation."""

    unit: Unit
    label: str
    followed: Followed
    mean: float
    deviation: float


class _Sums:
    """Of one half of a text: what correlations are made of, for each array and layer (S, L)."""

    def __init__(self, config: ModelConfig, labels: int) -> None:
        groups = config.zero_state(1).shape[:2]
        size = config.hidden_size
        self.count = 0
        # What is taken from every state, so that small differences do not drown in a large mean.
        self.origin = np.zeros((*groups, size), config.dtype)
        self.labels = np.zeros(labels)  # Σ l
        self.label_squares = np.zeros(labels)
        self.units = np.zeros((*groups, size))  # Σ x, of states less their origin
        self.products = np.zeros((*groups, size, size))  # Σ x xᵀ
        self.both = np.zeros((*groups, labels, size))  # Σ l xᵀ

    def add(self, states: NDArray[np.floating], labels: Numbers) -> None:
        """states (n, S, L, H), labels (n, M)."""
        if self.count == 0 and len(states):
            self.origin[:] = states.mean(axis=0, dtype=np.float64)
        self.count += len(states)
        self.labels += labels.sum(axis=0)
        self.label_squares += (labels**2).sum(axis=0)
        flat_labels = labels.T.astype(states.dtype)  # (M, n)
        for group in np.ndindex(self.units.shape[:2]):
            x = states[:, *group] - self.origin[group]  # (n, H)
            self.units[group] += x.sum(axis=0, dtype=np.float64)
            self.products[group] += x.T @ x
            self.both[group] += flat_labels @ x

    def correlations(self, directions: Numbers | None = None) -> Numbers:
        """Of every label with every unit, (M, S, L, H), or with every direction of the same states:
        directions (S, L, H, H). NaN where one of the two does not vary."""
        n = max(self.count, 1)
        label_mean, unit_mean = self.labels / n, self.units / n
        label_variance = self.label_squares / n - label_mean**2
        outer = unit_mean[..., :, None] * unit_mean[..., None, :]
        covariance = self.products / n - outer  # (S, L, H, H)
        shared = self.both / n - label_mean[:, None] * unit_mean[..., None, :]  # (S, L, M, H)
        variance = np.diagonal(covariance, axis1=-2, axis2=-1)  # (S, L, H)
        if directions is not None:
            shared = shared @ directions.swapaxes(-1, -2)
            variance = np.einsum("...dh,...hk,...dk->...d", directions, covariance, directions)
        # What rounding leaves of no variance is none.
        label_variance = np.where(label_variance > 1e-9, label_variance, np.nan)
        variance = np.where(variance > 1e-9, variance, np.nan)
        r = shared / np.sqrt(label_variance[:, None] * variance[..., None, :])
        return np.moveaxis(np.clip(r, -1, 1), 2, 0)


@dataclass(frozen=True)
class Exploration:
    """What was found in a text's ids, (N,). carried: units whose activations are known, each
    (N,), to two decimals, in hundredths."""

    text: str
    protocol: str
    config: ModelConfig
    vocabulary: Vocabulary
    ids: Ids
    skipped: int
    labels: list[LabelFound]
    units: list[UnitFound]
    named: list[Unit]
    activations: dict[Unit, NDArray[np.signedinteger]]

    def name(self, unit: Unit) -> str:
        return unit_name(unit, self.config)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values. Correlations to four decimals, None where there are none."""
        half = len(self.ids) // 2
        return {
            "text": self.text,
            "protocol": self.protocol,
            "characters": len(self.ids),
            "skipped_characters": self.skipped,
            "halves": [half, len(self.ids) - half],
            "model": {
                "cell": self.config.cell,
                "hidden_size": self.config.hidden_size,
                "layers": self.config.layers,
            },
            "labels": [
                {
                    "label": found.label,
                    "mean": round(found.mean, 6),
                    "unit": self.name(found.unit),
                    "first_half": _decimals(found.followed.first),
                    "second_half": _decimals(found.followed.second),
                    "random_first_half": _decimals(found.random.first),
                    "random_second_half": _decimals(found.random.second),
                }
                for found in self.labels
            ],
            "units": [
                {
                    "unit": self.name(found.unit),
                    "label": found.label,
                    "first_half": _decimals(found.followed.first),
                    "second_half": _decimals(found.followed.second),
                    "mean": round(found.mean, 6),
                    "deviation": round(found.deviation, 6),
                }
                for found in self.units
            ],
        }

    def json(self) -> Iterator[str]:
        """The same as text, with the activations of the units that were named, one for each
        character."""
        head = json.dumps(self.as_dict(), indent=2)
        yield head.removesuffix("\n}") + ',\n  "activations": {'
        for number, unit in enumerate(self.named):
            yield ",\n    " if number else "\n    "
            values = (self.activations[unit] / HUNDREDTHS).round(2).tolist()
            yield f"{json.dumps(self.name(unit))}: {json.dumps(values)}"
        yield "\n  }\n}\n" if self.named else "}\n}\n"

    def page(self) -> str:
        """The text colored by a unit's activation; what follows what."""
        if len(self.ids) <= ALL_UNITS_UP_TO:
            return fit_page(lambda count: self._page(count, len(self.ids)), len(self.activations))
        shown = min(len(self.ids), MOST_SHOWN)
        return fit_page(lambda shown: self._page(len(self.activations), shown), shown)

    def _page(
        self, count: int, shown: int
    ) -> tuple[str, list[str], dict[str, Any], dict[str, NDArray[Any]]]:
        order = [found.unit for found in self.units if found.unit in self.activations]
        # Named ones come first where not all find room.
        carried = set([*self.named, *(unit for unit in order if unit not in self.named)][:count])
        data = self.as_dict() | {
            "shown": shown,
            "carried": [self.name(unit) for unit in order if unit in carried],
            "all": count == self.config.hidden_size * self.config.layers * _arrays(self.config),
            "vocabulary": list(self.vocabulary.characters),
        }
        arrays: dict[str, NDArray[Any]] = {"ids": self.ids[:shown]}
        for unit in order:
            if unit in carried:
                arrays[self.name(unit)] = self.activations[unit][:shown]
        return f"Units over {printable(self.text)}", ["text.js", "explore.js"], data, arrays


def _decimals(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)


def _arrays(config: ModelConfig) -> int:
    return len(config.zero_state(1))


def explore(
    model: LanguageModel,
    text: str,
    *,
    name: str = "text",
    units: Sequence[str] = (),
    with_activations: bool = True,
    skip_unknown: bool = False,
    seed: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> Exploration:
    """Runs a model's network over a text and finds which unit follows which label.

    units: names of those whose activations are wanted in any case (see charloom.units).
    with_activations: keep the activations that a page shows. seed: of the random directions.
    Raises CharloomError for an empty text and a unit that the model lacks, UnknownCharacterError
    for characters that the model never saw, unless `skip_unknown`.
    """
    config, vocabulary = model.config, model.vocabulary
    named = list(dict.fromkeys(parse_unit(unit, config) for unit in units))
    ids = model.encode(text, skip_unknown=skip_unknown)
    skipped = len(text) - len(ids)
    if len(ids) == 0:
        raise CharloomError("the text has no characters to explore")
    if skipped:
        text = vocabulary.decode(ids)
    labels = label_text(text)
    values = np.stack(list(labels.values()), axis=1)  # (N, M)
    rows = max(1, min(ROWS, len(ids) // LENGTH_OF_ROW))
    passes = 2 if with_activations or named else 1

    def told(done: int, number: int) -> None:
        if report is not None:
            report(number * len(ids) + done, passes * len(ids))

    half = len(ids) // 2
    sums = _Sums(config, len(labels)), _Sums(config, len(labels))
    done = 0
    for places, states in _states(model.engine, ids, vocabulary.start_id, rows):
        for inside, part in zip((places < half, places >= half), sums, strict=True):
            part.add(states[inside], values[places[inside]].astype(np.float64))
        done += len(places)
        told(done, 0)
    found_labels, found_units = _find(list(labels), sums, config, seed)
    carried = list(named)
    if with_activations:
        best = [found.unit for found in found_units]
        carried += best if len(ids) <= ALL_UNITS_UP_TO else best[:BEST_UNITS]
    activations: dict[Unit, NDArray[np.signedinteger]] = {}
    if carried:
        carried = list(dict.fromkeys(carried))
        array, layer, number = np.array(carried).T
        kept = np.empty((len(carried), len(ids)), np.int16)
        done = 0
        for places, states in _states(model.engine, ids, vocabulary.start_id, rows):
            hundredths = np.clip(np.round(states[:, array, layer, number] * HUNDREDTHS), *_RANGE)
            kept[:, places] = hundredths.T
            done += len(places)
            told(done, 1)
        for unit, numbers in zip(carried, kept, strict=True):
            small = numbers.min() >= -128 and numbers.max() <= 127
            activations[unit] = numbers.astype(np.int8) if small else numbers
    return Exploration(
        name,
        "carried" if rows == 1 else f"carried-{rows}-rows",
        config,
        vocabulary,
        ids,
        skipped,
        found_labels,
        found_units,
        named,
        activations,
    )


_RANGE = (-32768, 32767)  # of the hundredths that are kept


def _states(
    engine: Engine, ids: Ids, before: int, rows: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.floating]]]:
    """Some places, (n,), and the states after their characters, (n, S, L, H); all in turn."""

    def read(
        inputs: NDArray[np.intp], state: NDArray[np.floating]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        states, state = engine.states(inputs, state)  # (T, S, L, B, H)
        return np.moveaxis(states, 3, 1), state

    # The state at a place is what is known before its character: that after the one before it.
    followed = np.append(ids, ids[:1])
    for places, states in blocks_in_rows(
        engine, followed, before, rows, read=read, warm_up=WARM_UP
    ):
        behind = places > 0
        if behind.any():
            yield places[behind] - 1, states[behind]


def _find(
    labels: list[str], sums: tuple[_Sums, _Sums], config: ModelConfig, seed: int
) -> tuple[list[LabelFound], list[UnitFound]]:
    """The best unit of each label; each unit's best label, best confirmed first."""
    shape = sums[0].units.shape  # (S, L, H)
    generator = np.random.Generator(np.random.PCG64(seed))
    directions = generator.normal(size=(*shape, shape[-1]))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        of_units = [part.correlations().reshape(len(labels), -1) for part in sums]  # (M, D)
        of_directions = [part.correlations(directions).reshape(len(labels), -1) for part in sums]
    count = max(1, sums[0].count + sums[1].count)
    means = (sums[0].labels + sums[1].labels) / count
    by_label = []
    for label, name in enumerate(labels):
        unit, followed = _best(of_units[0][label], of_units[1][label])
        _, random = _best(of_directions[0][label], of_directions[1][label])
        where = Unit(*(int(i) for i in np.unravel_index(unit, shape)))
        by_label.append(LabelFound(name, float(means[label]), where, followed, random))
    unit_means, deviations = _moments(sums)
    by_unit = []
    for unit in range(len(unit_means)):
        label, followed = _best(of_units[0][:, unit], of_units[1][:, unit])
        where = Unit(*(int(i) for i in np.unravel_index(unit, shape)))
        by_unit.append(
            UnitFound(
                where, labels[label], followed, float(unit_means[unit]), float(deviations[unit])
            )
        )
    by_unit.sort(key=lambda found: -confirmed(found.followed))
    return by_label, by_unit


def _moments(sums: tuple[_Sums, _Sums]) -> tuple[Numbers, Numbers]:
    """Every unit's mean and standard deviation over the whole text, (D,)."""
    count = max(1, sums[0].count + sums[1].count)
    mean = np.zeros(sums[0].units.shape)
    square = np.zeros_like(mean)  # of the distance from the first half's origin
    origin = sums[0].origin.astype(np.float64)
    for part in sums:
        moved = part.origin - origin  # Σ (x + m)² = Σ x² + 2 m Σ x + n m²
        squares = np.diagonal(part.products, axis1=-2, axis2=-1)
        mean += part.units + part.count * moved
        square += squares + 2 * moved * part.units + part.count * moved**2
    mean, square = mean / count, square / count
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return (mean + origin).reshape(-1), deviation.reshape(-1)


def _best(first: Numbers, second: Numbers) -> tuple[int, Followed]:
    """Where the first half's correlation is strongest, and both halves' there."""
    strengths = np.where(np.isnan(first), -1.0, np.abs(first))
    best = int(strengths.argmax())
    return best, Followed(float(first[best]), float(second[best]))


def confirmed(followed: Followed) -> float:
    """How strongly the second half confirms what the first one showed; 0 where it does not."""
    value = followed.second * np.sign(followed.first)
    return float(value) if value > 0 else 0.0

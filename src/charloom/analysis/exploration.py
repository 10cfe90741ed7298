"""Units that track labels of a text: for each label, the unit that follows it best.

A unit is chosen by its correlation with a label over the first half of the text, and confirmed by
its correlation over the second half. For comparison, as many random directions of the same states
are chosen and confirmed in the same way: their best correlation is one found by chance.

N: characters of the text; M: labels; H: hidden units; S: arrays of state; L: layers; D = S·L·H.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.analysis.labels import label_text
from charloom.engines.protocol import Predictor
from charloom.errors import CharloomError, printable
from charloom.json_text import to_json
from charloom.language_model import LanguageModel
from charloom.network.parameters import ModelConfig
from charloom.network.units import Unit, parse_unit, unit_name
from charloom.pages.page import MOST_CHARACTERS, PageContent, fit_page
from charloom.prediction.validation import blocks_in_rows
from charloom.progress import OnProgress
from charloom.text.dataset import TextIds
from charloom.text.sources import Texts
from charloom.text.vocabulary import Vocabulary

ALL_UNITS_UP_TO = 100_000  # characters of a text whose page has every unit
BEST_UNITS = 24  # units on the page of a longer text
# A longer text is read as up to ROWS rows side by side, because that is many times faster. Each row
# has at least LENGTH_OF_ROW characters, and reads WARM_UP characters before its first.
ROWS, LENGTH_OF_ROW, WARM_UP = 16, 10_000, 500
HUNDREDTHS = 100  # activations have two decimals
ACTIVATION_RANGE = (-32768, 32767)  # of an activation in hundredths

Numbers = NDArray[np.float64]


class Correlation(NamedTuple):
    """Pearson's correlations of a label with a unit (or a random direction).

    Attributes:
        first: over the first half of the text, where the unit is chosen; NaN if undefined.
        second: over the second half; NaN if undefined.
    """

    first: float
    second: float


@dataclass(frozen=True)
class LabelFound:
    """A label, with the unit that follows it best.

    Attributes:
        label: the label's name.
        mean: the mean of its values; of a flag, the fraction of characters that have it.
        unit: the unit with the strongest correlation over the first half of the text.
        correlation: its correlations with the label.
        random: the correlations of the best random direction, for comparison.
    """

    label: str
    mean: float
    unit: Unit
    correlation: Correlation
    random: Correlation


@dataclass(frozen=True)
class UnitFound:
    """A unit, with the label that it follows best.

    Attributes:
        unit: the unit.
        label: the name of the label with the strongest correlation over the first half of the text.
        correlation: the unit's correlations with that label.
        mean: the mean of the unit's activation over the text.
        deviation: its standard deviation.
    """

    unit: Unit
    label: str
    correlation: Correlation
    mean: float
    deviation: float


class _CorrelationSums:
    """The sums behind correlations over one half of a text, for each array and layer (S, L)."""

    def __init__(self, config: ModelConfig, labels: int) -> None:
        groups = config.zero_state(1).shape[:2]
        size = config.hidden_size
        self.count = 0
        # Subtracted from every state, so that a large mean does not cost the precision of small
        # differences.
        self.origin = np.zeros((*groups, size), config.dtype)
        self.labels = np.zeros(labels)  # Σ l
        self.label_squares = np.zeros(labels)
        self.units = np.zeros((*groups, size))  # Σ x, of states less their origin
        self.products = np.zeros((*groups, size, size))  # Σ x xᵀ
        self.both = np.zeros((*groups, labels, size))  # Σ l xᵀ

    def add(self, states: NDArray[np.floating], labels: Numbers) -> None:
        """Add the states (n, S, L, H) and labels (n, M) of some characters."""
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
        """Return the correlation of every label with every unit, (M, S, L, H).

        Args:
            directions: (S, L, H, H); use these directions of the states instead of units.

        Returns:
            The correlations; NaN if the label or the unit is constant.
        """
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
        # Rounding can leave a tiny variance of constants.
        label_variance = np.where(label_variance > 1e-9, label_variance, np.nan)
        variance = np.where(variance > 1e-9, variance, np.nan)
        r = shared / np.sqrt(label_variance[:, None] * variance[..., None, :])
        return np.moveaxis(np.clip(r, -1, 1), 2, 0)


@dataclass(frozen=True)
class Exploration:
    """The result of `explore`: which unit follows which label of a text.

    Attributes:
        text: the name of the text.
        protocol: how the state ran through the text: `carried`, or `carried-N-rows` if the text was
            read as N rows side by side.
        config: the configuration of the network.
        vocabulary: the characters of `ids`.
        ids: the characters of the text, (N,).
        skipped: the number of unknown characters that were skipped.
        labels: every label with its best unit.
        units: every unit with its best label, strongest confirmed correlation first.
        named: the units that the caller named.
        activations: by unit, its activations in hundredths, (N,).
    """

    text: str
    protocol: str
    config: ModelConfig
    vocabulary: Vocabulary
    ids: TextIds
    skipped: int
    labels: list[LabelFound]
    units: list[UnitFound]
    named: list[Unit]
    activations: dict[Unit, NDArray[np.signedinteger]]

    @property
    def documents(self) -> int | None:
        """The number of documents, None for a single text."""
        end_id = self.vocabulary.end_id
        return None if end_id is None else int(np.count_nonzero(self.ids == end_id))

    def name(self, unit: Unit) -> str:
        """Return the name of a unit, like `h17`."""
        return unit_name(unit, self.config)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; correlations have four decimals, and are None if undefined."""
        half = len(self.ids) // 2
        return {
            "text": self.text,
            "protocol": self.protocol,
            "characters": len(self.ids),
            "documents": self.documents,
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
                    "first_half": _decimals(found.correlation.first),
                    "second_half": _decimals(found.correlation.second),
                    "random_first_half": _decimals(found.random.first),
                    "random_second_half": _decimals(found.random.second),
                }
                for found in self.labels
            ],
            "units": [
                {
                    "unit": self.name(found.unit),
                    "label": found.label,
                    "first_half": _decimals(found.correlation.first),
                    "second_half": _decimals(found.correlation.second),
                    "mean": round(found.mean, 6),
                    "deviation": round(found.deviation, 6),
                }
                for found in self.units
            ],
        }

    def json(self) -> Iterator[str]:
        """Yield the JSON text piece by piece: `as_dict`, and `activations`, which has a number for
        each character, for the units that the caller named."""
        head = to_json(self.as_dict(), indent=2)
        yield head.removesuffix("\n}") + ',\n  "activations": {'
        for number, unit in enumerate(self.named):
            yield ",\n    " if number else "\n    "
            values = (self.activations[unit] / HUNDREDTHS).round(2).tolist()
            yield f"{to_json(self.name(unit))}: {to_json(values)}"
        yield "\n  }\n}\n" if self.named else "}\n}\n"

    def page(self) -> str:
        """Return an HTML page: the text colored by a unit's activation, and tables of labels and
        units."""
        if len(self.ids) <= ALL_UNITS_UP_TO:
            return fit_page(lambda count: self._page(count, len(self.ids)), len(self.activations))
        shown = min(len(self.ids), MOST_CHARACTERS)
        return fit_page(lambda shown: self._page(len(self.activations), shown), shown)

    def _page(self, count: int, shown: int) -> PageContent:
        """Return a page with the activations of `count` units over the first `shown` characters."""
        order = [found.unit for found in self.units if found.unit in self.activations]
        # If not all units fit, the named ones have priority.
        carried = set([*self.named, *(unit for unit in order if unit not in self.named)][:count])
        data = self.as_dict() | {
            "shown": shown,
            "carried": [self.name(unit) for unit in order if unit in carried],
            "all": count == self.config.zero_state(1).size,
            "vocabulary": list(self.vocabulary.names),
            "unit": self.vocabulary.unit,
        }
        arrays: dict[str, NDArray[Any]] = {"ids": self.ids[:shown]}
        for unit in order:
            if unit in carried:
                arrays[self.name(unit)] = self.activations[unit][:shown]
        title = f"Units over {printable(self.text)}"
        return PageContent(title, ["text.js", "explore.js"], data, arrays)


def _decimals(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)


def explore(
    model: LanguageModel,
    text: Texts,
    *,
    name: str | None = None,
    units: Sequence[str] = (),
    with_activations: bool = True,
    skip_unknown: bool = False,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Exploration:
    """Find the units of a network that track labels of a text, like "inside double quotes".

    Args:
        model: the model; only its network is used, not its n-gram model.
        text: the text to read, N characters, as in `LanguageModel.evaluate`. The end of each
            document counts as a character.
        name: the name of the text for output, by default its own.
        units: names of units whose activations to keep in any case, like `h17` or `c1.17`.
        with_activations: keep the activations for `Exploration.page`, of all units if the text is
            short, otherwise of the best.
        skip_unknown: skip characters that are not in the model's vocabulary.
        seed: random seed of the random directions.
        on_progress: called with the stage "exploring", the characters read and the number to read.

    Returns:
        The best unit of every label, and the best label of every unit.

    Raises:
        CharloomError: if the text is empty, or the model lacks one of the units.
        UnknownCharacterError: if a character is not in the vocabulary and `skip_unknown` is false.
    """
    named = list(dict.fromkeys(parse_unit(unit, model.config) for unit in units))
    read = model.encode_to_score(text, charges_unknown=False, skip_unknown=skip_unknown)
    name = read.name if name is None else name
    ids, skipped = read.ids, read.skipped
    if len(ids) == 0:
        raise CharloomError("the text has no characters to explore")
    labels = label_text(model.vocabulary.decode(ids), as_bytes=model.vocabulary.as_bytes)
    reader = _StateReader(model, ids, 2 if with_activations or named else 1, on_progress)
    sums = _sums_of_halves(reader, np.stack(list(labels.values()), axis=1))
    found_labels, found_units = _find(list(labels), sums, seed)
    kept = list(named)
    if with_activations:
        best = [found.unit for found in found_units]
        kept += best if len(ids) <= ALL_UNITS_UP_TO else best[:BEST_UNITS]
    return Exploration(
        text=name,
        protocol=reader.protocol,
        config=model.config,
        vocabulary=model.vocabulary,
        ids=ids,
        skipped=skipped,
        labels=found_labels,
        units=found_units,
        named=named,
        activations=_activations(reader, list(dict.fromkeys(kept))),
    )


class _StateReader:
    """The states of a network over a text, in blocks. Each pass reads the text again."""

    def __init__(
        self, model: LanguageModel, ids: TextIds, passes: int, on_progress: OnProgress | None = None
    ) -> None:
        self.config = model.config
        self.ids = ids
        self.rows = max(1, min(ROWS, len(ids) // LENGTH_OF_ROW))
        self._network: Predictor = model.network
        self._before = model.vocabulary.start_id
        self._total = passes * len(ids)
        self._done = 0
        self._on_progress = on_progress

    @property
    def protocol(self) -> str:
        return "carried" if self.rows == 1 else f"carried-{self.rows}-rows"

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.floating]]]:
        """Read the text once.

        Yields:
            Some places, (n,), and the states after their characters, (n, S, L, H).
        """
        # The state at a place is the one before its character, after the character before it.
        shifted = np.append(self.ids, self.ids[:1])
        for places, states in blocks_in_rows(
            self._network, shifted, self._before, self.rows, read=self._read, warm_up=WARM_UP
        ):
            later = places > 0
            if later.any():
                yield places[later] - 1, states[later]
                self._done += int(np.count_nonzero(later))
                if self._on_progress is not None:
                    self._on_progress("exploring", self._done, self._total)

    def _read(self, inputs: NDArray[np.intp], state: Any) -> tuple[NDArray[np.floating], Any]:
        states, state = self._network.states(inputs, state)  # (T, S, L, B, H)
        return np.moveaxis(states, 3, 1), state


def _sums_of_halves(
    reader: _StateReader, labels: NDArray[np.float32]
) -> tuple[_CorrelationSums, _CorrelationSums]:
    """Sum the states and the labels, (N, M), over both halves of the text."""
    half, count = len(reader.ids) // 2, labels.shape[1]
    sums = _CorrelationSums(reader.config, count), _CorrelationSums(reader.config, count)
    for places, states in reader.blocks():
        for inside, part in zip((places < half, places >= half), sums, strict=True):
            part.add(states[inside], labels[places[inside]].astype(np.float64))
    return sums


def _activations(reader: _StateReader, units: list[Unit]) -> dict[Unit, NDArray[np.signedinteger]]:
    """Return the activations of units in hundredths, (N,) each, in the smallest integer type."""
    if not units:
        return {}
    array, layer, number = np.array(units).T
    hundredths = np.empty((len(units), len(reader.ids)), np.int16)
    for places, states in reader.blocks():
        values = np.round(states[:, array, layer, number] * HUNDREDTHS)  # (n, units)
        hundredths[:, places] = np.clip(values, *ACTIVATION_RANGE).T
    activations: dict[Unit, NDArray[np.signedinteger]] = {}
    for unit, numbers in zip(units, hundredths, strict=True):
        small = numbers.min() >= -128 and numbers.max() <= 127
        activations[unit] = numbers.astype(np.int8) if small else numbers
    return activations


def _find(
    labels: list[str],
    sums: tuple[_CorrelationSums, _CorrelationSums],
    seed: int,
) -> tuple[list[LabelFound], list[UnitFound]]:
    """Find the best unit of each label, and the best label of each unit."""
    shape = sums[0].units.shape  # (S, L, H)
    generator = np.random.Generator(np.random.PCG64(seed))
    directions = generator.normal(size=(*shape, shape[-1]))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        of_units = [part.correlations().reshape(len(labels), -1) for part in sums]  # (M, D)
        of_directions = [part.correlations(directions).reshape(len(labels), -1) for part in sums]
    means = (sums[0].labels + sums[1].labels) / max(1, sums[0].count + sums[1].count)
    units = [Unit(*(int(i) for i in index)) for index in np.ndindex(shape)]
    by_label = []
    for label, name in enumerate(labels):
        unit, correlation = _best(of_units[0][label], of_units[1][label])
        _, random = _best(of_directions[0][label], of_directions[1][label])
        by_label.append(LabelFound(name, float(means[label]), units[unit], correlation, random))
    by_unit = []
    for number, (mean, deviation) in enumerate(zip(*_moments(sums), strict=True)):
        label, correlation = _best(of_units[0][:, number], of_units[1][:, number])
        by_unit.append(
            UnitFound(units[number], labels[label], correlation, float(mean), float(deviation))
        )
    by_unit.sort(key=lambda found: -confirmed(found.correlation))
    return by_label, by_unit


def _moments(sums: tuple[_CorrelationSums, _CorrelationSums]) -> tuple[Numbers, Numbers]:
    """Return every unit's mean and standard deviation over the whole text, (D,) each."""
    count = max(1, sums[0].count + sums[1].count)
    mean = np.zeros(sums[0].units.shape)
    square = np.zeros_like(mean)  # of the difference from the first half's origin
    origin = sums[0].origin.astype(np.float64)
    for part in sums:
        moved = part.origin - origin  # Σ (x + m)² = Σ x² + 2 m Σ x + n m²
        squares = np.diagonal(part.products, axis1=-2, axis2=-1)
        mean += part.units + part.count * moved
        square += squares + 2 * moved * part.units + part.count * moved**2
    mean, square = mean / count, square / count
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return (mean + origin).reshape(-1), deviation.reshape(-1)


def _best(first: Numbers, second: Numbers) -> tuple[int, Correlation]:
    """Return the index of the first half's strongest correlation, and both halves' values there."""
    strengths = np.where(np.isnan(first), -1.0, np.abs(first))
    best = int(strengths.argmax())
    return best, Correlation(float(first[best]), float(second[best]))


def confirmed(correlation: Correlation) -> float:
    """Return the strength of a correlation that the second half confirms, or 0."""
    value = correlation.second * np.sign(correlation.first)
    return float(value) if value > 0 else 0.0

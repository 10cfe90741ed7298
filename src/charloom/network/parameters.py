"""A model's shape and parameters: names, shapes, and views on one flat vector.

V: characters in the vocabulary; H: hidden units; L: layers; G: gates (1 rnn, 3 gru, 4 lstm);
T: time steps; B: rows of a batch; P: parameters in all; S: arrays of state (2 lstm, else 1);
E: extra inputs beside each character, 0 in most models.

Names, shapes and the order of gates are those of `torch.nn.RNN/LSTM/GRU` and `torch.nn.Linear`:

    rnn.weight_ih_l0  (G·H, V)   U in the notebook; (G·H, V + E) with extra inputs, whose columns
                                 are the last; (G·H, H) in deeper layers
    rnn.weight_hh_l0  (G·H, H)   W
    rnn.bias_ih_l0    (G·H)      b_s
    rnn.bias_hh_l0    (G·H)
    rnn.norm_ih_l0    (G·H)      gains of the normalized products, only with `norm` = "rms"
    rnn.norm_hh_l0    (G·H)
    decoder.weight    (V, H)     V
    decoder.bias      (V)        b_y
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from charloom.errors import CharloomError
from charloom.network.choices import (
    Cell,
    DropProbability,
    HiddenSize,
    Layers,
    Normalization,
    NumberType,
)
from charloom.schema import find_wrong_field

# Gates, in the order i, f, g, o for lstm and r, z, n for gru.
GATES: dict[Cell, int] = {"rnn": 1, "lstm": 4, "gru": 3}
# The hidden state, and for lstm the cell state after it.
STATES: dict[Cell, int] = {"rnn": 1, "lstm": 2, "gru": 1}
VocabularySize = Annotated[int, Meta(ge=1, le=0x110000)]
EndId = Annotated[int, Meta(ge=0, lt=0x110000)]
ExtraInputCount = Annotated[int, Meta(ge=0, le=0x110000)]

Float = NDArray[np.floating]
State = NDArray[np.floating]  # (S, L, B, H)


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model: the names and shapes of its parameters, and how it computes."""

    cell: Cell
    hidden_size: HiddenSize
    layers: Layers
    vocabulary_size: VocabularySize
    dropout: DropProbability = 0.0  # of each layer's outputs, in training
    dtype: NumberType = "float32"
    weight_drop: DropProbability = 0.0  # of the recurrent weights, in each training step
    # The id of the end of a document. Before it is read, the state becomes zero.
    end_id: EndId | None = None
    # E: further numbers that the first layer reads beside each character.
    extra_inputs: ExtraInputCount = 0
    # "rms": the products of inputs and states are divided by their root mean square.
    norm: Normalization = "none"

    def __post_init__(self) -> None:
        if mismatch := find_wrong_field(self):
            raise CharloomError(mismatch.problem)
        if self.end_id is not None and self.end_id >= self.vocabulary_size:
            raise CharloomError(f"end_id is {self.end_id}: pass an id of the vocabulary")

    @property
    def gates(self) -> int:
        return GATES[self.cell]

    @property
    def parameter_count(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def numbers_per_position(self) -> int:
        """Estimate the numbers that an engine holds for each of a window's T·B positions."""
        of_characters = 4 * (self.vocabulary_size + self.extra_inputs)
        return self.layers * (2 * self.gates + 6) * self.hidden_size + of_characters

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return all parameters' names and shapes, in their order on the flat vector."""
        stacked = self.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.layers):
            below = self.hidden_size
            if layer == 0:
                below = self.vocabulary_size + self.extra_inputs
            shapes[f"rnn.weight_ih_l{layer}"] = (stacked, below)
            shapes[f"rnn.weight_hh_l{layer}"] = (stacked, self.hidden_size)
            shapes[f"rnn.bias_ih_l{layer}"] = (stacked,)
            shapes[f"rnn.bias_hh_l{layer}"] = (stacked,)
            if self.norm == "rms":
                shapes[f"rnn.norm_ih_l{layer}"] = (stacked,)
                shapes[f"rnn.norm_hh_l{layer}"] = (stacked,)
        shapes["decoder.weight"] = (self.vocabulary_size, self.hidden_size)
        shapes["decoder.bias"] = (self.vocabulary_size,)
        return shapes

    def zero_state(self, rows: int) -> State:
        """Return the state before any character, (S, L, B, H)."""
        shape = (STATES[self.cell], self.layers, rows, self.hidden_size)
        return np.zeros(shape, dtype=self.dtype)

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration for a file.

        Only a model of documents has an `end_id`, only one with extra inputs `extra_inputs`, and
        only one with normalized products `norm`.
        """
        values = asdict(self)
        if self.end_id is None:
            del values["end_id"]
        if not self.extra_inputs:
            del values["extra_inputs"]
        if self.norm == "none":
            del values["norm"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Return the configuration in a file. Raises CharloomError if it is invalid."""
        expected = {field.name for field in fields(cls)}
        if set(values) | {"end_id", "extra_inputs", "norm"} != expected:
            odd = ", ".join(sorted(set(values) ^ expected))
            raise CharloomError(f"the model's configuration has missing or unknown entries: {odd}")
        return cls(**values)


CACHE_LINE = 64  # bytes


def aligned_zeros(count: int, dtype: Any) -> NDArray[Any]:
    """Return zeros, flat, aligned to a cache line, because vectors load fastest from there."""
    kind = np.dtype(dtype)
    raw = np.zeros(count * kind.itemsize + CACHE_LINE, dtype=np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + count * kind.itemsize].view(kind)


class Parameters(Mapping[str, Float]):
    """Named arrays that are views on one flat vector `flat`, (P,)."""

    def __init__(self, config: ModelConfig, flat: Float | None = None) -> None:
        self.config = config
        self.flat: Float = (
            aligned_zeros(config.parameter_count, config.dtype) if flat is None else flat
        )
        if self.flat.shape != (config.parameter_count,) or self.flat.dtype != config.dtype:
            raise CharloomError("the flat vector does not fit the model's configuration")
        self._views: dict[str, Float] = {}
        start = 0
        for name, shape in config.shapes().items():
            size = math.prod(shape)
            self._views[name] = self.flat[start : start + size].reshape(shape)
            start += size

    def __getitem__(self, name: str) -> Float:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

"""The model's shape and its parameters: names, shapes, initialization, views on one flat vector.

V: characters in the vocabulary; H: hidden units; L: layers; G: gates (1 rnn, 3 gru, 4 lstm);
T: time steps; B: rows of a batch; P: parameters in all; S: arrays of state (2 lstm, else 1).

Names, shapes and the order of gates are those of `torch.nn.RNN/LSTM/GRU` and `torch.nn.Linear`:

    rnn.weight_ih_l0  (G·H, V)   U in the notebook; (G·H, H) in deeper layers
    rnn.weight_hh_l0  (G·H, H)   W
    rnn.bias_ih_l0    (G·H)      b_s
    rnn.bias_hh_l0    (G·H)
    decoder.weight    (V, H)     V
    decoder.bias      (V)        b_y
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError

GATES = {"rnn": 1, "lstm": 4, "gru": 3}  # lstm: i, f, g, o; gru: r, z, n
STATES = {"rnn": 1, "lstm": 2, "gru": 1}  # the hidden state; for lstm the cell state after it
LARGEST_HIDDEN_SIZE = 65_536
MOST_LAYERS = 64

Float = NDArray[np.floating]
State = NDArray[np.floating]  # (S, L, B, H)


@dataclass(frozen=True)
class ModelConfig:
    """What fixes the names and shapes of a model's parameters, and how it computes."""

    cell: str
    hidden_size: int
    layers: int
    vocabulary_size: int
    dropout: float = 0.0  # the part of each layer's outputs that is dropped in training
    dtype: str = "float32"
    weight_drop: float = 0.0  # the part of the recurrent weights that is dropped in each step of it

    def __post_init__(self) -> None:
        if self.cell not in GATES:
            raise CharloomError(f"cell {self.cell!r} is not one of {', '.join(GATES)}")
        for name, largest in (
            ("hidden_size", LARGEST_HIDDEN_SIZE),
            ("layers", MOST_LAYERS),
            ("vocabulary_size", 0x110000),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
                raise CharloomError(f"{name} is {value!r}: it must be from 1 to {largest:,}")
        for name in ("dropout", "weight_drop"):
            part = getattr(self, name)
            if not isinstance(part, (int, float)) or not 0 <= part < 1:
                raise CharloomError(f"{name} is {part!r}: it must be from 0 to below 1")
        if self.dtype not in ("float32", "float64"):
            raise CharloomError(f"dtype {self.dtype!r} is not one of float32, float64")

    @property
    def gates(self) -> int:
        return GATES[self.cell]

    @property
    def parameter_count(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def numbers_per_position(self) -> int:
        """About how many numbers an engine holds for each of a window's T·B positions."""
        return self.layers * (2 * self.gates + 6) * self.hidden_size + 4 * self.vocabulary_size

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter's name and shape, in their order on the flat vector."""
        stacked = self.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.layers):
            below = self.vocabulary_size if layer == 0 else self.hidden_size
            shapes[f"rnn.weight_ih_l{layer}"] = (stacked, below)
            shapes[f"rnn.weight_hh_l{layer}"] = (stacked, self.hidden_size)
            shapes[f"rnn.bias_ih_l{layer}"] = (stacked,)
            shapes[f"rnn.bias_hh_l{layer}"] = (stacked,)
        shapes["decoder.weight"] = (self.vocabulary_size, self.hidden_size)
        shapes["decoder.bias"] = (self.vocabulary_size,)
        return shapes

    def zero_state(self, rows: int) -> State:
        """The state before any character, (S, L, B, H)."""
        shape = (STATES[self.cell], self.layers, rows, self.hidden_size)
        return np.zeros(shape, dtype=self.dtype)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The configuration that a file holds. Raises CharloomError where it is not one."""
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            odd = ", ".join(sorted(set(values) ^ expected))
            raise CharloomError(f"the model's configuration has missing or unknown entries: {odd}")
        return cls(**values)


CACHE_LINE = 64  # bytes


def aligned_zeros(count: int, dtype: Any) -> NDArray[Any]:
    """Zeros, flat, that begin at a whole cache line, where vectors of them are read fastest."""
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


def initialize(config: ModelConfig, seed: int) -> Parameters:
    """New parameters: orthogonal recurrent weights gate by gate (Saxe et al. 2014), uniform
    ±1/√H elsewhere, zero biases but for the lstm's forget gates, whose two biases sum to 1
    (Jozefowicz et al. 2015).
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    parameters = Parameters(config)
    size = config.hidden_size
    bound = 1 / math.sqrt(size)
    for name, values in parameters.items():
        if "weight_hh" in name:
            for gate in range(config.gates):
                values[gate * size : (gate + 1) * size] = _orthogonal(generator, size)
        elif "weight" in name:
            values[...] = generator.uniform(-bound, bound, values.shape)
        elif "bias_ih" in name and config.cell == "lstm":
            values[size : 2 * size] = 1
    return parameters


def _orthogonal(generator: np.random.Generator, size: int) -> Float:
    """A random orthogonal matrix, (H, H), uniform among them."""
    q, r = np.linalg.qr(generator.standard_normal((size, size)))
    return np.asarray(q * np.where(np.diag(r) < 0, -1, 1))


def initialize_classic(config: ModelConfig, seed: int) -> Parameters:
    """The notebook's parameters: weights drawn from a normal of deviation 0.01, zero biases."""
    generator = np.random.Generator(np.random.PCG64(seed))
    parameters = Parameters(config)
    for name, values in parameters.items():
        if "weight" in name:
            values[...] = generator.standard_normal(values.shape) * 0.01
    return parameters


NEW_CHARACTERS_PROBABILITY = 1e-3


def grow_vocabulary(old: Parameters, config: ModelConfig) -> Parameters:
    """The same model with more characters, whose ids follow the old ones. `config` is the old one
    but for its vocabulary_size and what it drops in training.

    The old characters' logits stay what they were, bit for bit. The new ones' are constant, and so
    low that in every state together they get a probability of at most 1e-3.

    A new logit b must satisfy n·e^b ≤ 1e-3 · Σ_v e^{l_v} whatever the state h, |h_j| ≤ 1. By
    Jensen, for any weights q over the old characters, log Σ_v e^{l_v} ≥ Σ_v q_v l_v + entropy(q),
    and Σ_v q_v l_v = q·b + (qᵀW)·h ≥ q·b − ‖qᵀW‖₁. The best of two choices of q is taken: uniform,
    and the softmax of the biases.
    """
    before = old.config.vocabulary_size
    new = config.vocabulary_size - before
    expected = replace(
        config,
        vocabulary_size=before,
        dropout=old.config.dropout,
        weight_drop=old.config.weight_drop,
    )
    if new < 0 or expected != old.config:
        raise CharloomError("a model can grow in its vocabulary alone")
    grown = Parameters(config)
    for name, values in old.items():
        if name == "rnn.weight_ih_l0":
            grown[name][:, :before] = values
            grown[name][:, before:] = values.mean(axis=1, keepdims=True)  # an average character
        elif name.startswith("decoder."):
            grown[name][:before] = values
        else:
            grown[name][...] = values
    if new > 0:
        weight = old["decoder.weight"].astype(np.float64)  # (V, H)
        bias = old["decoder.bias"].astype(np.float64)  # (V,)
        soft = np.exp(bias - bias.max())
        bounds = []
        for q in (np.full(before, 1 / before), soft / soft.sum()):
            entropy = -float(q @ np.log(np.maximum(q, np.finfo(float).tiny)))
            bounds.append(float(q @ bias) - float(np.abs(q @ weight).sum()) + entropy)
        margin = 0.01  # nats, for the rounding of float32
        logit = max(bounds) + math.log(NEW_CHARACTERS_PROBABILITY / new) - margin
        grown["decoder.bias"][before:] = logit
    return grown


def dropout_mask(
    seed: int,
    step: int,
    layer: int,
    shape: tuple[int, int, int],
    rate: float,
    dtype: str,
    first_row: int = 0,
) -> Float:
    """A mask over (T, B, H): 0 with probability `rate`, else 1 / (1 - rate). first_row: which row
    of a larger batch the first one is.

    A counter is hashed for each entry, keyed by seed, step, layer and row (SplitMix64's finalizer,
    Steele et al. 2014), so that every engine draws the same mask, in any order.
    """
    return _mask(dropout_key(seed, step, rate), layer, shape, dtype, first_row)


def weight_mask(
    seed: int, step: int, layer: int, shape: tuple[int, int], rate: float, dtype: str
) -> Float:
    """A mask over a layer's recurrent weights, (G·H, H), one for a whole window (DropConnect, Wan
    et al. 2013; on recurrent weights, Merity et al. 2018)."""
    key = dropout_key(seed, step, rate, of_weights=True)
    return _mask(key, layer, (1, *shape), dtype).reshape(shape)


def _mask(
    key_and_scale: tuple[NDArray[np.uint64], float],
    layer: int,
    shape: tuple[int, int, int],
    dtype: str,
    first_row: int = 0,
) -> Float:
    steps, rows, size = shape
    golden = np.uint64(GOLDEN)
    (_, key, least), kept = key_and_scale
    with np.errstate(over="ignore"):
        key = _mix(key + np.uint64(layer) * golden)
        keys = _mix(key + np.arange(first_row, first_row + rows, dtype=np.uint64) * golden)  # (B,)
        counters = np.arange(1, steps * size + 1, dtype=np.uint64).reshape(steps, 1, size)
        bits = _mix(keys[None, :, None] + counters * golden)  # (T, B, H)
    # The uppermost 53 bits, as a number from 0 to 1, are below the rate.
    bits >>= np.uint64(11)
    return np.asarray((bits >= least) * np.dtype(dtype).type(kept))


GOLDEN = 0x9E3779B97F4A7C15


def dropout_key(
    seed: int, step: int | None, rate: float, *, of_weights: bool = False
) -> tuple[NDArray[np.uint64], float]:
    """What a step's masks start from: whether there are any (1 or 0), the key of seed and step (its
    complement for masks of weights), the least 53-bit number that is kept; and what an entry that
    is kept is multiplied by."""
    if step is None or rate == 0:
        return np.zeros(3, dtype=np.uint64), 1.0
    golden = np.uint64(GOLDEN)
    with np.errstate(over="ignore"):
        key = _mix(np.uint64(seed) + golden)
        key = _mix(key + np.uint64(step) * golden)
    if of_weights:
        key = ~key
    least = np.uint64(math.ceil(rate * 2.0**53))
    return np.array([1, key, least], dtype=np.uint64), 1 / (1 - rate)


def _mix(z: Any) -> Any:
    """SplitMix64's finalizer on uint64, in place where z is an array."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z

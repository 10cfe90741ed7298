"""Initialize parameters, and add new characters to a trained network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from charloom.errors import CharloomError
from charloom.network.parameters import Float, ModelConfig, Parameters

KEEPING_UNITS = 256  # of a gru whose update gates begin to keep the state, at most


def initialize(config: ModelConfig, seed: int) -> Parameters:
    """Return new parameters.

    Recurrent weights are orthogonal gate by gate (Saxe et al. 2014), other weights uniform in
    ±1/√H. Gains of normalized products are 1. Biases are zero, except those of the gates that keep
    a state: the two of an lstm's forget gates sum to 1 (Jozefowicz et al. 2015), and those of a
    gru's update gates to 2, if its products are normalized and H is at most KEEPING_UNITS.
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
        elif "bias_ih" in name and _keeps(config):
            values[size : 2 * size] = 2
        elif "norm" in name:
            values[...] = 1
    return parameters


def _keeps(config: ModelConfig) -> bool:
    """Return whether the update gates' biases begin at 2. Larger networks did not gain from it."""
    small = config.hidden_size <= KEEPING_UNITS
    return small and config.cell == "gru" and config.norm == "rms"


def _orthogonal(generator: np.random.Generator, size: int) -> Float:
    """Return a uniformly random orthogonal matrix, (H, H)."""
    q, r = np.linalg.qr(generator.standard_normal((size, size)))
    return np.asarray(q * np.where(np.diag(r) < 0, -1, 1))


def initialize_classic(config: ModelConfig, seed: int) -> Parameters:
    """Return the notebook's parameters: normal weights of standard deviation 0.01, zero biases."""
    generator = np.random.Generator(np.random.PCG64(seed))
    parameters = Parameters(config)
    for name, values in parameters.items():
        if "weight" in name:
            values[...] = generator.standard_normal(values.shape) * 0.01
    return parameters


def reduce_vocabulary(old: Parameters, kept: Sequence[int]) -> Parameters:
    """Return the same model with fewer characters, those of the ids `kept`, in this order.

    Logits of the kept characters stay the same. The model has no end of a document and no extra
    inputs.
    """
    reduced = Parameters(replace(old.config, vocabulary_size=len(kept)))
    ids = np.asarray(kept)
    for name, values in old.items():
        if name == "rnn.weight_ih_l0":
            reduced[name][...] = values[:, ids]
        else:
            reduced[name][...] = values[ids] if name.startswith("decoder.") else values
    return reduced


NEW_CHARACTERS_PROBABILITY = 1e-3


def grow_vocabulary(old: Parameters, config: ModelConfig) -> Parameters:
    """Return the same model with more characters, whose ids follow the old ones.

    The old characters' logits stay the same, bit for bit. Those of the new ones are constant, and
    so low that their total probability is at most 1e-3 in every state. `config` can differ from the
    old configuration in vocabulary_size, dropout, weight_drop and end_id. The columns of extra
    inputs stay as they are, behind those of the new characters. More extra inputs than before have
    columns of zeros, and sums can then be rounded differently.

    A new logit b must satisfy n·e^b ≤ 1e-3 · Σ_v e^{l_v} whatever the state h, |h_j| ≤ 1. By
    Jensen, for any weights q over the old characters, log Σ_v e^{l_v} ≥ Σ_v q_v l_v + entropy(q),
    and Σ_v q_v l_v = q·b + (qᵀW)·h ≥ q·b − ‖qᵀW‖₁. The better of two choices of q is taken:
    uniform, and the softmax of the biases.
    """
    before = old.config.vocabulary_size
    new = config.vocabulary_size - before
    expected = replace(
        config,
        vocabulary_size=before,
        dropout=old.config.dropout,
        weight_drop=old.config.weight_drop,
        end_id=old.config.end_id,
    )
    if 0 < old.config.extra_inputs < config.extra_inputs:
        expected = replace(expected, extra_inputs=old.config.extra_inputs)
    if new < 0 or expected != old.config:
        raise CharloomError("only the vocabulary of a model can grow")
    grown = Parameters(config)
    for name, values in old.items():
        if name == "rnn.weight_ih_l0":
            characters, after = values[:, :before], config.vocabulary_size
            grown[name][:, :before] = characters
            grown[name][:, before:after] = characters.mean(axis=1, keepdims=True)  # an average one
            extra = values[:, before:]
            grown[name][:, after : after + extra.shape[1]] = extra
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

"""The arrays and numbers of the kernels of training and inference, for the caller and the kernel.

T: time steps; B: rows of the batch; V: characters in the vocabulary; P: parameters in all;
S: arrays of state (2 for lstm, else 1); L: layers; H: hidden units; E: extra inputs. W: windows of
a call.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.engines.compiled.plan import Plan
from charloom.kernels.buffers import Doubles, Floats, Integers, Unsigned

# Kinds of optimizers.
SGD_KIND, ADAGRAD, ADAGRAD_INSIDE, RMSPROP, ADAM = range(5)

# The entries of `numbers` that follow the optimizer's settings:
KIND = 8  # of the optimizer
CLIP = 9  # the largest norm; 0 for no clipping
KEPT = 10  # factor of the outputs that dropout keeps
KEPT_WEIGHT = 11  # factor of the weights that weight dropping keeps
CLASSIC = 12  # whether the gradient is the notebook's, of the sum
WINDOWS = 13  # the number of windows
NUMBERS = 14  # the number of entries
OF_WEIGHTS = 3  # index in `keys` where the keys of weight dropping start
GRADIENTS_ONLY = -1  # a kind
# The entries of `results`: the loss and the gradient's norm of the last window, and the number of
# windows of a call that were taken. From SUMS on, each thread's loss and sum of squares.
LOSS, NORM, TAKEN, SUMS = 0, 1, 2, 3
# The entries of `described` for each of several windows: those of `numbers` for the optimizer, and
# whether the window starts from a zero state. Those of `taken`: LOSS and NORM.
FRESH, DESCRIBED = KIND, KIND + 1


class TrainingBuffers(NamedTuple):
    """The arrays of a training step."""

    plan: Annotated[NDArray[np.int64], Plan]
    inputs: Integers  # (T, B)
    targets: Integers  # (T, B)
    extra: Floats  # (T, B, E): the extra inputs
    state: Floats  # (S, L, B, H): before the window
    new_state: Floats  # (S, L, B, H): after it
    parameters: Floats  # (P,)
    gradients: Floats  # (P,)
    first_slot: Floats  # (P,): of the optimizer; empty for one without slots
    second_slot: Floats  # (P,)
    packed: Floats  # the packed weights, see Plan
    work: Floats  # the threads' workspaces, see Plan
    keys: Unsigned  # (6,): keys of dropout and weight dropping, see dropout_key
    numbers: Doubles  # (NUMBERS,)
    results: Doubles  # (SUMS + 2 · threads,)
    several: Integers  # (W, 2, T, B): inputs and targets, if there are several
    described: Doubles  # (W, DESCRIBED)
    taken: Doubles  # (W, 2): losses and norms of several windows
    characters: Integers  # (2, V): zeros, and the characters of a window


# Modes of inference.
LOGITS, LOG_PROBABILITIES, GENERATE, PACK, FOLLOW = range(5)
HELD = 4  # index in the settings of the number of held units


class InferenceBuffers(NamedTuple):
    """The arrays that stay the same from call to call."""

    plan: Annotated[NDArray[np.int64], Plan]
    parameters: Floats  # (P,)
    packed: Floats  # the packed weights, see Plan
    work: Floats  # the workspace of all threads, see Plan
    probabilities: Doubles  # (threads, V in whole vectors)
    order: Integers  # (threads, V in whole vectors)


class Call(NamedTuple):
    """The arrays of one call.

    settings: temperature, top_k, top_p, min_p, the number of held units, and of each its array,
    layer, index, value and the value's tanh.
    """

    ids: Integers  # (T, B); in GENERATE (T + 1, B), of which only the first row is read
    extra: Floats  # (T, B, E), flat: the extra inputs
    state: Floats  # (S, L, B, H): before the first character
    new_state: Floats  # (S, L, B, H): after the last one
    out: Floats  # logits or log-probabilities (T, B, V), or states (T, S, L, B, H), flat
    settings: Doubles
    uniforms: Doubles  # (T, B), in GENERATE
    rules: Integers  # restrictions of the rows, in GENERATE; see `charloom.engines.restrictions`

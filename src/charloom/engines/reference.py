"""The reference engine: the hand-derived forward and backward passes in NumPy.

It is the definition of every result: tests compare the other engines with it.

V: characters in the vocabulary; H: hidden units; L: layers; G: gates (1 rnn, 3 gru, 4 lstm);
T: time steps; B: rows of a batch; S: arrays of state (2 for lstm, else 1); E: extra inputs.

Outside the time loop are the products that need no previous state. The first layer's input product
is a look-up in the columns of its weight, and its gradient is a sum by character. The products of
extra inputs, the decoder's product and every weight's gradient are one large product over all T·B
positions. Only the recurrent product is inside the loop.

`x_backward` follows `x_forward`; `dx` is the gradient of the loss with respect to x and has
x's shape. σ is the logistic function; ⊙ multiplies element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.engines.decoding import SamplingSettings, choose
from charloom.engines.protocol import Ids, available_cores, check_extra, refuse_extra_inputs
from charloom.engines.reference_normalization import (
    NormalizedProduct,
    RecurrentProduct,
    normalize_backward,
    normalize_forward,
)
from charloom.engines.reference_products import NotebookProducts, Products
from charloom.network.dropout import dropout_mask, weight_mask
from charloom.network.optimizers import NonFiniteGradientError, Optimizer
from charloom.network.parameters import Float, Parameters, State
from charloom.network.units import Clamp

Cache = tuple[Any, ...]
Ends = NDArray[np.bool_]  # (T, B, 1): whether the input is the end of a document


def sigmoid(x: Float) -> Float:
    """Return σ(x) = 1 / (1 + e^{−x}), by tanh so that no exponential overflows."""
    return np.asarray(0.5 * np.tanh(0.5 * x) + 0.5)


def emptied(states: Float, ends: Ends) -> Float:
    """Return r ⊙ states, where r is 0 in the rows that `ends` marks, and 1 in the others.

    The same r multiplies a state before the end of a document is read, and the gradient that goes
    back to this state.
    """
    return np.where(ends, states.dtype.type(0), states) if ends.any() else states


# A cell's forward pass takes x, the input's products without a bias, the state before the window,
# the recurrent product and both biases. `ends` marks the places where a document's end is read.
# The pass returns the hidden states (T, B, H), the last state and a cache. The cache starts with
# the hidden states and the one before the window, (T + 1, B, H), and its last entry is `ends`.
#
# Its backward pass takes their gradient dh. It returns dx, and the gradient da of the
# recurrent product W h_{t−1}. The caller computes
#   dW = Σ_t da_t h_{t−1}ᵀ,  db_hh = Σ_t da_t,  db_ih = Σ_t dx_t.
# Where products are normalized, dW has the gradient of the product before its normalization.
#
# Below, a step starts from the states h_{t−1} and c_{t−1}. They are r_t ⊙ those after step t − 1,
# with r_t = 0 where the end of a document is read at t, else 1.


# rnn: h_t = tanh(x_t + W h_{t−1} + b), b the sum of the two biases.


def rnn_forward(
    x: Float, state: Float, w: RecurrentProduct, b_ih: Float, b_hh: Float, ends: Ends
) -> tuple[Float, Float, Cache]:
    """Return the hidden states (T, B, H), and the state after them.

    x (T, B, H), state (1, B, H), w the product by (H, H), biases (H), ends (T, B, 1)
    """
    steps = len(x)
    h = np.empty((steps + 1, *x.shape[1:]), x.dtype)  # (T + 1, B, H); h[0] comes before the window
    h[0] = state[0]
    b = b_ih + b_hh
    for t in range(steps):
        np.tanh(x[t] + w.forward(t, emptied(h[t], ends[t])) + b, out=h[t + 1])
    return h[1:], h[steps:].copy(), (h, w, ends)


def rnn_backward(dh: Float, cache: Cache) -> tuple[Float, Float]:
    """dh (T, B, H) -> dx and da, both (T, B, H) and the same."""
    h, w, ends = cache
    dx = np.empty_like(dh)
    dh_next = np.zeros_like(dh[0])  # what the states after t add to the gradient of h_t
    for t in reversed(range(len(dh))):
        # dL/dh_t = (from the decoder or the layer above) + (from h_{t+1})
        dh_t = dh[t] + dh_next
        # a = x_t + W h_{t−1} + b, h_t = tanh(a):  da = (1 − h_t²) ⊙ dh_t, and dx_t = da
        dx[t] = (1 - h[t + 1] * h[t + 1]) * dh_t
        # dL/dh_{t−1} = r_t ⊙ Wᵀ da
        dh_next = emptied(w.backward(t, dx[t]), ends[t])
    return dx, dx


# lstm: the four gates are stacked in x and W in the order i, f, g, o.
#
#   i = σ(a_i), f = σ(a_f), g = tanh(a_g), o = σ(a_o)   with a = x_t + W h_{t−1} + b
#   c_t = f ⊙ c_{t−1} + i ⊙ g
#   h_t = o ⊙ tanh(c_t)


def lstm_forward(
    x: Float, state: Float, w: RecurrentProduct, b_ih: Float, b_hh: Float, ends: Ends
) -> tuple[Float, Float, Cache]:
    """Return the hidden states (T, B, H), and the state after them.

    x (T, B, 4H), state (2, B, H), w the product by (4H, H), biases (4H), ends (T, B, 1)
    """
    steps, rows, stacked = x.shape
    size = stacked // 4
    h = np.empty((steps + 1, rows, size), x.dtype)
    c = np.empty_like(h)
    h[0], c[0] = state
    gates = np.empty_like(x)  # (T, B, 4H): i, f, g, o after their nonlinearities
    tanh_c = np.empty_like(h[1:])  # (T, B, H)
    x = x + (b_ih + b_hh)
    for t in range(steps):
        h_before, c_before = emptied(h[t], ends[t]), emptied(c[t], ends[t])
        a = x[t] + w.forward(t, h_before)  # (B, 4H)
        i, f, g, o = _blocks(gates[t], 4)
        a_i, a_f, a_g, a_o = _blocks(a, 4)
        i[...] = sigmoid(a_i)
        f[...] = sigmoid(a_f)
        np.tanh(a_g, out=g)
        o[...] = sigmoid(a_o)
        np.add(f * c_before, i * g, out=c[t + 1])
        np.tanh(c[t + 1], out=tanh_c[t])
        np.multiply(o, tanh_c[t], out=h[t + 1])
    return h[1:], np.stack([h[steps], c[steps]]), (h, c, gates, tanh_c, w, ends)


def lstm_backward(dh: Float, cache: Cache) -> tuple[Float, Float]:
    """dh (T, B, H) -> dx and da, both (T, B, 4H) and the same."""
    _, c, gates, tanh_c, w, ends = cache
    dx = np.empty_like(gates)
    dh_next = np.zeros_like(dh[0])
    dc_next = np.zeros_like(dh[0])
    for t in reversed(range(len(dh))):
        i, f, g, o = _blocks(gates[t], 4)
        da_i, da_f, da_g, da_o = _blocks(dx[t], 4)
        dh_t = dh[t] + dh_next
        # h_t = o ⊙ tanh(c_t):  do = dh_t ⊙ tanh(c_t),  dc_t = dh_t ⊙ o ⊙ (1 − tanh²(c_t)) + (from
        # c_{t+1})
        dc = dh_t * o * (1 - tanh_c[t] * tanh_c[t]) + dc_next
        # σ'(a) = σ(a)(1 − σ(a)),  tanh'(a) = 1 − tanh²(a)
        da_o[...] = dh_t * tanh_c[t] * o * (1 - o)
        # c_t = f ⊙ c_{t−1} + i ⊙ g:  di = dc ⊙ g,  df = dc ⊙ c_{t−1},  dg = dc ⊙ i
        da_i[...] = dc * g * i * (1 - i)
        da_f[...] = dc * emptied(c[t], ends[t]) * f * (1 - f)
        da_g[...] = dc * i * (1 - g * g)
        # dc_{t−1} = r_t ⊙ dc ⊙ f,  dh_{t−1} = r_t ⊙ Wᵀ da
        dc_next = emptied(dc * f, ends[t])
        dh_next = emptied(w.backward(t, dx[t]), ends[t])
    return dx, dx


# gru: the three gates are stacked in x and W in the order r, z, n. The n-block of W's product has
# its own bias, because the reset gate multiplies both.
#
#   r = σ(x_r + W_r h_{t−1} + b_r),  z = σ(x_z + W_z h_{t−1} + b_z)
#   q = W_n h_{t−1} + b_n,  n = tanh(x_n + r ⊙ q)
#   h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}


def gru_forward(
    x: Float, state: Float, w: RecurrentProduct, b_ih: Float, b_hh: Float, ends: Ends
) -> tuple[Float, Float, Cache]:
    """Return the hidden states (T, B, H), and the state after them.

    x (T, B, 3H), state (1, B, H), w the product by (3H, H), biases (3H), ends (T, B, 1)
    """
    steps, rows, stacked = x.shape
    size = stacked // 3
    h = np.empty((steps + 1, rows, size), x.dtype)
    h[0] = state[0]
    gates = np.empty_like(x)  # (T, B, 3H): r, z, n after their nonlinearities
    q = np.empty_like(h[1:])  # (T, B, H)
    x = x + b_ih
    for t in range(steps):
        h_before = emptied(h[t], ends[t])
        a = w.forward(t, h_before) + b_hh  # (B, 3H)
        r, z, n = _blocks(gates[t], 3)
        gates[t, :, : 2 * size] = sigmoid(x[t, :, : 2 * size] + a[:, : 2 * size])
        q[t] = a[:, 2 * size :]
        np.tanh(x[t, :, 2 * size :] + r * q[t], out=n)
        np.add((1 - z) * n, z * h_before, out=h[t + 1])
    return h[1:], h[steps:].copy(), (h, gates, q, w, ends)


def gru_backward(dh: Float, cache: Cache) -> tuple[Float, Float]:
    """dh (T, B, H) -> dx and da, both (T, B, 3H), which differ in the n-block."""
    h, gates, q, w, ends = cache
    size = h.shape[-1]
    dx = np.empty_like(gates)
    da = np.empty_like(gates)
    dh_next = np.zeros_like(dh[0])
    for t in reversed(range(len(dh))):
        r, z, n = _blocks(gates[t], 3)
        dx_r, dx_z, dx_n = _blocks(dx[t], 3)
        dh_t = dh[t] + dh_next
        # h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}:  dn = dh_t ⊙ (1 − z),  dz = dh_t ⊙ (h_{t−1} − n)
        dx_n[...] = dh_t * (1 - z) * (1 - n * n)
        dx_z[...] = dh_t * (emptied(h[t], ends[t]) - n) * z * (1 - z)
        # n = tanh(x_n + r ⊙ q):  dr = dx_n ⊙ q,  dq = dx_n ⊙ r
        dx_r[...] = dx_n * q[t] * r * (1 - r)
        da[t, :, : 2 * size] = dx[t, :, : 2 * size]
        np.multiply(dx_n, r, out=da[t, :, 2 * size :])
        # dh_{t−1} = r_t ⊙ (dh_t ⊙ z + Wᵀ da)
        dh_next = emptied(dh_t * z + w.backward(t, da[t]), ends[t])
    return dx, da


class Cell(NamedTuple):
    forward: Callable[
        [Float, Float, RecurrentProduct, Float, Float, Ends], tuple[Float, Float, Cache]
    ]
    backward: Callable[[Float, Cache], tuple[Float, Float]]


CELLS = {
    "rnn": Cell(rnn_forward, rnn_backward),
    "lstm": Cell(lstm_forward, lstm_backward),
    "gru": Cell(gru_forward, gru_backward),
}


def softmax_cross_entropy_forward(logits: Float, targets: Ids) -> tuple[float, Cache]:
    """Return the mean of −log p(target), in nats, for logits (N, V) and targets (N).

    p_v = e^{l_v} / Σ_u e^{l_u},  log p_v = l_v − log Σ_u e^{l_u}; the largest logit is subtracted
    from all of them first, so that no exponential overflows.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    p = np.exp(shifted)
    total = p.sum(axis=1, keepdims=True)
    log_p = shifted[np.arange(len(targets)), targets] - np.log(total[:, 0])
    p /= total
    return -float(log_p.mean(dtype=np.float64)), (p, targets)


def softmax_cross_entropy_backward(cache: Cache, scale: float) -> Float:
    """Return the gradient of the logits, (N, V): dl_v = (p_v − [v = target]) · scale."""
    p, targets = cache
    dlogits = p.copy()
    dlogits[np.arange(len(targets)), targets] -= 1
    dlogits *= dlogits.dtype.type(scale)
    return np.asarray(dlogits)


def log_softmax(logits: Float) -> Float:
    """Return the log-probabilities along the last axis, exact for large logits too."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


class LayerCache(NamedTuple):
    """The forward results that a layer's backward pass needs."""

    # The layer's inputs, (T, B, H); in the first one the extra inputs, (T, B, E), or None.
    below: Float | None
    mask: Float | None  # (T, B, H): of the layer's outputs
    of_weights: Float | None  # (G·H, H): the recurrent weights' mask
    # With normalized products: y of the input's (T, B, G·H), and its factors (T, B, G, 1).
    normalized: tuple[Float, Float] | None
    product: RecurrentProduct
    cache: Cache  # the cell's own


class ReferenceEngine:
    """The Engine protocol in NumPy, see `charloom.engines.protocol`."""

    name = "reference"
    window_equals_steps = False  # because their matrix products add up in another order
    device = "cpu"

    def __init__(
        self,
        parameters: Parameters,
        *,
        seed: int = 0,
        classic: bool = False,
        threads: int | None = None,
    ) -> None:
        self.config = parameters.config
        self.parameters = parameters
        self._gradients: Parameters | None = None
        self.seed = seed
        self.classic = classic
        self.threads = threads or available_cores()  # NumPy's, which its callers limit
        # Only in float64 can results equal the notebook's; in float32 large products are faster.
        as_notebook = classic and self.config.dtype == "float64"
        self._products = NotebookProducts if as_notebook else Products
        self._cell = CELLS[self.config.cell]

    @property
    def gradients(self) -> Parameters:
        """Return the gradients, allocated on first use because sampling and scoring need none."""
        if self._gradients is None:
            self._gradients = Parameters(self.config)
        return self._gradients

    def parameters_changed(self) -> None:
        """Do nothing, because the engine has no copies of the parameters."""

    def zero_state(self, rows: int) -> State:
        return self.config.zero_state(rows)

    # No warnings: a matrix product can read beyond a matrix's edge and raise a floating-point flag
    # there, and an overflow is visible in the numbers.
    @np.errstate(all="ignore")
    def loss_and_gradients(
        self,
        inputs: Ids,
        targets: Ids,
        state: State,
        *,
        dropout_step: int | None = None,
        extra: Float | None = None,
    ) -> tuple[float, State]:
        check_extra(self.config, extra, *inputs.shape)
        steps, rows = inputs.shape
        count = steps * rows
        y, state, caches = self._layers_forward(inputs, state, dropout_step, extra=extra)
        flat_y = _flat(y)  # (T·B, H)
        loss, loss_cache = softmax_cross_entropy_forward(self._decode(flat_y), targets.ravel())
        dlogits = softmax_cross_entropy_backward(loss_cache, 1.0 if self.classic else 1 / count)
        # l = V y + b_y:  dV = Σ dl yᵀ,  db_y = Σ dl,  dy = Vᵀ dl
        self.gradients["decoder.weight"][...] = self._products.outer(dlogits, flat_y)
        self.gradients["decoder.bias"][...] = self._products.total(dlogits)
        dy = self._products.times(dlogits, self.parameters["decoder.weight"].T).reshape(y.shape)
        self._layers_backward(dy, inputs, caches)
        return loss, state

    def train_step(
        self,
        inputs: Ids,
        targets: Ids,
        state: State,
        optimizer: Optimizer,
        *,
        extra: Float | None = None,
    ) -> tuple[float, float, State]:
        loss, state = self.loss_and_gradients(
            inputs, targets, state, dropout_step=optimizer.step_count, extra=extra
        )
        if not np.isfinite(loss):
            raise NonFiniteGradientError
        with np.errstate(all="ignore"):
            norm = optimizer.update(self.parameters.flat, self.gradients.flat)
        return loss, norm, state

    @np.errstate(all="ignore")
    def log_probabilities(
        self, inputs: Ids, state: State, *, extra: Float | None = None
    ) -> tuple[Float, State]:
        check_extra(self.config, extra, *inputs.shape)
        y, state, _ = self._layers_forward(inputs, state, None, extra=extra)
        logits = self._decode(_flat(y)).reshape(*inputs.shape, -1)
        return log_softmax(logits), state

    @np.errstate(all="ignore")
    def read(self, inputs: Ids, state: State, *, extra: Float | None = None) -> State:
        check_extra(self.config, extra, *inputs.shape)
        new_state = state.copy()
        for row in range(inputs.shape[1]):  # a row and a character at a time, as in `step`
            own = new_state[:, :, row : row + 1].copy()
            for t in range(len(inputs)):
                here = slice(t, t + 1), slice(row, row + 1)
                beside = None if extra is None else extra[here]
                _, own, _ = self._layers_forward(inputs[here], own, None, extra=beside)
            new_state[:, :, row : row + 1] = own
        return new_state

    @np.errstate(all="ignore")
    def step(
        self, ids: Ids, state: State, clamps: Sequence[Clamp] = (), *, extra: Float | None = None
    ) -> tuple[Float, State]:
        check_extra(self.config, extra, len(ids))
        logits = np.empty((len(ids), self.config.vocabulary_size), self.config.dtype)
        new_state = np.empty_like(state)
        weight, bias = self.parameters["decoder.weight"], self.parameters["decoder.bias"]
        for row in range(len(ids)):
            # One row at a time, so that its bytes cannot depend on the others. The decoder's
            # products are summed character by character, so that they cannot depend on V. A matrix
            # product would group its sums by the matrix's shape.
            own = state[:, :, row : row + 1].copy()
            beside = None if extra is None else extra[None, row : row + 1]
            y, own, _ = self._layers_forward(
                ids[row : row + 1].reshape(1, 1), own, None, clamps, extra=beside
            )
            logits[row] = (weight * y[0, 0]).sum(axis=1) + bias
            new_state[:, :, row : row + 1] = own
        return logits, new_state

    def generate(
        self,
        ids: Ids,
        state: State,
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
        clamps: Sequence[Clamp] = (),
    ) -> tuple[Ids, State]:
        refuse_extra_inputs(self.config)
        drawn = np.empty(uniforms.shape, dtype=np.intp)
        for position, numbers in enumerate(uniforms):
            logits, state = self.step(ids, state, clamps)
            ids = choose(logits, settings, numbers)
            drawn[position] = ids
        return drawn, state

    @np.errstate(all="ignore")
    def states(
        self, inputs: Ids, state: State, *, extra: Float | None = None
    ) -> tuple[Float, State]:
        check_extra(self.config, extra, *inputs.shape)
        out = np.empty((len(inputs), *state.shape), self.config.dtype)
        for t in range(len(inputs)):
            beside = None if extra is None else extra[t : t + 1]
            _, state, _ = self._layers_forward(inputs[t : t + 1], state, None, extra=beside)
            out[t] = state
        return out, state

    def _hold(
        self, clamps: Sequence[Clamp], layer: int, y: Float, state: State, cache: Cache
    ) -> None:
        """Write held units' values into a layer's outputs (1, B, H) and the state after them.

        A held cell state changes the hidden one, h = o ⊙ tanh(c).

        Args:
            clamps: the held units of all layers.
            layer: index of the layer.
            y: its outputs.
            state: the state after them, (S, L, B, H).
            cache: the cell's cache.
        """
        for unit, value in clamps:
            if unit.layer != layer:
                continue
            held = y.dtype.type(value)
            if unit.array == 1:
                o = cache[2][0, :, 3 * self.config.hidden_size + unit.number]
                state[1, layer, :, unit.number] = held
                held = o * np.tanh(held)
            y[0, :, unit.number] = held
            state[0, layer, :, unit.number] = held

    def _split(self, w: Float) -> tuple[Float, Float]:
        """Return the columns of the characters, (G·H, V), and of the extra inputs, (G·H, E)."""
        size = self.config.vocabulary_size
        return w[:, :size], w[:, size:]

    def _decode(self, y: Float) -> Float:
        weight, bias = self.parameters["decoder.weight"], self.parameters["decoder.bias"]
        return self._products.times(y, weight) + bias

    def _layers_forward(
        self,
        inputs: Ids,
        state: State,
        dropout_step: int | None,
        clamps: Sequence[Clamp] = (),
        *,
        extra: Float | None = None,
    ) -> tuple[Float, State, list[LayerCache]]:
        """Run all layers.

        Args:
            inputs: ids, (T, B).
            state: the state before them.
            dropout_step: number of the step whose dropout masks are applied; None for no dropout.
            clamps: held units, for T = 1 only.
            extra: the extra inputs, (T, B, E).

        Returns:
            The last layer's outputs (T, B, H), the state after them, and the layers' caches.
        """
        p = self.parameters
        new_state = np.empty_like(state)
        ends = np.zeros((*inputs.shape, 1), dtype=np.bool_)
        if self.config.end_id is not None:
            ends[..., 0] = inputs == self.config.end_id
        caches = []
        y: Float | None = None  # the outputs of the layer below, (T, B, H)
        for layer in range(self.config.layers):
            w_ih = p[f"rnn.weight_ih_l{layer}"]
            if y is None:
                # The first layer's W_ih is (U U'), and its input the one-hot vector above the extra
                # inputs. U times a one-hot vector is a column of U:  x = U[:, id] + U' extra
                u, u_extra = self._split(w_ih)
                columns = u.T if inputs.size < len(u.T) else np.ascontiguousarray(u.T)
                x = columns[inputs]  # (T, B, G·H)
                if extra is not None:
                    x += self._products.times(_flat(extra), u_extra).reshape(x.shape)
            else:
                x = self._products.times(_flat(y), w_ih)
                x = x.reshape(*inputs.shape, -1)
            below = extra if y is None else y
            w_hh, of_weights = p[f"rnn.weight_hh_l{layer}"], None
            if dropout_step is not None and self.config.weight_drop > 0:
                of_weights = weight_mask(
                    self.seed, dropout_step, layer, w_hh.shape, self.config.weight_drop,
                    self.config.dtype,
                )  # fmt: skip
                w_hh = w_hh * of_weights
            product, normalized = RecurrentProduct(w_hh), None
            if self.config.norm == "rms":
                product = NormalizedProduct(w_hh, p[f"rnn.norm_hh_l{layer}"], x.shape)
                normalized = normalize_forward(x, self.config.gates)
                x = p[f"rnn.norm_ih_l{layer}"] * normalized[0]
            y, new_state[:, layer], cache = self._cell.forward(
                x,
                state[:, layer],
                product,
                p[f"rnn.bias_ih_l{layer}"],
                p[f"rnn.bias_hh_l{layer}"],
                ends,
            )
            if clamps:
                self._hold(clamps, layer, y, new_state, cache)
            mask = None
            if dropout_step is not None and self.config.dropout > 0:
                mask = dropout_mask(
                    self.seed, dropout_step, layer, y.shape, self.config.dropout, self.config.dtype
                )
                y = y * mask
            caches.append(LayerCache(below, mask, of_weights, normalized, product, cache))
        assert y is not None
        return y, new_state, caches

    def _layers_backward(
        self,
        dy: Float,
        inputs: Ids,
        caches: list[LayerCache],
    ) -> None:
        """Compute `gradients` from dy (T, B, H), the gradient of the last layer's outputs."""
        gradients = self.gradients
        for layer in reversed(range(self.config.layers)):
            below, mask, of_weights, normalized, product, cache = caches[layer]
            if mask is not None:
                dy = dy * mask
            dx, da = self._cell.backward(dy, cache)  # (T, B, G·H)
            da_raw = _flat(product.raw_gradient(da))
            gradients[f"rnn.bias_ih_l{layer}"][...] = self._products.total(_flat(dx))
            if normalized is not None:
                assert isinstance(product, NormalizedProduct)
                # x = g ⊙ y:  dg = Σ dx ⊙ y,  dy = dx ⊙ g
                gradients[f"rnn.norm_hh_l{layer}"][...] = _flat(da * product.y).sum(axis=0)
                gradients[f"rnn.norm_ih_l{layer}"][...] = _flat(dx * normalized[0]).sum(axis=0)
                gain = self.parameters[f"rnn.norm_ih_l{layer}"]
                dx = normalize_backward(dx * gain, *normalized)
            dx, da = _flat(dx), _flat(da)  # (T·B, G·H)
            previous = _flat(emptied(cache[0][:-1], cache[-1]))  # h_{t−1}, (T·B, H)
            dw_hh = self._products.outer(da_raw, previous)
            gradients[f"rnn.weight_hh_l{layer}"][...] = (
                dw_hh if of_weights is None else dw_hh * of_weights
            )
            gradients[f"rnn.bias_hh_l{layer}"][...] = (
                0 if self.classic else self._products.total(da)
            )
            dw_ih = gradients[f"rnn.weight_ih_l{layer}"]
            if layer == 0:
                # The gradient of a column is the sum over the places where it was looked up.
                du, du_extra = self._split(dw_ih)
                du[...] = 0
                characters, sums = self._products.by_character(inputs.ravel(), dx)
                du[:, characters] = sums.T
                if below is not None:
                    # x = U[:, id] + U' extra:  dU' = Σ dx extraᵀ. Nothing below them is trained.
                    du_extra[...] = self._products.outer(dx, _flat(below))
            else:
                assert below is not None
                dw_ih[...] = self._products.outer(dx, _flat(below))
                w_ih = self.parameters[f"rnn.weight_ih_l{layer}"]
                dy = self._products.times(dx, w_ih.T).reshape(below.shape)


def _blocks(x: Float, count: int) -> list[Float]:
    """Return views on `count` equal parts of the last axis."""
    size = x.shape[-1] // count
    return [x[..., k * size : (k + 1) * size] for k in range(count)]


def _flat(x: Float) -> Float:
    """Return (T, B, M) as (T·B, M)."""
    return x.reshape(-1, x.shape[-1])

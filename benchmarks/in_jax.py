"""The workloads in idiomatic JAX.

One jitted step scans over time with donated buffers. The first layer's input product is a look-up.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from numpy.typing import NDArray

from benchmarks.data import batches, weights
from benchmarks.workloads import Workload


def cell_step(cell: str, w: Any, b: Any, state: Any, x: Any) -> tuple[Any, Any]:
    """Compute one time step of a layer from x, the input product plus bias. Return (state, h)."""
    if cell == "rnn":
        h = jnp.tanh(x + state @ w.T + b)
        return h, h
    if cell == "lstm":
        h, c = state
        i, f, g, o = jnp.split(x + h @ w.T + b, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h
    h = state
    r, z, q = jnp.split(h @ w.T + b, 3, axis=1)
    x_r, x_z, x_n = jnp.split(x, 3, axis=1)
    z = jax.nn.sigmoid(x_z + z)
    n = jnp.tanh(x_n + jax.nn.sigmoid(x_r + r) * q)
    h = (1 - z) * n + z * h
    return h, h


def forward(workload: Workload, p: dict[str, Any], state: Any, inputs: Any) -> tuple[Any, Any]:
    """Return the logits (T, B, V) and the final state."""
    y, new_state = None, []
    for layer in range(workload.layers):
        w_ih, bias = p[f"rnn.weight_ih_l{layer}"], p[f"rnn.bias_ih_l{layer}"]
        x = (w_ih.T[inputs] if y is None else y @ w_ih.T) + bias
        step = partial(
            cell_step, workload.cell, p[f"rnn.weight_hh_l{layer}"], p[f"rnn.bias_hh_l{layer}"]
        )
        after, y = jax.lax.scan(step, state[layer], x)
        new_state.append(after)
    return y @ p["decoder.weight"].T + p["decoder.bias"], new_state


def mean_loss(workload: Workload, p: Any, state: Any, inputs: Any, targets: Any) -> Any:
    logits, state = forward(workload, p, state, inputs)
    log_p = jax.nn.log_softmax(logits)
    losses = -jnp.take_along_axis(log_p, targets[..., None], axis=2)
    return losses.mean(), state


@partial(jax.jit, static_argnums=0, donate_argnums=(1, 2, 3))
def train_step(
    workload: Workload, p: Any, slots: Any, state: Any, inputs: Any, targets: Any, fresh: Any
) -> Any:
    state = jax.tree.map(lambda s: jnp.where(fresh, 0, s), state)
    (loss, state), g = jax.value_and_grad(partial(mean_loss, workload), has_aux=True)(
        p, state, inputs, targets
    )
    rate = workload.learning_rate
    if workload.classic:
        g = jax.tree.map(lambda x: x * workload.characters, g)
        g["rnn.bias_hh_l0"] = jnp.zeros_like(g["rnn.bias_hh_l0"])
    if workload.clip:
        norm = jnp.sqrt(sum(jnp.vdot(x, x) for x in g.values()))
        factor = jnp.minimum(1, workload.clip / norm)
        g = jax.tree.map(lambda x: x * factor, g)
    if workload.optimizer == "adagrad":
        squares = jax.tree.map(lambda s, x: s + x * x, slots["squares"], g)
        p = jax.tree.map(lambda w, x, s: w - rate * x / jnp.sqrt(s + 1e-8), p, g, squares)
        return p, {"squares": squares}, state, loss
    t = slots["step"] + 1
    first = jax.tree.map(lambda m, x: 0.9 * m + 0.1 * x, slots["first"], g)
    second = jax.tree.map(lambda v, x: 0.999 * v + 0.001 * x * x, slots["second"], g)
    p = jax.tree.map(
        lambda w, m, v: (
            w * (1 - rate * 0.01) - rate / (1 - 0.9**t) * m / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
        ),
        p,
        first,
        second,
    )
    return p, {"step": t, "first": first, "second": second}, state, loss


class Job:
    def __init__(
        self, workload: Workload, ids: NDArray[np.unsignedinteger], size: int, threads: int
    ) -> None:
        self.workload, self.device = workload, "cpu"
        parameters = weights(workload, size)
        self.p = {name: jnp.array(values) for name, values in parameters.items()}
        zeros = {name: jnp.zeros_like(values) for name, values in self.p.items()}
        self.slots: Any = {"squares": zeros}
        if workload.optimizer != "adagrad":
            other = {name: jnp.zeros_like(values) for name, values in self.p.items()}
            self.slots = {"step": jnp.zeros((), jnp.float32), "first": zeros, "second": other}

        def zero() -> Any:
            return jnp.zeros((workload.rows, workload.hidden_size))

        lstm = workload.cell == "lstm"
        self.state: Any = [(zero(), zero()) if lstm else zero() for _ in range(workload.layers)]
        self.batches = batches(workload, ids)
        self.count = 0

    def train(self) -> float:
        batch = self.batches(self.count)
        self.count += 1
        self.p, self.slots, self.state, loss = train_step(
            self.workload,
            self.p,
            self.slots,
            self.state,
            batch.inputs.astype(np.int32),
            batch.targets.astype(np.int32),
            batch.fresh,
        )
        return float(loss)

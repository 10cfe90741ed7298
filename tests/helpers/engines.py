"""Engines with all parameters away from zero, and windows for them to read."""

from collections.abc import Callable
from typing import Any

import numpy as np

from charloom.engines.backend import Backend
from charloom.engines.protocol import Engine
from charloom.engines.reference import softmax_cross_entropy_forward
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig


def make(
    name: str,
    cell: str,
    *,
    layers: int = 2,
    dropout: float = 0.0,
    dtype: str = "float64",
    hidden_size: int = 5,
    vocabulary_size: int = 7,
    end_id: int | None = None,
    extra_inputs: int = 0,
    norm: str = "none",
    **settings: Any,
) -> Engine:
    """Return an engine with all parameters away from zero, biases too."""
    config = ModelConfig(
        cell, hidden_size, layers, vocabulary_size, dropout, dtype, dropout, end_id, extra_inputs,
        norm,
    )  # fmt: skip
    parameters = initialize(config, seed=4)
    parameters.flat[:] += np.random.default_rng(5).normal(0, 0.3, parameters.flat.shape)
    seeded = {n: settings.pop(n) for n in ("classic", "ranks") if n in settings}
    return Backend(name, **settings).open(parameters, seed=6, **seeded)


def window(engine: Engine, steps: int, rows: int, seed: int = 7):  # type: ignore[no-untyped-def]
    """Return inputs and targets, (T, B), and a state that is not zero."""
    generator = np.random.default_rng(seed)
    size = engine.config.vocabulary_size
    inputs, targets = generator.integers(0, size, (2, steps, rows))
    state = generator.normal(0, 0.5, engine.config.zero_state(rows).shape)
    return inputs, targets, state.astype(engine.config.dtype)


def probabilities(engine: Engine, *shape: int, seed: int = 8) -> dict[str, Any]:
    """Return extra inputs for ids of this shape as a keyword: probabilities, (*shape, E)."""
    config = engine.config
    p = np.random.default_rng(seed).dirichlet(np.full(config.extra_inputs, 0.3), shape)
    return {"extra": p.astype(config.dtype)}


def loss_of(engine: Engine, inputs: Any, targets: Any, state: Any, **given: Any) -> Any:
    """Compute the gradients of a window, and return a function that computes its loss again.

    The engines in Python compute the losses without gradients, in a third of the time: differences
    need hundreds of them.
    """

    def whole() -> float:
        return engine.loss_and_gradients(inputs, targets, state, **given)[0]

    loss = whole()
    alone = {"pytorch": _pytorch_loss, "reference": _reference_loss}.get(engine.name)
    if alone is None:
        return whole
    again = alone(engine, inputs, targets, state, **given)
    np.testing.assert_allclose(again(), loss, rtol=1e-13)
    return again


def is_compiled(engine: Any) -> bool:
    from charloom.engines.pytorch import _summed_loss

    return engine._loss is not _summed_loss


def _pytorch_loss(
    engine: Any,
    inputs: Any,
    targets: Any,
    state: Any,
    dropout_step: int | None = None,
    extra: Any = None,
) -> Callable[[], float]:
    import torch

    window = engine._ids(inputs), engine._ids(targets), engine._numbers(state)
    # A compiled loss would be compiled again for a mode without gradients.
    compiled = is_compiled(engine)

    def loss() -> float:
        with engine._settings(), torch.set_grad_enabled(compiled):
            engine._upload()
            total, _ = engine._window(*window, dropout_step, engine._beside(extra))
            return float(total.detach()) / inputs.size

    return loss


def _reference_loss(
    engine: Any,
    inputs: Any,
    targets: Any,
    state: Any,
    dropout_step: int | None = None,
    extra: Any = None,
) -> Callable[[], float]:
    def loss() -> float:
        y, _, _ = engine._layers_forward(inputs, state, dropout_step, extra=extra)
        logits = engine._decode(y.reshape(-1, y.shape[-1]))
        return softmax_cross_entropy_forward(logits, targets.ravel())[0]

    return loss

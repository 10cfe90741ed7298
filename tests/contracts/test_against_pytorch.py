"""Held to PyTorch: forward pass, loss, every gradient, every optimizer, in float64 to 1e-10."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from charloom.engines.backend import Backend
from charloom.engines.protocol import ENGINES
from charloom.network.initialization import initialize
from charloom.network.optimizers import OPTIMIZERS, clip_by_global_norm
from charloom.network.parameters import ModelConfig, Parameters
from helpers.engines import probabilities

pytestmark = pytest.mark.torch


engines = [name for name in ENGINES if name != "auto"]


def peer(parameters: Parameters) -> tuple[Any, Any]:
    """PyTorch's modules with these parameters: our names are its own."""
    config = parameters.config
    kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[config.cell]
    inputs = config.vocabulary_size + config.extra_inputs
    rnn = kind(inputs, config.hidden_size, config.layers, dtype=torch.float64)
    decoder = torch.nn.Linear(config.hidden_size, config.vocabulary_size, dtype=torch.float64)
    for prefix, module in (("rnn.", rnn), ("decoder.", decoder)):
        tensors = {
            name.removeprefix(prefix): torch.tensor(values)
            for name, values in parameters.items()
            if name.startswith(prefix)
        }
        module.load_state_dict(tensors)
    return rnn, decoder


@pytest.mark.parametrize("name", engines)
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize(
    ("layers", "steps", "rows", "count"), [(1, 5, 1, 0), (2, 7, 3, 0), (3, 1, 2, 0), (2, 5, 3, 4)]
)
def test_forward_loss_and_gradients(
    name: str, cell: str, layers: int, steps: int, rows: int, count: int
) -> None:
    config = ModelConfig(cell, 6, layers, 9, dtype="float64", extra_inputs=count)
    parameters = initialize(config, seed=3)
    generator = np.random.default_rng(2)
    parameters.flat[:] += generator.normal(0, 0.3, parameters.flat.shape)
    inputs, targets = generator.integers(0, 9, (2, steps, rows))
    state = generator.normal(0, 0.5, config.zero_state(rows).shape)
    engine = Backend(name).open(parameters)
    extra = probabilities(engine, steps, rows) if count else {}
    loss, end = engine.loss_and_gradients(inputs, targets, state, **extra)
    log_p, _ = engine.log_probabilities(inputs, state, **extra)

    rnn, decoder = peer(parameters)
    start = torch.tensor(state)
    one_hot = torch.nn.functional.one_hot(torch.tensor(inputs), 9).double()
    if count:  # they follow the one-hot vector
        one_hot = torch.cat([one_hot, torch.tensor(extra["extra"])], dim=2)
    y, final = rnn(one_hot, (start[0], start[1]) if cell == "lstm" else start[0])
    logits = decoder(y)
    their_loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, 9), torch.tensor(targets).reshape(-1)
    )
    their_loss.backward()

    def close(ours: Any, theirs: Any) -> None:
        theirs = theirs.detach().numpy()
        assert np.linalg.norm(ours - theirs) <= 1e-10 * np.linalg.norm(theirs)

    assert loss == pytest.approx(their_loss.item(), rel=1e-10)
    close(log_p, torch.log_softmax(logits, 2))
    close(end, torch.stack(final) if cell == "lstm" else final[None])
    for prefix, module in (("rnn.", rnn), ("decoder.", decoder)):
        for tensor, values in module.named_parameters():
            close(engine.gradients[prefix + tensor], values.grad)


peers: dict[str, Callable[[Any], Any]] = {
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.05),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_for_20_steps(name: str) -> None:
    generator = np.random.default_rng(1)
    ours = generator.normal(size=40)
    theirs = torch.tensor(ours.copy(), requires_grad=True)
    optimizer, other = OPTIMIZERS[name](0.05), peers[name]([theirs])
    for _ in range(20):
        gradient = generator.normal(size=40) * 10 ** generator.uniform(-3, 1, 40)
        theirs.grad = torch.tensor(gradient.copy())
        optimizer.update(ours, gradient)
        other.step()
        expected = theirs.detach().numpy()
        assert np.linalg.norm(ours - expected) <= 1e-10 * np.linalg.norm(expected)


def test_clipping() -> None:
    gradient = np.random.default_rng(1).normal(size=40)
    tensor = torch.zeros(40, dtype=torch.float64)
    tensor.grad = torch.tensor(gradient.copy())
    theirs = torch.nn.utils.clip_grad_norm_([tensor], 1.0)
    assert clip_by_global_norm(gradient, 1.0) == pytest.approx(theirs.item(), rel=1e-12)
    # PyTorch divides by the norm + 1e-6.
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-6)

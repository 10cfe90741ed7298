"""The optimizers of `charloom.network.optimizers` in PyTorch, for the engine `pytorch`.

Each update changes the parameters p in place, with the gradient g and the optimizer's slots, all
(P,). PyTorch's fused kernels read them once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from charloom.network.optimizers import SGD, AdaGrad, Adam, AdamW, Optimizer, RMSProp

Tensor: TypeAlias = torch.Tensor


def _sgd(optimizer: SGD, p: Tensor, g: Tensor, momentum: Tensor) -> None:
    sgd(
        [p],
        [g],
        [momentum],
        fused=True,
        lr=optimizer.learning_rate,
        momentum=optimizer.momentum,
        weight_decay=0.0,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )


def _adagrad(optimizer: AdaGrad, p: Tensor, g: Tensor, squares: Tensor) -> None:
    squares.addcmul_(g, g)
    if optimizer.epsilon_inside:
        below = squares.add(optimizer.epsilon).sqrt_()
    else:
        below = squares.sqrt().add_(optimizer.epsilon)
    p.addcdiv_(g, below, value=-optimizer.learning_rate)


def _rmsprop(optimizer: RMSProp, p: Tensor, g: Tensor, mean_square: Tensor) -> None:
    mean_square.mul_(optimizer.decay).addcmul_(g, g, value=1 - optimizer.decay)
    p.addcdiv_(g, mean_square.sqrt().add_(optimizer.epsilon), value=-optimizer.learning_rate)


def _adam(optimizer: Adam, p: Tensor, g: Tensor, first: Tensor, second: Tensor) -> None:
    count = torch.tensor(float(optimizer.step_count), device=p.device)  # the kernel adds one
    decay = optimizer.weight_decay if isinstance(optimizer, AdamW) else 0.0
    (adamw if isinstance(optimizer, AdamW) else adam)(
        [p],
        [g],
        [first],
        [second],
        [],
        [count],
        fused=True,
        lr=optimizer.learning_rate,
        beta1=optimizer.beta1,
        beta2=optimizer.beta2,
        eps=optimizer.epsilon,
        weight_decay=decay,
        amsgrad=False,
        maximize=False,
    )


UPDATES: dict[type[Optimizer], Callable[..., None]] = {
    SGD: _sgd,
    AdaGrad: _adagrad,
    RMSProp: _rmsprop,
    Adam: _adam,
    AdamW: _adam,
}

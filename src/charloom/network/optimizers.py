"""Optimizers, clipping and learning-rate schedules, over the flat vector of parameters.

P: parameters in all. Every optimizer changes the parameters in place, allocating nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, get_args

import numpy as np

from charloom.errors import CharloomError, shortened
from charloom.network.choices import Schedule
from charloom.network.parameters import Float, aligned_zeros


class NonFiniteGradientError(ArithmeticError):
    """The gradient holds NaN or infinity; the parameters were left as they were."""


def clip_by_global_norm(gradients: Float, largest: float | None) -> float:
    """Scale the whole gradient, (P,), to a Euclidean norm of at most `largest`, in place.

    Returns the norm before (Pascanu et al. 2013). Raises NonFiniteGradientError.
    """
    norm = math.sqrt(float(np.dot(gradients, gradients)))
    if not math.isfinite(norm):
        # A sum of squares can overflow where the norm itself does not.
        norm = float(np.linalg.norm(gradients.astype(np.float64)))
        if not math.isfinite(norm):
            raise NonFiniteGradientError
    if largest is not None and norm > largest:
        gradients *= largest / norm
    return norm


class Optimizer(ABC):
    """An optimizer, one step of descent at a time. `slots` are its memory, each (P,)."""

    slot_names: ClassVar[tuple[str, ...]] = ()
    default_learning_rate: ClassVar[float]

    def __init__(self, learning_rate: float, clip: float | None = None) -> None:
        self.learning_rate = learning_rate
        self.clip = clip
        self.step_count = 0
        self.slots: dict[str, Float] = {}
        self._scratch: tuple[Float, Float] | None = None

    def prepare(self, parameters: Float) -> None:
        """Allocate the slots for parameters like these, (P,), unless they exist."""
        for name in self.slot_names:
            if name not in self.slots:
                self.slots[name] = aligned_zeros(len(parameters), parameters.dtype)

    def update(self, parameters: Float, gradients: Float) -> float:
        """Clip the gradient and take one step, both in place; returns the norm before clipping.

        Raises NonFiniteGradientError if the gradient is not finite; the parameters are unchanged.
        """
        norm = clip_by_global_norm(gradients, self.clip)
        self.prepare(parameters)
        if self._scratch is None or self._scratch[0].shape != parameters.shape:
            self._scratch = np.empty_like(parameters), np.empty_like(parameters)
        self.step_count += 1
        self._step(parameters, gradients, *self._scratch)
        return norm

    @abstractmethod
    def _step(self, p: Float, g: Float, a: Float, b: Float) -> None:
        """Change p; a and b are scratch, all (P,)."""


class SGD(Optimizer):
    """v ← m·v + g;  p ← p − lr·v. With momentum m = 0 this is plain gradient descent."""

    slot_names = ("momentum",)
    default_learning_rate = 0.5

    def __init__(
        self, learning_rate: float, clip: float | None = None, *, momentum: float = 0.9
    ) -> None:
        super().__init__(learning_rate, clip)
        self.momentum = momentum

    def _step(self, p: Float, g: Float, a: Float, b: Float) -> None:
        v = self.slots["momentum"]
        v *= self.momentum
        v += g
        np.multiply(v, self.learning_rate, out=a)
        p -= a


class AdaGrad(Optimizer):
    """G ← G + g²;  p ← p − lr·g / (√G + ε)  (Duchi et al. 2011).

    With `epsilon_inside` the step is the notebook's, lr·g / √(G + ε).
    """

    slot_names = ("squares",)
    default_learning_rate = 0.05

    def __init__(
        self,
        learning_rate: float,
        clip: float | None = None,
        *,
        epsilon: float = 1e-10,
        epsilon_inside: bool = False,
    ) -> None:
        super().__init__(learning_rate, clip)
        self.epsilon = epsilon
        self.epsilon_inside = epsilon_inside

    def _step(self, p: Float, g: Float, a: Float, b: Float) -> None:
        squares = self.slots["squares"]
        np.multiply(g, g, out=a)
        squares += a
        if self.epsilon_inside:
            np.add(squares, self.epsilon, out=a)
            np.sqrt(a, out=a)
        else:
            np.sqrt(squares, out=a)
            a += self.epsilon
        np.multiply(g, self.learning_rate, out=b)
        b /= a
        p -= b


class RMSProp(Optimizer):
    """E ← α·E + (1 − α)·g²;  p ← p − lr·g / (√E + ε)  (Tieleman & Hinton 2012)."""

    slot_names = ("mean_square",)
    default_learning_rate = 0.002

    def __init__(
        self,
        learning_rate: float,
        clip: float | None = None,
        *,
        decay: float = 0.99,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(learning_rate, clip)
        self.decay = decay
        self.epsilon = epsilon

    def _step(self, p: Float, g: Float, a: Float, b: Float) -> None:
        mean_square = self.slots["mean_square"]
        mean_square *= self.decay
        np.multiply(g, g, out=a)
        a *= 1 - self.decay
        mean_square += a
        np.sqrt(mean_square, out=a)
        a += self.epsilon
        np.divide(g, a, out=b)
        b *= self.learning_rate
        p -= b


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015).

    m ← β₁·m + (1 − β₁)·g,  v ← β₂·v + (1 − β₂)·g²
    p ← p − lr · m̂ / (√v̂ + ε) with m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ)
    """

    slot_names = ("first_moment", "second_moment")
    default_learning_rate = 0.004

    def __init__(
        self,
        learning_rate: float,
        clip: float | None = None,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(learning_rate, clip)
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon

    def _step(self, p: Float, g: Float, a: Float, b: Float) -> None:
        first, second = self.slots["first_moment"], self.slots["second_moment"]
        first *= self.beta1
        np.multiply(g, 1 - self.beta1, out=a)
        first += a
        second *= self.beta2
        np.multiply(g, g, out=a)
        a *= 1 - self.beta2
        second += a
        np.sqrt(second, out=a)
        a /= math.sqrt(1 - self.beta2**self.step_count)
        a += self.epsilon
        np.multiply(first, self.learning_rate / (1 - self.beta1**self.step_count), out=b)
        b /= a
        p -= b


class AdamW(Adam):
    """Adam with decoupled decay: first p ← p − lr·λ·p (Loshchilov & Hutter 2019)."""

    def __init__(
        self,
        learning_rate: float,
        clip: float | None = None,
        *,
        weight_decay: float = 0.01,
        **settings: Any,
    ) -> None:
        super().__init__(learning_rate, clip, **settings)
        self.weight_decay = weight_decay

    def _step(self, p: Float, g: Float, a: Float, b: Float) -> None:
        p *= 1 - self.learning_rate * self.weight_decay
        super()._step(p, g, a, b)


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adagrad": AdaGrad,
    "rmsprop": RMSProp,
    "adam": Adam,
    "adamw": AdamW,
    "sgd": SGD,
}
SCHEDULES: tuple[str, ...] = get_args(Schedule)


def learning_rate_factor(schedule: str, warmup: float, progress: float) -> float:
    """Return the factor of the learning rate after `progress` (0 to 1) of the run.

    It rises linearly over the first `warmup` of the run. Then it is constant, or falls to zero
    linearly or along half a cosine (Loshchilov & Hutter 2017).
    """
    if schedule not in SCHEDULES:
        raise CharloomError(f"schedule {shortened(schedule)} is not one of {', '.join(SCHEDULES)}")
    if progress < warmup:
        # Not zero, because the first step would change nothing.
        return max(progress / warmup, 0.01)
    rest = min(max((progress - warmup) / max(1 - warmup, 1e-12), 0.0), 1.0)
    if schedule == "linear":
        return 1 - rest
    if schedule == "cosine":
        return (1 + math.cos(math.pi * rest)) / 2
    return 1.0

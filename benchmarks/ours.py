"""The workloads in charloom, as `charloom train` and `charloom sample` run them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import batches, weights
from benchmarks.workloads import Workload
from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import TakesSeveral
from charloom.network.optimizers import AdaGrad, AdamW, Optimizer


class Job:
    """A running workload, which each call of `train`, `sample` or `score` continues."""

    def __init__(
        self,
        workload: Workload,
        ids: NDArray[np.unsignedinteger],
        size: int,
        threads: int,
        engine: str = "compiled",
        device: str = "cpu",
        bf16: bool = False,
        compile: bool = False,
    ) -> None:
        self.workload = workload
        self.device = device
        parameters = weights(workload, size)
        backend = Backend(engine, threads, device, bf16, compile)
        self.engine = backend.open(parameters, classic=workload.classic)
        self.batches = batches(workload, ids)
        self.ids = ids.astype(np.intp)
        self.state = parameters.config.zero_state(workload.rows)
        self.zeros = parameters.config.zero_state(workload.rows)
        self.count = 0
        self.optimizer: Optimizer
        if workload.optimizer == "adagrad":
            self.optimizer = AdaGrad(
                workload.learning_rate, workload.clip or None, epsilon=1e-8, epsilon_inside=True
            )
        else:
            self.optimizer = AdamW(workload.learning_rate, workload.clip or None)
        self.generator = np.random.default_rng(0)
        self.last = np.zeros(workload.rows, dtype=np.intp)

    def train(self) -> float:
        """Run one step and return the loss before it, in nats per character."""
        batch = self.batches(self.count)
        if batch.fresh:
            self.state = self.zeros
        self.count += 1
        loss, _, self.state = self.engine.train_step(
            batch.inputs, batch.targets, self.state, self.optimizer
        )
        return loss

    def train_steps(self, count: int) -> None:
        """Run n steps, several in one call if the engine takes them, as `charloom train` does."""
        most = 1
        if isinstance(self.engine, TakesSeveral):
            most = self.engine.windows_at_once(self.workload.window, self.workload.rows)
        end = self.count + count
        while self.count < end:
            several = min(most, end - self.count)
            if several == 1:
                self.train()
                continue
            assert isinstance(self.engine, TakesSeveral)
            windows = self.batches.several(self.count, several)
            losses, _, self.state = self.engine.train_windows(
                windows, self.state, self.optimizer, [self.optimizer.learning_rate] * several
            )
            self.count += len(losses)

    def sample(self, temperature: float = 1.0) -> NDArray[np.intp]:
        """Sample one call's characters, (T, B)."""
        uniforms = self.generator.random((self.workload.window, self.workload.rows))
        drawn, self.state = self.engine.generate(
            self.last, self.state, SamplingSettings(temperature), uniforms
        )
        self.last = drawn[-1]
        return drawn

    def score(self) -> float:
        """Return the mean of −log p over one call's characters, in nats per character."""
        block = self.ids[: self.workload.window + 1]
        log_p, _ = self.engine.log_probabilities(block[:-1, None], self.zeros)
        return -float(np.take_along_axis(log_p[:, 0], block[1:, None], axis=1).mean())

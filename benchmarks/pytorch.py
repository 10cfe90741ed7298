"""The workloads in idiomatic PyTorch, for a CPU or a GPU.

The input of nn.RNN, nn.LSTM or nn.GRU is one-hot, which is faster than an embedding here. The
optimizer is fused if it has a fused form, otherwise foreach. Clipping is foreach.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.data import batches, weights
from benchmarks.workloads import Workload

CELLS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


class Model(torch.nn.Module):
    def __init__(self, workload: Workload, size: int) -> None:
        super().__init__()
        self.rnn = CELLS[workload.cell](size, workload.hidden_size, workload.layers)
        self.decoder = torch.nn.Linear(workload.hidden_size, size)
        parameters = weights(workload, size)
        self.load_state_dict({name: torch.tensor(values) for name, values in parameters.items()})

    def forward(self, x: Any, state: Any) -> tuple[Any, Any]:
        y, state = self.rnn(x, state)
        return self.decoder(y), state


class Job:
    def __init__(
        self,
        workload: Workload,
        ids: NDArray[np.unsignedinteger],
        size: int,
        threads: int,
        device: str = "cpu",
        bf16: bool = False,
        compile: bool = False,
    ) -> None:
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = False  # so that products are not rounded to TF32
        self.workload, self.device, self.bf16 = workload, device, bf16
        self.model = Model(workload, size).to(device)
        self.call = torch.compile(self.model) if compile else self.model
        self.eye = torch.eye(size, device=device)
        self.ids = torch.tensor(ids.astype(np.int64))
        self.batches = batches(workload, ids)
        self.count = 0
        shape = (workload.layers, workload.rows, workload.hidden_size)
        self.zeros: Any = torch.zeros(shape, device=device)
        if workload.cell == "lstm":
            self.zeros = self.zeros, torch.zeros_like(self.zeros)
        self.state = self.zeros
        self.last = torch.zeros(workload.rows, dtype=torch.int64)
        if workload.classic:  # because the notebook has one bias
            self.model.rnn.bias_hh_l0.requires_grad_(False)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        if workload.optimizer == "adagrad":
            # The notebook's lr · g / √(G + ε) equals Adagrad with initial value G = ε and eps = 0.
            self.optimizer: Any = torch.optim.Adagrad(
                self.trained,
                lr=workload.learning_rate,
                initial_accumulator_value=1e-8,
                eps=0,
                fused=device == "cpu",  # there is no fused form on a GPU
                foreach=device != "cpu",
            )
        else:
            self.optimizer = torch.optim.AdamW(
                self.trained, lr=workload.learning_rate, weight_decay=0.01, fused=True
            )

    def train(self) -> float:
        workload = self.workload
        batch = self.batches(self.count)
        inputs = torch.from_numpy(batch.inputs).to(self.device)
        targets = torch.from_numpy(batch.targets).to(self.device)
        if batch.fresh:
            self.state = self.zeros
        self.count += 1
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            logits, state = self.call(self.eye[inputs], self.state)
        loss = functional.cross_entropy(
            logits.float().view(-1, logits.shape[-1]),
            targets.reshape(-1),
            reduction="sum" if workload.classic else "mean",
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if workload.clip:
            torch.nn.utils.clip_grad_norm_(self.trained, workload.clip, foreach=True)
        self.optimizer.step()
        self.state = (
            tuple(s.detach().float() for s in state)
            if isinstance(state, tuple)
            else state.detach().float()
        )
        value = loss.item()
        return value / workload.characters if workload.classic else value

    @torch.inference_mode()
    def sample(self, temperature: float = 1.0) -> NDArray[np.int64]:
        drawn = torch.empty(self.workload.window, self.workload.rows, dtype=torch.int64)
        state, last = self.state, self.last
        for t in range(self.workload.window):
            logits, state = self.call(self.eye[last][None], state)
            if temperature == 0:
                last = logits[0].argmax(dim=1)
            else:
                p = torch.softmax(logits[0] / temperature, dim=1)
                last = torch.multinomial(p, 1)[:, 0]
            drawn[t] = last
        self.state, self.last = state, last
        return drawn.numpy()

    @torch.inference_mode()
    def score(self) -> float:
        block = self.ids[: self.workload.window + 1]
        logits, _ = self.call(self.eye[block[:-1]][:, None], self.zeros)
        return functional.cross_entropy(logits[:, 0], block[1:]).item()

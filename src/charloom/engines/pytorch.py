"""The engine on PyTorch: its recurrent layers and its gradients, on a CPU or a GPU (extra `torch`).

A layer is one call of the function behind `torch.nn.RNN/LSTM/GRU` (oneDNN, cuDNN). Layers run one
by one, because masks apply between the layers and to the recurrent weights. The parameters stay
on one flat vector (P,), of which PyTorch has views; the optimizers' fused updates use it whole.

V: characters in the vocabulary; H: hidden units; L: layers; G: gates (1 rnn, 3 gru, 4 lstm);
T: time steps; B: rows of a batch; P: parameters in all; S: arrays of state (2 for lstm, else 1);
E: extra inputs.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import Parameter
from torch.nn.functional import cross_entropy, linear, one_hot

from charloom.engines.decoding import SamplingSettings, choose
from charloom.engines.process_group import SINGLE_PROCESS, ProcessGroup
from charloom.engines.protocol import Ids, available_cores, check_extra, refuse_extra_inputs
from charloom.engines.pytorch_documents import Documents
from charloom.engines.pytorch_layers import hold_units, run_layer
from charloom.engines.pytorch_normalized import run_normalized_layer
from charloom.engines.pytorch_optimizers import UPDATES
from charloom.engines.reference import ReferenceEngine
from charloom.errors import CharloomError, shortened
from charloom.network.dropout import dropout_mask, weight_mask
from charloom.network.optimizers import (
    NonFiniteGradientError,
    Optimizer,
)
from charloom.network.parameters import Float, Parameters, State
from charloom.network.units import Clamp

Tensor: TypeAlias = torch.Tensor
LOG = logging.getLogger("charloom")


class PytorchEngine:
    """The Engine protocol in PyTorch, see `charloom.engines.protocol`.

    On the CPU the engine shares the memory of `parameters`. On a GPU they and the optimizer's slots
    are copies that training changes; reading the property `parameters` copies both back. Read it
    again before writing to it after a training step.

    Args:
        parameters: the model's parameters.
        seed: seed of dropout.
        classic: whether the gradient is the notebook's, of the sum of the losses.
        threads: the largest number of threads on the CPU; by default that of its cores.
        device: "cpu" or "cuda".
        bf16: whether training multiplies in bfloat16 (autocast). Parameters, gradients and
            everything else stay in float32.
        compile: whether PyTorch compiles the part of a training step above the layers.
        process_group: the processes that train together. Windows and state are this rank's
            rows of the batch; loss and gradient are those of the whole batch.

    Raises:
        CharloomError: if the options exclude one another or need a missing device or compiler.
    """

    name = "pytorch"
    window_equals_steps = False  # because libraries group the sums of their products by shape

    def __init__(
        self,
        parameters: Parameters,
        *,
        seed: int = 0,
        classic: bool = False,
        threads: int | None = None,
        device: str = "cpu",
        bf16: bool = False,
        compile: bool = False,
        process_group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise CharloomError("PyTorch finds no usable GPU for --device cuda: omit --device")
        if bf16 and (parameters.config.dtype != "float32" or classic):
            raise CharloomError("--bf16 is for float32, and not for the preset classic: omit it")
        lstm_on_cpu = device == "cpu" and parameters.config.cell == "lstm"
        if bf16 and lstm_on_cpu and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            raise CharloomError(
                "--bf16: PyTorch has no lstm in bfloat16 for this processor: omit it, or use "
                "--cell gru"
            )
        if compile and classic and parameters.config.dtype == "float64":
            raise CharloomError(
                "--compile: NumPy computes the preset classic in float64, as the notebook did, and "
                "there is nothing to compile: omit it"
            )
        self.config = parameters.config
        self.bf16 = bf16
        self.seed = seed
        self.classic = classic
        self.threads = threads or available_cores()
        self.device = device
        self._process_group = process_group
        self._dtype = getattr(torch, self.config.dtype)
        self._parameters = parameters
        # The preset classic is chaotic. Only the notebook's own order of sums, which the reference
        # engine keeps in float64, reproduces the notebook's numbers.
        self._notebook = None
        if classic and self.config.dtype == "float64":
            self._notebook = ReferenceEngine(parameters, seed=seed, classic=True, threads=threads)
        self._gradients: Parameters | None = None
        self._host = torch.from_numpy(parameters.flat)
        self._shares = device == "cpu"  # one memory with the host
        self._copies: dict[str, Tensor] | None = None
        self._place(self._host.to(device))
        # For separate memory: whether the device's copy is newer than the host's, and whether it is
        # up to date unless `parameters_changed` is called.
        self._is_ahead = False
        self._is_current = True
        self._optimizer: Optimizer | None = None  # the one whose slots are on the device
        self._slots: list[Tensor] = []
        self._loss = self._compiled_loss() if compile else _summed_loss

    @property
    def parameters(self) -> Parameters:
        self._fetch()
        return self._parameters

    @property
    def gradients(self) -> Parameters:
        """Return the gradients, allocated on first use because sampling and scoring need none."""
        if self._gradients is None:
            self._gradients = Parameters(self.config)
            if self._notebook is not None:
                self._gradients = self._notebook.gradients
        return self._gradients

    def parameters_changed(self) -> None:
        self._is_current, self._copies = False, None

    def zero_state(self, rows: int) -> State:
        return self.config.zero_state(rows)

    def loss_and_gradients(
        self,
        inputs: Ids,
        targets: Ids,
        state: State,
        *,
        dropout_step: int | None = None,
        extra: Float | None = None,
    ) -> tuple[float, State]:
        if self._notebook is not None:
            return self._notebook.loss_and_gradients(
                inputs, targets, state, dropout_step=dropout_step, extra=extra
            )
        with self._settings():
            self._upload()
            loss, gradient, after = self._gradient(inputs, targets, state, dropout_step, extra)
            torch.from_numpy(self.gradients.flat).copy_(gradient)
            return loss, _array(after)

    def train_step(
        self,
        inputs: Ids,
        targets: Ids,
        state: State,
        optimizer: Optimizer,
        *,
        extra: Float | None = None,
    ) -> tuple[float, float, State]:
        if self._notebook is not None:
            self.parameters_changed()
            return self._notebook.train_step(inputs, targets, state, optimizer, extra=extra)
        self._copies = None
        update = UPDATES.get(type(optimizer))
        with self._settings():
            self._upload()
            step = optimizer.step_count
            loss, gradient, after = self._gradient(inputs, targets, state, step, extra)
            if not math.isfinite(loss):
                raise NonFiniteGradientError
            if update is None:  # an optimizer that is not one of ours
                with np.errstate(all="ignore"):
                    norm = optimizer.update(self.parameters.flat, _array(gradient))
                self.parameters_changed()
                return loss, norm, _array(after)
            norm = float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
            if not math.isfinite(norm):
                raise NonFiniteGradientError
            if optimizer.clip is not None and norm > optimizer.clip:
                gradient *= optimizer.clip / norm
            update(optimizer, self._flat, gradient, *self._slots_of(optimizer))
            optimizer.step_count += 1
            self._is_ahead = not self._shares
            return loss, norm, _array(after)

    def log_probabilities(
        self, inputs: Ids, state: State, *, extra: Float | None = None
    ) -> tuple[Float, State]:
        check_extra(self.config, extra, *inputs.shape)
        with self._settings(), torch.no_grad():
            self._refresh()
            y, after = self._forward(
                self._tensors, self._ids(inputs), self._numbers(state), extra=self._beside(extra)
            )
            return _array(torch.log_softmax(self._decode(y), 2)), _array(after)

    def read(self, inputs: Ids, state: State, *, extra: Float | None = None) -> State:
        check_extra(self.config, extra, *inputs.shape)
        new_state = np.empty_like(state)
        with self._settings(), torch.no_grad():
            p = self._aligned()
            for row in range(inputs.shape[1]):  # a row and a character at a time, as in `step`
                own = self._numbers(state[:, :, row : row + 1])
                for t in range(len(inputs)):
                    here = slice(t, t + 1), slice(row, row + 1)
                    beside = None if extra is None else self._numbers(extra[here])
                    _, own = self._forward(p, self._ids(inputs[here]), own, extra=beside)
                new_state[:, :, row : row + 1] = _array(own)
        return new_state

    def step(
        self, ids: Ids, state: State, clamps: Sequence[Clamp] = (), *, extra: Float | None = None
    ) -> tuple[Float, State]:
        check_extra(self.config, extra, len(ids))
        logits = np.empty((len(ids), self.config.vocabulary_size), self.config.dtype)
        new_state = np.empty_like(state)
        with self._settings(), torch.no_grad():
            p = self._aligned()
            weight, bias = p["decoder.weight"], p["decoder.bias"]
            for row in range(len(ids)):
                # A row at a time, and the decoder's products summed character by character, as in
                # the reference: libraries group their sums by the shapes of matrices.
                own = self._numbers(state[:, :, row : row + 1])
                of_row = self._ids(ids[row : row + 1, None])
                beside = None if extra is None else self._numbers(extra[None, row : row + 1])
                y, own = self._forward(p, of_row, own, clamps=clamps, extra=beside)
                logits[row] = _array((weight * y[0]).sum(dim=1) + bias)
                new_state[:, :, row : row + 1] = _array(own)
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
            with np.errstate(all="ignore"):
                ids = choose(logits, settings, numbers)
            drawn[position] = ids
        return drawn, state

    def states(
        self, inputs: Ids, state: State, *, extra: Float | None = None
    ) -> tuple[Float, State]:
        check_extra(self.config, extra, *inputs.shape)
        out = np.empty((len(inputs), *state.shape), self.config.dtype)
        with self._settings(), torch.no_grad():
            self._refresh()
            ids, now, beside = self._ids(inputs), self._numbers(state), self._beside(extra)
            for t in range(len(ids)):
                own = None if beside is None else beside[t : t + 1]
                _, now = self._forward(self._tensors, ids[t : t + 1], now, extra=own)
                out[t] = _array(now)
            return out, _array(now)

    # The parameters' place.

    def _place(self, flat: Tensor) -> None:
        """Use these parameters, (P,), from now on."""
        self._flat = flat
        self._tensors = {name: Parameter(part) for name, part in self._views(flat).items()}
        self._window = self._process_group.in_parallel(_Window(self))
        self._copies = None

    def _fetch(self) -> None:
        """Copy the parameters and the optimizer's slots to the host if the GPU has newer ones."""
        if not self._is_ahead:
            return
        self._is_ahead = False
        self._host.copy_(self._flat)
        if self._optimizer is not None:
            for slot, values in zip(_slots_on_host(self._optimizer), self._slots, strict=True):
                slot.copy_(values)

    def _upload(self) -> None:
        """Copy the parameters to the GPU unless it has newer ones.

        A caller that writes to the parameters has read them first, so newer ones are on the host.
        """
        if self._shares or self._is_ahead:
            return
        self._flat.copy_(self._host)
        self._is_current = True
        self._optimizer = None

    def _refresh(self) -> None:
        """Copy the parameters to the GPU for scoring, if `parameters_changed` was called."""
        if not self._is_current:
            self._upload()

    def _aligned(self) -> dict[str, Tensor]:
        """Return copies of the parameters, each aligned by the allocator.

        Some libraries' sums depend on the address of a matrix, which in the flat vector depends on
        V.
        """
        self._refresh()
        if self._copies is None:
            self._copies = {name: p.detach().clone() for name, p in self._tensors.items()}
        return self._copies

    def _slots_of(self, optimizer: Optimizer) -> list[Tensor]:
        """Return the optimizer's slots on the device, each (P,)."""
        if self._shares or optimizer is not self._optimizer:
            self._fetch()
            optimizer.prepare(self._parameters.flat)
            self._slots = [
                slot.to(self.device, copy=not self._shares) for slot in _slots_on_host(optimizer)
            ]
            self._optimizer = optimizer
        return self._slots

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the parts of a flat vector by the parameters' names."""
        shapes = self.config.shapes()
        parts = flat.split([math.prod(shape) for shape in shapes.values()])
        return {
            name: part.view(shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }

    def _ids(self, ids: Ids) -> Tensor:
        return torch.tensor(np.asarray(ids, dtype=np.int64), device=self.device)

    def _numbers(self, values: Float) -> Tensor:
        return torch.tensor(values, dtype=self._dtype, device=self.device)

    def _beside(self, extra: Float | None) -> Tensor | None:
        return None if extra is None else self._numbers(extra)

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        """Change PyTorch's settings, which belong to the process, for the duration of a block."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            if self.device == "cpu":
                yield
                return
            with (
                # TensorFloat-32 would keep ten bits of the products' numbers.
                torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
                warnings.catch_warnings(),
            ):
                # cuDNN copies the weights together in each call, which takes little time.
                warnings.filterwarnings("ignore", "RNN module weights are not part of single")
                warnings.filterwarnings(
                    "ignore", "TensorFloat32 tensor cores"
                )  # disabled on purpose
                yield
        except RuntimeError as error:
            if _lacks_memory(error):
                raise MemoryError from None
            raise
        finally:
            torch.set_num_threads(threads)

    # The model.

    def _gradient(
        self,
        inputs: Ids,
        targets: Ids,
        state: State,
        dropout_step: int | None,
        extra: Float | None,
    ) -> tuple[float, Tensor, Tensor]:
        """Return the mean loss, its gradient (P,) (under `classic` the sum's), and the state."""
        check_extra(self.config, extra, *inputs.shape)
        group = self._process_group
        characters = len(inputs) * group.rows_of_all(inputs.shape[1])
        total, after = self._window(
            self._ids(inputs), self._ids(targets), self._numbers(state), dropout_step,
            self._beside(extra),
        )  # fmt: skip
        loss = total.detach().to(torch.float64, copy=True)
        try:
            summed = group.begin_sum(loss)
            (total if self.classic else group.mean(total, characters)).backward()
            summed.wait()
        except RuntimeError as error:
            if _lacks_memory(error):
                raise
            raise group.failure(error) from None
        gradient = torch.cat([_taken_gradient(p) for p in self._tensors.values()])
        if self.classic:
            for name, part in self._views(gradient).items():
                if "bias_hh" in name:
                    part.zero_()
        return loss.item() / characters, gradient, after.detach().to(self._dtype)

    def _compiled_loss(self) -> Callable[..., Tensor]:
        """Return `_summed_loss` compiled, with its backward pass, before training starts.

        The layers are not compiled. PyTorch would unroll their loops over time, which takes minutes
        for each length of a window, and would not use the libraries' layers.
        """
        # T and B differ, because PyTorch would treat equal sizes as one, and specialize on 1.
        shape = (2, 1 if self.classic else 3, self.config.hidden_size)
        try:
            with warnings.catch_warnings(), self._settings():
                # The modules that PyTorch's compiler imports are deprecated.
                warnings.simplefilter("ignore", DeprecationWarning)
                if self.device == "cpu":
                    from torch._inductor.cpp_builder import get_cpp_compiler

                    get_cpp_compiler()  # raises if it is missing
                LOG.warning("PyTorch compiles a training step, which takes some seconds")
                loss: Callable[..., Tensor] = torch.compile(_summed_loss, dynamic=True)
                with self._autocast():
                    y = torch.zeros(shape, dtype=self._dtype, device=self.device) + 0
                    y.requires_grad_()
                    targets = torch.zeros(shape[:2], dtype=torch.int64, device=self.device)
                    # Copies, because other ranks would wait for the gradients of the parameters.
                    decoder = [Parameter(p.detach()) for p in self._decoder()]
                    total = loss(y, *decoder, targets, self._dtype)
                total.backward()
        except MemoryError:
            raise
        except Exception as error:  # because PyTorch and others raise many kinds
            reason = " ".join(str(error).split())
            raise CharloomError(
                "--compile needs a C++ compiler that PyTorch can use, on a GPU Triton too "
                f"({shortened(reason)}): install g++, or omit --compile"
            ) from None
        return loss

    def _autocast(self) -> Any:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)

    def _decoder(self) -> tuple[Parameter, Parameter]:
        return self._tensors["decoder.weight"], self._tensors["decoder.bias"]

    def _decode(self, y: Tensor) -> Tensor:
        return linear(y, *self._decoder())

    def _forward(
        self,
        p: dict[str, Tensor],
        ids: Tensor,
        state: Tensor,
        dropout_step: int | None = None,
        clamps: Sequence[Clamp] = (),
        extra: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run all layers.

        Args:
            p: the parameters' tensors by name.
            ids: (T, B).
            state: the state before them.
            dropout_step: number of the step whose dropout masks are applied; None for no dropout.
            clamps: held units, for T = 1 only.
            extra: the extra inputs, (T, B, E).

        Returns:
            The last layer's outputs (T, B, H) and the state after them.
        """
        config = self.config
        documents, ends = None, None
        normalized = config.norm == "rms"
        if config.end_id is not None:
            ends = ids == config.end_id
            # (T, B, 1) -> (B, 1), which fits (S, L, B, H)
            state = state.masked_fill(ends[0, :, None], 0)
            documents = None if normalized else Documents.cut(ends)
        if ids.numel() > 1:
            y = one_hot(ids, config.vocabulary_size).to(self._dtype)
        else:  # a column instead, so that sums do not depend on V
            y = torch.ones((1, 1, 1), dtype=self._dtype, device=self.device)
        if extra is not None:
            y = torch.cat([y, extra], dim=2)
        states = []
        for layer in range(config.layers):
            weights = [
                p[f"rnn.{kind}_l{layer}"]
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ]
            if normalized:
                weights += [p[f"rnn.norm_ih_l{layer}"], p[f"rnn.norm_hh_l{layer}"]]
            if layer == 0 and ids.numel() == 1:
                column, rest = weights[0][:, ids[0]], weights[0][:, config.vocabulary_size :]
                weights[0] = column if extra is None else torch.cat([column, rest], dim=1)
            if dropout_step is not None and config.weight_drop > 0:
                shape = (config.gates * config.hidden_size, config.hidden_size)
                mask = weight_mask(
                    self.seed, dropout_step, layer, shape, config.weight_drop, config.dtype
                )
                weights[1] = weights[1] * self._numbers(mask)
            before = state[:, layer : layer + 1]  # (S, 1, B, H)
            below = y
            if normalized:
                y, *after = run_normalized_layer(config.cell, weights, before, below, ends)
            elif documents is None:
                y, *after = run_layer(config.cell, weights, before, below)
            else:
                packed, *after = run_layer(
                    config.cell, weights, documents.states(before), documents.pack(below),
                    documents.running,
                )  # fmt: skip
                y, after = documents.unpack(packed), [documents.last(part) for part in after]
            if clamps:
                hold_units(clamps, layer, y, after, (below, before, weights))
            states.append(torch.stack(after))
            if dropout_step is not None and config.dropout > 0:
                shape_of_outputs = (y.shape[0], y.shape[1], y.shape[2])
                mask = dropout_mask(
                    self.seed,
                    dropout_step,
                    layer,
                    shape_of_outputs,
                    config.dropout,
                    config.dtype,
                    first_row=self._process_group.first_row,
                )
                y = y * self._numbers(mask)
        return y, torch.cat(states, dim=1)


class _Window(torch.nn.Module):  # type: ignore[misc]
    """A window's loss as a module of the engine's parameters, for PyTorch's tools."""

    def __init__(self, engine: PytorchEngine) -> None:
        super().__init__()
        self._engine = [engine]  # in a list, so that the engine is not part of the module
        for name, parameter in engine._tensors.items():
            self.register_parameter(name.replace(".", "_"), parameter)

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        state: Tensor,
        dropout_step: int | None,
        extra: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of windows (T, B) in nats, and the state after them."""
        (engine,) = self._engine
        with engine._autocast():
            y, after = engine._forward(engine._tensors, inputs, state, dropout_step, extra=extra)
            total = engine._loss(y, *engine._decoder(), targets, engine._dtype)
        return total, after.detach()


def _summed_loss(
    y: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, dtype: torch.dtype
) -> Tensor:
    """Return the summed loss of targets (T, B) in nats, for the last layer's outputs (T, B, H)."""
    logits = linear(y, weight, bias).flatten(0, 1)
    return cross_entropy(logits.to(dtype), targets.flatten(), reduction="sum")


def _lacks_memory(error: RuntimeError) -> bool:
    """Return whether an error means too little memory, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _taken_gradient(parameter: Parameter) -> Tensor:
    """Return a parameter's gradient, flat, and remove it so that the next is not added to it."""
    gradient = parameter.grad
    parameter.grad = None
    return gradient.flatten()


def _slots_on_host(optimizer: Optimizer) -> list[Tensor]:
    return [torch.from_numpy(optimizer.slots[name]) for name in optimizer.slot_names]


def _array(tensor: Tensor) -> Any:
    """Return a tensor's numbers on the host."""
    return tensor.cpu().numpy()

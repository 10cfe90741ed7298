"""Choose and open an engine: its name, threads and device, and PyTorch's options."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from charloom.engines.process_group import SINGLE_PROCESS, ProcessGroup
from charloom.engines.protocol import DEVICES, ENGINES, Engine
from charloom.errors import CharloomError, shortened
from charloom.network.parameters import Parameters


@dataclass(frozen=True)
class Backend:
    """The engine that computes, and how.

    Attributes:
        engine: `auto`, `compiled`, `reference` or `pytorch`; `auto` is the fastest engine that
            needs no extra.
        threads: the largest number of threads; by default all cores. The reference engine leaves
            threads to NumPy.
        device: `cpu`, or `cuda` for the engine `pytorch`.
        bf16: train with products in bfloat16 (engine `pytorch`).
        compile: let PyTorch compile a part of each step (engine `pytorch`).
    """

    engine: str = "auto"
    threads: int | None = None
    device: str = "cpu"
    bf16: bool = False
    compile: bool = False

    @classmethod
    def of(cls, engine: Engine) -> Backend:
        """Return the backend of an open engine, for inference with other parameters."""
        return cls(engine.name, engine.threads, engine.device)

    @classmethod
    def from_checkpoint(cls, position: Mapping[str, Any]) -> Backend:
        """Return the backend in a run's position; the first versions recorded fewer keys."""
        return cls(
            position["engine"],
            position["threads"],
            position.get("device", "cpu"),
            position.get("bf16", False),
            position.get("compile", False),
        )

    def describe(self, ranks: int = 1) -> str:
        """Return the backend in a few words, for messages."""
        among = f" of {ranks} ranks" if ranks > 1 else ""
        device = "" if self.device == "cpu" else f" and {self.device}"
        numbers = " in bfloat16" if self.bf16 else ""
        compiled = " with --compile" if self.compile else ""
        return f"{self.engine} on {self.threads} threads{among}{device}{numbers}{compiled}"

    def for_inference(self) -> Backend:
        """Return this backend without the options that only training uses."""
        return Backend(self.engine, self.threads, self.device)

    def open(
        self,
        parameters: Parameters,
        *,
        seed: int = 0,
        classic: bool = False,
        process_group: ProcessGroup = SINGLE_PROCESS,
    ) -> Engine:
        """Open the engine on these parameters.

        Args:
            parameters: the parameters (P,), which the engine shares.
            seed: random seed of the dropout masks.
            classic: the notebook's objective, which is the gradient of the window's sum with
                `bias_hh` left at zero.
            process_group: the processes that train together, for the engine `pytorch`.

        Raises:
            CharloomError: for an unknown engine or device, an engine that cannot be imported, or
                an option that the engine does not have.
        """
        if self.engine not in ENGINES:
            raise CharloomError(
                f"engine {shortened(self.engine)} is not one of {', '.join(ENGINES)}"
            )
        if self.device not in DEVICES:
            raise CharloomError(
                f"device {shortened(self.device)} is not one of {', '.join(DEVICES)}"
            )
        if self.engine == "pytorch":
            return self._open_pytorch(parameters, seed, classic, process_group)
        if self.device != "cpu":
            raise CharloomError(
                f"--device {self.device} is for the PyTorch engine: add --engine pytorch"
            )
        for name, chosen in (("bf16", self.bf16), ("compile", self.compile)):
            if chosen:
                raise CharloomError(f"--{name} is for the PyTorch engine: add --engine pytorch")
        assert process_group.size == 1, "only the PyTorch engine trains in several processes"
        if self.engine != "reference":
            try:
                from charloom.engines.compiled.engine import INFER, CompiledEngine

                INFER.require_compiler()
            except Exception as error:  # Numba raises all kinds of errors
                if self.engine == "compiled":
                    raise CharloomError(
                        f"the compiled engine needs Numba, which cannot be imported ({error}): "
                        "pip install numba, or use --engine reference"
                    ) from None
                _warn_once(error)
            else:
                return CompiledEngine(parameters, seed=seed, classic=classic, threads=self.threads)
        from charloom.engines.reference import ReferenceEngine

        return ReferenceEngine(parameters, seed=seed, classic=classic, threads=self.threads)

    def _open_pytorch(
        self, parameters: Parameters, seed: int, classic: bool, process_group: ProcessGroup
    ) -> Engine:
        try:
            from charloom.engines.pytorch import PytorchEngine
        except (ImportError, OSError) as error:  # OSError: a shared library is missing
            raise CharloomError(
                f"the pytorch engine needs PyTorch, which cannot be imported ({error}): pip "
                "install 'charloom[torch]', or omit --engine"
            ) from None
        return PytorchEngine(
            parameters,
            seed=seed,
            classic=classic,
            threads=self.threads,
            device=self.device,
            bf16=self.bf16,
            compile=self.compile,
            process_group=process_group,
        )


def is_compiled() -> bool:
    """Return True if the compiled engine can be imported and its kernels are in the cache."""
    try:
        from charloom.engines.compiled.engine import INFER, TRAIN
    except Exception:
        return False
    return TRAIN.is_kept() and INFER.is_kept()


def _warn_once(error: Exception) -> None:
    global _warned
    if not _warned:
        logging.getLogger("charloom").warning(
            "Numba cannot be imported (%s), so the slower reference engine is used",
            error,
        )
    _warned = True


_warned = False

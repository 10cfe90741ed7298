"""Engines compute a model's losses, gradients and next characters. One is opened by its name.

V: characters in the vocabulary; H: hidden units; L: layers; T: time steps; B: rows of a batch;
P: parameters in all; S: arrays of state (2 for lstm: hidden and cell state; else 1).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from charloom.errors import CharloomError

if TYPE_CHECKING:  # NumPy stays out, so that names can be read from `choices` quickly
    from charloom.engines.process_group import Ranks
    from charloom.engines.protocol import Engine
    from charloom.network.parameters import Parameters


def open_engine(
    name: str,
    parameters: Parameters,
    *,
    seed: int = 0,
    classic: bool = False,
    threads: int | None = None,
    device: str = "cpu",
    bf16: bool = False,
    compile: bool = False,
    ranks: Ranks | None = None,
) -> Engine:
    """The engine of that name on these parameters; `auto` takes the fastest there is that needs no
    extra.

    seed: of dropout's masks. classic: the notebook's objective, the gradient of the window's sum,
    with `bias_hh` left at zero. threads: the most to use; by default all cores. The reference
    leaves them to NumPy. device: cpu, or cuda for the engine pytorch. bf16: lets that engine train
    with products in bfloat16. compile: lets PyTorch compile a part of that engine's steps. ranks:
    the processes that it trains with, for that engine too.
    Raises CharloomError for a name that is none, an engine that cannot be imported, and what it
    cannot do.
    """
    from charloom.engines.protocol import DEVICES, ENGINES

    if name not in ENGINES:
        raise CharloomError(f"engine {name!r} is not one of {', '.join(ENGINES)}")
    if device not in DEVICES:
        raise CharloomError(f"device {device!r} is not one of {', '.join(DEVICES)}")
    if name == "pytorch":
        try:
            from charloom.engines.pytorch import PytorchEngine
        except (ImportError, OSError) as error:  # OSError: one of its libraries is missing
            raise CharloomError(
                f"the pytorch engine needs PyTorch, which cannot be imported ({error}): pip "
                "install 'charloom[torch]', or leave --engine out"
            ) from None
        return PytorchEngine(
            parameters,
            seed=seed,
            classic=classic,
            threads=threads,
            device=device,
            bf16=bf16,
            compile=compile,
            ranks=ranks,
        )
    if device != "cpu":
        raise CharloomError(f"--device {device} is for the engine pytorch: add --engine pytorch")
    if bf16:
        raise CharloomError("--bf16 is for the engine pytorch: add --engine pytorch")
    if compile:
        raise CharloomError("--compile is for the engine pytorch: add --engine pytorch")
    assert ranks is None, "only the engine pytorch trains among ranks"
    if name != "reference":
        try:
            from charloom.engines.compiled.engine import CompiledEngine
        except Exception as error:  # Numba refuses with all kinds of errors
            if name == "compiled":
                raise CharloomError(
                    f"the compiled engine needs Numba, which cannot be imported ({error}): "
                    "pip install numba, or use --engine reference"
                ) from None
            _say_once(error)
        else:
            return CompiledEngine(parameters, seed=seed, classic=classic, threads=threads)
    from charloom.engines.reference import ReferenceEngine

    return ReferenceEngine(parameters, seed=seed, classic=classic, threads=threads)


def is_compiled() -> bool:
    """Whether the compiled engine is at hand, and need not compile first."""
    try:
        from charloom.kernels.compiling import is_kept
    except Exception:
        return False
    return is_kept("training") and is_kept("inference")


def _say_once(error: Exception) -> None:
    global _said
    if not _said:
        logging.getLogger("charloom").warning(
            "Numba cannot be imported (%s): the reference engine computes, several times slower",
            error,
        )
    _said = True


_said = False

"""State and progress of a training."""

from __future__ import annotations

from dataclasses import dataclass

from charloom.errors import CharloomError
from charloom.network.parameters import State
from charloom.prediction.scoring import Validation
from charloom.schema import Count, Finite
from charloom.training.options import TrainingConfig


@dataclass
class TrainingState:
    """Where a run stands between two steps. With the weights and the optimizer's slots, this is all
    that the rest of the run depends on."""

    step: Count = 0
    hidden: State | None = None  # (S, L, B, H), carried between windows
    smoothed_loss: Finite | None = None  # nats per character
    recent_loss: Finite = 0.0  # summed over the steps since the last report
    recent_steps: Count = 0
    reported_loss: Finite | None = None  # mean over the steps of the last report
    refit_step: int | None = None  # from which on the validation part is learned from
    learning_rate: Finite | None = None  # of the last step
    gradient_norm: Finite | None = None  # of the last step, before clipping
    validated_step: int = -1  # the last validation's
    best_step: int | None = None
    best_loss: Finite | None = None  # nats per character
    best_done: Finite = 0.0  # the part of the run that lay behind it
    elapsed: Finite = 0.0  # seconds, in all processes


@dataclass(frozen=True)
class Progress:
    """What happened. `kind`: step (an update), report (one whose figures are kept), validating
    (a part of a validation is done), validation (it is done; with a sample)."""

    kind: str
    step: int
    epoch: float
    done: float  # the part of the run that lies behind, 0 to 1
    loss: float | None  # mean over the steps since the last report, nats per character
    smoothed_loss: float
    learning_rate: float | None
    gradient_norm: float | None
    characters: int  # predictions made by this process's updates
    elapsed: float
    validation: Validation | None = None
    best: bool = False  # no validation before was better
    sample: str | None = None


class DivergedError(CharloomError):
    """The loss became NaN or infinite."""

    def __init__(self, step: int, config: TrainingConfig) -> None:
        clip = f"a smaller --clip (it is {config.clip:g})" if config.clip else "with --clip 1"
        super().__init__(
            f"the loss became NaN or infinite at step {step}: train again with a lower "
            f"--learning-rate (it is {config.learning_rate:g}) or {clip}; the last good checkpoint "
            "is still there"
        )

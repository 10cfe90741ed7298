"""State and progress of a training."""

from __future__ import annotations

from dataclasses import dataclass

from charloom.errors import CharloomError
from charloom.network.parameters import State
from charloom.prediction.validation import Validation
from charloom.schema import Count, Finite
from charloom.training.options import TrainingConfig


@dataclass
class TrainingState:
    """The state of a run between two steps.

    Together with the parameters and the optimizer's slots, it determines the rest of the run.
    """

    step: Count = 0
    hidden: State | None = None  # (S, L, B, H), carried from window to window
    smoothed_loss: Finite | None = None  # nats per character
    recent_loss: Finite = 0.0  # summed over the steps since the last report
    recent_steps: Count = 0
    reported_loss: Finite | None = None  # mean over the steps of the last report
    refit_step: int | None = None  # the step at which training on the validation split began
    learning_rate: Finite | None = None  # of the last step
    gradient_norm: Finite | None = None  # of the last step, before clipping
    validated_step: int = -1  # step of the last validation
    best_step: int | None = None  # of the weights that are kept
    best_loss: Finite | None = None  # their validation loss, nats per character
    best_done: Finite = 0.0  # completed share of the run at that validation
    elapsed: Finite = 0.0  # seconds, in all processes
    began: Finite = 0.0  # the seconds of them before the first step


@dataclass  # not frozen, because that would triple the time to create one, at every step
class Progress:
    """An event of a training.

    Attributes:
        kind: "step" (an update, or several), "report" (an update whose metrics are recorded),
            "validating" (a part of a validation), or "validation" (a complete one, with a sample).
    """

    kind: str
    step: int
    epoch: float
    done: float  # completed share of the run, 0 to 1
    loss: float | None  # mean over the steps since the last report, nats per character
    smoothed_loss: float
    learning_rate: float | None
    gradient_norm: float | None
    characters: int  # predicted by the updates of this process
    elapsed: float
    validation: Validation | None = None
    best: bool = False  # a validation whose weights are kept: by default, no earlier one was better
    sample: str | None = None


class DivergedError(CharloomError):
    """The loss became NaN or infinite."""

    def __init__(self, step: int, config: TrainingConfig) -> None:
        clip = f"a smaller --clip (now {config.clip:g})" if config.clip else "--clip 1"
        super().__init__(
            f"the loss became NaN or infinite at step {step}: train again with a lower "
            f"--learning-rate (now {config.learning_rate:g}) or {clip}; the last checkpoint is "
            "intact"
        )

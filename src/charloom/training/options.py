"""Training options: their defaults, ranges, help texts and presets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

from charloom.engines.backend import Backend
from charloom.engines.protocol import DEVICES, ENGINES
from charloom.errors import CharloomError, printable, shortened
from charloom.network.optimizers import OPTIMIZERS, SCHEDULES
from charloom.network.parameters import GATES, LARGEST_HIDDEN_SIZE, MOST_LAYERS
from charloom.text.dataset import Split

PRESETS: dict[str, dict[str, Any]] = {
    # Chosen for the time and the text where --minutes alone ends the run, else the defaults below.
    "auto": {},
    "tiny": {"hidden_size": 96, "batch_size": 16, "learning_rate": 0.012},
    "small": {"hidden_size": 256, "batch_size": 16, "learning_rate": 8e-3},
    "medium": {
        "hidden_size": 448,
        "batch_size": 16,
        "learning_rate": 5.5e-3,
        "dropout": 0.2,
        "weight_drop": 0.1,
    },
    "large": {
        "hidden_size": 704,
        "batch_size": 16,
        "learning_rate": 4e-3,
        "dropout": 0.35,
        "weight_drop": 0.2,
    },
    # The notebook's: sliding windows from a zero state, one row, gradient of the window's sum.
    "classic": {
        "cell": "rnn",
        "hidden_size": 100,
        "batch_size": 1,
        "window": 25,
        "optimizer": "adagrad",
        "learning_rate": 0.1,
        "schedule": "constant",
        "warmup": 0.0,
        "clip": 0.0,
        "no_mix": True,
    },
}
DEFAULT_MINUTES = 3.0


def option(default: Any, help_text: str, **limits: Any) -> Any:
    """A field of TrainingConfig: its default, what --help says, and what values it may take."""
    return field(default=default, metadata={"help": help_text, **limits})


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a run's outcome, the text aside: the one list of options, which the
    command line, --config files and checkpoints share.
    """

    preset: str = option("auto", "what the other options start from", choices=tuple(PRESETS))
    cell: str = option("gru", "kind of recurrent cell", choices=tuple(GATES))
    hidden_size: int = option(256, "hidden units of a layer", least=1, most=LARGEST_HIDDEN_SIZE)
    layers: int = option(1, "layers of cells", least=1, most=MOST_LAYERS)
    dropout: float = option(0.0, "part of each layer's outputs dropped", least=0, below=1)
    weight_drop: float = option(
        0.0, "part of the recurrent weights dropped in each step", least=0, below=1
    )
    dtype: str = option("float32", "type of the numbers", choices=("float32", "float64"))
    batch_size: int = option(32, "rows of text read side by side", least=1, most=65_536)
    window: int = option(64, "characters between two updates", least=1, most=65_536)
    optimizer: str = option("adamw", "kind of optimizer", choices=tuple(OPTIMIZERS))
    learning_rate: float | None = option(
        None, "highest learning rate (default: the optimizer's own)", above=0, most=1e12
    )
    schedule: str = option("cosine", "how the learning rate falls", choices=SCHEDULES)
    warmup: float = option(0.02, "part of the run in which it rises first", least=0, most=1)
    clip: float = option(1.0, "largest norm of the gradient; 0 for no limit", least=0, most=1e9)
    split: str = option("90/5/5", "percent of the text to train, validate, test")
    seed: int = option(0, "of every random number", least=0, most=2**63 - 1)
    steps: int | None = option(None, "end after that many updates", least=1, most=10**15)
    epochs: float | None = option(None, "end after that many passes", above=0, most=1e9)
    minutes: float | None = option(
        None, "end after that much wall time (3 if no end is given)", above=0, most=1e7
    )
    validate_every: int | None = option(
        None, "updates between validations (default: about twenty in a run)", least=1, most=10**15
    )
    refit: float = option(
        0.0,
        "last part of the run that learns from four fifths of the validation part too",
        least=0,
        most=1,
    )
    no_mix: bool = option(False, "count no n-grams to mix with the network")
    mix_megabytes: float = option(
        16.0, "largest size of what is counted, in the model's file", above=0, most=1e6
    )
    bytes: bool = option(False, "characters are bytes, for text that is not UTF-8")
    raw: bool = option(False, "keep a named book's header and license")
    normalize_newlines: bool = option(False, "turn CRLF and CR into LF")
    from_run: str | None = option(None, "a run to start from (fine-tuning)")
    engine: str = option("auto", "what computes", choices=ENGINES)
    threads: int | None = option(
        None, "threads to compute with (default: all cores)", least=1, most=256
    )
    device: str = option("cpu", "where the engine pytorch computes", choices=DEVICES)
    bf16: bool = option(False, "let the engine pytorch train with products in bfloat16")
    compile: bool = option(False, "let PyTorch compile a part of the engine pytorch's steps")
    rank_timeout: float = option(
        300.0, "seconds to wait for the other ranks of torchrun", above=0, most=1e6
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            check_option(f.name, getattr(self, f.name))
        Split.parse(self.split)
        if self.refit > 0 and Split.parse(self.split).test == 0:
            raise CharloomError(
                f"--refit learns from the validation part, and --split {self.split} has no test "
                "part to evaluate on: leave --refit out, or give a third part"
            )
        if self.preset == "classic" and self.batch_size != 1:
            raise CharloomError("--batch-size: the preset classic reads one row; leave it out")

    @classmethod
    def of(cls, given: dict[str, Any]) -> TrainingConfig:
        """The configuration from the options given, their preset's and the defaults.

        Raises CharloomError, naming the option, for a value that makes no sense.
        """
        known = {f.name for f in fields(cls)}
        for name in given:
            if name not in known:
                raise CharloomError(
                    f"there is no option {printable(option_name(name))}; there are: "
                    + ", ".join(option_name(n) for n in sorted(known))
                )
        preset = given.get("preset", "auto")
        check_option("preset", preset)
        config = cls(**{**PRESETS[preset], **given})
        if config.learning_rate is None:
            rate = OPTIMIZERS[config.optimizer].default_learning_rate
            config = replace(config, learning_rate=rate)
        if config.steps is None and config.epochs is None and config.minutes is None:
            config = replace(config, minutes=DEFAULT_MINUTES)
        return config

    @property
    def classic(self) -> bool:
        return self.preset == "classic"

    @property
    def backend(self) -> Backend:
        """The engine that trains, and how."""
        return Backend(self.engine, self.threads, self.device, self.bf16, self.compile)

    @property
    def is_to_be_planned(self) -> bool:
        """Whether charloom.planning chooses what was not given."""
        return self.preset == "auto" and self.steps is None and self.epochs is None


def option_name(name: str) -> str:
    """How the command line spells a field."""
    return "--" + {"from_run": "from"}.get(name, name.replace("_", "-"))


def check_option(name: str, value: Any) -> None:
    """Raises CharloomError unless the field of TrainingConfig may have that value."""
    (f,) = (f for f in fields(TrainingConfig) if f.name == name)
    spelled, limits = option_name(name), f.metadata
    kinds = {k.strip() for k in str(f.type).split("|")}
    if value is None:
        if "None" not in kinds:
            raise CharloomError(f"{spelled} needs a value")
        return
    right = {
        "str": isinstance(value, str),
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, (int, float)) and not isinstance(value, bool),
    }
    if not any(right.get(kind, False) for kind in kinds):
        wanted = {"int": "a whole number", "float": "a number", "bool": "true or false"}
        names = [wanted.get(kind, "a word") for kind in sorted(kinds - {"None"})]
        raise CharloomError(f"{spelled} is {shortened(value)}: give {' or '.join(names)}")
    if "choices" in limits and value not in limits["choices"]:
        raise CharloomError(
            f"{spelled} is {shortened(value)}: choose from {', '.join(limits['choices'])}"
        )
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        least, most = limits.get("least", limits.get("above")), limits.get("most")
        fits = isinstance(value, int) or math.isfinite(value)
        fits = fits and ("least" not in limits or value >= limits["least"])
        fits = fits and ("above" not in limits or value > limits["above"])
        fits = fits and ("below" not in limits or value < limits["below"])
        fits = fits and (most is None or value <= most)
        if not fits:
            lower = f"above {least:,}" if "above" in limits else f"at least {least:,}"
            upper = f"below {limits['below']:,}" if "below" in limits else f"at most {most:,}"
            raise CharloomError(
                f"{spelled} is {shortened(value)}: give a number {lower} and {upper}"
            )

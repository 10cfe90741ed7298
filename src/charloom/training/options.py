"""Training options: their types, ranges, defaults, help texts, roles and presets."""

# ruff: noqa: RUF009 (option() returns a dataclass field)

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from msgspec import Meta

from charloom.engines.choices import Device, EngineName
from charloom.errors import CharloomError, printable, shortened
from charloom.network.choices import (
    Cell,
    DropProbability,
    HiddenSize,
    Layers,
    Normalization,
    NumberType,
    OptimizerName,
    Schedule,
)
from charloom.schema import field_types, find_mismatch

if TYPE_CHECKING:
    from charloom.engines.backend import Backend

EncodingErrors = Literal["strict", "replace"]
Keep = Literal["best", "last"]
CountsName = Literal["kneser-ney", "context-mixing"]
Preset = Literal["auto", "tiny", "small", "medium", "large", "classic"]
Size = Annotated[int, Meta(ge=1, le=65_536)]
Steps = Annotated[int, Meta(ge=1, le=10**15)]
Count = Annotated[int, Meta(ge=0, le=10**15)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Threads = Annotated[int, Meta(ge=1, le=256)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Epochs = Annotated[float, Meta(gt=0, le=1e9)]
Minutes = Annotated[float, Meta(gt=0, le=1e7)]
Seconds = Annotated[float, Meta(gt=0, le=1e6)]
Megabytes = Annotated[float, Meta(gt=0, le=1e6)]
Rate = Annotated[float, Meta(gt=0, le=1e12)]
Norm = Annotated[float, Meta(ge=0, le=1e9)]

PRESETS: dict[Preset, dict[str, Any]] = {
    # Where --minutes alone ends the run, its options are chosen for that time and the text.
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


class Role(enum.Flag):
    """The roles of options outside the run itself."""

    NONE = 0
    SHAPE = enum.auto()  # fixed by the model that fine-tuning starts from
    STOP = enum.auto()  # ends a run; can be raised on resume
    COMPUTE = enum.auto()  # decides how fast a run is, not its result; can change on resume
    PER_RANK = enum.auto()  # can differ between the processes of one run
    TUNED = enum.auto()  # `charloom tune` searches it unless it is set
    NOT_TUNED = enum.auto()  # `charloom tune` rejects it


SHAPE, STOP, COMPUTE, PER_RANK = Role.SHAPE, Role.STOP, Role.COMPUTE, Role.PER_RANK
TUNED, NOT_TUNED = Role.TUNED, Role.NOT_TUNED


def option(default: Any, help_text: str, role: Role = Role.NONE) -> Any:
    """Declare a field of TrainingConfig: its default, its line in --help, and its role."""
    return field(default=default, metadata={"help": help_text, "role": role})


@dataclass(frozen=True)
class TrainingConfig:
    """All options that decide a run's outcome besides its text.

    The one list of options: the command line, --config files, checkpoints and searches use it. A
    line declares an option completely: its type with its limits, default, help text and role.
    """

    preset: Preset = option("auto", "preset that sets the other options", NOT_TUNED)
    cell: Cell = option("gru", "type of recurrent cell", SHAPE | TUNED)
    hidden_size: HiddenSize = option(256, "hidden units per layer", SHAPE | TUNED)
    layers: Layers = option(1, "recurrent layers", SHAPE | TUNED)
    norm: Normalization = option("none", "divide each layer's products by their RMS", SHAPE)
    dropout: DropProbability = option(0.0, "dropout rate of each layer's outputs", TUNED)
    weight_drop: DropProbability = option(0.0, "dropout rate of the recurrent weights", TUNED)
    dtype: NumberType = option("float32", "floating-point type")
    batch_size: Size = option(32, "rows of text in a batch", TUNED)
    window: Size = option(64, "characters of each row between two updates", TUNED)
    reset_state: Fraction = option(0.0, "probability that a row's window begins at a zero state")
    optimizer: OptimizerName = option("adamw", "optimizer")
    learning_rate: Rate | None = option(None, "peak learning rate (default: per optimizer)", TUNED)
    schedule: Schedule = option("cosine", "learning rate schedule")
    warmup: Fraction = option(0.02, "fraction of the run in which the learning rate rises")
    clip: Norm = option(1.0, "maximum norm of the gradient; 0 for no limit")
    split: str = option("90/5/5", "percentages for training, validation and test")
    validation: str | None = option(None, "text to validate on, instead of a share of TEXT")
    test: str | None = option(None, "text to evaluate on, instead of a share of TEXT")
    seed: Seed = option(0, "random seed")
    steps: Steps | None = option(None, "stop after this many updates", STOP | NOT_TUNED)
    epochs: Epochs | None = option(None, "stop after this many epochs", STOP | NOT_TUNED)
    minutes: Minutes | None = option(None, "stop after this many minutes (default: 3)", STOP)
    validate_every: Steps | None = option(
        None, "steps between validations (default: at most 20 per run)"
    )
    validate_characters: Steps | None = option(
        None, "characters that a validation reads at most (default: 200,000)"
    )
    keep: Keep = option("best", "weights to keep: of the best validation, or the last")
    refit: Fraction = option(0.0, "final fraction that also trains on validation text", NOT_TUNED)
    no_mix: bool = option(False, "train the network alone, without an n-gram model")
    counts: CountsName = option("kneser-ney", "n-gram model or context mixer beside the network")
    read_counts: bool = option(False, "the network also reads the mixer's predictions")
    mix_megabytes: Megabytes = option(24.0, "maximum size of either in the model's file")
    bytes: bool = option(False, "characters are bytes, for text that is not UTF-8")
    raw: bool = option(False, "keep line ends, byte order mark, and a built-in book's license")
    keep_newlines: bool = option(False, "keep CRLF and CR, which are read as LF otherwise")
    encoding: str | None = option(
        None, "encoding of the text (default: UTF-8, or a recognized one)"
    )
    encoding_errors: EncodingErrors = option(
        "strict", "refuse invalid bytes, or read U+FFFD for each"
    )
    lines: bool = option(False, "each line is a document")
    separator: str | None = option(None, "text between two documents, such as '\\n\\n'")
    column: str | None = option(None, "column of a .csv, .tsv or .jsonl that has the documents")
    min_count: Count = option(0, "occurrences that a character needs to be in the vocabulary")
    from_run: str | None = option(None, "run to start from (fine-tuning), or english", PER_RANK)
    engine: EngineName = option("auto", "compute backend", COMPUTE)
    threads: Threads | None = option(None, "threads (default: all cores)", COMPUTE | PER_RANK)
    device: Device = option("cpu", "device of the pytorch engine", COMPUTE)
    bf16: bool = option(False, "train with products in bfloat16 (pytorch engine)", COMPUTE)
    compile: bool = option(False, "compile part of a training step (pytorch engine)", COMPUTE)
    rank_timeout: Seconds = option(300.0, "seconds to wait for other ranks", COMPUTE | PER_RANK)

    def __post_init__(self) -> None:
        for name in OPTIONS:
            check_option(name, getattr(self, name))
        from charloom.text.dataset import Split  # NumPy comes with it
        from charloom.text.documents import check_cuts
        from charloom.text.encodings import check_encoding

        check_cuts(self.lines, self.separator, self.column)
        if self.encoding is not None:
            check_encoding(self.encoding)
        for name in ("validation", "test"):
            if getattr(self, name) == "":
                raise CharloomError(f"{option_name(name)} is empty: pass the path of a text")
        split = Split.parse(self.split)
        if self.refit > 0 and split.test == 0 and self.test is None:
            raise CharloomError(
                f"--refit also trains on the validation split, so --split {self.split} leaves no "
                "text to evaluate on: omit --refit, or set a third percentage"
            )
        if self.read_counts and self.counts != "context-mixing" and not self.no_mix:
            raise CharloomError(
                "--read-counts is for the counts of context mixing: add --counts context-mixing, "
                "or omit it"
            )
        if self.preset == "classic" and self.batch_size != 1:
            raise CharloomError("--batch-size: the preset classic reads one row; omit it")

    @classmethod
    def of(cls, options: dict[str, Any]) -> TrainingConfig:
        """Return the configuration for some options; the preset and the defaults set the others.

        Raises CharloomError, with the option's name, for an unknown option or an invalid value.
        """
        for name in options:
            if name not in OPTIONS:
                raise CharloomError(
                    f"there is no option {printable(option_name(name))}: use one of "
                    + ", ".join(option_name(known) for known in sorted(OPTIONS))
                )
        preset = options.get("preset", "auto")
        check_option("preset", preset)
        config = cls(**{**PRESETS[preset], **options})
        config._refuse_idle(options)
        if config.learning_rate is None:
            from charloom.network.optimizers import OPTIMIZERS  # NumPy comes with it

            rate = OPTIMIZERS[config.optimizer].default_learning_rate
            config = replace(config, learning_rate=rate)
        if config.steps is None and config.epochs is None and config.minutes is None:
            config = replace(config, minutes=DEFAULT_MINUTES)
        return config

    def _refuse_idle(self, options: Mapping[str, Any]) -> None:
        """Raise CharloomError for an option that does nothing beside the others."""
        from charloom.text.dataset import Split  # NumPy comes with it

        own = self.validation is not None, self.test is not None
        without_validation = Split.parse(self.split).validation == 0 and not own[0]
        read_as_bytes = "--bytes reads every byte as it is"
        no_mix = "the preset classic has" if self.classic else "--no-mix trains"
        for name, is_idle, reason in (
            ("mix_megabytes", self.no_mix, f"{no_mix} no n-gram model"),
            ("counts", self.no_mix, f"{no_mix} no n-gram model"),
            ("read_counts", self.no_mix, f"{no_mix} no n-gram model"),
            ("refit", without_validation, f"--split {self.split} has no validation split"),
            ("split", all(own), "--validation and --test are texts of their own"),
            ("encoding", self.bytes, read_as_bytes),
            ("encoding_errors", self.bytes, read_as_bytes),
            ("keep_newlines", self.bytes, read_as_bytes),
            ("keep_newlines", self.raw, "--raw keeps line ends too"),
            ("reset_state", self.classic, "the preset classic begins every window at a zero state"),
        ):
            if is_idle and options.get(name, OPTIONS[name].default) != OPTIONS[name].default:
                raise CharloomError(
                    f"{option_name(name)} does nothing here, because {reason}: omit it"
                )

    @property
    def classic(self) -> bool:
        return self.preset == "classic"

    @property
    def backend(self) -> Backend:
        """The engine that trains, and how."""
        from charloom.engines.backend import Backend  # NumPy comes with it

        return Backend(self.engine, self.threads, self.device, self.bf16, self.compile)

    @property
    def is_to_be_planned(self) -> bool:
        """True if the planner chooses the options that are not set."""
        return self.preset == "auto" and self.steps is None and self.epochs is None


@dataclass(frozen=True)
class Option:
    """A declared option, from which arguments, checks and tables are generated."""

    name: str
    kind: Any  # the annotation: a type with its limits
    default: Any
    help: str
    role: Role

    @property
    def is_optional(self) -> bool:
        return NoneType in get_args(self.kind)

    @property
    def value_kind(self) -> Any:
        """The annotation without None."""
        return get_args(self.kind)[0] if self.is_optional else self.kind

    @property
    def choices(self) -> tuple[str, ...]:
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def value_type(self) -> type[Any]:
        """The type of a value: int, float, str or bool."""
        kind = self.value_kind
        if get_origin(kind) is Literal:
            return str
        found: type[Any] = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        return found


OPTIONS = {
    f.name: Option(
        f.name,
        field_types(TrainingConfig)[f.name],
        f.default,
        f.metadata["help"],
        f.metadata["role"],
    )
    for f in fields(TrainingConfig)
}


def options_with(role: Role) -> tuple[str, ...]:
    """Return the names of the options that have a role, in their order."""
    return tuple(name for name, found in OPTIONS.items() if role in found.role)


SHAPE_OPTIONS = options_with(Role.SHAPE)
STOP_OPTIONS = options_with(Role.STOP)
COMPUTE_OPTIONS = options_with(Role.COMPUTE)
RESUME_OPTIONS = (*STOP_OPTIONS, *COMPUTE_OPTIONS)  # can change on resume
PER_RANK_OPTIONS = options_with(Role.PER_RANK)
TUNED_OPTIONS = options_with(Role.TUNED)
NOT_TUNED_OPTIONS = options_with(Role.NOT_TUNED)


def option_name(name: str) -> str:
    """Return the spelling of an option on the command line."""
    return "--" + {"from_run": "from"}.get(name, name.replace("_", "-"))


def rename_earlier(options: dict[str, Any]) -> None:
    """Rename options of earlier versions: `normalize_newlines` is `not keep_newlines`.

    Every way in translates its options here: the command line, files, Python and checkpoints.
    """
    if "normalize_newlines" in options:
        normalize = options.pop("normalize_newlines")
        check_option("keep_newlines", normalize)
        options["keep_newlines"] = not normalize


def option_words(options: Mapping[str, Any]) -> list[str]:
    """Return options by name as words of a command. An option that is None or False is omitted."""
    words = []
    for name, value in options.items():
        if value is True:
            words.append(option_name(name))
        elif value is not None and value is not False:
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            dashed = shown.startswith("-")
            words += [f"{option_name(name)}={shown}"] if dashed else [option_name(name), shown]
    return words


def check_option(name: str, value: Any) -> None:
    """Raise CharloomError unless a value fits the type and the limits of its option."""
    mismatch = find_mismatch(value, OPTIONS[name].kind)
    if mismatch is None:
        return
    if value is None:
        raise CharloomError(f"{option_name(name)} needs a value")
    raise CharloomError(
        f"{option_name(name)} is {shortened(mismatch.value)}: pass {mismatch.expected}"
    )

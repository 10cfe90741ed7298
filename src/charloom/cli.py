"""The command line: one thin function a command. Errors are one line, and exit with status 2.

Standard output carries what was asked for (text, tables, JSON), standard error all else. Heavy
imports stand inside the functions that need them, so that --help is quick.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

from charloom import __version__
from charloom.errors import CharloomError, LostRanksError, printable, shortened

if TYPE_CHECKING:
    from charloom.checkpoint import Checkpoint
    from charloom.corpora import Text
    from charloom.dataset import Dataset
    from charloom.explore import Exploration
    from charloom.language_model import LanguageModel
    from charloom.ranks import Ranks
    from charloom.runs import TrainingRun
    from charloom.scoring import Evaluation
    from charloom.surprisal import Surprisal
    from charloom.training import Progress, TrainingConfig
    from charloom.tuning import Search, Trial

DEMO_TEXT = "python-docs"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        raise CharloomError(f"{' '.join(message.split())} (see {self.prog} --help)")


@dataclass(frozen=True)
class Command:
    summary: str
    add_arguments: Callable[[Parser], None]
    run: Callable[[argparse.Namespace, float], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments name and returns its exit status."""
    started = time.monotonic()
    # A terminal that lacks a character shows its escape instead.
    with contextlib.suppress(AttributeError, ValueError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = _dispatch(list(sys.argv[1:] if arguments is None else arguments), started)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except LostRanksError as error:
        _say(str(error))
        os._exit(2)  # PyTorch's threads, which wait for those that are lost, would abort
    except CharloomError as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone. What is still buffered must not be written at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except MemoryError:
        _say("there is not enough memory: use a smaller model, batch or text")
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _say(f"{place}{error.strerror or error}")
        return 2


def _say(message: str) -> None:
    message = printable(" ".join(message.split("\n")))
    print(f"charloom: {message}", file=StandardError(), flush=True)


class StandardError(io.TextIOBase):
    """Standard error that nobody needs to read: what cannot be written there ends nothing.

    Where it is closed, print would fall back on standard output.
    """

    def __init__(self) -> None:
        self._stream = sys.stderr

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("standard error is closed")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"


def _print(text: str = "") -> None:
    """A text, which may have several lines, to standard output."""
    _output()
    print("\n".join(printable(line) for line in text.split("\n")), flush=True)


def _print_json(value: Any) -> None:
    _output()
    print(json.dumps(value, indent=2).replace("\x7f", "\\u007f"), flush=True)


def _output() -> BinaryIO:
    """Standard output's bytes. Raises CharloomError where it is closed."""
    if sys.stdout is None:
        raise CharloomError("standard output is closed: there is nowhere to write to")
    return sys.stdout.buffer


def _dispatch(arguments: list[str], started: float) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        _print(_overview())
        return 0
    if arguments[:1] == ["--version"]:
        _print(f"charloom {__version__}")
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        wrong = f"there is no command {shortened(arguments[0])}: " if arguments else ""
        raise CharloomError(f"{wrong}give one of {', '.join(COMMANDS)} (see charloom --help)")
    name, rest = arguments[0], arguments[1:]
    command = COMMANDS[name]
    parser = Parser(
        prog=f"charloom {name}",
        description=command.summary,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_arguments(parser)
    return command.run(parser.parse_args(rest), started)


def _overview() -> str:
    lines = [
        "usage: charloom COMMAND ... (charloom COMMAND --help tells more)",
        "",
        "Train a recurrent language model on the characters of your own text, on a CPU.",
        "",
        *(f"  {name:<10} {command.summary}" for name, command in COMMANDS.items()),
        "",
        "  --version  print the version",
    ]
    return "\n".join(lines)


# Values. What a number may be is checked where it is used, for every way of giving it.


def whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a whole number") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a number") from None


def length(text: str) -> int | None:
    return None if text == "inf" else whole_number(text)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    if count is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    from charloom.training import check_option

    check_option("threads", count)
    with threadpool_limits(count, user_api="blas"):
        yield


def _add_texts(parser: Parser) -> None:
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="+",
        help="a path, - for standard input, or a corpus; several are joined, in that order",
    )


def _add_network_only(parser: Parser) -> None:
    parser.add_argument(
        "--network-only", action="store_true", help="leave out the counts that a model mixes in"
    )


def _add_engine(parser: Parser) -> None:
    parser.add_argument(
        "--engine", default="auto", help="what computes: auto, compiled, reference or pytorch"
    )
    parser.add_argument(
        "--threads", type=whole_number, help="threads to compute with (default: all cores)"
    )
    parser.add_argument(
        "--device", default="cpu", help="where the engine pytorch computes: cpu or cuda"
    )


def _load(
    arguments: argparse.Namespace, run: str, *, network_only: bool | None = None
) -> LanguageModel:
    """A run's model, with what computes as _add_engine's options say."""
    from charloom.language_model import load

    return load(
        run,
        engine=arguments.engine,
        threads=arguments.threads,
        device=arguments.device,
        network_only=arguments.network_only if network_only is None else network_only,
    )


# corpora


def add_no_arguments(parser: Parser) -> None:
    del parser


def run_corpora(arguments: argparse.Namespace, started: float) -> int:
    from charloom.corpora import list_corpora

    for corpus in list_corpora():
        _print(f"{corpus.name:<20} {corpus.kind:<11} {corpus.description} ({corpus.license})")
        _print(f"{'':<20} {corpus.place}")
    return 0


def _open(bar: Any, source: str, **reading: bool) -> Text:
    """The text of a name or path, as open_text gives it; the bar shows a download."""
    from charloom.corpora import open_text

    tasks: list[Any] = []

    def report(done: int, of: int | None) -> None:
        if not tasks:
            tasks.append(bar.add_task("downloading", total=of, figures=""))
        bar.update(tasks[0], completed=done, total=of, figures=f"{done:,} bytes")

    text = open_text(source, progress=report, **reading)
    for task in tasks:
        bar.remove_task(task)
    return text


# train


def add_train_arguments(parser: Parser) -> None:
    parser.formatter_class = argparse.HelpFormatter
    _add_texts(parser)
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: runs/NAME)")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in --out, or start it"
    )
    parser.add_argument("--config", metavar="FILE.toml", help="options in a file")
    parser.add_argument(
        "--tensorboard", action="store_true", help="write event files for TensorBoard too"
    )
    _add_training_options(parser)


def _add_training_options(parser: Parser, told: dict[str, str] | None = None) -> None:
    """TrainingConfig's options. told: another help for some, argparse.SUPPRESS for none."""
    from charloom.training import TrainingConfig, option_name

    for f in fields(TrainingConfig):
        help_text = f.metadata["help"]
        if f.default is not None and not isinstance(f.default, bool):
            help_text += f" (default: {f.default})"
        help_text = (told or {}).get(f.name, help_text)
        kinds: dict[str, Any] = {"int": whole_number, "float": number, "str": str}
        kind = str(f.type).split("|")[0].strip()
        if kind == "bool":
            parser.add_argument(
                option_name(f.name), dest=f.name, action="store_true", default=None, help=help_text
            )
        else:
            choices = f.metadata.get("choices")
            parser.add_argument(
                option_name(f.name),
                dest=f.name,
                type=kinds[kind],
                metavar="|".join(choices) if choices else kind.upper(),
                help=help_text.replace("%", "%%"),
            )


def _given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options given on the command line and, under them, in the --config file."""
    from charloom.training import TrainingConfig, check_option

    given: dict[str, Any] = {}
    if arguments.config is not None:
        import tomllib

        try:
            with Path(arguments.config).open("rb") as file:
                table = tomllib.load(file)
        except OSError as error:
            raise CharloomError(f"--config {arguments.config}: {error.strerror or error}") from None
        except (ValueError, RecursionError) as error:  # TOML's own errors are ValueErrors
            raise CharloomError(
                f"--config {arguments.config} is not TOML that can be read: "
                f"{' '.join(str(error).split())}"
            ) from None
        spellings = {"from": "from_run"}
        given = {spellings.get(k, k.replace("-", "_")): v for k, v in table.items()}
    for f in fields(TrainingConfig):
        value = getattr(arguments, f.name)
        if value is not None:
            given[f.name] = value
    if given.get("from_run") is not None:
        check_option("from_run", given["from_run"])
        given["from_run"] = str(Path(given["from_run"]).absolute())
    return given


def run_train(arguments: argparse.Namespace, started: float) -> int:
    from charloom.corpora import text_name

    given = _given_options(arguments)
    folder = _folder(arguments.out, Path("runs") / text_name(arguments.text[0]))
    command = shlex.join(["charloom", "train", *arguments.text, "--out", str(folder), "--resume"])
    command += " --tensorboard" if arguments.tensorboard else ""
    with contextlib.ExitStack() as stack:
        ranks = _ranks(given)
        if ranks is not None:
            stack.enter_context(ranks)
            command = f"torchrun … -m {command}"
            if not ranks.leads:
                return _follow(arguments.text, given, ranks)
            if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0" and not arguments.resume:
                _say("ranks that torchrun starts again cannot go on without --resume: add it")
        interrupts, bar = stack.enter_context(Interrupts()), stack.enter_context(_bar())
        run = _start(
            arguments.text,
            folder,
            given,
            arguments.resume,
            interrupts,
            bar,
            started,
            arguments.tensorboard,
            ranks,
        )
        _watch(run, bar)
    status = 0
    if run.interrupted:
        _say(f"interrupted at step {run.state.step:,}; all is saved. To go on: {command}")
        status = 128 + (interrupts.received or signal.SIGINT)
    else:
        _conclude(run)
    if ranks is not None:
        os._exit(status)  # at an ordinary exit, threads of PyTorch that are left can abort it
    return status


def _ranks(given: dict[str, Any]) -> Ranks | None:
    """The processes that torchrun started to train together, where it started several."""
    from charloom.ranks import Ranks, started_by_torchrun
    from charloom.training import TrainingConfig

    if not started_by_torchrun():
        return None
    config = TrainingConfig.of(given)  # refuses nonsense
    return Ranks(config.rank_timeout, config.device)


def _follow(sources: Sequence[str], given: dict[str, Any], ranks: Ranks) -> int:
    """Trains with rank 0, which alone is told to stop, and tells all that is to be told."""
    from charloom.runs import follow

    for number_ in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number_, signal.SIG_IGN)
    with _bar() as bar:
        bar.disable = True
        return 0 if follow(_opener(bar, sources), given, ranks) else 2


class Interrupts:
    """SIGINT and SIGTERM, taken note of so that a step can be finished. A second one ends the
    process at once, and so does the first before training has begun."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.training = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number_ in (signal.SIGINT, signal.SIGTERM):
            self._before[number_] = signal.signal(number_, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number_, handler in self._before.items():
            signal.signal(number_, handler)

    def _handle(self, number_: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number_)
        self.received = number_
        if not self.training:
            sys.exit(128 + number_)

    def __call__(self) -> bool:
        return self.received is not None


def _folder(given: str | None, default: Path) -> Path:
    if given == "":
        raise CharloomError("--out is empty: give a folder's name, or leave it out")
    return default if given is None else Path(given)


def _bar() -> Any:
    """A progress bar on standard error, which clears itself; none where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(
        file=cast(IO[str], StandardError()), highlight=False, emoji=False, soft_wrap=True
    )
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        # What is printed on the same terminal goes above the bar; elsewhere it is left alone.
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        redirect_stderr=False,
    )


def _start(
    sources: Sequence[str],
    folder: Path,
    given: dict[str, Any],
    resume: bool,
    interrupts: Interrupts,
    bar: Any,
    started: float,
    tensorboard: bool = False,
    ranks: Ranks | None = None,
) -> TrainingRun:
    """Opens a run, with a bar while a long text is read, and says what it is."""
    from charloom.runs import TrainingRun

    with _reading(bar) as report:
        run = TrainingRun(
            _opener(bar, sources),
            folder,
            given,
            resume=resume,
            should_stop=interrupts,
            report=report,
            started=started,
            tensorboard=tensorboard,
            ranks=ranks,
        )
    config = run.config
    for note in run.notes:
        _say(note)
    _tell_of(run.dataset, bar)
    bar.console.print(
        f"{config.cell} of {config.hidden_size} units, layers: {config.layers}, "
        f"{run.engine.config.parameter_count:,} parameters; {run.batches.rows} rows of "
        f"{config.window} characters; {config.optimizer} at {config.learning_rate:g}; engine "
        f"{run.engine.name}, threads: {run.threads}"
        + ("" if ranks is None else f", ranks: {ranks.size}"),
        markup=False,
    )
    interrupts.training = True
    return run


@contextlib.contextmanager
def _reading(bar: Any) -> Iterator[Callable[[str, int, int | None], None]]:
    """What tells, on the bar, how far a text is read."""
    tasks: dict[str, Any] = {}

    def report(what: str, done: int, of: int | None) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(f"{what} the text", total=of, figures="")
        bar.update(tasks[what], completed=done, figures=f"{done:,} characters")

    yield report
    for task in tasks.values():
        bar.remove_task(task)


def _opener(bar: Any, sources: Sequence[str]) -> Callable[[TrainingConfig], Text]:
    """What opens a command's texts, as one, the way that a configuration reads them."""
    from charloom.corpora import join_texts

    def open_source(config: TrainingConfig) -> Text:
        reading = {
            "raw": config.raw,
            "normalize_newlines": config.normalize_newlines,
            "as_bytes": config.bytes,
        }
        return join_texts([_open(bar, source, **reading) for source in sources])

    return open_source


def _tell_of(dataset: Dataset, bar: Any) -> None:
    bar.console.print(
        f"{printable(dataset.name)}: {len(dataset.ids):,} characters, {len(dataset.vocabulary)} "
        f"distinct; {len(dataset.train):,} to train, {len(dataset.validation):,} to validate, "
        f"{len(dataset.test):,} to test",
        markup=False,
    )


def _watch(run: TrainingRun, bar: Any, show: Callable[[Progress], None] | None = None) -> None:
    """Trains, with a bar, a line at every validation, and `show` called after each."""
    task = bar.add_task("training", total=1.0, figures="")
    drawn, refit = -1e9, run.state.refit_step is not None
    speeds: list[tuple[float, int]] = []
    said = len(run.notes)
    for progress in run:
        for note in run.notes[said:]:
            _say(note)
        said = len(run.notes)
        now = time.monotonic()
        if not refit and run.state.refit_step is not None:
            refit = True
            bar.console.print(
                "from here on it learns from four fifths of the validation part too; the rest is "
                "held against it",
                style="dim",
            )
        if progress.kind == "validation":
            bar.console.print(_validation_line(progress), markup=False)
            if show is not None:
                show(progress)
            elif progress.sample:
                bar.console.print(f"    {_excerpt(progress.sample)}", markup=False, style="dim")
        if now - drawn > 0.2:
            drawn = now
            speeds = [*speeds[-20:], (progress.elapsed, progress.characters)]
            bar.update(task, completed=progress.done, figures=_figures(progress, speeds))
    for note in run.notes[said:]:
        _say(note)
    bar.remove_task(task)


def _figures(progress: Progress, speeds: list[tuple[float, int]]) -> str:
    (begin, first), (end, last) = speeds[0], speeds[-1]
    rate = (last - first) / (end - begin) if end > begin else 0.0
    left = progress.elapsed * (1 / progress.done - 1) if progress.done > 0 else 0.0
    return (
        f"step {progress.step:,}  epoch {progress.epoch:.2f}  loss {progress.smoothed_loss:.3f}  "
        f"{rate:,.0f} characters/s  {_duration(left)} left"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _validation_line(progress: Progress) -> str:
    line = f"{_duration(progress.elapsed)}  step {progress.step:,}  epoch {progress.epoch:.2f}"
    if progress.loss is not None:
        line += f"  training loss {progress.loss:.4f}"
    if progress.validation is not None:
        nats = progress.validation.nats_per_character
        line += f"  validation {nats:.4f} nats ({_bits(nats):.3f} bits) per character"
        line += " *" if progress.best else ""
    return line


def _bits(nats: float) -> float:
    return nats / 0.6931471805599453


def _excerpt(text: str) -> str:
    """The beginning of a text on one line; a terminal's control characters do nothing in it."""
    line = "".join(c if c.isprintable() else "·" for c in " ".join(text.split()))
    return line if len(line) <= 88 else line[:87] + "…"


def _conclude(run: TrainingRun) -> None:
    """What a finished run came to, and what can be done with it."""
    state, folder = run.state, shlex.quote(str(run.folder))
    if state.best_loss is not None:
        _say(
            f"the best validation was {state.best_loss:.4f} nats ({_bits(state.best_loss):.3f} "
            f"bits) per character, at step {state.best_step:,} of {state.step:,}"
            + ("" if state.refit_step is None else ", of what it did not learn from")
        )
    else:
        _say(f"trained {state.step:,} steps, with no validation part")
    _say(f"the model is {folder}/model.safetensors. Next:")
    _say(f"  charloom sample {folder}")
    _say(f"  charloom evaluate {folder}")
    _say(f"its curves and samples: {folder}/report.html")


# tune


def add_tune_arguments(parser: Parser) -> None:
    parser.formatter_class = argparse.HelpFormatter
    _add_texts(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="the search's folder (default: runs/NAME-tune)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the search in --out, or start it"
    )
    parser.add_argument("--config", metavar="FILE.toml", help="options in a file")
    parser.add_argument(
        "--trial-minutes",
        type=number,
        help="wall time of a trial (default: a twentieth of all, at least 0.25)",
    )
    senseless = ("preset", "steps", "epochs", "refit")
    told = {"minutes": "wall time of the whole search (default: 30)"}
    _add_training_options(parser, told | dict.fromkeys(senseless, argparse.SUPPRESS))


def run_tune(arguments: argparse.Namespace, started: float) -> int:
    from charloom.corpora import text_name
    from charloom.tuning import Search

    given = _given_options(arguments)
    folder = _folder(arguments.out, Path("runs") / f"{text_name(arguments.text[0])}-tune")
    with Interrupts() as interrupts, _bar() as bar:
        with _reading(bar) as report:
            search = Search(
                _opener(bar, arguments.text),
                folder,
                given,
                trial_minutes=arguments.trial_minutes,
                resume=arguments.resume,
                should_stop=interrupts,
                report=report,
                started=started,
            )
        _tell_of(search.dataset, bar)
        interrupts.training = True
        _watch_search(search, bar)
    if search.interrupted:
        command = ["charloom", "tune", *arguments.text, "--out", str(folder), "--resume"]
        _say(f"interrupted; all is saved. To go on: {shlex.join(command)}")
        return 128 + (interrupts.received or signal.SIGINT)
    _conclude_search(search, arguments.text)
    return 0


def _watch_search(search: Search, bar: Any) -> None:
    """Searches, with a bar, and a line for every trial that has ended."""
    settings = search.settings
    searched = ", ".join(name.replace("_", " ") for name in settings.ranges)
    bar.console.print(
        f"searching {searched}; trials of {_duration(settings.trial_seconds)} each, "
        f"{settings.minutes:g} minutes in all",
        markup=False,
    )
    if search.trials:
        bar.console.print(
            f"going on after {len(search.trials)} trials, {100 * search.done:.0f}% of the time is "
            "spent",
            markup=False,
        )
    task = bar.add_task("searching", total=1.0, figures="")
    drawn, said = -1e9, 0
    best: Trial | None = search.best
    for event in search:
        for note in search.notes[said:]:
            _say(note)
        said = len(search.notes)
        if event.progress is None:
            best = search.best
            bar.console.print(_trial_line(event.trial, best), markup=False)
        now = time.monotonic()
        if now - drawn > 0.2:
            drawn = now
            figures = f"trial {event.trial.number}"
            if event.progress is not None:
                figures += (
                    f", {100 * event.progress.done:.0f}% done  step {event.progress.step:,}  loss "
                    f"{event.progress.smoothed_loss:.3f}"
                )
            figures += "" if best is None else f"  best {best.loss:.4f} (trial {best.number})"
            bar.update(task, completed=search.done, figures=figures)
    for note in search.notes[said:]:
        _say(note)
    bar.remove_task(task)


def _trial_line(trial: Trial, best: Trial | None) -> str:
    loss = "" if trial.loss is None else f"{trial.loss:.4f} nats"
    what = {
        "complete": loss + (" *" if best is not None and best.number == trial.number else ""),
        "pruned": f"pruned after {100 * max((p[0] for p in trial.curve), default=0):.0f}%, {loss}",
        "failed": f"failed: {trial.reason}",
    }[trial.state]
    options = ", ".join(f"{name.replace('_', ' ')} {v}" for name, v in trial.options.items())
    best_so_far = "" if best is None else f"; best {best.loss:.4f}"
    return f"{_duration(trial.ended or 0)}  trial {trial.number}: {what}{best_so_far}  [{options}]"


def _conclude_search(search: Search, sources: Sequence[str]) -> None:
    """What a search that has had its time came to, and what can be done with it."""
    count = {
        state: sum(trial.state == state for trial in search.trials)
        for state in ("complete", "pruned", "failed")
    }
    trials = ", ".join(f"{number_} {state}" for state, number_ in count.items() if number_)
    best, first = search.best, search.trials[0]
    assert best is not None  # or the search had ended with an error
    if search.exhausted:
        _say("every combination of what was searched has been tried")
    others = ""
    if best is not first and first.state == "complete" and first.loss is not None:
        others = f"; what charloom would choose itself reached {first.loss:.4f}"
    several = "s" if len(search.trials) > 1 else ""
    _say(
        f"the best of {len(search.trials)} trial{several} ({trials}) was trial {best.number}: "
        f"{best.loss:.4f} nats ({_bits(best.loss or 0):.3f} bits) per character{others}"
    )
    run = shlex.quote(str(search.best_run))
    _say(f"its run, trained for {_duration(search.settings.trial_seconds)}, is {run}. Next:")
    _say(f"  charloom sample {run}")
    _say(f"  charloom evaluate {run}")
    _say(f"to train longer with its options (they are in {search.folder / 'best.toml'} too):")
    _say(f"  {shlex.join(search.settings.command(best, sources))}")
    _say(f"what was tried: {shlex.quote(str(search.folder / 'report.html'))}")


# report


def add_report_arguments(parser: Parser) -> None:
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="a run's folder; several are compared"
    )
    parser.add_argument(
        "--out",
        metavar="FILE.html",
        help="the page (default: report.html, in the run's folder if it is one run)",
    )


def run_report(arguments: argparse.Namespace, started: float) -> int:
    from charloom.report import write_report

    if arguments.out == "":
        raise CharloomError("--out is empty: give a file's name, or leave it out")
    out = None if arguments.out is None else Path(arguments.out)
    _print(str(write_report([Path(run) for run in arguments.runs], out)))
    return 0


# sample


def add_sample_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument("--prompt", default="", help="text that the sample begins with")
    parser.add_argument(
        "--length", type=length, default=500, help="characters to draw; inf goes on for ever"
    )
    parser.add_argument("--temperature", type=number, default=1.0, help="0 is greedy")
    parser.add_argument("--top-k", type=whole_number, help="only the k likeliest characters")
    parser.add_argument("--top-p", type=number, help="only the likeliest that reach probability p")
    parser.add_argument(
        "--min-p", type=number, help="only those p times as likely as the likeliest"
    )
    parser.add_argument(
        "--stop", action="append", default=[], help="text that ends the sample; may be repeated"
    )
    parser.add_argument("--seed", type=whole_number, help="of the draw (default: a new one)")
    parser.add_argument("--count", type=whole_number, default=1, help="samples to draw")
    parser.add_argument(
        "--skip-unknown", action="store_true", help="pass over unknown characters of the prompt"
    )
    parser.add_argument(
        "--clamp",
        metavar="UNIT=VALUE",
        action="append",
        default=[],
        help="hold a unit while drawing, like h17=0.9 (see charloom explore); may be repeated",
    )
    parser.add_argument(
        "--report-overlap",
        action="store_true",
        help="tell the longest stretch that each sample copies from the training text",
    )
    parser.add_argument(
        "--max-overlap",
        type=whole_number,
        metavar="N",
        help="copy at most N characters in a row from the training text",
    )
    parser.add_argument("--training-text", metavar="TEXT", help="where the training text is now")
    _add_network_only(parser)
    _add_engine(parser)


def run_sample(arguments: argparse.Namespace, started: float) -> int:
    import secrets

    if arguments.count < 1:
        raise CharloomError(f"--count is {arguments.count}: give 1 or more")
    looks_up = arguments.report_overlap or arguments.max_overlap is not None
    if arguments.training_text is not None and not looks_up:
        raise CharloomError("--training-text is for --report-overlap and --max-overlap: give one")
    with _threads(arguments.threads):
        model = _load(arguments, arguments.run)
        seed = secrets.randbelow(2**31) if arguments.seed is None else arguments.seed
        prompt, stop = arguments.prompt, arguments.stop
        if model.vocabulary.as_bytes:
            prompt, *stop = (os.fsencode(text).decode("latin-1") for text in (prompt, *stop))
        _, skipped = model.vocabulary.encode_known(prompt)
        if looks_up:  # now, so that a text that is not to be had is told before anything is drawn
            model.training_index(arguments.training_text)
        for index in range(arguments.count):
            stream = model.stream(
                prompt,
                length=arguments.length,
                temperature=arguments.temperature,
                top_k=arguments.top_k,
                top_p=arguments.top_p,
                min_p=arguments.min_p,
                stop=stop,
                seed=seed,
                index=index,
                skip_unknown=arguments.skip_unknown,
                clamp=arguments.clamp,
                max_overlap=arguments.max_overlap,
            )
            if index:
                _write(model, "\n")
            else:
                _output()
                if skipped:
                    _say(f"{skipped} characters of the prompt were unknown and passed over")
                if arguments.seed is None:
                    _say(f"seed {seed}")
            _write(model, prompt)
            drawn = io.StringIO()
            try:
                for piece in stream:
                    _write(model, piece)
                    if arguments.report_overlap:
                        drawn.write(piece)
            finally:  # of what there is, where Ctrl-C ends the sample
                if arguments.report_overlap:
                    if sys.stdout.isatty():
                        _write(model, "\n")
                    _report_overlap(model, index, prompt, drawn.getvalue())
        if sys.stdout.isatty() and not arguments.report_overlap:
            _write(model, "\n")
    return 0


def _report_overlap(model: LanguageModel, index: int, prompt: str, drawn: str) -> None:
    found = model.overlap(prompt + drawn, drawn_from=len(prompt))
    if not found.length:
        _say(f"sample {index + 1}: nothing is copied from the training text")
        return
    copied = found.text.encode("latin-1") if model.vocabulary.as_bytes else found.text
    characters = f"{found.length:,} character{'s' if found.length > 1 else ''}"
    _say(
        f"sample {index + 1}: the longest stretch copied from the training text has {characters}: "
        f"{_excerpt(repr(copied))} (at character {found.training_place + 1:,}, line "
        f"{found.training_line:,})"
    )


def _write(model: LanguageModel, text: str) -> None:
    """To standard output, in the encoding of the model's text, at once."""
    encoding = "latin-1" if model.vocabulary.as_bytes else "utf-8"
    output = _output()
    output.write(text.encode(encoding, "replace"))
    output.flush()


# evaluate


def add_evaluate_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument(
        "text", metavar="TEXT", nargs="?", help="a text (default: the run's own test part)"
    )
    parser.add_argument(
        "--protocol", default="carried", help="carried, adaptive, or cold-N like cold-256"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--training-text", metavar="TEXT", help="where the training text is now")
    parser.add_argument(
        "--skip-unknown", action="store_true", help="pass over unknown characters of TEXT"
    )
    _add_network_only(parser)
    _add_engine(parser)


def run_evaluate(arguments: argparse.Namespace, started: float) -> int:

    with _threads(arguments.threads), _bar() as bar:
        model = _load(arguments, arguments.run)
        text = None
        if arguments.text is not None:
            text = _open_for(model, bar, arguments.text)
        evaluation = _evaluate(
            model,
            bar,
            text=text,
            protocol=arguments.protocol,
            training_text=arguments.training_text,
            skip_unknown=arguments.skip_unknown,
        )
    if arguments.json:
        _print_json(evaluation.as_dict())
    else:
        _print_evaluation(evaluation, model)
    if arguments.text is None and Path(arguments.run).is_dir():
        _keep_evaluation(Path(arguments.run), evaluation, model)
    return 0


def _keep_evaluation(folder: Path, evaluation: Evaluation, model: LanguageModel) -> None:
    """Keeps the figures for the run's report, where its folder can be written."""
    from charloom.report import keep_evaluation

    try:
        keep_evaluation(folder, evaluation, model.checkpoint.sha256)
    except (CharloomError, OSError) as error:
        _say(str(error))


def _evaluate(model: LanguageModel, bar: Any, **settings: Any) -> Evaluation:
    task = bar.add_task("evaluating", total=None, figures="")

    def report(done: int, of: int) -> None:
        if done < of:
            bar.update(task, completed=done, total=of, figures=f"{done:,} of {of:,} characters")
        else:
            bar.update(task, total=None, figures="counting and compressing for the baselines")

    evaluation = model.evaluate(report=report, **settings)
    bar.remove_task(task)
    return evaluation


def _print_evaluation(evaluation: Evaluation, model: LanguageModel) -> None:
    e = evaluation
    _print(f"{e.text}: {e.characters:,} characters, protocol {e.protocol}")
    if e.skipped_characters:
        _print(f"{e.skipped_characters:,} unknown characters were passed over")
    _print(
        f"{e.nats_per_character:.4f} nats = {e.bits_per_character:.4f} bits per character, "
        f"{e.bits_per_byte:.4f} bits per byte, perplexity {e.perplexity:.3f}, "
        f"top guess right {100 * e.accuracy:.1f}%"
    )
    if e.interval is not None:
        low, high = e.interval
        _print(
            f"in 95 of 100 such texts between {low:.4f} and {high:.4f} nats ({_bits(low):.4f} and "
            f"{_bits(high):.4f} bits) per character"
        )
    if e.overlap is not None:
        _print(
            f"the longest stretch that stands in the training text has {e.overlap.length:,} "
            f"characters: {_excerpt(ascii(e.overlap_text))}"
        )
    _print()
    network = f"this {model.config.cell}"
    ours = network if e.model == "network" else "mixture"
    note = "" if e.model == "network" else f"{network} and the counts of n-grams"
    rows = [(e.bits_per_character, ours, e.protocol, note)]
    missing = []
    for name, baseline in e.baselines.items():
        name = network if name == "network" else name
        if baseline.bits_per_character is None:
            missing.append((name, baseline.protocol, baseline.reason))
        else:
            rows.append((baseline.bits_per_character, name, baseline.protocol, baseline.note))
    _print(f"{'bits per character':>18}  {'predictor':<10} {'protocol':<10}")
    for bits, name, protocol, note in sorted(rows):
        _print(f"{bits:>18.4f}  {name:<10} {protocol:<10} {note}".rstrip())
    for name, protocol, reason in missing:
        _print(f"{'-':>18}  {name:<10} {protocol:<10} {reason}")
    better = [name for bits, name, *_ in sorted(rows) if bits < e.bits_per_character]
    ours = "network" if e.model == "network" else "mixture"
    _print()
    if better:
        *others, last = better
        names = f"{', '.join(others)} and {last} predict" if others else f"{last} predicts"
        _print(f"Counting wins here: {names} this part better than the {ours} does.")
    else:
        _print(f"The {ours} predicts this part better than every baseline.")


# score


def add_score_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument("text", metavar="TEXT", help="a path, - for standard input, or a corpus")
    parser.add_argument(
        "--lines", action="store_true", help="score each line by itself, most surprising first"
    )
    parser.add_argument(
        "--html", metavar="FILE.html", help="write a page with the text colored by its surprisal"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, per character or line")
    parser.add_argument("--csv", action="store_true", help="print CSV, per character or line")
    parser.add_argument(
        "--top", type=whole_number, help="places or lines to list (default: 10 places, all lines)"
    )
    parser.add_argument(
        "--protocol", default="carried", help="carried, adaptive, or cold-N like cold-256"
    )
    parser.add_argument("--training-text", metavar="TEXT", help="where the training text is now")
    parser.add_argument(
        "--skip-unknown", action="store_true", help="pass over unknown characters of TEXT"
    )
    _add_network_only(parser)
    _add_engine(parser)


def run_score(arguments: argparse.Namespace, started: float) -> int:
    from charloom.pages import check_writable, write_page

    if arguments.json and arguments.csv:
        raise CharloomError("--json and --csv exclude each other: give one")
    if arguments.top is not None and arguments.top < 1:
        raise CharloomError(f"--top is {arguments.top}: give 1 or more")
    if arguments.lines and arguments.html is not None:
        raise CharloomError("--html shows a text, not lines by themselves: leave out --lines")
    if arguments.lines and arguments.protocol != "carried":
        raise CharloomError("with --lines each line is scored by itself: leave out --protocol")
    page = None if arguments.html is None else Path(arguments.html)
    if page is not None:
        check_writable(page)
    with _threads(arguments.threads), _bar() as bar:
        model = _load(arguments, arguments.run)
        text = _open_for(model, bar, arguments.text)
        task = bar.add_task("scoring", total=None, figures="")

        def report(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of, figures=f"{done:,} of {of:,} characters")

        if arguments.lines:
            return _score_lines(model, text.read(), report, arguments)
        surprisal = _surprisal(
            model,
            text,
            report,
            protocol=arguments.protocol,
            training_text=arguments.training_text,
            skip_unknown=arguments.skip_unknown,
        )
        bar.update(task, total=None, figures="")
        if page is not None:
            write_page(page, surprisal.page())
    if surprisal.skipped:
        _say(f"{surprisal.skipped:,} unknown characters were passed over")
    if arguments.json or arguments.csv:
        _print_pieces(surprisal.json() if arguments.json else surprisal.csv())
    else:
        _print_surprisal(surprisal, arguments.top or 10)
    if page is not None:
        _say(f"the page is {page} ({page.stat().st_size:,} bytes)")
    return 0


def _open_for(model: LanguageModel, bar: Any, source: str) -> Text:
    """A text as the model's was read."""
    return _open(
        bar,
        source,
        raw=False,
        normalize_newlines=bool(model.checkpoint.training.get("normalize_newlines")),
        as_bytes=model.vocabulary.as_bytes,
    )


def _surprisal(model: LanguageModel, text: Text, report: Any, **settings: Any) -> Surprisal:
    from charloom.surprisal import GUESSES, Surprisal

    content = text.read()
    ids, skipped = model.vocabulary.encode_known(content)
    scores = model.score(content, likeliest=GUESSES, report=report, **settings)
    kind = "network" if model.mixture is None else "mixture"
    return Surprisal(text.name, kind, settings["protocol"], model.vocabulary, ids, scores, skipped)


def _score_lines(
    model: LanguageModel, text: str, report: Any, arguments: argparse.Namespace
) -> int:
    from charloom.surprisal import LineSurprisal

    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    skipped = 0
    if arguments.skip_unknown:
        known = [model.vocabulary.encode_known(line) for line in lines]
        skipped = sum(count for _, count in known)
        lines = [model.vocabulary.decode(ids) for ids, _ in known]
    if not any(lines):
        raise CharloomError("the text has no characters to score")
    nats = model.score_lines(lines, report=report)
    result = LineSurprisal(lines, -nats / 0.6931471805599453 + 0.0)
    if skipped:
        _say(f"{skipped:,} unknown characters were passed over")
    if arguments.json or arguments.csv:
        _print_pieces(result.json() if arguments.json else result.csv())
        return 0
    _print(f"{'bits/character':>14}  {'bits':>10}  {'line':>7}  text")
    for row in result.ranked()[: arguments.top]:
        mean = "-" if row["bits_per_character"] is None else f"{row['bits_per_character']:.4f}"
        _print(
            f"{mean:>14}  {row['total_bits']:>10.3f}  {row['line']:>7,}  {printable(row['text'])}"
        )
    return 0


def _print_pieces(pieces: Iterator[str]) -> None:
    output = _output()
    for piece in pieces:
        output.write(piece.encode("utf-8"))
    output.flush()


def _print_surprisal(surprisal: Surprisal, top: int) -> None:
    s = surprisal.summary()
    _print(f"{printable(s['text'])}: {s['characters']:,} characters, protocol {s['protocol']}")
    _print(
        f"{s['bits_per_character']:.4f} bits = {s['nats_per_character']:.4f} nats per character, "
        f"{s['total_bits']:,.1f} bits in all; the {s['model']}'s top guess is right "
        f"{100 * s['accuracy']:.1f}%"
    )
    _print()
    _print(
        f"{'bits':>7}  {'character':>9}  {'line':>6}  {'expected':<14} the most surprising places"
    )
    lines, chances = surprisal.lines(), surprisal.probabilities
    for place in surprisal.most_surprising(top):
        before, here, after = (printable(part) for part in surprisal.context(place))
        guess = int(surprisal.scores.likeliest[place, 0])
        expected = ascii(surprisal.vocabulary.characters[guess])
        chance = f"{expected} {chances[place, 0] / 100:.1f}%"
        _print(
            f"{surprisal.bits[place]:>7.2f}  {place:>9,}  {lines[place]:>6,}  {chance:<14} "
            f"{before}[{here}]{after}"
        )


# explore


def add_explore_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument("text", metavar="TEXT", help="a path, - for standard input, or a corpus")
    parser.add_argument(
        "--out", metavar="FILE.html", help="write a page with the text colored by any unit"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--units",
        metavar="h1,h2,...",
        default="",
        help="units that the page and the JSON carry in any case",
    )
    parser.add_argument(
        "--skip-unknown", action="store_true", help="pass over unknown characters of TEXT"
    )
    _add_engine(parser)


def run_explore(arguments: argparse.Namespace, started: float) -> int:
    from charloom.explore import explore
    from charloom.pages import check_writable, write_page

    page = None if arguments.out is None else Path(arguments.out)
    if page is not None:
        check_writable(page)
    with _threads(arguments.threads), _bar() as bar:
        model = _load(arguments, arguments.run, network_only=True)
        text = _open_for(model, bar, arguments.text)
        task = bar.add_task("exploring", total=None, figures="")

        def report(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of, figures=f"{done:,} of {of:,} characters")

        found = explore(
            model,
            text.read(),
            name=text.name,
            units=[unit for unit in arguments.units.split(",") if unit.strip()],
            with_activations=page is not None,
            skip_unknown=arguments.skip_unknown,
            report=report,
        )
        bar.update(task, total=None, figures="")
        if page is not None:
            write_page(page, found.page())
    if found.skipped:
        _say(f"{found.skipped:,} unknown characters were passed over")
    if arguments.json:
        _print_pieces(found.json())
    else:
        _print_exploration(found)
    if page is not None:
        _say(f"the page is {page} ({page.stat().st_size:,} bytes)")
    return 0


def _print_exploration(found: Exploration) -> None:
    facts = found.as_dict()
    _print(f"{printable(found.text)}: {len(found.ids):,} characters, state {found.protocol}")
    _print()
    _print("What units follow, by correlation: chosen on the first half, confirmed on the second;")
    _print("the same for the best of as many random directions")
    _print()
    _print(f"{'second':>8} {'first':>8} {'unit':<8} {'random':>8} {'first':>8}  label")
    labels = facts["labels"]
    for row in sorted(labels, key=lambda row: -abs(row["second_half"] or 0)):
        if row["first_half"] is None:
            continue
        numbers = [
            "-" if row[name] is None else f"{row[name]:.3f}"
            for name in ("second_half", "first_half", "random_second_half", "random_first_half")
        ]
        _print(
            f"{numbers[0]:>8} {numbers[1]:>8} {row['unit']:<8} {numbers[2]:>8} {numbers[3]:>8}  "
            f"{row['label']}"
        )
    missing = [row["label"] for row in labels if row["first_half"] is None]
    if len(missing) == len(labels):
        _print("Nothing: there is too little text for anything in it to vary.")
    elif missing:
        _print()
        _print(f"Not to be found in this text: {', '.join(missing)}")


# serve


def add_serve_arguments(parser: Parser) -> None:
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="runs' folders or checkpoint files; a request chooses one by its name",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for the whole network"
    )
    parser.add_argument("--port", type=whole_number, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help="what a client must know (default: CHARLOOM_API_KEY, or nothing)",
    )
    parser.add_argument(
        "--max-streams",
        type=whole_number,
        default=256,
        metavar="N",
        help="texts that are drawn at a time; as many more may wait",
    )
    _add_network_only(parser)
    _add_engine(parser)


def run_serve(arguments: argparse.Namespace, started: float) -> int:
    from charloom.connection import open_socket
    from charloom.server import Server, name_runs

    key = os.environ.get("CHARLOOM_API_KEY") if arguments.api_key is None else arguments.api_key
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
        raise CharloomError("--api-key is empty or not ASCII without spaces: give another, or none")
    names = name_runs(arguments.runs)
    opened = open_socket(arguments.host, arguments.port)
    with _threads(arguments.threads), contextlib.closing(opened):
        models = {
            name: _load(arguments, run) for name, run in zip(names, arguments.runs, strict=True)
        }
        for model in models.values():
            model.sample(length=1)  # compiles what the first request would wait for
        host, port = opened.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        server = Server(
            models,
            opened,
            host=arguments.host,
            api_key=key,
            most_texts=arguments.max_streams,
            ready=lambda: _print(f"serving {', '.join(names)} at {url}"),
        )
        server.serve_until_ended()
    return 0


# info


def add_info_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_info(arguments: argparse.Namespace, started: float) -> int:
    from charloom.checkpoint import load_checkpoint
    from charloom.language_model import model_path

    path = model_path(arguments.run)
    checkpoint = load_checkpoint(path)
    config, vocabulary = checkpoint.config, checkpoint.vocabulary
    facts: dict[str, Any] = {
        "file": str(path),
        "config": config.as_dict() | {"bytes": vocabulary.as_bytes},
        "parameters": config.parameter_count,
        "vocabulary": list(vocabulary.characters),
        "training": checkpoint.training,
        "text": checkpoint.text,
        "metrics": checkpoint.metrics,
        "counts": None
        if checkpoint.mixture is None
        else {
            "context": checkpoint.mixture.table.context,
            "ngrams": len(checkpoint.mixture.table.characters),
            "bytes": checkpoint.mixture.table.nbytes,
        },
    }
    if checkpoint.position is not None:
        facts["position"] = checkpoint.position
    if arguments.json:
        _print_json(facts)
        return 0
    _print(f"{path} ({path.stat().st_size:,} bytes)")
    _print(
        f"{config.cell}, {config.hidden_size} hidden units, layers: {config.layers}, "
        f"{config.parameter_count:,} parameters, {config.dtype}"
    )
    if checkpoint.mixture is not None:
        table = checkpoint.mixture.table
        _print(
            f"mixed with counts of {len(table.characters):,} n-grams ({table.context} characters "
            f"of context, {table.nbytes:,} bytes)"
        )
    kind = "bytes" if vocabulary.as_bytes else "characters"
    _print(f"{len(vocabulary)} {kind}: {_excerpt(ascii(''.join(vocabulary.characters)))}")
    for title in ("text", "metrics", "training", "position"):
        for name, value in (facts.get(title) or {}).items():
            if value is not None:
                _print(f"{title + ' ' + name:<28} {value}")
    return 0


# export, import


def add_export_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument(
        "--to",
        metavar="pytorch|onnx|huggingface",
        default=argparse.SUPPRESS,
        help="what to write",
    )
    parser.add_argument(
        "--out",
        metavar="FILE|DIR",
        default=argparse.SUPPRESS,
        help="the file to write; for huggingface the folder",
    )


def run_export(arguments: argparse.Namespace, started: float) -> int:
    from charloom.checkpoint import load_checkpoint
    from charloom.exchange import export_onnx, export_pytorch
    from charloom.language_model import model_path
    from charloom.pages import check_writable

    to, name = getattr(arguments, "to", ""), getattr(arguments, "out", "")
    if to not in ("pytorch", "onnx", "huggingface"):
        raise CharloomError(f"--to is {shortened(to)}: give pytorch, onnx or huggingface")
    if name == "":
        raise CharloomError("--out is missing: give the file or folder to write")
    path, out = model_path(arguments.run), Path(name)
    checkpoint = load_checkpoint(path)
    if to == "huggingface":
        return _export_for_hub(path, checkpoint, out)
    check_writable(out, page=False)
    if out.exists() and out.samefile(path):
        raise CharloomError(f"--out is the model itself, {path}: give another file")
    if to == "pytorch":
        _print(export_pytorch(checkpoint, out).rstrip("\n"))
        _say(f"{out} is the state dict; these lines are in {out.with_suffix('.py')} too")
    else:
        export_onnx(checkpoint, out)
        _say(
            f"{out} takes ids (T, B) and state (S, L, B, H) and gives logits (T, B, V) and "
            "next_state"
        )
        if checkpoint.config.dtype != "float32":
            _say(f"it computes in float32, not {checkpoint.config.dtype}")
    if checkpoint.mixture is not None:
        _say("the model's counts of n-grams are not exported: this is its network alone")
    return 0


def _export_for_hub(path: Path, checkpoint: Checkpoint, out: Path) -> int:
    from charloom.hub import CARD_FILE, card_kept, write_folder
    from charloom.report import read_evaluations

    if write_folder(checkpoint, read_evaluations(path.parent), out):
        _say(card_kept(out / CARD_FILE))
    _say(f"{out} is the model with its card, {out / CARD_FILE}. To upload it:")
    _say(f"  hf upload OWNER/{shlex.quote(out.resolve().name)} {shlex.quote(str(out))}")
    return 0


def add_import_arguments(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="a PyTorch state dict in safetensors")
    parser.add_argument(
        "--vocabulary",
        metavar="FILE.json",
        help="its characters in the order of their ids: a JSON list, or one string",
    )
    parser.add_argument("--out", metavar="DIR", help="the model's folder (default: runs/NAME)")


def run_import(arguments: argparse.Namespace, started: float) -> int:
    from charloom.exchange import import_pytorch

    path = Path(arguments.file)
    vocabulary = None if arguments.vocabulary is None else Path(arguments.vocabulary)
    folder = _folder(arguments.out, Path("runs") / path.stem)
    _print(str(import_pytorch(path, vocabulary, folder)))
    return 0


# demo


def add_demo_arguments(parser: Parser) -> None:
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: a new runs/demo)")
    parser.add_argument("--minutes", type=number, default=1.0, help="how long to train")
    parser.add_argument("--seed", type=whole_number, default=0, help="of every random number")


def run_demo(arguments: argparse.Namespace, started: float) -> int:
    folder = _folder(arguments.out, _new_folder(Path("runs/demo")))
    given = {"minutes": arguments.minutes, "seed": arguments.seed}
    shown = [0.0]

    def show(progress: Progress) -> None:
        # Before training, about every third of it, and after.
        if progress.step == 0 or progress.done >= 1 or progress.done > shown[0] + 0.3:
            shown[0] = progress.done
            when = "before training" if progress.step == 0 else f"after {progress.step:,} steps"
            bar.console.print()
            _print(f"--- a sample {when}\n{(progress.sample or '').strip()}\n")

    with Interrupts() as interrupts:
        with _bar() as bar:
            run = _start([DEMO_TEXT], folder, given, False, interrupts, bar, started)
            _watch(run, bar, show)
        if run.interrupted:
            _say(f"interrupted; what was learned is in {folder}: charloom sample {folder}")
            return 128 + (interrupts.received or signal.SIGINT)
    with _bar() as bar:
        model = run.model()
        evaluation = _evaluate(model, bar)
    _print_evaluation(evaluation, model)
    _keep_evaluation(folder, evaluation, model)
    name = shlex.quote(str(folder))
    _print(
        f"""
Next:
  charloom sample {name} --prompt "The " --temperature 0.7    more from this model
  charloom train YOUR-TEXT.txt --minutes 10                   your own text
  charloom evaluate {name} YOUR-TEXT.txt                      how well it predicts another
  charloom corpora                                            texts to play with
  charloom train --help                                       all there is to choose"""
    )
    return 0


def _new_folder(folder: Path) -> Path:
    number_ = 1
    candidate = folder
    while candidate.exists():
        number_ += 1
        candidate = folder.with_name(f"{folder.name}-{number_}")
    return candidate


COMMANDS = {
    "demo": Command(
        "train for a minute on a text that Python carries, and show what was learned",
        add_demo_arguments,
        run_demo,
    ),
    "train": Command("train a model on a text", add_train_arguments, run_train),
    "tune": Command(
        "search for the options that learn a text best, in many short trainings",
        add_tune_arguments,
        run_tune,
    ),
    "sample": Command("draw text from a model", add_sample_arguments, run_sample),
    "evaluate": Command(
        "measure how well a model predicts, beside baselines", add_evaluate_arguments, run_evaluate
    ),
    "score": Command(
        "measure how surprising each character or line of a text is", add_score_arguments, run_score
    ),
    "explore": Command(
        "find out what a network's units track in a text", add_explore_arguments, run_explore
    ),
    "report": Command(
        "draw a run's curves, samples and figures, or several runs beside each other, as a page",
        add_report_arguments,
        run_report,
    ),
    "serve": Command(
        "answer requests over HTTP, as OpenAI's completions are asked for",
        add_serve_arguments,
        run_serve,
    ),
    "info": Command("tell what a checkpoint is", add_info_arguments, run_info),
    "export": Command(
        "write a model's network for PyTorch or as an ONNX graph, or the model for Hugging Face",
        add_export_arguments,
        run_export,
    ),
    "import": Command(
        "make a model of a PyTorch state dict and a vocabulary",
        add_import_arguments,
        run_import,
    ),
    "corpora": Command("list the texts that have a name", add_no_arguments, run_corpora),
}

"""A search for the options that learn a text best: many short training runs, proposed by Optuna.

Every trial is an ordinary run (charloom.runs) of the same text and of equal wall time. The first
one is what `charloom train --minutes` would choose itself for a trial's time, so no search is worse
than none; then Optuna's TPE sampler proposes, and its median pruner ends what falls behind. A
search's folder holds

    best/          the best run so far: an ordinary run's folder, its counts and all
    best.toml      its options, for `charloom train --config`
    report.html    what was tried, drawn again as the search goes on
    study.db       Optuna's storage: every trial's options, curve and end
    trials/        the run that is under way; a run that has ended and is not the best is removed
    .lock          held while a search is at work

study.db is SQLite, for a transaction is there or not, whenever the process is killed. Optuna's
other file, the journal, cannot be read on from a line that a kill tore; and its lock is a file,
which outlives its process.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shlex
import shutil
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from charloom.checkpoint import load_checkpoint, read_header, sync_folder, write_atomically
from charloom.corpora import Text
from charloom.dataset import Report
from charloom.engines import open_engine
from charloom.errors import CharloomError, printable, shortened
from charloom.language_model import LanguageModel, load, model_path
from charloom.model import initialize
from charloom.pages import make_page, write_page
from charloom.planning import FEWEST_UNITS, MOST_UNITS, PROBE, measure_speed, plan
from charloom.report import REPORT_FILE, REST, RESUME_FILE, Standing, refresh_report
from charloom.runs import (
    COUNTING,
    LockedFolder,
    Material,
    RunFolder,
    TooLargeError,
    TrainingRun,
    compile_kernels,
    read_material,
    text_opener,
)
from charloom.training import (
    DivergedError,
    Progress,
    TrainingConfig,
    make_batches,
    option_name,
)

STUDY_FILE = "study.db"
OPTIONS_FILE = "best.toml"
BEST, BEFORE, TRIALS = "best", "best.old", "trials"
STUDY = "charloom"  # the study's name in the storage
# What is searched, where it was not given.
SEARCHED = (
    *("cell", "hidden_size", "layers", "learning_rate", "dropout", "weight_drop"),
    *("batch_size", "window"),
)
DEFAULT_MINUTES = 30.0
TRIALS_IN_A_SEARCH = 20  # as long as none is pruned
SHORTEST_TRIAL = 0.01  # minutes
USUAL_SHORTEST = 0.25  # minutes, where nobody asked for less: there is hardly a curve to prune by
FINISHING = 0.5  # seconds that a trial's end takes, outside its own time, counting apart
# A trial's validations are compared at these parts of its time, from its half on: a larger network
# is behind in the first one, though it may be ahead at the end.
PARTS, FIRST_PRUNED = 10, 5
NEVER_PRUNED = 4  # trials that must have come to their end before one is pruned
RANDOM_TRIALS = 8  # before TPE has something to learn from
FEW = 20  # combinations that are rather gone through one after the other
IMPORTANCES_FROM = 8  # trials that came to their end
TARGET = 0.25  # the best part of them, which importances ask for
# How far from its first value the learning rate is searched: where experiments have fitted it, and
# where it is but the optimizer's usual one.
RATES, UNKNOWN_RATES = 3, 10
HOPELESS = 5  # trials that failed, while none has come to its end

Range = dict[str, Any]  # choices; or low, high, and perhaps step or log


@dataclass(frozen=True)
class Trial:
    """One run of a search."""

    number: int
    state: str  # running, complete, pruned or failed; waiting where a kill came before it began
    options: dict[str, Any]  # those that were searched
    loss: float | None  # the best validation's, nats per character; None: failed, or none yet
    curve: list[list[float]]  # its validations: part of its time, nats per character, its seconds
    steps: int | None
    ended: float | None  # seconds of the search
    reason: str | None  # why it failed


@dataclass(frozen=True)
class SearchProgress:
    """What happened: an event of a trial's training or, with None, its end."""

    trial: Trial
    progress: Progress | None


@dataclass(frozen=True)
class Settings:
    """What does not change in a search, but for its `minutes`."""

    text: dict[str, Any]  # name, sha256, characters
    given: dict[str, Any]  # options of every trial
    minutes: float  # of the whole search
    trial_minutes: float  # as they were asked for
    trial_seconds: float  # as they fit into the search
    speed: float  # of the machine that it began on
    planned: dict[str, Any]  # what charloom would choose for a trial's time
    ranges: dict[str, Range]  # what is searched

    @classmethod
    def read(cls, found: Any, path: Path) -> Settings:
        """The settings as the storage keeps them. Raises CharloomError where they are damaged."""
        try:
            settings = cls(**found)
            TrainingConfig.of(settings.given | settings.planned)
            numbers = settings.minutes, settings.trial_seconds, settings.speed
            if not all(number > 0 for number in numbers) or not settings.ranges:
                raise ValueError
            settings.text["sha256"], settings.text["name"]
        except (CharloomError, KeyError, TypeError, ValueError):
            raise _damaged(path, "its settings are not readable") from None
        return settings

    def options_with(self, trial: Trial) -> dict[str, Any]:
        """The options of `charloom.train` that a trial had, those that were given among them."""
        rest = {name: value for name, value in self.planned.items() if name not in self.given}
        if self.given.get("from_run") is not None:  # whose shape they have anyway
            rest = {n: v for n, v in rest.items() if n not in ("cell", "hidden_size", "layers")}
        return self.given | rest | trial.options

    def command(self, trial: Trial, sources: Sequence[str]) -> list[str]:
        """What trains on texts with a trial's options, for as long as the whole search."""
        words = ["charloom", "train", *sources]
        for name, value in self.options_with(trial).items():
            if isinstance(value, bool):
                words += [option_name(name)] if value else []
            elif value is not None:
                shown = f"{value:g}" if isinstance(value, float) else str(value)
                words += [option_name(name), shown]
        return [*words, "--minutes", f"{self.minutes:g}"]


class SearchFolder(LockedFolder):
    """Where a search's files are, and the lock on them."""

    doing, holds = "searching", "a search"
    atomic = (REPORT_FILE, OPTIONS_FILE)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.study = path / STUDY_FILE
        self.options = path / OPTIONS_FILE
        self.report = path / REPORT_FILE
        self.best, self.before, self.trials = path / BEST, path / BEFORE, path / TRIALS
        # The storage comes before all else that a search writes.
        self.files = (self.study,)

    def trial(self, number: int) -> Path:
        return self.trials / f"{number:04d}"


class Search:
    """One command's or call's part of a search. Iterate over it to search; it yields
    SearchProgress.

    open_source: opens the text, as a configuration says it is to be read. folder: the search's;
    made if it is not there. given: options of TrainingConfig by name, those of every trial;
    `minutes` is the whole search's. trial_minutes: a trial's, by default a twentieth of them.
    resume: go on with the search in the folder, or start it. should_stop: asked after every step;
    True saves and ends the iteration, with `interrupted` set. started: when the command began, by
    time.monotonic.
    Raises CharloomError, in a sentence, for whatever is wrong with text, options or folder.
    """

    def __init__(
        self,
        open_source: Callable[[TrainingConfig], Text],
        folder: Path,
        given: dict[str, Any],
        *,
        trial_minutes: float | None = None,
        resume: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
        report: Report | None = None,
        started: float | None = None,
    ) -> None:
        _load_optuna()
        self.folder = folder
        self.interrupted = False
        self.exhausted = False  # nothing was left to try
        self.notes: list[str] = []  # what the user should know
        self._started = time.monotonic() if started is None else started
        self._before = 0.0  # seconds of earlier processes
        self._should_stop = should_stop
        self._drawn_at, self._drawing = -math.inf, 0.0
        self._finishing = FINISHING  # seconds
        self._files = SearchFolder(folder)
        # What makes no sense is refused before anything is made or read.
        given = dict(given)
        minutes = given.pop("minutes", None)
        _check_minutes("--minutes", minutes)
        _check_minutes("--trial-minutes", trial_minutes)
        _refuse_senseless(given)
        self._files.refuse_if_used(resume=True)
        if not resume:
            _refuse_nothing_to_search(given)
        self._files.open()
        try:
            self._files.refuse_if_used(resume)  # again, now that nobody else can write to it
            self._prepare(open_source, given, minutes, trial_minutes, report)
        except BaseException:
            self._files.close()
            raise

    def _prepare(
        self,
        open_source: Callable[[TrainingConfig], Text],
        given: dict[str, Any],
        minutes: float | None,
        trial_minutes: float | None,
        report: Report | None,
    ) -> None:
        found = None
        if self._files.study.exists():
            self._study = _Study(self._files.study)
            found = self._study.attributes().get("settings")
        if found is None:  # none yet, or it was killed before it began
            settings = self._begin(open_source, given, minutes, trial_minutes, report)
            if not self._files.study.exists():
                self._study = _Study(self._files.study)
            self._study.set("settings", asdict(settings))
        else:
            before = Settings.read(found, self._files.study)
            settings = _continued(before, given, minutes, trial_minutes)
            self._material = replace(
                self._read(open_source, settings.given, settings.trial_minutes, report),
                speed=settings.speed,
            )
            sha256 = self._material.dataset.sha256
            if sha256 != settings.text["sha256"]:
                raise CharloomError(
                    f"the text {self._material.dataset.name!r} is not the one that was searched "
                    f"on: its SHA-256 is {sha256[:12]}…, the search's is "
                    f"{settings.text['sha256'][:12]}…; give that text again, or another --out"
                )
            self._compile(settings.given)
            self._before = self._study.seconds()
            if settings.minutes != before.minutes:
                self._study.set("settings", asdict(settings))
        self.settings = settings
        self._finishing = self._time_to_finish()
        self.dataset = self._material.dataset
        self.trials = self._study.trials()

    def _begin(
        self,
        open_source: Callable[[TrainingConfig], Text],
        given: dict[str, Any],
        minutes: float | None,
        trial_minutes: float | None,
        report: Report | None,
    ) -> Settings:
        """Finds out what is to be searched, and for how long."""
        minutes = DEFAULT_MINUTES if minutes is None else float(minutes)
        if trial_minutes is None:
            trial_minutes = min(max(minutes / TRIALS_IN_A_SEARCH, USUAL_SHORTEST), minutes)
        if trial_minutes > minutes:
            raise CharloomError(
                f"--trial-minutes {trial_minutes:g} is more than the whole search's {minutes:g}: "
                "give less, or more --minutes"
            )
        fixed = _refuse_nothing_to_search(given)
        material = self._read(open_source, given, trial_minutes, report)
        dataset, config = material.dataset, TrainingConfig.of(given)
        if not len(dataset.validation):
            raise CharloomError(
                f"a search needs a validation part to compare its trials by, and --split "
                f"{config.split} leaves none: give a longer text, or a second part"
            )
        speed = measure_speed(
            config.engine, config.threads, config.device, config.bf16, config.compile
        )
        self._material = replace(material, speed=speed)
        self._compile(given)
        # Whatever it took to get here, one trial fits.
        left = minutes * 60 - self._elapsed() - self._time_to_finish()
        seconds = max(min(trial_minutes * 60, left), SHORTEST_TRIAL * 60)
        planned = plan(seconds, speed, dataset, fixed).options
        for name in ("refit", "epochs"):  # each trial finds the passes that it can use
            planned.pop(name, None)
        factor = RATES if "learning_rate" in planned else UNKNOWN_RATES
        planned.setdefault("learning_rate", config.learning_rate)
        # What fits no validation part is refused before anything is tried.
        make_batches(TrainingConfig.of(planned | fixed), dataset)
        ranges = _ranges(planned, fixed, factor, len(dataset.validation))
        if not ranges:
            raise _nothing_to_search()
        text = {
            "name": dataset.name,
            "sha256": dataset.sha256,
            "characters": len(dataset.ids),
        }
        return Settings(text, given, minutes, trial_minutes, seconds, speed, planned, ranges)

    def _read(
        self,
        open_source: Callable[[TrainingConfig], Text],
        given: dict[str, Any],
        trial_minutes: float,
        report: Report | None,
    ) -> Material:
        config = TrainingConfig.of(given | {"minutes": trial_minutes})
        base = None
        if config.from_run is not None:
            base = load_checkpoint(model_path(config.from_run))
        return read_material(
            open_source(config), config, base=base, folder=self.folder, report=report
        )

    def _compile(self, given: dict[str, Any]) -> None:
        """Lets all kernels be compiled, which no trial should lose its time with."""
        config = TrainingConfig.of(given)
        engine = open_engine(
            config.engine, initialize(PROBE, 0), threads=config.threads, device=config.device
        )
        compile_kernels(engine, None if config.no_mix else self._material.dataset)

    def _time_to_finish(self) -> float:
        """Seconds to keep for what comes after a trial's own time."""
        counts = self._material.context is not None
        return FINISHING + (COUNTING * self._material.counting if counts else 0.0)

    def _elapsed(self) -> float:
        return self._before + time.monotonic() - self._started

    @property
    def done(self) -> float:
        """The part of the search's time that lies behind."""
        return min(self._elapsed() / (self.settings.minutes * 60), 1.0)

    @property
    def best(self) -> Trial | None:
        """The best of the trials that came to their end."""
        return _best(self.trials)

    @property
    def best_run(self) -> Path:
        """The folder of the best run."""
        if self.best is not None and self._files.trial(self.best.number).exists():
            return self._files.trial(self.best.number)  # best/ is in use
        return self._files.best

    @property
    def best_options(self) -> dict[str, Any]:
        """The options of `charloom.train` that were best, those that were given among them."""
        assert self.best is not None
        return self.settings.options_with(self.best)

    def model(self) -> LanguageModel:
        """The best run's model. Raises CharloomError where there is none yet."""
        given = self.settings.given
        how = {name: given[name] for name in ("engine", "threads", "device") if name in given}
        return load(self.best_run, **how)

    def __iter__(self) -> Iterator[SearchProgress]:
        state = "interrupted"
        try:
            yield from self._search()
            state = "interrupted" if self.interrupted else "finished"
        finally:
            try:
                with contextlib.suppress(CharloomError):  # what ended the search is told already
                    self._study.set("seconds", self._elapsed())
                    self._draw(state, now=True)
            finally:
                self._files.close()

    def _search(self) -> Iterator[SearchProgress]:
        self._keep_best()
        self._draw("searching", now=True)
        while True:
            if self._should_stop():
                self.interrupted = True
                return
            handle = self._next()
            if handle is None:
                self._refuse_to_go_on_in_vain(1)
                return
            yield from self._try(handle)
            if self.interrupted:
                return
            self._keep_best()
            self._draw("searching", now=True)
            self._refuse_to_go_on_in_vain(HOPELESS)

    def _next(self) -> Any:
        """Optuna's trial to run: one that was left, else a new one; None at the search's end."""
        left = [trial.number for trial in self.trials if trial.state == "running"]
        if left:
            return self._study.take_up(left[0], self.settings.ranges)
        time_left = self.settings.minutes * 60 - self._elapsed()
        # The first one has been given what time there was.
        if self.trials and time_left < self.settings.trial_seconds + self._finishing:
            return None
        wanted = None
        if not self.trials:
            wanted = {name: self.settings.planned[name] for name in self.settings.ranges}
        untried = self._untried()
        if untried is not None and self.trials:
            if not untried:
                self.exhausted = True
                return None
            chosen = np.random.default_rng((self._seed, len(self.trials)))
            wanted = untried[chosen.integers(len(untried))]
        handle = self._study.ask(self.settings.ranges, self._seed, wanted)
        self.trials = self._study.trials()
        return handle

    @property
    def _seed(self) -> int:
        return TrainingConfig.of(self.settings.given).seed

    def _untried(self) -> list[dict[str, Any]] | None:
        """The combinations that no trial has had; None where there are more than a few in all."""
        values = [_values(found) for found in self.settings.ranges.values()]
        if any(v is None for v in values) or math.prod(len(v or ()) for v in values) > FEW:
            return None
        names = list(self.settings.ranges)
        every = [
            _rounded(dict(zip(names, chosen, strict=True)))
            for chosen in itertools.product(*(v or () for v in values))
        ]
        tried = [trial.options for trial in self.trials]
        return [combination for combination in every if combination not in tried]

    def _try(self, handle: Any) -> Iterator[SearchProgress]:
        """Trains one trial, and tells Optuna what came of it."""
        number = handle.number
        curve = self.trials[number].curve
        best = self.best
        failed, pruned, run, trained = None, False, None, math.inf

        def is_best() -> bool:
            """Only what will be kept is worth counting for."""
            assert run is not None
            loss = run.state.best_loss
            ended = not run.interrupted and loss is not None
            return ended and (best is None or best.loss is None or loss < best.loss)

        try:
            run = TrainingRun(
                self._text_is_read,
                self._files.trial(number),
                self._options_of(self.trials[number]),
                resume=True,
                should_stop=self._should_stop,
                material=self._material,
                mixes=is_best,
            )
            with contextlib.closing(iter(run)) as events:
                for progress in events:
                    validation = progress.validation
                    if validation is not None:
                        point = [progress.done, validation.nats_per_character, progress.elapsed]
                        # What a killed process had seen after its last save was taken again.
                        curve = [p for p in curve if p[0] < point[0]] + [point]
                        seen = _Seen(curve, progress.step, self._elapsed())
                        pruned = self._study.report(handle, seen) and progress.done < 1
                        self._update(number, seen)
                        self._draw("searching")
                    yield SearchProgress(self.trials[number], progress)
                    if pruned:
                        break
                    trained = time.monotonic()
        except (DivergedError, TooLargeError) as error:
            failed = str(error).split(": ")[0]
        except MemoryError:
            failed = "there is not enough memory for it"
        if run is not None and run.interrupted and failed is None:
            self.interrupted = True
            return
        steps = self.trials[number].steps if run is None else run.state.step
        loss = None if failed is not None or pruned or run is None else run.state.best_loss
        self._study.end(handle, _Seen(curve, steps, self._elapsed(), failed), loss)
        self.trials = self._study.trials()
        self._finishing = max(self._finishing, FINISHING + time.monotonic() - trained)
        yield SearchProgress(self.trials[number], None)

    def _update(self, number: int, seen: _Seen) -> None:
        """What is known of a running trial, if not all of it is in the storage yet."""
        losses = [loss for _, loss, _ in seen.curve]
        self.trials[number] = replace(
            self.trials[number], loss=min(losses), curve=seen.curve, steps=seen.steps
        )

    def _text_is_read(self, config: TrainingConfig) -> Text:
        raise AssertionError("a trial reads no text")

    def _options_of(self, trial: Trial) -> dict[str, Any]:
        """All options of a trial's run."""
        settings = self.settings
        return {
            **settings.planned,
            **settings.given,
            **trial.options,
            # Trials are compared on the same text, so none may learn from it.
            "refit": 0.0,
            "minutes": settings.trial_seconds / 60,
        }

    def _refuse_to_go_on_in_vain(self, most: int) -> None:
        """Raises CharloomError where so many trials failed, and none has come to its end."""
        failed = [trial for trial in self.trials if trial.state == "failed"]
        if self.best is None and len(failed) >= most:
            trials = "the only trial" if len(failed) == 1 else f"the last of {len(failed)} trials"
            raise CharloomError(
                f"every trial failed, {trials} because {failed[-1].reason}: change or leave out "
                "what was given, with another --out"
            )

    def _keep_best(self) -> None:
        """Puts the best run into its place and removes those that have ended. Whenever it is
        killed, the next call completes it."""
        files, best = self._files, self.best
        try:
            if best is not None:
                if files.trial(best.number).exists():
                    self._put_into_place(files.trial(best.number))
                elif files.before.exists() and not files.best.exists():
                    files.before.rename(files.best)
                self._write_options(best)
            shutil.rmtree(files.before, ignore_errors=True)
            for trial in self.trials:
                if trial.state != "running" and trial is not best:
                    shutil.rmtree(files.trial(trial.number), ignore_errors=True)
            with contextlib.suppress(OSError):
                files.trials.rmdir()
        except OSError as error:
            raise CharloomError(
                f"cannot write to {self.folder} ({error.strerror or error}): what was found is in "
                f"{files.study.name}; make room or give access, then go on with --resume"
            ) from None

    def _put_into_place(self, run: Path) -> None:
        """Two renames: after a kill between them the best run is in its old place, and whole."""
        files = self._files
        if files.best.exists():
            in_place = RunFolder(files.best)
            try:
                in_place.open()
            except CharloomError:
                self._note(
                    f"{files.best} is in use, so the best run stays in {run} for the time being"
                )
                return
            in_place.close()
            if self._is_trained_on(files.best):
                aside = next(
                    path
                    for number in itertools.count(1)
                    if not (path := files.path / f"{BEST}-{number}").exists()
                )
                files.best.rename(aside)
                self._note(f"{files.best} was trained further: it is {aside} now")
            else:
                shutil.rmtree(files.before, ignore_errors=True)
                files.best.rename(files.before)
        run.rename(files.best)
        sync_folder(files.path)
        with contextlib.suppress(CharloomError):  # a page that cannot be drawn ends nothing
            refresh_report(files.best, Standing("finished", 1.0))

    def _is_trained_on(self, run: Path) -> bool:
        """Whether somebody went on with a run that the search had kept."""
        header = read_header(run / RESUME_FILE) or {}
        ends = header.get("position", {}).get("ends")
        return not isinstance(ends, dict) or (
            ends.get("minutes") != self.settings.trial_seconds / 60
        )

    def _write_options(self, best: Trial) -> None:
        settings = self.settings
        lines = [
            f"# What charloom tune found best for {printable(settings.text['name'])}, in trials of",
            f"# {settings.trial_seconds / 60:.3g} minutes: {best.loss:.4f} nats per character.",
            *(f"{_key(name)} = {_toml(value)}" for name, value in self.best_options.items()),
        ]
        content = "".join(line + "\n" for line in lines).encode()
        path = self._files.options
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _draw(self, state: str, *, now: bool = False) -> None:
        """Draws the page, unless it would take more than 2% of the time; `now` in any case."""
        before = time.monotonic()
        if not now and before - self._drawn_at < REST * self._drawing:
            return
        try:
            page = make_search_page(
                self.settings,
                self.trials,
                Standing(state, self.done),
                self._study.importances(self.trials),
            )
            write_page(self._files.report, page, "the search goes on")
        except (CharloomError, OSError) as error:
            self._note(str(error))
        self._drawn_at = time.monotonic()
        self._drawing = self._drawn_at - before


def _best(trials: Sequence[Trial]) -> Trial | None:
    complete = [t for t in trials if t.state == "complete" and t.loss is not None]
    return min(complete, key=lambda t: (t.loss, t.number), default=None)


def make_search_page(
    settings: Settings,
    trials: Sequence[Trial],
    standing: Standing,
    importances: Mapping[str, float] | None,
) -> str:
    """The page of a search: its trials, and how it stands (`searching`, `finished` or
    `interrupted`). importances: of the options that were searched, in parts of one."""
    best, now = _best(trials), time.time()
    data = {
        "name": printable(settings.text["name"]),
        "standing": {"state": standing.state, "done": standing.done},
        "written": round(now),
        "written_at": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)),
        "minutes": settings.minutes,
        "trial_seconds": settings.trial_seconds,
        "trials": [asdict(trial) for trial in trials],
        "best": None if best is None else best.number,
        "searched": [
            {"name": name, "option": _key(name), **found} for name, found in settings.ranges.items()
        ],
        "given": {_key(name): str(value) for name, value in settings.given.items()},
        "importances": importances,
        "command": None if best is None else shlex.join(settings.command(best, ["TEXT"])),
    }
    return make_page(f"{settings.text['name']}: search", ["charts.js", "tune.js"], data, {})


def tune(
    text: str | Path | Text | Sequence[str | Path | Text],
    *,
    out: str | os.PathLike[str],
    minutes: float | None = None,
    trial_minutes: float | None = None,
    resume: bool = False,
    progress: Callable[[SearchProgress], None] | None = None,
    **options: Any,
) -> Search:
    """Searches for the options that learn a text best and returns the search, whose `best` is the
    best trial, `best_options` its options for `charloom.train`, and `model()` its model.

    text: as for `charloom.train`. out: the search's folder. minutes: of the whole search (30 by
    default). trial_minutes: of a trial (a twentieth of them by default). options: those of
    `charloom.train`; what is given is not searched. progress: called at every step of a trial's
    training and at its end.
    Raises CharloomError for whatever is wrong with text, options or folder, and where Optuna is not
    installed.
    """
    started = time.monotonic()
    given = {name: value for name, value in options.items() if value is not None}
    if minutes is not None:
        given["minutes"] = minutes
    search = Search(
        text_opener(text, given),
        Path(out),
        given,
        trial_minutes=trial_minutes,
        resume=resume,
        started=started,
    )
    for event in search:
        if progress is not None:
            progress(event)
    return search


def _check_minutes(spelled: str, value: Any) -> None:
    if value is None:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not SHORTEST_TRIAL <= value <= 1e7:
        raise CharloomError(
            f"{spelled} is {shortened(value)}: give a number of minutes, at least {SHORTEST_TRIAL} "
            "and at most 10,000,000"
        )


def _refuse_senseless(given: dict[str, Any]) -> None:
    """Raises CharloomError for options that no trial could take."""
    for name in ("steps", "epochs"):
        if given.get(name) is not None:
            raise CharloomError(
                f"{option_name(name)}: the trials of a search take equal time, not equal work; "
                "leave it out, or give --trial-minutes"
            )
    if given.get("preset", "auto") != "auto":
        raise CharloomError(
            f"--preset is {shortened(given['preset'])}: a search starts from what auto chooses; "
            "leave it out, and give what is not to be searched"
        )
    if given.get("refit"):
        raise CharloomError(
            "--refit: trials are compared on the validation part, so none may learn from it; leave "
            "it out, and give it to the training that follows"
        )
    TrainingConfig.of(given)
    if given.get("from_run") is not None:
        given["from_run"] = str(Path(given["from_run"]).absolute())


def _refuse_nothing_to_search(given: dict[str, Any]) -> dict[str, Any]:
    """What is not searched: what was given, and the shape of a model that trials start from. Raises
    CharloomError where that is everything."""
    fixed = dict(given)
    if given.get("from_run") is not None:
        base = load_checkpoint(model_path(given["from_run"])).config
        fixed |= {name: getattr(base, name) for name in ("cell", "hidden_size", "layers")}
    if all(name in fixed for name in SEARCHED):
        raise _nothing_to_search()
    return fixed


def _nothing_to_search() -> CharloomError:
    return CharloomError(
        "there is nothing to search, for all options are given that could be: leave out one of "
        + ", ".join(map(option_name, SEARCHED))
    )


def _ranges(
    planned: Mapping[str, Any], fixed: Mapping[str, Any], factor: float, validation: int
) -> dict[str, Range]:
    """What is searched, around what charloom would choose itself. factor: of the learning rate, up
    and down. A search has too few trials for what is seldom any good, so an rnn, more layers or
    far more units are only tried where they are given."""
    units, rate = planned["hidden_size"], planned["learning_rate"]

    def dropped(name: str, further: float) -> Range:
        about = planned[name]
        low, high = max(about - further, 0.0), min(about + further, 0.9)
        return {"low": round(low, 2), "high": round(high, 2), "step": 0.01}

    longest = min(128, validation // 16 * 16)
    found: dict[str, Range] = {
        "cell": {"choices": ["gru", "lstm"]},
        "hidden_size": {
            "low": max(FEWEST_UNITS, units // 32 * 16),
            "high": min(MOST_UNITS, 2 * units),
            "step": 16,
        },
        "layers": {"low": 1, "high": 2, "step": 1},
        "learning_rate": {"low": rate / factor, "high": rate * factor, "log": True},
        "dropout": dropped("dropout", 0.3),
        "weight_drop": dropped("weight_drop", 0.2),
        "batch_size": {"low": 8, "high": 32, "step": 8},
        "window": {"low": 32, "high": longest, "step": 16},
    }
    if planned["window"] % 16 or longest <= 32:  # the validation part is shorter than that
        del found["window"]
    return {name: range_ for name, range_ in found.items() if name not in fixed}


def _values(found: Range) -> list[Any] | None:
    """All that a range holds; None where that is a continuum."""
    if "choices" in found:
        return list(found["choices"])
    if "step" not in found:
        return None
    count = round((found["high"] - found["low"]) / found["step"]) + 1
    return [found["low"] + i * found["step"] for i in range(count)]


def _rounded(options: Mapping[str, Any]) -> dict[str, Any]:
    """Proposed options as a trial takes them: with no more digits than anybody wants to type."""
    digits = {"learning_rate": 3, "dropout": 2, "weight_drop": 2}
    return {
        name: float(f"{value:.{digits[name]}g}") if name in digits else value
        for name, value in options.items()
    }


def _continued(
    before: Settings, given: dict[str, Any], minutes: float | None, trial_minutes: float | None
) -> Settings:
    """The settings that a search goes on with. Raises CharloomError, naming the first difference,
    where what is given is not the search's."""
    for name, value in given.items():
        if name not in before.given:
            raise CharloomError(
                f"{option_name(name)} was not given when the search began: leave it out to go on "
                "with it, or give another --out"
            )
        if before.given[name] != value:
            raise CharloomError(
                f"{option_name(name)} is {value}, but the search has {before.given[name]}: leave "
                "the option out to go on with it, or give another --out"
            )
    if trial_minutes is not None and trial_minutes != before.trial_minutes:
        raise CharloomError(
            f"--trial-minutes is {trial_minutes:g}, but the search has {before.trial_minutes:g}: "
            "trials are only compared when they take equal time; leave it out, or give another "
            "--out"
        )
    if minutes is None:
        return before
    if minutes < before.minutes:
        raise CharloomError(
            f"--minutes {minutes:g} is less than the search's {before.minutes:g}: it can only be "
            "raised"
        )
    return replace(before, minutes=float(minutes))


def _key(name: str) -> str:
    """How a --config file spells an option."""
    return option_name(name).removeprefix("--")


def _toml(value: Any) -> str:
    """A value in TOML, whose strings and numbers are those of JSON."""
    return json.dumps(value)


# Optuna


@dataclass(frozen=True)
class _Seen:
    """What the storage keeps of a trial's training, beside what Optuna keeps."""

    curve: list[list[float]]
    steps: int | None
    seconds: float  # of the search
    reason: str | None = None  # why it failed


def _load_optuna() -> Any:
    """The library. Raises CharloomError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise CharloomError(
            f"a search needs Optuna ({error}): install it with pip install 'charloom[tune]'"
        ) from None
    return optuna


def _damaged(path: Path, what: str) -> CharloomError:
    what = " ".join(what.split())
    return CharloomError(
        f"{path} is damaged ({what}): put a copy of it back, or search again with another --out; "
        f"the best run is still in {BEST}/"
    )


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(os.fspath(path))


class _Study:
    """Optuna's study in its file: all that is asked of the library, with what it says kept quiet
    and its errors in a sentence."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._asking() as optuna:
            from sqlalchemy.pool import NullPool

            # Not by its address, in which some signs of a path would mean something else.
            storage = optuna.storages.RDBStorage(
                "sqlite://",
                engine_kwargs={
                    "creator": lambda: _connect(path),
                    "poolclass": NullPool,
                },
            )
            self._study = optuna.create_study(
                storage=storage,
                study_name=STUDY,
                pruner=optuna.pruners.MedianPruner(NEVER_PRUNED, FIRST_PRUNED),
                load_if_exists=True,
            )

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Any]:
        optuna = _load_optuna()
        from sqlalchemy.exc import SQLAlchemyError

        wrong = (SQLAlchemyError, sqlite3.Error, optuna.exceptions.OptunaError, AssertionError)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield optuna
        except (*wrong, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise self._in_a_sentence(error) from None
        finally:
            optuna.logging.set_verbosity(verbosity)

    def _in_a_sentence(self, error: BaseException) -> CharloomError:
        found: BaseException = error
        while not isinstance(found, sqlite3.Error):
            inner = getattr(found, "orig", None) or found.__cause__
            if inner is None:
                break
            found = inner
        if isinstance(found, sqlite3.OperationalError) and "no such" not in str(found):
            return CharloomError(
                f"cannot read or write {self._path} ({found}): make room or give access, then go "
                "on with --resume"
            )
        return _damaged(self._path, str(found) or type(found).__name__)

    def attributes(self) -> dict[str, Any]:
        with self._asking():
            return dict(self._study.user_attrs)

    def set(self, name: str, value: Any) -> None:
        with self._asking():
            self._study.set_user_attr(name, value)

    def ask(self, ranges: Mapping[str, Range], seed: int, wanted: dict[str, Any] | None) -> Any:
        """A new trial, with the options that are wanted or that the sampler proposes."""
        with self._asking() as optuna:
            number = len(self._study.get_trials(deepcopy=False))
            # Seeded anew for every trial: a search that goes on must not propose the same again.
            own = np.random.SeedSequence((seed, number)).generate_state(1)[0]
            self._study.sampler = optuna.samplers.TPESampler(
                seed=int(own), n_startup_trials=RANDOM_TRIALS, multivariate=True
            )
            if wanted is not None:
                self._study.enqueue_trial(wanted)
            return _with_options(self._study.ask(), ranges)

    def take_up(self, number: int, ranges: Mapping[str, Range]) -> Any:
        """A trial whose process ended before it did; what had not been proposed yet now is."""
        with self._asking() as optuna:
            frozen = self._study.get_trials(deepcopy=False)[number]
            return _with_options(optuna.trial.Trial(self._study, frozen._trial_id), ranges)

    def report(self, handle: Any, seen: _Seen) -> bool:
        """Reports what the curve's last piece passes, between two validations in a straight line,
        so that trials are compared at equal parts of their time; whether to prune.

        Nothing else is written: every transaction waits for the disk.
        """
        if len(seen.curve) < 2:
            return False
        (before, first, _), (now, last, _) = seen.curve[-2:]
        with self._asking():
            reported = self._study.get_trials(deepcopy=False)[handle.number].intermediate_values
            parts = range(max(reported, default=0) + 1, PARTS)
            passed = [part for part in parts if before < part / PARTS <= now]
            if not passed:
                return False
            handle.set_user_attr("seen", asdict(seen))
            for part in passed:
                along = (part / PARTS - before) / (now - before)
                handle.report(first + (last - first) * along, part)
            return bool(handle.should_prune())

    def end(self, handle: Any, seen: _Seen, loss: float | None) -> None:
        """Tells what came of a trial. One that failed counts as pruned, for of failed ones the
        sampler learns nothing and would propose the like again."""
        with self._asking() as optuna:
            handle.set_user_attr("seen", asdict(seen))
            if loss is not None:
                self._study.tell(handle, loss)
            else:
                self._study.tell(handle, state=optuna.trial.TrialState.PRUNED)

    def seconds(self) -> float:
        """Of the search, as far as is known."""
        with self._asking():
            found = [trial.user_attrs.get("seen") for trial in self._study.get_trials()]
            ended = float(self._study.user_attrs.get("seconds", 0))
            seconds = [float(seen["seconds"]) for seen in found if seen is not None]
            return max([ended, *seconds])

    def trials(self) -> list[Trial]:
        with self._asking():
            return [_trial(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def importances(self, trials: Sequence[Trial]) -> dict[str, float] | None:
        """How much each option decides whether a trial is among the best quarter, in parts of one;
        None where there are too few trials to say so."""
        complete = [trial for trial in trials if trial.state == "complete"]
        if len(complete) < IMPORTANCES_FROM or len({trial.loss for trial in complete}) < 2:
            return None
        with self._asking() as optuna:
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=TARGET)
            found = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
            return {name: float(value) for name, value in found.items()}


def _with_options(trial: Any, ranges: Mapping[str, Range]) -> Any:
    """Optuna's trial with an option proposed from every range; one that it has already stays."""
    for name, found in ranges.items():
        if "choices" in found:
            trial.suggest_categorical(name, found["choices"])
        elif isinstance(found["low"], int):
            trial.suggest_int(name, **found)
        else:
            trial.suggest_float(name, **found)
    return trial


def _trial(frozen: Any) -> Trial:
    seen = _Seen(**frozen.user_attrs.get("seen", {"curve": [], "steps": None, "seconds": 0.0}))
    running = frozen.state.name in ("RUNNING", "WAITING")
    state = "failed" if seen.reason is not None else frozen.state.name.lower()
    losses = [loss for _, loss, _ in seen.curve]
    loss = frozen.value if state == "complete" else min(losses, default=None)
    return Trial(
        number=frozen.number,
        state=state,
        options=_rounded(frozen.params),
        loss=None if state == "failed" else loss,
        curve=seen.curve,
        steps=seen.steps,
        ended=None if running else seen.seconds,
        reason=seen.reason,
    )

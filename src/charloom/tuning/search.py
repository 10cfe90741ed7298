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
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from charloom.errors import CharloomError, printable
from charloom.language_model import LanguageModel, load
from charloom.network.initialization import initialize
from charloom.pages.page import write_page
from charloom.progress import OnProgress
from charloom.runs.api import text_opener
from charloom.runs.compute import TooLargeError, compile_kernels
from charloom.runs.finishing import COUNTING
from charloom.runs.material import Material, read_material
from charloom.runs.report import REST, RunStatus, refresh_report
from charloom.runs.run import TrainingRun
from charloom.storage.atomic import sync_folder, write_atomically
from charloom.storage.checkpoint import load_checkpoint, read_header
from charloom.storage.folders import RESUME_FILE, RunFolder, model_path
from charloom.text.source import Text
from charloom.training.options import TrainingConfig
from charloom.training.planner import PROBE, measure_speed, plan
from charloom.training.setup import make_batches
from charloom.training.state import DivergedError, Progress
from charloom.tuning.folder import BEST, SearchFolder
from charloom.tuning.page import best_trial, make_search_page
from charloom.tuning.settings import (
    DEFAULT_MINUTES,
    SHORTEST_TRIAL,
    SearchedText,
    Settings,
    Trial,
    check_minutes,
    continued_settings,
    nothing_to_search,
    refuse_nothing_to_search,
    refuse_senseless,
    settings_key,
    to_toml,
)
from charloom.tuning.space import FEW, RATES, UNKNOWN_RATES, ranges_of, rounded, values_of
from charloom.tuning.study import SeenTrial, Study, load_optuna

TRIALS_IN_A_SEARCH = 20  # as long as none is pruned
USUAL_SHORTEST = 0.25  # minutes, where nobody asked for less: there is hardly a curve to prune by
FINISHING = 0.5  # seconds that a trial's end takes, outside its own time, counting apart
HOPELESS = 5  # trials that failed, while none has come to its end


@dataclass(frozen=True)
class SearchProgress:
    """What happened: an event of a trial's training or, with None, its end."""

    trial: Trial
    progress: Progress | None


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
        report: OnProgress | None = None,
        started: float | None = None,
    ) -> None:
        load_optuna()
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
        check_minutes("--minutes", minutes)
        check_minutes("--trial-minutes", trial_minutes)
        refuse_senseless(given)
        self._files.refuse_if_used(resume=True)
        if not resume:
            refuse_nothing_to_search(given)
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
        report: OnProgress | None,
    ) -> None:
        found = None
        if self._files.study.exists():
            self._study = Study(self._files.study)
            found = self._study.attributes().get("settings")
        if found is None:  # none yet, or it was killed before it began
            settings = self._begin(open_source, given, minutes, trial_minutes, report)
            if not self._files.study.exists():
                self._study = Study(self._files.study)
            self._study.set("settings", asdict(settings))
        else:
            before = Settings.read(found, self._files.study)
            settings = continued_settings(before, given, minutes, trial_minutes)
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
        report: OnProgress | None,
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
        fixed = refuse_nothing_to_search(given)
        material = self._read(open_source, given, trial_minutes, report)
        dataset, config = material.dataset, TrainingConfig.of(given)
        if not len(dataset.validation):
            raise CharloomError(
                f"a search needs a validation part to compare its trials by, and --split "
                f"{config.split} leaves none: give a longer text, or a second part"
            )
        speed = measure_speed(config.backend)
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
        ranges = ranges_of(planned, fixed, factor, len(dataset.validation))
        if not ranges:
            raise nothing_to_search()
        text: SearchedText = {
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
        report: OnProgress | None,
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
        engine = config.backend.for_inference().open(initialize(PROBE, 0))
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
        return best_trial(self.trials)

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
        values = [values_of(found) for found in self.settings.ranges.values()]
        if any(v is None for v in values) or math.prod(len(v or ()) for v in values) > FEW:
            return None
        names = list(self.settings.ranges)
        every = [
            rounded(dict(zip(names, chosen, strict=True)))
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
                        seen = SeenTrial(curve, progress.step, self._elapsed())
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
        self._study.end(handle, SeenTrial(curve, steps, self._elapsed(), failed), loss)
        self.trials = self._study.trials()
        self._finishing = max(self._finishing, FINISHING + time.monotonic() - trained)
        yield SearchProgress(self.trials[number], None)

    def _update(self, number: int, seen: SeenTrial) -> None:
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
            refresh_report(files.best, RunStatus("finished", 1.0))

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
            *(
                f"{settings_key(name)} = {to_toml(value)}"
                for name, value in self.best_options.items()
            ),
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
                RunStatus(state, self.done),
                self._study.importances(self.trials),
            )
            write_page(self._files.report, page, "the search goes on")
        except (CharloomError, OSError) as error:
            self._note(str(error))
        self._drawn_at = time.monotonic()
        self._drawing = self._drawn_at - before


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

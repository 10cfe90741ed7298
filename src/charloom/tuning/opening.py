"""Open a search: options, folder, text, settings, in this order."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from charloom.base_model.carried import load_base
from charloom.errors import CharloomError, shortened
from charloom.network.initialization import initialize
from charloom.progress import OnProgress
from charloom.runs.clock import Clock
from charloom.runs.compute import compile_kernels
from charloom.runs.material import PreparedText, prepare_text
from charloom.runs.opening import open_run
from charloom.runs.run import RunControl, TrainingRun
from charloom.runs.start import Start, fine_tuned, fresh
from charloom.text.dataset import Dataset, scan
from charloom.text.format import Opener
from charloom.training.options import TrainingConfig
from charloom.training.planner import PROBE, measure_speed
from charloom.tuning.folder import SearchFolder
from charloom.tuning.search import Search
from charloom.tuning.settings import SearchOptions, Settings, resumed_settings, settings_for
from charloom.tuning.study import Study, load_optuna
from charloom.tuning.trial import seconds_to_finish


@contextlib.contextmanager
def open_search(
    open_source: Opener,
    folder: Path,
    options: dict[str, Any],
    *,
    trial_minutes: float | None = None,
    resume: bool = False,
    control: RunControl | None = None,
    speed: float | None = None,
    open_run: Callable[..., TrainingRun] = open_run,
) -> Iterator[Search]:
    """Open a search, for a `with` statement: its folder is locked until the end of the block.

    Args:
        open_source: opens the text in a format.
        folder: the search's folder, which is created if needed.
        options: options of TrainingConfig, by name, for every trial; `minutes` is the time of the
            whole search.
        trial_minutes: the time of a trial, by default a twentieth of the search's.
        resume: resume if the folder holds a search.
        control: the caller's hold on the search. The search itself decides which trials add a
            mixture.
        speed: that of this machine, as `measure_speed` returns it; None to measure it.
        open_run: opens a trial's run.

    Raises:
        CharloomError: if the text, the options or the folder are unsuitable, or Optuna is not
            installed.
    """
    load_optuna()
    control = control or RunControl()
    clock = Clock(control.started)
    # Invalid options are refused before anything is created or read.
    wanted = SearchOptions.of(options, trial_minutes)
    if not resume:
        wanted.fixed()
    with SearchFolder(folder, resume=resume) as files:
        source = _Source(open_source, folder, control.on_reading)
        open_study = functools.partial(
            Study, files.study_file, control.on_wait, control.should_stop
        )
        study = open_study() if files.study_file.exists() else None
        before = None if study is None else study.settings()
        if study is None or before is None:
            settings, prepared = _begin(source, wanted, speed, clock)
            # The study is created now, so that a failure before leaves no search behind.
            study = study or open_study()
            study.keep_settings(settings)
        else:
            settings, prepared = _resume(source, wanted, before)
            clock.before = study.seconds()
            if settings != before:
                study.keep_settings(settings)
        yield Search(files, study, settings, prepared, clock, control.should_stop, open_run)


@dataclass(frozen=True)
class _Source:
    """A text that is not read yet.

    Attributes:
        open: opens it in a format.
        folder: where a long text's temporary file is created.
        on_reading: called as the text is read.
    """

    open: Opener
    folder: Path
    on_reading: OnProgress | None

    def prepare(self, options: dict[str, Any], trial_minutes: float) -> PreparedText:
        """Read the text once for all trials, and compile the kernels that they use."""
        start = _start(options, trial_minutes)
        prepared = prepare_text(
            self.open(start.text_format()),
            start.config,
            base=start.base,
            folder=self.folder,
            on_reading=self.on_reading,
        )
        return replace(prepared, notes=prepared.notes + start.notes())

    def sha256(self, options: dict[str, Any], trial_minutes: float) -> str:
        """Return the SHA-256 of the text as it is read with these options."""
        text = self.open(_start(options, trial_minutes).text_format())
        return scan(text, self.on_reading, with_hashes=False).sha256


def _start(options: dict[str, Any], trial_minutes: float) -> Start:
    """Return the start of a trial."""
    start = fresh(options | {"minutes": trial_minutes})
    if start.config.from_run is None:
        return start
    return fine_tuned(load_base(start.config.from_run), start.fixed)


def _begin(
    source: _Source, wanted: SearchOptions, speed: float | None, clock: Clock
) -> tuple[Settings, PreparedText]:
    """Choose the settings of a new search."""
    minutes, trial_minutes = wanted.times()
    fixed = wanted.fixed()
    prepared = source.prepare(wanted.options, trial_minutes)
    config = TrainingConfig.of(wanted.options)
    if not len(prepared.dataset.validation):
        raise CharloomError(
            f"a search compares its trials on the validation split, which --split {config.split} "
            "leaves empty: use a longer text, or a larger second share"
        )
    if speed is None:
        speed = measure_speed(config.backend)
    _compile(config, prepared)
    seconds = minutes * 60 - clock.elapsed() - seconds_to_finish(prepared)
    return settings_for(wanted, fixed, prepared.dataset, speed, seconds), prepared


def _resume(
    source: _Source, wanted: SearchOptions, before: Settings
) -> tuple[Settings, PreparedText]:
    """Check that the options and the text are those of the search."""
    settings = resumed_settings(before, wanted)
    prepared = source.prepare(settings.options, settings.trial_minutes)
    if _kept_newlines(source, settings, prepared.dataset):
        settings = replace(settings, options=settings.options | {"keep_newlines": True})
        prepared = source.prepare(settings.options, settings.trial_minutes)
    _refuse_other_text(prepared.dataset, settings)
    _compile(TrainingConfig.of(settings.options), prepared)
    return settings, prepared


def _kept_newlines(source: _Source, settings: Settings, dataset: Dataset) -> bool:
    """Return whether a search of an earlier version kept the text's line ends without an option."""
    expected = settings.text["sha256"]
    if dataset.sha256 == expected or dataset.origin == "-" or "keep_newlines" in settings.options:
        return False
    kept = settings.options | {"keep_newlines": True}
    if kept.get("bytes") or kept.get("raw"):  # which keep them anyway
        return False
    return source.sha256(kept, settings.trial_minutes) == expected


def _refuse_other_text(dataset: Dataset, settings: Settings) -> None:
    expected = settings.text["sha256"]
    if dataset.sha256 != expected:
        raise CharloomError(
            f"the text {shortened(dataset.name)} is not the text of the search (SHA-256 "
            f"{dataset.sha256[:12]}…, not {expected[:12]}…): pass that text, or use another --out"
        )


def _compile(config: TrainingConfig, prepared: PreparedText) -> None:
    """Compile all kernels, so that no trial spends its time on it."""
    engine = config.backend.for_inference().open(initialize(PROBE, 0))
    compile_kernels(engine, None if config.no_mix else prepared.dataset)

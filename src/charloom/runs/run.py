"""A training run on disk: folder layout, training, output files.

`runs/NAME/` holds

    model.safetensors    the best weights so far: the one file to share
    resume.safetensors   the current weights and everything else that a resumed run needs
    metrics.jsonl        one JSON object a line; values that depend on a clock are in `timing`
    samples.txt          a sample for every validation
    report.html          a page with all of it, updated during training (charloom.runs.report)
    evaluations.json     the results of `charloom evaluate`
    drawn.json           samples of the finished model, for the report
    tensorboard/         event files, if requested
    .lock                held during training

A killed run resumes from resume.safetensors: the two text files are cut to their lengths at that
time, and the following steps are taken again. With --steps or --epochs the result is the same to
the byte.

`charloom.runs.opening` opens a run; it builds the values that a `TrainingRun` consists of.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from threadpoolctl import threadpool_limits

from charloom.engines.process_group import SINGLE_PROCESS, ProcessGroup
from charloom.language_model import LanguageModel
from charloom.pages.live import LivePage
from charloom.progress import OnProgress
from charloom.runs.checkpointing import Checkpoints
from charloom.runs.clock import Clock
from charloom.runs.compute import Setup
from charloom.runs.finishing import Finish
from charloom.runs.material import PreparedText
from charloom.runs.recorder import Recorder
from charloom.runs.report import RunStatus, refresh_report
from charloom.runs.start import Start
from charloom.storage.folders import RunFolder
from charloom.training.loop import train_steps
from charloom.training.options import TrainingConfig
from charloom.training.state import Progress


def _never() -> bool:
    return False


@dataclass(frozen=True)
class RunControl:
    """The caller's hold on a run.

    Attributes:
        should_stop: called after every Progress; True saves the run and ends the iteration, with
            `interrupted` set.
        every_step: whether the run yields Progress after every step; False permits one Progress
            after several short ones.
        on_reading: called as the text is read.
        adds_mixture: called when training is over; False omits the n-gram model. With it, counting
            is not part of the run's --minutes.
        started: start of the command, by `time.monotonic`, for --minutes.
        held_up: returns the seconds in which the caller held the run up. They do not count.
        on_wait: called with a message where a search waits for another program.
    """

    should_stop: Callable[[], bool] = _never
    every_step: bool = True
    on_reading: OnProgress | None = None
    adds_mixture: Callable[[], bool] | None = None
    started: float | None = None
    held_up: Callable[[], float] | None = None
    on_wait: Callable[[str], None] | None = None


@dataclass(frozen=True)
class RunContext:
    """Everything around a run: its locked folder, its caller, the clock and the other processes.

    `notes` are sentences for the user; most of them are made before training starts.
    """

    files: RunFolder
    control: RunControl
    clock: Clock
    tensorboard: bool = False
    process_group: ProcessGroup = SINGLE_PROCESS
    notes: list[str] = field(default_factory=list)


class TrainingRun:
    """One command's or call's part of a run. Iterate over it to train; it yields Progress.

    Attributes:
        interrupted: whether the caller stopped the run before its end.
        notes: sentences for the user; most of them are made before training starts.
    """

    def __init__(
        self,
        start: Start,
        prepared: PreparedText,
        config: TrainingConfig,
        setup: Setup,
        recorder: Recorder,
        checkpoints: Checkpoints,
        context: RunContext,
    ) -> None:
        self.folder: Path = context.files.path
        self.config = config
        self.state = start.state
        self.dataset = prepared.dataset
        self.engine = setup.engine
        self.batches = setup.batches
        self.threads = setup.threads
        self.ranks = context.process_group.size
        self.notes = context.notes
        self.interrupted = False
        self.checkpoints = checkpoints
        self._setup = setup
        self._baselines = prepared.baselines
        self._learned = prepared.learned
        self._recorder = recorder
        self._context = context
        self._finish = Finish(
            config, prepared, checkpoints, context.control.adds_mixture, self.notes.append
        )
        self._report = LivePage(self.notes.append, "training continues")
        self._done = 0.0  # completed share of the run

    def __iter__(self) -> Generator[Progress, None, None]:
        state = "interrupted"
        try:
            # The limit is the whole process's, so it ends with the run.
            with threadpool_limits(self.threads, user_api="blas"):
                yield from self._train()
            state = "interrupted" if self.interrupted else "finished"
        finally:
            try:
                self._draw(state, now=True)
                self._recorder.close()
            finally:
                self._context.files.close()

    def _train(self) -> Iterator[Progress]:
        context, checkpoints = self._context, self.checkpoints
        events = train_steps(
            self.engine,
            self._setup.optimizer,
            self.dataset,
            self.config,
            self.state,
            context.clock.elapsed,
            self._reserve,
            context.process_group,
            None if self._learned is None else self._learned.mixer,
            context.control.every_step,
        )
        if not checkpoints.resume_exists():
            self._recorder.start(self.state.step, self._baselines)
            self._save_resume()  # before the first model, because a model alone cannot resume
        if context.tensorboard:
            self._recorder.add_events(self.state)
        self._draw("training", now=True)
        for progress in events:
            self._recorder.record(progress)
            checkpoints.save_if_best(progress, self.state)
            if progress.kind == "validation" or checkpoints.are_due():
                self._save_resume()
                self._done = progress.done
                self._draw("training")
            yield progress
            if context.control.should_stop():
                self.interrupted = True
                break
        self._save_resume()
        context.process_group.end()
        self._finish.add_mixture()

    def _reserve(self, validation: float) -> float:
        refit = self.state.refit_step is not None
        return self._finish.seconds(validation, self._report.seconds, refit=refit)

    def _save_resume(self) -> None:
        self.checkpoints.refuse_if_diverged(self.state)
        self.checkpoints.save_resume(self.state, self._recorder.sync())

    def _draw(self, state: str, *, now: bool = False) -> None:
        status = RunStatus(state, self._done)
        self._report.update(lambda: refresh_report(self.folder, status), now=now)

    def model(self) -> LanguageModel:
        """Return the best model of the run, with its text for `evaluate`."""
        return LanguageModel(
            self.checkpoints.load_best(),
            backend=self.config.backend.for_inference(),
            dataset=self.dataset,
        )

"""A training run on disk: its folder, its lock, what it writes as it trains, and how it goes on.

`runs/NAME/` holds

    model.safetensors    the best weights so far: the one file to share
    resume.safetensors   the current weights and all else that the run needs to go on
    metrics.jsonl        a JSON object a line; what a clock decided is under `timing`
    samples.txt          a sample at every validation
    report.html          all of it to look at, drawn again as it trains (charloom.report)
    evaluations.json     what `charloom evaluate` found
    tensorboard/         event files, where they were asked for
    .lock                held while a trainer is at work

A run that is killed goes on from resume.safetensors: the two text files are cut to the lengths they
had then, and what followed is computed again. With --steps or --epochs the result is the same to
the byte. model.safetensors is written before resume.safetensors, so a kill between the two leaves a
best model from steps that will be taken again, and that will write the same bytes again.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from charloom import __version__
from charloom.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from charloom.corpora import Text, join_texts, open_text, text_from_string
from charloom.dataset import (
    Dataset,
    OtherTextError,
    Report,
    Split,
    character_counts,
    load_dataset,
)
from charloom.engines import Engine, available_cores, is_compiled, open_engine
from charloom.errors import CharloomError, shortened
from charloom.events import EventFile, load_tensorboard
from charloom.language_model import MODEL_FILE, LanguageModel, model_path
from charloom.mixture import FITTED_ON, context_of_counts, count, fit_mixture
from charloom.model import (
    ModelConfig,
    Parameters,
    State,
    grow_vocabulary,
    initialize,
    initialize_classic,
)
from charloom.optimizers import OPTIMIZERS, Optimizer
from charloom.planning import measure_speed, plan
from charloom.ranks import Ranks
from charloom.report import (
    EVALUATIONS_FILE,
    METRICS_FILE,
    REPORT_FILE,
    RESUME_FILE,
    SAMPLES_FILE,
    LiveReport,
    Standing,
)
from charloom.scoring import baselines_of_validation
from charloom.training import (
    LEAST_TRAINING,
    VALIDATED_AT_ONCE,
    DivergedError,
    Progress,
    TrainingConfig,
    TrainingState,
    follow_steps,
    make_batches,
    make_optimizer,
    model_config,
    option_name,
    rows_of_validation,
    train_steps,
)
from charloom.vocabulary import Vocabulary

EVENTS_FOLDER = "tensorboard"
LOCK_FILE = ".lock"
SAVE_EVERY = 10.0  # seconds between two saves of resume.safetensors
SHORT = 30.0  # seconds; in fewer it does not pay to compile first
# Seconds for each number that fitting a mixture touches; what counting costs at the end, as a part
# of what choosing the context cost.
MIXING, COUNTING = 2e-8, 1.2
# Characters, at most, and of each second of the budget, that are compressed for a baseline.
LONGEST_COMPRESSED, COMPRESSED_A_SECOND = 10_000_000, 40_000
# What each rank of a run may be given for itself.
OWN = ("threads", "rank_timeout", "from_run")
# What may be changed when a run goes on: ends may be moved further, and how it is computed.
ENDS = ("steps", "epochs", "minutes")
HOW = ("engine", "threads", "device", "bf16", "compile", "rank_timeout")


class LockedFolder:
    """A folder that one process at a time writes to: its lock, and what may be in it."""

    doing, holds = "at work", "something"  # in sentences
    atomic: tuple[str, ...] = ()  # names of files that are written whole or not at all
    files: tuple[Path, ...] = ()  # what of its kind a folder may hold

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / LOCK_FILE)
        self._made: list[Path] = []

    def open(self) -> None:
        """Makes the folder and takes its lock. A lock whose owner died counts for nothing: it is
        the system's, and ends with its process.
        """
        try:
            self._made = [path for path in (self.path, *self.path.parents) if not path.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            for path in self._unfinished():
                path.unlink()
        except Timeout:
            raise CharloomError(
                f"another charloom is {self.doing} in {self.path}: wait for it, or give another "
                "--out"
            ) from None
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            self._take_away()
            reason = getattr(error, "strerror", None) or error
            raise CharloomError(
                f"cannot write to the folder {shortened(str(self.path))} ({reason}): give another "
                "--out"
            ) from None

    def close(self) -> None:
        """Gives the lock back. Where no run began, nothing that was made here is left."""
        if not self._lock.is_locked:
            return
        if not any(path.exists() for path in self.files):
            with contextlib.suppress(OSError):
                (self.path / LOCK_FILE).unlink()
        self._lock.release()
        self._take_away()

    def _take_away(self) -> None:
        """Removes what was made here and is empty."""
        for path in self._made:
            with contextlib.suppress(OSError):
                path.rmdir()

    def _unfinished(self) -> list[Path]:
        """What a process leaves that is killed while saving."""
        found = [self.path.glob(f".{name}.*.tmp") for name in self.atomic]
        return [path for paths in found for path in paths if path.is_file()]

    def refuse_if_used(self, resume: bool) -> None:
        """Raises CharloomError where the folder holds something else, or what is not to go on."""
        try:
            found = sorted(self.path.iterdir()) if self.path.is_dir() else []
        except OSError as error:
            raise CharloomError(
                f"cannot look into {self.path} ({error.strerror or error}): give another --out"
            ) from None
        # A report alone says nothing: runs have one, and searches.
        if any(path in self.files and path.name != REPORT_FILE for path in found):
            if resume:
                return
            raise CharloomError(
                f"{self.path} already holds {self.holds}: add --resume to go on with it, or give "
                "another --out"
            )
        for path in found:
            if path.name != LOCK_FILE and path not in self._unfinished():
                raise CharloomError(
                    f"{self.path} is not empty ({path.name} is in it): give a new folder with --out"
                )


class RunFolder(LockedFolder):
    """Where a run's files are, and the lock on them."""

    doing, holds = "training", "a run"
    atomic = (MODEL_FILE, RESUME_FILE, REPORT_FILE, EVALUATIONS_FILE)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.model = path / MODEL_FILE
        self.resume = path / RESUME_FILE
        self.metrics = path / METRICS_FILE
        self.samples = path / SAMPLES_FILE
        self.report = path / REPORT_FILE
        self.evaluations = path / EVALUATIONS_FILE
        self.events = path / EVENTS_FOLDER
        texts = self.metrics, self.samples, self.report, self.evaluations
        self.files = self.model, self.resume, *texts, self.events


class TooLargeError(CharloomError):
    """A run would need more memory than the machine has."""


@dataclass(frozen=True)
class Material:
    """What is found out about a text before training begins: runs on the same text can share it."""

    dataset: Dataset
    counts: NDArray[np.int64] | None  # how often each character stands in the training part, (V,)
    context: int | None  # characters of context that the counts look back; None: no counts
    counting: float  # seconds that choosing it took
    baselines: dict[str, Any]  # what validations can be held against, by name
    speed: float | None = None  # of the machine, as measure_speed gives it, if it was asked


def read_material(
    text: Text,
    config: TrainingConfig,
    *,
    base: Checkpoint | None = None,
    earlier: Checkpoint | None = None,
    folder: Path | None = None,
    report: Report | None = None,
) -> Material:
    """Reads a text and counts what a run with that configuration needs. base: the model that it
    starts from. earlier: the run's own checkpoint, which knows the text and needs no baselines.

    Raises OtherTextError where it is not the text of `earlier`, and CharloomError for one that
    cannot be learned from.
    """
    known = earlier or base
    dataset = load_dataset(
        text,
        Split.parse(config.split),
        base=None if known is None else known.vocabulary,
        sha256=None if earlier is None else earlier.text["sha256"],
        folder=folder,
        report=report,
    )
    before = time.monotonic()
    context, loss_of_counts = None, None
    if not config.no_mix:
        context, loss_of_counts = context_of_counts(
            dataset.train, dataset.validation, len(dataset.vocabulary)
        )
    counting = time.monotonic() - before
    if earlier is not None:
        return Material(dataset, None, context, counting, {})
    counts = character_counts(dataset.train, len(dataset.vocabulary))
    baselines = _find_baselines(dataset, config, counts, loss_of_counts)
    return Material(dataset, counts, context, counting, baselines)


def _find_baselines(
    dataset: Dataset,
    config: TrainingConfig,
    counts: NDArray[np.int64],
    loss_of_counts: float | None,
) -> dict[str, Any]:
    """What validations can be held against, as far as it is quickly found. The time it takes is
    foreseen, not measured: no clock may decide what is written down."""
    part = dataset.validation[:VALIDATED_AT_ONCE]
    if not len(part):
        return {}
    most = LONGEST_COMPRESSED
    if config.minutes is not None:
        seconds = config.minutes * 60
        most = min(most, int(seconds * COMPRESSED_A_SECOND)) if seconds >= SHORT else 0
    found = baselines_of_validation(
        dataset.vocabulary,
        dataset.train,
        part,
        counts=counts,
        ngram=loss_of_counts,
        compressed=len(dataset.ids) <= most,
    )
    return {name: baseline.as_dict() for name, baseline in found.items()}


class TrainingRun:
    """One command's or call's part of a run. Iterate over it to train; it yields Progress.

    open_source: opens what to train on, as the run's configuration says it is to be read. folder:
    the run's; made if it is not there. given: options of TrainingConfig by name; the others are the
    preset's, or the run's own where it goes on.
    resume: go on if the folder holds a checkpoint. should_stop: asked after every step and every
    piece of a validation; True saves and ends the iteration, with `interrupted` set. started: when
    the command began, by time.monotonic, for --minutes. tensorboard: write event files too.
    material: what another run with the same split has read; then nothing is opened. mixes: asked
    when training is over; False leaves the model without its counts. Where it is given, counting is
    no part of the run's --minutes. ranks: the processes that train together, of which this is rank
    0; the others call `follow`.
    Raises CharloomError, in a sentence, for whatever is wrong with text, options or folder.
    """

    def __init__(
        self,
        open_source: Callable[[TrainingConfig], Text],
        folder: Path,
        given: dict[str, Any],
        *,
        resume: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
        report: Report | None = None,
        started: float | None = None,
        tensorboard: bool = False,
        material: Material | None = None,
        mixes: Callable[[], bool] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.folder = folder
        self.ranks = ranks
        self._mixes = mixes
        self.interrupted = False
        self._saving = 0.0  # seconds that the last save took
        self.notes: list[str] = []  # what the user should know; most before it starts
        self._report = LiveReport(folder, self.notes.append)
        self._done = 0.0  # the part of the run that lies behind
        self._with_events = tensorboard
        self._events: EventFile | None = None
        self._should_stop = should_stop
        self._started = time.monotonic() if started is None else started
        self._files = RunFolder(folder)
        if ranks is not None:
            ranks.introduce(_told(given))
        # What makes no sense is refused before anything is made or read.
        self._files.refuse_if_used(resume=True)
        if not resume:
            TrainingConfig.of(given)
        if tensorboard:
            load_tensorboard()
        self._files.open()
        try:
            self._prepare(open_source, given, resume, report, material)
        except BaseException:
            self._files.close()
            raise

    def _prepare(
        self,
        open_source: Callable[[TrainingConfig], Text],
        given: dict[str, Any],
        resume: bool,
        report: Report | None,
        material: Material | None,
    ) -> None:
        files = self._files
        earlier = load_checkpoint(files.resume) if resume and files.resume.exists() else None
        base: Checkpoint | None = None
        if earlier is not None:
            stored, self.state, position = _left_off(files.resume, earlier)
            self.config = _continued(stored, given)
        else:
            files.refuse_if_used(resume)  # again, now that nobody else can write to it
            if files.model.exists():
                raise CharloomError(
                    f"{self.folder} holds a model but no {RESUME_FILE} to go on from: use --from "
                    f"{self.folder} with another --out to train it further"
                )
            self.config, position = TrainingConfig.of(given), {}
            self.state = TrainingState()
            if self.config.from_run is not None:
                base = load_checkpoint(model_path(self.config.from_run))
                self.config = _with_shape_of(base.config, self.config, given)
        if self.ranks is not None:
            self.config = _among_ranks(self.config, given, self.ranks)
        self._elapsed_before = self.state.elapsed
        if material is None:
            try:
                material = read_material(
                    open_source(self.config),
                    self.config,
                    base=base,
                    earlier=earlier,
                    folder=self.folder,
                    report=report,
                )
            except OtherTextError as error:
                raise CharloomError(f"{error}; give that text again, or another --out") from None
        self.dataset = material.dataset
        self._context, self._counting = material.context, material.counting
        self._baselines = material.baselines
        if self.ranks is not None:
            self.ranks.tell_message(_reading(self.config, self.dataset))
            for rank, refusal in enumerate(self.ranks.collect(None)):
                if refusal is not None:
                    raise CharloomError(f"rank {rank}: {refusal}")
        if earlier is None and self.config.is_to_be_planned:
            self._plan(given, base, material.speed)
        self.batches = make_batches(self.config, self.dataset)
        if self.ranks is not None:
            self.ranks.split(self.batches.rows)
        config = model_config(self.config, len(self.dataset.vocabulary))
        rows = self.batches.rows if self.ranks is None else -(-self.batches.rows // self.ranks.size)
        _refuse_if_too_large(config, self.config, rows)
        if earlier is not None:
            parameters = earlier.parameters
        elif base is not None:
            parameters = grow_vocabulary(base.parameters, config)
        elif self.config.classic:
            parameters = initialize_classic(config, self.config.seed)
        else:
            parameters = initialize(config, self.config.seed)
            # How often each character comes need not be learned step by step.
            assert material.counts is not None
            seen = material.counts + 1.0
            parameters["decoder.bias"][:] = np.log(seen / seen.sum())
        self.optimizer = make_optimizer(self.config)
        if earlier is not None:
            self.optimizer.slots.update(earlier.optimizer)
            self.optimizer.step_count = self.state.step
        if self.ranks is not None:
            self._share(parameters)
        self.engine = _open_engine(self.config, parameters, self.ranks)
        self.threads = self.engine.threads
        if self.engine.name == "reference" and self.config.threads is None:
            self.threads = _threads_for_numpy(config, self.batches.rows)
        self._cut_to(position)
        if self.config.minutes is not None:
            self._compile()
        self._saved_at = time.monotonic()
        if earlier is not None:
            self._note_changes(position)

    def _share(self, parameters: Parameters) -> None:
        """Gives the other ranks what they begin with."""
        ranks, state = self.ranks, self.state
        assert ranks is not None
        rows = None if state.hidden is None else state.hidden.shape[2]
        ranks.tell_message(
            {
                "config": asdict(self.config),
                "step": state.step,
                "refit_step": state.refit_step,
                "rows": rows,
            }
        )
        self.optimizer.prepare(parameters.flat)
        for values in _shared(parameters, self.optimizer, state.hidden):
            ranks.broadcast(values)

    def _compile(self) -> None:
        """Lets kernels be compiled before anything is timed."""
        compile_kernels(self.engine, None if self._context is None else self.dataset)

    def _plan(self, given: dict[str, Any], base: Checkpoint | None, speed: float | None) -> None:
        """Chooses what was not given."""
        assert self.config.minutes is not None
        seconds = self.config.minutes * 60
        if seconds < SHORT and self.config.engine == "auto" and not is_compiled():
            self.config = replace(self.config, engine="reference")
            self.notes.append(
                "the kernels are not compiled yet, and there is no time for it: the reference "
                "engine computes, several times slower; give more --minutes once"
            )
        fixed = dict(given)
        if base is not None:
            fixed |= {n: getattr(self.config, n) for n in ("cell", "hidden_size", "layers")}
        if speed is None:
            speed = measure_speed(
                self.config.engine,
                self.config.threads,
                self.config.device,
                self.config.bf16,
                self.config.compile,
            )
        time_left = max(seconds - self._elapsed(), LEAST_TRAINING)
        chosen = plan(time_left, speed, self.dataset, fixed)
        self.config = replace(self.config, **chosen.options)
        self.notes.append(chosen.reason)

    def _note_changes(self, position: dict[str, Any]) -> None:
        before, now = _computed_by(position), _computed_by(self._how())
        if before != now:
            self.notes.append(
                f"the run was computed by {before} and goes on with {now}: it will not repeat to "
                "the byte"
            )
        best = self.state.best_step
        if best is not None and best <= self.state.step:
            try:
                load_checkpoint(self._files.model)
            except CharloomError as error:
                self.notes.append(f"{error}; the best weights are looked for anew")
                self.state.best_step = self.state.best_loss = None
                self.state.validated_step = -1

    def _cut_to(self, position: dict[str, Any]) -> None:
        """Takes from the text files what was written after the checkpoint."""
        self._metrics_lines = int(position.get("metrics_lines", 0))
        self._samples_bytes = int(position.get("samples_bytes", 0))
        try:
            with self._files.metrics.open("a+b") as file:
                file.seek(0)
                for _ in range(self._metrics_lines):
                    file.readline()
                file.truncate(file.tell())
            with self._files.samples.open("a+b") as file:
                # Samples that somebody took away do not come back as zeros.
                self._samples_bytes = min(self._samples_bytes, file.tell())
                file.truncate(self._samples_bytes)
        except OSError as error:
            raise self._cannot_write(error) from None

    def __iter__(self) -> Generator[Progress, None, None]:
        state = "interrupted"
        try:
            # The limit ends with the run: it belongs to the process, not to charloom.
            with threadpool_limits(self.threads, user_api="blas"):
                yield from self._train()
            state = "interrupted" if self.interrupted else "finished"
        finally:
            try:
                self._draw(state, now=True)
                if self._events is not None:
                    # All that counts was flushed when it was saved; a full disk is told of by then.
                    with contextlib.suppress(OSError):
                        self._events.close()
            finally:
                self._files.close()

    def _elapsed(self) -> float:
        return self._elapsed_before + time.monotonic() - self._started

    def _train(self) -> Iterator[Progress]:
        events = train_steps(
            self.engine,
            self.optimizer,
            self.dataset,
            self.config,
            self.state,
            self._elapsed,
            self._reserve,
            self.ranks,
        )
        speed = _Speed()
        if not self._files.resume.exists():
            self._record_start()
            self._save_resume()  # before the first model, which could not be gone on from alone
        self._begin_events()
        self._draw("training", now=True)
        for progress in events:
            if progress.kind in ("report", "validation"):
                self._record(progress, speed(progress))
            if progress.kind == "validation" and progress.best:
                self._save_best(progress)
            if progress.kind == "validation" or time.monotonic() - self._saved_at > SAVE_EVERY:
                self._save_resume()
                self._done = progress.done
                self._draw("training")
            yield progress
            if self._should_stop():
                self.interrupted = True
                break
        self._save_resume()
        if self.ranks is not None:
            self.ranks.end()
        if self._mixes is None or self._mixes():
            self._mix()

    def _reserve(self, validation: float) -> float:
        """Seconds that a run needs after its last validation, which takes so many."""
        needed = 2 * self._saving + self._report.seconds + 0.1
        if self._context is not None and self._mixes is None:
            _, watched = self.dataset.learned_and_watched(self.state.refit_step is not None)
            numbers = min(len(watched), VALIDATED_AT_ONCE, FITTED_ON) * (
                len(self.dataset.vocabulary) + 1000
            )
            needed += validation + numbers * MIXING + COUNTING * self._counting
        return needed

    def _mix(self) -> None:
        """Adds counts to the best model, with weights fitted on what was held against it. After an
        interruption that comes before, it writes the same bytes later."""
        if self._context is None or not self._files.model.exists():
            return
        best = load_checkpoint(self._files.model)
        if best.mixture is not None:
            return  # nothing better was found since
        network = open_engine(
            self.config.engine,
            best.parameters,
            threads=self.config.threads,
            device=self.config.device,
        )
        dataset, size = self.dataset, len(self.dataset.vocabulary)
        most_bytes = self.config.mix_megabytes * 1e6
        refit = best.metrics.get("refit", False)
        learned, watched = dataset.learned_and_watched(refit)
        watched = watched[:VALIDATED_AT_ONCE]
        table = count(learned, size, self._context, most_bytes)
        best.mixture = fit_mixture(
            network, table, watched, int(learned[-1]), rows_of_validation(len(watched))
        )
        if refit:  # all has been chosen
            known = dataset.ids[: dataset.split.boundaries(len(dataset.ids))[1]]
            table = count(known, size, table.context, math.inf)
            best.mixture = replace(best.mixture, table=table)
        self._save(self._files.model, best)

    def _draw(self, state: str, *, now: bool = False) -> None:
        self._report.draw(Standing(state, self._done), now=now)

    def _record_start(self) -> None:
        """Begins metrics.jsonl with what does not change."""
        line = {
            "event": "start",
            "step": self.state.step,
            "baselines": self._baselines,
            "timing": {"elapsed_seconds": round(self._elapsed(), 3)},
        }
        try:
            _append(self._files.metrics, json.dumps(line, allow_nan=False) + "\n")
            self._metrics_lines += 1
        except OSError as error:
            raise self._cannot_write(error) from None

    def _begin_events(self) -> None:
        """Opens a file of events. What an earlier one holds of steps to be taken again counts for
        nothing; so does a report of the step that the run goes on from, if its validation is still
        to come."""
        if not self._with_events:
            return
        step = self.state.step
        validated = self.state.validated_step == step
        try:
            self._events = EventFile(self._files.events, step + validated)
            lines = self._files.metrics.read_text("utf-8").splitlines()
            last = json.loads(lines[-1]) if lines else {}
            if not validated and last.get("event") == "report" and last["step"] == step:
                self._events.add(step, _figures(last))
        except OSError as error:
            raise self._cannot_write(error) from None

    def _record(self, progress: Progress, characters_per_second: float | None) -> None:
        """Appends to metrics.jsonl and samples.txt."""
        validation = progress.validation
        line: dict[str, Any] = {
            "event": progress.kind,
            "step": progress.step,
            "epoch": progress.epoch,
            "loss": progress.loss,
            "smoothed_loss": progress.smoothed_loss,
            "learning_rate": progress.learning_rate,
            "gradient_norm": progress.gradient_norm,
        }
        if progress.kind == "validation":
            line["validation"] = None if validation is None else asdict(validation)
            line["best"] = progress.best
        line["timing"] = {
            "elapsed_seconds": round(progress.elapsed, 3),
            "characters_per_second": characters_per_second,
        }
        try:
            _append(self._files.metrics, json.dumps(line, allow_nan=False) + "\n")
            self._metrics_lines += 1
            if progress.sample is not None:
                loss = "" if validation is None else f", {validation.nats_per_character:.4f} nats"
                text = f"--- step {progress.step}{loss}\n{progress.sample}\n\n"
                self._samples_bytes += _append(self._files.samples, text)
            if self._events is not None:
                self._events.add(progress.step, _figures(line), progress.sample)
        except OSError as error:
            raise self._cannot_write(error) from None

    def _checkpoint(self, metrics: dict[str, Any]) -> Checkpoint:
        dataset = self.dataset
        return Checkpoint(
            self.engine.parameters,
            dataset.vocabulary,
            training={k: v for k, v in asdict(self.config).items() if k not in (*ENDS, *HOW)},
            text={
                "name": dataset.name,
                "origin": dataset.origin,
                "sha256": dataset.sha256,
                "characters": len(dataset.ids),
            },
            metrics=metrics,
        )

    def _save_best(self, progress: Progress) -> None:
        validation = progress.validation
        best = self._checkpoint(
            {
                "step": progress.step,
                "refit": self.state.refit_step is not None,
                "epoch": progress.epoch,
                "validation": None if validation is None else asdict(validation),
            }
        )
        self._save(self._files.model, best)

    def _save_resume(self) -> None:
        if not np.isfinite(self.engine.parameters.flat).all():
            raise DivergedError(self.state.step, self.config)
        for path in (self._files.metrics, self._files.samples):
            self._sync(path)
        if self._events is not None:
            try:
                self._events.flush()
            except OSError as error:
                raise self._cannot_write(error) from None
        state = self.state
        state.elapsed = self._elapsed()
        values = {f.name: getattr(state, f.name) for f in fields(state) if f.name != "hidden"}
        checkpoint = self._checkpoint({"step": state.step})
        self.optimizer.prepare(self.engine.parameters.flat)
        checkpoint.optimizer = self.optimizer.slots
        checkpoint.state = self._hidden()
        checkpoint.position = {
            "state": values,
            "metrics_lines": self._metrics_lines,
            "samples_bytes": self._samples_bytes,
            "ends": {name: getattr(self.config, name) for name in ENDS},
            **self._how(),
        }
        self._save(self._files.resume, checkpoint)
        self._saved_at = time.monotonic()

    def _hidden(self) -> State:
        """The state between two windows, of all rows."""
        hidden = self.state.hidden
        if hidden is None:
            return self.engine.config.zero_state(1)
        if self.ranks is None:
            return hidden
        self.ranks.tell("gather")
        whole = self.ranks.gather(hidden)
        assert whole is not None
        return whole

    def _how(self) -> dict[str, Any]:
        """What a checkpoint keeps of HOW."""
        return {
            "engine": self.engine.name,
            "threads": self.threads,
            "device": self.engine.device,
            "bf16": self.config.bf16,
            "compile": self.config.compile,
            "rank_timeout": self.config.rank_timeout,
            "ranks": 1 if self.ranks is None else self.ranks.size,
        }

    def _save(self, path: Path, checkpoint: Checkpoint) -> None:
        before = time.monotonic()
        try:
            save_checkpoint(path, checkpoint)
        except OSError as error:
            raise self._cannot_write(error) from None
        self._saving = time.monotonic() - before

    def _sync(self, path: Path) -> None:
        try:
            with path.open("ab") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise self._cannot_write(error) from None

    def _cannot_write(self, error: OSError) -> CharloomError:
        return CharloomError(
            f"cannot write to {self.folder} ({error.strerror or error}): the last checkpoint there "
            "is intact; make room or give access, then go on with --resume"
        )

    def model(self) -> LanguageModel:
        """The best model of the run, with its text at hand for evaluate."""
        checkpoint = load_checkpoint(self._files.model)
        return LanguageModel(
            checkpoint,
            engine=self.config.engine,
            threads=self.config.threads,
            device=self.config.device,
            dataset=self.dataset,
        )


def compile_kernels(engine: Engine, counted: Dataset | None) -> None:
    """Lets the kernels of inference be compiled, and of counting where a text is counted: nobody
    should take their time for that of training."""
    nothing = np.zeros((1, 1), np.intp)
    engine.log_probabilities(nothing, engine.zero_state(1))
    if counted is not None:
        size = len(counted.vocabulary)
        count(counted.train[:2], size, 1, math.inf).ask(np.zeros((1, 1), np.int32))


def _computed_by(how: dict[str, Any]) -> str:
    """Engine and all, for a sentence."""
    device = "" if how.get("device", "cpu") == "cpu" else f" and {how['device']}"
    numbers = " in bfloat16" if how.get("bf16") else ""
    compiled = " with --compile" if how.get("compile") else ""
    ranks = f" of {how['ranks']} ranks" if how.get("ranks", 1) > 1 else ""
    return f"{how.get('engine')} on {how.get('threads')} threads{ranks}{device}{numbers}{compiled}"


class _Speed:
    """Characters per second since the last call."""

    def __init__(self) -> None:
        self._before: tuple[int, float] | None = None

    def __call__(self, progress: Progress) -> float | None:
        now = (progress.characters, progress.elapsed)
        before, self._before = self._before, now
        if before is None or now[1] <= before[1]:
            return None
        return round((now[0] - before[0]) / (now[1] - before[1]), 1)


def _figures(line: dict[str, Any]) -> dict[str, float | None]:
    """What TensorBoard is to show of a line of metrics.jsonl, by name."""
    if line["event"] == "validation":
        validation = line["validation"]
        return {"loss/validation": validation and validation["nats_per_character"]}
    return {
        "loss/training": line["loss"],
        "loss/smoothed": line["smoothed_loss"],
        "learning_rate": line["learning_rate"],
        "gradient_norm": line["gradient_norm"],
        "characters_per_second": line["timing"]["characters_per_second"],
    }


def _append(path: Path, text: str) -> int:
    data = text.encode("utf-8")
    with path.open("ab") as file:
        file.write(data)
    return len(data)


# What rank 0 and the others do in turn, before the first step: rank 0 tells how the text is read
# (_reading), the others read it and answer None or why they cannot; rank 0 tells the configuration
# and gives weights, optimizer and state (_share).


def _reading(config: TrainingConfig, dataset: Dataset) -> dict[str, Any]:
    return {
        "config": asdict(config),
        "characters": list(dataset.vocabulary.characters),
        "bytes": dataset.vocabulary.as_bytes,
        "sha256": dataset.sha256,
    }


def follow(
    open_source: Callable[[TrainingConfig], Text], given: dict[str, Any], ranks: Ranks
) -> bool:
    """Takes part in the run of rank 0, as another rank, until it ends; returns whether there was
    anything to take part in.

    open_source, given: as TrainingRun has them. Raises CharloomError where rank 0 is lost; what
    else is wrong, rank 0 is told, and says.
    """
    ranks.introduce(_told(given))
    if (reading := ranks.hear_message()) is None:
        return False
    refusal, config = None, TrainingConfig(**reading["config"])
    try:
        dataset = load_dataset(
            open_source(config),
            Split.parse(config.split),
            base=Vocabulary(tuple(reading["characters"]), reading["bytes"]),
            sha256=reading["sha256"],
        )
    except OtherTextError:
        refusal = "its text is not that of rank 0 (SHA-256): give all ranks the same"
    except CharloomError as error:
        refusal = str(error)
    except OSError as error:
        refusal = f"its text cannot be read ({error.strerror or error})"
    ranks.collect(refusal)
    if (begin := ranks.hear_message()) is None:
        return False
    config = _among_ranks(TrainingConfig(**begin["config"]), given, ranks)
    parameters = Parameters(model_config(config, len(dataset.vocabulary)))
    optimizer = make_optimizer(config)
    optimizer.prepare(parameters.flat)
    optimizer.step_count = begin["step"]
    rows = begin["rows"]
    state = TrainingState(
        step=begin["step"],
        refit_step=begin["refit_step"],
        hidden=None if rows is None else parameters.config.zero_state(rows),
    )
    for values in _shared(parameters, optimizer, state.hidden):
        ranks.broadcast(values)
    ranks.split(make_batches(config, dataset).rows)
    engine = _open_engine(config, parameters, ranks)
    with threadpool_limits(engine.threads, user_api="blas"):
        follow_steps(engine, optimizer, dataset, config, state, ranks)
    return True


def _told(given: dict[str, Any]) -> dict[str, Any]:
    """What must be alike at all ranks."""
    told = {option_name(name): value for name, value in given.items() if name not in OWN}
    return told | {"charloom's version": __version__}


def _among_ranks(config: TrainingConfig, given: dict[str, Any], ranks: Ranks) -> TrainingConfig:
    """The same, computed by what can train among ranks, with this one's part of the cores."""
    engine = given.get("engine", "auto")
    if engine not in ("auto", "pytorch"):
        raise CharloomError(f"--engine {engine} trains in one process: leave it out, or torchrun")
    threads = given.get("threads") or max(1, available_cores() // ranks.on_this_machine)
    return replace(config, engine="pytorch" if engine == "auto" else engine, threads=threads)


def _shared(
    parameters: Parameters, optimizer: Optimizer, hidden: State | None
) -> Iterator[NDArray[Any]]:
    """What every rank begins with alike, in an order."""
    yield parameters.flat
    for name in optimizer.slot_names:
        yield optimizer.slots[name]
    if hidden is not None:
        yield hidden


def _open_engine(config: TrainingConfig, parameters: Parameters, ranks: Ranks | None) -> Engine:
    """The engine that a configuration trains with."""
    return open_engine(
        config.engine,
        parameters,
        seed=config.seed,
        classic=config.classic,
        threads=config.threads,
        device=config.device,
        bf16=config.bf16,
        compile=config.compile,
        ranks=ranks,
    )


def _left_off(
    path: Path, checkpoint: Checkpoint
) -> tuple[TrainingConfig, TrainingState, dict[str, Any]]:
    """What a resume file holds of a run: its configuration, its state, and its position as it is.

    Raises CharloomError where they make no sense together: another version may have written it.
    """
    try:
        position = checkpoint.position
        if position is None or checkpoint.state is None:
            raise ValueError("it holds no position")
        # A run from before there was a choice says nothing of these.
        earlier: dict[str, Any] = {
            "device": "cpu",
            "bf16": False,
            "compile": False,
            "rank_timeout": 300.0,
        }
        how = {name: (earlier | position)[name] for name in HOW}
        config = TrainingConfig(**checkpoint.training, **position["ends"], **how)
        state = TrainingState(**position["state"], hidden=checkpoint.state)
        rows = checkpoint.state.shape[2] if checkpoint.state.ndim == 4 else 0
        counts = (state.recent_steps, position["metrics_lines"], position["samples_bytes"])
        if not all(isinstance(count, int) and 0 <= count < 10**15 for count in counts):
            raise ValueError("its counts are none")
        for f in fields(state):
            value, kinds = getattr(state, f.name), str(f.type)
            if f.name == "hidden" or (value is None and "None" in kinds):
                continue
            number = isinstance(value, int if "int" in kinds else (int, float))
            if not number or isinstance(value, bool) or not math.isfinite(value):
                raise ValueError(f"its {f.name} is no number")
        if state.step < 0 or config.learning_rate is None:
            raise ValueError("its step or learning rate is none")
        if model_config(config, len(checkpoint.vocabulary)) != checkpoint.config:
            raise ValueError("its options describe another model")
        if checkpoint.state.shape != checkpoint.config.zero_state(rows).shape:
            raise ValueError("its hidden state has another shape")
        if rows not in (1, config.batch_size) and rows > config.batch_size:
            raise ValueError("its hidden state has too many rows")
        if set(checkpoint.optimizer) != set(OPTIMIZERS[config.optimizer].slot_names):
            raise ValueError("its optimizer is another one")
        if "sha256" not in checkpoint.text:
            raise ValueError("it does not say what text it was trained on")
    except (KeyError, TypeError, ValueError) as error:
        what = " ".join(str(error).split())
        raise CharloomError(
            f"{path} cannot be gone on from ({what}): start again with another --out"
        ) from None
    return config, state, position


def _continued(stored: TrainingConfig, given: dict[str, Any]) -> TrainingConfig:
    """The configuration a run goes on with. Raises CharloomError, naming the first difference,
    where the options given are not the run's."""
    TrainingConfig.of(given)  # refuses nonsense
    for name, value in given.items():
        before = getattr(stored, name)
        if name in HOW or value == before:
            continue
        if name not in ENDS:
            raise CharloomError(
                f"{option_name(name)} is {value}, but the run has {before}: leave the option out "
                "to go on with it, or give another --out"
            )
        if before is not None and value < before:
            raise CharloomError(
                f"{option_name(name)} {value} is less than the run's {before:g}: it can only be "
                "raised"
            )
    return replace(stored, **{k: v for k, v in given.items() if k in (*ENDS, *HOW)})


def _with_shape_of(
    base: ModelConfig, config: TrainingConfig, given: dict[str, Any]
) -> TrainingConfig:
    """The configuration with the shape of the model that training starts from."""
    for name in ("cell", "hidden_size", "layers", "dtype"):
        before = getattr(base, name)
        if name in given and given[name] != before:
            raise CharloomError(
                f"{option_name(name)} is {given[name]}, but the model of --from has {before}: "
                "leave the option out"
            )
        config = replace(config, **{name: before})
    return config


def _refuse_if_too_large(model: ModelConfig, config: TrainingConfig, rows: int) -> None:
    """Raises CharloomError where a run would need more memory than the machine has."""
    try:
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return  # the system does not say
    # Parameters, gradients, the optimizer's slots and scratch, and one more copy while saving.
    copies = 5 + len(OPTIMIZERS[config.optimizer].slot_names)
    numbers = model.parameter_count * copies
    numbers += model.numbers_per_position * rows * config.window
    needed = numbers * np.dtype(model.dtype).itemsize
    if needed > available:
        raise TooLargeError(
            f"this model and batch need about {needed / 2**30:,.0f} GiB of memory, more than the "
            f"machine's {available / 2**30:,.0f}: use a smaller --hidden-size, --layers, "
            "--batch-size or --window"
        )


def _threads_for_numpy(model: ModelConfig, rows: int) -> int:
    """Threads for the matrix products: one where they are too small to share out."""
    work = rows * model.gates * model.hidden_size**2  # of one recurrent product
    return 1 if work < 1_000_000 else available_cores()


def text_opener(
    text: str | Path | Text | Sequence[str | Path | Text], given: dict[str, Any]
) -> Callable[[TrainingConfig], Text]:
    """What opens the text of a call from Python, as `train` takes it, for a configuration. What the
    text and the types of Python say of the options is put into `given`."""
    texts = [text] if isinstance(text, (str, Path, Text)) else list(text)
    if not texts:
        raise CharloomError("there is no text to train on: give at least one")
    if isinstance(texts[0], Text):
        given["bytes"] = texts[0].as_bytes
    if isinstance(given.get("from_run"), os.PathLike):
        given["from_run"] = os.fspath(given["from_run"])

    def open_one(text: str | Path | Text, config: TrainingConfig) -> Text:
        if isinstance(text, Text):
            return text
        newlines, as_bytes = config.normalize_newlines, config.bytes
        if isinstance(text, str) and ("\n" in text or len(text) > 255 or not text):
            return text_from_string(text, normalize_newlines=newlines, as_bytes=as_bytes)
        return open_text(text, raw=config.raw, normalize_newlines=newlines, as_bytes=as_bytes)

    def open_source(config: TrainingConfig) -> Text:
        return join_texts([open_one(one, config) for one in texts])

    return open_source


def train(
    text: str | Path | Text | Sequence[str | Path | Text],
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    tensorboard: bool = False,
    **options: Any,
) -> LanguageModel:
    """Trains a model and returns its best weights.

    text: a Path, or a str: the name of a corpus or of a file; a str with a line break, or of more
    than 255 characters, is the text itself; several in a list are joined, in that order.
    out: the run's folder; None keeps no files. options:
    those of `charloom train`, with underscores: cell, hidden_size, steps, minutes, seed, … (see
    TrainingConfig). progress: called after every step. tensorboard: write event files for
    TensorBoard into the folder too.
    Raises CharloomError for whatever is wrong with text, options or folder.
    """
    started = time.monotonic()
    given = {name: value for name, value in options.items() if value is not None}
    open_source = text_opener(text, given)
    with contextlib.ExitStack() as stack:
        if out is None:
            out = stack.enter_context(tempfile.TemporaryDirectory(prefix="charloom-"))
        run = TrainingRun(
            open_source,
            Path(out),
            given,
            resume=resume,
            started=started,
            tensorboard=tensorboard,
        )
        for event in run:
            if progress is not None:
                progress(event)
        return run.model()

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
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from charloom.engines.backend import Backend, is_compiled
from charloom.engines.process_group import Ranks
from charloom.errors import CharloomError
from charloom.language_model import LanguageModel
from charloom.network.initialization import grow_vocabulary, initialize, initialize_classic
from charloom.network.parameters import Parameters, State
from charloom.prediction.mixture import FITTED_ON, fit_mixture, fit_ngram_table
from charloom.progress import OnProgress
from charloom.runs.checkpointing import SAVE_EVERY
from charloom.runs.compute import (
    compile_kernels,
    numpy_threads,
    open_run_engine,
    refuse_if_too_large,
)
from charloom.runs.distributed import among_ranks, reading_among_ranks, reported, share_plan
from charloom.runs.finishing import COUNTING, MIXING
from charloom.runs.material import Material, read_material
from charloom.runs.recorder import SpeedMeter, append_line, metrics_line
from charloom.runs.report import LiveReport, RunStatus
from charloom.runs.resuming import (
    continued_config,
    resume_position,
    with_shape_of,
)
from charloom.runs.tensorboard import EventFile, load_tensorboard
from charloom.storage.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from charloom.storage.folders import RESUME_FILE, RunFolder, model_path
from charloom.text.dataset import OtherTextError
from charloom.text.source import Text
from charloom.training.loop import LEAST_TRAINING, train_steps
from charloom.training.options import COMPUTE_OPTIONS, RESUME_OPTIONS, STOP_OPTIONS, TrainingConfig
from charloom.training.planner import SHORT, measure_speed, plan
from charloom.training.setup import (
    VALIDATED_AT_ONCE,
    make_batches,
    make_optimizer,
    model_config,
    rows_of_validation,
)
from charloom.training.state import DivergedError, Progress, TrainingState


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
        report: OnProgress | None = None,
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
            ranks.introduce(reported(given))
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
        report: OnProgress | None,
        material: Material | None,
    ) -> None:
        files = self._files
        earlier = load_checkpoint(files.resume) if resume and files.resume.exists() else None
        base: Checkpoint | None = None
        if earlier is not None:
            stored, self.state, position = resume_position(files.resume, earlier)
            self.config = continued_config(stored, given)
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
                self.config = with_shape_of(base.config, self.config, given)
        if self.ranks is not None:
            self.config = among_ranks(self.config, given, self.ranks)
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
            self.ranks.tell_message(reading_among_ranks(self.config, self.dataset))
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
        refuse_if_too_large(config, self.config, rows)
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
        self.engine = open_run_engine(self.config, parameters, self.ranks)
        self.threads = self.engine.threads
        if self.engine.name == "reference" and self.config.threads is None:
            self.threads = numpy_threads(config, self.batches.rows)
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
        for values in share_plan(parameters, self.optimizer, state.hidden):
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
            speed = measure_speed(self.config.backend)
        time_left = max(seconds - self._elapsed(), LEAST_TRAINING)
        chosen = plan(time_left, speed, self.dataset, fixed)
        self.config = replace(self.config, **chosen.options)
        self.notes.append(chosen.reason)

    def _note_changes(self, position: dict[str, Any]) -> None:
        before = Backend.from_checkpoint(position).describe(position.get("ranks", 1))
        now = Backend.from_checkpoint(self._how()).describe(self._how()["ranks"])
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
        speed = SpeedMeter()
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
            _, watched = self.dataset.fit_and_holdout(self.state.refit_step is not None)
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
        network = self.config.backend.for_inference().open(best.parameters)
        dataset, size = self.dataset, len(self.dataset.vocabulary)
        most_bytes = self.config.mix_megabytes * 1e6
        refit = best.metrics.get("refit", False)
        learned, watched = dataset.fit_and_holdout(refit)
        watched = watched[:VALIDATED_AT_ONCE]
        table = fit_ngram_table(learned, size, self._context, most_bytes)
        best.mixture = fit_mixture(
            network, table, watched, int(learned[-1]), rows_of_validation(len(watched))
        )
        if refit:  # all has been chosen
            known = dataset.ids[: dataset.split.boundaries(len(dataset.ids))[1]]
            table = fit_ngram_table(known, size, table.context, math.inf)
            best.mixture = replace(best.mixture, table=table)
        self._save(self._files.model, best)

    def _draw(self, state: str, *, now: bool = False) -> None:
        self._report.update(RunStatus(state, self._done), now=now)

    def _record_start(self) -> None:
        """Begins metrics.jsonl with what does not change."""
        line = {
            "event": "start",
            "step": self.state.step,
            "baselines": self._baselines,
            "timing": {"elapsed_seconds": round(self._elapsed(), 3)},
        }
        try:
            append_line(self._files.metrics, json.dumps(line, allow_nan=False) + "\n")
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
                self._events.add(step, metrics_line(last))
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
            append_line(self._files.metrics, json.dumps(line, allow_nan=False) + "\n")
            self._metrics_lines += 1
            if progress.sample is not None:
                loss = "" if validation is None else f", {validation.nats_per_character:.4f} nats"
                text = f"--- step {progress.step}{loss}\n{progress.sample}\n\n"
                self._samples_bytes += append_line(self._files.samples, text)
            if self._events is not None:
                self._events.add(progress.step, metrics_line(line), progress.sample)
        except OSError as error:
            raise self._cannot_write(error) from None

    def _checkpoint(self, metrics: dict[str, Any]) -> Checkpoint:
        dataset = self.dataset
        return Checkpoint(
            self.engine.parameters,
            dataset.vocabulary,
            training={k: v for k, v in asdict(self.config).items() if k not in RESUME_OPTIONS},
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
            "ends": {name: getattr(self.config, name) for name in STOP_OPTIONS},
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
        """Return the entries of a position that say how the run was computed."""
        chosen = {name: getattr(self.config, name) for name in COMPUTE_OPTIONS}
        return chosen | {
            "engine": self.engine.name,
            "threads": self.threads,
            "device": self.engine.device,
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
            backend=self.config.backend.for_inference(),
            dataset=self.dataset,
        )

"""Open a training run: start, text, options, engine, files, in this order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from charloom.base_model.choices import ENGLISH
from charloom.engines.backend import Backend
from charloom.engines.process_group import SINGLE_PROCESS, ProcessGroup
from charloom.errors import CharloomError
from charloom.runs.carried import start_from_english
from charloom.runs.checkpointing import Checkpoints
from charloom.runs.clock import Clock
from charloom.runs.compiling import compile_ahead
from charloom.runs.compute import compile_kernels, open_setup, with_engine_for_budget
from charloom.runs.distributed import reported_options, text_message
from charloom.runs.material import PreparedText, prepare_text
from charloom.runs.recorder import Recorder
from charloom.runs.resuming import further_command
from charloom.runs.run import RunContext, RunControl, TrainingRun
from charloom.runs.start import Start, start_of
from charloom.runs.tensorboard import load_tensorboard
from charloom.storage.folders import RunFolder
from charloom.text.dataset import OtherTextError
from charloom.text.format import Opener
from charloom.text.growth import GrownTextError
from charloom.text.source import Text
from charloom.training import planner
from charloom.training.options import TrainingConfig
from charloom.training.short import adapt_to_short_text, memorized_all
from charloom.training.validating import limit_validations


def open_run(
    text: Opener | PreparedText,
    folder: Path,
    options: dict[str, Any],
    *,
    resume: bool = False,
    tensorboard: bool = False,
    speed: float | None = None,
    control: RunControl | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> TrainingRun:
    """Open a run: lock its folder, read its text, and prepare everything up to the first step.

    Args:
        text: opens the text in the run's format; or the text of another run with
            the same split.
        folder: the run's folder, which is created if needed.
        options: options of TrainingConfig, by name; the others are the preset's, or the run's own
            if it resumes.
        resume: resume if the folder holds a checkpoint.
        tensorboard: write event files for TensorBoard too.
        speed: that of this machine, as `planner.measure_speed` returns it; None to measure it.
        control: the caller's hold on the run.
        process_group: the processes that train together, of which this is rank 0; the others call
            `charloom.runs.distributed.follow`.

    Raises:
        CharloomError: if the text, the options or the folder are unsuitable.
    """
    control = control or RunControl()
    clock = Clock(control.started, held_up=control.held_up)
    process_group.introduce(reported_options(options))
    # Invalid options are refused before anything is created or read.
    files = RunFolder(folder)
    files.refuse_if_used(resume=True)
    if not resume:
        TrainingConfig.of(options)
    if tensorboard:
        load_tensorboard()
    files.open()
    context = RunContext(files, control, clock, tensorboard, process_group)
    try:
        start = start_of(files, options, resume=resume)
        start = replace(
            start, config=replace(start.config, **process_group.backend_options(options))
        )
        clock.before = start.state.elapsed
        start, prepared = _prepare(text, start, context)
        return _open_prepared(start, prepared, speed, context)
    except BaseException:
        files.close()
        raise


def _prepare(
    text: Opener | PreparedText, start: Start, context: RunContext
) -> tuple[Start, PreparedText]:
    """Read the text, unless it is prepared already, at all ranks; adapt the options to a short one.

    Returns:
        The start of the run with these options, and the text.
    """
    if isinstance(text, PreparedText):
        prepared = text
    else:
        try:
            opened = text(start.text_format())
            start, prepared = _read(opened, start, context)
        except OtherTextError as error:
            raise CharloomError(
                f"{error}: {_remedy(error, opened, start, context.files)}"
            ) from None
    context.process_group.send_text(text_message(start.training, prepared.dataset))
    context.process_group.check_refusals()
    return start, prepared


def _read(text: Text, start: Start, context: RunContext) -> tuple[Start, PreparedText]:
    def prepare(start: Start) -> PreparedText:
        return prepare_text(
            text,
            start.config,
            base=start.base,
            earlier=start.earlier,
            folder=context.files.path,
            on_reading=context.control.on_reading,
        )

    if start.earlier is not None:
        return start, prepare(start)
    carried = start.config.from_run == ENGLISH
    prepared = prepare(replace(start, base=None) if carried else start)
    compile_ahead(start.config, start.fixed, prepared.dataset)
    start, notes = start_from_english(start, prepared.dataset)
    adapted = adapt_to_short_text(start.config, prepared.dataset, start.fixed)
    split = start.config.split
    if adapted is not None:
        start, notes = replace(start, config=adapted[0]), [*notes, adapted[1]]
    if start.config.from_run == ENGLISH or start.config.split != split:
        prepared = prepare(start)
    return start, replace(prepared, notes=(*prepared.notes, *notes))


def _remedy(error: OtherTextError, text: Text, start: Start, files: RunFolder) -> str:
    """Return the remedy for a text that is not the one of the run."""
    earlier, state = start.earlier, start.state
    assert earlier is not None, "only a run that resumes has a text of its own"
    command = further_command(text, start.config, files.path)
    here = "" if state.best_loss is None else f" ({state.best_loss:.4f} here)"
    never = f"do not compare the losses of the two runs{here}, because"
    if not isinstance(error, GrownTextError):
        return (
            f"pass that text again, or train its model further on this one with {command}; {never} "
            "their held-out texts are different"
        )
    further = f"train its model further on all of it with {command}; {never}"
    if earlier.vocabulary.end_id is None:
        return f"{further} their held-out texts are different"
    # Documents stay in their splits, so the model was not trained on any that is held out.
    return f"{further} the held-out splits of a collection keep their documents, but get new ones"


def _open_prepared(
    start: Start, prepared: PreparedText, speed: float | None, context: RunContext
) -> TrainingRun:
    """Complete the options, and open the engine and the files."""
    clock, files, notes = context.clock, context.files, context.notes
    dataset, config = prepared.dataset, start.config
    if start.earlier is None and config.is_to_be_planned:
        config, note = with_engine_for_budget(config)
        config, reason = planner.complete(config, dataset, start.fixed, clock.elapsed, speed)
        notes.extend([reason] if note is None else [note, reason])
    notes.extend([*prepared.notes, *start.notes()])
    base = None if start.base is None else start.base.vocabulary
    if base is not None and base.end_id is None and dataset.vocabulary.end_id is not None:
        notes.append(
            "the model of --from was trained on one book, so the end of a document is a new symbol "
            "for it"
        )
    if start.base is not None and len(dataset.test) and memorized_all(start.base.training):
        notes.append(
            "the model of --from was trained on all of its text: evaluate only on text that was "
            "not part of it"
        )
    prepared = prepared.with_counts(config, files.path, context.control.on_reading)
    dataset = prepared.dataset
    if prepared.learned is not None:
        notes.append(prepared.learned.note)
    if start.earlier is None:
        config = limit_validations(config, dataset)
    setup = open_setup(start, prepared, config, context.process_group)
    recorder = Recorder(files, start.position, clock)
    if config.minutes is not None:
        counts = prepared.context is not None and prepared.learned is None
        learned = None if prepared.learned is None else prepared.learned.unfitted()
        compile_kernels(setup.engine, dataset if counts else None, learned)
    checkpoints = Checkpoints(
        files,
        prepared,
        config,
        setup,
        context.process_group,
        clock,
        start.earlier_record,
        start.descends_from,
    )
    if start.earlier is not None:
        _note_changes(start, checkpoints, notes)
    return TrainingRun(start, prepared, config, setup, recorder, checkpoints, context)


def _note_changes(start: Start, checkpoints: Checkpoints, notes: list[str]) -> None:
    """Note the differences from the run before it was interrupted."""
    earlier, now = start.position, checkpoints.computed_by()
    before = Backend.from_checkpoint(earlier).describe(earlier.get("ranks", 1))
    after = Backend.from_checkpoint(now).describe(now["ranks"])
    if before != after:
        notes.append(
            f"the run was computed by {before} and resumes with {after}: it will not repeat to "
            "the byte"
        )
    state = start.state
    if state.best_step is not None and state.best_step <= state.step:
        try:
            checkpoints.load_best()
        except CharloomError as error:
            notes.append(f"{error}; the search for the best weights starts again")
            state.best_step = state.best_loss = None
            state.validated_step = -1

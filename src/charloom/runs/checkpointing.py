"""Save the checkpoints of a run: the best model, and everything that a resumed run needs.

Every file is replaced as a whole, and the best model is saved before resume.safetensors. A run
killed between the two therefore has the best model of steps that it takes again, with the same
bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from charloom.base_model.choices import BASE
from charloom.engines.process_group import ProcessGroup
from charloom.network.parameters import State
from charloom.runs.clock import Clock
from charloom.runs.compute import Setup
from charloom.runs.material import PreparedText
from charloom.runs.recorder import explained
from charloom.storage.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from charloom.storage.folders import RunFolder
from charloom.training.options import COMPUTE_OPTIONS, RESUME_OPTIONS, STOP_OPTIONS, TrainingConfig
from charloom.training.position import MIXER_VERSION
from charloom.training.state import DivergedError, Progress, TrainingState

SAVE_INTERVAL = 10.0  # seconds between two saves of resume.safetensors


class Checkpoints:
    """The checkpoints in a run's folder.

    Args:
        files: the run's folder.
        prepared: the text, and the counts that a model is saved with.
        config: the run's options.
        setup: the engine and optimizer whose state is saved.
        process_group: the processes that train together.
        clock: the run's clock.
        earlier_record: options that only earlier versions record, which are recorded again.
        base: the name of the carried model that the run descends from, None without one.

    Attributes:
        saving_seconds: seconds that the last save took.
    """

    def __init__(
        self,
        files: RunFolder,
        prepared: PreparedText,
        config: TrainingConfig,
        setup: Setup,
        process_group: ProcessGroup,
        clock: Clock,
        earlier_record: Mapping[str, Any] = MappingProxyType({}),
        base: str | None = None,
    ) -> None:
        self._files = files
        self._dataset, self._counts = prepared.dataset, prepared.learned
        self._config = config
        self._setup = setup
        self._process_group = process_group
        self._clock = clock
        self._earlier_record = earlier_record
        self._base = {} if base is None else {BASE: base}
        self._saved_at = clock.now()
        self.saving_seconds = 0.0

    def resume_exists(self) -> bool:
        """Return True if the run has been saved before."""
        return self._files.resume.exists()

    def are_due(self) -> bool:
        """Return True if the run was last saved more than SAVE_INTERVAL ago."""
        return self._clock.now() - self._saved_at > SAVE_INTERVAL

    def best_exists(self) -> bool:
        """Return True if a best model has been saved."""
        return self._files.model.exists()

    def load_best(self) -> Checkpoint:
        """Return the best model.

        Raises:
            CharloomError: if it is missing or damaged.
        """
        return load_checkpoint(self._files.model)

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Save the best model."""
        self._save(self._files.model, checkpoint)

    def save_if_best(self, progress: Progress, state: TrainingState) -> None:
        """Save the model if this is a validation, and no earlier one was better."""
        if progress.kind != "validation" or not progress.best:
            return
        validation = progress.validation
        best = self._checkpoint(
            {
                "step": progress.step,
                "refit": state.refit_step is not None,
                "epoch": progress.epoch,
                "validation": None if validation is None else asdict(validation),
            }
        )
        if self._counts is not None and self._config.read_counts:
            best.mixture = self._counts.unfitted()  # the network cannot do without the counts
        self.save_best(best)

    def refuse_if_diverged(self, state: TrainingState) -> None:
        """Raise DivergedError if the parameters are no longer finite."""
        if not np.isfinite(self._setup.engine.parameters.flat).all():
            raise DivergedError(state.step, self._config)

    def save_resume(self, state: TrainingState, recorded: Mapping[str, int]) -> None:
        """Save everything that a resumed run needs.

        Args:
            state: the run's state; its `elapsed` is set.
            recorded: the positions of the files that are appended to, which are durable.
        """
        state.elapsed = self._clock.elapsed()
        values = {f.name: getattr(state, f.name) for f in fields(state) if f.name != "hidden"}
        optimizer = self._setup.optimizer
        checkpoint = self._checkpoint({"step": state.step})
        optimizer.prepare(self._setup.engine.parameters.flat)
        checkpoint.optimizer = optimizer.slots
        checkpoint.state = self._hidden_of_all_rows(state)
        checkpoint.position = {
            "state": values,
            **recorded,
            "ends": {name: getattr(self._config, name) for name in STOP_OPTIONS},
            **self.computed_by(),
        }
        if self._counts is not None:
            checkpoint.position[MIXER_VERSION] = self._counts.mixer.version
        self._save(self._files.resume, checkpoint)
        self._saved_at = self._clock.now()

    def computed_by(self) -> dict[str, Any]:
        """Return the options that decide how the run is computed, and the number of ranks."""
        engine = self._setup.engine
        chosen = {name: getattr(self._config, name) for name in COMPUTE_OPTIONS}
        return chosen | {
            "engine": engine.name,
            "threads": self._setup.threads,
            "device": engine.device,
            "ranks": self._process_group.size,
        }

    def _hidden_of_all_rows(self, state: TrainingState) -> State:
        if state.hidden is None:
            return self._setup.engine.config.zero_state(1)
        return self._process_group.gather(state.hidden)

    def _checkpoint(self, metrics: dict[str, Any]) -> Checkpoint:
        dataset = self._dataset
        return Checkpoint(
            self._setup.engine.parameters,
            dataset.vocabulary,
            training={k: v for k, v in asdict(self._config).items() if k not in RESUME_OPTIONS}
            | dict(self._earlier_record)
            | ({"lines": True} if dataset.lines else {}),
            text=dataset.record() | self._base,
            metrics=metrics,
        )

    def _save(self, path: Path, checkpoint: Checkpoint) -> None:
        before = self._clock.now()
        with explained(self._files.path):
            save_checkpoint(path, checkpoint)
        self.saving_seconds = self._clock.now() - before

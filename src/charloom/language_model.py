"""A trained model as an object: sample from it, score a text with it, evaluate it, save it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import Predictor
from charloom.errors import CharloomError, printable, shortened
from charloom.evaluation.baselines import Baseline, baselines
from charloom.evaluation.evaluation import Evaluation, evaluation_of, find_overlap
from charloom.evaluation.training_text import TrainingParts, held_out_part
from charloom.network.parameters import ModelConfig
from charloom.network.units import parse_clamps
from charloom.prediction.adaptive import choose_adaptation, score_adaptively
from charloom.prediction.mixture import MixedPredictor
from charloom.prediction.sampling import OverlapGuard, stream_text
from charloom.prediction.scoring import Protocol, Scores, score_ids, score_lines
from charloom.progress import OnProgress
from charloom.storage.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from charloom.storage.folders import MODEL_FILE, model_path
from charloom.text.corpora import can_be_read_again, open_text, reopen_text
from charloom.text.dataset import Dataset, Split, load_dataset
from charloom.text.overlap import LONGEST_TO_INDEX, TrainingIndex
from charloom.text.source import Text
from charloom.text.vocabulary import UnknownCharacterError, Vocabulary


@dataclass(frozen=True)
class CopiedStretch:
    """A stretch of a sample that stands verbatim in the training text; of length 0 if none does.

    place, training_place: where it begins, counted from 0, in the sample and where it first stands
    in the training text; training_line: the latter's line, counted from 1.
    """

    length: int
    text: str
    place: int
    training_place: int
    training_line: int


class LanguageModel:
    """What `charloom.load` and `charloom.train` give.

    With counts in its checkpoint, a model is the mixture of its network and them, unless
    `network_only` asks for the network alone.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        backend: Backend | None = None,
        dataset: Dataset | None = None,
        network_only: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self.engine = (backend or Backend()).open(checkpoint.parameters)
        self.mixture = None if network_only else checkpoint.mixture
        self.predictor: Predictor = self.engine
        if self.mixture is not None:
            self.predictor = MixedPredictor(self.engine, self.mixture)
        self._dataset = dataset  # the training text, where it is already in memory
        self._training_index: TrainingIndex | None = None  # made when it is first asked for

    @property
    def config(self) -> ModelConfig:
        return self.checkpoint.config

    @property
    def vocabulary(self) -> Vocabulary:
        return self.checkpoint.vocabulary

    def encode(self, text: str, *, skip_unknown: bool = False) -> NDArray[np.unsignedinteger]:
        """A text's ids, (N,). Raises UnknownCharacterError, or passes over unknown characters."""
        if skip_unknown:
            return self.vocabulary.encode_known(text)[0]
        return self.vocabulary.encode(text)

    def stream(
        self,
        prompt: str = "",
        *,
        length: int | None = 500,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        stop: str | Sequence[str] = (),
        seed: int = 0,
        index: int = 0,
        skip_unknown: bool = False,
        clamp: Mapping[str, float] | Sequence[str] | str = (),
        max_overlap: int | None = None,
        training_text: str | Path | Text | None = None,
    ) -> Iterator[str]:
        """Yields text piece by piece, as it is drawn: what follows the prompt, without it.

        For a model of bytes, prompt and stop texts are a character a byte, as what is yielded.
        length: characters to draw; None draws for ever. temperature: 0 is greedy. stop: texts that
        end the sample and are left out. index: which sample of that seed; each is its own.
        clamp: units that are held while drawing, {"h17": 0.9} (see charloom.units).
        max_overlap: no stretch of more characters that ends in a drawn one stands in the training
        text, of which all parts count, the test part too; it may begin in the prompt.
        training_text: as for `evaluate`; read only where `max_overlap` needs it.
        Raises CharloomError for settings that make no sense, UnknownCharacterError for a prompt
        with characters that the model never saw, unless `skip_unknown`; with `max_overlap` also
        where the training text is not to be had and, after what was drawn, where no character is
        left to go on with.
        """
        settings = SamplingSettings(temperature, top_k, top_p, min_p)
        if max_overlap is not None and not (isinstance(max_overlap, int) and max_overlap > 0):
            raise CharloomError(
                f"max_overlap is {max_overlap!r}: give a whole number, 1 or more, or leave it out"
            )
        return stream_text(
            self.predictor,
            self.vocabulary,
            prompt=self.encode(prompt, skip_unknown=skip_unknown),
            length=length,
            settings=settings,
            stop=(stop,) if isinstance(stop, str) else stop,
            seed=seed,
            index=index,
            clamps=parse_clamps(clamp, self.config),
            guard=None
            if max_overlap is None
            else OverlapGuard(self.training_index(training_text), max_overlap),
        )

    def sample(self, prompt: str = "", *, length: int = 500, **settings: Any) -> str:
        """The prompt and `length` characters drawn after it; settings as for `stream`."""
        return prompt + "".join(self.stream(prompt, length=length, **settings))

    def overlap(
        self,
        text: str,
        *,
        drawn_from: int = 0,
        training_text: str | Path | Text | None = None,
    ) -> CopiedStretch:
        """The longest stretch of a sample that stands verbatim in the training text, of which all
        parts count, the test part too.

        drawn_from: where the drawn part begins, the prompt's length; the stretch ends in it, but
        may begin before. training_text: where it is, as for `evaluate`.
        Raises CharloomError where the training text is not to be had.
        """
        if drawn_from < 0:
            raise CharloomError(f"drawn_from is {drawn_from}: give 0 or more")
        index = self.training_index(training_text)
        found = index.longest(self.vocabulary.ids_or_minus_one(text), drawn_from)
        newline = self.vocabulary.ids_or_minus_one("\n")[0]
        return CopiedStretch(
            found.length,
            text[found.place : found.place + found.length],
            found.place,
            found.training_place,
            1 + int(np.count_nonzero(index.ids[: found.training_place] == newline)),
        )

    def training_index(self, training_text: str | Path | Text | None = None) -> TrainingIndex:
        """The whole training text in the order in which `overlap` and `max_overlap` look things
        up; made once. training_text: where it is, as for `evaluate`.

        Raises CharloomError where the training text is not to be had, or too long.
        """
        if self._training_index is None:
            dataset, missing = self._training_dataset(training_text)
            if dataset is None:
                raise CharloomError(
                    "looking for what is copied needs the training text, and "
                    f"{missing}: say where it is with --training-text"
                )
            if len(dataset.ids) > LONGEST_TO_INDEX:
                raise CharloomError(
                    f"the training text has {len(dataset.ids):,} characters: what is copied is "
                    f"only looked for in texts of at most {LONGEST_TO_INDEX:,}"
                )
            try:
                self._training_index = TrainingIndex(dataset.ids, len(self.vocabulary))
            except ImportError as error:
                raise CharloomError(
                    "looking for what is copied needs pydivsufsort, which cannot be imported "
                    f"({error}): pip install pydivsufsort"
                ) from None
        return self._training_index

    def score(
        self,
        text: str,
        *,
        protocol: str = "carried",
        skip_unknown: bool = False,
        likeliest: int = 0,
        training_text: str | Path | Text | None = None,
        report: Callable[[int, int], None] | None = None,
    ) -> Scores:
        """For each character of a text, its natural log-probability and whether it was the top
        guess: arrays, (N,). The text is read as if a newline came before it.

        likeliest: also the so many likeliest characters at each place, and their probabilities.
        training_text: where it is now; only the protocol `adaptive` needs it, see `evaluate`.
        """
        if likeliest < 0:
            raise CharloomError(f"likeliest is {likeliest}: give 0 or more")
        ids = self.encode(text, skip_unknown=skip_unknown)
        if len(ids) == 0:
            raise CharloomError("the text has no characters to score")
        parsed = Protocol.parse(protocol)
        dataset, missing = self._training_dataset(training_text) if parsed.adaptive else (None, "")
        before = self.vocabulary.start_id
        held, most = self._held(dataset), min(likeliest, len(self.vocabulary))
        return self._score(ids, before, parsed, held, missing, report, most, alone=False)[0]

    def score_lines(
        self,
        lines: Sequence[str],
        *,
        skip_unknown: bool = False,
        report: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float64]:
        """Each line's natural log-probability, (N,), by itself, as `score` gives its characters'.

        Without its line break; an empty line's is 0. Many lines at a time: fast.
        """
        encoded = []
        for number, line in enumerate(lines):
            try:
                encoded.append(self.encode(line, skip_unknown=skip_unknown))
            except UnknownCharacterError as error:
                raise UnknownCharacterError(f"line {number + 1:,}: {error}") from None
        with np.errstate(all="ignore"):
            return score_lines(
                self.predictor, encoded, self.vocabulary.start_id, _without_stage(report)
            )

    def _score(
        self,
        ids: NDArray[np.unsignedinteger],
        before: int,
        protocol: Protocol,
        held: TrainingParts | None,
        missing: str,
        report: Callable[[int, int], None] | None = None,
        likeliest: int = 0,
        alone: bool = True,
    ) -> tuple[Scores, Scores | None]:
        """The scores of ids, (N,), and, for a mixture and if asked, those of its network alone."""
        on_progress = _without_stage(report)
        with np.errstate(all="ignore"):
            if not protocol.adaptive:
                scores = score_ids(self.predictor, ids, before, protocol, on_progress, likeliest)
                if self.mixture is None or not alone:
                    return scores, None
                return scores, score_ids(self.engine, ids, before, protocol)
            if held is None:
                raise CharloomError(
                    f"the protocol adaptive needs the training text, and {missing}: say where it "
                    "is with --training-text"
                )
            adaptation = choose_adaptation(
                self.engine, self.mixture, held.learned, held.watched, on_progress
            )
            mixture, network = score_adaptively(
                self.engine, ids, before, adaptation, on_progress, likeliest
            )
            return (network, None) if mixture is None else (mixture, network)

    def evaluate(
        self,
        text: str | Path | Text | None = None,
        *,
        protocol: str = "carried",
        training_text: str | Path | Text | None = None,
        with_baselines: bool = True,
        skip_unknown: bool = False,
        report: Callable[[int, int], None] | None = None,
    ) -> Evaluation:
        """Bits per character and more, on the run's test part (its validation part where it has no
        test part) or on a text: a str is the text itself, a Path a file.

        training_text: where the training text is, if not where it was; a str is a name or a path.
        Without it a given text's baselines that need it are empty, with the reason.
        Raises CharloomError where there is nothing to evaluate or the run's part is not to be had.
        """
        parsed = Protocol.parse(protocol)
        dataset, missing = None, ""
        if text is None or with_baselines or parsed.adaptive:
            dataset, missing = self._training_dataset(training_text)
        skipped = 0
        held = self._held(dataset)
        if text is None:
            if dataset is None:
                raise CharloomError(f"{missing}; give a text to evaluate, or --training-text")
            name, part, before = held_out_part(dataset)
            if name == "validation part" and held is not None:
                held = replace(held, watched=part[:0], validation=None)
        else:
            given = text if isinstance(text, Text) else None
            if isinstance(text, Path):
                given = open_text(text, as_bytes=self.vocabulary.as_bytes)
            name = given.name if given else "text"
            content = given.read() if given else str(text)
            if skip_unknown:
                part, skipped = self.vocabulary.encode_known(content)
            else:
                part = self.vocabulary.encode(content)
            before = self.vocabulary.start_id
        if len(part) == 0:
            raise CharloomError(f"{name} has no characters to evaluate")
        scores, network = self._score(part, before, parsed, held, missing, report)
        overlap = None
        if with_baselines and held is not None:
            overlap = find_overlap(held.known, part)
        evaluation = evaluation_of(
            scores,
            self.vocabulary,
            part,
            parsed,
            text=name,
            model="network" if self.mixture is None else "mixture",
            skipped_characters=skipped,
            overlap=overlap,
            overlap_text=""
            if overlap is None
            else self.vocabulary.decode(part[overlap.place : overlap.place + overlap.length]),
        )
        found = {}
        if network is not None:
            note = "without the counts"
            bits = network.nats_per_character / math.log(2)
            found["network"] = Baseline(bits, str(parsed), note)
        if with_baselines:
            found |= baselines(
                self.vocabulary,
                part,
                parsed,
                before=before,
                train=None if held is None else held.known,
                counted=None if held is None else held.train,
                validation=None if held is None else held.validation,
                reason=missing,
            )
        return replace(evaluation, baselines=found)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model to one file, or as model.safetensors into a folder that exists."""
        target = Path(path)
        if target.is_dir():
            target = target / MODEL_FILE
        try:
            save_checkpoint(target, self.checkpoint)
        except OSError as error:
            raise CharloomError(f"cannot save {target}: {error.strerror or error}") from None

    def _held(self, dataset: Dataset | None) -> TrainingParts | None:
        """The parts of the training text, as the model knows them."""
        if dataset is None:
            return None
        refit = bool(self.checkpoint.metrics.get("refit"))
        learned, watched = dataset.fit_and_holdout(refit)
        known = dataset.train
        if refit:  # its counts know all but the test part
            known = dataset.ids[: len(learned) + len(watched)]
        return TrainingParts(learned, watched, known, dataset.train, dataset.validation)

    def _training_dataset(self, elsewhere: str | Path | Text | None) -> tuple[Dataset | None, str]:
        """The text that the model was trained on, or why it is not to be had."""
        if elsewhere is None and self._dataset is not None:
            return self._dataset, ""
        recorded, training = self.checkpoint.text, self.checkpoint.training
        sha256 = recorded.get("sha256")
        if not isinstance(sha256, str):
            return None, "the model does not say what text it was trained on"
        source: str | Path | Text = recorded.get("origin", "") if elsewhere is None else elsewhere
        if elsewhere is None and not can_be_read_again(str(source)):
            where = f" at {printable(str(source))}" if source not in ("", "-") else ""
            name = shortened(recorded.get("name", ""))
            return None, f"the training text {name} is not to be found{where}"
        try:
            reading: dict[str, Any] = {
                "raw": bool(training.get("raw", False)),
                "normalize_newlines": bool(training.get("normalize_newlines", False)),
                "as_bytes": self.vocabulary.as_bytes,
            }
            if isinstance(source, Text):
                text = source
            elif elsewhere is None:
                text = reopen_text(str(source), **reading)
            else:
                text = open_text(source, **reading)
            dataset = load_dataset(
                text,
                Split.parse(str(training.get("split", Split()))),
                base=self.vocabulary,
                sha256=sha256,
            )
        except CharloomError as error:
            return None, str(error)
        return dataset, ""


def _without_stage(report: Callable[[int, int], None] | None) -> OnProgress | None:
    """Return a progress callback that passes the characters done and their total to `report`."""
    if report is None:
        return None
    return lambda stage, done, total: report(done, total or 0)


def load(
    run: str | os.PathLike[str],
    *,
    engine: str = "auto",
    threads: int | None = None,
    device: str = "cpu",
    network_only: bool = False,
) -> LanguageModel:
    """The model of a run's folder, or of a checkpoint file. Raises CharloomError if it is not one.

    A file is checked whole before it is used, and nothing in it can run code. engine: auto,
    compiled, reference or pytorch. threads: the most to use; by default all cores. device: cpu, or
    cuda for the engine pytorch. network_only: without the counts, where the model has some.
    """
    return LanguageModel(
        load_checkpoint(model_path(run)),
        backend=Backend(engine, threads, device),
        network_only=network_only,
    )

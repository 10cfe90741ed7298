"""A trained model as an object: sample from it, score a text with it, evaluate it, save it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from charloom.engines.backend import Backend
from charloom.errors import CharloomError, error_reason
from charloom.prediction.mixture import MixedPredictor, network_of
from charloom.prediction.sampling_model import SamplingModel
from charloom.prediction.unseen import UnseenCharacters
from charloom.storage.checkpoint import load_checkpoint, save_checkpoint
from charloom.storage.folders import MODEL_FILE, model_path
from charloom.text.format import TextFormat

if TYPE_CHECKING:  # these imports, which samples do not need, are inside methods
    from charloom.evaluation.evaluation import Evaluation
    from charloom.evaluation.scored_text import ScoredText
    from charloom.evaluation.training_text import TrainingText
    from charloom.network.parameters import ModelConfig
    from charloom.prediction.scoring import Scores
    from charloom.prediction.states import Pooling
    from charloom.progress import OnProgress
    from charloom.storage.checkpoint import Checkpoint
    from charloom.text.dataset import Dataset
    from charloom.text.document_set import DocumentSet
    from charloom.text.overlap import CopiedStretch, TrainingIndex
    from charloom.text.sources import Texts
    from charloom.text.vocabulary import Vocabulary


class LanguageModel(SamplingModel):
    """A trained model, as `charloom.load` and `charloom.train` return it.

    If the checkpoint has counts, an n-gram model or a context mixer, the predictions are a mixture
    of those of the network and those of the counts. A network can read the counts' predictions too.

    Args:
        checkpoint: the model's parameters, vocabulary and metadata.
        backend: the engine that computes; by default the fastest one on the CPU.
        dataset: the training text, if it is already in memory.
        network_only: whether the network's predictions are not mixed with those of the counts.

    Raises:
        CharloomError: if the network reads counts that the checkpoint lacks.
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
        self.network = network_of(self.engine, checkpoint.mixture)  # with the counts that it reads
        self.predictor = self.network
        if self.mixture is not None:
            self.predictor = MixedPredictor(self.engine, self.mixture)
        self.unseen = UnseenCharacters.of(checkpoint.text, checkpoint.vocabulary)
        self._dataset = dataset
        self._training_index: TrainingIndex | None = None  # built on first use
        self._training_documents: DocumentSet | None = None  # built on first use

    # Classifiers copy the functions that they call, and processes send them to each other.
    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        backend, network_only = Backend.of(self.engine), self.mixture is None
        return {"checkpoint": self.checkpoint, "backend": backend, "network_only": network_only}

    def __setstate__(self, state: dict[str, Any]) -> None:
        LanguageModel.__init__(self, **state)

    @property
    def config(self) -> ModelConfig:
        return self.checkpoint.config

    @property
    def vocabulary(self) -> Vocabulary:
        return self.checkpoint.vocabulary

    @property
    def text_format(self) -> TextFormat:
        """The format in which texts are read, which is that of the training text."""
        return TextFormat.of_training(
            self.checkpoint.training,
            as_bytes=self.vocabulary.as_bytes,
            collection=self.vocabulary.end_id is not None,
        ).for_model(self.vocabulary)

    def training_documents(self, training_text: Texts | None = None) -> DocumentSet:
        """Return the documents of the training text, with which `new` compares.

        They are read on the first call only. `training_text` is as in `evaluate`.

        Raises:
            CharloomError: if the model is not one of documents, or the text is not available.
        """
        if self.vocabulary.end_id is None:
            raise CharloomError(
                "--new requires a model of a collection of documents, and this one was trained on "
                "a single text: use --max-overlap"
            )
        if self._training_documents is None:
            from charloom.text.document_set import DocumentSet

            dataset = self.find_training_text(training_text).require("finding new documents")
            self._training_documents = DocumentSet(dataset.ids, self.vocabulary)
        return self._training_documents

    def overlap(
        self,
        text: str | bytes,
        *,
        drawn_from: int = 0,
        training_text: Texts | None = None,
    ) -> CopiedStretch:
        """Find the longest verbatim overlap of a sample with the training text.

        Its validation and test splits are searched too. Lengths and places count characters of the
        model, which are bytes for some.

        Args:
            text: the prompt and the sample.
            drawn_from: the length of the prompt in it. The overlap ends after the prompt, but can
                begin in it.
            training_text: the training text, as in `evaluate`.

        Raises:
            CharloomError: if the training text is not available or too long.
        """
        if drawn_from < 0:
            raise CharloomError(f"drawn_from is {drawn_from}: pass 0 or more")
        characters = self.as_read(text)
        from charloom.text.overlap import find_copied_stretch

        index = self.training_index(training_text)
        begin = len(self.as_read(text[:drawn_from]))
        return find_copied_stretch(index, self.vocabulary, characters, begin)

    def training_index(self, training_text: Texts | None = None) -> TrainingIndex:
        """Return the index of the training text that `overlap` and `max_overlap` search.

        It is built on the first call only. `training_text` and errors are those of `overlap`.
        """
        if self._training_index is None:
            self._training_index = self.find_training_text(training_text).index()
        return self._training_index

    def score(
        self,
        text: Texts,
        *,
        protocol: str | None = None,
        skip_unknown: bool = False,
        likeliest: int = 0,
        training_text: Texts | None = None,
        on_progress: OnProgress | None = None,
    ) -> Scores:
        """Score each character of a text: its natural log-probability and whether it was predicted.

        The text is read like a prompt, so that its Unicode form can change. The scores are those of
        the characters that `encode` returns, which are bytes in a model of bytes. It is scored
        as if a newline preceded it. A model of documents reads it in the same way as its training
        text, and scores the end of each document after its characters.

        Unknown characters have the share of the probability that the model leaves to them. A model
        of an earlier version leaves them none.

        Args:
            text: the text as in `evaluate`. Every str is a text, also one that is a file's name.
            protocol: `carried`, `cold-N` or `adaptive`, and for a model of documents `documents`
                instead of `carried`, which is the default.
            skip_unknown: whether unknown characters are skipped, at no cost.
            likeliest: the number of likeliest characters and probabilities at each position.
            training_text: the training text as in `evaluate`, which only the protocol `adaptive`
                requires.
            on_progress: called with the stage, the number of characters scored, and their total.

        Raises:
            CharloomError: if the text is empty, the protocol is unknown or the training text is
                required and not available.
            UnknownCharacterError: if the text has an unknown character, the model leaves it no
                probability, and `skip_unknown` is not set.
        """
        if likeliest < 0:
            raise CharloomError(f"likeliest is {likeliest}: pass 0 or more")
        scored = self.encode_to_score(
            text, skip_unknown=skip_unknown, checks_names=False, on_progress=on_progress
        )
        if len(scored.ids) == 0:
            raise CharloomError("the text has no characters to score")
        likeliest = min(likeliest, len(self.vocabulary))
        from charloom.evaluation.score_text import score_text
        from charloom.prediction.scoring import Protocol, Scores

        parsed = Protocol.choose(protocol, self.config.end_id)
        training = self.find_training_text(training_text)
        stretches = score_text(
            self, scored, parsed, training, on_progress=on_progress, likeliest=likeliest
        )
        return Scores.collected((scores for scores, _ in stretches), len(scored.ids), likeliest)

    def score_lines(
        self,
        lines: Sequence[str | bytes],
        *,
        skip_unknown: bool = False,
        on_progress: OnProgress | None = None,
    ) -> NDArray[np.float64]:
        """Return the natural log-probability of each line by itself, (N,).

        It is the sum of those that `score` returns for the line's characters, without its line
        break, and 0 for an empty line. Lines are scored in batches, which is fast. In a model of
        documents, each line is a document: `score_documents` scores it.

        Args:
            lines: the lines, without their line breaks.
            skip_unknown, on_progress: as in `score`, whose errors are raised.
        """
        read = self._pieces_as_read(lines, "line")
        return self.score_pieces(read, skip_unknown=skip_unknown, on_progress=on_progress)[0]

    def score_documents(
        self,
        documents: Sequence[str | bytes],
        *,
        prefix: bool = False,
        skip_unknown: bool = False,
        on_progress: OnProgress | None = None,
    ) -> NDArray[np.float64]:
        """Return the natural log-probability of each document, with its end, (N,).

        Args:
            documents: the documents, which are scored in batches.
            prefix: whether each is only the beginning of a document, whose end is not scored.
            skip_unknown, on_progress: as in `score`, whose errors are raised.

        Raises:
            CharloomError: if the model was trained on a single text.
        """
        if self.config.end_id is None:
            raise CharloomError(
                "the model was trained on a single text and does not predict the end of a "
                "document: use score_lines"
            )
        found, _ = self.score_pieces(
            self._pieces_as_read(documents, "document"),
            prefix=prefix,
            skip_unknown=skip_unknown,
            kind="document",
            on_progress=on_progress,
        )
        return found

    def score_pieces(
        self,
        pieces: Sequence[str],
        *,
        prefix: bool = False,
        skip_unknown: bool = False,
        kind: str = "line",
        places: Sequence[int] | Sequence[str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Score lines or documents, in characters of the model, like `score_lines`.

        `kind` and `places` name one of them in error messages. Returns the natural log-probability
        of each and the number of its unknown characters, (N,).
        """
        from charloom.evaluation.scored_text import ScoredPieces

        end_id = None if prefix else self.config.end_id
        encoded = ScoredPieces.of(
            pieces, self.vocabulary, self.unseen, end_id=end_id, skip_unknown=skip_unknown,
            kind=kind, places=places,
        )  # fmt: skip
        with np.errstate(all="ignore"):
            return encoded.score(self.predictor, self.vocabulary.start_id, on_progress)

    def states(
        self, text: Texts, *, skip_unknown: bool = False, on_progress: OnProgress | None = None
    ) -> NDArray[np.float32]:
        """Return the network's hidden state after each character of a text, (N, F).

        The columns are the hidden units of all layers: those of layer 0, then those of layer 1. In
        a model of bytes, each byte has a row. The end of a document is without one.

        Args:
            text: the text as in `score`.
            skip_unknown: whether unknown characters are skipped, because they have no state.
            on_progress: as in `score`.
        """
        read = self.encode_to_score(
            text, charges_unknown=False, skip_unknown=skip_unknown, checks_names=False
        )
        from charloom.prediction.states import states_of_text

        return states_of_text(self.network, read.ids, read.before, on_progress)

    def line_states(
        self,
        lines: Iterable[str | bytes],
        *,
        pooling: Pooling = "mean",
        skip_unknown: bool = False,
        on_progress: OnProgress | None = None,
    ) -> NDArray[np.float32]:
        """Return the network's hidden states of each line by itself, (D, F).

        An empty line has zeros. In a model of documents, each line is a document.

        Args:
            lines: the lines, without their line breaks, which are read in batches.
            pooling: `mean` for the mean of the states of a line, or `last` for its last one.
            skip_unknown, on_progress: as in `states`, whose errors are raised.
        """
        from charloom.evaluation.scored_text import ScoredPieces
        from charloom.prediction.states import states_of_pieces

        read = self._pieces_as_read(lines, "line")
        encoded = ScoredPieces.of(read, self.vocabulary, None, skip_unknown=skip_unknown)
        before = self.vocabulary.start_id
        return states_of_pieces(
            self.network, encoded.ids, encoded.lengths, before, pooling, on_progress
        )

    def evaluate(
        self,
        text: Texts | None = None,
        *,
        protocol: str | None = None,
        training_text: Texts | None = None,
        with_baselines: bool = True,
        skip_unknown: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Evaluation:
        """Evaluate the model, beside baselines, on held-out text.

        Args:
            text: the text to evaluate: a str is the text itself, a Path is a file or a folder, and
                a Text is what `open_text` returned. For a model of documents, it can be a list of
                documents. By default it is the run's test split, or its validation split if it has
                no test split.
            protocol: as in `score`.
            training_text: the training text as for `charloom.train`, if it is not at its recorded
                path. If it is not available, the baselines that require it are empty and contain
                the reason.
            with_baselines: whether baselines and the overlap with the training text are computed.
            skip_unknown, on_progress: as in `score`, whose errors are raised.
        """
        from charloom.evaluation.evaluation import evaluate
        from charloom.prediction.scoring import Protocol

        parsed = Protocol.choose(protocol, self.config.end_id)
        training = self.find_training_text(training_text)
        scored = (
            training.held_out()
            if text is None
            else self.encode_to_score(text, skip_unknown=skip_unknown, on_progress=on_progress)
        )
        return evaluate(
            self, scored, parsed, training, with_baselines=with_baselines, on_progress=on_progress
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one file, or as model.safetensors into an existing folder.

        Raises:
            CharloomError: if the file cannot be written.
        """
        target = Path(path)
        if target.is_dir():
            target = target / MODEL_FILE
        try:
            save_checkpoint(target, self.checkpoint)
        except OSError as error:
            raise CharloomError(f"cannot save {target}: {error_reason(error)}") from None

    def find_training_text(self, elsewhere: Texts | None) -> TrainingText:
        """Return the training text, which is read on first use. `elsewhere` is as in `evaluate`."""
        from charloom.evaluation.training_text import TrainingText
        from charloom.text.sources import texts_to_train_on

        opener = None if elsewhere is None else texts_to_train_on(elsewhere)
        return TrainingText(self.checkpoint, opener, self._dataset)

    def encode_to_score(
        self, text: Texts, *, charges_unknown: bool = True, **settings: Any
    ) -> ScoredText:
        """Encode a text as `score` reads it. The settings are those of `open_and_encode`."""
        from charloom.evaluation.scored_text import open_and_encode

        unseen = self.unseen if charges_unknown else None
        return open_and_encode(text, self.text_format, self.vocabulary, unseen, **settings)

    def _pieces_as_read(self, pieces: Iterable[str | bytes], kind: str) -> Any:
        from charloom.evaluation.scored_text import pieces_as_read

        return pieces_as_read(pieces, kind, self.text_format, self.vocabulary)


def load(
    run: str | os.PathLike[str],
    *,
    engine: str = "auto",
    threads: int | None = None,
    device: str = "cpu",
    network_only: bool = False,
) -> LanguageModel:
    """Load the model of a run's folder or of a checkpoint file.

    The file is validated completely before it is used, and cannot run code.

    Args:
        run: the folder or the file.
        engine: auto, compiled, reference or pytorch.
        threads: the maximum number of threads; by default all cores.
        device: cpu, or cuda for the PyTorch engine.
        network_only: whether the network's predictions are not mixed with those of counts.

    Raises:
        CharloomError: if the file is not a model or cannot be read.
    """
    checkpoint, backend = load_checkpoint(model_path(run)), Backend(engine, threads, device)
    return LanguageModel(checkpoint, backend=backend, network_only=network_only)

"""The sample that a training writes at each validation."""

from __future__ import annotations

import numpy as np

from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import Predictor
from charloom.prediction.sampling import SampleRequest, stream_text
from charloom.text.typed import as_shown
from charloom.text.vocabulary import END, END_NAME, Vocabulary

SAMPLE_LENGTH = 300  # characters, at most


def validation_sample(predictor: Predictor, vocabulary: Vocabulary, seed: int, step: int) -> str:
    """Return the sample of a validation: a text, or as many whole documents as fit.

    Every document but an empty one begins a line. If documents can have several lines, a line with
    the name of END follows each. Bytes are decoded.
    """
    if vocabulary.end_id is None:
        request = SampleRequest(length=SAMPLE_LENGTH, seed=seed, index=step)
        return "".join(stream_text(predictor, vocabulary, request))
    uniforms = np.random.Generator(np.random.PCG64([seed, step])).random((SAMPLE_LENGTH, 1))
    start = np.array([vocabulary.end_id], np.intp)
    # The state begins from zeros after every END, so one sequence holds several documents.
    ids, _ = predictor.generate(start, predictor.zero_state(1), SamplingSettings(), uniforms)
    whole = _whole_documents(vocabulary.decode(ids[:, 0]), "\n" in vocabulary.characters)
    return as_shown(whole, vocabulary, ends=False)


def sample_heading(step: int | float, nats: int | float | None) -> str:
    """Return the line before a sample in samples.txt, given the validation's loss, if any."""
    return f"--- step {step}" + ("" if nats is None else f", {nats:.4f} nats")


def _whole_documents(text: str, several_lines: bool) -> str:
    """Return the whole documents of a text; the beginning of the only one if it has no end."""
    whole, separator, _ = text.rpartition(END)
    if not separator:
        return text
    documents = filter(None, whole.split(END))
    if not several_lines:
        return "\n".join(documents)
    return "\n".join(document.removesuffix("\n") + "\n" + END_NAME for document in documents)

"""The contents of a checkpoint, without its weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from charloom.errors import plural
from charloom.ngrams.counts import CONTEXT_MIXER, NGRAM_MODEL, Counts
from charloom.ngrams.table import NGramTable
from charloom.storage.checkpoint import Checkpoint, load_checkpoint
from charloom.storage.folders import model_path
from charloom.text.vocabulary import END


def info(run: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what is in the checkpoint of a run: configuration, vocabulary, options, text, metrics.

    They are plain JSON values. In the vocabulary, "" is the end of a document.

    Args:
        run: the folder of a run, or a checkpoint file.

    Raises:
        CharloomError: if the file is not a model or cannot be read.
    """
    path = model_path(run)
    return facts_of(load_checkpoint(path), path)


def facts_of(checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    """Return the contents of a checkpoint, which was read from a file, as `info` does."""
    vocabulary, mixture = checkpoint.vocabulary, checkpoint.mixture
    facts: dict[str, Any] = {
        "file": str(path),
        "config": checkpoint.config.as_dict() | {"bytes": vocabulary.as_bytes},
        "parameters": checkpoint.config.parameter_count,
        "vocabulary": ["" if c == END else c for c in vocabulary.characters],
        "training": checkpoint.training,
        "text": checkpoint.text,
        "metrics": checkpoint.metrics,
        "counts": None if mixture is None else _counts_facts(mixture.counts),
    }
    if checkpoint.position is not None:
        facts["position"] = checkpoint.position
    return facts


def _counts_facts(counts: Counts) -> dict[str, Any]:
    """Return the kind and the size of counts."""
    if isinstance(counts, NGramTable):
        ngrams = len(counts.characters)
        return {"context": counts.context, "ngrams": ngrams, "bytes": counts.nbytes}
    from charloom.context_mixing.layout import CONTEXT_COUNT

    return {"kind": "context mixing", "contexts": CONTEXT_COUNT, "bytes": counts.nbytes}


def counts_in_words(counts: Counts, unit: str) -> str:
    """Return counts in words.

    Args:
        counts: those of a mixture.
        unit: that of a context, a character or a byte.
    """
    facts = _counts_facts(counts)
    if "ngrams" in facts:
        ngrams, context = plural(facts["ngrams"], "n-gram"), plural(facts["context"], unit)
        return f"an {NGRAM_MODEL}: {ngrams}, {context} of context, {facts['bytes']:,} bytes"
    return f"a {CONTEXT_MIXER}: {facts['contexts']} contexts, {facts['bytes']:,} bytes"

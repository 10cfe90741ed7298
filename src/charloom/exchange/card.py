"""Model cards for Hugging Face Hub."""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from charloom.base_model.choices import base_of
from charloom.errors import plural, printable
from charloom.evaluation.evaluation import Evaluation, Row
from charloom.evaluation.records import Records, evaluations_of
from charloom.evaluation.verdict import verdict
from charloom.exchange.hub_library import EvalResult, ModelCard, ModelCardData
from charloom.ngrams.counts import CONTEXT_MIXER, NGRAM_MODEL
from charloom.ngrams.table import NGramTable
from charloom.storage.checkpoint import Checkpoint

MARK = "<!-- Written by charloom, which keeps it as it is once it was changed. SHA-256 {} -->\n"
TEMPLATE = Path(__file__).with_name("card.md.jinja")
LONGEST_NAME = 200  # characters of a text's name, or of another library's message


def card_kept(card: str | Path) -> str:
    """Return the message about a card that was not overwritten."""
    return (
        f"{printable(str(card))} was edited by hand and has not been overwritten (its results may "
        "be out of date): delete it to regenerate it"
    )


def published(checkpoint: Checkpoint, records: Records) -> list[dict[str, Any]]:
    """Return the records of a model's weights, without the training text's overlaps."""
    return [
        {"sha256": checkpoint.sha256, "evaluation": replace(found, overlap_text="").as_dict()}
        for found in evaluations_of(records, checkpoint.sha256)
    ]


def model_card(
    checkpoint: Checkpoint, records: Records, model_name: str, **metadata: Any
) -> ModelCard:
    """Describe a model: what it is, how to load it and how well it predicts.

    Args:
        checkpoint: the model.
        records: evaluations, as `read_evaluations` returns them; those of other weights are
            skipped.
        model_name: the model's name.
        metadata: entries of ModelCardData, such as license, which replace ours.

    Returns:
        The card. It ends with a SHA-256 by which an edited card is detected.
    """
    config = checkpoint.config
    found = evaluations_of(records, checkpoint.sha256)
    data = ModelCardData(
        **{
            "library_name": "charloom",
            "pipeline_tag": "text-generation",
            "tags": ["character-level", "language-model", "recurrent-neural-network", config.cell],
            "model_name": printable(model_name),
            "eval_results": _eval_results(checkpoint, found) or None,
        }
        | metadata
    )
    values = {
        **_network_values(checkpoint),
        **_text_values(checkpoint),
        **_use_values(model_name),
        "evaluations": [_evaluation_values(one, config.cell) for one in found],
        **_validation_values(checkpoint),
    }
    card = ModelCard.from_template(data, template_path=str(TEMPLATE), **values)
    card.text += "\n\n"
    card.text += _mark(str(card))
    return card


def _mark(content: str) -> str:
    return MARK.format(hashlib.sha256(content.encode()).hexdigest())


def is_as_written(path: Path) -> bool:
    """Return whether a card was written by charloom and not edited since."""
    try:
        content, found, _ = (text := path.read_text("utf-8")).rpartition(MARK.split("{}")[0])
    except ValueError:
        return False
    return bool(found) and content + _mark(content) == text


# Values for the template. `_code` or `_plain` escapes each value that comes from a text or a file.


def _network_values(checkpoint: Checkpoint) -> dict[str, Any]:
    config, vocabulary, mixture = checkpoint.config, checkpoint.vocabulary, checkpoint.mixture
    values = {
        "unit": f"{vocabulary.unit}s",
        "cell": config.cell,
        "hidden_units": plural(config.hidden_size, "hidden unit"),
        "layers": plural(config.layers, "layer"),
        "parameters": plural(config.parameter_count, "parameter"),
        "dtype": config.dtype,
        "vocabulary_size": f"{len(vocabulary) - (vocabulary.end_id is not None):,}",
    }
    if (base := base_of(checkpoint.text)) is not None:
        values["base"] = base
    if vocabulary.end_id is not None:
        values["end_id"] = str(vocabulary.end_id)
        values["document"] = _document(checkpoint.training)
    if mixture is not None:
        counts = mixture.counts
        values["counts"] = f"a {CONTEXT_MIXER}"
        if isinstance(counts, NGramTable):
            ngrams = plural(len(counts.characters), "n-gram")
            context = plural(counts.context, vocabulary.unit)
            values["counts"] = f"an {NGRAM_MODEL} of {ngrams} ({context} of context)"
        if config.extra_inputs:
            values["reads"] = "yes"
    return values


def _document(training: Mapping[str, Any]) -> str:
    """Return what a document is, by the options that the model was trained with."""
    if training.get("lines"):
        return "a line of the text"
    separator = training.get("separator")
    if separator is not None:
        quoted = _code(f"'{separator}'")
        return f"the text between two separators {quoted}"
    if training.get("column") is not None:
        return f"the field {_code(training['column'])} of a row"
    return "a file"


def _text_values(checkpoint: Checkpoint) -> dict[str, str]:
    text = checkpoint.text
    if not text:
        return {"nameless": _code("")}
    size, documents = text.get("characters"), text.get("documents")
    values = {} if type(documents) is not int else {"documents": plural(documents, "document")}
    return values | {
        "text_name": _code(text.get("name", "")),
        "text_size": "characters" if type(size) is not int else plural(size, "character"),
        "text_sha256": _code(text.get("sha256", "")),
    }


def _use_values(model_name: str) -> dict[str, Any]:
    name = printable(model_name)
    return {
        "title": _code(model_name),
        "on_hub": "/" in name,
        "python_name": repr(name),
        "shell_name": shlex.quote(name),
        "shell_folder": shlex.quote(name.rpartition("/")[2] or name),
    }


def _evaluation_values(found: Evaluation, cell: str) -> dict[str, Any]:
    interval = found.interval and [f"{nats / math.log(2):.4f}" for nats in found.interval]
    return {
        "text": _plain(found.text),
        "characters": plural(found.characters, found.unit),
        "unit": found.unit,
        "documents": found.documents and plural(found.documents, "document"),
        "nats_per_document": found.documents and f"{found.nats_per_document:.4f}",
        "protocol": _plain(found.protocol),
        "bits": f"{found.bits_per_character:.4f}",
        "bits_per_byte": f"{found.bits_per_byte:.4f}",
        "perplexity": f"{found.perplexity:.3f}",
        "accuracy": f"{100 * found.accuracy:.1f}%",
        "interval": interval,
        "overlap": found.overlap
        and found.overlap.length
        and plural(found.overlap.length, "character"),
        "chosen_on": found.text == "validation split",
        "rows": [
            _table_row(row, row.predictor == found.predictor(cell)) for row in found.rows(cell)
        ],
        "verdict": _plain(verdict(found)),
    }


def _table_row(row: Row, ours: bool) -> str:
    bits = "–" if row.bits is None else f"{row.bits:.4f}"
    cells = (
        f"**{bits}**" if ours else bits,
        _plain(row.predictor),
        _plain(row.protocol),
        _plain(row.note),
    )
    return f"| {' | '.join(cells)} |".replace("  ", " ")


def _validation_values(checkpoint: Checkpoint) -> dict[str, str]:
    found = checkpoint.metrics.get("validation")
    nats = found.get("nats_per_character") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(nats, float):
        return {}
    return {
        "validation_bits": f"{nats / math.log(2):.4f}",
        "validation_protocol": _plain(found.get("protocol")),
    }


def _eval_results(checkpoint: Checkpoint, found: Sequence[Evaluation]) -> list[EvalResult]:
    """Return the model's own metrics for the card's metadata, without those of baselines."""
    cell, results = checkpoint.config.cell, []
    for one in found:
        protocol, ours = printable(one.protocol), one.predictor(cell)
        if one.base is not None:
            protocol += f", started from {one.base}"
        metrics = [
            ("bits_per_character", "bits per character", one.bits_per_character, ours),
            ("perplexity", "perplexity per character", one.perplexity, ours),
            ("accuracy", "top-1 accuracy", one.accuracy, ours),
        ]
        alone = one.baselines.get("network")
        if alone is not None and alone.bits_per_character is not None:
            network, bits = f"this {cell} alone", alone.bits_per_character
            metrics.append(("bits_per_character", "bits per character", bits, network))
        split, name = printable(one.text), printable(str(checkpoint.text.get("name", "")))
        results += [
            EvalResult(
                task_type="text-generation",
                dataset_type="own-text",
                dataset_name=f"{name[:LONGEST_NAME]}, {split}",
                dataset_split=split.removesuffix(" split"),
                metric_type=kind,
                metric_name=f"{metric} ({predictor}, {protocol})",
                metric_value=round(value, 4),
            )
            for kind, metric, value, predictor in metrics
        ]
    return results


def _code(text: object) -> str:
    """Quote a text as a Markdown code span of one line, so that it is shown literally."""
    shown = printable(str(text))[:LONGEST_NAME]
    if not shown.strip():
        return "(unnamed)"
    longest = max(map(len, re.findall("`+", shown)), default=0)
    space = " " if shown[0] in "` " or shown[-1] in "` " else ""
    fence = "`" * (longest + 1)
    return f"{fence}{space}{shown}{space}{fence}"


def _plain(text: object) -> str:
    """Escape a text so that Markdown shows it literally, in a table too."""
    return re.sub(r"([\\`*_\[\]<>|&~$:@])", r"\\\1", printable(str(text)))

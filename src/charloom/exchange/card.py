"""Model cards for Hugging Face Hub."""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from charloom.errors import printable
from charloom.evaluation.records import rows_of_evaluation
from charloom.exchange.hub_library import EvalResult, ModelCard, ModelCardData
from charloom.storage.checkpoint import Checkpoint

MARK = "<!-- Written by charloom, which keeps it as it is once it was changed. SHA-256 {} -->\n"
LONGEST_NAME = 200  # characters of a text's name, or another's reason, that are shown
Evaluations = Sequence[Mapping[str, Any]]  # as `read_evaluations` gives them


def card_kept(card: str | Path) -> str:
    """The sentence about a card that was not replaced."""
    return (
        f"{printable(str(card))} is not as charloom wrote it and is kept as it is, its figures too:"
        " delete it to have a new one"
    )


def evaluations_of(checkpoint: Checkpoint, evaluations: Evaluations) -> Iterator[dict[str, Any]]:
    """Those of these weights that are whole, without the stretch of text that a leak showed."""
    for entry in evaluations:
        found = entry["evaluation"]
        shown = rows_of_evaluation(found, checkpoint.config.cell)
        if checkpoint.sha256 is None or entry["sha256"] != checkpoint.sha256 or shown is None:
            continue
        overlap = found["longest_overlap"]
        yield {
            "sha256": entry["sha256"],
            "evaluation": {**found, "longest_overlap": overlap and {**overlap, "text": ""}},
        }


# The card.


def model_card(
    checkpoint: Checkpoint, evaluations: Evaluations, model_name: str, **metadata: Any
) -> ModelCard:
    """What a model is, how to load it and how well it predicts, with metadata for the hub.

    evaluations: those of other weights are left out. metadata: entries of ModelCardData, which
    stand above ours, such as license. Ends with a mark by which a changed card is known.
    """
    config = checkpoint.config
    found = [
        {**rows, "bits_of_network": _bits_of_network(entry["evaluation"])}
        for entry in evaluations_of(checkpoint, evaluations)
        if (rows := rows_of_evaluation(entry["evaluation"], config.cell)) is not None
    ]
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
    parts = [
        f"# {_code(model_name)}",
        _what_it_is(checkpoint),
        "## Training text",
        _training_text(checkpoint),
        "## Use",
        _use(model_name),
        "## Evaluation",
        *(_evaluation(checkpoint, one) for one in found),
        _protocols() if found else _not_evaluated(checkpoint),
        "## Limits",
        "It writes in the manner of its text, a character at a time. It knows nothing, makes "
        "things up, can repeat stretches of its text word for word, and cannot write a character "
        "that its text does not have. Its figures hold for that text alone.",
    ]
    card = ModelCard("---\n" + data.to_yaml() + "\n---\n\n" + "\n\n".join(parts) + "\n\n")
    card.text += _mark(str(card))
    return card


def _mark(content: str) -> str:
    return MARK.format(hashlib.sha256(content.encode()).hexdigest())


def is_as_written(path: Path) -> bool:
    """Whether a card is one of ours to which nobody did anything."""
    try:
        content, found, _ = (text := path.read_text("utf-8")).rpartition(MARK.split("{}")[0])
    except ValueError:
        return False
    return bool(found) and content + _mark(content) == text


def _what_it_is(checkpoint: Checkpoint) -> str:
    config, vocabulary = checkpoint.config, checkpoint.vocabulary
    kind = "bytes" if vocabulary.as_bytes else "characters"
    layers = "one layer" if config.layers == 1 else f"{config.layers} layers"
    text = (
        f"A language model of {kind}, made with charloom: a recurrent network ({config.cell}) of "
        f"{config.hidden_size:,} hidden units in {layers}, {config.parameter_count:,} parameters "
        f"in {config.dtype}, over a vocabulary of {len(vocabulary):,} {kind}."
    )
    if checkpoint.mixture is None:
        return f"{text} It is the network alone, without counts."
    table = checkpoint.mixture.table
    return (
        f"{text} Its predictions are mixed with those of {len(table.characters):,} n-grams that "
        f"were counted ({table.context} characters of context), which hold the text's own wording."
    )


def _training_text(checkpoint: Checkpoint) -> str:
    text = checkpoint.text
    if not text:
        return "The model does not say what text it was trained on."
    size = text.get("characters")
    of = "characters" if type(size) is not int else f"{size:,} characters"
    return (
        f"{_code(text.get('name', ''))}, {of}, SHA-256 {_code(text.get('sha256', ''))}. Nothing is "
        "claimed here about its license."
    )


def _use(model_name: str) -> str:
    name = printable(model_name)
    folder = shlex.quote(name.rpartition("/")[2] or name)
    where = "" if "/" in name else "  # this folder; on the hub its owner stands before it"
    lines = [
        "```python",
        "from charloom.hub import HubModel  # pip install 'charloom[hub]'",
        "",
        f"model = HubModel.from_pretrained({name!a}){where}",
        "print(model.sample(length=200, temperature=0.7))",
        "```",
        "",
        "The file `model.safetensors` is all there is to it: it is checked whole by its SHA-256, "
        "cannot run code, and needs charloom alone.",
        "",
        "```sh",
        *([f"hf download {shlex.quote(name)} --local-dir {folder}"] if "/" in name else []),
        f"charloom sample {folder} --length 200 --temperature 0.7",
        f"charloom info {folder}",
        "```",
    ]
    return "\n".join(lines)


def _evaluation(checkpoint: Checkpoint, found: Mapping[str, Any]) -> str:
    """An evaluation in words, and its rows as `charloom evaluate` prints them."""
    sentences = [
        f"On the {_plain(found['text'])} of {_code(checkpoint.text.get('name', ''))}, "
        f"{found['characters']:,} characters, by the protocol {_plain(found['protocol'])}: "
        f"{found['bits']:.4f} bits per character ({found['bits_per_byte']:.4f} per byte), "
        f"perplexity {found['perplexity']:.3f} per character, top guess right "
        f"{100 * found['accuracy']:.1f}%."
    ]
    if found["interval"]:
        low, high = (nats / math.log(2) for nats in found["interval"])
        sentences.append(f"In 95 of 100 such texts it is between {low:.4f} and {high:.4f} bits.")
    if found["overlap"]:
        sentences.append(
            f"The longest stretch that stands in the training text has "
            f"{found['overlap']['characters']:,} characters."
        )
    if found["text"] == "validation part":
        sentences.append("The best weights were chosen on this very part, which flatters them.")
    rows = ["| bits per character | predictor | protocol | |", "| ---: | --- | --- | --- |"]
    for bits, name, protocol, note in found["rows"]:
        figure = "–" if bits is None else f"{bits:.4f}"
        ours = "**" if name == found["ours"] else ""
        cells = (ours + figure + ours, _plain(name), _plain(protocol), _plain(note))
        rows.append(f"| {' | '.join(cells)} |".replace("  ", " "))
    network = f"this {checkpoint.config.cell}"
    better = [
        name
        for bits, name, *_ in found["rows"]
        if bits is not None and bits < found["bits"] and name not in (found["ours"], network)
    ]
    if better:
        verdict = f"Better than this model here: {', '.join(_plain(name) for name in better)}."
    else:
        verdict = "No other predictor in the table is better here."
    return "\n".join([" ".join(sentences), "", *rows, "", verdict])


def _protocols() -> str:
    return (
        "The protocol says what a predictor may know: `carried` all of the part that went before, "
        "`cold-N` at most N characters of it; `adaptive` ones go on learning from it, `static` "
        "ones look at nothing before."
    )


def _not_evaluated(checkpoint: Checkpoint) -> str:
    text = (
        "These weights were not evaluated: `charloom evaluate` on their run, before they are saved "
        "for the hub, puts their figures here, beside those of n-grams and compressors."
    )
    found = checkpoint.metrics.get("validation")
    found = found if isinstance(found, dict) else {}
    nats = found.get("nats_per_character")
    if not isinstance(nats, float):
        return text
    return (
        f"{text} While it was trained, the network alone had {nats / math.log(2):.4f} bits per "
        f"character on what was held out (protocol {_plain(found.get('protocol'))}). That is the "
        "best of its validations, which flatters it."
    )


def _bits_of_network(found: Mapping[str, Any]) -> float | None:
    """The figure of a mixture's network alone, where there is one."""
    bits = found["baselines"].get("network", {}).get("bits_per_character")
    return None if bits is None else float(bits)


def _eval_results(checkpoint: Checkpoint, found: Sequence[Mapping[str, Any]]) -> list[EvalResult]:
    """The model's own figures; those of other predictors are no results of it."""
    results = []
    for one in found:
        protocol = printable(one["protocol"])
        figures = [
            ("bits_per_character", "bits per character", one["bits"], one["ours"]),
            ("perplexity", "perplexity per character", one["perplexity"], one["ours"]),
            ("accuracy", "top guess right", one["accuracy"], one["ours"]),
        ]
        if one["bits_of_network"] is not None:
            network = f"this {checkpoint.config.cell} alone"
            bits = one["bits_of_network"]
            figures.append(("bits_per_character", "bits per character", bits, network))
        part, name = printable(one["text"]), printable(checkpoint.text.get("name", ""))
        results += [
            EvalResult(
                task_type="text-generation",
                dataset_type="own-text",
                dataset_name=f"{name[:LONGEST_NAME]}, {part}",
                dataset_split=part.removesuffix(" part"),
                metric_type=kind,
                metric_name=f"{figure} ({whose}, {protocol})",
                metric_value=round(value, 4),
            )
            for kind, figure, value, whose in figures
        ]
    return results


def _code(text: object) -> str:
    """A text as Markdown shows it letter by letter, whatever it is: a code span of one line."""
    shown = printable(str(text))[:LONGEST_NAME]
    if not shown.strip():
        return "(without a name)"
    longest = max(map(len, re.findall("`+", shown)), default=0)
    space = " " if shown[0] in "` " or shown[-1] in "` " else ""
    fence = "`" * (longest + 1)
    return f"{fence}{space}{shown}{space}{fence}"


def _plain(text: object) -> str:
    """A text that Markdown shows as it is, in a table too."""
    return re.sub(r"([\\`*_\[\]<>|&~$:@])", r"\\\1", printable(str(text)))

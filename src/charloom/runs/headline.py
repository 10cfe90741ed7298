"""The headline of a report: the result beside the baselines, and a sentence for everybody.

An evaluation is shown if there is one, else the best validation. Results of different texts or
protocols are never shown beside each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

NATS_PER_BIT = math.log(2)
COMPRESSORS = ("xz", "bzip2")
PLAIN = ("carried", "documents")  # protocols of a model that does not learn while it reads
NAMES = {"ngram": "n-gram model", "mixture": "this model"}  # of rows of an evaluation


def headline(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the headline of a report, None if the runs have no result.

    Args:
        runs: the data of the runs, as the page's script reads it.

    Returns:
        `bits` (None for several runs), its name `of`, `sentence`, `note`, and `bars`. A bar has a
        name, a note, bits and `ours`. The best one comes first.
    """
    if len(runs) > 1:
        return _comparison(runs)
    found = _chosen(runs[0]["evaluations"])
    return _validated(runs[0]) if found is None else _evaluated(found)


def _bar(name: str, note: str, bits: float, ours: bool = False) -> dict[str, Any]:
    return {"name": name, "note": note, "bits": bits, "ours": ours}


def _chosen(evaluations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the evaluation of the whole model under a plain protocol, or else another one."""

    def rank(one: Mapping[str, Any]) -> tuple[bool, bool]:
        return one["protocol"] not in PLAIN, one["ours"] != "mixture"

    return min(evaluations, key=rank, default=None)


def _evaluated(found: Mapping[str, Any]) -> dict[str, Any]:
    bars = []
    for bits, name, protocol, _ in found["rows"]:
        ours = name == found["ours"]
        if bits is not None:
            label = "this model" if ours else NAMES.get(name, name)
            label = "network alone" if label.startswith("this ") and not ours else label
            bars.append(_bar(label, protocol, bits, ours))
    noun = "bytes" if found["unit"] == "byte" else "characters"
    sentence = (
        f"It guesses {100 * found['accuracy']:.0f} of 100 {noun} right in text held back from its "
        f"training, and could store that text in {100 * found['bits_per_byte'] / 8:.0f}% of its "
        "size"
    )
    packed = [(bits, name) for bits, name, *_ in found["rows"] if name in COMPRESSORS]
    packed = [(bits, name) for bits, name in packed if bits is not None and bits > 0]
    if packed:
        bits, name = min(packed)
        size = bits * found["bits_per_byte"] / found["bits"] / 8 if found["bits"] else bits / 8
        sentence += f"; the compressor {name} needs {100 * size:.0f}%"
    return {
        "bits": found["bits"],
        "of": f"bits per {found['unit']} of the {found['text']}",
        "sentence": f"{sentence}.",
        "note": "Fewer bits are better. An adaptive predictor is also trained on the text "
        "while it reads it.",
        "bars": bars,
    }


def _best_validation(run: Mapping[str, Any]) -> float | None:
    """Return the lowest validation loss on the text that the baselines were measured on, in nats.

    With a refit, later validations are on a part of it.
    """
    nats, characters = run["validations"]["nats"], run["validations"]["characters"]
    known = [n for n, size in zip(nats, characters, strict=True) if size == characters[0]]
    return min((n for n in known if n is not None), default=None)


def _validated(run: Mapping[str, Any]) -> dict[str, Any] | None:
    nats = _best_validation(run)
    if nats is None:
        return None
    bits, unit = nats / NATS_PER_BIT, run["unit"]
    others = [_bar(NAMES.get(b["name"], b["name"]), "", b["bits"]) for b in run["baselines"]]
    bars = sorted([*others, _bar("this network", "", bits, True)], key=lambda bar: bar["bits"])
    sentence = f"The network needs {bits:.2f} bits for each {unit} of text held back from training"
    uniform = next((b["bits"] for b in run["baselines"] if b["name"] == "uniform"), None)
    if uniform is not None:
        sentence += f"; blind guesses would need {uniform:.2f}"
    return {
        "bits": bits,
        "of": f"bits per {unit} of the validation split, best so far",
        "sentence": f"{sentence}.",
        "note": "charloom evaluate measures the whole model on the test split, beside xz and "
        "other predictors.",
        "bars": bars,
    }


def _comparison(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    chosen = [_chosen(run["evaluations"]) for run in runs]
    kinds = {one and (one["text"], one["protocol"], one["unit"]) for one in chosen}
    if None not in chosen and len(kinds) == 1:
        results: list[float | None] = [one["bits"] for one in chosen if one is not None]
        (kind,) = kinds
        of = f"{kind[0]}, protocol {kind[1]}" if kind else ""
    else:
        nats = [_best_validation(run) for run in runs]
        results = [None if n is None else n / NATS_PER_BIT for n in nats]
        of = "best validation of the network alone"
    bars = [
        _bar(run["name"], "", bits)
        for run, bits in zip(runs, results, strict=True)
        if bits is not None
    ]
    if not bars:
        return None
    bars.sort(key=lambda bar: bar["bits"])
    bars[0]["ours"] = True
    units = {run["unit"] for run in runs}
    unit = units.pop() if len(units) == 1 else "symbol"
    sentence = f"{bars[0]['name']} needs the fewest bits per {unit}: {bars[0]['bits']:.2f}"
    if len(bars) > 1:
        sentence += f", before {bars[1]['name']} with {bars[1]['bits']:.2f}"
    texts = {run["text_sha256"] for run in runs}
    note = "The runs were trained on different texts, so their results do not compare."
    return {
        "bits": None,
        "of": f"{of[0].upper()}{of[1:]}, bits per {unit}",
        "sentence": f"{sentence}.",
        "note": note if len(texts) > 1 else None,
        "bars": bars,
    }

"""The sentences that compare a model with the other predictors of its evaluation.

Every place that states which predictor is better uses them. Results are compared as they are
printed, so that two results that look equal are called equal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from charloom.evaluation.evaluation import Evaluation
from charloom.ngrams.counts import CONTEXT_MIXER, NGRAM_MODEL

NAMES = {
    "uniform": "the uniform distribution",
    "unigram": "the unigram model",
    "ngram": "the n-gram model",
}
NETWORK = "network"  # among the baselines of a mixture: its network alone


def printed(bits: float) -> str:
    """Return bits per character as tables and sentences print them."""
    return f"{bits:.4f}"


def verdict(evaluation: Evaluation) -> str:
    """Return which baselines beat the model, and whether its counts help.

    It is empty for an evaluation without baselines.
    """
    ours = printed(evaluation.bits_per_character)
    found = {
        name: baseline.bits_per_character
        for name, baseline in evaluation.baselines.items()
        if baseline.bits_per_character is not None
    }
    network = found.pop(NETWORK, None)
    by_result = sorted(found, key=lambda name: (found[name], name))
    better = [name for name in by_result if float(printed(found[name])) < float(ours)]
    equal = [name for name in by_result if printed(found[name]) == ours]
    sentences = []
    if better:
        verb = "beats" if len(better) == 1 else "beat"
        sentences.append(f"{_listed(better)} {verb} this model here.")
    if equal:
        verb = "is" if len(equal) == 1 else "are"
        sentences.append(f"{_listed(equal)} {verb} as good as this model here ({ours}).")
    if found and not better and not equal:
        missing = len(found) < sum(name != NETWORK for name in evaluation.baselines)
        which = "every baseline that has a result" if missing else "every baseline"
        sentences.append(f"This model beats {which} here.")
    if evaluation.model == "mixture" and network is not None:
        alone, counts = printed(network), f"The {NGRAM_MODEL}"
        if evaluation.counts == CONTEXT_MIXER:  # The network can read it without any mixing.
            counts = f"Mixing with the {CONTEXT_MIXER}"
        if alone == ours:
            sentences.append(f"{counts} makes no difference here (network and mixture {ours}).")
        elif float(alone) < float(ours):
            sentences.append(f"{counts} does not help here (network {alone}, mixture {ours}).")
    # A sentence that begins with the name of a compressor keeps its lower case.
    return " ".join(re.sub("^the ", "The ", sentence) for sentence in sentences)


def cost_without_mixture(evaluations: Sequence[Evaluation]) -> str:
    """Return the end of a sentence about a network without its counts: the results of both.

    It is empty if a model has no evaluation with both.
    """
    for found in evaluations:
        network = found.baselines.get(NETWORK)
        bits = None if network is None else network.bits_per_character
        if found.model == "mixture" and bits is not None:
            return (
                f" ({printed(bits)} instead of {printed(found.bits_per_character)} bits per "
                f"{found.unit} on the {found.text})"
            )
    return ""


def _listed(names: Sequence[str]) -> str:
    *others, last = [NAMES.get(name, name) for name in names]
    return f"{', '.join(others)} and {last}" if others else last

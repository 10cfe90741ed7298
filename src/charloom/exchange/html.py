"""A model as a web page in one file, which continues texts without a server and a network.

The page is made as large as allowed. Weights have 16 bits where that fits, else 8. If it is still
too large, the counts lose the contexts that were seen most rarely. What all this costs, in bits per
character, is measured and stands on the page.
"""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from charloom.engines.backend import Backend
from charloom.errors import CharloomError, plural
from charloom.exchange.page_model import (
    PageModel,
    as_page_model,
    levels,
    pruned,
    smallest_level,
)
from charloom.language_model import LanguageModel, load
from charloom.ngrams.counts import name_of
from charloom.ngrams.table import NGramTable
from charloom.pages.player import make_player
from charloom.prediction.scoring import Protocol, score_ids
from charloom.storage.checkpoint import Checkpoint
from charloom.text.dataset import TextIds
from charloom.text.vocabulary import END

MEGABYTE = 1_000_000
DEFAULT_SIZE = 4.0  # megabytes of a page
SCORED = 20_000  # characters on which the cost is measured
FRAME_HEIGHT = 720  # pixels of the page in a notebook


class HtmlPage(str):
    """The HTML of a page. A notebook displays the page.

    Attributes:
        cost: what the size of the page costs, in a sentence.
    """

    cost: str = ""

    def _repr_html_(self) -> str:
        """Return the page in a frame of its own, in which it cannot reach the notebook."""
        return (
            f'<iframe srcdoc="{html.escape(self)}" sandbox="allow-scripts allow-downloads" '
            f'style="width: 100%; height: {FRAME_HEIGHT}px; border: 0"></iframe>'
        )


def export_html(
    model: LanguageModel | str | os.PathLike[str], *, size: float = DEFAULT_SIZE
) -> HtmlPage:
    """Return a model as a page in one file that continues texts in any browser, without a server.

    Args:
        model: the model, or a run's folder or a checkpoint file.
        size: megabytes of the page, at most. Weights are rounded to 16 or 8 bits, and counts lose
            their rarest contexts, until it fits.

    Returns:
        The HTML, a str that displays itself in a notebook. Its attribute `cost` is a sentence.

    Raises:
        CharloomError: if the model is not one, or is too large for a page of this size.
    """
    if not isinstance(model, LanguageModel):
        model = load(model)
    if not size > 0:
        raise CharloomError(f"size is {size}: pass the megabytes of a page, above 0")
    checkpoint = model.checkpoint
    page_of = partial(_page, model)
    fitted = _fit(checkpoint, size * MEGABYTE, page_of)
    cost = _measure(model, fitted)
    page = HtmlPage(page_of(fitted, cost.header))
    page.cost = cost.sentence
    return page


def _fit(checkpoint: Checkpoint, most_bytes: float, page_of: Any) -> PageModel:
    """Return the model in as many bits, and with as many contexts, as fit a page."""
    mixes = checkpoint.mixture is not None and not isinstance(checkpoint.mixture.counts, NGramTable)

    def bytes_of(found: PageModel) -> int:
        return len(page_of(found, Cost.unknown(found.bits).header).encode())

    for bits in (16, 8):
        found = as_page_model(checkpoint, bits)
        if bytes_of(found) <= most_bytes:
            return found

    def at(level: int) -> PageModel:
        return as_page_model(pruned(checkpoint, level), 8, probing=mixes)

    most = levels(checkpoint)
    level = smallest_level(most, lambda level: bytes_of(at(level)) <= most_bytes)
    if level is None:
        least = np.ceil(bytes_of(at(most)) / MEGABYTE * 100) / 100
        raise CharloomError(
            f"a page with this model has at least {least:.2f} MB: pass a --size of {least:.2f} or "
            "more"
        )
    return at(level)


@dataclass(frozen=True)
class Cost:
    """What a page's size costs.

    Attributes:
        bits: of a weight.
        before, after: bits per character of the model, and of the page.
        measured_on: the text, in words.
        kept: the share of contexts that remain, None without any.
    """

    bits: int
    before: float | None
    after: float | None
    measured_on: str
    kept: float | None

    @classmethod
    def unknown(cls, bits: int) -> Cost:
        """Return a cost that takes as many bytes as any other one."""
        return cls(bits, 10.0, 10.0, "the validation split, its first 20,000 characters", 0.123)

    @property
    def header(self) -> dict[str, Any]:
        return {
            "weights": f"int{self.bits}",
            "before": self.before,
            "bits": self.after,
            "measured_on": self.measured_on,
            "kept": self.kept,
            "sentence": self.sentence,
        }

    @property
    def sentence(self) -> str:
        """The cost for a reader."""
        weights = f"weights of {self.bits} bits"
        if self.kept is not None and self.kept < 1:
            weights += f" and {self.kept:.0%} of the contexts"
        if self.before is None or self.after is None:
            return f"The page has {weights}."
        return (
            f"The page has {weights}: {self.after:.3f} bits per character, {self.before:.3f} before "
            f"(on {self.measured_on})."
        )


def _measure(model: LanguageModel, fitted: PageModel) -> Cost:
    """Score a text with the model before and after it was made smaller."""
    ids, before, measured_on = _held_out(model)
    page = LanguageModel(
        fitted.checkpoint,
        backend=Backend.of(model.engine),
        network_only=model.mixture is None,
    )
    protocol = Protocol.choose(None, model.config.end_id)
    bits = [
        score_ids(one.predictor, ids, before, protocol).nats_per_character / np.log(2)
        if len(ids)
        else None
        for one in (model, page)
    ]
    return Cost(fitted.bits, bits[0], bits[1], measured_on, _share_kept(model.checkpoint, fitted))


def _held_out(model: LanguageModel) -> tuple[TextIds, int, str]:
    """Return ids of a text to score, the id before it, and its name."""
    try:
        text = model.find_training_text(None).held_out()
    except CharloomError:
        sample = model.stream(length=SCORED)
        ids = model.vocabulary.encode("".join(sample.characters))
        return ids, model.vocabulary.start_id, "a text that the model wrote itself"
    ids = text.ids[:SCORED]
    part = "" if len(ids) == len(text.ids) else f", its first {plural(SCORED, 'character')}"
    return ids, text.before, f"the {text.name}{part}"


def _share_kept(checkpoint: Checkpoint, fitted: PageModel) -> float | None:
    if checkpoint.mixture is None or fitted.checkpoint.mixture is None:
        return None
    before, after = (
        _context_count(one.mixture.counts)
        for one in (checkpoint, fitted.checkpoint)
        if one.mixture is not None
    )
    return after / before if before else None


def _context_count(counts: Any) -> int:
    """Return the number of contexts that counts have seen."""
    if isinstance(counts, NGramTable):
        return int(np.count_nonzero(np.diff(counts.first)))
    from charloom.context_mixing.layout import LONG_WORDS, SHORT_WORDS
    from charloom.context_mixing.packing import MOVED

    tables = counts.tables
    entries = (tables.singles & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    firsts = [
        entries,
        tables.shorts.reshape(-1, SHORT_WORDS)[:, 1],
        tables.longs.reshape(-1, LONG_WORDS)[:, 1],
    ]
    return sum(int(((first != 0) & (first >> 16 != MOVED)).sum()) for first in firsts)


def _page(model: LanguageModel, fitted: PageModel, cost: dict[str, Any]) -> str:
    """Return the HTML of a page."""
    vocabulary, config, mixture = model.vocabulary, model.config, model.checkpoint.mixture
    name = str(model.checkpoint.text.get("name", "")) or "model"
    fitted_mixture = fitted.checkpoint.mixture
    counts = None
    if mixture is not None and fitted_mixture is not None:
        kind = "kneser-ney" if isinstance(mixture.counts, NGramTable) else "context-mixing"
        context = fitted_mixture.counts.context
        counts = {"kind": kind, "context": context, "probing": fitted.probing}
    theta = None
    if model.mixture is not None and fitted_mixture is not None:
        theta = fitted_mixture.theta.tolist()
    header = {
        "format": "charloom player 1",
        "kind": "bytes" if vocabulary.as_bytes else "characters",
        "title": name,
        "description": _description(model),
        "cell": config.cell,
        "layers": config.layers,
        "hidden": config.hidden_size,
        "vocabulary": ["" if character == END else character for character in vocabulary.characters],
        "names": list(vocabulary.names),
        "end": config.end_id,
        "start": vocabulary.start_id,
        "extra": config.extra_inputs,
        "counts": counts,
        "theta": theta,
        "defaults": {
            "temperature": 1.0, "top_k": None, "top_p": None, "min_p": None, "length": 500,
            "seed": 0, "prompt": "",
        },
        "units": [],
        "cost": cost,
        "arrays": fitted.types,
    }  # fmt: skip
    return make_player(name, header, fitted.page_arrays)


def _description(model: LanguageModel) -> str:
    config, mixture = model.config, model.checkpoint.mixture
    text = f"{config.cell}, {plural(config.hidden_size, 'unit')}, {plural(config.layers, 'layer')}"
    if mixture is not None:
        text += f", with {'an' if isinstance(mixture.counts, NGramTable) else 'a'} "
        text += name_of(mixture.counts)
    return text

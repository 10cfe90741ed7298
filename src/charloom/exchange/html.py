"""A model as a web page in one file, which continues texts without a server and a network.

The page is made as good as its size allows. Weights have 16 bits where that fits, else 8. If it is
still too large, the counts lose contexts. What all this costs, in bits per character, is measured
and shown on the page.
"""

from __future__ import annotations

import html
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.analysis.exploration import explore
from charloom.engines.backend import Backend
from charloom.errors import CharloomError, plural, shortened
from charloom.exchange.page_model import (
    PageModel,
    as_page_model,
    with_less_context,
    with_pruned_mixer,
)
from charloom.language_model import LanguageModel, load
from charloom.ngrams.counts import NGRAM_MODEL, name_of
from charloom.ngrams.table import NGramTable
from charloom.pages.page import array_element
from charloom.pages.player import make_player
from charloom.prediction.scoring import Protocol, score_ids
from charloom.prediction.unseen import UnseenCharacters
from charloom.text.dataset import TextIds
from charloom.text.sources import Texts
from charloom.text.vocabulary import END

Units = Sequence[dict[str, Any]]

MEGABYTE = 1_000_000
DEFAULT_SIZE = 4.0  # megabytes of a page
SCORED = 20_000  # characters on which the cost is measured
WRITTEN, WRITTEN_DOCUMENTS = 5_000, 50  # by the model itself, where there is no other text
MOST_UNITS, LEAST_CORRELATION = 12, 0.3  # of the units that a page names
FRAME_HEIGHT = 720  # pixels of the page in a notebook


class HtmlPage(str):
    """The HTML of a page. A notebook displays the page.

    Attributes:
        cost: what the size of the page costs, in a sentence.
    """

    cost: str

    def __new__(cls, page: str, cost: str = "") -> HtmlPage:
        found = super().__new__(cls, page)
        found.cost = cost
        return found

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
            contexts, until it fits.

    Returns:
        The HTML, a str that displays itself in a notebook. Its attribute `cost` states in a
        sentence how many bits per character the size costs.

    Raises:
        CharloomError: if the model is not one, or is too large for a page of this size.
    """
    if not size > 0:
        raise CharloomError(f"size is {shortened(size)}: pass the megabytes of a page, above 0")
    if not isinstance(model, LanguageModel):
        model = load(model)
    text = _HeldOut.of(model)
    units = _units(model, text)
    fitted = _fit(model, size * MEGABYTE, units)
    cost = _measure(model, fitted, text)
    return HtmlPage(page_of(model, fitted, cost, units), cost.sentence)


def page_of(model: LanguageModel, fitted: PageModel, cost: Cost, units: Units = ()) -> str:
    """Return the HTML of a page.

    Args:
        model: the model.
        fitted: the same model, made small enough.
        cost: what this costs.
        units: the units of the last layer that the page names, with their labels.
    """
    return make_player(_title(model), _header(model, fitted, cost, units), fitted.page_arrays)


class _HeldOut(NamedTuple):
    """A text on which the cost of a page and the labels of its units are measured."""

    ids: TextIds
    before: int  # the id before it
    name: str

    @classmethod
    def of(cls, model: LanguageModel) -> _HeldOut:
        """Return the beginning of the model's test split, or of a text instead of it."""
        try:
            text = model.find_training_text(None).held_out()
        except CharloomError:
            written = "a text that the model wrote itself"
            return cls(_own_text(model), model.vocabulary.start_id, written)
        ids, name = text.ids[:SCORED], f"the {text.name}"
        if len(ids) < len(text.ids):
            name = f"the first {plural(len(ids), model.vocabulary.unit)} of {name}"
        return cls(ids, text.before, name)


def _units(model: LanguageModel, text: _HeldOut) -> Units:
    """Return the units of the last layer that follow a label of a text best."""
    texts = _as_texts(model, text.ids)
    if not texts:
        return []
    last = model.config.layers - 1
    named = [
        (abs(label.correlation.second), label)
        for label in explore(model, texts, with_activations=False).labels
        if label.unit.array == 0 and label.unit.layer == last
    ]
    followed = [one for one in named if one[0] >= LEAST_CORRELATION]
    followed.sort(key=lambda one: -one[0])
    return [
        {
            "unit": label.unit.number,
            "label": label.label,
            "correlation": round(label.correlation.second, 2),
        }
        for _, label in followed[:MOST_UNITS]
    ]


def _as_texts(model: LanguageModel, ids: TextIds) -> Texts:
    """Return ids as texts that the model reads."""
    characters = model.vocabulary.decode(ids)
    texts: list[Any] = [text for text in characters.split(END) if text]
    if model.vocabulary.as_bytes:
        texts = [text.encode("latin-1") for text in texts]
    return texts if model.config.end_id is not None else texts[0]


class _PageSize:
    """The size of pages of a model. Most arrays are the same in many of them."""

    def __init__(self, model: LanguageModel, units: Units) -> None:
        self._model, self._units = model, units
        self._known: dict[str, tuple[Any, int]] = {}

    def bytes_of(self, found: PageModel) -> int:
        """Return the number of bytes of a page, before its cost is known."""
        header = _header(self._model, found, Cost.longest(found.bits), self._units)
        rest = make_player(_title(self._model), header, {})
        total = len(rest.encode())
        for name, numbers in found.page_arrays.items():
            total += 1 + self._bytes_of_array(name, numbers)
        return total

    def _bytes_of_array(self, name: str, numbers: NDArray[Any]) -> int:
        known, size = self._known.get(name, (None, 0))
        if known is None or not np.array_equal(known, numbers):
            size = len(array_element(name, numbers))
            self._known[name] = numbers, size
        return size


def _fit(model: LanguageModel, most_bytes: float, units: Units = ()) -> PageModel:
    """Return the model in as many bits, and with as many contexts, as fit a page."""
    size = _PageSize(model, units)
    for bits in (16, 8):
        found = as_page_model(model.checkpoint, bits)
        least = size.bytes_of(found)
        if least <= most_bytes:
            return found
    mixture = model.checkpoint.mixture
    if mixture is not None:
        smaller, most = _smaller_models(model, found)
        smallest = smaller(most)
        least = size.bytes_of(smallest)
        if least <= most_bytes:
            # The smallest level that fits: the page becomes smaller with every level.
            low = 1
            while low < most:
                middle = (low + most) // 2
                tried = smaller(middle)
                if size.bytes_of(tried) <= most_bytes:
                    most, smallest = middle, tried
                else:
                    low = middle + 1
            return smallest
    megabytes = math.ceil(least / MEGABYTE * 100) / 100
    raise CharloomError(
        f"the page of this model has at least {megabytes:.2f} MB: pass a larger --size"
    )


def _smaller_models(
    model: LanguageModel, found: PageModel
) -> tuple[Callable[[int], PageModel], int]:
    """Return a function from a level to a model with fewer contexts, and the last level."""
    mixture = found.checkpoint.mixture
    assert mixture is not None
    counts = mixture.counts
    if isinstance(counts, NGramTable):
        longest = counts.context
        return lambda level: with_less_context(found, max(0, longest - level)), max(1, longest)
    from charloom.context_mixing.mixer import ContextMixer
    from charloom.context_mixing.pruning import MOST_LEVEL, find_kinds, pruned, worths

    assert isinstance(counts, ContextMixer)
    mixer = counts
    worth = worths(mixer, find_kinds(mixer, _read_text(model)))
    return lambda level: with_pruned_mixer(found, pruned(mixer, worth, level)), MOST_LEVEL


def _read_text(model: LanguageModel) -> TextIds:
    """Return the text by which the kinds of contexts are found, without the test split."""
    try:
        dataset = model.find_training_text(None).require("finding the kinds of contexts")
    except CharloomError:
        return _own_text(model)
    return dataset.ids[: dataset.boundaries[1]]


def _own_text(model: LanguageModel) -> TextIds:
    """Return a text that the model writes, of several documents if it is one of documents."""
    if model.config.end_id is None:
        characters = "".join(model.stream(length=WRITTEN).characters)
    else:
        length = WRITTEN // WRITTEN_DOCUMENTS
        documents = model.sample_documents(WRITTEN_DOCUMENTS, length=length)
        characters = "".join(document.characters + END for document in documents)
    return model.vocabulary.encode(characters)


@dataclass(frozen=True)
class Cost:
    """The cost of a page's size.

    Attributes:
        weights: the bits of a weight.
        before, after: bits per character of the model, and of the page.
        measured_on: the text, in words.
        kept: the share of contexts that remain, None without any counts.
        unit: the noun for a character of the model.
    """

    weights: int
    before: float
    after: float
    measured_on: str
    kept: float | None
    unit: str = "character"

    @classmethod
    def longest(cls, weights: int) -> Cost:
        """Return a cost that takes at least as many bytes in a header as any other one."""
        text = "the first 20,000 characters of the validation split"
        return cls(weights, 1000 / 3, 1000 / 3, text, 0.1 / 3)

    @property
    def sentence(self) -> str:
        """The cost for a reader."""
        what = f"weights of {self.weights} bits"
        if self.kept is not None and self.kept < 1:
            what += f" and {100 * self.kept:.0f}% of the contexts"
        return (
            f"The page has {what}: {self.after:.3f} bits per {self.unit}, and {self.before:.3f} "
            f"before, on {self.measured_on}."
        )

    @property
    def header(self) -> dict[str, Any]:
        return {
            "weights": f"int{self.weights}",
            "before": self.before,
            "bits": self.after,
            "measured_on": self.measured_on,
            "kept": self.kept,
            "sentence": self.sentence,
        }


def _measure(model: LanguageModel, fitted: PageModel, text: _HeldOut) -> Cost:
    """Score a text with the model before and after it was made smaller."""
    page = LanguageModel(
        fitted.checkpoint,
        backend=Backend.of(model.engine),
        network_only=model.mixture is None,
    )
    protocol = Protocol.choose(None, model.config.end_id)
    bits = [
        score_ids(one.predictor, text.ids, text.before, protocol).nats_per_character / math.log(2)
        for one in (model, page)
    ]
    kept = _share_kept(model, fitted)
    return Cost(fitted.bits, bits[0], bits[1], text.name, kept, model.vocabulary.unit)


def _share_kept(model: LanguageModel, fitted: PageModel) -> float | None:
    before, after = (one.mixture for one in (model.checkpoint, fitted.checkpoint))
    if before is None or after is None:
        return None
    count = _context_count(before.counts)
    return _context_count(after.counts) / count if count else 1.0


def _context_count(counts: Any) -> int:
    """Return the number of contexts that counts have seen."""
    if isinstance(counts, NGramTable):
        return int(np.count_nonzero(np.diff(counts.first)))
    from charloom.context_mixing.pruning import context_count

    return context_count(counts)


def _title(model: LanguageModel) -> str:
    return str(model.checkpoint.text.get("name", "")) or "model"


def _header(model: LanguageModel, fitted: PageModel, cost: Cost, units: Units) -> dict[str, Any]:
    """Return the description of a page's model, for its scripts."""
    vocabulary, config, mixture = model.vocabulary, model.config, fitted.checkpoint.mixture
    counts = theta = None
    if mixture is not None:
        counts = {
            "kind": "kneser-ney" if isinstance(mixture.counts, NGramTable) else "context-mixing",
            "context": mixture.counts.context,
            "probing": fitted.probing,
        }
        if model.mixture is not None:
            theta = mixture.theta.tolist()
    return {
        "format": "charloom player 1",
        "kind": "bytes" if vocabulary.as_bytes else "characters",
        "title": _title(model),
        "description": _description(model),
        "cell": config.cell,
        "layers": config.layers,
        "hidden": config.hidden_size,
        "vocabulary": ["" if c == END else c for c in vocabulary.characters],
        "names": list(vocabulary.names),
        "end": config.end_id,
        "start": vocabulary.start_id,
        "extra": config.extra_inputs,
        "norm": config.norm,
        "counts": counts,
        "theta": theta,
        "defaults": {
            "temperature": 1.0, "top_k": None, "top_p": None, "min_p": None, "length": 500,
            "seed": 0, "prompt": "",
        },
        "units": list(units),
        "unseen": _unseen(model),
        "cost": cost.header,
        "arrays": fitted.types,
    }  # fmt: skip


def _unseen(model: LanguageModel) -> dict[str, float] | None:
    """Return the bits that scores add to a known character, and those of an unknown one."""
    unseen = UnseenCharacters.of(model.checkpoint.text, model.vocabulary)
    if unseen is None:
        return None
    known, unknown = unseen.log_known, unseen.log_probability
    return {"known": -known / math.log(2), "unknown": -unknown / math.log(2)}


def _description(model: LanguageModel) -> str:
    config, mixture = model.config, model.checkpoint.mixture
    text = f"{config.cell}, {plural(config.hidden_size, 'unit')}, {plural(config.layers, 'layer')}"
    if mixture is not None:
        name = name_of(mixture.counts)
        text += f", with {'an' if name == NGRAM_MODEL else 'a'} {name}"
    return text

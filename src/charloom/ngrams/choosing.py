"""The number of characters of context of an n-gram model, chosen by its loss.

N is the number of ids of the training text, S that of the validation text, V that of the
vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.ngrams.kneser_ney import SCORED_AT_ONCE, Floats, Integers, NGramModel
from charloom.text.excerpt import Id, excerpt, hold_out_tenth

LONGEST_CONTEXT = 8  # characters of context that are tried
# Characters that choosing a context reads: the end of the training text, and the beginning of the
# validation text, because these are adjacent. Of a collection, an excerpt of each.
TRAINING_AT_MOST = 4_000_000
VALIDATION_AT_MOST = 100_000


def losses_by_context(
    train_ids: Integers,
    validation_ids: Integers,
    vocabulary_size: int,
    longest: int = LONGEST_CONTEXT,
    *,
    end_id: int | None = None,
    block_size: int = SCORED_AT_ONCE,
) -> Floats:
    """Return the mean loss on the validation text for 0 to `longest` characters of context.

    All these models share one pass through both texts, because they differ only in the level that
    is the highest.

    Args:
        train_ids: the text that is counted, (N,).
        validation_ids: the text that follows it, (S,), S ≥ 1.
        vocabulary_size: V.
        longest: the largest number of characters of context.
        end_id: the id of END in a collection, else None.
        block_size: characters that are scored at a time.

    Returns:
        Nats per character, (longest + 1,).

    Raises:
        ValueError: as `NGramModel.fit` does, and for an empty validation text.
    """
    if not len(validation_ids):
        raise ValueError("the validation text is empty")
    model = NGramModel.fit(train_ids, vocabulary_size, longest, end_id)
    text, lead = model._with_context(validation_ids, train_ids)
    total = np.zeros(longest + 1)
    for start, first, stop in model._blocks(lead, len(text), block_size):
        lower = np.full(stop - start, 1 / vocabulary_size)  # p_k with continuation counts
        # p_k with raw counts; where fewer than k characters are visible, of these.
        result = lower.copy()
        k = -1
        for k, level, context, gram in model._walk(text[start:stop]):
            shorter = lower[k:]
            result[k:] = level.highest.extend(gram, context, shorter)
            if level.lower is not None:
                lower[k:] = level.lower.extend(gram, context, shorter)
            total[k] -= np.log(result[first - start :]).sum()
        # Longer contexts leave p_k unchanged, because they were never seen or are not visible.
        # (Level N - 1 has one gram, with both counts 1, so that its two faces are equal. In a
        # collection, all grams of the last level begin with END, so that its faces are equal too.)
        total[k + 1 :] -= np.log(result[first - start :]).sum()
    return total / (len(text) - lead)


def counted_part(
    ids: NDArray[Id], end_id: int | None = None, limit: int | None = None
) -> NDArray[Id]:
    """Return the part of a training text that is counted: its end, or an excerpt of a collection.

    Args:
        ids: the training text's, (N,).
        end_id: the id of END in a collection, else None.
        limit: the largest number of ids to return, by default TRAINING_AT_MOST.
    """
    limit = TRAINING_AT_MOST if limit is None else limit
    return ids[-limit:] if end_id is None else excerpt(ids, limit, end_id)


class ContextChoice(NamedTuple):
    """The best number of characters of context, and the split that it was chosen on."""

    context: int
    chosen_on: str  # the split, in words
    loss: float | None  # nats per character there; None where there was no text to choose on


def choose_context(
    train_ids: Integers,
    validation_ids: Integers,
    vocabulary_size: int,
    longest: int = LONGEST_CONTEXT,
    *,
    end_id: int | None = None,
    training_limit: int = TRAINING_AT_MOST,
    validation_limit: int = VALIDATION_AT_MOST,
) -> ContextChoice:
    """Choose the number of characters of context with the smallest loss on the validation text.

    Of equal losses the shortest context wins.

    Args:
        train_ids: the text that is counted, (N,).
        validation_ids: the text that follows it, (S,), S ≥ 1.
        vocabulary_size: V.
        longest: the largest number of characters of context.
        end_id: the id of END in a collection, of which excerpts are read; else None.
        training_limit: characters that are read from the end of the training text.
        validation_limit: characters that are read from the beginning of the validation text.

    Raises:
        ValueError: as `NGramModel.fit` does, and for an empty validation text.
    """
    if end_id is None:
        validation_ids = validation_ids[:validation_limit]
    else:
        validation_ids = excerpt(validation_ids, validation_limit, end_id)
    losses = losses_by_context(
        counted_part(train_ids, end_id, training_limit),
        validation_ids,
        vocabulary_size,
        longest,
        end_id=end_id,
    )
    context = int(np.argmin(losses))
    return ContextChoice(context, "the validation split", float(losses[context]))


def choose_context_on_splits(
    train: Integers,
    validation: Integers | None,
    vocabulary_size: int,
    end_id: int | None = None,
) -> ContextChoice:
    """Choose the number of characters of context on the validation split.

    Without a validation split, the last 10% of the training split take its place, or of a
    collection 10% of the documents of that split.

    Args:
        train: ids of the training split, (N,).
        validation: ids of the validation split, (S,), which can be empty or None.
        vocabulary_size: V.
        end_id: the id of END in a collection, else None.
    """
    chosen_on = "the validation split"
    if validation is None or len(validation) == 0:
        split = None if end_id is None else hold_out_tenth(train, end_id)
        if split is None:
            cut = max(1, len(train) * 9 // 10)
            train, validation = train[:cut], train[cut:]
            chosen_on = "the last 10% of the training split"
        else:
            train, validation = split
            chosen_on = "10% of the documents of the training split"
    if not len(validation):
        return ContextChoice(1, chosen_on, None)
    longest = min(LONGEST_CONTEXT, max(1, len(train) - 1))
    choice = choose_context(train, validation, vocabulary_size, longest, end_id=end_id)
    return choice._replace(chosen_on=chosen_on)

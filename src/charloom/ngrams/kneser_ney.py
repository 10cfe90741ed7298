"""A character n-gram model: interpolated modified Kneser-Ney, counted and queried in whole arrays.

V: characters of the vocabulary; N: characters of the training text; S: characters to be scored;
K: characters of context; k: length of the context h of one level, 0 to K; w: the character after h;
h': h without its first character; G: distinct (k + 1)-grams hw of a level; C: distinct k-grams h.

Kneser and Ney, "Improved backing-off for m-gram language modeling" (1995); Chen and Goodman, "An
empirical study of smoothing techniques for language modeling" (1999), whose interpolated form with
three discounts this is:

    p_k(w|h) = (c(hw) - D(c(hw))) / T(h) + λ(h) p_{k-1}(w|h')    the first term 0 where c(hw) = 0
    T(h)     = Σ_w c(hw)
    λ(h)     = Σ_w D(c(hw)) / T(h)                               1 where h was never seen
    p_{-1}   = 1 / V
    D(i)     = i - (i + 1) Y n_{i+1} / n_i   for i = 1, 2, 3 (3 stands for all above it), D(0) = 0
    Y        = n_1 / (n_1 + 2 n_2)           n_i: how many hw of the level have c(hw) = i

c(hw) on the highest level is how often hw stands in the text (its raw count); on every lower level
it is N1+(•hw), the number of distinct characters that stand before hw (its continuation count). The
text's beginning counts as one such character, so that whatever was seen has a positive count.

A continuation count does not depend on K, so each level keeps two faces, one for when it is the
highest and one for when a longer context falls back to it. A model of K characters of context
therefore holds the models of 0 to K - 1 as well. It uses them where fewer characters are visible.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]
Indices = NDArray[np.intp]
Floats = NDArray[np.float64]

NO_CODE = np.iinfo(np.int64).max  # closes a list of codes; no code is as large
SCORED_AT_ONCE = 1 << 17  # characters; bounds the memory that scoring takes
# What choosing the context reads at most: the beginning of the validation text, the end of the
# training text.
VALIDATION_AT_MOST = 100_000
TRAINING_AT_MOST = 4_000_000


@dataclass(frozen=True, slots=True)
class Face:
    """p_k of a level, from raw or from continuation counts.

    The last entry of each array answers for the index -1, "never seen".
    """

    probability: Floats  # (G + 1,) p_k(w|h) of each hw that was seen
    weight: Floats  # (C + 1,) λ(h)

    def extend(self, gram: Indices, context: Indices, shorter: Floats) -> Floats:
        """p_k(w|h), (S,), from the indices of hw and h, -1 where unseen, and p_{k-1}(w|h')."""
        return np.where(gram >= 0, self.probability[gram], self.weight[context] * shorter)


@dataclass(frozen=True, slots=True)
class Level:
    """The (k + 1)-grams that were seen, in lexicographic order; a gram's index is its rank."""

    codes: NDArray[np.int64]  # (G + 1,) rank of h times V plus w, ascending; NO_CODE at the end
    highest: Face  # raw counts
    lower: Face | None  # continuation counts; none on level K, to which nothing falls back

    def find(self, context: Indices, following: Integers, size: int) -> Indices:
        """The indices of the grams hw, (S,), from those of h (S,) and the ids w (S,), V = size."""
        codes = context.astype(np.int64) * size + following  # (S,); below 0 where h is unseen
        gram = np.searchsorted(self.codes, codes)
        return np.where(self.codes[gram] == codes, gram, -1)


class NGramModel:
    """A character n-gram model with interpolated modified Kneser-Ney smoothing.

    `context` is the number of characters of context, K (the model's order less one). Every
    character of the vocabulary has a positive probability after every context.
    """

    def __init__(self, vocabulary_size: int, context: int, levels: list[Level]) -> None:
        self.vocabulary_size = vocabulary_size
        self.context = context
        # Level k at index k. A text of N characters fills levels 0 to N - 1, however long `context`
        # is: a longer one was never seen and leaves p_{N-1} as it is.
        self.levels = levels

    @classmethod
    def fit(cls, ids: Integers, vocabulary_size: int, context: int) -> NGramModel:
        """Count a text, ids (N,) below V = vocabulary_size; it may be short or empty.

        Memory, in bytes for each character of the text, K = 6: about 50 while it counts 10 million
        characters of English, 14 for the model that results; at worst, where no gram comes twice,
        300 and 140. The model takes 40 bytes for each distinct gram of up to K characters, 16 for
        each of K + 1.

        Raises ValueError for ids that are not a flat array of integers from 0 to V - 1, for V
        outside 1 to 2^31 - 1 and for context < 0.
        """
        if not 1 <= vocabulary_size < 2**31:
            raise ValueError(f"vocabulary_size must be from 1 to 2^31 - 1, not {vocabulary_size}")
        if context < 0:
            raise ValueError(f"context must be 0 or more, not {context}")
        ids = _checked(ids, vocabulary_size)
        return cls(vocabulary_size, context, _count(ids, vocabulary_size, context))

    def log_probabilities(
        self, ids: Integers, *, preceding: Integers | None = None, window: int | None = None
    ) -> Floats:
        """The natural logarithm (nats) of the probability of each character, ids (S,) -> (S,).

        Carried (`window` None): the context of ids[i] is the last K characters of `preceding` and
        ids[:i]. Cold-N (`window` N): ids is cut into consecutive windows of N, and no context
        reaches back beyond the one character before its window. Where fewer than K characters are
        visible, the model of that many characters of context answers, with its own raw counts.

        Raises ValueError as `fit` does, and for window < 1.
        """
        if window is not None and window < 1:
            raise ValueError(f"window must be 1 or more, not {window}")
        text, lead = self._with_context(ids, preceding)
        result = np.empty(len(text) - lead)  # (S,)
        for start, first, stop in self._blocks(lead, len(text)):
            position = np.arange(start, stop)  # (stop - start,) in the text
            visible = np.minimum(position, self.context)  # characters of context
            if window is not None:
                visible = np.minimum(visible, (position - lead) % window + 1)
            probability = np.full(stop - start, 1 / self.vocabulary_size)  # p_{-1}
            for k, level, context, gram in self._walk(text[start:stop]):
                # p_k in place of p_{k-1}, where k characters or more are visible.
                faces = ((level.highest, visible[k:] == k), (level.lower, visible[k:] > k))
                for face, chosen in faces:
                    rows = np.flatnonzero(chosen)
                    if face is not None and len(rows):
                        shorter = probability[k:][rows]
                        probability[k:][rows] = face.extend(gram[rows], context[rows], shorter)
            result[first - lead : stop - lead] = np.log(probability[first - start :])
        return result

    def distribution(self, context_ids: Integers) -> Floats:
        """The probabilities (V,) of the next character after `context_ids` (any length).

        The last K characters count; with fewer, the model of that many characters of context
        answers, as in `log_probabilities`. Raises ValueError as `fit` does.
        """
        text, _ = self._with_context(np.zeros(0, np.uint8), context_ids)
        size = self.vocabulary_size
        probability = np.full(size, 1 / size)  # (V,) p_{-1}
        ranks = np.zeros(len(text) + 1, np.intp)  # of the k-gram at each place; the last one is h
        for k, level in enumerate(self.levels[: len(text) + 1]):
            context = int(ranks[-1])  # -1, never seen: weight 1, and no codes
            face = level.highest if k == len(text) or level.lower is None else level.lower
            first, last = np.searchsorted(level.codes, [context * size, (context + 1) * size])
            probability *= face.weight[context]
            probability[level.codes[first:last] - context * size] = face.probability[first:last]
            ranks = level.find(ranks[:-1], text[k:], size)
        return probability

    def _with_context(self, ids: Integers, preceding: Integers | None) -> tuple[Integers, int]:
        """The last K characters of `preceding` and then ids; and how many of the former."""
        ids = _checked(ids, self.vocabulary_size)
        if preceding is None:
            return ids, 0
        preceding = preceding[max(0, len(preceding) - self.context) :]
        preceding = _checked(preceding, self.vocabulary_size)
        return np.concatenate([preceding, ids]), len(preceding)

    def _blocks(self, lead: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Blocks of a text's characters `lead` to `length`: (start with context, first, stop)."""
        for first in range(lead, length, SCORED_AT_ONCE):
            start = max(0, first - len(self.levels))
            yield start, first, min(first + SCORED_AT_ONCE, length)

    def _walk(self, text: Integers) -> Iterator[tuple[int, Level, Indices, Indices]]:
        """For each k: its level, and the indices of h and hw, (S - k,) each; w is text[k:] (S,)."""
        gram = np.zeros(len(text) + 1, np.intp)  # the empty gram, before and after each character
        for k, level in enumerate(self.levels[: len(text)]):
            context = gram[:-1]
            gram = level.find(context, text[k:], self.vocabulary_size)
            yield k, level, context, gram


def losses_by_context(
    train_ids: Integers, validation_ids: Integers, vocabulary_size: int, longest: int = 8
) -> Floats:
    """Mean nats per character of validation_ids for 0 to `longest` characters of context.

    train_ids (N,), from which the counts come, precede validation_ids (S,), S ≥ 1, in the text; the
    result is (longest + 1,). All the models share one pass over both texts: they differ only in
    which level is the highest. Raises ValueError as `NGramModel.fit` does, and for S = 0.
    """
    if not len(validation_ids):
        raise ValueError("the validation text is empty")
    model = NGramModel.fit(train_ids, vocabulary_size, longest)
    text, lead = model._with_context(validation_ids, train_ids)
    total = np.zeros(longest + 1)
    for start, first, stop in model._blocks(lead, len(text)):
        lower = np.full(stop - start, 1 / vocabulary_size)  # p_k with continuation counts
        result = lower.copy()  # p_k with raw counts; where fewer than k are visible, of so many
        k = -1
        for k, level, context, gram in model._walk(text[start:stop]):
            shorter = lower[k:]
            result[k:] = level.highest.extend(gram, context, shorter)
            if level.lower is not None:
                lower[k:] = level.lower.extend(gram, context, shorter)
            total[k] -= np.log(result[first - start :]).sum()
        # Longer contexts leave p_k as it is: they were never seen, or none is visible. (Level N - 1
        # has one gram, with both counts 1, so that its two faces are equal.)
        total[k + 1 :] -= np.log(result[first - start :]).sum()
    return total / (len(text) - lead)


def choose_context(
    train_ids: Integers, validation_ids: Integers, vocabulary_size: int, longest: int = 8
) -> int:
    """The number of characters of context, 0 to `longest`, with the least loss on validation_ids.

    Counts come from train_ids (N,), which precede validation_ids (S,) in the text; it reads at most
    the last 4,000,000 of the former and the first 100,000 of the latter. Of equal losses the
    shortest context wins. Raises ValueError as `NGramModel.fit` does.
    """
    return _context_and_loss(train_ids, validation_ids, vocabulary_size, longest)[0]


def _context_and_loss(
    train_ids: Integers, validation_ids: Integers, vocabulary_size: int, longest: int
) -> tuple[int, float]:
    losses = losses_by_context(
        train_ids[-TRAINING_AT_MOST:], validation_ids[:VALIDATION_AT_MOST], vocabulary_size, longest
    )
    context = int(np.argmin(losses))
    return context, float(losses[context])


def context_from_parts(
    train: Integers, validation: Integers | None, vocabulary_size: int, longest: int
) -> tuple[int, str, float | None]:
    """The number of characters of context chosen on the validation part, or, where there is none,
    on the last tenth of the training part; which of the two it was, in words; and nats per
    character there, None where there was nothing to choose on."""
    chosen_on = "the validation part"
    if validation is None or len(validation) == 0:
        cut = max(1, len(train) * 9 // 10)
        train, validation = train[:cut], train[cut:]
        chosen_on = "the last tenth of the training part"
    if not len(validation):
        return 1, chosen_on, None
    longest = min(longest, max(1, len(train) - 1))
    context, loss = _context_and_loss(train, validation, vocabulary_size, longest)
    return context, chosen_on, loss


def _checked(ids: Integers, vocabulary_size: int) -> Integers:
    """ids (S,) in the smallest type that holds V; ValueError unless integers from 0 to V - 1."""
    ids = np.asarray(ids)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"ids must be a flat array of integers, not {ids.dtype} of {ids.shape}")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary_size:
        raise ValueError(f"ids {ids.min()} to {ids.max()} are not all below {vocabulary_size}")
    return ids.astype(np.min_scalar_type(vocabulary_size), copy=False)


@dataclass(frozen=True, slots=True)
class _Grams:
    """The distinct grams hw of one length, in lexicographic order; a gram's index is its rank."""

    codes: NDArray[np.int64]  # (G + 1,) as in Level
    prefix: NDArray[np.integer[Any]]  # (G,) index of h among the grams one shorter
    suffix: NDArray[np.integer[Any]]  # (G,) index of h'w among the grams one shorter
    count: Indices  # (G,) how often hw stands in the text
    opening: int  # index of the gram with which the text begins


def _count(ids: Integers, size: int, context: int) -> list[Level]:
    """The levels 0 to min(K, N - 1) of a text, ids (N,) below V = size."""
    levels: list[Level] = []
    lower = Face(np.full(2, 1 / size), np.ones(2))  # of p_{-1}, whose one gram is the empty one
    contexts = 1  # C: of level 0, the empty one
    grams_by_length = _grams_by_length(ids, size, min(context + 1, len(ids)))
    for k, (grams, longer) in enumerate(pairwise(grams_by_length)):
        shorter = lower.probability[grams.suffix]  # (G,) p_{k-1}(w|h')
        highest = _face(grams.count, grams.prefix, contexts, shorter)
        if k == context:
            levels.append(Level(grams.codes, highest, None))
            break
        # N1+(•hw): each distinct gram one longer that ends in hw has another character before it,
        # and the gram that opens the text has the text's beginning.
        continuation = np.bincount(longer.suffix, minlength=len(grams.count))  # (G,)
        continuation[grams.opening] += 1
        lower = _face(continuation, grams.prefix, contexts, shorter)
        levels.append(Level(grams.codes, highest, lower))
        contexts = len(grams.count)
    return levels


def _face(count: Indices, prefix: NDArray[np.integer[Any]], contexts: int, shorter: Floats) -> Face:
    """p_k and λ from c(hw) (G,), the index of h (G,), C = contexts and p_{k-1}(w|h') (G,)."""
    discount = _discounts(count)[np.minimum(count, 3)]  # (G,) D(c(hw))
    total = np.bincount(prefix, weights=count, minlength=contexts)  # (C,) T(h)
    removed = np.bincount(prefix, weights=discount, minlength=contexts)  # (C,) Σ_w D(c(hw))
    # A context that only ends the text has T(h) = 0: nothing was seen after it.
    weight = np.ones(contexts + 1)  # (C + 1,) λ(h)
    np.divide(removed, total, out=weight[:-1], where=total > 0)
    probability = np.zeros(len(count) + 1)  # (G + 1,)
    probability[:-1] = (count - discount) / total[prefix] + weight[prefix] * shorter
    return Face(probability, weight)


def _discounts(count: Indices) -> Floats:
    """D(0) to D(3) (4,) from the counts (G,) of one level.

    A small or repetitive text may have too few grams of some count for the formula. Where it gives
    no value, or one outside i / 10 to i, D(i) is i / 2 (KenLM's `--discount_fallback`
    has the same values). So every discount is positive, and with it every λ(h).
    """
    n1, n2, n3, n4 = (int((count == i).sum()) for i in range(1, 5))
    result = np.array([0, 0.5, 1, 1.5])  # (4,)
    for i, (n, following) in enumerate(((n1, n2), (n2, n3), (n3, n4)), start=1):
        # D(i) = (i (n_1 + 2 n_2) n_i - (i + 1) n_1 n_{i+1}) / ((n_1 + 2 n_2) n_i), in whole numbers
        divisor = (n1 + 2 * n2) * n
        discount = i * divisor - (i + 1) * n1 * following
        if i * divisor < 10 * discount < 10 * i * divisor:
            result[i] = discount / divisor
    return result


def _grams_by_length(ids: Integers, size: int, longest: int) -> Iterator[_Grams]:
    """The grams of 1 to `longest` characters of a text, ids (N,) below V = size; then none.

    In the sorted order of all places of the text, those of one gram stand side by side, whatever
    its length, so that a single sort serves every length.
    """
    places = len(ids)
    text = np.zeros(places + longest, ids.dtype)  # (N + longest,) id + 1; past the end 0
    text[:places] = ids
    text[:places] += 1
    order = _sorted_places(text, places, size + 1, longest)  # (N,)
    rank_type = np.int32 if places < 2**31 else np.int64
    rank: NDArray[np.signedinteger[Any]] = np.zeros(places + 1, rank_type)  # (N + 1,) by place
    changed = np.zeros(places, np.bool_)  # (N,) by order: another gram than at the place before
    changed[:1] = True
    for k in range(longest):
        last = text[k : k + places][order]  # (N,) w + 1, by order; 0 where the text has ended
        changed[1:] |= last[1:] != last[:-1]
        start = np.flatnonzero(changed)
        count = np.diff(start, append=places)
        whole = last[start] > 0
        start, count = start[whole], count[whole]  # (G,), (G,)
        place = order[start]  # (G,) one of the places of each gram
        prefix, suffix = rank[place], rank[place + 1]  # (G,), (G,)
        codes = np.append(prefix.astype(np.int64) * size + last[start] - 1, NO_CODE)  # (G + 1,)
        rank[order] = np.cumsum(changed & (last > 0), dtype=rank.dtype)
        rank -= 1
        yield _Grams(codes, prefix, suffix, count, int(rank[0]))
    none = np.zeros(0, np.intp)
    yield _Grams(np.array([NO_CODE]), none, none, none, -1)


def _sorted_places(text: Integers, places: int, base: int, length: int) -> Indices:
    """The places 0 to N - 1 of a text, (N,), in the order of the `length` characters from each on.

    The text, (N + length - 1,) or longer, holds numbers below `base`. As many of them as fit make
    one int64; before it overflows, ranks below N take its place (N · base must fit).
    """
    code = np.zeros(places, np.int64)  # (N,)
    bound = 1  # all codes are below
    for m in range(length):
        if bound * base > NO_CODE:
            order = np.argsort(code)
            rising = code[order]
            rising[1:] = rising[1:] != rising[:-1]
            rising[:1] = 0
            code[order] = np.cumsum(rising)
            bound = int(code.max()) + 1
            if bound == places:
                break
        code *= base
        code += text[m : m + places]
        bound *= base
    return np.argsort(code)


LONGEST_CONTEXT = 8  # characters of context tried for the n-gram model

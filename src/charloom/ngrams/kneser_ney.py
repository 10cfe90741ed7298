"""A character n-gram model: interpolated modified Kneser-Ney, counted and queried in whole arrays.

Symbols:

- V: characters of the vocabulary
- N: characters of the training text
- S: characters of the text that is scored
- K: characters of context
- k: length of the context h of one level, 0 to K
- w: the character after h
- h': h without its first character
- G: distinct (k + 1)-grams hw of a level
- C: distinct k-grams h

Sources: Kneser and Ney, "Improved backing-off for m-gram language modeling" (1995). Chen and
Goodman, "An empirical study of smoothing techniques for language modeling" (1999). This is their
interpolated form with three discounts:

    p_k(w|h) = (c(hw) - D(c(hw))) / T(h) + λ(h) p_{k-1}(w|h')    the first term 0 where c(hw) = 0
    T(h)     = Σ_w c(hw)
    λ(h)     = Σ_w D(c(hw)) / T(h)                               1 where h was never seen
    p_{-1}   = 1 / V
    D(i)     = i - (i + 1) Y n_{i+1} / n_i   for i = 1, 2, 3 (3 stands for all above it), D(0) = 0
    Y        = n_1 / (n_1 + 2 n_2)           n_i: how many hw of the level have c(hw) = i

On the highest level, c(hw) is the number of occurrences of hw in the text, its raw count. On every
lower level it is N1+(•hw), the number of distinct characters that precede hw, its continuation
count. The text's beginning counts as one such character, so that every seen gram has a positive
count.

A continuation count does not depend on K. Each level therefore keeps two faces, one for when it is
the highest and one for when a longer context falls back to it. A model of K characters of context
thus contains the models of 0 to K - 1 as well. It uses them where fewer characters are visible.

In a collection, END follows each document and precedes the first one. END is predicted like any
other character. As context it is the first visible character, because nothing before it is:

- A gram hw counts only where END is nowhere in h but in its first place. END before the first
  document is never w.
- No character is visible before a gram that begins with END, k > 0, so N1+(•hw) does not describe
  it. Its raw count takes that place on every level, as for <s> in KenLM (Heafield et al. 2013,
  "Scalable modified Kneser-Ney language model estimation"). The n_i of a level include it.
- Where END is visible, it makes the context whole. The lower face then serves an h shorter than K,
  since a longer context could contain nothing else.

No context that reaches across END was ever seen. λ is 1 there, which leaves p_{k-1}. A context
therefore need not be cut at its last END before it is looked up: both give the same probabilities.
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

NO_CODE = np.iinfo(np.int64).max  # ends a list of codes, and is larger than each of them
SCORED_AT_ONCE = 1 << 17  # characters of a block, which bounds the memory of scoring


@dataclass(frozen=True, slots=True)
class Face:
    """The p_k of a level, from raw or from continuation counts.

    The last entry of each array belongs to the index -1, "never seen".
    """

    probability: Floats  # (G + 1,) p_k(w|h) of each hw that was seen
    weight: Floats  # (C + 1,) λ(h)

    def extend(self, gram: Indices, context: Indices, shorter: Floats) -> Floats:
        """Return p_k(w|h), (S,).

        Args:
            gram: indices of hw, (S,), -1 where it was never seen.
            context: indices of h, (S,), likewise.
            shorter: p_{k-1}(w|h'), (S,).
        """
        return np.where(gram >= 0, self.probability[gram], self.weight[context] * shorter)


@dataclass(frozen=True, slots=True)
class Level:
    """The seen (k + 1)-grams in lexicographic order, with a gram's rank as its index."""

    codes: NDArray[np.int64]  # (G + 1,) rank of h times V plus w, ascending; NO_CODE at the end
    highest: Face  # raw counts
    lower: Face | None  # continuation counts; None on level K, to which no context falls back

    def find(self, context: Indices, following: Integers, size: int) -> Indices:
        """Return the indices of the grams hw, (S,), from those of h (S,), the ids w (S,) and V."""
        codes = context.astype(np.int64) * size + following  # (S,); below 0 where h is unseen
        gram = np.searchsorted(self.codes, codes)
        return np.where(self.codes[gram] == codes, gram, -1)


class NGramModel:
    """A character n-gram model with interpolated modified Kneser-Ney smoothing.

    `context` is the number of characters of context, K (the model's order less one). Every
    character of the vocabulary has a positive probability after every context.
    """

    def __init__(
        self, vocabulary_size: int, context: int, levels: list[Level], end_id: int | None = None
    ) -> None:
        self.vocabulary_size = vocabulary_size
        self.context = context
        self.end_id = end_id
        # Level k at index k. A text of N characters fills levels 0 to N - 1 for any K, because a
        # longer context was never seen and leaves p_{N-1} unchanged. Documents of n characters
        # fill levels 0 to n + 1.
        self.levels = levels

    @classmethod
    def fit(
        cls, ids: Integers, vocabulary_size: int, context: int, end_id: int | None = None
    ) -> NGramModel:
        """Count a text and return its model.

        With K = 6, counting 10 million characters of English takes about 50 bytes of memory a
        character, and the model 14. At worst, where every gram is distinct, these are 300 and 140.
        The model takes 40 bytes for each distinct gram of up to K characters, 16 for each of K + 1.

        Args:
            ids: the text's, (N,). It can be short or empty.
            vocabulary_size: V.
            context: characters of context, K.
            end_id: the id of END, which ends each document of a collection; None for one text.

        Raises:
            ValueError: if ids is not a flat array of integers from 0 to V - 1, V is outside 1 to
                2^31 - 1, end_id is not below V, or context is negative.
        """
        if not 1 <= vocabulary_size < 2**31:
            raise ValueError(f"vocabulary_size must be from 1 to 2^31 - 1, not {vocabulary_size}")
        if context < 0:
            raise ValueError(f"context must be 0 or more, not {context}")
        ids = _checked(ids, vocabulary_size)
        if end_id is not None:
            ids = np.concatenate([_checked(np.array([end_id]), vocabulary_size), ids])
        levels = _count(ids, vocabulary_size, context, end_id)
        return cls(vocabulary_size, context, levels, end_id)

    def log_probabilities(
        self,
        ids: Integers,
        *,
        preceding: Integers | None = None,
        window: int | None = None,
        block_size: int = SCORED_AT_ONCE,
    ) -> Floats:
        """Return the natural log-probability of each character, ids (S,) -> (S,).

        Without a window (protocol carried), the context of ids[i] is the last K characters of
        `preceding` and ids[:i]. With one (protocol cold-N), ids is cut into consecutive windows of
        N, and no context reaches beyond the one character before its window. Where only k < K
        characters are visible, the model of k characters of context is used, with its raw counts.
        A collection is scored as if END came before everything.

        Args:
            ids: the text that is scored, (S,).
            preceding: the ids before it.
            window: characters of a window, N.
            block_size: characters that are scored at a time.

        Raises:
            ValueError: as `fit` does, and if window is below 1.
        """
        blocks = self.log_probability_blocks(
            ids, preceding=preceding, window=window, block_size=block_size
        )
        return np.concatenate([np.zeros(0), *blocks])

    def log_probability_blocks(
        self,
        ids: Integers,
        *,
        preceding: Integers | None = None,
        window: int | None = None,
        block_size: int = SCORED_AT_ONCE,
    ) -> Iterator[Floats]:
        """Yield what `log_probabilities` returns, of consecutive blocks of the text."""
        if window is not None and window < 1:
            raise ValueError(f"window must be 1 or more, not {window}")
        text, lead = self._with_context(ids, preceding)
        for start, first, stop in self._blocks(lead, len(text), block_size):
            position = np.arange(start, stop)  # (stop - start,) in the text
            visible = np.minimum(position, self.context)  # characters of context
            if window is not None:
                visible = np.minimum(visible, (position - lead) % window + 1)
            if self.end_id is not None:  # no context is longer than one that begins with END
                visible[text[position - visible] == self.end_id] = self.context
            probability = np.full(stop - start, 1 / self.vocabulary_size)  # p_{-1}
            for k, level, context, gram in self._walk(text[start:stop]):
                # p_k in place of p_{k-1}, where k characters or more are visible.
                faces = ((level.highest, visible[k:] == k), (level.lower, visible[k:] > k))
                for face, chosen in faces:
                    rows = np.flatnonzero(chosen)
                    if face is not None and len(rows):
                        shorter = probability[k:][rows]
                        probability[k:][rows] = face.extend(gram[rows], context[rows], shorter)
            yield np.log(probability[first - start :])

    def distribution(self, context_ids: Integers) -> Floats:
        """Return the probabilities (V,) of the character after `context_ids` (any length).

        The last K characters count. With only k of them, the model of k characters of context is
        used, or END precedes them in a collection, as in `log_probabilities`. Raises ValueError as
        `fit` does.
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
        """Return the last K ids of `preceding` followed by ids, and the number of the former.

        In a collection, END fills up what is missing of K.
        """
        ids = _checked(ids, self.vocabulary_size)
        if preceding is None:
            preceding = ids[:0]
        preceding = preceding[max(0, len(preceding) - self.context) :]
        preceding = _checked(preceding, self.vocabulary_size)
        if self.end_id is not None:
            missing = max(0, min(self.context, len(self.levels)) - len(preceding))
            preceding = np.concatenate([np.full(missing, self.end_id, ids.dtype), preceding])
        return np.concatenate([preceding, ids]), len(preceding)

    def _blocks(self, lead: int, length: int, block_size: int) -> Iterator[tuple[int, int, int]]:
        """Cut the characters `lead` to `length` into blocks: (start of context, first, stop)."""
        for first in range(lead, length, block_size):
            start = max(0, first - len(self.levels))
            yield start, first, min(first + block_size, length)

    def _walk(self, text: Integers) -> Iterator[tuple[int, Level, Indices, Indices]]:
        """Yield each k, its level, and the indices of h and hw, (S - k,), where w is text[k:]."""
        gram = np.zeros(len(text) + 1, np.intp)  # the empty gram, before and after each character
        for k, level in enumerate(self.levels[: len(text)]):
            context = gram[:-1]
            gram = level.find(context, text[k:], self.vocabulary_size)
            yield k, level, context, gram


def _checked(ids: Integers, vocabulary_size: int) -> Integers:
    """Return ids (S,) in the smallest type that holds V.

    Raises ValueError unless they are integers from 0 to V - 1.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"ids must be a flat array of integers, not {ids.dtype} of {ids.shape}")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary_size:
        raise ValueError(f"ids {ids.min()} to {ids.max()} are not all below {vocabulary_size}")
    return ids.astype(np.min_scalar_type(vocabulary_size), copy=False)


@dataclass(frozen=True, slots=True)
class _Grams:
    """The distinct grams hw of one length in lexicographic order, with a rank as its index."""

    codes: NDArray[np.int64]  # (G + 1,) as in Level
    prefix: NDArray[np.integer[Any]]  # (G,) index of h among the grams one shorter
    suffix: NDArray[np.integer[Any]]  # (G,) index of h'w among the grams one shorter
    count: Indices  # (G,) occurrences of hw in the text
    opening: int  # index of the gram with which a text begins; in a collection, -1
    initial: slice  # of the grams of a collection that begin with END and are longer than it


def _count(ids: Integers, size: int, context: int, end_id: int | None) -> list[Level]:
    """Return the levels 0 to min(K, N - 1) of a text, ids (N,) below V = size.

    The ids of a collection begin with END, which is not counted there. They have fewer levels,
    because no gram is longer than the longest document with its two ENDs.
    """
    longest = min(context + 1, len(ids))
    if end_id is not None:
        between = np.diff(np.flatnonzero(ids == end_id), append=len(ids) - 1)
        longest = min(longest, int(between.max()) + 1)
    levels: list[Level] = []
    lower = Face(np.full(2, 1 / size), np.ones(2))  # of p_{-1}, whose one gram is the empty one
    contexts = 1  # C: of level 0, the empty one
    grams_by_length = _grams_by_length(ids, size, longest, end_id)
    for k, (grams, longer) in enumerate(pairwise(grams_by_length)):
        shorter = lower.probability[grams.suffix]  # (G,) p_{k-1}(w|h')
        highest = _face(grams.count, grams.prefix, contexts, shorter)
        if k == context:
            levels.append(Level(grams.codes, highest, None))
            break
        # N1+(•hw): every distinct longer gram that ends in hw has another character before it, and
        # the gram that opens the text has the text's beginning before it.
        continuation = np.bincount(longer.suffix, minlength=len(grams.count))  # (G,)
        if grams.opening >= 0:
            continuation[grams.opening] += 1
        continuation[grams.initial] = grams.count[grams.initial]
        lower = _face(continuation, grams.prefix, contexts, shorter)
        levels.append(Level(grams.codes, highest, lower))
        contexts = len(grams.count)
    return levels


def _face(count: Indices, prefix: NDArray[np.integer[Any]], contexts: int, shorter: Floats) -> Face:
    """Return p_k and λ of a level.

    Args:
        count: c(hw), (G,).
        prefix: the index of h, (G,).
        contexts: C.
        shorter: p_{k-1}(w|h'), (G,).
    """
    discount = _discounts(count)[np.minimum(count, 3)]  # (G,) D(c(hw))
    total = np.bincount(prefix, weights=count, minlength=contexts)  # (C,) T(h)
    removed = np.bincount(prefix, weights=discount, minlength=contexts)  # (C,) Σ_w D(c(hw))
    # A context whose only occurrence ends the text has T(h) = 0, because no character follows it.
    weight = np.ones(contexts + 1)  # (C + 1,) λ(h)
    np.divide(removed, total, out=weight[:-1], where=total > 0)
    probability = np.zeros(len(count) + 1)  # (G + 1,)
    total = np.maximum(total, 1)  # only END has a count of 0, in a collection without any
    probability[:-1] = (count - discount) / total[prefix] + weight[prefix] * shorter
    return Face(probability, weight)


def _discounts(count: Indices) -> Floats:
    """Return D(0) to D(3), (4,), from the counts of one level, (G,).

    A small or repetitive text can have too few grams of some count for the formula. Where its
    value is undefined, or outside i / 10 to i, D(i) is i / 2, as in KenLM's `--discount_fallback`.
    So every discount is positive, and with it every λ(h).
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


def _grams_by_length(
    ids: Integers, size: int, longest: int, end_id: int | None
) -> Iterator[_Grams]:
    """Yield the grams of 1 to `longest` characters of a text, and an empty set of grams at the end.

    Once all places of the text are sorted, the places of one gram are adjacent, for grams of any
    length. So a single sort serves all lengths.

    Args:
        ids: the text's, (N,), below V.
        size: V.
        longest: characters of the longest grams.
        end_id: as in `fit`; a collection begins with END.
    """
    places = len(ids)
    end = None if end_id is None else end_id + 1
    text = np.zeros(places + longest, ids.dtype)  # (N + longest,) id + 1; past the end 0
    text[:places] = ids
    text[:places] += 1
    order = _sorted_places(text, places, size + 1, longest, end)  # (N,)
    rank_type = np.int32 if places < 2**31 else np.int64
    rank: NDArray[np.signedinteger[Any]] = np.zeros(places + 1, rank_type)  # (N + 1,) by place
    changed = np.zeros(places, np.bool_)  # (N,) by order: differs from the gram before
    changed[:1] = True
    for k, following in enumerate(_following(text, places, longest, end)):
        last = following[order]  # (N,) w + 1, by order; 0 where the text has ended
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
        opening, initial = int(rank[0]), slice(0)
        if end is not None:
            if k:
                initial = slice(*np.searchsorted(text[place], [end, end + 1]))
            else:
                count[opening] -= 1
            opening = -1
        yield _Grams(codes, prefix, suffix, count, opening, initial)
    empty = np.zeros(0, np.intp)
    yield _Grams(np.array([NO_CODE]), empty, empty, empty, -1, slice(0))


def _following(text: Integers, places: int, length: int, end: int | None) -> Iterator[Integers]:
    """Yield the characters, (N,), that are 0 to `length` - 1 characters after each place.

    They are 0 beyond an END that is itself after the place.
    """
    if end is None:
        yield from (text[m : m + places] for m in range(length))
        return
    visible = np.ones(places, np.bool_)
    for m in range(length):
        if m > 1:
            visible &= text[m - 1 : m - 1 + places] != end
        yield text[m : m + places] * visible


def _sorted_places(
    text: Integers, places: int, base: int, length: int, end: int | None = None
) -> Indices:
    """Return the places 0 to N - 1 of a text, (N,), sorted by the `length` characters at each.

    As many characters as fit are packed into one int64. Before it overflows, it is replaced by its
    rank, which is below N (N · base must fit).

    Args:
        text: numbers below `base`, (N + length - 1,) or longer.
        places: N.
        base: above the largest number.
        length: characters that are compared.
        end: the number of END in a collection, beyond which nothing is compared.
    """
    code = np.zeros(places, np.int64)  # (N,)
    bound = 1  # all codes are below
    for following in _following(text, places, length, end):
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
        code += following
        bound *= base
    return np.argsort(code)

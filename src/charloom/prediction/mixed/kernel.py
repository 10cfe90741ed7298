"""The kernels that read, score and sample with a network and counts.

In every time step the counts predict the next character of every row. The network reads the last
character, beside these predictions if it reads counts. Then both predictions are mixed. The
arithmetic is that of the compiled engine, the n-gram table, the context mixer and the mixture.

T: time steps; B: rows of the batch; V: characters in the vocabulary; S: numbers of a row's state of
the counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numba import types

from charloom.context_mixing.buffers import ModelBuffers, ScratchBuffers, WeightBuffers
from charloom.context_mixing.contexts import advance as advance_contexts
from charloom.context_mixing.kernel import predict_rows, predict_times
from charloom.engines.compiled.buffers import (
    GENERATE,
    LOG_PROBABILITIES,
    PACK,
    Call,
    InferenceBuffers,
)
from charloom.engines.compiled.drawing import normalize
from charloom.engines.compiled.forward import decode, in_vocabulary
from charloom.engines.compiled.infer import (
    advance,
    choose_restricted,
    logits_at,
    outputs_at,
    part_of_rows,
    read_state,
    restart,
    write_state,
)
from charloom.engines.compiled.packing import pack_weights
from charloom.engines.compiled.places import share
from charloom.engines.compiled.plan import DECODED_AT_ONCE
from charloom.kernels.arrays import as_buffers, as_flat, as_flats, flat_from
from charloom.kernels.compiling import subroutine
from charloom.kernels.threads import barrier
from charloom.kernels.vectors import load, store_first, width
from charloom.ngrams.lookup import advance_nodes, predict_after
from charloom.ngrams.mixing_rows import mix_row
from charloom.prediction.mixed.buffers import READ


class Mixing(NamedTuple):
    """Numbers of a call."""

    mode: int
    steps: int  # T
    numbers: int  # S
    context: int  # the largest `lengths`
    mixes: int  # whether the predictions of both are mixed


@subroutine(types.boolean)
def by_time(steps, batch, threads):
    """Return whether each thread predicts some time steps of all rows, in a state of its own.

    Otherwise, it predicts all time steps of some rows.
    """
    return batch < threads and steps > 1


# Inline subroutines, so that each is compiled once.


@subroutine(types.boolean)
def _advance(buffers, call, part, sync, t, before, after):
    return advance(buffers, call, part, sync, t, before, after)


@subroutine()
def _decode(buffers, call, beside, mixing, y, count, logits, place):
    """Compute the predictions after the outputs of some positions, at `logits` in the workspace.

    Args:
        buffers: InferenceBuffers.
        call, beside, mixing: those of the call.
        y: where the outputs are in the workspace.
        count: number of positions.
        logits: where their predictions go: logits, log-probabilities or the mixture's.
        place: the index of the first one among the counts' predictions.
    """
    plan, w, v = buffers.plan, buffers.work, buffers.plan.vocabulary
    decode(buffers, y, count, logits)
    for position in range(count):
        at, here = logits + position * plan.vst, place + position
        if mixing.mixes != 0 or mixing.mode == LOG_PROBABILITIES:
            normalize(w, at, plan.classes)
        if mixing.mixes != 0:
            mix_row(
                w, at, call.extra, here * v, v, beside.lengths[here], beside.shares[here],
                beside.theta, mixing.context,
            )  # fmt: skip


class MixerCounts(NamedTuple):
    """A context mixer, for kernels."""

    m: Any  # ModelBuffers
    w: Any  # WeightBuffers
    s: Any  # ScratchBuffers of the thread


@subroutine(inline=True)
def _predict_rows_by_mixer(counts, beside, numbers, ids, first, end):
    predict_rows(
        beside.states, ids, first, end, counts.m, counts.w, counts.s,
        beside.found, beside.lengths, beside.shares,
    )  # fmt: skip


@subroutine(inline=True)
def _predict_times_by_mixer(counts, beside, state, ids, begin, end, rows, row):
    predict_times(
        state, ids, begin, end, rows, row, counts.m, counts.w, counts.s,
        beside.found, beside.lengths, beside.shares,
    )  # fmt: skip


@subroutine(inline=True)
def _read_by_mixer(counts, state, character):
    advance_contexts(state, counts.m, character)


@subroutine(types.intp, inline=True)
def _mixer_begins(counts, step):
    return 0


@subroutine(inline=True)
def _predict_rows_by_table(trie, beside, numbers, ids, first, end):
    for row in range(first, end):
        state = flat_from(beside.states, row * numbers)
        advance_nodes(state, trie, ids[row])
        predict_after(state, trie, row, beside.found, beside.lengths, beside.shares)


@subroutine(inline=True)
def _predict_times_by_table(trie, beside, state, ids, begin, end, rows, row):
    for place in range(begin * rows + row, end * rows + row, rows):
        advance_nodes(state, trie, ids[place])
        predict_after(state, trie, place, beside.found, beside.lengths, beside.shares)


@subroutine(inline=True)
def _read_by_table(trie, state, character):
    advance_nodes(state, trie, character)


@subroutine(types.intp, inline=True)
def _table_begins(trie, step):
    return max(0, step - trie.sizes[1])


def _run_with(predict_rows: Any, predict_times: Any, read: Any, begins: Any) -> Callable[..., None]:
    """Return a subroutine that runs a mode with counts of one kind.

    Args:
        predict_rows: reads a character in each of some rows, and writes the predictions after it.
        predict_times: does the same for the characters of one row at some time steps.
        read: reads a character into a row's state of the counts.
        begins: returns the time step from which a row must be read for its state at another one.
    """

    @subroutine()
    def give(call, beside, size, first, end, stride):
        """Copy predictions for the network, if its dtype is another one."""
        if width(call.extra) != width(beside.found):
            for place in range(first, end, stride):
                for j in range(place * size, (place + 1) * size):
                    call.extra[j] = beside.found[j]

    @subroutine()
    def predict_all(plan, call, beside, counts, part, mixing):
        """Predict a thread's share of the places of a text."""
        batch, steps, numbers = plan.batch, mixing.steps, mixing.numbers
        start, end, row, end_row, copy = 0, steps, part.row, part.end_row, 0
        if by_time(steps, batch, part.threads):
            row, end_row, copy = 0, batch, part.thread
            start = share(steps, part.thread, part.threads)
            end = share(steps, part.thread + 1, part.threads)
        predicts = mixing.mode != READ or plan.extra_inputs > 0
        for r in range(row, end_row):
            state = flat_from(beside.states, (copy * batch + r) * numbers)
            for t in range(begins(counts, start), start if predicts else end):
                read(counts, state, call.ids[t * batch + r])
            if predicts:
                predict_times(counts, beside, state, call.ids, start, end, batch, r)
                give(call, beside, plan.vocabulary, start * batch + r, end * batch, batch)

    @subroutine()
    def decode_mixed(buffers, call, beside, part, mixing, positions, first_place):
        """Decode a thread's share of the positions of the workspace, and mix the predictions.

        Args:
            buffers: InferenceBuffers.
            call, beside, part, mixing: those of the call.
            positions: number of positions in the workspace.
            first_place: where the first of them is in call.out and among the predictions.
        """
        plan, w, v = buffers.plan, buffers.work, buffers.plan.vocabulary
        lanes, y, logits = width(w), outputs_at(plan, 1), logits_at(plan, part.thread)
        last = share(positions, part.thread + 1, part.threads)
        for first in range(share(positions, part.thread, part.threads), last, DECODED_AT_ONCE):
            count, place = min(DECODED_AT_ONCE, last - first), first_place + first
            _decode(buffers, call, beside, mixing, y + first * plan.hst, count, logits, place)
            for position in range(count):
                at, to = logits + position * plan.vst, (place + position) * v
                for j in range(0, v, lanes):
                    store_first(call.out, to + j, load(w, at + j), min(lanes, v - j))

    @subroutine(types.intp)
    def score(buffers, call, beside, part, mixing, sync):
        """Read a text that the counts have predicted, and write the predictions of the next ids.

        Returns:
            The index in the workspace of the states after it, -1 if another thread failed.
        """
        plan, batch, here = buffers.plan, buffers.plan.batch, 0
        for t in range(mixing.steps):
            reading, last = mixing.mode == READ, t + 1 == mixing.steps
            after = 1 - here if reading else here + 1
            if not _advance(buffers, call, part, sync, t, here, after):
                return -1
            here = after
            if reading or (here < plan.steps and not last):
                continue
            decode_mixed(buffers, call, beside, part, mixing, here * batch, (t + 1 - here) * batch)
            if last:
                break
            if not barrier(sync, part.threads):
                return -1
            restart(buffers, part, here)
            if not barrier(sync, part.threads):
                return -1
            here = 0
        return here

    @subroutine(types.intp)
    def sample(buffers, call, beside, counts, part, mixing, sync):
        """Sample the characters of all rows. Returns the same as `score`."""
        plan, batch = buffers.plan, buffers.plan.batch
        here, logits = 0, logits_at(plan, part.thread)
        probabilities = flat_from(buffers.probabilities, part.thread * plan.classes64)
        order = flat_from(buffers.order, part.thread * plan.classes64)
        for t in range(mixing.steps):
            now = Call(
                flat_from(call.ids, t * batch), call.extra, call.state, call.new_state, call.out,
                call.settings, flat_from(call.uniforms, t * batch), call.rules,
            )  # fmt: skip
            predict_rows(counts, beside, mixing.numbers, now.ids, part.row, part.end_row)
            give(call, beside, plan.vocabulary, part.row, part.end_row, 1)
            if not barrier(sync, part.threads):
                return -1
            if not _advance(buffers, now, part, sync, 0, here, 1 - here):
                return -1
            here = 1 - here
            for first in range(part.row, part.end_row, DECODED_AT_ONCE):
                count = min(DECODED_AT_ONCE, part.end_row - first)
                y = outputs_at(plan, here) + first * plan.hst
                _decode(buffers, call, beside, mixing, y, count, logits, first)
                for position in range(count):
                    row, at = first + position, logits + position * plan.vst
                    now.ids[batch + row] = choose_restricted(
                        buffers, now, at, probabilities, order, 0, row
                    )
            if not barrier(sync, part.threads):
                return -1
        return here

    @subroutine()
    def run(buffers, call, beside, counts, mixing, sync, threads, thread):
        plan = buffers.plan
        if mixing.mode == PACK:
            pack_weights(buffers, thread, threads, False, False)
            barrier(sync, threads)
            return
        read_ids = plan.batch if mixing.mode == GENERATE else mixing.steps * plan.batch
        if not in_vocabulary(plan, call.ids, read_ids, sync):
            return  # in all threads
        part = part_of_rows(plan, thread, threads, width(buffers.work))
        read_state(buffers, part, call.state)
        if mixing.mode == GENERATE:
            here = sample(buffers, call, beside, counts, part, mixing, sync)
        else:
            predict_all(plan, call, beside, counts, part, mixing)
            if not barrier(sync, threads):
                return
            here = score(buffers, call, beside, part, mixing, sync)
        if here >= 0:
            write_state(buffers, part, here, call.new_state, 0)
            barrier(sync, threads)

    return run


_run_with_mixer = _run_with(
    _predict_rows_by_mixer, _predict_times_by_mixer, _read_by_mixer, _mixer_begins
)
_run_with_table = _run_with(
    _predict_rows_by_table, _predict_times_by_table, _read_by_table, _table_begins
)


def infer_with_mixer(places, call_, beside_, counts_, numbers, sync, threads, thread):
    """Run a mode with a context mixer.

    Args:
        places: the addresses of InferenceBuffers.
        call_: Call.
        beside_: Beside.
        counts_: the addresses of ModelBuffers, of WeightBuffers, and of ScratchBuffers for each
            thread, (threads, ·).
        numbers: the numbers of Mixing, (5,).
        sync: the crew's array, see `charloom.kernels.threads`.
        threads: number of threads.
        thread: number of this thread.
    """
    model, weights, scratch = counts_
    counts = MixerCounts(
        as_buffers(ModelBuffers, model, beside_.found),
        as_buffers(WeightBuffers, weights, beside_.found),
        as_buffers(ScratchBuffers, scratch[thread], beside_.found),
    )
    mixing = Mixing(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4])
    _run_with_mixer(
        as_buffers(InferenceBuffers, places, call_.state), as_flats(call_), as_flats(beside_),
        counts, mixing, as_flat(sync), threads, thread,
    )  # fmt: skip


def infer_with_table(places, call_, beside_, counts_, numbers, sync, threads, thread):
    """Run a mode with an n-gram table, `counts_`, a Trie; otherwise like `infer_with_mixer`."""
    mixing = Mixing(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4])
    _run_with_table(
        as_buffers(InferenceBuffers, places, call_.state), as_flats(call_), as_flats(beside_),
        as_flats(counts_), mixing, as_flat(sync), threads, thread,
    )  # fmt: skip

"""Constraints that another process has compiled are those of this process."""

import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from charloom.constraints import processes
from charloom.constraints.automaton import Automaton
from charloom.constraints.options import ConstraintOptions
from charloom.constraints.processes import Compilers
from charloom.errors import CharloomError
from charloom.text.vocabulary import Vocabulary
from helpers.clients import posix

LETTERS = Vocabulary(tuple('\n"-abcde0123456789'))


@pytest.fixture(scope="module")
def compilers() -> Iterator[Compilers]:
    found = Compilers()
    yield found
    found.close()


def test_automata_and_errors_are_the_same(compilers: Compilers) -> None:
    options = ConstraintOptions(match="[a-d]+", forbid=["AB", "[c]"], bias=["a=1"])
    found, own = (read(options, LETTERS, str.lower) for read in (compilers.read, _own))
    assert found is not None
    assert isinstance(found.constraint, Automaton)
    for name in ("table", "classes", "accepting", "distance"):
        np.testing.assert_array_equal(getattr(found.constraint, name), getattr(own, name))
    assert found.bias is not None
    assert found.bias[LETTERS.encode("a")[0]] == 1
    for wrong in ({"match": "(a"}, {"forbid": ""}, {"require": "z"}, {"match": "a{1,100000}"}):
        messages = set()
        for read in (compilers.read, ConstraintOptions.read):
            with pytest.raises(CharloomError) as caught:
                read(ConstraintOptions(**wrong), LETTERS, str, (), {})
            messages.add(str(caught.value))
        assert len(messages) == 1


def _own(*arguments: Any) -> Any:
    read = ConstraintOptions.read(*arguments)
    assert read is not None
    return read.constraint


@posix
def test_a_process_that_was_ended_is_replaced(
    compilers: Compilers, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ConstraintOptions(match="a+")
    assert compilers.read(options, LETTERS, str) is not None
    for process in compilers._running:
        process.kill()
        process.wait()
    assert compilers.read(options, LETTERS, str) is not None
    (process,) = compilers._running  # without the one that was ended
    process.send_signal(signal.SIGSTOP)
    ask = processes._ask

    def ask_and_end(process: Any, request: bytes) -> Any:
        threading.Timer(0.1, process.kill).start()
        return ask(process, request)

    with monkeypatch.context() as patched:
        patched.setattr(processes, "_ask", ask_and_end)
        with pytest.raises(CharloomError, match="was ended"):
            compilers.read(options, LETTERS, str)
    assert compilers.read(options, LETTERS, str) is not None


@posix
def test_a_process_that_takes_too_long_is_ended(
    compilers: Compilers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compilers.read(ConstraintOptions(match="a+"), LETTERS, str) is not None
    monkeypatch.setattr(processes, "SECONDS", 0.2)
    (process,) = compilers._running
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(CharloomError, match="take too long"):
        compilers.read(ConstraintOptions(match="a+"), LETTERS, str)
    assert process.returncode is not None
    assert not compilers._running


def test_a_process_whose_answer_cannot_be_read_is_ended(
    compilers: Compilers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(processes, "_ask", fail)
        with pytest.raises(MemoryError):
            compilers.read(ConstraintOptions(match="a+"), LETTERS, str)
    assert not compilers._running
    assert compilers.read(ConstraintOptions(match="a+"), LETTERS, str) is not None


@posix
def test_none_is_started_once_they_are_closed() -> None:
    found = Compilers()
    assert found.read(ConstraintOptions(match="a+"), LETTERS, str) is not None
    (process,) = found._running
    process.send_signal(signal.SIGSTOP)
    closed = threading.Timer(0.2, found.close)
    closed.start()
    for _ in range(2):  # while it compiles, and later
        with pytest.raises(CharloomError, match="was ended"):
            found.read(ConstraintOptions(match="a+"), LETTERS, str)
    closed.join()
    assert process.returncode is not None
    assert not found._running


@pytest.mark.constrain
def test_a_grammar_comes_with_what_was_found_for_it(compilers: Compilers) -> None:
    schema = {"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 99}
    found = compilers.read(ConstraintOptions(json_schema=schema), LETTERS, str)
    assert found is not None
    own = _own(ConstraintOptions(json_schema=schema), LETTERS, str)
    state, expected = found.constraint.start(), own.start()
    assert (state.rest, state.tried) == (expected.rest, expected.tried)
    assert (found.constraint.allowed(state, 9) == own.allowed(expected, 9)).all()

"""Processes that compile constraints, so that a server's threads need not share Python's lock.

A process reads requests from its standard input and writes answers to its standard output, both
pickled. It ends with its standard input, so that it cannot outlive its server.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from charloom.constraints.options import NO_NAMES, ConstraintOptions
from charloom.constraints.protocol import Constraints
from charloom.errors import CharloomError
from charloom.kernels.helper import command
from charloom.text.vocabulary import Vocabulary

SECONDS = 120.0  # after which a process is ended, however busy the machine is
NICENESS = 5  # of a process, because texts that are sampled meanwhile come first
ENDED = "the process that compiles the constraints was ended: send them again, or use smaller ones"
PROGRAM = f"from {__name__} import serve\nserve()"


class Compilers:
    """Processes that compile constraints, each started when no other one is idle.

    `read` is `ConstraintOptions.read` in one of them. Any thread can call it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[subprocess.Popen[bytes]] = []
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def read(
        self,
        options: ConstraintOptions,
        vocabulary: Vocabulary,
        as_read: Callable[[str], str],
        stops: Sequence[str] = (),
        names: Mapping[str, str] = NO_NAMES,
    ) -> Constraints | None:
        """Return the constraints of options, see `ConstraintOptions.read`.

        Raises:
            CharloomError: they are invalid, no text meets them, they take too long, or their
                process was ended, as by `close`.
        """
        if options == ConstraintOptions(bias=options.bias):  # which needs no time
            return options.read(vocabulary, as_read, stops, names)
        try:
            read = options.with_texts(as_read)
            request = pickle.dumps((read, vocabulary, tuple(stops), dict(names)))
        except RecursionError:
            raise CharloomError("the constraints are nested too deeply: use fewer levels") from None
        try:
            process = self._take()
        except OSError:  # where no process can be started, this one compiles
            return options.read(vocabulary, as_read, stops, names)
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(SECONDS, end)
        timer.start()
        try:
            kind, found = _ask(process, request)
        except BaseException as error:
            self._end(process)
            if late.is_set():
                raise CharloomError(
                    "the constraints take too long to compile: use smaller ones"
                ) from None
            if self._closed or isinstance(error, (OSError, EOFError, pickle.UnpicklingError)):
                raise CharloomError(ENDED) from None
            raise
        finally:
            timer.cancel()
        with self._lock:
            if process in self._running:
                self._idle.append(process)
        if kind == "error":
            raise CharloomError(found)
        if kind == "failure":
            raise RuntimeError(found)
        constraints: Constraints | None = found
        return constraints

    def close(self) -> None:
        """End all processes. None is started any more."""
        with self._lock:
            self._closed = True
            running, self._running, self._idle = self._running, set(), []
        for process in running:
            _end(process)

    def _take(self) -> subprocess.Popen[bytes]:
        with self._lock:  # also while one is started, so that `close` ends it
            if self._closed:
                raise CharloomError(ENDED)
            while self._idle:
                process = self._idle.pop()
                if process.poll() is None:
                    return process
                self._running.discard(process)
                _end(process)
            process = _start()
            self._running.add(process)
            return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._running.discard(process)
        _end(process)


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(PROGRAM),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # so that Ctrl-C ends the server, and it ends the process
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(OSError):
            pipe.close()
    process.wait()


def _ask(process: subprocess.Popen[bytes], request: bytes) -> tuple[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(request)
    process.stdin.flush()
    found: tuple[str, Any] = pickle.load(process.stdout)
    return found


def serve() -> None:
    """Compile constraints until standard input ends."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # for whatever a package prints
    with contextlib.suppress(AttributeError, OSError):
        os.nice(NICENESS)
    while True:
        try:
            options, vocabulary, stops, names = pickle.load(source)
        except EOFError:
            return
        answer: tuple[str, Any]
        try:
            answer = "constraints", options.read(vocabulary, str, stops, names)
        except CharloomError as error:
            answer = "error", str(error)
        except Exception as error:
            answer = "failure", repr(error)
        try:
            pickle.dump(answer, target)
            target.flush()
        except BrokenPipeError:
            os._exit(0)

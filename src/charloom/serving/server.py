"""Run the HTTP server: socket, models, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import uvicorn

from charloom.constraints.processes import Compilers
from charloom.errors import printable
from charloom.language_model import LanguageModel
from charloom.serving.access import Access, AccessControl
from charloom.serving.app import ServedModel, Service
from charloom.serving.batcher import MOST_TEXTS, Batcher
from charloom.serving.connection import BACKLOG, Connection
from charloom.serving.streaming import Notifier
from charloom.serving.tokens import Tokens
from charloom.storage.folders import MODEL_FILE, model_path

KEEP_ALIVE_SECONDS = 15
GRACE_SECONDS = 30  # for running requests at shutdown
# After which a thread that reads a large request yields Python's lock to a batcher.
SWITCH_SECONDS = 0.0005


def name_runs(runs: Sequence[str]) -> list[str]:
    """Return a name for each run, its folder's.

    Further runs of the same name get a number.
    """
    names: list[str] = []
    for run in runs:
        path = model_path(run).resolve()
        name = printable(path.parent.name if path.name == MODEL_FILE else path.stem) or "model"
        first = name
        number = 1
        while name in names:
            number += 1
            name = f"{first}-{number}"
        names.append(name)
    return names


class Server(uvicorn.Server):
    """An HTTP server for models. A signal ends it after running requests, a second one at once.

    Args:
        models: The models by the names that requests use.
        opened: The listening socket.
        host: The name that the socket was opened with. Requests can use it in their Host header.
        allow_hosts: Further host names that requests can use, such as that of a proxy.
        allow_origins: Origins of web pages of other servers that can send requests.
        api_key: The key that requests must send. None accepts requests without a key.
        strict: Whether a request with an unknown field is an error. Otherwise the header
            `X-Ignored-Parameters` of the reply names the field.
        most_texts: The number of texts sampled from each model at a time.
        ready: A function that is called once the server accepts requests.

    Raises:
        CharloomError: A host name or an origin is invalid.
    """

    def __init__(
        self,
        models: Mapping[str, LanguageModel],
        opened: socket.socket,
        *,
        host: str = "127.0.0.1",
        allow_hosts: Sequence[str] = (),
        allow_origins: Sequence[str] = (),
        api_key: str | None = None,
        strict: bool = False,
        most_texts: int = MOST_TEXTS,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        access = Access(host, allow_hosts, allow_origins, api_key)
        self._notifier, self._opened, self._ready = Notifier(), opened, ready
        now = int(time.time())
        self._compilers = Compilers()
        self.models = []
        for name, model in models.items():
            batcher = Batcher(
                model.predictor,
                model.vocabulary,
                most_texts=most_texts,
                notify=self._notifier.notify,
            )
            tokens = Tokens(model.vocabulary, model.unseen, model.text_format, self._compilers.read)
            self.models.append(ServedModel(name, now, tokens, batcher))
        service = Service(self.models, self._notifier, strict=strict)
        super().__init__(
            uvicorn.Config(
                AccessControl(service, access),
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )

    def serve_until_ended(self) -> None:
        """Serve until a signal or `should_exit` ends the server, and close its socket."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.collect()
        gc.freeze()  # or all streams wait while a collection looks through models and modules
        try:
            self.run(sockets=[self._opened])
        finally:
            gc.unfreeze()
            sys.setswitchinterval(interval)
            self._opened.close()
            self._compilers.close()
            for model in self.models:
                model.batcher.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._notifier.loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().shutdown(sockets=sockets)
        finally:  # because the end of the event loop waits for threads that wait for them
            self._compilers.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        # uvicorn's own method raises the signal again at the end, so that a clean shutdown would
        # look like a crash.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self._end) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: Any) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True

"""Measure the throughput of `charloom serve` with concurrent streams, beside a loop in PyTorch.

    python -m benchmarks.serving            serve a network with random weights
    python -m benchmarks.serving --run RUN  serve a trained model (PyTorch runs its network alone)
    python -m benchmarks.serving --counts   serve a gru of 256 units, alone and in mixtures
    python -m benchmarks.serving --smoke    serve a tiny network and check every text

The server runs in its own process. A client requests all streams at once over HTTP, and compares
each text with a single sample of the same seed. It reads bytes and parses them after the last one,
because it shares the processor with the server. PyTorch serves one request at a time, one character
per step, with the same weights and random numbers. Finally, the server's memory is measured before
and after many short requests.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import charloom
from benchmarks.counts import MIXER, NETWORK, TABLE, models
from benchmarks.measuring import default_text
from charloom.engines.protocol import available_cores
from charloom.language_model import LanguageModel
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.storage.checkpoint import Checkpoint, save_checkpoint
from charloom.text.corpora import open_text
from charloom.text.vocabulary import Vocabulary

STREAMS = (1, 4, 16, 64, 256)
CHARACTERS = 300  # of each stream
REQUESTS = 10_000  # short requests, to measure memory
PROMPT = "\n"


@contextlib.contextmanager
def server(run: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start the server, and yield its process and its port."""
    command = [sys.executable, "-m", "charloom", "serve", str(run), "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r":(\d+)$", process.stdout.readline())
            assert found, "the server did not start"
            yield process, int(found[1])
        finally:
            process.terminate()
            process.wait()


def request(fields: dict[str, Any], seed: int) -> bytes:
    """Return the bytes of a request, after which the server closes the connection."""
    body = json.dumps(fields | {"seed": seed}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def events_in(content: bytes) -> list[dict[str, Any]]:
    """Return the events of a reply, which must be complete."""
    assert content.startswith(b"HTTP/1.1 200 "), content
    assert b"data: [DONE]" in content, content
    return [json.loads(event) for event in re.findall(rb"^data: (\{.*\})\r?$", content, re.M)]


async def ask(port: int, content: bytes) -> list[dict[str, Any]]:
    """Send a request and return the events of its stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    writer.write(content)
    received = await reader.read()
    writer.close()
    return events_in(received)


def streams(port: int, model: str, count: int, characters: int) -> tuple[list[str], float, float]:
    """Request `count` concurrent streams, each with its own seed, as one thread.

    Returns:
        Their texts, the seconds up to the last byte, and the client's processor seconds in them.
    """
    requests = [
        request({"model": model, "prompt": PROMPT, "max_tokens": characters, "stream": True}, seed)
        for seed in range(count)
    ]
    received: list[list[bytes]] = [[] for _ in requests]
    started, busy = time.perf_counter(), time.process_time()
    with selectors.DefaultSelector() as selector:
        for number, content in enumerate(requests):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(content)
            selector.register(connection, selectors.EVENT_READ, number)
        while selector.get_map():
            for key, _ in selector.select():
                opened: Any = key.fileobj
                content = opened.recv(1 << 18)
                received[key.data].append(content)
                if not content:
                    selector.unregister(opened)
                    opened.close()
    elapsed, busy = time.perf_counter() - started, time.process_time() - busy
    return [text_of(events_in(b"".join(own))) for own in received], elapsed, busy


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["choices"][0]["text"] for event in events)


async def many(port: int, model: str, count: int) -> None:
    """Send `count` short requests, sixteen at a time, each with its own prompt."""

    async def client(first: int) -> None:
        for number in range(first, count, 16):
            fields = {"model": model, "prompt": PROMPT * (number % 50), "max_tokens": 8, "n": 2}
            await ask(port, request(fields | {"stream": True}, number))

    await asyncio.gather(*(client(first) for first in range(16)))


def resident_bytes(process: subprocess.Popen[str]) -> int | None:
    """Return the resident memory of the process, or None if the system does not report it."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return None
    found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text())
    return int(found[1]) * 1024 if found else None


def pytorch(model: LanguageModel, characters: int) -> tuple[float, str] | None:
    """Run a sampling loop in PyTorch with its best number of threads.

    Returns:
        Characters per second and the text, or None if PyTorch is not installed.
    """
    try:
        import torch
    except ImportError:
        return None
    config, size = model.config, model.config.vocabulary_size
    kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[config.cell]
    network = torch.nn.ModuleDict(
        {
            "rnn": kind(size, config.hidden_size, config.layers),
            "decoder": torch.nn.Linear(config.hidden_size, size),
        }
    )
    weights = {name: torch.tensor(values) for name, values in model.engine.parameters.items()}
    network.load_state_dict(weights)
    eye, vocabulary = torch.eye(size), model.vocabulary
    best, text = 0.0, ""
    with torch.inference_mode():
        for threads in dict.fromkeys((1, available_cores())):
            torch.set_num_threads(threads)
            for _ in range(2):
                uniforms = torch.from_numpy(
                    np.random.Generator(np.random.PCG64([0, 0])).random(characters)
                )
                started = time.perf_counter()
                state, drawn = None, []
                _, state = network["rnn"](eye[vocabulary.start_id].view(1, 1, -1), state)
                last = int(vocabulary.encode(PROMPT)[0])
                for uniform in uniforms:
                    y, state = network["rnn"](eye[last].view(1, 1, -1), state)
                    running = network["decoder"](y[0, 0]).double().softmax(0).cumsum(0)
                    last = min(int(torch.searchsorted(running, uniform)), size - 1)
                    drawn.append(last)
                speed = characters / (time.perf_counter() - started)
                if speed > best:
                    best, text = speed, vocabulary.decode(drawn)
    return best, text


def drawn_at_random(folder: Path, hidden_size: int) -> Path:
    vocabulary = Vocabulary(tuple(map(chr, [10, *range(32, 127)])))
    parameters = initialize(ModelConfig("gru", hidden_size, 1, len(vocabulary)), seed=0)
    path = folder / "random.safetensors"
    save_checkpoint(path, Checkpoint(parameters, vocabulary))
    return path


def measure_counts(hidden_size: int, counts: Sequence[int], characters: int, rounds: int) -> None:
    """Serve a network alone and with counts, measured one after another in every round."""
    text = "".join(open_text(default_text()).pieces())[:300_000]
    vocabulary = Vocabulary.of(text)
    ids = vocabulary.encode(text).astype(np.intp)
    speeds: dict[tuple[int, str], list[float]] = {}
    shares = []  # of the client in one core
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        served = []
        for number, (kind, engine, mixture) in enumerate(models(ids, vocabulary, hidden_size, 1)):
            path = Path(folder, f"{number}.safetensors")
            save_checkpoint(path, Checkpoint(engine.parameters, vocabulary, mixture=mixture))
            model = charloom.load(path)
            expected = [
                model.sample(PROMPT, length=characters, seed=seed)[len(PROMPT) :]
                for seed in range(max(counts))
            ]
            _, port = servers.enter_context(server(path))
            streams(port, path.stem, 2, characters)
            served.append((kind, path.stem, port, expected))
        for _ in range(rounds):
            for kind, name, port, expected in served:
                for count in counts:
                    texts, elapsed, busy = streams(port, name, count, characters)
                    assert texts == expected[:count], "a text differs from its single sample"
                    speeds.setdefault((count, kind), []).append(count * characters / elapsed)
                    shares.append(busy / elapsed)
    print(f"Characters per second over HTTP, {characters} a stream, gru of {hidden_size} units:\n")
    print(f"| streams | {NETWORK} | {TABLE} | share | {MIXER} | share |")
    print("|---:|---:|---:|---:|---:|---:|")
    for count in counts:
        found = (statistics.median(speeds[count, kind]) for kind in (NETWORK, TABLE, MIXER))
        alone, table, mixer = found
        print(
            f"| {count} | {alone:,.0f} | {table:,.0f} | {table / alone:.0%} | {mixer:,.0f} | "
            f"{mixer / alone:.0%} |"
        )
    print(f"\nEvery text equals the single sample of the same seed ({rounds} rounds).")
    print(f"The client kept at most {max(shares):.0%} of one core busy.")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", type=Path, help="folder of a run")
    parser.add_argument(
        "--counts", action="store_true", help="serve a gru of 256 units, alone and in mixtures"
    )
    parser.add_argument("--hidden-size", type=int, default=512, help="hidden size without --run")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--smoke", action="store_true", help="serve a tiny network")
    arguments = parser.parse_args()
    smoke = arguments.smoke
    counts, characters = ((1, 4, 16), 20) if smoke else (STREAMS, CHARACTERS)
    rounds, requests = (1, 200) if smoke else (arguments.rounds, REQUESTS)
    if arguments.counts:
        measure_counts(8 if smoke else 256, counts, characters, rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        size = 16 if smoke else arguments.hidden_size
        run = arguments.run or drawn_at_random(Path(folder), size)
        model = charloom.load(run)
        name = run.absolute().name.removesuffix(".safetensors")
        expected = [
            model.sample(PROMPT, length=characters, seed=seed)[len(PROMPT) :]
            for seed in range(max(counts))
        ]
        loop = pytorch(model, characters)
        if loop is not None and model.mixture is None:
            same = sum(a == b for a, b in zip(loop[1], expected[0], strict=True))
            assert same > characters * 0.9, "PyTorch samples a different text"
        with server(run) as (process, port):
            streams(port, name, 2, characters)  # compile and warm up
            speeds: dict[int, list[float]] = {count: [] for count in counts}
            for _ in range(rounds):
                for count in counts:
                    texts, elapsed, _ = streams(port, name, count, characters)
                    speeds[count].append(count * characters / elapsed)
                    assert texts == expected[:count], "a text differs from its single sample"
            asyncio.run(many(port, name, requests * 3 // 10))  # so that the cache is full
            before = resident_bytes(process)
            asyncio.run(many(port, name, requests))
            after = resident_bytes(process)
    one = statistics.median(speeds[counts[0]])
    print("| streams | characters per second | ratio to one stream | ratio to PyTorch |")
    print("|---:|---:|---:|---:|")
    for count, found in speeds.items():
        speed = statistics.median(found)
        beside = "" if loop is None else f"{speed / loop[0]:.1f}"
        print(f"| {count} | {speed:,.0f} | {speed / one:.1f} | {beside} |")
    if loop is not None:
        print(f"\nPyTorch, one request at a time: {loop[0]:,.0f} characters per second.")
    print(f"Every text equals the single sample of the same seed ({rounds} rounds).")
    if before is not None and after is not None:
        print(
            f"Memory: {before / 1e6:.1f} MB after {requests * 3 // 10:,} requests, "
            f"{after / 1e6:.1f} MB after {requests:,} more."
        )


if __name__ == "__main__":
    main()

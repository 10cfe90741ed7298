"""`charloom serve` as a command: names of models, nonsense, ports and signals."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from charloom.cli.main import main
from charloom.cli.serve import open_playground
from charloom.cli.terminal import Terminal
from charloom.constraints import processes
from charloom.language_model import LanguageModel
from charloom.serving.connection import open_socket
from charloom.serving.schema import MOST_SAMPLED
from charloom.serving.server import Server, name_runs
from helpers.clients import KEY, Client, posix, received, stream_request
from helpers.texts import SCRIPT
from helpers.waiting import wait_until

# --- The command ----------------------------------------------------------------------------------


def test_runs_of_one_name_are_told_apart(served_run: Path, tmp_path: Path) -> None:
    other = tmp_path / SCRIPT
    shutil.copytree(served_run, other)
    shutil.copy(served_run / "model.safetensors", tmp_path / "single.safetensors")
    runs = [str(served_run), str(other), str(tmp_path / "single.safetensors"), str(served_run)]
    assert name_runs(runs) == [SCRIPT, f"{SCRIPT}-2", "single", f"{SCRIPT}-3"]
    assert name_runs([str(served_run / "model.safetensors")]) == [SCRIPT]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port=70000"], "invalid --port 70000"),
        (["--port=-1"], "invalid --port -1"),
        (["--host=no such host"], "cannot listen on no such host"),
        (["--port=0", "--allow-host=http://hub"], "'http://hub' is not a host name"),
        (["--port=0", "--allow-origin=app"], "'app' is not an origin"),
        (["--port=0", "--api-key="], "--api-key is empty"),
        (["--port=0", "--api-key=ö"], "--api-key is empty or not ASCII"),
        (["--port=0", "--max-streams=0"], "too few"),
        (["--port=0", "--engine=fast"], "engine 'fast' is not one of"),
    ],
)
def test_nonsense_is_refused(
    served_run: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    capsys.readouterr()
    assert main(["serve", str(served_run), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert message in line


def test_a_port_in_use_and_a_missing_run_are_refused(
    served_run: Path, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["serve", str(served_run), f"--port={client.port}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert f"cannot listen on 127.0.0.1:{client.port} (Address already in use)" in line
    assert main(["serve", str(served_run / "nothing")]) == 2
    assert "does not exist: pass a folder" in capsys.readouterr().err


@contextmanager
def serve_process(*arguments: str, **environment: str) -> Iterator[tuple[Any, Client]]:
    """The command as a process, when it says that it is ready."""
    command = [sys.executable, "-m", "charloom", "serve", *arguments, "--port=0", "--threads=1"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    ) as started:
        try:
            assert started.stdout is not None
            line = started.stdout.readline()
            found = re.fullmatch(r"serving (.*) at http://127\.0\.0\.1:(\d+)\n", line)
            assert found, line + started.communicate()[1]
            yield started, Client(int(found[2]))
        finally:
            started.kill()


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_finishes_running_requests(
    served_run: Path, served_model: LanguageModel, tmp_path: Path, number: int
) -> None:
    moved = tmp_path / "run"
    shutil.copytree(served_run, moved)
    with serve_process(str(moved), CHARLOOM_API_KEY=KEY) as (started, client):
        shutil.rmtree(moved)  # the model is in memory: serving goes on
        client.refused(401, "GET", "/v1/models")
        listed = client.get("/v1/models", authorization=f"Bearer {KEY}")
        assert [entry["id"] for entry in listed["data"]] == ["run"]
        with client.connect() as there:
            header = f"\r\nauthorization: Bearer {KEY}\r\n".encode()
            request = stream_request(model="run", max_tokens=6_000, seed=4)
            there.sendall(request.replace(b"\r\n", header, 1))
            content = there.recv(65536)
            assert content.startswith(b"HTTP/1.1 200 ")
            started.send_signal(number)
            content += received(there)
        assert started.wait(60) == 0
        assert started.communicate()[1] == ""
    events = re.findall(rb"^data: (\{.*\})", content, re.M)
    text = "".join(json.loads(event)["choices"][0]["text"] for event in events)
    assert text == served_model.sample("", length=6_000, seed=4)
    assert content.rstrip(b"\r\n0").endswith(b"data: [DONE]")
    with pytest.raises(ConnectionError):
        client.connect()


def accepts(client: Client) -> bool:
    """Return whether the server accepts connections. It does not after the first signal."""
    try:
        client.connect().close()
    except ConnectionError:
        return False
    return True


@posix
def test_a_second_signal_ends_at_once(served_run: Path) -> None:
    with serve_process(str(served_run)) as (started, client), client.connect() as there:
        there.sendall(stream_request(model=SCRIPT, max_tokens=MOST_SAMPLED, n=16))
        assert there.recv(100)
        started.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(client))  # two signals that come at once count as one
        assert started.poll() is None
        started.send_signal(signal.SIGTERM)
        started.wait(60)


def test_shutdown_does_not_wait_for_the_compilation_of_constraints(
    served_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def never_answers(process: subprocess.Popen[bytes], request: bytes) -> Any:
        asked.set()
        process.wait()
        raise EOFError

    monkeypatch.setattr(processes, "_ask", never_answers)
    monkeypatch.setattr(processes, "SECONDS", 20)
    with closing(open_socket("127.0.0.1", 0)) as opened:
        ready = threading.Event()
        served = Server({SCRIPT: served_model}, opened, ready=ready.set)
        thread = threading.Thread(target=served.serve_until_ended)
        thread.start()
        assert ready.wait(60)
        with Client(opened.getsockname()[1]).connect() as there:
            there.sendall(stream_request(model=SCRIPT, guided_regex="a+"))
            assert asked.wait(60)
            served.should_exit = served.force_exit = True  # as two signals do
            thread.join(10)
        ended = not thread.is_alive()
        thread.join()
    assert ended


@pytest.mark.parametrize("opens", [True, False])
def test_the_playground_is_opened_in_a_browser(
    opens: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or opens)
    thread = open_playground("http://127.0.0.1:8000", Terminal())
    thread.join(10)
    assert opened == ["http://127.0.0.1:8000"]
    said = capsys.readouterr().err
    assert said == ("" if opens else "charloom: no browser: open http://127.0.0.1:8000\n")

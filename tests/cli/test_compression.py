"""`charloom compress` and `charloom decompress`, on files and pipes."""

import base64
import random
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from charloom.cli.compress import BLOCK, read_whole
from helpers.cli import contents, process, refused, run
from helpers.texts import WOODS

pytest.importorskip("numba", reason="compression needs Numba")


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "woods.txt"
    path.write_bytes(WOODS.encode())
    return path


def test_a_file_is_restored(text: Path) -> None:
    status, output, errors = run("compress", "woods.txt")
    assert (status, output) == (0, "")
    packed = Path("woods.txt.loom")
    assert f"{len(WOODS.encode()):,} bytes to {packed.stat().st_size:,}" in errors
    assert run("decompress", "woods.txt.loom", "-o", "copy.txt")[0] == 0
    assert Path("copy.txt").read_bytes() == text.read_bytes()


def test_nothing_is_lost(text: Path) -> None:
    assert run("compress", "woods.txt")[0] == 0
    before = contents(Path())
    assert "--force" in refused("compress", "woods.txt")
    assert "--force" in refused("decompress", "woods.txt.loom")
    assert "file to read" in refused("compress", "woods.txt", "--out", "woods.txt", "--force")
    assert "--out" in refused("decompress", "woods.txt")
    assert "not compressed by charloom" in refused("decompress", "woods.txt", "--out", "new")
    assert "cannot read 'nowhere'" in refused("compress", "nowhere")
    Path("half.loom").write_bytes(Path("woods.txt.loom").read_bytes()[:60])
    assert "damaged or incomplete" in refused("decompress", "half.loom")
    Path("half.loom").unlink()
    assert contents(Path()) == before
    assert run("compress", "woods.txt", "--force")[0] == 0


def test_an_interrupted_command_leaves_nothing(text: Path) -> None:
    text.write_bytes(base64.b64encode(random.Random(1).randbytes(3_000_000)))
    before = contents(Path())
    command = [sys.executable, "-m", "charloom", "compress", "woods.txt"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        said = []
        for line in running.stderr:
            said.append(line)
            if "takes about" in line:
                running.send_signal(signal.SIGINT)
    assert running.returncode == 128 + signal.SIGINT, said
    assert "interrupted" in said[-1]
    assert contents(Path()) == before


def test_too_many_bytes_are_refused(text: Path) -> None:
    assert run("compress", "woods.txt")[0] == 0
    assert "--max-bytes" in refused("decompress", "woods.txt.loom", "-o", "c", "--max-bytes", "9")
    Path("noise.loom").write_bytes(b"\x8cloom" * 40)
    assert "--max-bytes" in refused("decompress", "noise.loom", "--max-bytes", "100")
    assert "--max-bytes" in refused("decompress", "woods.txt.loom", "-o", "c", "--max-bytes", "-1")


def test_memory_is_that_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * (2 * BLOCK // 256)
    (tmp_path / "file").write_bytes(data + b"end")
    tracemalloc.start()
    try:
        assert read_whole(str(tmp_path / "file"), 1_000_000_000) == data + b"end"
        assert tracemalloc.get_traced_memory()[1] < 4 * len(data)
    finally:
        tracemalloc.stop()
    for most in (0, 9, BLOCK - 1, BLOCK, 2 * BLOCK + 2):
        assert read_whole(str(tmp_path / "file"), most) == (data + b"end")[: most + 1]


def test_pipes(text: Path) -> None:
    packed = process("compress", "-", stdin=text.read_bytes())
    assert packed.returncode == 0
    assert len(packed.stdout) < len(text.read_bytes())
    restored = process("decompress", "-", stdin=packed.stdout)
    assert (restored.returncode, restored.stdout) == (0, text.read_bytes())

"""Messages: short texts in a few bytes, for two sides that have one model."""

from pathlib import Path

import pytest

import charloom
from charloom.compression import messages
from charloom.compression.container import MARK
from charloom.compression.messages import SharedModel
from charloom.context_mixing import packing
from helpers.cli import refused, run
from helpers.texts import PROMISES

OPTIONS = {"steps": 20, "hidden_size": 8, "window": 16, "batch_size": 4, "seed": 1, "threads": 1}
LINE = "The woods are lovely, dark and deep,\n"
TEXTS = ("", "T", LINE, LINE[:7] + "ß字" + LINE, "\U0001f600", LINE * 9, PROMISES * 4, LINE[::-1])


@pytest.fixture(scope="module", params=["context-mixing", "kneser-ney"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "text.txt").write_text(PROMISES * 4, "utf-8")
    out = folder / "run"
    charloom.train(folder / "text.txt", out=out, counts=request.param, **OPTIONS)
    return out


@pytest.mark.parametrize("text", TEXTS, ids=len)
def test_a_message_is_restored(path: Path, text: str) -> None:
    packed = charloom.compress(text, charloom.load(path, threads=1))
    assert charloom.decompress(packed, charloom.load(path, threads=1)) == text.encode()
    assert len(packed) <= len(text.encode()) + 64


def test_a_message_is_short(path: Path) -> None:
    model = charloom.load(path, threads=1)
    packed = charloom.compress(LINE, model)
    assert len(packed) < 20
    assert charloom.compress(LINE, model) == packed
    noise = bytes(range(128, 256))
    assert charloom.compress(noise, model).startswith(MARK)
    assert charloom.decompress(charloom.compress(noise, model), model) == noise


def test_a_model_of_other_texts_never_makes_a_text_longer(path: Path) -> None:
    model = charloom.load(path, threads=1)
    text = "0123456789\n" * 300
    packed = charloom.compress(text, model)
    assert packed == charloom.compress(text)
    assert charloom.decompress(packed, model) == text.encode()
    with pytest.raises(charloom.CharloomError, match="the model is of type int"):
        charloom.compress(LINE, 5)  # type: ignore[arg-type]


def test_the_base_model_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no run has its name
    packed = charloom.compress(LINE, "english")
    assert len(packed) < 20
    assert charloom.decompress(packed, "english") == LINE.encode()


def test_another_model_is_recognized(path: Path, tmp_path: Path) -> None:
    model = charloom.load(path, threads=1)
    other = charloom.train(PROMISES[::-1], **{**OPTIONS, "seed": 2})
    for text in (LINE, LINE * 9):
        packed = charloom.compress(text, model)
        for wrong in (other, None):
            with pytest.raises(charloom.CharloomError, match="model"):
                charloom.decompress(packed, wrong)
        with pytest.raises(charloom.CharloomError):
            charloom.decompress(packed[:-1], model)
        with pytest.raises(charloom.CharloomError, match="above the limit of 30"):
            charloom.decompress(packed, model, most_bytes=30)


def test_a_model_has_one_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**OPTIONS, "counts": "context-mixing", "steps": 2}
    model = charloom.train(PROMISES, out=tmp_path / "run", **options)
    digest = SharedModel(model).digest
    monkeypatch.setattr(packing, "LEVEL", 1)  # as if by another build of zlib
    loaded = charloom.load(tmp_path / "run", threads=1)
    assert SharedModel(loaded).digest == digest
    loaded.save(tmp_path / "again.safetensors")
    again = charloom.load(tmp_path / "again.safetensors", threads=1)
    assert SharedModel(again).digest == digest
    assert loaded.mixture is not None
    loaded.mixture.counts.adaptive.final[0] += 1
    assert SharedModel(loaded).digest != digest
    monkeypatch.setattr(messages, "ARITHMETIC", messages.ARITHMETIC - 1)
    packed = messages.write_message(LINE.encode() * 9, SharedModel(again))
    monkeypatch.undo()
    with pytest.raises(charloom.CharloomError, match=r"another version .* and version$"):
        charloom.decompress(packed, again)


def test_the_commands_use_a_model(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("line.txt").write_bytes(LINE.encode())
    assert run("compress", "line.txt", "--model", str(path))[0] == 0
    assert Path("line.txt.loom").stat().st_size < 20
    assert "with a model" in refused("decompress", "line.txt.loom", "--out", "copy.txt")
    assert run("decompress", "line.txt.loom", "-o", "copy.txt", "--model", str(path))[0] == 0
    assert Path("copy.txt").read_bytes() == LINE.encode()

"""Texts as people have them, from training to a score: encodings, line ends, marks, archives."""

import gzip
from pathlib import Path

import pytest

from charloom.cli.main import main
from charloom.storage.checkpoint import load_checkpoint
from helpers.cli import refused
from helpers.runs import FEW

TEXT = "Мороз и солнце; день чудесный! Ещё ты дремлешь, друг прелестный.\n" * 40
Captured = pytest.CaptureFixture[str]


def trained(capsys: Captured, *arguments: str) -> str:
    assert main(["train", *arguments, "--out", "run", *FEW]) == 0
    return capsys.readouterr().err


def figures(capsys: Captured, *arguments: str) -> str:
    """The second line of an evaluation, which has the figures."""
    assert main(["evaluate", "run", *arguments]) == 0
    return capsys.readouterr().out.splitlines()[1]


@pytest.fixture(autouse=True)
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, data in {
        "utf-8.txt": TEXT.encode(),
        "koi8.txt": TEXT.encode("koi8-r"),
        "utf-16.txt": TEXT.encode("utf-16-le"),
        "mark.txt": b"\xef\xbb\xbf" + TEXT.encode(),
        "crlf.txt": TEXT.replace("\n", "\r\n").encode(),
        "cr.txt": TEXT.replace("\n", "\r").encode(),
        "crlf.txt.gz": gzip.compress(TEXT.replace("\n", "\r\n").encode()),
    }.items():
        Path(name).write_bytes(data)


@pytest.mark.parametrize("name", ["mark.txt", "utf-16.txt", "crlf.txt", "cr.txt", "crlf.txt.gz"])
def test_all_forms_of_a_text_are_one_text(name: str, capsys: Captured) -> None:
    said = trained(capsys, name)
    kept = "are read as line breaks; training with --keep-newlines keeps them"
    expected = {
        "utf-16.txt": "'utf-16.txt' is read as UTF-16-LE",
        "crlf.txt": f"Windows line ends {kept}",
        "crlf.txt.gz": f"Windows line ends {kept}",
        "cr.txt": f"carriage returns {kept}",
    }
    if name in expected:
        assert said.count(expected[name]) == 1
    model = load_checkpoint(Path("run/model.safetensors"))
    assert set(model.vocabulary.characters) == set(TEXT)
    assert model.text["characters"] == len(TEXT)
    assert model.text.get("encoding") == ("utf-16-le" if name == "utf-16.txt" else None)
    assert figures(capsys, "utf-8.txt") == figures(capsys, name) == figures(capsys, "cr.txt")
    assert main(["train", name, "--out", "run", "--resume", "--steps", "5"]) == 0
    assert main(["train", "utf-8.txt", "--out", "run", "--resume", "--steps", "6"]) == 0


def test_an_encoding_is_suggested_and_recorded(capsys: Captured) -> None:
    assert refused("train", "koi8.txt", *FEW).endswith("pass --encoding koi8-r")
    trained(capsys, "koi8.txt", "--encoding", "koi8-r", "--validation", "koi8.txt")
    assert load_checkpoint(Path("run/model.safetensors")).training["encoding"] == "koi8-r"
    assert figures(capsys, "koi8.txt") == figures(capsys, "utf-8.txt")
    assert main(["evaluate", "run"]) == 0  # the training text is read again as it was read then
    assert main(["train", "koi8.txt", "--out", "run", "--resume", "--steps", "5"]) == 0
    line = refused("train", "koi8.txt", "--out", "run", "--resume", "--encoding", "cp1251")
    assert "--encoding is cp1251, but the run has koi8-r" in line


@pytest.mark.parametrize("command", ["evaluate", "score", "explore", "sample"])
def test_the_encoding_of_another_text_than_the_training_text(
    command: str, capsys: Captured
) -> None:
    trained(capsys, "utf-8.txt")
    option = ["--prompt-file"] if command == "sample" else []

    def printed(name: str, *arguments: str) -> str:
        Path("a.txt").write_bytes(Path(name).read_bytes()[:400])
        seed = ["--seed=1", "--length=5"] if command == "sample" else []
        assert main([command, "run", *option, "a.txt", *seed, *arguments]) == 0
        return capsys.readouterr().out.replace("\N{REPLACEMENT CHARACTER}", "")

    Path("koi8.txt").write_bytes(TEXT[:200].encode("koi8-r"))
    Path("utf-8.txt").write_bytes(TEXT[:200].encode())
    line = refused(command, "run", *option, "koi8.txt")
    assert line.endswith("pass --encoding koi8-r")  # which this command has, too
    assert printed("koi8.txt", "--encoding", "koi8-r") == printed("utf-8.txt")
    assert "is not an encoding" in refused(
        command, "run", *option, "koi8.txt", "--encoding", "klingon"
    )
    Path("bad.txt").write_bytes(b"\xff" + TEXT.encode())
    assert "--encoding-errors replace" in refused(command, "run", *option, "bad.txt")
    Path("utf-8.txt").write_bytes(b"\xff" + TEXT.encode())
    printed("utf-8.txt", "--encoding-errors", "replace", "--skip-unknown")


def test_an_encoding_without_a_text_that_has_it_is_refused(capsys: Captured) -> None:
    trained(capsys, "utf-8.txt", "--bytes")
    line = refused("score", "run", "koi8.txt", "--encoding", "koi8-r")
    assert line.endswith("--encoding has no effect, because the model reads bytes: omit it")
    assert "--encoding is for a TEXT" in refused("evaluate", "run", "--encoding", "koi8-r")
    assert "requires --prompt-file" in refused("sample", "run", "--encoding-errors", "replace")


def test_an_encoding_and_bytes_exclude_each_other() -> None:
    assert "--encoding does nothing here, because" in refused(
        "train", "koi8.txt", "--encoding", "koi8-r", "--bytes"
    )
    assert "--encoding is 'klingon'" in refused("train", "koi8.txt", "--encoding", "klingon")


def test_line_ends_are_kept_on_request_and_for_a_model_that_has_them(capsys: Captured) -> None:
    trained(capsys, "crlf.txt", "--keep-newlines")
    assert "\r" in load_checkpoint(Path("run/model.safetensors")).vocabulary.characters
    assert figures(capsys, "crlf.txt") != figures(capsys, "utf-8.txt")
    assert main(["train", "crlf.txt", "--from", "run", "--out", "tuned", *FEW]) == 0
    assert "line ends are kept, as for the model of --from" in capsys.readouterr().err
    assert load_checkpoint(Path("tuned/model.safetensors")).training["keep_newlines"]


def test_the_earlier_option_for_line_ends_is_accepted(capsys: Captured) -> None:
    trained(capsys, "crlf.txt", "--normalize-newlines")
    assert not load_checkpoint(Path("run/model.safetensors")).training["keep_newlines"]
    Path("options.toml").write_bytes(b"\xef\xbb\xbfnormalize-newlines = false\n")  # with a mark
    command = ["train", "crlf.txt", "--config", "options.toml", "--out", "kept", *FEW]
    assert main(command) == 0
    assert load_checkpoint(Path("kept/model.safetensors")).training["keep_newlines"]
    assert main([*command[: -len(FEW)], "--resume", "--steps", "5"]) == 0


def test_a_default_folder_with_the_run_of_another_text(capsys: Captured) -> None:
    Path("people.csv").write_bytes(b"a,b\n" * 200)
    Path("people.txt").write_text(TEXT, encoding="utf-8")
    assert main(["train", "people.csv", *FEW]) == 0
    line = refused("train", "people.txt", *FEW)
    assert "runs/people holds a run of another text, " in line
    assert line.endswith("people.csv: pass another folder with --out")
    assert "add --resume" in refused("train", "people.csv", *FEW)

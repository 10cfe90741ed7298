"""Texts that grow or move after a training: what is still known of them, and what to do."""

import re
import shlex
from pathlib import Path

import pytest

import charloom
from charloom.cli.main import main
from charloom.errors import CharloomWarning
from charloom.storage.checkpoint import load_checkpoint
from helpers.cli import Captured, refused

LINES = "".join(f"entry {number} of the log, {number * number} bytes\n" for number in range(400))
SMALL = ["--steps=4", "--hidden-size=8", "--threads=1", "--window=16"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my log.txt").write_text(LINES)
    return tmp_path


def train(*arguments: str) -> None:
    assert main(["train", "my log.txt", *SMALL, "--out", "runs/log", *arguments]) == 0


def grow(text: str = "entry 400, and é\n") -> None:
    with Path("my log.txt").open("a", encoding="utf-8") as file:
        file.write(text)


def command_in(line: str) -> list[str]:
    found = re.search("`charloom (.*)`", line)
    assert found, line
    return shlex.split(found[1])


@pytest.mark.parametrize(
    ("options", "growth", "reason"),
    [
        ([], "17 characters", "because their held-out texts are different"),
        (["--lines"], "1 document", "keep their documents, but get new ones"),
        (["--min-count=30"], "17 characters", "because their held-out texts are different"),
        (["--bytes", "--split=80/10/10"], "18 characters", "their held-out texts are different"),
    ],
)
def test_resuming_a_grown_text_names_a_command_that_works(
    options: list[str], growth: str, reason: str, capsys: Captured
) -> None:
    train(*options)
    metrics = load_checkpoint(Path("runs/log/model.safetensors")).metrics
    loss = metrics["validation"]["nats_per_character"]
    grow()
    capsys.readouterr()
    line = refused("train", "my log.txt", "--out=runs/log", "--resume", "--steps=8")
    assert f"the text 'my-log' has grown by {growth} since the training began: " in line
    assert f"do not compare the losses of the two runs ({loss:.4f} here)" in line
    assert reason in line
    command = command_in(line)
    assert command[-4:] == ["--from", "runs/log", "--out", "runs/log-2"]
    Path("runs/log-2").mkdir()
    again = command_in(refused("train", "my log.txt", "--out=runs/log", "--resume"))
    assert again[-1] == "runs/log-3"
    assert main([*again, *SMALL[:1], *SMALL[2:]]) == 0
    further = load_checkpoint(Path("runs/log-3/model.safetensors"))
    assert "é" in further.vocabulary.characters or "--lines" not in options


@pytest.mark.parametrize("options", [[], ["--lines"], ["--bytes"]])
def test_a_grown_text_is_evaluated_as_it_was(options: list[str], capsys: Captured) -> None:
    train(*options)
    capsys.readouterr()
    assert main(["evaluate", "runs/log", "--json"]) == 0
    before = capsys.readouterr().out
    grow("more\n" * 1000)
    assert main(["evaluate", "runs/log", "--json"]) == 0
    after = capsys.readouterr()
    assert after.out == before
    assert re.search(
        r"^charloom: the text 'my-log' has grown by [\d,]+ \w+ since the training began: only its "
        "beginning is used$",
        after.err,
        re.MULTILINE,
    )
    with pytest.warns(CharloomWarning, match="has grown by"):
        assert charloom.load("runs/log").overlap("entry 399 of the log").length == 20


def test_a_text_that_was_changed_has_not_grown(capsys: Captured) -> None:
    train()
    for changed in ("x" + LINES[1:] + "more\n", LINES[:-9]):
        Path("my log.txt").write_text(changed)
        line = refused("train", "my log.txt", "--out=runs/log", "--resume")
        assert "is not the one that the run was trained on" in line
        assert "pass that text again, or train its model further on this one with `charl" in line
        assert "is not the one that the run was trained on" in refused("evaluate", "runs/log")


def test_a_text_of_no_name_that_has_grown() -> None:
    options = {"steps": 4, "hidden_size": 8, "threads": 1, "window": 16}
    charloom.train(LINES, out="run", **options)
    with pytest.raises(
        charloom.CharloomError, match=r"grown by 5 characters .* with --from run and"
    ):
        charloom.train(LINES + "more\n", out="run", resume=True)


def test_texts_of_their_own_parts_that_have_moved(folder: Path, capsys: Captured) -> None:
    (folder / "old").mkdir()
    for name, first in (("train", 0), ("valid", 300), ("test", 350)):
        lines = LINES.splitlines(keepends=True)[first : first + 300]
        (folder / "old" / name).write_text("".join(lines))
    words = ["train", "old/train", "--validation=old/valid", "--test=old/test", *SMALL, "--out=run"]
    assert main(words) == 0
    (folder / "old").rename("new")
    capsys.readouterr()
    assert main(["evaluate", "run", "--training-text", "new/train"]) == 0
    assert "xz" in capsys.readouterr().out
    (folder / "new" / "valid").rename("elsewhere")
    line = refused("evaluate", "run", "--training-text", "new/train")
    assert "--resume --validation PATH" in line
    resume = ["train", "new/train", "--out=run", "--resume", "--steps=6"]
    assert "is not the one" in refused(*resume, "--validation=new/test", "--test=new/test")
    assert main([*resume, "--validation=elsewhere", "--test=new/test"]) == 0
    assert main(["evaluate", "run"]) == 0
    assert "omit the option" in refused(*resume[:-1], "--split=80/10/10")

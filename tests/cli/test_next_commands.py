"""Every command that a command suggests works where it is printed."""

import shlex
import signal
from pathlib import Path

import pytest

from charloom.cli import train as train_module
from charloom.cli.terminal import Interrupts
from helpers.cli import in_place_of_standard_input, run
from helpers.runs import FEW, TINY
from helpers.texts import WOODS

ODD = 'it\'s a "text" for ‘words’ & 字.txt'
LIST = "".join(f"name {i} of {i * i}\n" for i in range(300))


def suggested(errors: str) -> list[list[str]]:
    """The commands in the lines of a command, as a shell would read them."""
    found = []
    for line in errors.splitlines():
        text = line.removeprefix("charloom: ")
        start = text.find("charloom ")
        if (start >= 0 and text[:start].strip(" ") in ("", "Next:")) or ": charloom " in text:
            found.append(shlex.split(text[text.index("charloom ") :], comments=True))
    return found


def run_each(commands: list[list[str]], *options: str) -> None:
    for command in commands:
        assert command[0] == "charloom"
        status, _, errors = run(*command[1:], *options)
        assert status == 0, (command, errors)


@pytest.fixture(autouse=True)
def in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path(ODD).write_text(WOODS, encoding="utf-8")
    Path("list.txt").write_text(LIST, encoding="utf-8")
    Path("-dash.txt").write_text(WOODS, encoding="utf-8")
    Path("texts").mkdir()
    for i in range(30):
        Path(f"texts/{i}.txt").write_text(f"{WOODS[:200]} {i}\n", encoding="utf-8")


BOTH = ["sample", "evaluate"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([ODD, "--out", "a 'run' of \"mine\""], BOTH),
        ([ODD, "--out", "../elsewhere/-run"], BOTH),
        (["./-dash.txt", "--out=-run"], BOTH),
        ([ODD, "--out=a run", "--bytes"], BOTH),
        ([ODD, "--out=run", "--split=95/5/0"], BOTH),
        ([ODD, "--out=run", "--split=100/0/0"], ["sample"]),
        ([ODD, "list.txt", "--out=run"], BOTH),
        (["texts", "--out=run"], BOTH),
        (["list.txt", "--lines", "--out=run"], BOTH),
        (["list.txt", "--lines", "--out=run", "--split=100/0/0"], ["sample"]),
        ([ODD, "--out=run", "--split=100/0/0", "--test=list.txt"], BOTH),
    ],
)
def test_suggestions_after_training(arguments: list[str], expected: list[str]) -> None:
    status, _, errors = run("train", *arguments, *FEW)
    assert status == 0, errors
    commands = suggested(errors)
    assert [command[1] for command in commands] == expected
    run_each(commands)
    if expected == ["sample"]:
        assert "to evaluate it, pass another text, because all of this one was trained on" in errors
        run_each([["charloom", "evaluate", "run", ODD]], "--skip-unknown")


@pytest.mark.parametrize("option", [[], ["--split=100/0/0"], ["--test=-"]])
def test_suggestions_after_standard_input(
    option: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_place_of_standard_input(monkeypatch, WOODS.encode())
    text = ODD if option == ["--test=-"] else "-"
    status, _, errors = run("train", text, "--out=run", *option, *FEW)
    assert status == 0, errors
    assert [command[1] for command in suggested(errors)] == ["sample"]
    run_each(suggested(errors))
    assert "to evaluate it, pass " in errors
    if not option:
        assert "with --training-text" in errors
        run_each([["charloom", "evaluate", "run", "--training-text", ODD]])


class Interrupted(Interrupts):
    """A signal after a few steps."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        if self.asked > 5:
            self.received = signal.SIGINT
        return self.received is not None


@pytest.mark.parametrize(
    "arguments",
    [
        [ODD, "--out", "a 'run'"],
        ["./-dash.txt", "--out=-run"],
        ["list.txt", "--lines", "--out=run"],
        ["texts", "--validation", ODD, "--out=run"],
        [ODD, "--bytes", "--out=run", "--tensorboard"],
    ],
)
def test_interrupted_training_is_resumed(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "Interrupts", Interrupted)
        status, _, errors = run("train", *arguments, *TINY, "--steps=20")
    assert status == 130
    (command,) = suggested(errors)
    assert command[-1] == "--resume" or command[-1] == "--tensorboard"
    status, _, errors = run(*command[1:])
    assert status == 0, errors
    run_each(suggested(errors))


def test_interrupted_training_on_standard_input_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    in_place_of_standard_input(monkeypatch, WOODS.encode())
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "Interrupts", Interrupted)
        _, _, errors = run("train", "-", "--out=run", *TINY, "--steps=20")
    assert "To resume, pipe the same text into: charloom train - --out run --resume" in errors
    in_place_of_standard_input(monkeypatch, WOODS.encode())
    run_each([shlex.split(errors.split("into: ")[1])])


def test_an_imported_model_is_sampled_from() -> None:
    assert run("train", ODD, "--out=run", *FEW)[0] == 0
    assert run("export", "run", "--to=pytorch", "--out", "it's.safetensors")[0] == 0
    status, output, errors = run("import", "it's.safetensors", "--out", "an 'import'")
    assert (status, output) == (0, "an 'import'/model.safetensors\n")
    assert suggested(errors) == [["charloom", "sample", "an 'import'"]]
    run_each(suggested(errors))

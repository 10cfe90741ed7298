"""Shell completion: each shell completes commands, options, choices and files by its script."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from charloom.cli.main import COMMANDS, main
from helpers.cli import refused

Complete = Callable[[str], list[str]]


def script_of(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    script, errors = capsys.readouterr()
    assert errors == ""
    return script


@pytest.fixture
def complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Complete:
    """Return a function that completes the last word of a line in bash, as the Tab key does."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    script = tmp_path / "completion"
    script.write_text(script_of("bash", capsys), encoding="utf-8")
    folder = tmp_path / "folder"
    (folder / "runs" / "book").mkdir(parents=True)
    for name in ("book.txt", "bo ok.txt"):
        (folder / name).touch()

    def complete_line(line: str) -> list[str]:
        asking = (
            f"source '{script}'\nCOMP_WORDS=({line})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n"
            "$(complete -p charloom | sed 's/.*-F \\([^ ]*\\) .*/\\1/')\n"
            'printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        done = subprocess.run(
            [bash, "--norc", "-c", asking], cwd=folder, capture_output=True, text=True, check=True
        )
        return sorted(filter(None, done.stdout.splitlines()))

    return complete_line


def test_bash_completes_commands_options_choices_and_files(complete: Complete) -> None:
    assert set(COMMANDS) <= set(complete("charloom ''"))
    assert complete("charloom comp") == ["completion", "compress"]
    assert complete("charloom train book.txt --hid") == ["--hidden-size"]
    assert complete("charloom train book.txt --cell ''") == ["gru", "lstm", "rnn"]
    assert complete("charloom train --cell gru bo") == ["bo ok.txt", "book.txt"]
    assert complete("charloom train book.txt --config bo") == ["bo ok.txt", "book.txt"]
    assert complete("charloom train book.txt --from r") == ["runs"]
    assert complete("charloom demo --out ''") == ["runs"]
    assert complete("charloom sample runs/b") == ["runs/book"]
    assert complete("charloom score runs/book b") == ["bo ok.txt", "book.txt"]
    assert complete("charloom evaluate runs/book --encoding-errors r") == ["replace"]
    assert complete("charloom export runs/book --to on") == ["onnx"]
    assert complete("charloom completion f") == ["fish"]
    assert "--normalize-newlines" not in complete("charloom train --n")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_script_of_a_shell_is_valid(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "completion"
    script.write_text(script_of(shell, capsys), encoding="utf-8")
    text = script.read_text(encoding="utf-8")
    assert all(word in text for word in ("completion", "hidden-size", "rnn lstm gru"))
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([program, "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_fish_completes_commands_options_and_choices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("fish is not installed")
    script = tmp_path / "charloom.fish"
    script.write_text(script_of("fish", capsys), encoding="utf-8")

    def complete(line: str) -> list[str]:
        asking = f"source '{script}'; complete --do-complete '{line}'"
        done = subprocess.run(
            [fish, "--no-config", "-c", asking],
            cwd=tmp_path,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        return sorted(line.partition("\t")[0] for line in done.stdout.splitlines())

    assert complete("charloom comp") == ["completion", "compress"]
    assert complete("charloom train --hid") == ["--hidden-size"]
    assert complete("charloom train --cell ") == ["gru", "lstm", "rnn"]
    assert "charloom.fish" in complete("charloom train char")


@pytest.mark.parametrize("words", [["completion"], ["completion", "powershell"]])
def test_other_shells_are_refused(words: list[str]) -> None:
    assert "shell" in refused(*words)


@pytest.mark.parametrize("how", ["source _charloom", 'eval "$(cat _charloom)"'])
def test_zsh_can_source_the_script(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("zsh is not installed")
    (tmp_path / "_charloom").write_text(script_of("zsh", capsys), encoding="utf-8")
    asking = f"autoload -Uz compinit; compinit -u -D; {how}; print ${{_comps[charloom]}}"
    done = subprocess.run(
        [zsh, "-fc", asking], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("_shtab_charloom\n", "")

"""The command line itself: commands, options, help and versions."""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import charloom
from charloom.cli.main import COMMANDS, main
from charloom.storage.checkpoint import load_checkpoint
from charloom.training.options import OPTIONS as DECLARED
from charloom.training.options import option_name
from helpers.cli import Captured, one_line, process, refused, short
from helpers.paths import ROOT
from helpers.runs import FEW
from helpers.texts import WOODS

# --- The command line itself ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [""],
        ["TRAIN"],
        ["trian"],
        ["help"],
        ["-v"],
        ["--verbose"],
        ["--VERSION"],
        ["train"],
        ["sample"],
        ["evaluate"],
        ["info"],
        ["train", "--steps=1"],
        ["corpora", "more"],
        ["corpora", "--json"],
        ["demo", "more"],
        ["sample", "a", "b"],
        ["info", "a", "b"],
        ["train", "a", "-s", "1"],
        ["sample", "a", "--html"],
    ],
    ids=short,
)
def test_unknown_command_is_refused(arguments: list[str]) -> None:
    assert "--help" in refused(*arguments)


TRAINING_OPTIONS = {option_name(name): option.value_type for name, option in DECLARED.items()}


READING = ["--encoding", "--encoding-errors"]
OPTIONS: dict[str, list[str]] = {
    "train": ["--out", "--resume", "--config", "--tensorboard", *TRAINING_OPTIONS],
    "tune": [
        *("--out", "--resume", "--config", "--trial-minutes"),
        *(o for o in TRAINING_OPTIONS if o not in ("--preset", "--steps", "--epochs", "--refit")),
    ],
    "sample": [
        *("--prompt", "--length", "--temperature", "--top-k", "--top-p", "--min-p", "--stop"),
        *("--seed", "--count", "--skip-unknown", "--network-only", "--engine", "--threads"),
        *("--device", "--clamp", "--report-overlap", "--max-overlap", "--training-text"),
        *("--unique", "--new", "--json", "--no-prompt", "--prompt-file", "--escapes"),
        *("--match", "--json-schema", "--grammar", "--forbid", "--require", "--alphabet"),
        *("--bias", "--exact", "--beam", "--min-length", *READING),
    ],
    "fill": [
        *("--count", "--match", "--length", "--samples", "--seed", "--json", "--network-only"),
        *("--engine", "--threads", "--device"),
    ],
    "evaluate": [
        *("--protocol", "--json", "--training-text", "--skip-unknown", "--network-only"),
        *("--engine", "--threads", "--device", *READING),
    ],
    "demo": ["--out", "--minutes", "--seed"],
    "score": [
        *("--lines", "--characters", "--prefix", "--html", "--json", "--csv", "--top"),
        *("--protocol", "--training-text", *READING),
        *("--skip-unknown", "--network-only", "--engine", "--threads", "--device"),
    ],
    "explore": [
        "--out",
        "--json",
        "--units",
        "--skip-unknown",
        "--engine",
        "--threads",
        "--device",
        *READING,
    ],
    "report": ["--out"],
    "serve": [
        *("--host", "--port", "--api-key", "--max-streams", "--network-only", "--engine"),
        *("--threads", "--device", "--allow-host", "--allow-origin", "--strict", "--open"),
    ],
    "compress": ["--out", "--force", "--model", "--minutes"],
    "decompress": ["--out", "--force", "--model", "--max-bytes"],
    "info": ["--json"],
    "export": ["--to", "--out", "--size"],
    "import": ["--vocabulary", "--out"],
    "corpora": [],
    "completion": [],
}


FLAGS = {
    *("--resume", "--json", "--csv", "--lines", "--skip-unknown", "--network-only"),
    *("--characters", "--prefix", "--unique", "--new", "--no-prompt", "--escapes"),
    *("--report-overlap", "--tensorboard", "--strict", "--force", "--exact", "--open"),
} | {n for n, t in TRAINING_OPTIONS.items() if t is bool}


LISTS = {"--training-text"}  # which are paths


NUMBERS = {
    *("--length", "--temperature", "--top-k", "--top-p", "--min-p", "--seed", "--count", "--top"),
    *(
        "--threads",
        "--max-overlap",
        "--beam",
        "--samples",
        "--min-length",
        "--minutes",
        "--trial-minutes",
        "--port",
        "--max-streams",
        "--max-bytes",
        "--size",
    ),
} | {n for n, t in TRAINING_OPTIONS.items() if t in (int, float)}


EVERY_OPTION = [(command, option) for command in OPTIONS for option in OPTIONS[command]]


def needed(command: str) -> list[str]:
    some = {"demo": 0, "corpora": 0, "score": 2, "explore": 2, "fill": 2}
    return ["something"] * some.get(command, 1)


def test_every_command_is_in_the_table_above() -> None:
    assert set(OPTIONS) == set(COMMANDS)


@pytest.mark.parametrize("command", OPTIONS)
def test_help_lists_every_option(capsys: Captured, command: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code in (0, None)
    out, err = capsys.readouterr()
    assert err == ""
    assert set(OPTIONS[command]) <= set(re.findall(r"--[a-z0-9-]+", out))
    assert set(re.findall(r"^  (--[a-z0-9-]+)", out, re.MULTILINE)) == set(OPTIONS[command])
    assert COMMANDS[command].summary[:20] in out


@pytest.mark.parametrize("command", OPTIONS)
def test_help_names_a_default_once_and_only_a_value(capsys: Captured, command: str) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    out = " ".join(capsys.readouterr().out.split())
    for help_text in re.split(r" (?=--[a-z0-9-]+ )", out):
        assert help_text.count("default:") <= 1, help_text
    assert not re.search(r"default: ?(None|False|True|\[\]|\{\}|'|\))", out)


def test_help_names_the_defaults(capsys: Captured) -> None:
    found = {}
    for command in ("train", "tune", "serve", "sample"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        found[command] = " ".join(capsys.readouterr().out.split())
    assert "hidden units per layer (default: 256)" in found["train"]
    assert "hidden units per layer (default: searched)" in found["tune"]
    assert "peak learning rate (default: searched)" in found["tune"]
    assert "port to listen on; 0 for a free one (default: 8000)" in found["serve"]
    assert "random seed (default: a new one)" in found["sample"]


def test_help_lists_every_command(capsys: Captured) -> None:
    for option in ("-h", "--help"):
        assert main([option]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        for name in COMMANDS:
            assert re.search(rf"^  {name} ", out, re.MULTILINE)


@pytest.mark.parametrize(("command", "option"), EVERY_OPTION)
def test_abbreviations_and_lists_of_options_are_refused(command: str, option: str) -> None:
    """An abbreviation that works today means something else when an option is added."""
    for word in (option[:-1], option.upper(), option + "x", option[1:]):
        line = refused(command, *needed(command), word)
        assert word in line


@pytest.mark.parametrize(("command", "option"), EVERY_OPTION)
def test_missing_or_extra_option_value_is_refused(command: str, option: str) -> None:
    argument = f"{option}=yes" if option in FLAGS else option
    assert option in refused(command, *needed(command), argument)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., argparse.Namespace]:
    """A command that does not run, but returns its arguments."""

    def parse(command: str, *arguments: str) -> argparse.Namespace:
        found: list[argparse.Namespace] = []

        def keep(namespace: argparse.Namespace, _: object) -> int:
            found.append(namespace)
            return 0

        monkeypatch.setitem(COMMANDS, command, replace(COMMANDS[command], run=keep))
        assert main([command, *arguments]) == 0
        return found[0]

    return parse


CHOICES = {"--encoding-errors"}
WITH_VALUE = [
    (command, option)
    for command, option in EVERY_OPTION
    if option not in FLAGS | NUMBERS | LISTS | CHOICES
]
DASHED = ["---", "-x", "--bada", "--", "-", "-1", "- x", "-hello you", "--x=y", "--no such option"]


@pytest.mark.parametrize(("command", "option"), WITH_VALUE)
def test_a_text_may_begin_with_a_dash(
    parsed: Callable[..., argparse.Namespace], command: str, option: str
) -> None:
    """Without the = that argparse alone requires."""
    for text in DASHED:
        joined = parsed(command, *needed(command), f"{option}=something")
        apart = parsed(command, option, text, *needed(command))
        changed = {k: v for k, v in vars(apart).items() if v != vars(joined)[k]}
        assert list(changed.values()) in ([text], [[text]])
    line = refused(command, *needed(command), option, option)
    assert f"{option} has no value before {option}" in line
    assert f"{option}={option} for this text" in line


def test_a_file_name_with_a_dash_is_told_apart_from_an_option(
    parsed: Callable[..., argparse.Namespace],
) -> None:
    Path("-dash.txt").write_text(WOODS, encoding="utf-8")
    Path("-a b.txt").write_text(WOODS, encoding="utf-8")
    assert "pass ./-dash.txt" in refused("train", "-dash.txt")
    assert "pass ./-dash.txt" in refused("sample", "run", "--new", "--training-text", "-dash.txt")
    for text in ("./-dash.txt", "-a b.txt", "-", "-1"):
        assert parsed("train", text).text == [text]
    assert parsed("train", "--steps=1", "--", "-dash.txt").text == ["-dash.txt"]
    assert "did you mean --temperature?" in refused("sample", "run", "-temperature", "1")


def test_options_can_stand_between_texts(parsed: Callable[..., argparse.Namespace]) -> None:
    found = parsed("train", "a", "--lines", "b", "--seed", "-1", "c")
    assert (found.text, found.lines, found.seed) == (["a", "b", "c"], True, -1)
    found = parsed("score", "run", "a", "--top", "3", "b", "--training-text", "c", "d")
    assert (found.run, found.text) == ("run", ["a", "b"])
    assert found.training_text == ["c", "d"]


def test_last_of_repeated_options_wins(text_file: str) -> None:
    assert main(["train", text_file, *FEW, "--steps=0", "--steps=1", "--out=a", "--out=b"]) == 0
    assert [path.name for path in Path.cwd().iterdir()] == ["b"]
    assert load_checkpoint(Path("b/resume.safetensors")).metrics["step"] == 1


def test_version_is_printed(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr() == (f"charloom {charloom.__version__}\n", "")


def test_python_m_runs_the_command() -> None:
    found = process("--version")
    assert (found.returncode, found.stderr) == (0, b"")
    assert found.stdout.decode().split() == ["charloom", charloom.__version__]
    project = ROOT / "pyproject.toml"
    scripts = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"charloom": "charloom.cli.main:main"}
    assert process("nonsense").returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "nowhere.txt"],
        ["train", "-", "--steps=0"],
        ["evaluate", "RUN", "nowhere.txt"],
        ["evaluate", "RUN", "--protocol=cold-0"],
        ["sample", "RUN", "--count=0"],
        ["info", "nowhere"],
        ["nonsense"],
        ["demo", "--minutes=0"],
    ],
    ids=short,
)
def test_error_is_exactly_one_line(trained_run: str, arguments: list[str]) -> None:
    found = process(*(trained_run if argument == "RUN" else argument for argument in arguments))
    assert found.returncode == 2
    assert found.stdout == b""
    assert found.stderr.count(b"\n") == 1
    one_line(found.stderr)


def test_search_without_optuna_names_the_extra(
    text_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    line = refused("tune", text_file)
    assert "a search needs Optuna" in line
    assert "pip install 'charloom[tune]'" in line


def test_help_loads_no_numpy() -> None:
    code = (
        "import sys\nfrom charloom.cli.main import main\n"
        "try: main(['train', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'safetensors', 'rich', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--hidden-size" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"

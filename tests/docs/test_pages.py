"""What README.md and docs/ show is true: their Python runs, their commands exist."""

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import charloom
from helpers.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


PYTHON = [
    pytest.param(page, block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "python"))
]


@pytest.mark.parametrize(("page", "block"), PYTHON)
def test_python_blocks_run(
    page: Path, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "charloom.HubModel" in block:
        pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
    if "charloom.tune(" in block:
        pytest.importorskip("optuna", reason="the extra `tune` is not installed")
    if "from sklearn" in block:
        pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "block.py").write_text(block, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "block.py"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_there_are_python_blocks() -> None:
    assert any(page == ROOT / "README.md" for page, _ in (p.values for p in PYTHON))


def shown_commands(pages: Iterable[Path] = PAGES) -> list[str]:
    """Every `charloom …` line in the pages' console blocks, comments cut off."""
    lines = []
    for page in pages:
        for block in blocks(page, "console") + blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r"\||&&|<|>", line.removeprefix("$ ")):
                    words = shlex.split(part, comments=True)
                    if words[:1] == ["torchrun"]:
                        words = words[words.index("charloom") :]
                    if words and Path(words[0]).name == "charloom":
                        lines.append(shlex.join(words[1:]))
    return lines


@pytest.mark.parametrize("line", sorted(set(shown_commands())))
def test_commands_parse(line: str) -> None:
    """A command shown is one that the parser takes; the tests of each command run it."""
    from charloom.cli.arguments import Parser
    from charloom.cli.main import COMMANDS, main

    name, *rest = shlex.split(line)
    if name.startswith("-"):
        assert main([name]) == 0
        return
    parser = Parser(prog="charloom", allow_abbrev=False)
    COMMANDS[name].add_arguments(parser)
    if rest != ["--help"]:
        parser.parse_args(rest)


def test_the_commands_for_collections_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every command of docs/collections.md runs, from its first to its last, on small texts."""
    from charloom.cli.main import main

    monkeypatch.chdir(tmp_path)
    write_collections(tmp_path)
    small = ["--steps", "6", "--hidden-size", "8", "--batch-size", "4", "--threads", "1"]
    commands = shown_commands([ROOT / "docs" / "collections.md"])
    assert len(commands) > 15
    for line in commands:
        command = shlex.split(line)
        if command[0] == "train":
            limit = command.index("--minutes") if "--minutes" in command else len(command)
            command = command[:limit] + command[limit + 2 :] + small
            if "--from" in command:
                command = [*command[:-6], *command[-2:]]  # its sizes are those of the earlier model
        if command[0] == "sample":
            command += ["--length", "30", "--threads", "1"]
        assert main(command) == 0, (line, capfd.readouterr().err)
        printed = capfd.readouterr()
        assert command[0] == "train" or printed.out.strip(), line
    assert (tmp_path / "candidates.html").exists()


def write_collections(folder: Path) -> None:
    """Write the texts that the commands of docs/collections.md name."""
    names = [f"{a}{b}{c}" for a in ("An", "Be", "Cor", "Da") for b in "aeiou" for c in ("n", "ra")]
    lines = "\n".join(names) + "\n"
    (folder / "names.txt").write_text(lines)
    (folder / "candidates.txt").write_text("Anan\nKjxq\nBeora\n", encoding="utf-8")
    (folder / "more.txt").write_text("Anora\nDanen\nCoran\n")
    (folder / "today.log").write_text("".join(f"10:{n:02} started {n}\n" for n in range(60)))
    for name in ("first.txt", "second.txt", "third.txt"):
        (folder / name).write_text(f"the {name} of three\n" * 9)
    (folder / "poems").mkdir()
    for number in range(12):
        (folder / "poems" / f"{number}.txt").write_text(f"O {names[number]},\nO rose!\n")
    (folder / "recipes.txt").write_text("\n\n".join(f"Soup\n{n} leeks" for n in range(30)))
    (folder / "fortunes.txt").write_text("%\n".join(f"Day {n} is good.\n" for n in range(30)))
    rows = "".join(f'{n},"The ""{name}""\nA novel"\n' for n, name in enumerate(names))
    (folder / "titles.csv").write_text("id,title\n" + rows)
    events = "".join(f'{{"time": {n}, "message": "{name}"}}\n' for n, name in enumerate(names))
    (folder / "events.jsonl").write_text(events)


def test_the_two_commands_are_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in (
        "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/charloom demo",
        "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/pytest",
    ):
        assert f"\n{command}\n" in text


def test_links_inside_the_project_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def look_up(name: str) -> object:
    """Return what `module.attribute` names in the package, in whatever folder the module lies."""
    module, *attributes = name.split(".")
    package = Path(charloom.__file__).parent
    for path in sorted(package.rglob(f"{module}.py")):
        place = path.relative_to(package.parent).with_suffix("")
        found: object = importlib.import_module(".".join(place.parts))
        try:
            for attribute in attributes:
                found = getattr(found, attribute)
        except AttributeError:
            continue
        return found
    raise AssertionError(f"{name} is not in the package")


def test_every_function_named_beside_an_equation_is_in_the_code() -> None:
    """In docs/math.md, every sentence that begins with `Code:` names functions that exist."""
    text = (ROOT / "docs" / "math.md").read_text(encoding="utf-8")
    sentences = re.findall(r"Code:((?:\s|`[\w.]+`|, |and|through)+)", text)
    names = [name for sentence in sentences for name in re.findall(r"`([\w.]+)`", sentence)]
    assert {"reference.lstm_backward", "optimizers.Adam", "scratch.softmax"} <= set(names)
    for name in names:
        look_up(name)
    reference = importlib.import_module("charloom.engines.reference")
    written = {n for n in dir(reference) if n.endswith(("_forward", "_backward")) and n[0] != "_"}
    assert written <= {name.split(".", 1)[1] for name in names}, "a pass without its equations"


def test_every_name_in_the_table_from_the_notebook_exists() -> None:
    text = (ROOT / "docs" / "from-the-notebook.md").read_text(encoding="utf-8")
    rows = [line.split("|")[2:5] for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 15
    for in_scratch, in_package, held_by in rows:
        for name in re.findall(r"`(\w+\.[\w.]+)`", in_scratch + in_package):
            look_up(name)
        tests = re.findall(r"`(\w+)/(test_\w+)\.(test_\w+)`", held_by)
        assert tests
        for folder, file, test in tests:
            source = (ROOT / "tests" / folder / f"{file}.py").read_text(encoding="utf-8")
            assert f"\ndef {test}(" in source, f"{folder}/{file}.py has no {test}"

"""Text that is not ASCII is printed as itself, whatever can show it."""

import json
from pathlib import Path

import pytest

from charloom.cli.main import main
from helpers.cli import process, run
from helpers.runs import FEW

LINES = [
    "Мороз и солнце; день чудесный!",
    "红楼梦第一回\u3000甄士隐梦幻识通灵",
    "می\u200cخواهم سلام",
    "हिन्दी भाषा",
    "l’été, «\u00a0là\u00a0»",
    "👨\u200d👩\u200d👧 😀",
]
TEXT = "".join(f"{line}\n" for line in LINES) * 40


@pytest.fixture(scope="module")
def shown_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shown")
    (folder / "день 字.txt").write_text(TEXT, encoding="utf-8")
    assert main(["train", str(folder / "день 字.txt"), *FEW, "--out", str(folder / "идут")]) == 0
    return folder / "идут"


def test_evaluation_shows_the_overlap(shown_run: Path) -> None:
    status, output, _ = run("evaluate", str(shown_run))
    assert status == 0
    (line,) = [line for line in output.splitlines() if "longest verbatim overlap" in line]
    assert any(word in line for word in ("солнце", "红楼梦", "سلام", "भाषा", "été", "👨\u200d👩"))
    assert "\\u" not in line
    status, output, _ = run("evaluate", str(shown_run), "--json")
    assert json.loads(output)["longest_overlap"]["text"] in TEXT
    assert "\\u04" not in output


def test_info_shows_the_vocabulary(shown_run: Path) -> None:
    _, output, _ = run("info", str(shown_run))
    (line,) = [line for line in output.splitlines() if " characters: '" in line]
    assert line.startswith(
        f"{len(set(TEXT))} characters: '\\n !,;lt\\xa0«»àéМдезийлнорсуцчыьاخسلمهویदनभषह◌ा"
    )
    assert "день-字" in output
    _, output, _ = run("info", str(shown_run), "--json")
    assert '"д"' in output
    assert json.loads(output)["vocabulary"] == sorted(set(TEXT))


def test_bytes_of_a_vocabulary_are_not_letters(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("le café est à l’été\n" * 40, encoding="utf-8")
    out = str(tmp_path / "b")
    assert main(["train", str(tmp_path / "b.txt"), "--bytes", *FEW, "--out", out]) == 0
    _, output, _ = run("info", out)
    assert "15 bytes: '\\n aceflst\\x80\\x99\\xa0\\xa9\\xc3\\xe2'" in output


@pytest.mark.parametrize(
    ("encoding", "options"),
    [
        ("ascii", ["info"]),
        ("ascii", ["info", "--json"]),
        ("cp1252", ["info"]),
        ("cp1252", ["info", "--json"]),
        ("utf-8", ["info", "--json"]),
        ("gb18030", ["info"]),
    ],
)
def test_every_output_takes_it(shown_run: Path, encoding: str, options: list[str]) -> None:
    found = process(
        options[0], str(shown_run), *options[1:], environment={"PYTHONIOENCODING": encoding}
    )
    assert (found.returncode, found.stderr) == (0, b"")
    output = found.stdout.decode("utf-8" if "--json" in options else encoding)
    if "--json" in options:
        assert json.loads(output)
        assert output.isascii() is (encoding != "utf-8")
    else:
        assert ("день" in output) is (encoding == "gb18030")


def test_text_without_a_known_character(shown_run: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("ж", encoding="utf-8")
    status, output, _ = run("evaluate", str(shown_run), str(tmp_path / "one.txt"))
    assert status == 0
    assert output.startswith("one: 1 character, protocol carried\n")
    assert "unknown to the model: 1 character, scored with a share of" in output
    assert "no verbatim overlap with the training text" in output

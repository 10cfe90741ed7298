"""The tutorials run, block by block and in order, and their pictures are small and described."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

from helpers.paths import ROOT

FOLDER = ROOT / "docs" / "tutorials"
TOOL = ROOT / "docs" / "tools" / "tutorials.py"
IMAGES = ROOT / "docs" / "images"


def load_tool(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


tutorials = load_tool(TOOL)


def run(name: str, folder: Path) -> dict[str, str]:
    """Run a page with short trainings; return the output of each block by its first command."""
    page, results = FOLDER / f"{name}.md", folder / "results.json"
    done = subprocess.run(
        [sys.executable, TOOL, "run", page, folder / "reader", "--short", "--json", results],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    blocks = json.loads(results.read_text(encoding="utf-8"))
    return {block["code"].split("\n")[0]: block["output"] for block in blocks}


def output_of(outputs: dict[str, str], beginning: str) -> str:
    (found,) = [output for line, output in outputs.items() if line.startswith(beginning)]
    return found


def test_names(tmp_path: Path) -> None:
    outputs = run("names", tmp_path)
    known = set((tmp_path / "reader" / "towns.txt").read_text().split())
    assert len(known) > 600
    new = output_of(outputs, "charloom sample runs/towns --count 10").split("\n")[:-1]
    assert len(new) == len(set(new)) == 10
    assert not known & set(new)
    patterns = output_of(outputs, "charloom sample runs/towns --count 5").split()
    assert all(name.startswith("Win") for name in patterns[:5])
    assert all(name.endswith("bridge") for name in patterns[5:])
    scored = [line.split()[-1] for line in output_of(outputs, "cat > candidates").split("\n")[1:7]]
    assert scored.index("Kyoto") < scored.index("Ashbourne")
    assert "n-gram model" in output_of(outputs, "charloom evaluate")


def test_poet(tmp_path: Path) -> None:
    outputs = run("poet", tmp_path)
    verse = output_of(outputs, "charloom sample runs/sonnets --temperature 0.6").split("\n")
    assert (
        len([line for line in verse if re.fullmatch(r"[A-Z][a-z]+( [a-z]+){5,6}[,;:.]", line)])
        == 12
    )
    assert sum("longest verbatim overlap" in line for line in verse) == 3
    assert "marriage: 323 characters" in output_of(outputs, "cat > marriage.txt")
    assert "marriage: 323 characters" in output_of(
        outputs, "charloom train sonnets.txt --from none"
    )
    assert (tmp_path / "reader" / "marriage.html").stat().st_size > 10_000


def test_log_watcher(tmp_path: Path) -> None:
    outputs = run("log-watcher", tmp_path)
    watched = output_of(outputs, "python make_log.py 2000 3 --attack \\").split("\n")
    for line in ("etc/passwd 404", "'1'='1 failed", "48213 jobs", "500 30001ms", "read-only file"):
        assert any(line in row for row in watched), line
    assert "5 of 2000 lines are strange" in watched
    assert (tmp_path / "reader" / "strange.html").exists()


def test_classroom(tmp_path: Path) -> None:
    outputs = run("classroom", tmp_path)
    slope, passed = (
        float(line.split()[-1]) for line in output_of(outputs, "from pathlib").splitlines()
    )
    assert slope == pytest.approx(passed, rel=1e-3)
    explored = output_of(outputs, "head -c 20000 story.txt")
    (row,) = [line for line in explored.split("\n") if line.endswith("inside double quotes")]
    second, _, unit, random, _ = row.split()[:5]
    assert unit == "h7"
    assert abs(float(second)) > 2 * abs(float(random))
    counts = output_of(outputs, "charloom sample runs/story").splitlines()
    assert [re.sub(r"\d+", "N", line) for line in counts] == ["N opened, N closed"] * 3


def test_completion_service(tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="the extra `serve-test` is not installed")
    outputs = run("completion-service", tmp_path)
    assert output_of(outputs, "from openai import") == "['code']\n"
    assert output_of(outputs, "for prompt in").count("\n") == 3
    assert len(output_of(outputs, "stream = ")) > 200
    assert re.fullmatch(r"('.' +\d+%\n){5}", output_of(outputs, "import math"))
    choices = ast.literal_eval(output_of(outputs, "reply = "))
    assert len(choices) == 3
    assert all(re.fullmatch("[a-z]{3,12} = [a-z]{3,12}", choice) for choice in choices)


@pytest.mark.notebook
@pytest.mark.parametrize("name", ["classroom", "names"])
def test_notebooks_are_the_pages_and_run(name: str, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="the extra `notebook` is not installed")
    stored = nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)
    written = tutorials.as_notebook(FOLDER / f"{name}.md")
    assert [cell.source for cell in stored.cells] == [cell.source for cell in written.cells]
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(output.output_type != "error" for cell in code for output in cell.outputs)
    assert sum(bool(cell.outputs) for cell in code) >= 5
    for cell in written.cells:
        cell.source = tutorials.shorten(cell.source, 0)
    tutorials.execute(written, tmp_path)  # an error in a cell is raised


LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(FOLDER.glob("*.md"))]
LARGEST_TOTAL = 600_000  # bytes of all pictures


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_and_pictures_are_described(page: Path) -> None:
    for picture, words, target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:", "#", "mailto:")):
            assert (page.parent / target.split("#")[0]).exists(), target
        if picture:
            assert len(words.split()) >= 3, f"{target} needs a description"


def test_every_tutorial_states_its_time_and_shows_a_picture() -> None:
    pages = sorted(FOLDER.glob("*.md"))
    assert len(pages) == 5
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert re.search(r"^\*\*Time:\*\* \d+ (minute|hour)", text, re.M), page.name
        assert "![" in text, page.name
        assert f"](tutorials/{page.name})" in (ROOT / "docs" / "index.md").read_text()
        assert f": tutorials/{page.name}\n" in (ROOT / "mkdocs.yml").read_text()


def test_pictures_are_small_and_load_nothing() -> None:
    pictures = [path for path in IMAGES.rglob("*") if path.is_file()]
    assert {path.suffix for path in pictures} == {".png", ".svg"}
    assert sum(path.stat().st_size for path in pictures) < LARGEST_TOTAL
    for path in pictures:
        if path.suffix == ".svg":
            svg = ET.fromstring(path.read_bytes())
            assert svg.tag == "{http://www.w3.org/2000/svg}svg"
            # A text can show an address. Only attributes and styles can load one.
            for element in svg.iter():
                loading = [*element.attrib, *element.attrib.values()]
                if element.tag.endswith("}style"):
                    loading.append(element.text or "")
                assert not element.tag.endswith("}script"), path.name
                found = re.search(r"https?:|@import|url\((?!#)|href", " ".join(loading))
                assert not found, path.name

"""The wheel, the source distribution and the citation: what is in them, and that they work."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import charloom
from helpers.paths import ROOT

pytestmark = pytest.mark.docs
CITATION = (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def python(*words: object, **settings: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        **settings,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both distributions."""
    for module in ("build", "hatchling", "argparse_manpage", "twine"):
        pytest.importorskip(module, reason="the extra `check` is not installed")
    folder = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.mark.extended
def test_both_pass_the_checks_of_the_index(built: Path) -> None:
    assert len(list(built.iterdir())) == 2
    report = python("-m", "twine", "--no-color", "check", "--strict", *built.iterdir())
    assert report.count("PASSED") == 2


@pytest.mark.extended
def test_the_wheel_runs_the_demo_and_has_a_manual_page(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    place = tmp_path / "installed"
    python("-m", "pip", "install", "--quiet", "--no-deps", "--target", place, wheel)
    environment = os.environ | {"PYTHONPATH": str(place)}
    work = tmp_path / "work"
    work.mkdir()
    where = python("-c", "print(__import__('charloom').__file__)", cwd=work, env=environment)
    assert Path(where.strip()).is_relative_to(place)
    shown = python("-m", "charloom", "demo", "--minutes=0.03", cwd=work, env=environment)
    assert "Report: runs/demo/report.html" in shown
    page = (place / "share" / "man" / "man1" / "charloom.1").read_text(encoding="utf-8")
    assert f'"charloom {charloom.__version__}"' in page
    plain = page.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")
    assert all(f"charloom {name}" in plain for name in ("train", "completion"))
    assert "--hidden-size" in plain
    assert "--normalize-newlines" not in plain


@pytest.mark.extended
def test_the_source_distribution_has_what_the_tests_need(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    files = {"CITATION.cff", "Makefile", "hatch_build.py", "mkdocs.yml", "LICENSE"}
    for folder in ("src", "tests", "docs", "examples", "benchmarks"):
        files |= {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and path.suffix in {".py", ".md", ".txt", ".js", ".html", ".css"}
        }
    assert files - names == set()


@pytest.mark.extended
def test_the_wheel_has_the_files_beside_the_modules(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    files = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".egg-info"
    }
    assert files - names == set()
    assert "charloom/py.typed" in names


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    fields = dict(re.findall(r"^([a-z-]+): (.+)$", CITATION, re.M))
    assert fields["cff-version"] == "1.2.0"
    assert fields["version"] == charloom.__version__
    assert fields["license"] == project["license"]
    assert project["authors"] == [{"name": "The charloom authors"}]
    assert re.search(r"^authors:\n  - name: The charloom authors$", CITATION, re.M)
    assert {"message", "title", "type"} <= set(fields)

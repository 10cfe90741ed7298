"""The tutorials run, block by block and in order, and their pictures are small and described."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

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
    results = folder / "results.json"
    done = subprocess.run(
        [sys.executable, TOOL, "run", FOLDER / f"{name}.md", folder / "reader", "--short"]
        + ["--json", results],
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

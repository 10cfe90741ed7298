"""The way of the data: a module imports only from modules above it; and nothing heavy at import."""

import ast
import subprocess
import sys
from pathlib import Path

import charloom

PACKAGE = Path(charloom.__file__).parent
# From top to bottom, as in docs/architecture.md.
ORDER = [
    "errors",
    "corpora",
    "vocabulary",
    "dataset",
    "batches",
    "model",
    "gradient_check",
    "decoding",
    "optimizers",
    "units",
    "ranks",
    "engines",
    "engines.reference",
    "engines.compiled.vectors",
    "engines.compiled.compiling",
    "engines.compiled.threads",
    "engines.compiled.products",
    "engines.compiled.layout",
    "engines.compiled.cells",
    "engines.compiled.train",
    "engines.compiled.infer",
    "engines.compiled.table",
    "engines.compiled",
    "engines.pytorch",
    "ngram",
    "ngram_table",
    "overlap",
    "sampling",
    "scoring",
    "mixture",
    "adaptive",
    "training",
    "planning",
    "checkpoint",
    "pages",
    "language_model",
    "exchange",
    "surprisal",
    "labels",
    "explore",
    "events",
    "report",
    "hub",
    "runs",
    "tuning",
    "serving",
    "completions",
    "openapi",
    "connection",
    "server",
    "cli",
    "__main__",
]
# `open_engine` imports an engine when it is opened; the engine imports the protocol.
LAZY = {
    ("engines", "engines.reference"),
    ("engines", "engines.compiled"),
    ("engines", "engines.compiled.compiling"),
    ("engines", "engines.pytorch"),
}


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path) -> set[str]:
    """The package's modules that a module imports, wherever in it the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
            names.add(str(node.module))
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    known = modules()
    inside = {n.removeprefix("charloom.") for n in names if n.startswith("charloom.")}
    return inside & set(known)


def test_every_module_has_its_place() -> None:
    assert set(modules()) == {*ORDER, "scratch", "__init__"}


def test_modules_import_only_from_above() -> None:
    for place, name in enumerate(ORDER):
        for other in imported(modules()[name]):
            if (name, other) not in LAZY:
                assert other in ORDER[:place], f"{name} imports {other}, which is not above it"


def test_scratch_imports_nothing_of_the_package() -> None:
    assert "charloom" not in modules()["scratch"].read_text(encoding="utf-8").replace(
        "charloom.scratch", ""
    )
    assert imported(modules()["scratch"]) == set()


def test_the_order_is_the_one_in_the_documentation() -> None:
    page = Path(__file__).parents[1] / "docs" / "architecture.md"
    text = page.read_text(encoding="utf-8")
    block = text[text.index("```text") : text.index("```", text.index("```text") + 3)]
    listed = [line.split()[0] for line in block.splitlines() if ".py" in line.split("  ")[0]]
    names = [name.removesuffix(".py").replace("/", ".").replace(".__init__", "") for name in listed]
    assert [name for name in names if name != "scratch"] == ORDER


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, charloom, charloom.cli; charloom.cli.main(['--help']);"
        "heavy = {'numpy', 'huggingface_hub', 'optuna', 'pydivsufsort', 'rich', 'torch', 'onnx',"
        "'safetensors', 'starlette', 'uvicorn', 'h11', 'msgspec', 'prometheus_client'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

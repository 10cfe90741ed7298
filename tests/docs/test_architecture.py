"""Import circles, lazy names, imports that are heavy, and scratch.py, which stands apart."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import charloom
from helpers.paths import ROOT

PACKAGE = Path(charloom.__file__).parent


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, at the top or inside a function."""
    known = {
        ".".join(("charloom", *other.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        for other in PACKAGE.rglob("*.py")
    }
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports must be absolute"
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & known
            names |= inside or {str(node.module)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & known


def test_no_import_circles() -> None:
    """import-linter holds the floors; inside a package this test forbids circles."""
    graph = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(("charloom", *path.relative_to(PACKAGE).with_suffix("").parts))
        graph[name.removesuffix(".__init__")] = imported(path)
    del graph["charloom"]  # its lazy names lead everywhere
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above[above.index(name) :], name))
        if name not in done and name in graph:
            for other in sorted(graph[name]):
                visit(other, (*above, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_every_public_name_can_be_imported_lazily() -> None:
    assert set(charloom._MODULES) == {*charloom.__all__, "HubModel"} - {"__version__"}
    for name, module in charloom._MODULES.items():
        path = PACKAGE / (module.replace(".", "/") + ".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        defined = {getattr(node, "name", None) for node in tree.body}
        defined |= {
            target.id
            for node in tree.body
            for target in getattr(node, "targets", [getattr(node, "target", None)])
            if isinstance(target, ast.Name)
        }
        assert name in defined, f"charloom.{module} does not define {name}"
    assert dir(charloom) == sorted([*charloom._MODULES, "__version__"])


def test_the_package_can_be_read_without_an_extra() -> None:
    code = (
        "import sys; sys.modules['huggingface_hub'] = None;"
        "before = set(vars()); from charloom import *; print(sorted(set(vars()) - before));"
        "import charloom, pydoc; text = pydoc.plain(pydoc.render_doc(charloom));"
        "print('Train a model and return' in text, hasattr(charloom, 'HubModel'));"
        "charloom.HubModel"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    names, seen = done.stdout.splitlines()
    assert set(ast.literal_eval(names)) == {"before", *charloom.__all__}
    assert seen == "True False"
    assert "pip install 'charloom[hub]'" in done.stderr.splitlines()[-1]


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^::: charloom\.(\w+)$", page, re.MULTILINE))
    assert named == set(charloom._MODULES)


def test_every_command_has_its_names_in_python() -> None:
    from charloom.cli.main import COMMANDS

    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*) \| (`.*) \|$", page, re.MULTILINE)
    commands = {word for command, _ in rows for word in re.findall(r"[a-z]+", command)}
    assert set(COMMANDS) - {"completion"} <= commands  # which concerns shells alone
    names = [name for _, python in rows for name in re.findall(r"`([\w.]+)", python)]
    assert len(names) > 25
    for name in names:
        found: object = charloom
        for part in name.removeprefix("charloom.").split("."):
            found = getattr(found, part)


def test_scratch_imports_nothing_of_the_package() -> None:
    scratch = PACKAGE / "scratch.py"
    assert "charloom" not in scratch.read_text(encoding="utf-8").replace("charloom.scratch", "")
    assert imported(scratch) == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, charloom, charloom.cli.main; charloom.cli.main.main(['--help']);"
        "heavy = {'numpy', 'huggingface_hub', 'optuna', 'pydivsufsort', 'rich', 'torch', 'onnx',"
        "'safetensors', 'starlette', 'uvicorn', 'h11', 'msgspec', 'prometheus_client'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

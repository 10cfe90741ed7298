"""Opening an engine: which one `auto` takes, and what is said where one is missing."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from charloom.engines.backend import Backend
from charloom.errors import CharloomError
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from helpers.processes import in_a_new_process


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(CharloomError, match="engine 'fast' is not one of"):
        Backend("fast").open(initialize(ModelConfig("rnn", 2, 1, 2), 0))


def test_auto_takes_the_compiled_engine() -> None:
    parameters = initialize(ModelConfig("rnn", 4, 1, 5), 0)
    assert Backend("auto").open(parameters).name == "compiled"
    assert Backend("reference").open(parameters).name == "reference"
    assert Backend("auto", threads=7).open(parameters).threads == 7


WITHOUT_NUMBA = """
    import sys
    sys.modules["numba"] = None
    import charloom
    from charloom.engines.backend import Backend
    from charloom.network.parameters import ModelConfig
    from charloom.network.initialization import initialize
    parameters = initialize(ModelConfig("rnn", 4, 1, 5), 0)
    print(Backend("auto").open(parameters).name, Backend("auto").open(parameters).name)
    try:
        Backend("compiled").open(parameters)
    except charloom.CharloomError as error:
        print(error)
"""


def test_without_numba_falls_back_to_reference_with_one_notice() -> None:
    done = in_a_new_process(WITHOUT_NUMBA)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "reference reference"
    assert "needs Numba" in done.stdout.splitlines()[1]
    assert "--engine reference" in done.stdout.splitlines()[1]
    assert len(done.stderr.splitlines()) == 1
    assert "the slower reference engine is used" in done.stderr


def test_unavailable_engine_is_one_line(tmp_path: Path) -> None:
    code = """
        import sys
        sys.modules["numba"] = None
        from charloom.cli.main import main
        text = "a line of text\\n" * 200
        open("text.txt", "w").write(text)
        sys.exit(main(["train", "text.txt", "--steps", "1", "--engine", "compiled"]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "pip install numba" in done.stderr.splitlines()[-1]


def test_import_error_names_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "charloom.engines.compiled.engine", None)
    with pytest.raises(CharloomError, match="cannot be imported"):
        Backend("compiled").open(initialize(ModelConfig("rnn", 4, 1, 5), 0))

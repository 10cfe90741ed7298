"""Marks tests by what they need, and says in one line which were left out."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from helpers.extras import EXTENDED, EXTRAS, FIXTURES, FOLDERS, IMPORTING, is_installed

# Two workers and the processes of tests share the cores: PyTorch's threads, which wait for each
# other at every small operation, must not hold the cores meanwhile. OpenMP reads this as it loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# NumPy's threads otherwise wait for 2^26 cycles before they sleep. Small products of matrices then
# take ten times as long, and all cores. OpenBLAS reads this as it loads.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
# Products that no test gives threads are computed in one. Two threads of a busy machine wait for
# each other in every small product.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

pytest_plugins = [
    "helpers.fixtures.browser",
    "helpers.fixtures.corpora",
    "helpers.fixtures.folders",
    "helpers.fixtures.pytorch",
    "helpers.fixtures.reports",
    "helpers.fixtures.searches",
    "helpers.fixtures.serving",
    "helpers.fixtures.workshop",
]
# No property is held to a clock, which a busy machine would break.
settings.register_profile("clockless", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("clockless")
collect_ignore = [
    path for extra in IMPORTING if not is_installed(extra) for path in IMPORTING[extra]
]
TESTS = Path(__file__).parent
SLOW_SECONDS = 600
left_out = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """A folder, file or test named on the command line runs completely, slow tests included."""
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    below = all(Path(arg.split("::")[0]).resolve() != TESTS for arg in config.args)
    if named and below and config.option.markexpr == "not extended":
        config.option.markexpr = ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test by its folder and its fixtures; skip what needs an extra that is missing."""
    note_collected(items)
    # Those with PyTorch's compiler come first, so that one worker alone starts it.
    items.sort(key=lambda item: "warm_compiler" not in getattr(item, "fixturenames", ()))
    for item in items:
        folder = item.path.relative_to(TESTS).parent.as_posix()
        markers = {
            marker for name, marker in FOLDERS.items() if f"{folder}/".startswith(f"{name}/")
        }
        markers |= {
            FIXTURES[name] for name in getattr(item, "fixturenames", ()) if name in FIXTURES
        }
        if getattr(getattr(item, "callspec", None), "params", {}).get("name") == "pytorch":
            markers.add("torch")
        for marker in sorted(markers):
            item.add_marker(marker)
        names = {marker.name for marker in item.iter_markers()}
        if names & set(EXTENDED):
            item.add_marker("extended")
            if "timeout" not in names:
                item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
        for extra in sorted(names & set(EXTRAS)):
            if not is_installed(extra):
                item.add_marker(pytest.mark.skip(reason=f"the extra `{extra}` is not installed"))


def note_collected(items: list[pytest.Item]) -> None:
    """Note the tests that were collected, for `.ci/run`; every worker collects the same ones."""
    record = os.environ.get("CHARLOOM_TEST_RECORD")
    if record and os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        lines = "".join(f"{item.nodeid}\n" for item in items)
        Path(f"{record}.collected").write_text(lines, encoding="utf-8")


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what `-m` leaves out, by the reason."""
    for item in items:
        counted = item.config.stash.setdefault(left_out, Counter())
        counted.update({m.name for m in item.iter_markers()} & {*EXTENDED, "extended"})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell xdist's controller, which collects nothing itself."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = dict(session.config.stash.get(left_out, {}))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    found = getattr(node, "workeroutput", {}).get("left_out", {})
    node.config.stash[left_out] = Counter(found)  # every worker leaves out the same


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note every test that ran, where `.ci/run` asks for it; one without its extra did not run."""
    record = os.environ.get("CHARLOOM_TEST_RECORD")
    if record and "PYTEST_XDIST_WORKER" not in os.environ and report.when == "setup":
        without_extra = report.skipped and "the extra `" in str(report.longrepr)
        if not without_extra:
            with Path(record).open("a", encoding="utf-8") as file:
                file.write(f"{report.nodeid}\n")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    counted = config.stash.get(left_out, Counter())
    if counted["extended"] and config.option.markexpr == "not extended":
        reasons = [f"{name} {counted[name]}" for name in EXTENDED if counted[name]]
        terminalreporter.write_line(
            f"{counted['extended']} tests left out ({', '.join(reasons)}): `pytest -m extended` "
            "runs those whose extra is installed"
        )

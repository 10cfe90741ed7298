"""What several tests share: where the large texts are, and a browser for pages."""

import importlib
import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# No part of a browser that could ask the network for something of its own.
BROWSER_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


HAS_TORCH = importlib.util.find_spec("torch") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test that opens a browser, so that `-m browser` runs them; and every test of the
    engine pytorch, which is skipped where PyTorch is not installed."""
    for item in items:
        arguments = getattr(getattr(item, "callspec", None), "params", {})
        if arguments.get("name") == "pytorch":
            item.add_marker("torch")
            if not HAS_TORCH:
                item.add_marker(pytest.mark.skip(reason="PyTorch (extra `torch`) is not installed"))
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.fixture
def compiler(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """PyTorch's compiler, which keeps what it compiles for the other tests, in their folder; skips
    the test where it finds no C++ compiler."""
    if not HAS_TORCH:
        pytest.skip("PyTorch (extra `torch`) is not installed")
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("there is no C++ compiler here")
    # PyTorch's commands to the C++ compiler take no path with a space in it.
    folder = tmp_path_factory.getbasetemp() / "torchinductor"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    dynamo = importlib.import_module("torch._dynamo")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        settings = importlib.import_module("torch._inductor.config")
    # Compiled headers would go to a folder of the system's all the same.
    with settings.patch(cpp_cache_precompile_headers=False):
        dynamo.reset()  # it compiles a function for so many kinds of arguments, and no more
        yield
        dynamo.reset()


def corpus_path(file_name: str) -> Path:
    """A text of the folder that CHARLOOM_CORPORA names; skips the test where there is none."""
    folder = os.environ.get("CHARLOOM_CORPORA")
    if not folder:
        pytest.skip("CHARLOOM_CORPORA names no folder of texts")
    path = Path(folder) / file_name
    if not path.is_file():
        pytest.skip(f"{file_name} is not in the folder that CHARLOOM_CORPORA names")
    return path


@pytest.fixture(scope="session")
def austen() -> Path:
    return corpus_path("1342-0.txt")


@pytest.fixture(scope="session")
def shakespeare() -> Path:
    return corpus_path("tiny-shakespeare.txt")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, the system's or Playwright's own; skips the test where there is none.

    It ends with the module: while it runs, Playwright keeps an event loop running in this thread,
    and nothing else here could run one.
    """
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="the extra `browser` is not installed"
    )
    with playwright.sync_playwright() as started:
        try:
            found = started.chromium.launch(
                executable_path=shutil.which("chromium"), args=BROWSER_OPTIONS
            )
        except playwright.Error as error:
            pytest.skip(f"no browser starts here: {str(error).strip().splitlines()[0]}")
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """`open_page(path)` opens a page from disk in a window of its own and returns Playwright's
    page. More is for the window: viewport={"width": 400, "height": 800}, color_scheme="dark".

    When the test is done, no page may have had an error, or have asked for anything but itself.
    """
    faults: list[str] = []
    windows: list[Any] = []

    def heard(message: Any) -> None:
        if message.type in ("error", "warning"):
            faults.append(f"{message.type} on the console: {message.text}")

    def asked(request: Any) -> None:
        itself = request.url.startswith("file:") and request.is_navigation_request()
        if not itself and not request.url.startswith("data:"):
            faults.append(f"asked for {request.url}")

    def open_(path: Path, **window: Any) -> Any:
        windows.append(browser.new_context(**window))
        page = windows[-1].new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("request", asked)
        page.goto(path.absolute().as_uri())
        return page

    yield open_
    for window in windows:
        window.close()
    assert faults == []

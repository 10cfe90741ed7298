"""Pages of a model of bytes in a browser: its text is decoded, and each byte has its own place."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import charloom
from charloom.cli.main import main
from charloom.runs.report import write_report
from helpers.clients import serving
from helpers.pages import OpenPage
from helpers.runs import train_tiny

OPTIONS = ["--hidden-size=32", "--split=90/10/0", "--window=16", "--bytes"]


def byte(page: Any, place: int) -> Any:
    """Return the element of a byte."""
    return page.locator(".text .row > span").nth(place)


@pytest.fixture(scope="module")
def pages_of_bytes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The pages of surprisal and of units of a text whose last byte is no character."""
    folder = tmp_path_factory.mktemp("bytes")
    run = train_tiny(folder, "l’été 🦉, \t字\n" * 60, *OPTIONS, "--steps=3")
    text, surprisal, units = folder / "t.txt", folder / "surprisal.html", folder / "units.html"
    text.write_bytes("été 🦉, 字\n".encode() + b"\xc3t\xe2")
    assert main(["score", str(run), str(text), "--html", str(surprisal)]) == 0
    assert main(["explore", str(run), str(text), "--out", str(units)]) == 0
    return surprisal, units


def test_bytes_are_shown_as_their_characters(
    pages_of_bytes: tuple[Path, Path], open_page: OpenPage
) -> None:
    for path in pages_of_bytes:
        page = open_page(path)
        page.wait_for_selector(".text .row span")
        assert page.locator(".text .row").all_text_contents() == ["été 🦉, 字↵", r"\xc3t\xe2"]
        assert page.locator(".text .rest").count() == 1 + 1 + 3 + 2
        byte(page, 1).hover()
        assert page.locator("#character").text_content() == r"\xa9"
        assert page.locator("#whole").text_content() == "é"
        assert page.locator("#readout p").first.text_content().endswith(r"\xa9 of é at 1")
        byte(page, 2).hover()
        assert page.locator("#character").text_content() == "t"
        assert page.locator("#whole").count() == 0
        assert "19 bytes" in page.locator("p").first.text_content()


def test_a_report_counts_bytes(pages_of_bytes: tuple[Path, Path], open_page: OpenPage) -> None:
    (run,) = (path for path in pages_of_bytes[0].parent.rglob("metrics.jsonl"))
    page = open_page(write_report(run.parent))
    shown = page.locator("main").text_content()
    for text in ("bits per byte", "bytes per second", "bytes of text"):
        assert text in shown
    assert "character" not in shown.split("Configuration")[0]


@pytest.fixture
def playground(browser: Any, tmp_path: Path) -> Iterator[Any]:
    run = train_tiny(tmp_path, "l’été 字\n" * 200, *OPTIONS, "--steps=200")
    with serving({"bytes": charloom.load(run)}) as client:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{client.port}")
        page.locator("#model option").first.wait_for(state="attached")
        yield page, charloom.load(run)
        context.close()


def test_the_playground_shows_characters_and_continues_with_them(playground: Any) -> None:
    page, model = playground
    page.fill("#prompt", "l’")
    page.fill("#length", "80")
    page.uncheck("#fresh")
    page.locator("#settings-A [name=temperature]").fill("0")
    page.click("#go")
    page.locator("#status", has_text="in").filter(has_text=" s.").wait_for()
    drawn = page.locator("#output-A .drawn")
    text = "".join(drawn.all_text_contents())
    whole = "".join(model.stream("l’", length=80, temperature=0))
    assert text.startswith(whole)
    assert "é" in whole
    assert drawn.count() == 80
    assert page.locator("#output-A .rest").count() >= whole.count("é")
    # The second byte of a character completes it, but no prompt can end with its first byte.
    first = whole.encode().index("é".encode())
    drawn.nth(first).hover()
    assert page.locator("#about-A .mono").first.text_content() == r"\xc3"
    assert page.locator("#about-A li", has_text=r"\xc3").locator("button").count() == 0
    drawn.nth(first + 1).hover()
    page.locator("#about-A button", has_text=r"\xa9").click()
    page.locator("#status", has_text="in").filter(has_text=" s.").wait_for()
    assert page.input_value("#prompt") == f"l’{whole.encode()[:first].decode()}é"

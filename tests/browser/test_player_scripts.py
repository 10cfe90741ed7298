"""An exported page with scripts that run from right to left, or have combining marks; its tasks."""

import json
from pathlib import Path
from typing import Any

import pytest

import charloom
from charloom.language_model import LanguageModel
from charloom.storage.checkpoint import Checkpoint
from charloom.text.vocabulary import Vocabulary
from helpers.exchange import some_model
from helpers.pages import OpenPage

HEBREW, HINDI, ARABIC = "שלום abc 12, עולם\n", "किताब क्\n", "كَتَبَ كتب\n"
CHARACTERS = tuple(sorted({*HEBREW, *HINDI, *ARABIC}))
LONGEST_TASK = 100  # milliseconds of the processor


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = Checkpoint(some_model("gru", characters=CHARACTERS), Vocabulary(CHARACTERS))
    page = tmp_path_factory.mktemp("scripts") / "page.html"
    page.write_text(charloom.export_html(LanguageModel(checkpoint)), encoding="utf-8")
    return page


def score(page: Any, text: str) -> Any:
    """Score a text on a page, and return the elements of its characters."""
    page.click("#tab-score")
    page.fill("#scored", text)
    page.click("#measure")
    page.locator("#mean").wait_for()
    return page.locator("#text-score .row > span")


def test_a_text_from_right_to_left(path: Path, open_page: OpenPage) -> None:
    page = open_page(path, reduced_motion="reduce", viewport={"width": 360, "height": 740})
    page.fill("#prompt", "שלום")
    assert page.locator("#prompt").evaluate("element => element.matches(':dir(rtl)')")
    spans = score(page, HEBREW + "ab עולם\n12, לם a")
    rows = page.locator("#text-score .row")
    assert rows.evaluate_all("all => all.map((row) => row.dir)") == ["rtl", "ltr", "rtl"]
    lefts = spans.evaluate_all("all => all.map((span) => span.getBoundingClientRect().left)")
    assert lefts[0] > lefts[3] > lefts[5]  # letters of Hebrew, and Latin ones to their left
    assert lefts[5] < lefts[6] < lefts[7]
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    spans.first.click()
    page.locator("#text-score").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#character").text_content() == "ל"
    page.keyboard.press("ArrowRight")
    assert page.locator("#character").text_content() == "ש"
    assert page.locator(".cells").get_attribute("dir") == "rtl"
    spans.nth(len(HEBREW)).click()
    page.keyboard.press("ArrowRight")
    assert page.locator("#character").text_content() == "b"
    assert page.locator(".cells").get_attribute("dir") == "ltr"


def test_marks_are_shown_with_their_letters(path: Path, open_page: OpenPage) -> None:
    page = open_page(path, reduced_motion="reduce")
    spans = score(page, HINDI + "\u093e")
    assert spans.all_text_contents() == ["कि", "", "ता", "", "ब", " ", "क्", "", "↵", "◌\u093e"]
    widths = spans.evaluate_all("all => all.map((span) => span.getBoundingClientRect().width)")
    assert min(widths) > 3  # each one can be pointed at
    spans.nth(1).hover()
    assert page.locator(".place h2").text_content().startswith("◌\u093f of कि: surprisal")
    spans.nth(4).hover()
    assert page.locator(".place h2").text_content().startswith("ब: surprisal")
    joined = score(page, ARABIC).all_text_contents()
    assert "".join(joined).replace("\u200d", "") == ARABIC.replace("\n", "↵")
    assert joined[:3] == ["كَ\u200d", "", "\u200dتَ\u200d"]  # joined across the strip of a mark


def test_a_command_that_comes_before_the_model_is_obeyed(path: Path, open_page: OpenPage) -> None:
    page = open_page(path, reduced_motion="reduce")
    page.add_init_script(
        """window.Worker = class extends Worker {
          set onmessage(listener) {
            super.onmessage = (event) => setTimeout(listener, 500, event);
          }
        };"""
    )
    page.reload()
    text = HEBREW.strip()
    assert "".join(score(page, text).all_text_contents()) == text
    assert "characters in" in page.locator("#status").text_content()


def test_no_task_is_long_while_it_writes_at_once(
    path: Path, open_page: OpenPage, browser: Any
) -> None:
    """Tasks of the page's thread, in time of the processor, which other programs do not delay."""
    page = open_page(path, reduced_motion="reduce")
    page.locator("#status", has_text="computing").wait_for()
    page.fill("#length", "20000")
    browser.start_tracing(page=page, categories=["toplevel"])
    page.click("#go")
    page.locator("#status", has_text="20,000 characters").wait_for()
    events = json.loads(browser.stop_tracing())["traceEvents"]
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks = [
        event.get("tdur", 0) / 1000
        for event in events
        if event["name"].endswith("RunTask") and (event["pid"], event["tid"]) in threads
    ]
    assert 0 < max(tasks) < LONGEST_TASK

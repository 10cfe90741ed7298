"""The page of a search in a browser."""

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charloom.runs.report import RunStatus
from charloom.tuning.page import make_search_page
from charloom.tuning.settings import Settings, Trial
from helpers.pages import CONTRAST, OpenPage, readout, wait_for_truth
from helpers.searches import resumed
from helpers.texts import PLANTED

# --- The page -------------------------------------------------------------------------------------


def shown(count: int = 14) -> tuple[Settings, list[Trial]]:
    """A search of so many trials, of every kind."""
    ranges: dict[str, Any] = {
        "cell": {"choices": ["gru", "lstm"]},
        "hidden_size": {"low": 64, "high": 320, "step": 16},
        "layers": {"low": 1, "high": 2, "step": 1},
        "learning_rate": {"low": 0.002, "high": 0.04, "log": True},
        "dropout": {"low": 0.0, "high": 0.6, "step": 0.01},
    }
    settings = Settings(
        {"name": f"woods {PLANTED}", "sha256": "0" * 64, "characters": 100_000},
        {"seed": 1, "split": PLANTED},
        30.0,
        1.5,
        90.0,
        1.0,
        {"batch_size": 16},
        ranges,
    )
    random = np.random.default_rng(1)
    trials = []
    kinds = ["complete"] * 3 + ["pruned", "failed"]
    for number in range(count):
        state = "running" if number == count - 1 else kinds[number % len(kinds)]
        end = 1.4 + 0.3 * random.random() - 0.004 * number
        parts = {"complete": 21, "pruned": 10, "failed": 5, "running": 13}[state]
        curve = [[i / 20, end + 3 * 0.8**i, 4.5 * i] for i in range(parts)]
        options = {
            "cell": ["gru", "lstm"][random.integers(2)],
            "hidden_size": int(16 * random.integers(4, 21)),
            "layers": int(random.integers(1, 3)),
            "learning_rate": float(f"{0.002 * 20 ** random.random():.3g}"),
            "dropout": round(0.6 * random.random(), 2),
        }
        failed = state == "failed"
        trials.append(
            Trial(
                number,
                state,
                options,
                None if failed else curve[-1][1],
                curve,
                100 * parts,
                None if state == "running" else 80.0 * (number + 1),
                f"the loss became {PLANTED}" if failed else None,
            )
        )
    return settings, trials


IMPORTANCES = {
    "cell": 0.1,
    "hidden_size": 0.4,
    "layers": 0.05,
    "learning_rate": 0.35,
    "dropout": 0.1,
}


def page_of(count: int = 14, state: str = "searching", done: float = 0.4) -> Path:
    settings, trials = shown(count)
    path = Path("page.html")
    found = IMPORTANCES if count >= 8 else None
    path.write_text(
        make_search_page(settings, trials, RunStatus(state, done), found), encoding="utf-8"
    )
    return path


def test_html_in_a_search_is_not_executed(open_page: OpenPage) -> None:
    page = open_page(page_of())
    assert PLANTED in page.locator("h1").text_content()
    page.locator(".plot").first.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert PLANTED in readout(page)["outcome"]
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.planted") is None


def test_keys_step_through_trials(open_page: OpenPage) -> None:
    page = open_page(page_of())
    _, trials = shown()
    best = min((t for t in trials if t.state == "complete"), key=lambda t: t.loss or 9)
    page.locator(".plot").nth(3).focus()
    for trial in trials:
        page.keyboard.press("ArrowRight")
        found = readout(page)
        assert found["trial"] == str(trial.number)
        loss = "–" if trial.loss is None else f"{trial.loss / np.log(2):.4f}"
        assert found["best validation, bits"] == loss
        assert found["cell"] == trial.options["cell"]
        assert float(found["learning-rate"]) == trial.options["learning_rate"]
        how = {"complete": "complete", "pruned": "pruned after 45%", "running": "running"}
        expected = "best" if trial is best else how.get(trial.state, "failed: ")
        assert found["outcome"].startswith(expected)
        assert page.locator("tr[aria-selected=true] td").first.text_content() == str(trial.number)
    page.keyboard.press("ArrowRight")
    assert readout(page)["trial"] == "13"
    page.keyboard.press("Home")
    assert readout(page)["trial"] == "0"
    page.keyboard.press("Escape")
    assert page.locator(".readout dd").count() == 0


def test_hovering_shows_a_trial(open_page: OpenPage) -> None:
    page = open_page(page_of())

    def point_at(part: float) -> None:
        plot = page.locator(".plot").first
        plot.evaluate("plot => plot.scrollIntoView({ block: 'center' })")
        box = plot.bounding_box()
        x = box["x"] + 58 + (box["width"] - 72) * part
        page.mouse.move(x, box["y"] + box["height"] / 4)

    point_at(6 / 13)
    assert readout(page)["trial"] in ("5", "6", "7")
    page.get_by_label("x-axis").select_option("ended")
    point_at(1)
    assert readout(page)["trial"] == "13"
    page.get_by_role("button", name="2", exact=True).click()
    assert readout(page)["trial"] == "2"
    page.get_by_label("loss in").select_option("nats")
    assert readout(page)["best validation, nats"] == f"{shown()[1][2].loss:.4f}"


def test_page_shows_command_and_importances(open_page: OpenPage) -> None:
    page = open_page(page_of())
    settings, trials = shown()
    best = min((t for t in trials if t.state == "complete"), key=lambda t: t.loss or 9)
    command = page.locator("pre").text_content()
    assert command == shlex.join(settings.command(best, ["TEXT"]))
    rows = page.locator("table.importances tbody tr").all_text_contents()
    assert rows[:2] == ["hidden-size40%", "learning-rate35%"]
    assert page.locator("table.trials tbody tr").count() == len(trials)


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_page_of_few_and_many_trials(count: int, open_page: OpenPage) -> None:
    page = open_page(page_of(count))
    assert page.locator("h1").is_visible()
    if count < 2:  # the only one is under way
        assert page.get_by_text("No complete trial yet.").is_visible()
    for key in ("ArrowRight", "End", "Home", "Escape"):
        if count:
            page.locator(".plot").first.focus()
            page.keyboard.press(key)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_search_page_contrast_in_light_and_dark(scheme: str, open_page: OpenPage) -> None:
    page = open_page(page_of(), color_scheme=scheme)
    page.locator(".plot").first.focus()
    page.keyboard.press("ArrowRight")
    texts = "h1, h2, p, td, th, dt, dd, li, pre, label, button, select, figcaption"
    for selector, kind in ((texts, "color"), (".plot text", "fill"), (".curve, .hollow", "stroke")):
        contrast, of = page.evaluate(CONTRAST, [selector, kind])
        assert contrast >= 4.5, of


def test_search_page_fits_a_phone(open_page: OpenPage) -> None:
    page = open_page(page_of(), viewport={"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert page.locator(".plot svg").first.bounding_box()["width"] <= 400


def test_search_page_refreshes(open_page: OpenPage) -> None:
    page = open_page(page_of(6))
    page.clock.install(time=time.time())
    page.reload()
    page.wait_for_selector("#standing")
    assert (
        "searching, 40% of 30 minutes, 5 trials of 1:30" in page.locator("#standing").text_content()
    )
    page_of(9, "finished")
    page.clock.fast_forward(20_000)
    wait_for_truth(page, "document.querySelector('#standing')?.textContent.startsWith('finished')")
    assert page.locator("#standing input").count() == 0


def test_page_of_a_real_search(finished_search: Path, text_file: str, open_page: OpenPage) -> None:
    found = resumed(text_file, finished_search / "search")
    page = open_page(finished_search / "search" / "report.html")
    assert page.locator("#standing").text_content().startswith("finished")
    assert page.locator("table.trials tbody tr").count() == len(found.trials)
    assert replace(found.settings, minutes=1.0) != found.settings

"""An exported model as a page in a browser: it writes, plays, scores, and never delays the page."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

import charloom
from helpers.pages import CONTRAST, OpenPage, wait_for_truth
from helpers.runs import train_tiny
from helpers.texts import PLANTED

TEXT = f'The "woods" are lovely, {PLANTED}, dark and deep; שלום עולם, schön 123.\n' * 60
OPTIONS = ["--hidden-size=24", "--steps=60", "--window=16", "--batch-size=8", "--split=90/10/0"]
NAMES = {"\n": "line break", "\t": "tab", " ": "space"}
TEXTS = "h1, h2, p, label, b, button:enabled, dt, dd, summary"
IN_ORDER = "all => all.sort((a, b) => a.place - b.place).map((one) => one.textContent)"
UNNAMED = """() => [...document.querySelectorAll("button, input, select, textarea")]
  .filter((one) => !one.textContent && !one.labels?.length && !one.getAttribute("aria-label"))
  .map((one) => one.id)"""


def exported(folder: Path, text: str, *options: str, file: str = "woods.txt") -> tuple[Path, Path]:
    """Return a run and its page."""
    run = train_tiny(folder, text, *options, file=file)
    page = folder / "page.html"
    page.write_text(charloom.export_html(run), encoding="utf-8")
    return run, page


@pytest.fixture(scope="module")
def woods(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("woods")
    return exported(folder, TEXT, *OPTIONS, file="<b>&amp;woods.txt")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    lines = "\n".join(["anna", "hannah", "johanna", "ann"] * 30)
    return exported(tmp_path_factory.mktemp("names"), lines, *OPTIONS, "--lines", "--no-mix")


def opened(open_page: OpenPage, path: Path, **window: Any) -> Any:
    """Open a page, and wait for the text that it writes by itself."""
    page = open_page(path, reduced_motion="reduce", **window)
    wait(page)
    return page


def wait(page: Any) -> None:
    page.locator("#status", has_text="computing").wait_for()


def write(page: Any, prompt: str = "", length: int = 60, seed: int = 3, **settings: str) -> None:
    """Write a text with a seed."""
    page.evaluate("document.querySelector('.settings').open = true")
    page.uncheck("#fresh")
    fields = {"prompt": prompt, "length": str(length), "seed": str(seed), **settings}
    for name, value in fields.items():
        page.fill("#" + name, value)
    page.click("#go")
    wait(page)


def spans(page: Any, room: str = "write") -> Any:
    return page.locator(f"#text-{room} .row > span")


def shown(page: Any, room: str = "write") -> str:
    """Return the text in sight, in its order: rows that came back are the last elements."""
    texts = spans(page, room).evaluate_all(IN_ORDER)
    return "".join(texts).replace("↵", "\n")


def scroll_to_the_top(page: Any) -> None:
    """Scroll the written text, whose rows are drawn with the next frame."""
    page.locator("#text-write").evaluate("box => box.scrollTop = 0")
    first = "[...document.querySelectorAll('#text-write span')].some(({ place }) => place === 0)"
    wait_for_truth(page, first)


def wait_for_length(page: Any, length: int) -> None:
    """Wait until so many characters are counted; the text and the guesses come with them."""
    counted = re.compile(rf"^{length} character")
    page.locator("#counter", has_text=counted).wait_for(state="attached")


def choose_unit(page: Any, unit: int) -> None:
    """Choose a unit, and wait for its activations."""
    page.fill("#unit", str(unit))
    page.locator(f".strip[aria-label^='unit {unit} is']").wait_for()


def level_of(name: str) -> int:
    """Return the level of a character's color, by the classes of its element."""
    return int(re.findall(r"\bs(\d+)", name)[0])


def typed(name: str) -> str:
    """Return the character of a name."""
    return {value: character for character, value in NAMES.items()}.get(name, name)


def guessed(page: Any, k: int) -> str:
    """Return the name of a guess that is shown."""
    return str(page.locator(f"#guess-{k} .name").text_content())


def test_it_writes_what_the_model_samples(woods: tuple[Path, Path], open_page: OpenPage) -> None:
    page = opened(open_page, woods[1])
    assert page.locator("h1").text_content() == charloom.load(woods[0]).checkpoint.text["name"]
    model = charloom.load(woods[0])
    write(page, "The ")
    text = model.sample("The ", length=60, seed=3)
    assert shown(page) == text
    scores = model.score(text, likeliest=5)
    for place in (9, 30, 61):
        spans(page).nth(place).hover()
        assert page.locator("#character").text_content() == NAMES.get(text[place], text[place])
        assert float(page.locator("#bits").text_content()) == pytest.approx(
            scores.bits[place], abs=0.02
        )
        first = model.vocabulary.characters[scores.likeliest[place][0]]
        assert guessed(page, 1) == NAMES.get(first, first)
        name = spans(page).nth(place).get_attribute("class")
        assert abs(level_of(name) - min(12, int(scores.bits[place] / 9 * 12))) <= 1
    write(page, "The ", temperature="0.5", top_k="9", top_p="0.9", min_p="0.02", stop="are")
    text = model.sample(
        "The ", length=60, seed=3, temperature=0.5, top_k=9, top_p=0.9, min_p=0.02, stop=["are"]
    )
    assert shown(page) == text
    page.fill("#seed", "4")
    page.fill("#stop", "")
    page.click("#go")
    wait(page)
    assert shown(page) != text


def test_another_character_is_chosen_and_it_goes_on_from_there(
    woods: tuple[Path, Path], open_page: OpenPage
) -> None:
    page = opened(open_page, woods[1])
    write(page, "The ")
    before = shown(page)
    spans(page).nth(40).click()
    spans(page).nth(10).hover()  # the click holds the place
    other = guessed(page, 2)
    page.click("#guess-2")
    wait(page)
    chosen = before[:40] + typed(other)
    model = charloom.load(woods[0])
    assert shown(page) == model.sample(chosen, length=60, seed=3)
    page.click("#undo")
    page.locator("#status", has_text="Taken back").wait_for()
    assert shown(page) == before
    spans(page).nth(20).click()
    page.fill("#other", "ö")
    wait(page)
    assert shown(page).startswith(before[:20] + "ö")
    page.click("#more")
    page.locator("#counter", has_text="141 characters").wait_for(state="attached")


def test_the_game_by_keys_and_typing(woods: tuple[Path, Path], open_page: OpenPage) -> None:
    page = opened(open_page, woods[1])
    page.click("#tab-play")
    page.locator("#guess-1").wait_for()
    text = ""
    for key in "13T2h1":
        if key.isdigit():
            text += typed(guessed(page, int(key)))
        else:
            text += key
        page.keyboard.press(key)
        wait_for_length(page, len(text))
    assert shown(page, "play") == text
    scores = charloom.load(woods[0]).score(text)
    assert page.locator("#points b").first.text_content() == f"{scores.bits.mean():.2f}"
    page.keyboard.press("Backspace")
    wait_for_length(page, len(text) - 1)
    page.uncheck("#digits")
    page.locator("#typing").press_sequentially("12")
    wait_for_length(page, len(text) + 1)
    assert shown(page, "play") == text[:-1] + "12"
    page.keyboard.press("ArrowUp")
    for _ in range(3):
        page.keyboard.press("ArrowLeft")  # to the fourth of seven characters
    other = guessed(page, 2)
    page.keyboard.press("2")
    place = len(text) - 2
    wait_for_length(page, place)
    assert shown(page, "play") == text[: place - 1] + typed(other)


def test_it_scores_a_text(woods: tuple[Path, Path], open_page: OpenPage) -> None:
    page = opened(open_page, woods[1])
    page.click("#tab-score")
    text = 'The woods are "dark" and\nlovely.'
    unknown = text[:8] + "字" + text[8:]
    page.fill("#scored", unknown)
    page.click("#measure")
    page.locator("#mean").wait_for()
    scores = charloom.load(woods[0]).score(text)
    mean = charloom.load(woods[0]).score(unknown).bits.mean()
    assert float(page.locator("#mean").text_content()) == pytest.approx(mean, abs=2e-3)
    assert "bits each: 字" in page.locator("#status").text_content()
    assert shown(page, "score") == text
    classes = spans(page, "score").evaluate_all("all => all.map((span) => span.className)")
    for name, bits in zip(classes, scores.bits, strict=True):
        assert abs(level_of(name) - min(12, int(bits / 9 * 12))) <= 1
    spans(page, "score").nth(4).hover()
    assert page.locator("#guess-1").is_disabled()


def test_the_strip_of_a_unit(woods: tuple[Path, Path], open_page: OpenPage) -> None:
    page = opened(open_page, woods[1])
    write(page, "The ")
    text = shown(page)
    states = charloom.load(woods[0]).states(text)
    for unit in (5, 17):
        choose_unit(page, unit)
        for place in (12, 40):
            spans(page).nth(place).hover()
            value = float(page.locator("#activation").text_content())
            assert value == pytest.approx(states[place, unit], abs=0.02)
            assert f"unit {unit} is" in page.locator(".strip").get_attribute("aria-label")
            name = page.locator(".cells .here").get_attribute("class").split()[0]
            level = int(name.replace("z", "0").replace("n", "-").replace("p", ""))
            assert abs(level - value * 8) < 0.6
    page.select_option("#colors", "unit")
    assert spans(page).nth(40).get_attribute("class").split()[0] == name


def task_times(trace: bytes) -> list[float]:
    """Return the processor time of each task of the pages, in milliseconds: other processes, which
    can delay any page, do not count."""
    events = json.loads(trace)["traceEvents"]
    pages = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    return [
        event.get("tdur", 0) / 1000
        for event in events
        if event["name"].endswith("::RunTask") and (event["pid"], event["tid"]) in pages
    ]


def test_it_stops_at_once_and_no_task_is_long(
    woods: tuple[Path, Path], open_page: OpenPage
) -> None:
    page = opened(open_page, woods[1])
    write(page, length=6000)
    scroll_to_the_top(page)
    assert spans(page).count() < 4000  # only the visible rows
    page.select_option("#pace", "400")
    page.fill("#length", "400")
    page.context.browser.start_tracing(page=page, categories=["toplevel"])
    page.click("#go")
    wait(page)
    times = task_times(page.context.browser.stop_tracing())
    assert len(times) > 50
    assert max(times) < 50  # milliseconds, from which on a task is called long
    page.fill("#length", "50000")
    page.select_option("#pace", "20")
    page.click("#go")
    # Of the new text, however late one looks; the one before has 400 characters.
    page.locator("#counter", has_text=re.compile("^(?!400 )[1-9][0-9,]* ")).wait_for()
    page.keyboard.press("Escape")
    assert page.locator("#status").text_content() == "Stopped."
    choose_unit(page, 3)  # the worker answers in order, so that it has stopped too
    before = page.locator("#counter").text_content()
    page.wait_for_timeout(200)
    assert page.locator("#counter").text_content() == before
    assert page.locator("#halt").is_disabled()


def test_copy_and_download(woods: tuple[Path, Path], open_page: OpenPage) -> None:
    page = opened(open_page, woods[1], permissions=["clipboard-read", "clipboard-write"])
    write(page, "The ")
    page.click("#copy")
    page.locator("#status", has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == shown(page)
    with page.expect_download() as found:
        page.click("#download")
    assert found.value.suggested_filename.endswith("woods-seed-3.txt")
    assert Path(found.value.path()).read_text(encoding="utf-8") == shown(page)


def test_documents_end(names: tuple[Path, Path], open_page: OpenPage) -> None:
    page = opened(open_page, names[1])
    write(page, "", length=40, seed=7, documents="6")
    assert page.locator("#text-write .row", has_text="<end>").count() >= 1
    with page.expect_download() as found:
        page.click("#download")
    written = Path(found.value.path()).read_text(encoding="utf-8").split("\n")
    model = charloom.load(names[0])
    assert written == [model.sample(length=40, seed=7, index=k) for k in range(6)]
    page.click("#tab-score")
    page.fill("#scored", "anna\nhannah\n")
    page.click("#measure")
    page.locator("#mean").wait_for()
    assert page.locator("#text-score .row").all_text_contents() == ["anna<end>", "hannah<end>"]
    page.click("#tab-play")
    page.locator("#typing").press_sequentially("ann\n")
    page.locator("#text-play .row", has_text="ann<end>").wait_for()


@pytest.mark.extended
def test_bytes_are_shown_as_characters(tmp_path: Path, open_page: OpenPage) -> None:
    _, path = exported(tmp_path, "l’été 🦉, 字\n" * 200, *OPTIONS, "--bytes", "--no-mix")
    page = opened(open_page, path)
    page.click("#tab-score")
    page.fill("#scored", "été 🦉")
    page.click("#measure")
    page.locator("#mean").wait_for()
    assert "".join(spans(page, "score").all_text_contents()) == "été 🦉"
    assert page.locator("#text-score .rest").count() == 1 + 1 + 3
    page.click("#tab-play")
    page.locator("#typing").press_sequentially("té")
    page.locator("#counter", has_text="3 bytes").wait_for(state="attached")
    page.locator("#erase").click()
    page.locator("#counter", has_text="1 byte").wait_for(state="attached")


def test_it_works_by_keyboard(woods: tuple[Path, Path], open_page: OpenPage) -> None:
    page = opened(open_page, woods[1])
    page.uncheck("#fresh")
    page.locator("#prompt").focus()
    page.keyboard.type("The ")
    page.keyboard.press("Control+Enter")
    wait(page)
    before = shown(page)
    page.locator("#text-write").focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    assert page.locator("#character").text_content() == NAMES.get(before[5], before[5])
    page.locator("#live", has_text="bits. 1 ").wait_for(state="attached")
    page.keyboard.press("2")
    wait(page)
    assert shown(page)[:5] == before[:5]
    assert page.evaluate("document.activeElement.id") == "text-write"
    page.locator("#tab-write").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tab-play").get_attribute("aria-selected") == "true"
    assert page.evaluate(UNNAMED) == []


def test_an_invalid_setting_is_named(woods: tuple[Path, Path], open_page: OpenPage) -> None:
    page = opened(open_page, woods[1])
    page.fill("#temperature", "-1")
    page.click("#go")
    assert "Invalid temperature" in page.locator("#status").text_content()
    assert page.locator("#temperature").get_attribute("aria-invalid") == "true"


def test_nothing_of_a_text_runs(woods: tuple[Path, Path], open_page: OpenPage) -> None:
    page = opened(open_page, woods[1])
    page.click("#tab-score")
    page.fill("#scored", PLANTED)
    page.click("#measure")
    page.locator("#mean").wait_for()
    assert shown(page, "score") == PLANTED
    assert page.evaluate("window.planted") is None
    assert page.locator("main img, main script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(woods: tuple[Path, Path], open_page: OpenPage, scheme: str) -> None:
    page = opened(open_page, woods[1], color_scheme=scheme)
    spans(page).nth(9).click()
    for room in ("write", "play", "score"):
        page.click("#tab-" + room)
        contrast, of = page.evaluate(CONTRAST, [TEXTS, "color"])
        assert contrast >= 4.5, of


def test_a_phone_shows_everything(woods: tuple[Path, Path], open_page: OpenPage) -> None:
    page = opened(open_page, woods[1], viewport={"width": 360, "height": 740}, has_touch=True)
    for room in ("write", "play", "score"):
        page.click("#tab-" + room)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.click("#tab-write")
    write(page, "The ", length=40)
    spans(page).nth(9).tap()
    page.locator("#character").wait_for()
    box = page.locator(".place").bounding_box()
    assert box["y"] + box["height"] <= 740  # in sight without scrolling
    before = shown(page)[:9]
    page.evaluate("document.querySelector('#status').textContent = ''")  # a tap takes its time
    page.locator("#guess-2").tap()
    wait(page)
    scroll_to_the_top(page)
    assert shown(page)[:9] == before


def test_in_a_frame_and_without_webassembly(
    woods: tuple[Path, Path], tmp_path: Path, open_page: OpenPage
) -> None:
    framed, plain = tmp_path / "framed.html", tmp_path / "plain.html"
    content = woods[1].read_text(encoding="utf-8")
    framed.write_text(
        f'<iframe srcdoc="{html.escape(content)}" sandbox="allow-scripts allow-downloads" '
        'width="900" height="700"></iframe>',
        encoding="utf-8",
    )
    page = open_page(framed, reduced_motion="reduce")
    frame = page.frame_locator("iframe")
    frame.locator("#status", has_text="computing").wait_for()
    frame.locator("#copy").click()
    frame.locator("#status", has_text=re.compile("Copied|Download")).wait_for()
    without = re.sub(
        r'<script type="application/octet-stream" id="array-player.wasm".*?</script>', "", content
    )
    assert without != content
    plain.write_text(without, encoding="utf-8")
    page = opened(open_page, plain)
    assert page.locator("#engine-kind").text_content() == "JavaScript"
    write(page, "The ")
    assert shown(page) == charloom.load(woods[0]).sample("The ", length=60, seed=3)
    assert json.loads(page.locator("#data").text_content())["format"]

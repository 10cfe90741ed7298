"""The pages of a text in a browser: colored by surprisal, and by a unit's activation."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from charloom.cli.main import main
from helpers.cli import Captured
from helpers.pages import OpenPage, wait_for_truth
from helpers.runs import train_tiny
from helpers.texts import PLANTED

TEXT = f'The "woods" are lovely, {PLANTED}, dark\tand deep; schön, 字 🦉.\n' * 40


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with HTML in its text and its name."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "<b>&amp;.txt").write_text(TEXT, encoding="utf-8")
    options = ["--hidden-size=12", "--cell=lstm", "--steps=40", "--split=90/10/0", "--window=32"]
    return train_tiny(folder, TEXT, *options)


@pytest.fixture
def scored(trained_run: Path, tmp_path: Path, capsys: Captured) -> tuple[Path, dict[str, Any]]:
    """A page of surprisal, and what the JSON says of the same text."""
    capsys.readouterr()
    text, page = trained_run.parent / "<b>&amp;.txt", tmp_path / "page.html"
    assert main(["score", str(trained_run), str(text), "--json", "--html", str(page)]) == 0
    return page, json.loads(capsys.readouterr().out)


@pytest.fixture
def explored(trained_run: Path, tmp_path: Path, capsys: Captured) -> tuple[Path, dict[str, Any]]:
    capsys.readouterr()
    text, page = trained_run.parent / "<b>&amp;.txt", tmp_path / "page.html"
    arguments = ["--json", "--out", str(page), "--units", "h3,c5"]
    assert main(["explore", str(trained_run), str(text), *arguments]) == 0
    return page, json.loads(capsys.readouterr().out)


def character(page: Any, place: int) -> Any:
    """The element of a character in sight."""
    spans = page.locator(".text .row > span")
    handle = spans.evaluate_all(
        "(spans, place) => spans.findIndex((span) => span.place === place)", place
    )
    assert handle >= 0, f"character {place} is not in sight"
    return spans.nth(handle)


# True as soon as the rows in sight are drawn, with the next frame after scrolling.
DRAWN = """() => {
  const box = document.querySelector(".text"), middle = box.scrollTop + box.clientHeight / 2;
  return [...box.querySelectorAll(".row")].some(
    (row) => row.offsetTop <= middle && middle < row.offsetTop + row.offsetHeight);
}"""


def shown(character_: str) -> str:
    names = {"\n": "line break", "\t": "tab", " ": "space"}
    return names.get(character_, character_)


def test_hovering_shows_what_the_json_holds(
    scored: tuple[Path, dict[str, Any]], open_page: OpenPage
) -> None:
    path, facts = scored
    page = open_page(path)
    page.wait_for_selector("#bits")
    assert page.locator("h1").text_content() == "Surprisal of b-&amp;"
    assert page.locator("#mean").text_content() == f"{facts['bits_per_character']:.4f}"
    in_sight = list(range(len(TEXT) // 40))
    places = [TEXT.index("\t"), TEXT.index("\n"), TEXT.index("🦉"), TEXT.index("<script>")]
    for place in [*places, *random.Random(1).sample(in_sight, 8)]:
        entry = facts["scores"][place]
        character(page, place).hover()
        assert page.locator("#character").text_content() == shown(entry["character"])
        assert page.locator("#bits").text_content() == f"{entry['bits']:.3f}"
        assert page.locator("#expected").text_content() == shown(entry["likeliest"][0][0])
        rows = page.locator("#likeliest tbody tr").all()
        assert len(rows) == 5
        for row, (guess, chance) in zip(rows, entry["likeliest"], strict=True):
            cells = row.locator("td").all_text_contents()
            assert cells[0].removesuffix(" ✓") == shown(guess)
            assert cells[0].endswith(" ✓") == (guess == entry["character"])
            assert cells[1] == f"{100 * chance:.2f}%"


def test_color_follows_surprisal(scored: tuple[Path, dict[str, Any]], open_page: OpenPage) -> None:
    path, facts = scored
    page = open_page(path)
    page.wait_for_selector("#bits")
    levels = page.locator(".text .row > span").evaluate_all(
        "(spans) => spans.map((s) => [s.place, Number(s.className.match(/s(\\d+)/)[1])])"
    )
    assert len(levels) > 500
    for place, level in levels:
        assert level == min(12, int(facts["scores"][place]["bits"] / 9 * 12))
    strongest = max(levels, key=lambda pair: pair[1])
    weakest = min(levels, key=lambda pair: pair[1])
    color = "element => getComputedStyle(element).backgroundColor"
    one, other = (character(page, place).evaluate(color) for place, _ in (strongest, weakest))
    assert one != other
    assert page.locator(".legend .swatch").count() == 13


def test_html_in_a_text_is_not_executed(
    scored: tuple[Path, dict[str, Any]], explored: tuple[Path, dict[str, Any]], open_page: OpenPage
) -> None:
    for path, _ in (scored, explored):
        page = open_page(path)
        page.wait_for_selector(".text .row span")
        row = "".join(page.locator(".text .row").all_text_contents())
        assert PLANTED.replace(" ", "") in row.replace(" ", "")
        assert page.evaluate("window.planted") is None
        assert page.locator("img").count() == 0
        assert "b-&amp;" in page.locator("h1").text_content()


def test_keys_go_from_character_to_character(
    scored: tuple[Path, dict[str, Any]], open_page: OpenPage
) -> None:
    path, facts = scored
    page = open_page(path)
    page.wait_for_selector("#bits")
    page.locator(".text").focus()
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("ArrowDown", None)):
        page.keyboard.press(key)
        if place is None:  # in the row below, as far to the right
            begin = page.locator(".text .row").nth(1).locator("span").first
            place = begin.evaluate("span => span.place") + 1
        here = page.locator("#bits").text_content()
        assert here == f"{facts['scores'][place]['bits']:.3f}"
    for _ in range(30):
        page.keyboard.press("PageDown")
    page.keyboard.press("End")
    assert page.locator("#bits").text_content() == f"{facts['scores'][-1]['bits']:.3f}"
    assert page.locator(".text .here").count() == 1
    page.locator("#surprising button").first.focus()
    page.keyboard.press("Enter")
    place = int(page.locator("#surprising button").first.get_attribute("data-place"))
    assert page.locator("#bits").text_content() == f"{facts['scores'][place]['bits']:.3f}"


def test_only_visible_rows_are_rendered(
    trained_run: Path, tmp_path: Path, open_page: OpenPage
) -> None:
    text, path = tmp_path / "long.txt", tmp_path / "page.html"
    text.write_text(TEXT * 30, encoding="utf-8")
    assert main(["score", str(trained_run), str(text), "--html", str(path), "--network-only"]) == 0
    page = open_page(path)
    page.wait_for_selector("#bits")
    box = page.locator(".text")
    for part in (0, 0.3, 1):
        box.evaluate("(box, part) => box.scrollTop = part * box.scrollHeight", part)
        wait_for_truth(page, DRAWN)
        assert 10 < page.locator(".text .row").count() < 80
    places = page.locator(".text .row > span").evaluate_all("(all) => all.map((s) => s.place)")
    assert max(places) == len(TEXT) * 30 - 1


def test_selecting_a_unit_recolors_the_text(
    explored: tuple[Path, dict[str, Any]], open_page: OpenPage
) -> None:
    path, facts = explored
    page = open_page(path)
    page.wait_for_selector(".text .row span")
    colors = "spans => spans.map((span) => span.className)"
    page.locator("#unit").select_option("h3")
    page.locator("#about", has_text="h3 follows").wait_for()
    first = page.locator(".text .row > span").evaluate_all(colors)
    page.locator("#unit").select_option("c5")
    page.locator("#about", has_text="c5 follows").wait_for()
    second = page.locator(".text .row > span").evaluate_all(colors)
    assert len(first) == len(second)
    assert first != second
    for unit in ("c5", "h3"):
        page.locator("#unit").select_option(unit)
        page.locator("#about", has_text=f"{unit} follows").wait_for()
        for place in (0, 5, TEXT.index("\n"), TEXT.index("🦉")):
            character(page, place).hover()
            assert page.locator("#character").text_content() == shown(TEXT[place])
            assert float(page.locator("#value").text_content()) == facts["activations"][unit][place]
    about = page.locator("#about").text_content()
    row = next(row for row in facts["units"] if row["unit"] == "h3")
    assert row["label"] in about
    assert f"{row['first_half']:.3f}" in about


def test_tables_equal_the_json(explored: tuple[Path, dict[str, Any]], open_page: OpenPage) -> None:
    path, facts = explored
    page = open_page(path)
    page.wait_for_selector("#labels tbody tr")

    def figure(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    rows = page.locator("#labels tbody tr").all()
    assert len(rows) == len(facts["labels"])

    def strength(label: dict[str, Any]) -> float:
        return -1.0 if label["second_half"] is None else abs(label["second_half"])

    labels = sorted(facts["labels"], key=strength, reverse=True)
    for row, label in zip(rows, labels, strict=True):
        cells = row.locator("td").all_text_contents()
        assert cells[0] == label["label"]
        assert cells[2] == ("–" if label["first_half"] is None else label["unit"])
        names = ("first_half", "second_half", "random_first_half", "random_second_half")
        assert cells[3:] == [figure(label[name]) for name in names]
    rows = page.locator("#units tbody tr").all()
    assert [row.locator("td").first.text_content() for row in rows] == [
        unit["unit"] for unit in facts["units"]
    ]
    for row, unit in list(zip(rows, facts["units"], strict=True))[:5]:
        cells = row.locator("td").all_text_contents()
        assert cells[1:4] == [
            unit["label"],
            figure(unit["first_half"]),
            figure(unit["second_half"]),
        ]
    # A label's button chooses its unit.
    button = page.locator("#labels button").first
    button.click()
    name = button.text_content()
    page.locator("#about", has_text=f"{name} follows").wait_for()
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator("#unit").input_value() == name


def test_a_span_finds_others_like_it(
    explored: tuple[Path, dict[str, Any]], open_page: OpenPage
) -> None:
    path, _ = explored
    page = open_page(path)
    page.wait_for_selector(".text .row span")
    begin = TEXT.index("woods")
    character(page, begin).click()
    page.locator(".text").focus()
    for _ in range(4):
        page.keyboard.press("Shift+ArrowRight")
    # Between two keys, the places like a shorter span can be listed.
    page.locator("#spans", has_text=f"{begin} to {begin + 5} these").wait_for()
    assert page.locator(".text .chosen").count() == 5
    places = [int(b.get_attribute("data-place")) for b in page.locator("#alike button").all()]
    assert 2 < len(places) <= 10
    spans = sorted([*places, begin])
    assert all(b - a >= 5 for a, b in itertools.pairwise(spans))  # none overlaps another
    scores = page.locator("#alike td.number").all_text_contents()
    alike = [int(score.removesuffix("%")) for score in scores]
    assert alike == sorted(alike, reverse=True)
    # The text repeats itself, so some places are as much alike as can be.
    assert alike[0] >= 99
    page.locator("#alike button").nth(1).click()
    assert page.locator(".text .chosen").count() == 5
    assert page.locator("#character").text_content() == shown(TEXT[places[1]])
    # By mouse too.
    one, other = character(page, places[1] + 6), character(page, places[1] + 9)
    one.hover()
    page.mouse.down()
    other.hover()
    page.mouse.up()
    page.locator("#spans", has_text=f"{places[1] + 6:,} to").wait_for()
    assert page.locator(".text .chosen").count() == 4


def test_every_character_can_be_pointed_at(
    trained_run: Path, tmp_path: Path, open_page: OpenPage
) -> None:
    """Those without a width of their own too; and Hebrew is read from right to left."""
    strange = "a\u0301e\u200bi\u202eo\ufeffu\u0085y\x01 שלום\n"
    text = tmp_path / "strange.txt"
    text.write_text(strange * 60, encoding="utf-8")
    folder, path = tmp_path / "strange", tmp_path / "page.html"
    options = ["--hidden-size=8", "--steps=3", "--window=16", "--batch-size=4", "--no-mix"]
    assert main(["train", str(text), "--out", str(folder), *options]) == 0
    assert main(["score", str(folder), str(text), "--html", str(path)]) == 0
    page = open_page(path)
    page.wait_for_selector("#bits")
    boxes = (
        page.locator(".text .row")
        .first.locator("span")
        .evaluate_all(
            "all => all.map((s) => s.getBoundingClientRect()).map((box) => [box.left, box.width])"
        )
    )
    assert len(boxes) == len(strange)
    assert min(width for _, width in boxes) > 3
    hebrew = [boxes[strange.index(letter)][0] for letter in "שלום"]
    assert hebrew == sorted(hebrew, reverse=True)


def test_resizing_keeps_the_scroll_position(
    trained_run: Path, tmp_path: Path, open_page: OpenPage
) -> None:
    text, path = tmp_path / "long.txt", tmp_path / "page.html"
    text.write_text(TEXT * 10, encoding="utf-8")
    assert main(["score", str(trained_run), str(text), "--html", str(path), "--network-only"]) == 0
    page = open_page(path, viewport={"width": 1200, "height": 800})
    page.wait_for_selector("#bits")
    page.locator(".text").evaluate("box => box.scrollTop = 9000")
    wait_for_truth(page, DRAWN)
    first = """() => {
      const box = document.querySelector(".text"), top = box.getBoundingClientRect().top;
      const rows = [...document.querySelectorAll(".text .row")];
      const seen = rows.filter((row) => row.getBoundingClientRect().bottom > top + 2);
      return Math.min(...seen.map((row) => row.firstChild.place));
    }"""
    before = page.evaluate(first)
    page.locator(".text .row").evaluate_all(
        "rows => rows.forEach((row) => row.className = 'row old')"
    )
    page.set_viewport_size({"width": 700, "height": 800})
    page.locator(".text .old").first.wait_for(state="detached")  # it is divided into rows anew
    wait_for_truth(page, DRAWN)
    assert before > 5000
    assert abs(page.evaluate(first) - before) < 150


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_color_leaves_the_text_readable(
    scored: tuple[Path, dict[str, Any]], open_page: OpenPage, scheme: str
) -> None:
    """Contrast of at least 4.5 (WCAG 2.2, AA) on every step of both scales."""
    page = open_page(scored[0], color_scheme=scheme)
    page.wait_for_selector("#bits")
    contrasts = page.evaluate(
        """() => {
          const canvas = document.createElement("canvas")
            .getContext("2d", { willReadFrequently: true });
          const pixel = (...colors) => {
            for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
          };
          const luminance = (rgb) => {
            const [r, g, b] = rgb.map((c) => {
              const part = c / 255;
              return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ground = getComputedStyle(document.body).backgroundColor;
          const names = ["z"];
          for (let k = 1; k <= 12; k++) names.push("s" + k);
          for (let k = 1; k <= 8; k++) names.push("n" + k, "p" + k);
          return names.map((name) => {
            const span = document.createElement("span");
            span.className = name;
            document.body.append(span);
            const style = getComputedStyle(span);
            const a = luminance(pixel(ground, style.backgroundColor));
            const b = luminance(pixel(style.color));
            span.remove();
            return [name, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), a];
          });
        }"""
    )
    assert len(contrasts) == 29
    for name, contrast, _ in contrasts:
        assert contrast >= 4.5, (name, contrast)
    # The scale is one of lightness, so that no eye needs its hue.
    bright = [luminance for name, _, luminance in contrasts if name == "z" or name[0] == "s"]
    steps = [b - a for a, b in itertools.pairwise(bright)]
    assert all(step < 0 for step in steps) or all(step > 0 for step in steps)


@pytest.mark.parametrize("kind", ["scored", "explored"])
def test_a_narrow_window_shows_everything(
    kind: str, request: pytest.FixtureRequest, open_page: OpenPage
) -> None:
    path, _ = request.getfixturevalue(kind)
    content = path.read_text(encoding="utf-8")  # a label can be long
    path.write_text(content.replace('"label":"', '"label":"' + 30 * "long "), encoding="utf-8")
    page = open_page(path, viewport={"width": 400, "height": 800})
    page.wait_for_selector(".text .row span")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("#readout").is_visible()
    character(page, 3).hover()
    assert page.locator("#character").text_content() == shown(TEXT[3])


def test_documents_have_rows_of_their_own(
    tmp_path: Path, open_page: OpenPage, capsys: Captured
) -> None:
    lines = ["anna", "hannah", "ann"]
    run, text = tmp_path / "run", tmp_path / "names.txt"
    text.write_text("\n".join(lines * 20) + "\n", encoding="utf-8")
    options = ["--lines", "--steps=4", "--hidden-size=8", "--split=90/10/0", "--no-mix"]
    assert main(["train", str(text), "--out", str(run), *options]) == 0
    other = tmp_path / "other.txt"
    other.write_text("anna\nhan字\n", encoding="utf-8")
    scored, explored = tmp_path / "scored.html", tmp_path / "explored.html"
    assert main(["score", str(run), str(other), "--html", str(scored)]) == 0
    assert main(["explore", str(run), str(text), "--out", str(explored)]) == 0
    page = open_page(scored)
    page.wait_for_selector("#bits")
    assert page.locator(".text .row").all_text_contents() == ["anna<end>", "han字<end>"]
    character(page, 4).hover()
    assert page.locator("#character").text_content() == "end of the document"
    assert "8 characters and 2 ends" in page.locator("p").first.text_content()
    assert page.locator("[role=note]").first.text_content() == "Unknown to the model: 1 character."
    page = open_page(explored)
    page.wait_for_selector(".text .row span")
    rows = page.locator(".text .row").all_text_contents()
    assert rows[:3] == [f"{line}<end>" for line in lines]

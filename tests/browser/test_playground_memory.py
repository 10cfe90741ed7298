"""Memory of the playground: written texts with their seeds, links that carry
settings, and a pattern that the server checks while one types."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

import charloom
from charloom.text.vocabulary import END_NAME
from helpers.clients import Client, serving
from helpers.documents import model_of_documents
from helpers.pages import CONTRAST, wait_for_truth
from helpers.texts import PLANTED

MODEL = model_of_documents(-1e9)
DOCUMENTS = model_of_documents(unseen=0.02)
HEBREW = "היה היה מלך אחד\n"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    options: dict[str, Any] = {
        "steps": 2,
        "hidden_size": 8,
        "window": 16,
        "batch_size": 4,
        "no_mix": True,
    }
    hebrew = charloom.train(HEBREW * 60, **options)
    with serving({"endless": MODEL, "documents": DOCUMENTS, "hebrew": hebrew}) as found:
        yield found


@pytest.fixture
def window(browser: Any) -> Iterator[Any]:
    faults: list[str] = []
    found = browser.new_context(viewport={"width": 1_280, "height": 800})
    found.on("weberror", lambda fault: faults.append(str(fault.error)))
    yield found
    found.close()
    assert faults == []


def opened(window: Any, url: str) -> Any:
    page = window.new_page()
    page.goto(url)
    page.locator("#model option").first.wait_for(state="attached")
    return page


def generate(page: Any, prompt: str, seed: int, length: int = 30) -> str:
    page.uncheck("#fresh")
    page.fill("#prompt", prompt)
    page.fill("#seed", str(seed))
    page.fill("#length", str(length))
    page.click("#go")
    page.locator("#status", has_text="characters in").wait_for()
    return drawn(page)


def drawn(page: Any) -> str:
    return "".join(page.locator("#output-A .drawn").all_text_contents())


def test_history_restores_a_text_with_its_settings(window: Any, client: Client) -> None:
    page = opened(window, client.url)
    page.locator("#settings-A [name=temperature]").fill("0.5")
    first = generate(page, "ab", 3)
    color = page.locator("#output-A .drawn").nth(4).get_attribute("class")
    page.locator("#settings-A [name=temperature]").fill("1.5")
    page.fill("#stop", "zz")
    page.check("#fresh")
    second = generate(page, "ba", 4)
    assert second != first
    entries = page.locator("#history li button")
    assert entries.count() == 2  # the latest first
    assert "seed 4" in entries.nth(0).text_content()
    assert first[:20] in entries.nth(1).text_content()
    page.reload()  # the tab remembers them
    page.locator("#model option").first.wait_for(state="attached")
    entries.nth(1).focus()
    page.keyboard.press("Enter")
    assert drawn(page) == first
    assert page.locator("#output-A .drawn").nth(4).get_attribute("class") == color
    assert page.input_value("#prompt") == "ab"
    assert page.input_value("#seed") == "3"
    assert page.input_value("#stop") == ""
    assert page.locator("#settings-A [name=temperature]").input_value() == "0.5"
    page.locator("#output-A .drawn").nth(2).hover()  # its alternatives are kept too
    assert page.locator("#about-A li").count() >= 2
    page.click("#go")
    page.locator("#status", has_text="characters in").wait_for()
    assert drawn(page) == first
    page.click("#clear")
    assert entries.count() == 0


@pytest.mark.extended
def test_both_settings_of_a_comparison_are_restored(window: Any, client: Client) -> None:
    page = opened(window, client.url)
    page.check("#compare")
    page.locator("#settings-B [name=temperature]").fill("0.3")
    generate(page, "ab", 3)
    other = page.locator("#output-B").text_content()
    page.uncheck("#compare")
    generate(page, "b", 5)
    page.locator("#history li button").nth(1).click()
    assert page.is_checked("#compare")
    assert page.locator("#output-B").text_content() == other
    assert page.locator("#settings-B [name=temperature]").input_value() == "0.3"


def test_a_link_carries_the_settings(window: Any, client: Client) -> None:
    page = opened(window, client.url)
    page.select_option("#model", "documents")
    prompt = 'a&b="1"\n#?'
    page.fill("#prompt", prompt)
    page.fill("#seed", "77")
    page.fill("#count", "4")
    page.fill("#pattern", "[ab]+ & c")
    page.locator("#settings-A [name=top_k]").fill("9")
    page.check("#compare")
    page.locator("#settings-B [name=temperature]").fill("0.25")
    page.locator("#endless").check()
    page.evaluate("document.querySelector('#key').value = 'secret'")
    page.click("#share")
    link = page.evaluate("location.href")  # Playwright learns of it later
    assert link.startswith(client.url + "/#")
    assert "secret" not in link
    page.evaluate("document.querySelector('#key').value = ''")
    page.fill("#seed", "77")  # so that the command is written anew, without a key
    asked: list[str] = []
    other = window.new_page()
    other.on("request", lambda request: asked.append(request.url))
    other.goto(link)
    other.locator("#model option").first.wait_for(state="attached")
    assert other.input_value("#model") == "documents"
    assert other.input_value("#prompt") == prompt
    assert other.input_value("#seed") == "77"
    assert other.input_value("#count") == "4"
    assert other.input_value("#pattern") == "[ab]+ & c"
    assert other.locator("#settings-A [name=top_k]").input_value() == "9"
    assert other.locator("#settings-B [name=temperature]").input_value() == "0.25"
    assert other.is_checked("#endless")
    assert not other.is_checked("#fresh")  # so that the same text is written
    assert other.locator("#output-B").is_visible()
    other.locator("#endless").wait_for()  # the server has described the model
    # The server's port can have these digits too.
    assert not any("77" in url.removeprefix(client.url).partition("#")[0] for url in asked)
    assert other.locator("#code").text_content() == page.locator("#code").text_content()
    # A link that is opened in the same page sets everything too.
    other.evaluate("location.hash = '#prompt=abba&seed=5'")
    wait_for_truth(other, "document.querySelector('#seed').value === '5'")
    assert other.input_value("#prompt") == "abba"
    assert other.input_value("#pattern") == ""
    assert not other.is_checked("#compare")


def test_nothing_in_a_link_is_executed(window: Any, client: Client) -> None:
    page = window.new_page()
    page.goto(client.url)
    page.evaluate(
        "text => location.hash = new URLSearchParams({ prompt: text, model: text, seed: text })",
        PLANTED,
    )
    page.locator("#status.fault", has_text="is not served here").wait_for()
    assert page.input_value("#prompt") == PLANTED
    assert page.input_value("#seed") == ""
    assert page.input_value("#model") == "endless"
    assert page.locator("img").count() == 0
    assert page.evaluate("window.planted") is None


def test_a_pattern_is_checked_while_one_types(window: Any, client: Client) -> None:
    page = opened(window, client.url)
    asked: list[str] = []

    def answer(route: Any) -> None:
        pattern = json.loads(route.request.post_data)["pattern"]
        asked.append(pattern)
        valid = not pattern.endswith("(")
        found = {"valid": True, "shortest": 2} if valid else {"valid": False, "message": PLANTED}
        route.fulfill(json=found)

    page.route("**/pattern", answer)
    # Two keys at once: a busy machine can take longer between them than the page waits.
    page.locator("#pattern").evaluate(
        """input => ["a", "ab"].forEach((value) => {
          input.value = value;
          input.dispatchEvent(new InputEvent("input", { bubbles: true }));
        })"""
    )
    hint = page.locator("#pattern-hint")
    page.locator("#pattern-hint", has_text="Valid. The shortest text has 2 characters.").wait_for()
    assert asked == ["ab"]  # not at every key
    assert page.get_attribute("#pattern", "aria-invalid") == "false"
    page.fill("#pattern", "ab(")
    page.locator("#pattern-hint.fault", has_text=PLANTED).wait_for()
    assert page.get_attribute("#pattern", "aria-invalid") == "true"
    assert page.locator("img").count() == 0
    page.fill("#pattern", "")
    assert hint.text_content() == ""
    page.fill("#length", "1")
    page.fill("#pattern", "ab")
    page.locator("#pattern-hint", has_text="more than the length").wait_for()


@pytest.mark.extended
def test_a_pattern_restricts_the_text(window: Any, client: Client) -> None:
    page = opened(window, client.url)
    page.route("**/pattern", lambda route: route.fulfill(status=404, json={}))
    with page.expect_response("**/pattern"):
        page.fill("#pattern", "(ab){5}")
    wait_for_truth(page, "document.querySelector('#pattern-hint').hidden")
    assert generate(page, "", 3) == "ab" * 5 + END_NAME
    page.click("#curl")
    assert '"guided_regex":"(ab){5}"' in page.locator("#code").text_content()
    page.click("#python")
    assert 'extra_body={"temperature"' not in page.locator("#code").text_content()
    assert '"guided_regex": "(ab){5}"' in page.locator("#code").text_content()


def test_documents_are_named_and_their_end_can_be_excluded(window: Any, client: Client) -> None:
    page = opened(window, client.url)
    page.select_option("#model", "hebrew")
    page.locator("label:has(#count)", has_text="texts").wait_for()
    assert not page.locator("#endless").is_visible()
    page.select_option("#model", "documents")
    page.locator("label:has(#count)", has_text="documents").wait_for()
    assert page.locator("#endless").is_visible()
    page.check("#endless")
    text = generate(page, "ab", 3, length=60)
    assert len(text) == 60
    assert END_NAME not in text
    page.click("#python")
    assert '"ignore_eos": True' in page.locator("#code").text_content()


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.extended)])
def test_playground_contrast_and_right_to_left(browser: Any, client: Client, scheme: str) -> None:
    with browser.new_context(viewport={"width": 360, "height": 800}, color_scheme=scheme) as narrow:
        page = opened(narrow, client.url)
        page.select_option("#model", "hebrew")
        generate(page, "היה ", 3)
        page.locator("#output-A .drawn").nth(3).click()
        page.fill("#pattern", "(")
        page.locator("#pattern-hint.fault").wait_for()
        for selector in ("#prompt", "#output-A .one-text", "#history .excerpt"):
            assert page.locator(selector).evaluate("element => element.matches(':dir(rtl)')")
        places = page.locator("#output-A .drawn").evaluate_all(
            "all => all.slice(0, 3).map((one) => one.getBoundingClientRect().left)"
        )
        assert places == sorted(places, reverse=True)
        texts = "h1, h2, p, label, li, button, summary, select, input, .given, .soft, .number, b"
        contrast, of = page.evaluate(CONTRAST, [texts, "color"])
        assert contrast >= 4.5, of
        contrast, of = page.evaluate(CONTRAST, ["input, select, textarea", "borderTopColor"])
        assert contrast >= 3, of
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_arrow_keys_follow_a_text_from_right_to_left(window: Any, client: Client) -> None:
    page = opened(window, client.url)
    page.select_option("#model", "hebrew")
    generate(page, "היה ", 3)
    characters = page.locator("#output-A .drawn")
    characters.nth(3).click()
    page.locator("#output-A").focus()
    here = "all => all.findIndex((one) => one.classList.contains('here'))"
    page.keyboard.press("ArrowLeft")
    assert characters.evaluate_all(here) == 4
    page.keyboard.press("ArrowRight")
    assert characters.evaluate_all(here) == 3

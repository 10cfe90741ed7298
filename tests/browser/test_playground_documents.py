"""The playground with a model of documents: texts that end, and several of them."""

from collections.abc import Iterator
from typing import Any

import pytest

from charloom.text.vocabulary import END, END_NAME
from helpers.clients import Client, serving
from helpers.documents import model_of_documents

MODEL = model_of_documents(unseen=0.02)
ENDING = "end of the document"  # as an alternative


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    models = {"documents": MODEL, "endless": model_of_documents(-1e9)}
    with serving(models) as found:
        yield found


@pytest.fixture
def page(browser: Any, client: Client) -> Iterator[Any]:
    """The playground; it has no errors, and no surrogate is on it."""
    window = browser.new_context(viewport={"width": 1_000, "height": 1_200})
    found = window.new_page()
    faults: list[str] = []
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    found.goto(client.url)
    found.locator("#model option").first.wait_for(state="attached")
    found.uncheck("#fresh")
    yield found
    assert END not in found.locator("body").text_content()
    window.close()
    assert faults == []


def generate(page: Any, prompt: str, *, seed: int, count: int = 1, length: int = 60) -> str:
    page.fill("#prompt", prompt)
    page.fill("#length", str(length))
    page.fill("#count", str(count))
    page.fill("#seed", str(seed))
    page.click("#go")
    page.locator("#status", has_text="characters in").wait_for()
    status: str = page.locator("#status").text_content()
    return status


def document(prompt: str, seed: int, index: int = 0, length: int = 60) -> tuple[str, bool]:
    """Return the document after a prompt, and whether it ends."""
    text = "".join(MODEL.stream(prompt, length=length, seed=seed, index=index))
    text = text.partition(END)[0]
    return text, len(text) < length


def seed_of(*, ends: bool, length: int = 60) -> int:
    """Return a seed whose document has at least three characters, and ends or does not."""
    found = ((seed, document("ab", seed, length=length)) for seed in range(200))
    return next(seed for seed, (text, ended) in found if ended == ends and len(text) >= 3)


def test_a_document_ends(page: Any) -> None:
    seed = seed_of(ends=True)
    text, _ = document("ab", seed)
    status = generate(page, "ab", seed=seed)
    assert status.startswith(f"{len(text)} characters in")
    assert status.endswith("The document ended.")
    shown = page.locator("#output-A .drawn").all_text_contents()
    assert shown == [*text, END_NAME]
    mark = page.locator("#output-A .end")
    assert mark.count() == 1
    mark.hover()
    assert page.locator("#about-A b").first.text_content() == ENDING
    assert "bits" in page.locator("#about-A").text_content()


def test_a_document_that_does_not_end(page: Any) -> None:
    seed = seed_of(ends=False, length=3)
    status = generate(page, "ab", seed=seed, length=3)
    assert status.startswith("3 characters in")
    assert "ended" not in status
    assert page.locator("#output-A .end").count() == 0


def test_several_documents(page: Any) -> None:
    expected = [document("a", 7, index) for index in range(6)]
    status = generate(page, "a", seed=7, count=6)
    ends = sum(ended for _, ended in expected)
    assert status.endswith(f"{ends} of 6 documents ended.")
    shown = page.locator("#output-A .one-text").all_text_contents()
    assert shown == [f"a{text}{END_NAME * ended}" for text, ended in expected]
    # The arrow keys go through all of them.
    page.locator("#output-A").focus()
    page.keyboard.press("End")
    assert page.locator("#output-A .one-text").nth(5).locator(".here").count() == 1
    page.keyboard.press("Home")
    assert page.locator("#output-A .one-text").first.locator(".here").count() == 1


def test_the_end_continues_with_a_character_and_not_the_reverse(page: Any) -> None:
    seed = seed_of(ends=True)
    text, _ = document("ab", seed)
    generate(page, "ab", seed=seed)
    page.locator("#output-A .end").click()
    rows = page.locator("#about-A li")
    ending = rows.filter(has_text=ENDING)
    assert ending.count() == 1
    assert ending.locator("button").count() == 0
    page.locator("#about-A li button").first.click()
    page.locator("#status", has_text="characters in").wait_for()
    after: str = page.input_value("#prompt")
    assert after.startswith("ab" + text)
    assert len(after) == len("ab" + text) + 1


def test_copied_requests_have_the_number_of_texts(page: Any) -> None:
    generate(page, "a", seed=7, count=3)
    page.click("#python")
    code = page.locator("#code").text_content()
    assert "    n=3,\n" in code
    assert "for choice in completion.choices:" in code
    page.fill("#count", "1")
    assert "n=" not in page.locator("#code").text_content()


@pytest.mark.parametrize("width", [360, 1280])
def test_documents_fit_the_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.check("#compare")
    generate(page, "ab", seed=1, count=4)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("#output-B .one-text").count() == 4

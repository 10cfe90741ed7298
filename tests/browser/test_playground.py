"""The playground in a browser, on a real server: type, stream, look, branch, compare, and what
happens when the server goes."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import charloom
from charloom.serving.schema import MOST_SAMPLED
from helpers.extras import needs
from helpers.runs import train_tiny

PLANTED = "<script>window.planted=1</script> & <img src=x onerror=window.planted=1>"


TEXT = f'The "woods" are lovely, {PLANTED}, dark and deep.\n' * 40


class Server:
    """`charloom serve` as a process of its own, which can be killed and started again."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders, self.port = folders, 0  # a free one, and the same one when it comes back
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "charloom", "serve", *map(str, self.folders)]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), "--network-only"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"at (http://127\.0\.0\.1:(\d+))$", line.rstrip())
        assert found, f"the server ended: {line!r}"
        self.url, self.port = found[1], int(found[2])

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("playground")
    options = ["--steps=30", "--window=32", "--split=90/10/0"]
    return [
        train_tiny(folder, TEXT, f"--hidden-size={size}", *options, name=name)
        for name, size in (("small", 8), ("other & <b>", 12))
    ]


@pytest.fixture(scope="module")
def server(runs: list[Path]) -> Iterator[Server]:
    one = Server(runs)
    one.start()
    yield one
    one.kill()


@pytest.fixture
def open_playground(browser: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Opens the page; it may ask its own server and nobody else, and may have no error, but those
    that `expected` matches."""
    windows: list[Any] = []
    faults: list[str] = []
    expected: list[str] = []

    def open_(*expecting: str, **window: Any) -> Any:
        expected.extend(expecting)
        windows.append(browser.new_context(**window))
        page = windows[-1].new_page()

        def heard(message: Any) -> None:
            if message.type in ("error", "warning"):
                faults.append(message.text)

        def asked(request: Any) -> None:
            if not request.url.startswith((server.url + "/", "data:")):
                faults.append(f"asked for {request.url}")

        page.on("console", heard)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", asked)
        page.goto(server.url)
        page.locator("#model option").first.wait_for(state="attached")
        return page

    yield open_
    for window in windows:
        window.close()
    assert [fault for fault in faults if not any(re.search(e, fault) for e in expected)] == []


def drawn(page: Any, pane: str = "A") -> str:
    return "".join(page.locator(f"#output-{pane} .drawn").all_text_contents())


def generate(page: Any, prompt: str, seed: int = 3, length: int = 60) -> None:
    page.fill("#prompt", prompt)
    page.fill("#length", str(length))
    page.uncheck("#fresh")
    page.fill("#seed", str(seed))
    page.click("#go")
    page.locator("#status", has_text="characters in").wait_for()


def test_playground_samples_what_the_model_samples(
    runs: list[Path], open_playground: Callable[..., Any]
) -> None:
    page = open_playground()
    generate(page, "The ")
    model = charloom.load(runs[0], network_only=True)
    text = model.sample("The ", length=60, seed=3)
    assert "The " + drawn(page) == text
    scores = model.score(text, likeliest=5)
    for place in (0, 17, 59):
        page.locator("#output-A .drawn").nth(place).hover()
        about = page.locator("#about-A").text_content()
        assert f"{scores.bits[4 + place]:.2f} bits" in about
        chances = page.locator("#about-A li .number").all_text_contents()
        expected = [f"{100 * p:.1f}%" for p in scores.likeliest_probabilities[4 + place]]
        assert chances[:5] == expected
        color = page.locator("#output-A .drawn").nth(place).get_attribute("class")
        assert f"s{min(12, int(scores.bits[4 + place] / 9 * 12))}" in color.split()


def test_a_branch_goes_on_with_another_character(open_playground: Callable[..., Any]) -> None:
    page = open_playground()
    generate(page, "The ")
    before = drawn(page)
    page.locator("#output-A .drawn").nth(5).click()
    other = page.locator("#about-A li button").nth(1).text_content().split(None, 1)[1]
    page.locator("#about-A li button").nth(1).click()
    page.locator("#status", has_text="characters in").wait_for()
    other = {"space": " ", "line break": "\n"}.get(other.removesuffix(" ✓"), other)
    assert page.input_value("#prompt") == "The " + before[:5] + other.removesuffix(" ✓")
    page.click("#back")
    assert page.input_value("#prompt") == "The "


def test_playground_works_by_keyboard(open_playground: Callable[..., Any]) -> None:
    page = open_playground()
    page.uncheck("#fresh")
    page.fill("#length", "40")
    page.locator("#prompt").focus()
    page.keyboard.type("The ")
    page.keyboard.press("Control+Enter")
    page.locator("#status", has_text="40 characters in").wait_for()
    before = drawn(page)
    page.locator("#output-A").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert page.locator("#output-A .here").evaluate("span => span.number") == 3
    page.keyboard.press("2")
    page.locator("#status", has_text="40 characters in").wait_for()
    assert page.input_value("#prompt").startswith("The " + before[:3])
    assert len(page.input_value("#prompt")) == 8


def test_two_settings_from_the_same_seed(
    runs: list[Path], open_playground: Callable[..., Any]
) -> None:
    page = open_playground()
    page.check("#compare")
    page.locator("input[name=temperature]").nth(1).fill("0.3")
    generate(page, "The ")
    model = charloom.load(runs[0], network_only=True)
    assert "The " + drawn(page, "A") == model.sample("The ", length=60, seed=3)
    assert "The " + drawn(page, "B") == model.sample("The ", length=60, seed=3, temperature=0.3)


def test_another_model_is_chosen(runs: list[Path], open_playground: Callable[..., Any]) -> None:
    page = open_playground()
    names = page.locator("#model option").all_text_contents()
    assert names == ["small", "other & <b>"]
    page.select_option("#model", names[1])
    generate(page, "The ")
    model = charloom.load(runs[1], network_only=True)
    assert "The " + drawn(page) == model.sample("The ", length=60, seed=3)


def test_html_is_shown_and_does_nothing(open_playground: Callable[..., Any]) -> None:
    page = open_playground()
    generate(page, PLANTED)
    assert PLANTED in page.locator("#output-A").text_content()
    assert page.evaluate("window.planted") is None
    assert page.locator("img").count() == 0


def test_copied_curl_does_the_same(open_playground: Callable[..., Any]) -> None:
    page = open_playground()
    prompt = 'The "woods" are & '
    generate(page, prompt, length=20)
    text = drawn(page)
    page.locator("input[name=top_k]").first.fill("90")
    page.click("#curl")
    shown = page.locator("#code").text_content()
    done = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=False)
    if done.returncode != 127:  # no curl
        assert json.loads(done.stdout)["choices"][0]["text"] == text


@needs("openai")
def test_copied_python_does_the_same(open_playground: Callable[..., Any], tmp_path: Path) -> None:
    page = open_playground()
    generate(page, 'The "woods" are & ', length=20)
    text = drawn(page)
    page.locator("input[name=top_k]").first.fill("90")
    page.click("#python")
    (tmp_path / "copied.py").write_text(page.locator("#code").text_content(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "copied.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == text + "\n", done.stderr


def test_server_errors_are_shown(open_playground: Callable[..., Any]) -> None:
    page = open_playground("status of 400")
    page.fill("#prompt", "The €")
    page.click("#go")
    page.locator("#status.fault", has_text="€").wait_for()
    page.fill("#prompt", "The ")
    page.fill("#length", "20")
    page.click("#go")
    page.locator("#status", has_text="20 characters in").wait_for()
    assert page.locator("#status.fault").count() == 0


def test_a_server_that_is_killed_and_comes_back(
    server: Server, open_playground: Callable[..., Any]
) -> None:
    page = open_playground("ERR_", "Failed to load")
    page.fill("#prompt", "The ")
    page.fill("#length", "8000")
    # A slow line, so that the text cannot be there before the server is killed.
    session = page.context.new_cdp_session(page)
    line = {"offline": False, "latency": 0, "uploadThroughput": -1}
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", {**line, "downloadThroughput": 30_000})
    page.click("#go")
    page.locator("#output-A .drawn").nth(20).wait_for()
    server.kill()
    page.locator("#status.fault", has_text="Waiting for").wait_for()
    session.send("Network.emulateNetworkConditions", {**line, "downloadThroughput": -1})
    assert len(drawn(page)) > 20  # what came stays
    server.start()
    page.locator("#status", has_text="The server is back").wait_for()
    generate(page, "The ", length=20)
    assert len(drawn(page)) == 20


def test_stopping_ends_the_text(open_playground: Callable[..., Any]) -> None:
    page = open_playground()
    page.fill("#prompt", "The ")
    page.fill("#length", str(MOST_SAMPLED))
    # From within the page, at the first character: the text must not be there before the key. Much
    # of it has arrived, because the page is slow.
    page.evaluate(
        """() => {
          const { fetch } = window;
          window.fetch = async (...request) => {
            const answer = await fetch(...request);
            await new Promise((resolve) => setTimeout(resolve, 300));
            return answer;
          };
          new MutationObserver((_, observer) => {
            if (!document.querySelector("#output-A .drawn")) return;
            observer.disconnect();
            document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
          }).observe(document.querySelector("#output-A"), { childList: true, subtree: true });
        }"""
    )
    page.click("#go")
    page.locator("#status", has_text="Stopped").wait_for()
    kept = "() => JSON.parse(Object.values(sessionStorage)[0])[0].texts[0][0].length"
    count = page.evaluate(kept)  # in the history, when it was stopped
    page.wait_for_timeout(300)
    assert 0 < len(drawn(page)) == count < MOST_SAMPLED


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_the_window(open_playground: Callable[..., Any], width: int) -> None:
    page = open_playground(viewport={"width": width, "height": 800})
    page.check("#compare")
    generate(page, "The ")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert not page.locator("#key").is_visible()

"""The playground below a prefix, behind a proxy that removes it."""

import json
import subprocess
from typing import Any

import pytest

from helpers.clients import serving
from helpers.documents import model_of_documents
from helpers.proxies import stripping_proxy

MODEL = model_of_documents(-1e9)


@pytest.mark.parametrize(
    ("forwards_host", "allow_hosts"), [(True, ["proxy.localhost"]), (False, [])]
)
def test_playground_below_a_prefix(
    browser: Any, forwards_host: bool, allow_hosts: list[str]
) -> None:
    faults: list[str] = []
    with (
        serving({"model": MODEL}, allow_hosts=allow_hosts) as client,
        stripping_proxy(client.port, "/x/y/", forwards_host=forwards_host) as url,
        browser.new_context() as window,
    ):
        page = window.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.on("response", lambda reply: reply.ok or faults.append(reply.url))
        page.goto(url)
        page.locator("#model option").first.wait_for(state="attached")
        page.uncheck("#fresh")
        page.fill("#prompt", "ab")
        page.fill("#length", "500")
        page.fill("#stop", "\u20ac")
        page.fill("#seed", "3")
        page.click("#go")
        page.locator("#status", has_text="characters in").wait_for()
        text = "".join(page.locator("#output-A .drawn").all_text_contents())
        assert "ab" + text == MODEL.sample("ab", length=500, seed=3)
        assert "does not know a character of the stop text" in page.text_content("#status")
        page.click("#curl")
        shown = page.locator("#code").text_content()
        assert f"'{url}v1/completions'" in shown
        page.click("#python")
        assert f'base_url="{url}v1"' in page.locator("#code").text_content()
        done = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=False)
        if done.returncode not in (6, 127):  # no curl, or it does not resolve the name
            assert json.loads(done.stdout)["choices"][0]["text"] == text
    assert faults == []

"""The page that continues texts by itself: an exported model, and the player that runs it.

The page's own script shows the text. The engine is beside it, as text that is not run. The page
starts a worker with it, so that computing never delays the page.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from charloom.errors import printable
from charloom.pages.page import Arrays, array_element, asset, data_elements, digest

ENGINE_SCRIPTS = ("model.js", "counts.js", "mixer.js", "sampling.js", "compiled.js", "worker.js")
PAGE_SCRIPTS = (
    "page.js",
    "text.js",
    "player/sheet.js",
    "player/guesses.js",
    "player/settings.js",
    "player/player.js",
)
STYLES = ("page.css", "player/player.css")
COMPILED = "player.wasm"  # the engine in WebAssembly, an array of the page


@cache
def engine_script() -> str:
    """Return the script of the worker."""
    script = "\n".join(asset(f"player/{name}") for name in ENGINE_SCRIPTS)
    assert "</script" not in script  # which would end its element
    assert "<!--" not in script
    return script


@cache
def compiled_element() -> str:
    """Return the element of the page with the engine in WebAssembly."""
    code = files("charloom.pages").joinpath("web", "player", COMPILED).read_bytes()
    return array_element(COMPILED, np.frombuffer(code, np.uint8))


def make_player(title: str, header: Mapping[str, Any], arrays: Arrays) -> str:
    """Return the HTML of a page that continues texts with a model.

    Args:
        title: the title as plain text.
        header: the model's description, plain JSON values.
        arrays: the model's arrays by name.
    """
    script = "\n".join(asset(name) for name in PAGE_SCRIPTS)
    style = "\n".join(asset(name) for name in STYLES)
    policy = (
        f"default-src 'none'; script-src '{digest(script)}' 'wasm-unsafe-eval'; worker-src blob:; "
        f"style-src '{digest(style)}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    engine = f'<script type="text/plain" id="engine">{engine_script()}</script>'
    return Template(asset("player/player.html")).substitute(
        title=html.escape(printable(title)),
        policy=policy,
        style=style,
        data="\n".join([data_elements(header, arrays), compiled_element(), engine]),
        script=script,
    )

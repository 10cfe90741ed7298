"""Pages that explain themselves: one HTML file with its script, style and data, for any browser.

A page asks nothing of the network: its policy forbids it, and allows no script but ours, which is
named by its digest. Data stands beside the script as JSON, arrays deflated in base 64; the script
(in the folder `web`) puts them in as text, so that no text can become HTML.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError, printable
from charloom.storage.atomic import write_atomically

LARGEST = 60_000_000  # bytes of a page
DOCTYPE = "<!doctype html>"  # what every page begins with
Arrays = Mapping[str, NDArray[Any]]


@cache
def _asset(name: str) -> str:
    return files("charloom.pages").joinpath("web", name).read_text("utf-8")


def make_page(title: str, scripts: Sequence[str], data: Mapping[str, Any], arrays: Arrays) -> str:
    """A page's HTML. scripts: files of `web`, after page.js. data: plain JSON values. arrays: of
    integers or float32, by name; the script asks for them with `array(name)`."""
    script = "\n".join(_asset(name) for name in ("page.js", *scripts))
    style = _asset("page.css")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"  # the image: an icon, of nothing
    )
    parts = [
        DOCTYPE + '\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
        '<meta name="generator" content="charloom">\n<link rel="icon" href="data:,">\n',
        f"<title>{html.escape(printable(title))}</title>\n<style>{style}</style>\n</head>\n<body>\n",
        "<main><noscript><p>This page is drawn by its script, which is switched off here.</p>",
        "</noscript></main>\n",
        f'<script type="application/json" id="data">{_json(data)}</script>\n',
    ]
    for name, values in arrays.items():
        kind = values.dtype.newbyteorder("<")
        packed = zlib.compress(np.ascontiguousarray(values, kind).tobytes(), 6)
        parts.append(
            f'<script type="application/octet-stream" id="array-{html.escape(name)}" '
            f'data-type="{values.dtype.name}">{base64.b64encode(packed).decode()}</script>\n'
        )
    parts.append(f"<script>{script}</script>\n</body>\n</html>\n")
    return "".join(parts)


def fit_page(
    make: Callable[[int], tuple[str, Sequence[str], Mapping[str, Any], Arrays]], shown: int
) -> str:
    """The page of what `make` gives for so many characters or units, or for fewer, until it is not
    too large."""
    while True:
        page = make_page(*make(shown))
        if len(page) <= LARGEST or shown <= 1:
            return page
        shown = min(shown - 1, int(shown * 0.95 * LARGEST / len(page)))


def _json(data: Mapping[str, Any]) -> str:
    """JSON that no HTML parser can see an end of: every sign that means something there is
    escaped."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def check_writable(path: Path, *, page: bool = True) -> None:
    """Raises CharloomError where no page (or other file) could be written: before anything is
    computed for it."""
    try:
        with tempfile.TemporaryFile(dir=_target(path, page).parent):
            pass
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from None


def write_page(path: Path, page: str, advice: str = "give another file") -> None:
    """Writes a page whole or not at all; a link stays one. Raises CharloomError where it cannot be
    written, or would replace what is no page; it ends with the advice."""
    try:
        write_atomically(_target(path), page.encode())
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise _cannot_write(path, error, advice) from None


def _target(path: Path, page: bool = True) -> Path:
    """The file that a path leads to. Raises OSError for what must not be replaced."""
    path = path.resolve()
    if path.is_dir():
        raise IsADirectoryError(None, "it is a folder")
    if path.exists():
        if not path.is_file():
            raise FileExistsError(None, "it is no ordinary file")
        with path.open("rb") as file:
            begins = file.read(len(DOCTYPE))
        if page and begins and begins != DOCTYPE.encode():
            raise FileExistsError(None, "what is there is no page")
    return path


def _cannot_write(path: Path, error: Exception, advice: str = "give another file") -> CharloomError:
    reason = getattr(error, "strerror", None) or error
    return CharloomError(f"cannot write {printable(str(path))} ({reason}): {advice}")

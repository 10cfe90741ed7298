"""HTML pages in one file, with their script, style and data inside.

A page loads nothing from the network: its Content-Security-Policy forbids requests, and permits
only the script and the style whose digests it names. The data is JSON, and deflated arrays in
base64. The scripts (in the folder `web`) insert data as text only, so that no text can become HTML.
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
from string import Template
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError, printable
from charloom.storage.atomic import write_atomically

LARGEST = 60_000_000  # bytes of a page
MOST_CHARACTERS = 2_000_000  # of a text on a page
DOCTYPE = "<!doctype html>"  # the beginning of every page
LEFT_UNCHANGED = "the page is left unchanged"
USE_ANOTHER_FILE = "use another file"
Arrays = Mapping[str, NDArray[Any]]


class PageContent(NamedTuple):
    """The parts of a page that differ from page to page; see `make_page`."""

    title: str
    scripts: Sequence[str]
    data: Mapping[str, Any]
    arrays: Arrays


@cache
def asset(name: str) -> str:
    """Return the text of a file in `web`."""
    return files("charloom.pages").joinpath("web", name).read_text("utf-8")


def make_page(title: str, scripts: Sequence[str], data: Mapping[str, Any], arrays: Arrays) -> str:
    """Return the HTML of a page.

    Args:
        title: the title as plain text.
        scripts: file names in `web`, which run in this order after page.js.
        data: plain JSON values; the scripts read them as `DATA`.
        arrays: integers or float32, by name; the scripts read them with `array(name)`.
    """
    script = "\n".join(asset(name) for name in ("page.js", *scripts))
    style = asset("page.css")
    policy = (
        f"default-src 'none'; script-src '{digest(script)}'; style-src '{digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"  # the only image is an empty icon
    )
    return Template(asset("page.html")).substitute(
        title=html.escape(printable(title)),
        policy=policy,
        style=style,
        data=data_elements(data, arrays),
        script=script,
    )


def data_elements(data: Mapping[str, Any], arrays: Arrays) -> str:
    """Return the elements of a page with its data and arrays, for which see `make_page`."""
    elements = [f'<script type="application/json" id="data">{_json(data)}</script>']
    elements += [array_element(name, values) for name, values in arrays.items()]
    return "\n".join(elements)


def array_element(name: str, values: NDArray[Any]) -> str:
    """Return the element of a page that holds an array, deflated and in base64."""
    little_endian = values.dtype.newbyteorder("<")
    packed = zlib.compress(np.ascontiguousarray(values, little_endian).tobytes(), 6)
    return (
        f'<script type="application/octet-stream" id="array-{html.escape(name)}" '
        f'data-type="{values.dtype.name}">{base64.b64encode(packed).decode()}</script>'
    )


def fit_page(make: Callable[[int], PageContent], shown: int) -> str:
    """Return the HTML of the largest page that is small enough for a browser.

    Args:
        make: returns the content of a page that shows n characters, or n units.
        shown: the first n to try; it shrinks until the page has at most `LARGEST` bytes.
    """
    while True:
        page = make_page(*make(shown))
        if len(page) <= LARGEST or shown <= 1:
            return page
        shown = min(shown - 1, int(shown * 0.95 * LARGEST / len(page)))


def _json(data: Mapping[str, Any]) -> str:
    """Return JSON in which every character with a meaning in HTML is escaped, so that it cannot end
    the element that holds it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def digest(content: str) -> str:
    """Return the digest of a script or a style for a policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def check_writable(path: Path, *, page: bool = True) -> None:
    """Check that a page (or another file) can be written, before computing its content.

    Args:
        path: the file to write.
        page: refuse to replace an existing file that is not a page.

    Raises:
        CharloomError: if the file cannot be written or must not be replaced.
    """
    try:
        with tempfile.TemporaryFile(dir=_target(path, page).parent):
            pass
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from None


def write_page(path: Path, page: str, advice: str = USE_ANOTHER_FILE) -> None:
    """Write a page atomically. A symbolic link stays a link.

    Args:
        path: the file to write.
        page: the HTML.
        advice: the end of the error's message.

    Raises:
        CharloomError: if the file cannot be written, or exists and is not a page.
    """
    try:
        write_atomically(_target(path), page.encode())
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise _cannot_write(path, error, advice) from None


def _target(path: Path, page: bool = True) -> Path:
    """Resolve a path. Raise OSError if its file must not be replaced."""
    path = path.resolve()
    if path.is_dir():
        raise IsADirectoryError(None, "it is a folder")
    if path.exists():
        if not path.is_file():
            raise FileExistsError(None, "it is not a regular file")
        with path.open("rb") as file:
            beginning = file.read(len(DOCTYPE))
        if page and beginning and beginning != DOCTYPE.encode():
            raise FileExistsError(None, "the existing file is not a page")
    return path


def _cannot_write(path: Path, error: Exception, advice: str = USE_ANOTHER_FILE) -> CharloomError:
    reason = getattr(error, "strerror", None) or error
    return CharloomError(f"cannot write {printable(str(path))} ({reason}): {advice}")

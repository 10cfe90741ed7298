"""All messages that a user can see, as a list that a change of them must change too."""

import difflib

import pytest

from helpers.messages import (
    ROOT,
    SNAPSHOT,
    messages_of,
    page_messages,
    python_messages,
    script_messages,
    snapshot,
    source_files,
)

REWRITE = "PYTHONPATH=src:tests python -m helpers.messages --write"


def test_messages_are_those_of_the_snapshot() -> None:
    kept = (ROOT / SNAPSHOT).read_text(encoding="utf-8")
    found = snapshot()
    difference = "\n".join(
        difflib.unified_diff(
            kept.splitlines(), found.splitlines(), SNAPSHOT.as_posix(), "the source", lineterm=""
        )
    )
    if found != kept:
        pytest.fail(f"messages changed; if they should, run {REWRITE}\n{difference}", pytrace=False)


def test_every_kind_of_file_has_messages() -> None:
    assert {path.suffix for path in source_files() if messages_of(path)} == {".py", ".js", ".html"}


PYTHON = '''
"""A docstring with words."""
import re
NAMES = "one two three".split()
PATTERN = re.compile("words and spaces")
TEXTS = {"a key with words": "a value", 7: "b"}
def fail(path, error, parser):
    """Another docstring."""
    if str(error) == "not shown to anybody" or path.startswith("words and"):
        parser.add_argument("--out", metavar="DIR", help="folder", default="run")
    raise ValueError(
        f"{path!r} has {len(path):,} characters, "
        "at most " + str(9) + ": " + ("cut it" if path else "give")
    ) from None
'''


def test_python_texts_are_found_in_order() -> None:
    assert [message.text for message in python_messages(PYTHON)] == [
        "a key with words",
        "a value",
        "DIR",
        "folder",
        "{path!r} has {len(path):,} characters, at most {str(9)}: {'cut it' if path else 'give'}",
        "cut it",
    ]


SCRIPT = r"""
// a comment with words
const names = { class: "many small names", "aria-label": "The text",
  title: `Run ${n > 1 ? "in two" : "x"}` };
if (a === "not shown") make("p", { id: "Some id" }, "sample", " of " + count.text(1) + " in all");
box.className = "row of many"; place.textContent = /"no text" here/.test(a) ? "yes" : "Not now";
document.querySelector("main > p a"); say(a / b, "gone");
"""


def test_scripts_texts_are_found() -> None:
    assert [message.text for message in script_messages(SCRIPT)] == [
        "The text",
        "in two",
        'Run ${n > 1 ? "in two" : "x"}',
        "sample",
        " of ${count.text(1)} in all",
        "Not now",
        "gone",
    ]


def test_pages_texts_are_found() -> None:
    page = '<title>A page</title><script>var x = "a b"</script><p title="More">Some\n text</p>'
    assert [message.text for message in page_messages(page)] == ["A page", "More", "Some text"]


def test_snapshot_does_not_depend_on_lines() -> None:
    moved = PYTHON.replace("def fail", "\n\n\ndef fail")
    assert [m.text for m in python_messages(moved)] == [m.text for m in python_messages(PYTHON)]

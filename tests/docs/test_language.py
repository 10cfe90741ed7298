"""The project's English follows its rules: docs, docstrings, comments and messages.

`PYTHONPATH=src:tests python -m helpers.language [PATHS…]` prints the same for some files alone.
"""

from pathlib import Path

import pytest

from helpers.language import (
    COMMENT,
    DOCS,
    DOCSTRING,
    LONGEST_SENTENCE,
    MESSAGE,
    ROOT,
    RULES,
    TOLERANCE,
    Block,
    all_files,
    check_block,
    check_file,
    check_honesty,
    markdown_blocks,
    python_blocks,
)

FILES = [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in all_files()]


@pytest.mark.parametrize("path", FILES)
def test_prose_follows_the_rules(path: Path) -> None:
    hits = [str(hit._replace(path=path.relative_to(ROOT))) for hit in check_file(path)]
    assert not hits, "\n" + "\n".join(hits)


def test_honest_is_said_at_most_once() -> None:
    hits = [
        str(hit._replace(path=hit.path.relative_to(ROOT))) for hit in check_honesty(all_files())
    ]
    assert not hits, "\n" + "\n".join(hits)


def test_every_place_is_read() -> None:
    suffixes = {path.suffix for path in all_files()}
    assert suffixes >= {".md", ".py", ".js", ".html", ".ipynb"}
    names = {path.relative_to(ROOT).parts[0] for path in all_files()}
    assert names == {"README.md", "CHANGELOG.md", "docs", "src", "benchmarks", "examples"}


def rules_hit(text: str, place: str, definition: str = "") -> set[str]:
    block = Block(place, ((1, text),), definition)
    return {hit.rule for hit in check_block(Path("file"), block)}


AVOIDED = [
    (MESSAGE, "{path} cannot be gone on from ({what}): start again with another --out", "goes-on"),
    (MESSAGE, "its counts are none", "is-no"),
    (MESSAGE, "its {f.name} is no number", "is-no"),
    (COMMENT, "so that a text that is not to be had is told before anything is drawn", "told"),
    (COMMENT, "so that a text that is not to be had is reported first", "to-be-had"),
    (MESSAGE, "from here on it learns from four fifths of it", "learned-from"),
    (MESSAGE, "the rest is held against it", "held-against"),
    (MESSAGE, "in 95 of 100 such texts between {low} and {high} nats", "in-95-of-100"),
    (MESSAGE, "the longest stretch that stands in the training text", "stands-in"),
    (MESSAGE, "Counting wins here: {names} predict this better", "counts"),
    (MESSAGE, "as many requests wait as may wait: try again soon", "as-they-may"),
    (MESSAGE, "The path knows no such method.", "knows-no"),
    (MESSAGE, "a page of {origin} may not ask this server", "may"),
    (MESSAGE, "a page of {origin} may not ask this server", "asks"),
    (MESSAGE, "this is not HTTP as it should be", "as-it-should"),
    (MESSAGE, "The body is not said to be JSON.", "says"),
    (MESSAGE, "The server wants a key, and got another or none.", "wants"),
    (MESSAGE, "The server wants a key, and got another or none.", "none"),
    (MESSAGE, "since then nothing came: --resume goes on", "goes-on"),
    (MESSAGE, "all options are given that could be: leave out one of them", "leave-out"),
    (MESSAGE, "--top is {top}: give 1 or more", "give"),
    (MESSAGE, "{skipped} unknown characters were passed over", "passed-over"),
    (MESSAGE, "end after that many updates", "so-many"),
    (COMMENT, "Takes at most so many rows.", "so-many"),
    (COMMENT, "the name that whoever calls it chose", "whoever"),
    (DOCS, "The figures of the test part are printed.", "figures"),
    (DOCS, "The figures of the test part are printed.", "part"),
    (DOCS, "A model that has its text by heart recites it.", "by-heart"),
    (DOCSTRING, "Fill the buffers that the way back needs.", "way-back"),
    (DOCSTRING, "Return what came in the place of the prompt.", "what-clause"),
    (DOCSTRING, "Return those that are there.", "those-that"),
    (DOCSTRING, "Return the runs that are there.", "is-there"),
    (DOCSTRING, "See what a model makes of a text.", "makes-of"),
]
WRITTEN = [
    (DOCSTRING, "A training run on disk: folder layout, locking, output files and resuming."),
    (DOCSTRING, "Compile the inference kernels up front, so that it is not counted as training."),
    (DOCSTRING, "Invalidate copies of the parameters. Required before inference."),
    (DOCSTRING, "Count how many rows there are; how many of them fit is computed once."),
    (DOCSTRING, "V: characters in the vocabulary; H: hidden units; B: rows of a batch."),
    (
        COMMENT,
        "Build the index now, so a missing training text is reported before sampling starts.",
    ),
    (MESSAGE, "cannot resume from {path}: {what}. Start a new run with a different --out."),
    (MESSAGE, "95% confidence interval: {low} to {high} nats"),
    (MESSAGE, "longest verbatim overlap with the training text: {n} characters"),
    (MESSAGE, "The n-gram model and xz beat this model here."),
    (MESSAGE, "the request queue is full; retry later"),
    (MESSAGE, "method {method} is not allowed for {path}"),
    (MESSAGE, "request not received within {seconds} seconds"),
    (MESSAGE, "Hugging Face Hub request for {name} failed: {reason}"),
    (MESSAGE, "no update since; the run may have been killed (continue with --resume)"),
    (MESSAGE, "nothing to search: every searchable option is fixed. Omit at least one of {names}"),
    (MESSAGE, "show what is in a checkpoint"),
    (DOCS, "Each window is scored, then trained on; the n-gram counts keep updating."),
    (DOCS, "The option `is told what there is` is code, and {x}: y is [a link](is-to-be.md)."),
]


@pytest.mark.parametrize(("place", "text", "rule"), AVOIDED)
def test_a_phrase_to_avoid_is_found(place: str, text: str, rule: str) -> None:
    assert rule in rules_hit(text, place)


@pytest.mark.parametrize(("place", "text"), WRITTEN)
def test_idiomatic_english_passes(place: str, text: str) -> None:
    assert rules_hit(text, place, "class") == set()


def test_suggestions_are_none_of_the_phrases_to_avoid() -> None:
    for rule in RULES:
        assert rule.name not in rules_hit(rule.suggestion, min(rule.places)), rule.name


@pytest.mark.parametrize(
    ("text", "definition", "rule"),
    [
        ("What a run holds.", "class", "docstring-opening"),
        ("Whether it ends.", "property", "docstring-opening"),
        ("The loss of a batch.", "function", "docstring-noun"),
        ("Returns the loss of a batch.", "function", "docstring-mood"),
    ],
)
def test_a_docstring_opens_with_a_verb_or_a_noun(text: str, definition: str, rule: str) -> None:
    assert rules_hit(text, DOCSTRING, definition) == {rule}


@pytest.mark.parametrize("text", ["Return the loss.", "Process a batch.", "Pass it on."])
def test_the_imperative_passes(text: str) -> None:
    assert rules_hit(text, DOCSTRING, "function") == set()


@pytest.mark.parametrize("place", [DOCS, DOCSTRING, COMMENT, MESSAGE])
def test_sentences_have_a_longest_length(place: str) -> None:
    longest = LONGEST_SENTENCE[place] + TOLERANCE
    assert rules_hit("One " + "word " * (longest - 2) + "more.", place) == set()
    assert rules_hit("One " + "word " * (longest - 1) + "more.", place) == {"long-sentence"}
    short = "One " + "word " * (longest - 2) + "more. "
    assert rules_hit(short * 3, place) == set()


def test_colons_and_semicolons_are_counted_in_each_sentence() -> None:
    assert rules_hit("One thing: another. Two things: others; more.", COMMENT) == set()
    assert rules_hit("One: two: three.", COMMENT) == {"colons"}
    assert rules_hit("One; two; three.", COMMENT) == {"semicolons"}
    assert rules_hit("At 10:30:00, as in a::b.", COMMENT) == set()


def test_markdown_is_read_without_code() -> None:
    page = (
        "# It is told\n\nIt is `told`, and\ntold again.\n\n```sh\nis told\n```\n\n"
        "| is told | $told$ |\n| --- | --- |\n\n- [told](told.md)\n"
    )
    hits = [hit for block in markdown_blocks(page) for hit in check_block(Path("page.md"), block)]
    assert [(hit.line, hit.rule) for hit in hits] == [(n, "told") for n in (1, 4, 10, 13)]


def test_python_is_read_with_docstrings_comments_and_messages() -> None:
    module = (
        '"""It is told.\n\nArgs:\n    name: what is told\n\n    code: is told\n"""\n'
        "# A long comment that is\n# told in two lines.\n"
        'x = "told"  # told here\n'
        "def f(told):\n    raise ValueError(f'{told} is told {told}')\n"
    )
    hits = [hit for block in python_blocks(module) for hit in check_block(Path("m.py"), block)]
    assert sorted(hit.line for hit in hits if hit.rule == "told") == [1, 4, 6, 9, 10, 12]

"""Check the project's English: a list of phrases to avoid, each with its replacement.

`python -m helpers.language [PATHS…]` prints `path:line: rule: text → suggestion` for every hit and
exits with status 1 if there is one. Without paths it reads everything that is checked: README.md,
CHANGELOG.md, `docs/`, `src/charloom/`, `benchmarks/` and `examples/`. `--count` prints the number
of hits of each file, `--rules` that of each rule; `--only RULE,…` checks some rules alone, and
`--list` prints the rules.

Prose is read from Markdown (without code, formulas and addresses), from docstrings and comments,
from notebooks' cells, and from the messages that `helpers.messages` collects. A span of code, a
formula or a value in braces counts as one word.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import signal
import sys
import tokenize
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from helpers.messages import Message, messages_of, python_messages, script_tokens

ROOT = Path(__file__).parents[2]
CHECKED = ("README.md", "CHANGELOG.md", "docs", "src/charloom", "benchmarks", "examples")
SUFFIXES = (".md", ".py", ".js", ".html", ".ipynb")

GENERATED = frozenset({"results", "__pycache__"})  # folders of files that are written by programs

DOCS, DOCSTRING, COMMENT, MESSAGE = "docs", "docstring", "comment", "message"
EVERYWHERE = frozenset({DOCS, DOCSTRING, COMMENT, MESSAGE})
CODE = EVERYWHERE - {DOCS}

LONGEST_SENTENCE = {DOCS: 30, DOCSTRING: 25, COMMENT: 25, MESSAGE: 25}
# Words that a sentence may have beyond that, because values and code in it are counted roughly.
TOLERANCE = 2


class Rule(NamedTuple):
    """A phrase to avoid: a regular expression in which a space matches any white space.

    unless: words that excuse the phrase where the same sentence has one of them.
    """

    name: str
    pattern: str
    suggestion: str
    places: frozenset[str] = EVERYWHERE
    unless: str = ""


RULES = (
    # Code does not speak, hear or want.
    Rule("told", r"(?:re)?told|tells?|telling", "report, print, show, notify, distinguish"),
    Rule(
        "says",
        r"(?:says?|said|saying)(?! \S*[“\"])",
        "state, print, report, return",
    ),
    Rule("asks", r"asks?|asked|asking", "request, query, call, require; “on demand”"),
    Rule("hears", r"hears?|heard|spoken? of|speaks? of", "receive, read, describe"),
    Rule("wants", r"wants", "require, need"),
    Rule("knows-no", r"knows? (?:no|of no|nothing)|knows of", "does not support, has no"),
    # The field's own words.
    Rule(
        "goes-on",
        r"(?:go|goes|going|gone|went) on(?! (?:the|a|an|this|that|its|one)\b)",
        "resume, continue",
    ),
    Rule("left-off", r"left off|tak(?:e|es|en|ing) up again|took up again", "stopped; resume"),
    Rule(
        "held-against",
        r"(?:held|holds?|holding)(?: \w+){0,2} against",
        "validated on, compared with",
    ),
    Rule("by-heart", r"by heart", "memorized"),
    Rule(
        "stands-in",
        r"(?:stands?|stood|standing) (?:(?!out\b)(?:\w+ )?(?:in|at|on|there|here|beside|above"
        r"|below|before|after|behind|under|over|between|side|where|by|next|first|last|alone|together)\b)",
        "is in, appears in, occurs in, overlaps, precedes, follows",
    ),
    Rule(
        "learned-from",
        r"learn(?:s|ed|t|ing)?(?: \w+){0,2} from(?! scratch)|(?:is|are|was|were|been) learned",
        "trained on, fitted to",
    ),
    Rule(
        "draws",
        r"draw(?:s|n|ing)?|drew",
        "sample (of text and masks), plot (of charts)",
        unless=r"pages?|charts?|ax[ei]s|curves?|canvas|browser|report|picture",
    ),
    Rule(
        "way-back",
        r"way (?:back|forth)|(?:backwards|forwards) (?:through|in) time",
        "backward pass, forward pass",
    ),
    Rule("part", r"(?:training|validation|test|held-out) parts?", "split"),
    Rule(
        "counts",
        r"(?:the|its|has|have|with|without|no|and) counts(?! (?:of|as|for)\b)|counts of n-grams"
        r"|counting wins",
        "n-gram model",
        frozenset({DOCS, MESSAGE}),
    ),
    Rule(
        "given",
        r"options? given|given options?|(?:is|are) given|was given|not given|as given",
        "set, passed, specified; options",
    ),
    Rule("figures", r"figures?", "metrics, results, numbers, measurements"),
    Rule(
        "passed-over",
        r"pass(?:ed|es|ing)? over(?! the (?:text|data|part|split|training))",
        "skipped",
    ),
    Rule(
        "makes-of",
        r"(?:makes?|made|making) of(?= (?:a|an|the|it|its|them|\w+s)\b)",
        "predicts, returns",
    ),
    Rule("in-95-of-100", r"in \d+ of 100", "95% confidence interval"),
    Rule(
        "fractions",
        r"(?:two|three|four|five|nine) (?:fifths?|tenths?|quarters?|hundredths?)",
        "a percentage: 80%",
    ),
    # "must", "should", "can".
    Rule(
        "is-to-be",
        r"(?:is|are|was|were|be|has|have|had) (?:not |never |only )?to be(?! continued)",
        "must be, should be, can be; is available",
    ),
    Rule("to-be-had", r"to be had", "available"),
    Rule(
        "may",
        r"may(?! (?:also )?(?:have (?:been|\w+(?:ed|en|wn|ne|d|t))|be)\b)|may be (?:given|set|used)"
        r"|may not",
        "can, must, must not, might",
    ),
    # "not a", "invalid", "missing", "unknown".
    Rule(
        "is-no",
        r"(?<!there )(?:is|are|was|were|be|being) (?:no|none)"
        r"(?! (?:longer|more|other|better|worse|less|larger|greater|of)\b)",
        "is not a, is invalid, is missing",
    ),
    Rule(
        "none",
        r"(?:or|and|has|have|with|there (?:is|are|was|were)) none(?! of)",
        "missing, not set, without",
    ),
    Rule("no-such", r"no such(?! file or directory)", "unknown, missing, not found"),
    # A clause needs a noun.
    Rule(
        "what-clause",
        r"what (?!it (?:is|does)\b|(?:is|was) wrong\b|makes\b)"
        r"(?:there|here|it|they|he|one|nobody|nothing|somebody|goes|went|came|comes|has|had"
        r"|was|were|can|could|may|must|would|should|will|no|only|else"
        r"|(?!(?:this|is|does|its|was|has|parameters|settings|options|models)\b)[a-z]{3,}(?:[^s\W]s|ed)"
        r"|is (?:there|here|to|left|no|not|none|given|drawn|known|told|read|found|held|kept|said"
        r"|asked|meant|shown|written|done|new|before|after|behind|copied|\w+ed))",
        "name the noun: “the text that …”, “the result of …”",
    ),
    Rule(
        "those-that",
        r"(?:those|all|that) (?:that|which|who|whom|whose|there)(?= \w+)"
        r"(?<!all there)(?<!that there)",
        "name the noun: “the runs that …”",
    ),
    Rule("whoever", r"who(?:so)?ever|nobody|somebody|anybody", "name the noun: “a caller that …”"),
    Rule(
        "is-there",
        r"(?:is|are|was|were|be) there(?! (?:a|an|any|no|to|for|is|are)\b)",
        "exists, is present, has arrived",
    ),
    Rule(
        "so-many",
        r"so (?:many|much|few)(?! (?:that|as|for))|that (?:many|much)",
        "n, N rows, this number of",
    ),
    Rule(
        "as-it-should",
        r"as (?:it|they|one) (?:should|ought|is meant|are meant|is to)|as asked",
        "valid, well-formed, as specified",
    ),
    Rule("at-hand", r"at hand", "available"),
    Rule(
        "as-they-may",
        r"as (?:many|much|long|often|few)\b[^.;:]{0,30} as"
        r" (?:may|it likes|they like|it may|they may)",
        "at most N; the limit",
    ),
    # Errors: `problem: remedy.`
    Rule(
        "give",
        r"(?<=: )give|give (?:a|an|another|the|one|it|less|more|less|fewer|all|--)",
        "pass, use, set",
        frozenset({MESSAGE}),
    ),
    Rule("leave-out", r"leave (?:\S+ )?out|left out", "omit, remove, drop"),
)

OPENING = re.compile(r"(?:What|How|Where|Whether|Which|Who|Whom|Whose|When|Why)(?:ever)?\b")
NOUN_OPENING = re.compile(r"(?:An?|The|Its?|This|That|Those|These|Each|Every|All|One|No|Of)\b")
THIRD_PERSON = re.compile(r"(?!(?:This|Its|Always|As|Thus|Perhaps|Plus)\b)[A-Z][a-z]*[^sui\W]s\b")
HONEST = re.compile(r"\bhonest(?:ly|y)?\b", re.I)
STRUCTURAL = {
    "docstring-opening": "a verb phrase (Return …), for a class or module a noun phrase",
    "docstring-noun": "open a function's docstring with a verb: Return …, Read …",
    "docstring-mood": "the imperative: Return …, not Returns …",
    "long-sentence": "split the sentence",
    "colons": "one colon a sentence",
    "semicolons": "at most one semicolon a sentence: split it, or make a list",
    "honest": "once in README.md and docs/ together: drop it",
}


class Hit(NamedTuple):
    path: Path
    line: int
    rule: str
    text: str
    suggestion: str

    def __str__(self) -> str:
        return f"{self.path.as_posix()}:{self.line}: {self.rule}: {self.text} → {self.suggestion}"


@dataclass(frozen=True)
class Block:
    """A paragraph of prose: its lines, by number, and where they come from.

    definition: what a docstring describes ("function", "class", "module", …), on its first
    paragraph alone.
    """

    place: str
    lines: tuple[tuple[int, str], ...]
    definition: str = ""


# Reading prose


def markdown_blocks(text: str, first: int = 1, place: str = DOCS) -> Iterator[Block]:
    """Return the paragraphs, list items, headings and table cells of a Markdown text."""
    lines: list[tuple[int, str]] = []
    fence = comment = ""

    def ended() -> Iterator[Block]:
        if lines:
            yield Block(place, tuple(lines))
        lines.clear()

    for number, line in enumerate(text.splitlines(), first):
        stripped = line.strip()
        mark = re.match(r"(```+|~~~+|\$\$)", stripped)
        if fence:
            if stripped.endswith(fence) or stripped.startswith(fence):
                fence = ""
            continue
        if comment or stripped.startswith("<!--"):
            comment = "" if "-->" in stripped else "open"
            continue
        if mark and not (mark[1] == "$$" and stripped.count("$$") == 2):
            yield from ended()
            fence = mark[1]
        elif not stripped or re.fullmatch(r"[-=*_]{3,}|\[[^\]]+\]:.*|:::.*|!!!.*|---.*", stripped):
            yield from ended()
        elif stripped.startswith("|"):
            yield from ended()
            for cell in re.split(r"(?<!\\)\|", stripped):
                if re.search(r"[A-Za-z]", cell):
                    yield Block(place, ((number, cell.strip()),))
        elif re.match(r"#+ ", stripped):
            yield from ended()
            yield Block(place, ((number, stripped.lstrip("# ")),))
        elif not lines and re.match(r"(?: {4}|\t)", line):
            continue  # a block of code
        else:
            item = re.match(r"(?:[-*+]|\d+\.)\s+(.*)|>\s?(.*)", stripped)
            if item and not stripped.startswith(">"):
                yield from ended()
            lines.append((number, (item[1] or item[2] or "") if item else stripped))
    yield from ended()


SECTIONS = re.compile(r"(?:Args|Arguments|Attributes|Returns|Raises|Yields|Examples?|Notes?):")


def docstring_blocks(text: str, first: int, definition: str) -> Iterator[Block]:
    """Return the paragraphs of a docstring, and the entries of its Google sections."""
    lines: list[tuple[int, str]] = []
    raw = text.expandtabs().splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in raw[1:] if line.strip()), default=0)
    in_section, started, code = False, False, False

    def ended() -> Iterator[Block]:
        nonlocal started
        if lines:
            yield Block(DOCSTRING, tuple(lines), "" if started else definition)
            started = True
        lines.clear()

    for i, line in enumerate(raw):
        stripped = line.strip()
        indent = len(line) - len(line.lstrip()) - (margin if i else 0)
        if code and (not stripped or indent > 0):
            continue
        code = False
        if not stripped:
            yield from ended()
        elif SECTIONS.fullmatch(stripped):
            yield from ended()
            in_section = True
        elif stripped.startswith(">>>") or (indent >= 4 and not in_section and not lines):
            yield from ended()
            code = not stripped.startswith(">>>")
        else:
            in_section = in_section and indent > 0
            entry = re.match(r"\*{0,2}\w+(?: \([^)]*\))?: (.*)", stripped)
            if in_section and indent <= 4 and entry:
                yield from ended()
                stripped = entry[1]
            item = re.match(r"(?:[-*]|\d+\.)\s+(.*)", stripped)
            if item:
                yield from ended()
                stripped = item[1]
            lines.append((first + i, stripped))
    yield from ended()


def python_blocks(source: str) -> Iterator[Block]:
    """Return the prose of a Python module: docstrings, comments and messages."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = node.body[0] if node.body else None
        if (
            isinstance(body, ast.Expr)
            and isinstance(body.value, ast.Constant)
            and isinstance(body.value.value, str)
        ):
            yield from docstring_blocks(body.value.value, body.value.lineno, definition_of(node))
    yield from _comments(source)
    yield from message_blocks(python_messages(source))


def definition_of(node: ast.AST) -> str:
    """Return "function", "class", "module" or "property" for what a docstring describes."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        decorators = " ".join(ast.unparse(each) for each in node.decorator_list)
        if re.search(r"property|\.setter|fixture", decorators) or node.name.startswith("test_"):
            return "property"
        return "function"
    return "class" if isinstance(node, ast.ClassDef) else "module"


def _comments(source: str) -> Iterator[Block]:
    """Return comments; those on lines of their own that follow one another as one block."""
    block: list[tuple[int, str]] = []
    last, column = -1, -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        row, start = token.start
        text = token.string.lstrip("#:! ").strip()
        if re.match(r"(?:type:|noqa|pragma|fmt:|ruff|mypy|/usr/bin)", text):
            continue
        own_line = not token.line[:start].strip()
        if not (own_line and row == last + 1 and start == column and text) and block:
            yield Block(COMMENT, tuple(block))
            block = []
        if text:
            block.append((row, re.sub(r"\s{2,}#? ?(?:type:|noqa).*", "", text)))
        last, column = (row, start) if own_line else (-1, -1)
    if block:
        yield Block(COMMENT, tuple(block))


def script_blocks(source: str, messages: Iterable[Message]) -> Iterator[Block]:
    """Return the comments of a script, and its messages."""
    last, code = -1, -1
    block: list[tuple[int, str]] = []
    for token in script_tokens(source):
        if token.kind != "comment":
            code = token.line + token.value.count("\n")
            continue
        lines = [
            (token.line + i, re.sub(r"^\s*/?\*+/?|^\s*//|\*/$", "", line).strip())
            for i, line in enumerate(token.value.splitlines())
        ]
        own_line = token.line != code
        if not (own_line and token.line == last + 1) and block:
            yield Block(COMMENT, tuple(block))
            block = []
        block += [(number, line) for number, line in lines if line]
        last = lines[-1][0] if own_line else -1
    if block:
        yield Block(COMMENT, tuple(block))
    yield from message_blocks(messages)


def message_blocks(messages: Iterable[Message]) -> Iterator[Block]:
    for message in messages:
        for line in message.text.split("\n"):
            if line.strip():
                yield Block(MESSAGE, ((message.line, line.strip()),))


def notebook_blocks(source: str) -> Iterator[Block]:
    """Return the prose of a notebook's cells; line numbers are those of the cell."""
    for cell in json.loads(source)["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield from markdown_blocks(text)
        elif not text.lstrip().startswith(("%", "!")):
            yield from python_blocks(text)


def blocks_of(path: Path) -> Iterator[Block]:
    """Return the prose of a file."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield from markdown_blocks(source)
    elif path.suffix == ".py":
        yield from python_blocks(source)
    elif path.suffix == ".ipynb":
        yield from notebook_blocks(source)
    elif path.suffix == ".js":
        yield from script_blocks(source, messages_of(path))
    else:
        yield from message_blocks(messages_of(path))


# Checking it


def compiled(rule: Rule) -> re.Pattern[str]:
    """Return a rule's pattern for whole words. A look-behind has one width: its spaces stay."""
    parts = re.split(r"(\(\?<[!=][^)]*\))", rule.pattern)
    pattern = "".join(p if p.startswith("(?<") else p.replace(" ", r"\s+") for p in parts)
    return re.compile(rf"(?<![\w-])(?:{pattern})(?![\w-])", re.I)


COMPILED = [(rule, compiled(rule)) for rule in RULES]
CASE_SENSITIVE = {"none": "None", "is-no": "None"}
# Spans that are not prose: each becomes one word of the same length.
CODE_SPAN = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
FORMULA = re.compile(r"(?<![\\$\w])\$(?!\s)[^$`]+?(?<!\s)\$(?![\w$])")
VALUE = re.compile(r"\$?\{[^{}]*\}")
ADDRESS = re.compile(r"(?:https?://|www\.)[^\s)>\]]+")
LINK = re.compile(r"!?\[([^\]]*)\](\([^)]*\)|\[[^\]]*\])")
TAG = re.compile(r"</?[a-z][^<>]*>")
SENTENCE_END = re.compile(
    r"""(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bvs\.)(?<!\betc\.)(?<!\bcf\.)
        (?<=[.!?…])["'”’)\]*]*\s+(?=[^a-z,;:)])""",
    re.X,
)
CODE_MARK = "ⓒ"
# "V: characters in the vocabulary; H: hidden units": each entry counts as a sentence.
LEGEND = re.compile(rf"(?<![\w.])(?:[A-Za-zα-ωΑ-Ω][\w'₀-₉]?|{CODE_MARK}+):\s")


def masked(text: str, place: str) -> str:
    """Replace code, formulas and addresses with characters that keep every offset."""

    def one_word(match: re.Match[str]) -> str:
        return CODE_MARK * len(match[0])

    def blank(match: re.Match[str]) -> str:
        return " " * len(match[0])

    text = CODE_SPAN.sub(one_word, text)
    if place == MESSAGE:
        text = VALUE.sub(one_word, text)
    if place == DOCS:
        text = FORMULA.sub(one_word, text)
        text = LINK.sub(lambda m: m[0].replace(m[2], " " * len(m[2])), text)
        text = re.sub(r"[*]", " ", text)
    text = ADDRESS.sub(one_word, text)
    return TAG.sub(blank, text)


def sentences_of(text: str) -> Iterator[tuple[int, str]]:
    """Return each sentence, and each entry of a legend of symbols, with its offset."""
    begin = 0
    ends = [*SENTENCE_END.finditer(text), *re.finditer(rf";\s+(?={LEGEND.pattern})", text)]
    for match in sorted(ends, key=re.Match.start):
        yield begin, text[begin : match.end()]
        begin = match.end()
    yield begin, text[begin:]


def without_introduction(sentence: str, place: str) -> str:
    """Drop a message's path or option, or a legend's symbol: their colon is not counted."""
    if place == MESSAGE:
        return re.sub(rf"^\s*(?:--[\w-]+|{CODE_MARK}+(?: \([^)]*\))?):\s", "", sentence)
    return LEGEND.sub("", sentence)


def count_words(sentence: str) -> int:
    """Count the words that have a letter, and spans of code."""
    return sum(bool(re.search(rf"[^\W\d_]|{CODE_MARK}", word)) for word in sentence.split())


class Joined:
    """A block as one line, which knows the line that each of its characters came from."""

    def __init__(self, block: Block) -> None:
        self.text = ""
        self._starts: list[tuple[int, int]] = []
        for number, line in block.lines:
            self.text += " " if self.text else ""
            self._starts.append((len(self.text), number))
            self.text += line

    def line(self, offset: int) -> int:
        return next(number for start, number in reversed(self._starts) if start <= offset)

    def around(self, begin: int, end: int, most: int = 30) -> str:
        """Return a span with a few words on either side."""
        left, right = max(0, begin - most), min(len(self.text), end + most)
        while 0 < left < begin and not self.text[left - 1].isspace():
            left += 1
        while end < right < len(self.text) and not self.text[right].isspace():
            right -= 1
        return (
            ("… " if left else "")
            + self.text[left:right].strip()
            + (" …" if right < len(self.text) else "")
        )


def check_block(path: Path, block: Block) -> Iterator[Hit]:
    """Return the hits of a paragraph."""
    joined = Joined(block)
    text = masked(joined.text, block.place)
    sentences = list(sentences_of(text))
    yield from _check_opening(path, block, text)
    for rule, pattern in COMPILED:
        if block.place not in rule.places:
            continue
        for match in pattern.finditer(text):
            around = next(each for begin, each in reversed(sentences) if begin <= match.start())
            if rule.unless and re.search(rf"\b(?:{rule.unless})\b", around, re.I):
                continue
            if CASE_SENSITIVE.get(rule.name, "\0") in match[0]:
                continue  # Python's None
            found = joined.around(match.start(), match.end())
            yield Hit(path, joined.line(match.start()), rule.name, found, rule.suggestion)
    longest = LONGEST_SENTENCE[block.place]
    for offset, sentence in sentences:
        words, rest = count_words(sentence), without_introduction(sentence, block.place)
        begin = offset + len(sentence) - len(sentence.lstrip())
        faults = {
            "long-sentence": f"{words} words" if words > longest + TOLERANCE else "",
            "colons": "two colons" if len(re.findall(r":(?=\s)", rest.strip())) > 1 else "",
            "semicolons": "" if len(re.findall(r";(?=\s)", rest.strip())) <= 1 else "semicolons",
        }
        for name, why in faults.items():
            if why:
                start = joined.text[begin : begin + 50]
                yield Hit(path, joined.line(begin), name, f"{why}: {start}…", STRUCTURAL[name])


def _check_opening(path: Path, block: Block, text: str) -> Iterator[Hit]:
    opening = {"docstring-opening": OPENING} if block.definition else {}
    if block.definition == "function":
        opening |= {"docstring-noun": NOUN_OPENING, "docstring-mood": THIRD_PERSON}
    for name, pattern in opening.items():
        if pattern.match(text):
            start = block.lines[0][1][:50]
            yield Hit(path, block.lines[0][0], name, f"{start}…", STRUCTURAL[name])


def check_file(path: Path, read: Callable[[Path], Iterable[Block]] = blocks_of) -> list[Hit]:
    """Return the hits of a file, by line."""
    found = {hit for block in read(path) for hit in check_block(path, block)}
    return sorted(found, key=lambda hit: (hit.line, hit.rule, hit.text))


def check_honesty(paths: Iterable[Path]) -> list[Hit]:
    """Return the uses of "honest" in README.md and docs/ beyond the first one."""
    found = []
    for path in paths:
        if path.suffix == ".md" and path.name != "CHANGELOG.md":
            for block in markdown_blocks(path.read_text(encoding="utf-8")):
                joined = Joined(block)
                for match in HONEST.finditer(masked(joined.text, DOCS)):
                    around = joined.around(match.start(), match.end())
                    line = joined.line(match.start())
                    found.append(Hit(path, line, "honest", around, STRUCTURAL["honest"]))
    return found[1:]


def checked_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files that are checked: those of folders by their suffixes, sorted."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [p for p in path.rglob("*") if p.suffix in SUFFIXES]
            found += sorted(p for p in inside if not GENERATED & {*p.parts})
        else:
            found.append(path)
    return found


def all_files() -> list[Path]:
    """Return every file of the project that is checked."""
    return checked_files(ROOT / name for name in CHECKED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: see the module."""
    parser = argparse.ArgumentParser(description="Check the project's English.")
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH")
    parser.add_argument("--count", action="store_true", help="print the number of hits of files")
    parser.add_argument("--rules", action="store_true", help="print the number of hits of rules")
    parser.add_argument("--only", metavar="RULE,…", help="check these rules alone")
    parser.add_argument("--list", action="store_true", help="print the rules")
    options = parser.parse_args(arguments)
    if options.list:
        for rule in RULES:
            print(f"{rule.name:<18} → {rule.suggestion}\n{'':<18}   {rule.pattern}")
        for name, suggestion in STRUCTURAL.items():
            print(f"{name:<18} → {suggestion}")
        return 0
    paths = checked_files(options.paths) if options.paths else all_files()
    missing = [path for path in paths if not path.is_file()]
    if missing:
        parser.error(f"{missing[0]} is not a file or folder")
    shown = {path: shortest(path) for path in paths}
    hits = [hit._replace(path=shown[path]) for path in paths for hit in check_file(path)]
    hits += [hit._replace(path=shown[hit.path]) for hit in check_honesty(paths)]
    if options.only:
        hits = [hit for hit in hits if hit.rule in options.only.split(",")]
    if options.count or options.rules:
        for name, count in Counter(
            hit.rule if options.rules else hit.path.as_posix() for hit in hits
        ).most_common():
            print(f"{count:>6}  {name}")
        print(f"{len(hits):>6}  in all")
    else:
        for hit in hits:
            print(hit)
    return 1 if hits else 0


def shortest(path: Path) -> Path:
    """Return a path relative to the working directory where it is inside it."""
    resolved, here = path.resolve(), Path.cwd()
    return resolved.relative_to(here) if resolved.is_relative_to(here) else path


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when a pager is closed
    sys.exit(main())

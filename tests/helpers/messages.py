"""Collect every string of the package that a user can see, by reading its source.

`python -m helpers.messages` prints the snapshot of all messages; `--write` rewrites the file that
`tests/contracts/test_messages.py` compares it with. With paths, it prints the messages of those
files, each with its line.

A string counts as visible where its context shows it: a raised exception, a printed line, a help
text, a child of a page's element. Any other string counts if it has at least two words. Docstrings,
regular expressions, protocol texts (`EXCLUDED`) and the operands of comparisons do not count.
"""

from __future__ import annotations

import ast
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SOURCE = Path("src/charloom")
SNAPSHOT = Path("tests/contracts/messages.txt")
SUFFIXES = (".py", ".js", ".html")


class Message(NamedTuple):
    line: int
    text: str


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Calls whose arguments a user sees, by the last part of the called name.
SHOWING = re.compile(
    r"""_*(?:
        \w*say | \w*print | \w*(?:Error|Exception|Warning) | error | fail\w* | refuse\w* | warn
      | option | Command | Meta | add_task | add_parser | add_argument_group | set_description
      | print_help | heading | exit
    )""",
    re.X,
)
# Keywords whose values a user sees, whatever is called.
SHOWN_KEYWORDS = words(
    "help help_text description epilog metavar summary title label message text reason note"
)
# Keywords of calls that show something, whose values are not shown.
HIDDEN_KEYWORDS = words(
    "end sep file encoding code param type choices action dest default style headers"
)
# Calls whose arguments a user does not see.
HIDING = re.compile(
    r"""(?:
        cast | TypeVar | NewType | namedtuple | getLogger | debug | filterwarnings | execute
      | startswith | endswith | removeprefix | removesuffix | partition | rpartition
      | split | rsplit | strip | lstrip | rstrip | find | rfind | getattr | hasattr | setattr
      | import_module | find_spec | add_argument_names | set_metadata
    )""",
    re.X,
)
REGULAR_EXPRESSIONS = words("compile match fullmatch search sub subn findall finditer split")
# Texts for machines, though they have words and spaces.
EXCLUDED = re.compile(
    r"""
        \bllvm\. | \bi(?:8|32|64)\b | <\d+\ x\ | getelementptr          # LLVM's language
      | -src\ ' | ;\ charset= | ^HTTP/1 | ^attachment; | ^(?:text|application)/  # HTTP
      | ^\#\s(?:TYPE|HELP)\s                                          # Prometheus
      | ^(?:SELECT|PRAGMA|INSERT|UPDATE|DELETE|CREATE)\s              # SQL
      | \(\?[:=!<P] | \\[wsdbn]\b | \[\^                                 # regular expressions
      | ^(?:from|import)\ \w+(?:\.\w+)*(?:\ import\ .*)?$               # Python
    """,
    re.X,
)
WORD = re.compile(r"(?<![\w.$#@/<-])[A-Za-z][A-Za-z'’]*(?:-[A-Za-z]+)*(?![\w/=(>])")
BRACES = str.maketrans("{}", "‹›")  # of expressions that are written in braces
PLACEHOLDER = re.compile(r"\$?\{[^{}]*\}")


def has_words(text: str) -> bool:
    """Return whether a text reads as words: two of them, or one beside a value."""
    if EXCLUDED.search(text):
        return False
    plain = PLACEHOLDER.sub("\0", text)
    found = WORD.findall(plain.replace("\0", " "))
    if not re.search(r"[^\S\n]", plain.strip()) and not re.search(r"\0 | \0", plain):
        return False
    return len(found) >= 2 or (len(found) == 1 and len(found[0]) > 1 and "\0" in plain)


def has_letters(text: str) -> bool:
    """Return whether a text shows anything besides values and punctuation."""
    return re.search(r"[^\W\d_]", PLACEHOLDER.sub("", text)) is not None and not EXCLUDED.search(
        text
    )


# Python


def called_name(call: ast.Call) -> str:
    """Return the last part of the called name, or "" if it has none."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


class PythonMessages(ast.NodeVisitor):
    """The messages of one Python module, in order of appearance."""

    def __init__(self) -> None:
        self.found: list[Message] = []
        self._shown = False

    # Context

    def _visit_as(self, shown: bool, *nodes: ast.AST | None) -> None:
        before, self._shown = self._shown, shown
        for node in nodes:
            if node is not None:
                self.visit(node)
        self._shown = before

    def visit_Raise(self, node: ast.Raise) -> None:
        self._visit_as(True, node.exc)
        self._visit_as(False, node.cause)

    def visit_Call(self, node: ast.Call) -> None:
        name = called_name(node)
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        is_re = isinstance(owner, ast.Name) and owner.id in ("re", "ast", "struct", "time")
        hides = HIDING.fullmatch(name) or (is_re and name in REGULAR_EXPRESSIONS | {"strftime"})
        if name == "split" and isinstance(owner, ast.Constant):
            return  # a list of names
        self._visit_as(False, owner)
        shows = bool(SHOWING.fullmatch(name))
        for place, argument in enumerate(node.args):
            if not (hides and is_literal(argument)):
                self._visit_as(shows and not (name == "option" and place == 0), argument)
        for keyword in node.keywords:
            if hides and is_literal(keyword.value):
                continue
            hidden = keyword.arg in HIDDEN_KEYWORDS
            self._visit_as(not hidden and (shows or keyword.arg in SHOWN_KEYWORDS), keyword.value)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        self._visit_as(False, *(each for each in operands if not is_literal(each)))

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._visit_as(False, node.value, None if is_literal(node.slice) else node.slice)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._visit_as(self._shown, node.body)
        self._visit_as(False, node.test)
        self._visit_as(self._shown, node.orelse)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            self._visit_as(self._shown, key, value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # else a docstring
            self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._visit_annotation(node.annotation)
        self._visit_as(False, node.value)

    def visit_arg(self, node: ast.arg) -> None:
        if node.annotation is not None:
            self._visit_annotation(node.annotation)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = node.args
        self._visit_as(False, *node.decorator_list, arguments)
        self._visit_as(False, *node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_as(self._shown, node.body)

    def _visit_annotation(self, node: ast.expr) -> None:
        """Visit the metadata of Annotated[…] only: other strings are names of types."""
        for each in ast.walk(node):
            if isinstance(each, ast.Call):
                self.visit(each)

    # Strings

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self._keep(node, node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self._keep(node, text_of(node))
        self._visit_values(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.Add) and is_text(node):
            self._keep(node, text_of(node))
            self._visit_values(node)
        else:
            self.generic_visit(node)

    def _visit_values(self, node: ast.expr) -> None:
        """Visit the expressions in a text's braces: they can hold texts of their own."""
        if isinstance(node, ast.JoinedStr):
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    self._visit_as(False, part.value)
        elif isinstance(node, ast.BinOp) and is_text(node):
            self._visit_values(node.left)
            self._visit_values(node.right)
        elif not isinstance(node, ast.Constant):
            self._visit_as(False, node)

    def _keep(self, node: ast.expr, text: str) -> None:
        if has_words(text) or (self._shown and has_letters(text)):
            self.found.append(Message(node.lineno, text))


def is_literal(node: ast.AST) -> bool:
    """Return whether a node is a text, or a group of them, written out."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return all(is_literal(each) for each in node.elts)
    return isinstance(node, ast.Constant | ast.JoinedStr)


def is_text(node: ast.expr) -> bool:
    """Return whether an expression is a text, or a sum with one in it."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return is_text(node.left) or is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def text_of(node: ast.expr) -> str:
    """Return a text as a user sees it, its expressions in braces."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            in_braces(part) if isinstance(part, ast.FormattedValue) else text_of(part)
            for part in node.values
        )
    if isinstance(node, ast.BinOp) and is_text(node):
        return text_of(node.left) + text_of(node.right)
    return "{" + written(node) + "}"


def in_braces(value: ast.FormattedValue) -> str:
    conversion = "" if value.conversion == -1 else f"!{chr(value.conversion)}"
    spec = "" if value.format_spec is None else f":{text_of(value.format_spec)}"
    return "{" + written(value.value) + conversion + spec + "}"


def written(node: ast.expr) -> str:
    """Return an expression's source, the same for every version of Python."""
    return ast.unparse(node).replace('"', "'").translate(BRACES)


def python_messages(source: str) -> list[Message]:
    """Return the messages of a Python module."""
    visitor = PythonMessages()
    visitor.visit(ast.parse(source))
    return visitor.found


# JavaScript


class Token(NamedTuple):
    kind: str  # comment, text, regex, name, number, sign
    value: str  # of a text: without its quotes, its values as ${…}
    line: int
    inner: tuple[str, ...] = ()  # sources of a template's values


TOKEN = re.compile(
    r"""
        (?P<space>\s+)
      | (?P<comment>//[^\n]*|/\*.*?\*/)
      | (?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<name>[A-Za-z_$][\w$]*)
      | (?P<number>\d[\w.]*)
      | (?P<template>`)
      | (?P<regex>/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/[a-z]*)
      | (?P<sign>=>|\?\?|\?\.|\.\.\.|.)
    """,
    re.X | re.S,
)
ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def script_tokens(source: str, line: int = 1) -> Iterator[Token]:
    """Split a script into tokens; tolerant, for scripts that are known to run."""
    place, before = 0, Token("sign", ";", 1)
    while place < len(source):
        match = TOKEN.match(source, place)
        assert match is not None
        kind = str(match.lastgroup)
        if kind == "regex" and (
            before.kind in ("number", "text")
            or (before.kind == "name" and before.value not in ("return", "typeof", "case"))
            or before.value in (")", "]", "}")
        ):
            kind, end = "sign", place + 1  # a division
        else:
            end = match.end()
        value = source[place:end]
        inner: tuple[str, ...] = ()
        if kind == "template":
            end, value, inner = _template(source, end)
            kind = "text"
        elif kind == "text":
            value = _unescaped(value[1:-1])
        if kind != "space":
            token = Token(kind, value, line, inner)
            yield token
            if kind != "comment":
                before = token
        line += source.count("\n", place, end)
        place = end


def _template(source: str, place: int) -> tuple[int, str, tuple[str, ...]]:
    """Read a template literal from behind its first quote."""
    value, inner = "", []
    while source[place] != "`":
        if source[place] == "\\":
            value += _unescaped(source[place : place + 2])
            place += 2
        elif source.startswith("${", place):
            end = _closing(source, place + 2)
            inner.append(source[place + 2 : end])
            value += "${" + " ".join(inner[-1].translate(BRACES).split()) + "}"
            place = end + 1
        else:
            value += source[place]
            place += 1
    return place + 1, value, tuple(inner)


def _closing(source: str, place: int) -> int:
    """Return the place of the brace that closes a template's value."""
    depth = 0
    while depth or source[place] != "}":
        if source[place] == "`":
            place = _template(source, place + 1)[0]
            continue
        depth += {"{": 1, "}": -1}.get(source[place], 0)
        place += 1
    return place


def _unescaped(text: str) -> str:
    return re.sub(r"\\([^ux])", lambda m: ESCAPES.get(m[1], m[1]), text)


SHOWN_PROPERTIES = frozenset(["aria-label", "placeholder", "title", "alt", "label", "textContent"])
HIDDEN_PROPERTIES = words(
    "class id type name role href for d transform style points method className autocomplete"
)
HIDING_FUNCTIONS = words(
    "querySelector querySelectorAll getElementById createElement createElementNS addEventListener"
    " add remove toggle contains includes indexOf matches closest getItem setItem get set"
    " getContext dispatchEvent startsWith endsWith"
)
SHOWING_FUNCTIONS = words(
    "say append prepend replaceChildren alert confirm fail announce Error select"
)
NOT_SHOWN = re.compile(
    r"""
        (?:Arrow(?:Up|Down|Left|Right)|Page(?:Up|Down)|Home|End|Enter|Escape|Shift|Tab|Delete
          |Backspace|Control|Alt|Meta|Insert)
      | Authorization | Bearer\s.* | Content-Type | Retry-After | GET | POST
      | \w*Error
      | use\ strict
    """,
    re.X,
)
SELECTOR = re.compile(r"^[.#:\[]|:(?:hover|focus|checked)|^\w+\[|^var\(|^[MLHVZ] ?\$?\{?")


@dataclass
class Frame:
    """An open bracket: its sign, the called function, the argument and the property in it."""

    sign: str
    called: str = ""
    argument: int = 0
    key: str = ""
    tokens: int = field(default=0)


def script_messages(source: str, line: int = 1) -> list[Message]:
    """Return the messages of a script: texts that reach the page."""
    tokens = [token for token in script_tokens(source, line) if token.kind != "comment"]
    found: list[Message] = []
    frames: list[Frame] = [Frame("")]
    skip_to = 0
    for i, token in enumerate(tokens):
        top = frames[-1]
        before = tokens[i - 1] if i else Token("sign", ";", 0)
        after = tokens[i + 1] if i + 1 < len(tokens) else Token("sign", ";", 0)
        if token.kind == "sign" and token.value in "([{":
            called = before.value if token.value == "(" and before.kind == "name" else ""
            frames.append(Frame(token.value, called))
        elif token.kind == "sign" and token.value in ")]}":
            if len(frames) > 1:
                frames.pop()
        elif token.value == "," and token.kind == "sign":
            top.argument += 1
            top.key = ""
        elif after.value == ":" and before.value in ("{", ",") and top.sign == "{":
            top.key = token.value
        elif token.kind == "text" and i >= skip_to:
            skip_to, text = _sum(tokens, i)
            for inner in token.inner:
                found += script_messages(inner, token.line)
            if _reaches_the_page(text, frames, tokens, i):
                found.append(Message(token.line, text))
    return found


def _sum(tokens: Sequence[Token], i: int) -> tuple[int, str]:
    """Join a text with its summands: return the index behind the sum, and the sum."""
    text = tokens[i].value
    i += 1
    while i + 1 < len(tokens) and tokens[i].value == "+" and tokens[i].kind == "sign":
        if tokens[i + 1].kind == "text":
            text += tokens[i + 1].value
            i += 2
            continue
        end, depth = i + 1, 0
        while end < len(tokens):  # a name, its members and calls
            value, kind = tokens[end].value, tokens[end].kind
            if kind == "sign" and value in "([":
                depth += 1
            elif kind == "sign" and value in ")]":
                if not depth:
                    break
                depth -= 1
            elif not depth and not (kind in ("name", "number") or value in (".", "?.")):
                break
            end += 1
        if any(t.kind == "text" for t in tokens[i + 1 : end]) or end == i + 1:
            break
        text += "${" + _joined(tokens[i + 1 : end]) + "}"
        i = end
    return i, text


def _joined(tokens: Sequence[Token]) -> str:
    """Write tokens without their spaces, but for those between two names."""
    return re.sub(r"(?<=\w) +(?=\W)|(?<=\W) +(?=\w)", "", " ".join(t.value for t in tokens))


def _reaches_the_page(text: str, frames: Sequence[Frame], tokens: Sequence[Token], i: int) -> bool:
    if NOT_SHOWN.fullmatch(text) or SELECTOR.search(text) or not has_letters(text):
        return False
    assigned = tokens[i - 2].value if i > 1 and tokens[i - 1].value in ("=", "+") else ""
    if assigned in HIDDEN_PROPERTIES or tokens[i - 1].value in ("===", "in"):
        return False
    for j in range(max(0, i - 2), i):  # a === "text" comes as three signs
        if tokens[j].value == "=" and tokens[j + 1].value == "=":
            return False
    shown = assigned == "textContent"
    for frame in reversed(frames):
        if frame.sign == "[" or (frame.sign == "(" and not frame.called):
            continue
        if frame.sign == "{" and frame.key:
            if frame.key in HIDDEN_PROPERTIES:
                return False
            shown = shown or frame.key in SHOWN_PROPERTIES
        elif frame.sign == "(":
            if frame.called in HIDING_FUNCTIONS:
                return False
            if frame.called == "setAttribute":
                return frame.argument == 1 and has_words(text)
            shown = shown or (frame.called == "make" and frame.argument >= 2)
            shown = shown or frame.called in SHOWING_FUNCTIONS
        break
    capital = re.match(r"\s*[A-Z][a-z]{2,}", text)
    return shown or has_words(text) or bool(capital and text[:1] != "$")


# HTML


class PageMessages(HTMLParser):
    """The messages of a page: its text, and the attributes that a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Message] = []
        self._hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden = tag in ("script", "style")
        for name, value in attrs:
            if name in SHOWN_PROPERTIES and value:
                self.found.append(Message(self.getpos()[0], value))

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden and has_letters(data):
            self.found.append(Message(self.getpos()[0], " ".join(data.split())))


def page_messages(source: str) -> list[Message]:
    """Return the messages of an HTML page."""
    parser = PageMessages()
    parser.feed(source)
    return parser.found


# The snapshot


def messages_of(path: Path) -> list[Message]:
    """Return the messages of a file, in order of appearance."""
    source = path.read_text(encoding="utf-8")
    readers = {".py": python_messages, ".js": script_messages, ".html": page_messages}
    return readers[path.suffix](source)


def snapshot(root: Path = ROOT) -> str:
    """Return all messages of the package, by file: one a line, without line numbers."""
    files = {path: messages_of(path) for path in source_files(root)}
    return "\n".join(
        f"# {path.relative_to(root).as_posix()}\n"
        + "".join(f"{escaped(message.text)}\n" for message in messages)
        for path, messages in files.items()
        if messages
    )


def source_files(root: Path = ROOT) -> list[Path]:
    """Return the package's files that can hold messages, sorted by their path."""
    paths = [path for path in (root / SOURCE).rglob("*") if path.suffix in SUFFIXES]
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix())


def escaped(text: str) -> str:
    """Return a text on one line that keeps its spaces at either end visible."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return re.sub(r"^ | $", "·", text) if text[:1] != "#" else "\\" + text


def main(arguments: Sequence[str]) -> int:
    """Run the command line: see the module."""
    if list(arguments) == ["--write"]:
        (ROOT / SNAPSHOT).write_text(snapshot(), encoding="utf-8", newline="\n")
    elif arguments:
        for name in arguments:
            given = Path(name)
            inside = sorted(p for p in given.rglob("*") if p.suffix in SUFFIXES)
            for path in inside if given.is_dir() else [given]:
                for message in messages_of(path):
                    print(f"{path}:{message.line}: {escaped(message.text)}")
    else:
        print(snapshot(), end="")
    return 0


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when a pager is closed
    sys.exit(main(sys.argv[1:]))

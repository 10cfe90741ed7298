"""What the site's generator cannot do by itself: formulas as MathML, and the command reference.

Formulas are turned into MathML while the site is built, so that a page needs no script for them and
asks no other server. The reference is what the commands' own --help prints.
"""

import contextlib
import io
import re

from latex2mathml.converter import convert

FENCE = re.compile(r"(^```.*?^```$)", re.M | re.S)
DISPLAY = re.compile(r"\$\$(.+?)\$\$", re.S)
INLINE = re.compile(r"(?<![\\$\w])\$(?!\s)([^$`]+?)(?<!\s)\$(?![\w$])")


formulas: list[str] = []  # of the page that is being built


def on_page_markdown(markdown, page, **_):
    formulas.clear()
    if page.file.src_uri == "commands.md":
        markdown = markdown.replace("<!-- the commands' own help -->", command_reference())
    if page.file.src_uri != "math.md":
        return markdown
    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else set_aside(part) for part in parts)


def on_page_content(html, **_):
    # Markdown would take a line that begins with a formula for a block of HTML, so the formulas
    # come back when it is done.
    return re.sub(r"FORMULA(\d+)X", lambda m: formulas[int(m[1])], html)


def set_aside(text):
    def keep(source, display):
        formulas.append(convert(" ".join(source.split()), display=display))
        return f"FORMULA{len(formulas) - 1}X"

    text = DISPLAY.sub(lambda m: keep(m[1], "block"), text)
    return INLINE.sub(lambda m: keep(m[1], "inline"), text)


def command_reference():
    from charloom.cli.main import COMMANDS, main

    pages = []
    for name, command in COMMANDS.items():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([name, "--help"])
        summary = command.summary[0].upper() + command.summary[1:]
        pages.append(f"## {name}\n\n{summary}.\n\n```text\n{printed.getvalue().rstrip()}\n```\n")
    return "\n".join(pages)

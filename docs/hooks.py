"""MkDocs hooks: render formulas as MathML, and generate the references of commands and options.

Formulas become MathML while the site is built, so that a page needs neither a script nor another
server to show them. The command reference is the output of each command's --help, and the table
of training options is made from their declarations.
"""

import contextlib
import io
import re

from latex2mathml.converter import convert

FENCE = re.compile(r"(^```.*?^```$)", re.M | re.S)
DISPLAY = re.compile(r"\$\$(.+?)\$\$", re.S)
INLINE = re.compile(r"(?<![\\$\w])\$(?!\s)([^$`]+?)(?<!\s)\$(?![\w$])")


formulas: list[str] = []  # the current page's formulas, as MathML


def on_page_markdown(markdown, page, **_):
    formulas.clear()
    if page.file.src_uri == "commands.md":
        markdown = markdown.replace("<!-- the commands' own help -->", command_reference())
    if page.file.src_uri == "api.md":
        markdown = markdown.replace("<!-- the training options -->", training_options())
    if page.file.src_uri != "math.md":
        return markdown
    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else set_aside(part) for part in parts)


def on_page_content(html, **_):
    # Markdown treats a line that begins with MathML as an HTML block, so the formulas are inserted
    # after it has been converted.
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


def training_options():
    from charloom.training.options import OPTIONS

    rows = ["| option | values | default | meaning |", "| --- | --- | --- | --- |"]
    for option in OPTIONS.values():
        values = ", ".join(f"`{choice}`" for choice in option.choices)
        default = "" if option.default is None else f"`{option.default}`"
        meaning = option.help.replace("|", "\\|").replace("\n", "\\n")
        cells = [f"`{option.name}`", values or f"`{option.value_type.__name__}`", default, meaning]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)

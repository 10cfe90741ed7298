"""Draw the lines of a terminal as an SVG picture, which can play the session once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

COLUMNS = 96
CELL, LINE, SIZE = 8.4, 19, 14  # width of a character, height of a line, size of the font
MARGIN, BAR = 16, 34  # around the text; the window's title bar
BACKGROUND, FOREGROUND, DIM = "#1c2029", "#d7dbe3", "#8b93a3"
PROMPT, NOTE, STRONG = "#7bd88f", "#79b8ff", "#ffd866"
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"


class Line(NamedTuple):
    """A line of a terminal: seconds since the first one, and its text."""

    seconds: float
    text: str


def wrap(lines: Sequence[Line], columns: int = COLUMNS) -> list[Line]:
    """Cut long lines as a terminal does."""
    wrapped = []
    for seconds, text in lines:
        text = text.expandtabs(8)
        pieces = [text[at : at + columns] for at in range(0, len(text), columns)] or [""]
        wrapped += [Line(seconds, piece) for piece in pieces]
    return wrapped


def color_of(text: str) -> str:
    if text.startswith("$ "):
        return PROMPT
    if text.startswith("charloom: "):
        return NOTE
    if re.match(r"\d+:\d\d  step ", text):
        return DIM
    return STRONG if text.startswith(("--- ", "Next:")) else FOREGROUND


def terminal_svg(
    lines: Sequence[Line], title: str, rows: int | None = None, play_seconds: float = 0.0
) -> str:
    """Return the picture of a terminal.

    Args:
        lines: the lines of the session.
        title: the window's title, and the picture's name for screen readers.
        rows: height in lines; earlier ones are scrolled out. None shows all lines.
        play_seconds: how long the session is played when the picture is opened; 0 for a still.
            The last state remains, and it is shown at once to readers who prefer reduced motion.
    """
    wrapped = wrap(lines)
    rows = min(rows or len(wrapped), len(wrapped))
    width = round(COLUMNS * CELL + 2 * MARGIN)
    height = BAR + rows * LINE + MARGIN
    last = max((line.seconds for line in wrapped), default=0.0) or 1.0
    moments = [line.seconds / last for line in wrapped]
    shown, colors = [], [color_of(line.text) for line in lines for _ in wrap([line])]
    for number, (line, color) in enumerate(zip(wrapped, colors, strict=True)):
        text = line.text.rstrip()
        if not text:
            continue
        delay = f' style="animation-delay:{moments[number] * play_seconds:.2f}s"'
        shown.append(
            f'<text y="{number * LINE}" fill="{color}" textLength="{len(text) * CELL:.1f}"'
            f"{delay if play_seconds else ''}>{escape(text, quote=False)}</text>"
        )
    scrolled = (len(wrapped) - rows) * LINE
    style = f"text{{font:{SIZE}px {FONT};white-space:pre}}.b{{transform:translateY(-{scrolled}px)}}"
    if play_seconds:
        steps = {100 * moments[n]: (n + 1 - rows) * LINE for n in range(rows, len(wrapped))}
        frames = "".join(
            f"{percent:.2f}%{{transform:translateY(-{offset}px)}}"
            for percent, offset in steps.items()
        )
        style += (
            f"@keyframes a{{0%{{opacity:0}}}}@keyframes s{{0%{{transform:none}}{frames}}}"
            "@media (prefers-reduced-motion:no-preference){"
            ".b text{animation:a .01s backwards}"
            f".b{{animation:s {play_seconds:.2f}s step-end}}}}"
        )
    dots = "".join(
        f'<circle cx="{MARGIN + 6 + 20 * number}" cy="17" r="6" fill="{color}"/>'
        for number, color in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img"><title>{escape(title)}</title><style>{style}</style>'
        f'<rect width="{width}" height="{height}" rx="9" fill="{BACKGROUND}"/>{dots}'
        f'<text x="{width / 2}" y="22" fill="{DIM}" text-anchor="middle">{escape(title)}</text>'
        f'<clipPath id="c"><rect y="{BAR}" width="{width}" height="{height - BAR}"/></clipPath>'
        f'<g clip-path="url(#c)"><g transform="translate({MARGIN},{BAR + LINE - 5})">'
        f'<g class="b">{"".join(shown)}</g></g></g></svg>\n'
    )

"""Format durations, losses and excerpts for people."""

from charloom.errors import plural, printable, quoted

WIDEST = 88  # columns of an excerpt


def format_duration(seconds: float) -> str:
    """Return a duration as `M:SS` or `H:MM:SS`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def in_bits(nats: float) -> float:
    """Convert nats to bits."""
    return nats / 0.6931471805599453


def excerpt(text: str) -> str:
    """Return the beginning of a text on one line, with its whitespace as single spaces."""
    return cut(printable(" ".join(text.split())))


def quoted_excerpt(text: str) -> str:
    """Return the beginning of a text in quotes, on one line."""
    whole = quoted(text[:1_000])
    return cut(whole[:-1], WIDEST - 1) + whole[-1]


def cut(line: str, widest: int = WIDEST) -> str:
    """Return a line that is cut to some columns, of which a Chinese character takes two."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(line) <= widest:
        return line
    return set_cell_size(line, widest - 1).rstrip() + "…"


def counted(characters: int, documents: int | None, unit: str = "character") -> str:
    """Return the length of a text, of whose characters or bytes some are ends of documents."""
    if documents is None:
        return plural(characters, unit)
    return f"{plural(documents, 'document')}, {plural(characters - documents, unit)}"

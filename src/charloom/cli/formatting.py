"""Format durations, losses and excerpts for people."""


def format_duration(seconds: float) -> str:
    """Return a duration as `M:SS` or `H:MM:SS`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def in_bits(nats: float) -> float:
    """Convert nats to bits."""
    return nats / 0.6931471805599453


def excerpt(text: str) -> str:
    """Return the beginning of a text on one line, without control characters."""
    line = "".join(c if c.isprintable() else "·" for c in " ".join(text.split()))
    return line if len(line) <= 88 else line[:87] + "…"


def counted(characters: int, documents: int | None) -> str:
    """Return the length of a text, of whose characters some are ends of documents."""
    if documents is None:
        return f"{characters:,} characters"
    ends = "1 document" if documents == 1 else f"{documents:,} documents"
    return f"{ends}, {characters - documents:,} characters"

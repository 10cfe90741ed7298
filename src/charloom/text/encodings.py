"""Encodings of texts: check a name, recognize UTF-16 and UTF-32, and explain invalid bytes.

Other encodings than UTF-8, UTF-16 and UTF-32 cannot be recognized with certainty. They are only
suggested, by chardet, in the error for a text that is not UTF-8.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from charloom.errors import CharloomError, printable, shortened

Blocks = Callable[[], Iterator[bytes]]

BEGINNING = 1 << 16  # bytes at the beginning of a text in which its encoding is recognized
SAMPLE = 8_000  # bytes of lines with other characters than ASCII that the detector reads
CHECKED = 64 << 20  # bytes after the first invalid one that an error describes

MARKS = (  # those of UTF-32 begin with those of UTF-16
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
# Encodings of names and of source code, in which no text is stored.
NOT_OF_TEXTS = {"idna", "mbcs", "oem", "punycode", "raw-unicode-escape", "undefined"}
# Encodings that are suggested before others with the same confidence, by Python's names.
COMMON = (
    *("cp1252", "cp1251", "gb18030", "big5", "cp932", "euc_jp", "cp949", "koi8-r", "koi8-u"),
    *("cp1250", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874"),
    *("iso8859-2", "iso8859-5", "iso8859-6", "iso8859-7", "iso8859-8", "iso8859-15", "cp866"),
    *("iso2022_jp", "cp437", "cp850"),
)
LARGER = {  # encodings that contain another one
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
}
NAMES = {"gb18030": "GB18030", "big5": "Big5", "cp932": "Shift JIS", "euc_jp": "EUC-JP"}
MULTIBYTE = {"gb18030", "big5", "big5hkscs", "cp932", "euc_jp", "cp949", "johab", "iso2022_jp"}
ESCAPES_OF_JAPANESE = re.compile("\x1b\\$[@B]|\x1b\\([BJ]")
CONTROLS = "\t\n\v\f\r\x1a\x1b"  # control characters that a text can have
# A character above U+FFFF as two halves of a surrogate pair, which CESU-8 encodes one by one.
SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
# Signs in a word or before one, where only letters in another encoding are expected.
TORN_WORD = re.compile(r"(?<=[^\W\d_])[‚„†‡ˆ‰™¢£¤¥§©«»®°±²³¶÷×]+(?=[^\W\d_])|[†‡ˆ‰™]+(?=[^\W\d_])")
OTHER_THAN_ASCII = re.compile(r"[^\x00-\x7f]+")
OPTION = re.compile(r"--encoding(-errors)? ([\w-]+)")


class EncodingError(CharloomError):
    """A text that is not in the encoding in which it is read."""

    @property
    def for_open_text(self) -> str:
        """The message for a caller in Python, whose function does not have these options."""
        return OPTION.sub(
            lambda found: (
                f"charloom.open_text(PATH, encoding{'_errors' if found[1] else ''}='{found[2]}')"
            ),
            str(self),
        )


def check_encoding(name: str) -> None:
    """Raise CharloomError unless a name is that of an encoding of text."""
    try:
        found = codecs.lookup(name)
        "".encode(name)  # refuses codecs between bytes or between texts, such as zlib and rot13
    except (LookupError, ValueError):
        found = None
    if found is None or found.name in NOT_OF_TEXTS:
        raise CharloomError(
            f"--encoding is {shortened(name)}, which is not an encoding: pass a name such as "
            "utf-8, utf-16, cp1252, gb18030, shift_jis or koi8-r"
        )


def recognized(beginning: bytes) -> str | None:
    """Return `utf-16-le` and the like if a text begins with its mark or has its null bytes."""
    for mark, encoding in MARKS:
        if beginning.startswith(mark):
            return encoding
    nulls = beginning.count(0)
    if not nulls:
        return None
    even, odd = beginning[::2].count(0), beginning[1::2].count(0)
    if min(even, odd) >= len(beginning) // 4:  # UTF-32 has two null bytes in each character
        likeliest = ["utf-32-le", "utf-32-be"]
    elif re.fullmatch(rb"[\0\a\b\t\n\r\x1b -~]*", beginning) and (
        max(even, odd) < 0.8 * (len(beginning) // 2) or min(even, odd) > 0.02 * max(even, odd)
    ):
        return None  # a text of ASCII with null characters
    else:
        likeliest = ["utf-16-le", "utf-16-be"] if odd > even else ["utf-16-be", "utf-16-le"]
    for encoding in likeliest:
        text = _read_as(beginning, encoding)
        if text and _is_plausible(text):
            return encoding
    return None


def is_utf_8(beginning: bytes) -> bool:
    """Return True if the beginning of a text is UTF-8 that ASCII does not suffice for."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        return False
    return not beginning.isascii()


def decode(blocks: Blocks, encoding: str, errors: str, label: str) -> Iterator[str]:
    """Decode a text in pieces.

    Args:
        blocks: returns its bytes.
        encoding: the name of the encoding.
        errors: "strict" or "replace".
        label: the text's name in errors.

    Raises:
        CharloomError: if a byte is invalid, with encodings that the text seems to have.
    """
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    is_utf_8 = codecs.lookup(encoding).name == "utf-8"
    offset = lines = 0  # of the block, in the text
    for block in itertools.chain(blocks(), [b""]):
        state = decoder.getstate()[0]  # bytes of a character that the last block cut
        try:
            piece = decoder.decode(block, not block)
        except UnicodeDecodeError as error:
            at = max(0, offset - (len(state) if isinstance(state, bytes) else 0) + error.start)
            line = lines + 1 + error.object[: error.start].count(b"\n")
            place = f"0x{error.object[error.start]:02X} in line {line:,}, at byte offset {at}"
            if is_utf_8:
                raise EncodingError(_not_utf_8(label, blocks, at, place)) from None
            raise EncodingError(
                f"{label} is not {encoding} (byte {place}): pass the encoding that it has, or "
                "--encoding-errors replace"
            ) from None
        except UnicodeError as error:  # UTF-16 without a mark, for example
            raise CharloomError(
                f"{label} is not {encoding} ({error}): pass the encoding that it has"
            ) from None
        yield piece
        offset += len(block)
        lines += block.count(b"\n")


def refuse_binary(pieces: Iterable[str], label: str) -> Iterator[str]:
    """Return the pieces of a text, and raise CharloomError at a null character."""
    lines = 1
    for piece in pieces:
        if "\0" in piece:
            line = lines + piece.count("\n", 0, piece.index("\0"))
            raise CharloomError(
                f"{label} has a null character in line {line:,}, so it does not seem to be text: "
                "pass a text file, or train on its bytes with --bytes"
            )
        if "\x1b$" in piece and ESCAPES_OF_JAPANESE.search(piece):
            raise EncodingError(
                f"{label} looks like ISO-2022-JP: pass --encoding iso2022_jp, or train on its "
                "bytes with --bytes"
            )
        lines += piece.count("\n")
        yield piece


@dataclass
class _Census:
    """The other characters than ASCII in a text that is read as UTF-8.

    Attributes:
        characters: valid characters.
        invalid: sequences of invalid bytes.
        valid_runs, invalid_runs: stretches between characters of ASCII without and with them.
        ends_cut: True if the only invalid sequence is a character that the end of the text cuts.
    """

    characters: int = 0
    invalid: int = 0
    valid_runs: int = 0
    invalid_runs: int = 0
    ends_cut: bool = False
    sample: list[bytes] = field(default_factory=list)

    @classmethod
    def of(cls, blocks: Blocks, offset: int) -> _Census:
        census = cls()
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        read = taken = 0
        last = ""
        for block in itertools.chain(blocks(), [b""]):
            text = decoder.decode(block, not block)
            for run in OTHER_THAN_ASCII.findall(text):
                bad = re.findall("[\udc80-\udcff]+", run)
                census.invalid += len(bad)
                census.characters += len(run) - sum(map(len, bad))
                census.valid_runs += not bad
                census.invalid_runs += bool(bad)
            last = text[-4:] or last
            if read + len(block) > offset and taken < SAMPLE:
                for line in re.findall(rb"[^\n]*[\x80-\xff][^\n]*\n?", block):
                    census.sample.append(line[: SAMPLE - taken])
                    taken += len(census.sample[-1])
                    if taken >= SAMPLE:
                        break
            read += len(block)
            if read > offset + CHECKED:
                break
        cut = re.search("[\udcc2-\udcf4][\udc80-\udcbf]*\\Z", last)
        # A single byte at the end of a text of ASCII can also be a letter in another encoding.
        census.ends_cut = (
            census.invalid == 1
            and cut is not None
            and (census.characters > 0 or len(cut.group()) > 1)
        )
        return census


def _not_utf_8(label: str, blocks: Blocks, offset: int, place: str) -> str:
    """Return the message for a text that is not UTF-8.

    Args:
        label: the text's name.
        blocks: returns its bytes.
        offset: where the first invalid byte is.
        place: that byte and its place, for the message.
    """
    census = _Census.of(blocks, offset)
    if _is_cesu_8(b"".join(census.sample)):
        return (
            f"{label} is not UTF-8 (byte {place}) and looks like CESU-8, with emoji in two halves: "
            "convert it (for example with `uconv -f CESU-8 -t UTF-8`), or pass --encoding-errors "
            "replace"
        )
    runs = census.valid_runs + census.invalid_runs
    if census.ends_cut or (
        census.characters
        and (census.characters >= 20 * census.invalid or census.valid_runs >= 0.75 * runs)
    ):
        if census.invalid == 1:
            cut = ", where the end of the text cuts a character" if census.ends_cut else ""
            return (
                f"{label} is UTF-8 except for one invalid byte ({place}{cut}): correct it, or pass "
                "--encoding-errors replace"
            )
        return (
            f"{label} is UTF-8 except for {census.invalid:,} invalid bytes (the first is {place}): "
            "correct them, or pass --encoding-errors replace"
        )
    found = _candidates(b"".join(census.sample), blocks)
    best = found[0].encoding if found else ""
    if best not in MULTIBYTE and census.valid_runs >= 0.1 * runs and census.valid_runs > 2:
        return (
            f"{label} is UTF-8 only in part ({census.characters:,} characters are valid, "
            f"{census.invalid:,} bytes are not, first {place}): convert the other parts to UTF-8, "
            "or pass --encoding-errors replace"
        )
    problem = f"{label} is not UTF-8 (byte {place})"
    if not found:
        return (
            f"{problem}: pass its encoding with --encoding NAME, or train on its bytes with --bytes"
        )
    names = " or ".join(
        f"{NAMES.get(one.encoding, one.encoding)} (“{printable(one.excerpt)}”)" for one in found
    )
    return f"{problem} and looks like {names}: pass --encoding {best}"


class _Candidate(NamedTuple):
    """An encoding that a text can have, and how a part of the text reads then."""

    encoding: str
    excerpt: str


def _candidates(sample: bytes, blocks: Blocks) -> list[_Candidate]:
    """Return at most two encodings that a text that is not UTF-8 can have, likeliest first."""
    import chardet
    from chardet.enums import EncodingEra

    guesses: dict[str, float] = {}
    for result in chardet.detect_all(sample, encoding_era=EncodingEra.ALL):
        name = _python_name(result["encoding"])
        if name is not None:
            guesses.setdefault(name, result["confidence"])
    if not guesses:  # such as pictures of block characters
        guesses = {"cp437": 0.5, "cp1252": 0.45}
    guesses.setdefault("cp1252", min(guesses.values()) / 2)
    texts: dict[str, str] = {}  # readings of the sample, and the name of the encoding of each
    scores: dict[str, float] = {}
    for name in sorted(guesses, key=_rank):
        text = _read_as(sample, name)
        if text is None or not _is_plausible(text):
            continue
        unlikely = max(_mixed_words(text), _torn_words(text))
        score = guesses[name] * (1.0 if name in COMMON else 0.95) * (1 - unlikely) ** 4
        first = texts.setdefault(text, name)  # the commonest encoding with this reading
        scores[first] = max(score, scores.get(first, 0.0))
    excerpts = {name: _excerpt(text) for text, name in texts.items()}
    ranked = sorted(scores, key=lambda name: -scores[name])
    found: list[_Candidate] = []
    for name in ranked:
        if found and (name not in COMMON or scores[name] < 0.85 * scores[found[0].encoding]):
            continue
        if _decodes(blocks, name):
            found.append(_Candidate(name, excerpts[name]))
    return found[:2]


def _python_name(name: str | None) -> str | None:
    """Return Python's name of an encoding that contains the one with a name, if there is one."""
    try:
        found = codecs.lookup(name or "").name
    except LookupError:
        return None
    return None if found in ("ascii", "utf-8") else LARGER.get(found, found)


def _rank(name: str) -> tuple[int, str]:
    return (COMMON.index(name) if name in COMMON else len(COMMON)), name


def _read_as(sample: bytes, encoding: str) -> str | None:
    """Return a sample in an encoding; it can end inside a character."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeError:
        return None


def _decodes(blocks: Blocks, encoding: str) -> bool:
    """Return True if a whole text is valid in an encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    read = 0
    try:
        for block in blocks():
            decoder.decode(block)
            read += len(block)
            if read > CHECKED:
                return True
        decoder.decode(b"", True)
    except UnicodeError:
        return False
    return True


def _is_plausible(text: str) -> bool:
    """Return False for a text with control characters or many that do not exist."""
    import unicodedata

    if any(unicodedata.category(c) == "Cc" and c not in CONTROLS for c in set(text)):
        return False
    none = sum(unicodedata.category(c) in ("Cn", "Co", "Cs") for c in text)
    return none <= 0.01 * len(text)


def _mixed_words(text: str) -> float:
    """Return the share of the words with other letters than ASCII that mix alphabets."""
    import unicodedata

    def alphabet(letter: str) -> str:
        first = unicodedata.name(letter, "").split(" ")[0]
        return first if first in ("LATIN", "GREEK", "CYRILLIC", "HEBREW", "ARABIC") else ""

    words = [word for word in re.findall(r"[^\W\d_]+", text) if not word.isascii()]
    mixed = sum(len({alphabet(c) for c in word}) > 1 for word in words)
    return mixed / len(words) if words else 0.0


def _torn_words(text: str) -> float:
    """Return the share of other characters than ASCII that are signs in the place of letters."""
    torn = sum(len(found) for found in TORN_WORD.findall(text))
    return torn / max(1, sum(not character.isascii() for character in text))


def _is_cesu_8(sample: bytes) -> bool:
    """Return True for a sample that is UTF-8 but for the halves of surrogate pairs."""
    try:
        text = codecs.getincrementaldecoder("utf-8")("surrogatepass").decode(sample)
    except UnicodeDecodeError:
        return False
    return SURROGATE_PAIR.search(text) is not None


def _excerpt(text: str) -> str:
    """Return a few characters of a text from the first word that ASCII does not suffice for."""
    found = re.search(r"\S*?[^\x00-\x7f]", text)
    start = max(found.start(), found.end() - 12) if found else 0
    return " ".join(text[start : start + 24].split())

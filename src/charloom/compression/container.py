"""The format of a compressed file. Its header limits time and memory before anything is read.

A file consists of

    8C 6C 6F 6F 6D        the mark
    arithmetic            1 byte: the version of the numbers that its coder computes with
    form                  1 byte: stored, characters or bytes
    size                  bytes of the text
    length, list, tables  characters to code, characters of the list, megabytes (not if stored)
    units, rows           of the network, in multiples of 32, and rows of its batch (not if stored)
    check                 2 bytes, the lower half of the CRC-32 of all before
    content               the coder's bytes, or the text itself
    digest                8 bytes, the beginning of the text's SHA-256

Numbers have seven bits in each byte, the lowest first. A byte above 127 is followed by another one.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import NamedTuple

from charloom.compression.layout import Damage

MARK = b"\x8cloom"
# A file can be read only with the numbers that it was written with. Every change of a number that
# context mixing or this package computes therefore raises this version.
ARITHMETIC = 1
STORED, CHARACTERS, BYTES = range(3)
CHECK, DIGEST = 2, 8  # bytes


class Header(NamedTuple):
    """The fields before the content of a file."""

    form: int
    size: int  # bytes of the text
    length: int = 0  # characters to code
    alphabet: int = 0  # characters of the list
    megabytes: int = 0  # of the mixer's lists, at most
    units: int = 0  # of the network, in multiples
    rows: int = 0  # of its batch


def write_file(header: Header, content: bytes, text: bytes) -> bytes:
    """Return a compressed file."""
    begin = MARK + bytes([ARITHMETIC, header.form]) + number_bytes(header.size)
    if header.form != STORED:
        begin += b"".join(map(number_bytes, header[2:]))
    return begin + check_of(begin) + content + digest_of(text)


class Parts(NamedTuple):
    """A file that was taken apart."""

    header: Header
    content: bytes
    digest: bytes


class OtherVersionError(Exception):
    """A file was written with other numbers."""


def read_file(data: bytes) -> Parts:
    """Take a file apart.

    Raises:
        Damage: if its header is not one.
        OtherVersionError: if another version of charloom wrote it.
    """
    place = len(MARK) + 2
    if len(data) < place:
        raise Damage
    arithmetic, form = data[len(MARK) : place]
    if arithmetic != ARITHMETIC:
        raise OtherVersionError
    if form > BYTES:
        raise Damage
    numbers = []
    for _ in range(1 if form == STORED else 6):
        value, place = read_number(data, place)
        numbers.append(value)
    if check_of(data[:place]) != data[place : place + CHECK]:
        raise Damage
    place += CHECK
    if len(data) < place + DIGEST:
        raise Damage
    header = Header(form, *numbers)
    if header.length > header.size or header.alphabet > header.length:
        raise Damage
    return Parts(header, data[place:-DIGEST], data[-DIGEST:])


def number_bytes(value: int) -> bytes:
    """Return a number as bytes."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def read_number(data: bytes, place: int) -> tuple[int, int]:
    """Return the number at a place, and the place after it. Raises Damage."""
    value = 0
    for shift in range(0, 63, 7):
        if place >= len(data):
            raise Damage
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise Damage


def check_of(header: bytes) -> bytes:
    """Return the check of a header."""
    return (zlib.crc32(header) & 0xFFFF).to_bytes(CHECK, "little")


def digest_of(text: bytes) -> bytes:
    """Return the digest of a text."""
    return hashlib.sha256(text).digest()[:DIGEST]

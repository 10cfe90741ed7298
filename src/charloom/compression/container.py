"""The format of a compressed file. Its header limits time and memory before anything is read.

A file consists of

    8C 6C 6F 6F 6D        the mark
    arithmetic            1 byte: the version of the numbers that its coder computes with
    form                  1 byte: stored, characters or bytes; plus 4 if the content has branches
    size                  bytes of the text
    rest, list, tables    bytes beyond the characters to code, characters of the list, megabytes
                          (not if stored)
    units, passes         of the network, in multiples of 32, and over the text, in tenths (not if
                          stored; without units, no passes)
    check                 2 bytes, the lower half of the CRC-32 of all before
    content               the coder's bytes, or the text itself: see `adaptive` and `branches`
    digest                4 bytes, or from 65,536 bytes of text on 8: the beginning of its SHA-256

Numbers have seven bits in each byte, the lowest first. A byte above 127 is followed by another one.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import NamedTuple

from charloom.compression.layout import Damage

MARK = b"\x8cloom"
# A file can be read only with the numbers that it was written with. Every change of a number that
# context mixing or this package computes therefore raises the version. Readers know both:
#   3  mixers of version 1, with the Huffman tree. Messages have this version too.
#   4  mixers of version 2 with branches of their own, and of version 1 without.
ARITHMETIC, NEWEST = 3, 4
STORED, CHARACTERS, BYTES = range(3)
BRANCHES = 4  # added to a form
CHECK, DIGEST, SHORT_DIGEST = 2, 8, 4  # bytes
SHORT = 65_536  # bytes of a text that has a short digest, at most


class Header(NamedTuple):
    """The fields before the content of a file."""

    form: int
    size: int  # bytes of the text
    length: int = 0  # characters to code
    alphabet: int = 0  # characters of the list
    megabytes: int = 0  # of the mixer's lists, at most
    units: int = 0  # of the network, in multiples
    passes: int = 0  # over the text, in tenths
    arithmetic: int = ARITHMETIC
    branches: bool = False  # whether the content has those of the mixer's tree


def write_file(header: Header, content: bytes, text: bytes) -> bytes:
    """Return a compressed file."""
    form = header.form + BRANCHES * header.branches
    begin = MARK + bytes([header.arithmetic, form]) + number_bytes(header.size)
    if header.form != STORED:
        numbers = (header.size - header.length, *header[3:6])
        begin += b"".join(map(number_bytes, numbers))
        if header.units:
            begin += number_bytes(header.passes)
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
    if not ARITHMETIC <= arithmetic <= NEWEST:
        raise OtherVersionError
    branches, form = divmod(form, BRANCHES)
    if form > BYTES or branches > (form != STORED and arithmetic >= NEWEST):
        raise Damage
    size, place = read_number(data, place)
    header = Header(form, size, arithmetic=arithmetic, branches=branches > 0)
    if form != STORED:
        numbers = []
        for _ in range(4):
            value, place = read_number(data, place)
            numbers.append(value)
        length, (alphabet, megabytes, units) = size - numbers[0], numbers[1:]
        header = header._replace(length=length, alphabet=alphabet, megabytes=megabytes, units=units)
        if header.units:
            passes, place = read_number(data, place)
            header = header._replace(passes=passes)
    if check_of(data[:place]) != data[place : place + CHECK]:
        raise Damage
    place += CHECK
    end = len(data) - digest_length(size)
    if end < place or header.length < 0 or header.alphabet > header.length:
        raise Damage
    return Parts(header, data[place:end], data[end:])


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


def digest_length(size: int) -> int:
    """Return the bytes of the digest of a text of a number of bytes."""
    return DIGEST if size >= SHORT else SHORT_DIGEST


def digest_of(text: bytes) -> bytes:
    """Return the digest of a text."""
    return hashlib.sha256(text).digest()[: digest_length(len(text))]

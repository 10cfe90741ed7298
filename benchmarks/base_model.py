r"""Train the base model that charloom carries, and pack it.

    python -m benchmarks.base_model text texts        write texts/train.txt and validation.txt
    charloom train texts/train.txt --validation texts/validation.txt --test texts/validation.txt \
        --no-mix --hidden-size 512 --batch-size 32 --window 100 --dropout 0.3 --weight-drop 0.2 \
        --learning-rate 0.004 --steps 8000 --validate-every 500 --out runs/english
    python -m benchmarks.base_model pack runs/english    write the package's file

The training repeats to the byte on the same machine, however often it is resumed. Three sources
are used. The novel appears three times: as Project Gutenberg wraps it, with straight
quotes and shorter lines, and with straight quotes and a line for each paragraph. Pieces of the
sources alternate, so that every part of the text has the same shares of them.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from charloom.base_model.carried import CARRIED
from charloom.storage.checkpoint import load_checkpoint, save_checkpoint
from charloom.storage.folders import model_path
from charloom.text.corpora import open_text
from charloom.text.embedded import library_files

PIECE = 4_000  # characters, to the end of a paragraph
HELD_OUT = 40  # the last fortieth of the pieces of each source is for validation
WIDTHS = (36, 44, 52, 60)  # of the lines of a wrapped variant, chapter by chapter
SHORTEST = 100  # characters of a paragraph of the library
STRAIGHT = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "—": "-"})
KNOWN = frozenset(map(chr, range(32, 127))) | set("\n“”‘’—")


def novel() -> list[str]:
    """Return the paragraphs of the novel, as its edition wraps them."""
    text = open_text("pride-and-prejudice").read()
    begin = text.index("Chapter 1")
    return [p for p in re.split(r"\n\s*\n", text[begin:].strip()) if p.strip()]


def documentation() -> list[str]:
    """Return the paragraphs of Python's documentation."""
    return [p.rstrip() for p in re.split(r"\n\s*\n", open_text("python-docs").read()) if p]


def library() -> list[str]:
    """Return the paragraphs of docstrings and comments of Python's library that are prose."""
    found = []
    for path in library_files():
        try:
            source = path.read_text(encoding="utf-8-sig")
            tree = ast.parse(source)
            comments = _comments(source)
        except (OSError, UnicodeDecodeError, SyntaxError, tokenize.TokenError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        documented = [node for node in ast.walk(tree) if isinstance(node, kinds)]
        texts = [ast.get_docstring(node) or "" for node in documented] + comments
        for text in texts:
            found += [p.rstrip() for p in re.split(r"\n\s*\n", text) if _is_prose(p)]
    return list(dict.fromkeys(found))


def _comments(source: str) -> list[str]:
    """Return the comments of a module, those of adjacent lines as one."""
    comments: list[str] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line = token.string.lstrip("#:!").removeprefix(" ")
            if token.start[0] == last + 1 and comments:
                comments[-1] += "\n" + line
            else:
                comments.append(line)
            last = token.start[0]
    return comments


def _is_prose(paragraph: str) -> bool:
    letters = sum(c.islower() or c in " \n,." for c in paragraph)
    return len(paragraph) >= SHORTEST and letters >= 0.92 * len(paragraph)


def pieces(paragraphs: list[str], between: str = "\n\n") -> list[str]:
    """Join paragraphs to pieces of about PIECE characters."""
    found, piece = [], ""
    for paragraph in paragraphs:
        piece += "".join(c for c in paragraph if c in KNOWN) + between
        if len(piece) >= PIECE:
            found.append(piece)
            piece = ""
    return [*found, piece] if piece else found


def variants() -> Iterator[list[str]]:
    """Yield the pieces of each source and variant."""
    paragraphs = novel()
    yield pieces(paragraphs)
    straight = [" ".join(p.translate(STRAIGHT).replace("_", "").split()) for p in paragraphs]
    wrapped, chapter = [], 0
    for paragraph in straight:
        chapter += paragraph.startswith("Chapter ")
        wrapped.append(textwrap.fill(paragraph, WIDTHS[chapter % len(WIDTHS)]))
    yield pieces(wrapped)
    yield pieces(straight, "\n")
    yield pieces(documentation())
    yield pieces(library())


def split_text() -> tuple[str, str]:
    """Return the text for training and that for validation.

    The same part of the novel is held out in all its variants.
    """
    placed: list[tuple[float, str]] = []
    held_out: list[str] = []
    for number, found in enumerate(variants()):
        first = len(found) - max(len(found) // HELD_OUT, 1)
        held_out += found[first:]
        # A third of the text lies between two variants of the same passage of the novel.
        placed += [((i / first + number / 3) % 1, piece) for i, piece in enumerate(found[:first])]
    placed.sort(key=lambda entry: entry[0])
    return "".join(piece for _, piece in placed), "".join(held_out)


def pack(run: Path) -> None:
    """Write the package's file: the network of a run in half precision, and no path of a file."""
    model = load_checkpoint(model_path(run))
    text = {"name": "english", "origin": ""}
    text |= {name: model.text[name] for name in ("sha256", "characters")}
    training = {k: v for k, v in model.training.items() if k not in ("validation", "test")}
    packed = replace(model, text=text, training=training, mixture=None)
    save_checkpoint(CARRIED, packed, half=True)
    print(f"{CARRIED}: {CARRIED.stat().st_size:,} bytes, metrics {model.metrics}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.base_model", description=__doc__)
    parser.add_argument("action", choices=("text", "pack"))
    parser.add_argument("place", type=Path)
    arguments = parser.parse_args()
    if arguments.action == "pack":
        pack(arguments.place)
        return
    arguments.place.mkdir(parents=True, exist_ok=True)
    for name, text in zip(("train", "validation"), split_text(), strict=True):
        data = text.encode()
        (arguments.place / f"{name}.txt").write_bytes(data)
        print(f"{name}.txt: {len(text):,} characters, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()

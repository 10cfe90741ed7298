"""Checkpoints: one safetensors file that holds a whole model, checked before it is used.

`model.safetensors` is the file to share. It holds the weights, and JSON strings in its
header. They are `config`, `vocabulary` (the characters in the order of their ids, with "" for the
end of a document), `training`, `text`, `metrics`.
A mixture adds the tensors `counts.*` (of a context mixer: packed, see its package) and
`mixture.theta`, and the header's entry `counts`.
`resume.safetensors` holds the current weights in the same way. It adds `optimizer.*`, `state` and
`position`, from which a run resumes. A float32 model can have weights in half precision, which
halves the file: its header then has the entry `weights`, float16. Each file carries a SHA-256 of
its contents, because safetensors has none of its own. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from charloom.errors import CharloomError, error_reason, plural, quoted, shortened
from charloom.network.parameters import Float, ModelConfig, Parameters, State
from charloom.ngrams.counts import Counts
from charloom.ngrams.mixing import Mixture, feature_count
from charloom.ngrams.table import LARGEST_CONTEXT, NGramTable
from charloom.schema import find_mismatch
from charloom.storage.atomic import write_atomically
from charloom.text.vocabulary import END, Vocabulary

FORMAT = "charloom 1"
LARGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
HALF = "float16"
STATE = "state"
OPTIMIZER = "optimizer."
THETA = "mixture.theta"
PREFIX = "counts."  # of the names of arrays of counts
TYPES = {
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "I32": "int32",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
}


class TextEntry(msgspec.Struct):
    """The fields of the header's entry `text` that are used; others are shown only."""

    name: str = ""
    origin: str = ""
    sha256: str = ""


class CountsEntry(msgspec.Struct):
    """The header's entry `counts`: which counts they are, and their shape."""

    context: Annotated[int, Meta(ge=0, le=LARGEST_CONTEXT)]
    kind: Literal["kneser-ney", "context-mixing"] = "kneser-ney"
    layout: str = ""  # of a context mixer


class VocabularyEntry(msgspec.Struct):
    """The field of the header's entry `config` that is not part of a ModelConfig."""

    bytes: bool


# The types of a header's entries; those of the others are not checked here.
ENTRIES = {
    "config": VocabularyEntry,
    "vocabulary": list[str],
    "text": TextEntry,
    "counts": CountsEntry,
}
# The arrays of an n-gram table, and their possible types in a file.
COUNTS = {
    "characters": ("U8", "U16", "U32"),
    "probabilities": ("F32",),
    "first": ("I32",),
    "weights": ("F32",),
}


@dataclass
class Checkpoint:
    """The contents of a file. Only a resume file has `position`, `optimizer` and `state`."""

    parameters: Parameters
    vocabulary: Vocabulary
    training: dict[str, Any] = field(default_factory=dict)  # options that it was trained with
    text: dict[str, Any] = field(default_factory=dict)  # name, origin, SHA-256, length
    metrics: dict[str, Any] = field(default_factory=dict)  # of these weights: step, validation
    mixture: Mixture | None = None
    optimizer: dict[str, Float] = field(default_factory=dict)  # each (P,)
    state: State | None = None  # (S, L, B, H)
    position: dict[str, Any] | None = None
    sha256: str | None = None  # the file's own, if it was read from a file

    @property
    def config(self) -> ModelConfig:
        return self.parameters.config


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, half: bool = False) -> None:
    """Write a checkpoint atomically: at every moment, the old file or the new one is complete.

    Args:
        path: the file.
        checkpoint: its contents.
        half: round the weights to half precision.

    Raises:
        OSError: It cannot be written. The old file is intact, and nothing else is left.
        CharloomError: A weight is not finite.
    """
    tensors: dict[str, NDArray[Any]] = dict(checkpoint.parameters)
    if half:
        tensors = {name: values.astype(np.float16) for name, values in tensors.items()}
    for name, values in checkpoint.optimizer.items():
        tensors[OPTIMIZER + name] = values
    if checkpoint.state is not None:
        tensors[STATE] = checkpoint.state
    mixture = checkpoint.mixture
    if mixture is not None:
        arrays, counts = _counts_arrays(mixture.counts)
        tensors |= {f"{PREFIX}{name}": values for name, values in arrays.items()}
        tensors[THETA] = mixture.theta
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise CharloomError(f"{name} holds NaN or infinity: it is not saved")
    vocabulary = checkpoint.vocabulary
    header = {
        "format": FORMAT,
        "config": _json(checkpoint.config.as_dict() | {"bytes": vocabulary.as_bytes}),
        "vocabulary": _json(["" if c == END else c for c in vocabulary.characters]),
        "training": _json(checkpoint.training),
        "text": _json(checkpoint.text),
        "metrics": _json(checkpoint.metrics),
    }
    if half:
        header["weights"] = HALF
    if checkpoint.position is not None:
        header["position"] = _json(checkpoint.position)
    if mixture is not None:
        header["counts"] = _json(counts)
    header["sha256"] = _digest(tensors, header)
    write_atomically(path, in_order(save(tensors, metadata=header)))


def in_order(data: bytes) -> bytes:
    """Sort the entries of a file's header, for the same bytes after a resume.

    The library's own order differs between calls.
    """
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    header = _json(entries).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a model file or a resume file.

    Names, shapes and types are compared with the configuration before a tensor is read.

    Raises:
        CharloomError: The file is missing, unreadable, damaged or not a checkpoint.
    """
    try:
        return _load(path)
    except FileNotFoundError:
        raise CharloomError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise CharloomError(f"{path} is a folder, not a checkpoint") from None
    except OSError as error:
        raise CharloomError(f"{path} cannot be read: {error_reason(error)}") from None
    except SafetensorError as error:
        raise _damaged(path, str(error)) from None


def _load(path: Path) -> Checkpoint:
    refuse_other_files(path)
    with safe_open(path, framework="numpy") as file:
        header = file.metadata() or {}
        if header.get("format") != FORMAT:
            raise CharloomError(
                f"{path} is not a charloom checkpoint for this version (format "
                f"{shortened(header.get('format'))}, not {quoted(FORMAT)})"
            )
        entries = {
            name: _parse(path, header, name)
            for name in ("config", "vocabulary", "training", "text", "metrics")
        }
        position = _parse(path, header, "position") if "position" in header else None
        counts = _parse(path, header, "counts") if "counts" in header else None
        for name, kind in ENTRIES.items():
            value = counts if name == "counts" else entries[name]
            if value is not None and (mismatch := find_mismatch(value, kind)):
                raise _damaged(path, f"in its header's {name}, {mismatch.problem}")
        config, vocabulary = _model(path, entries["config"], entries["vocabulary"])
        half = header.get("weights") == HALF and config.dtype == "float32" and position is None
        expected = _expected_tensors(path, config, file.keys(), position, counts, half=half)
        for name, (shape, types) in expected.items():
            piece = file.get_slice(name)
            found = tuple(piece.get_shape())
            if shape is not None and found != shape:
                raise _damaged(path, f"{name} has shape {found}, not {shape}")
            if piece.get_dtype() not in types:
                names = " or ".join(TYPES[kind] for kind in types)
                raise _damaged(path, f"{name} has type {piece.get_dtype()}, not {names}")
        tensors = {name: file.get_tensor(name) for name in expected}
    if _digest(tensors, {k: v for k, v in header.items() if k != "sha256"}) != header.get("sha256"):
        raise _damaged(path, "its contents do not match its SHA-256")
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise _damaged(path, f"{name} holds NaN or infinity")
    parameters = Parameters(config)
    for name in parameters:
        parameters[name][...] = tensors.pop(name)
    return Checkpoint(
        parameters,
        vocabulary,
        entries["training"],
        entries["text"],
        entries["metrics"],
        mixture=None if counts is None else _mixture(path, vocabulary, counts, tensors),
        optimizer={
            name.removeprefix(OPTIMIZER): values
            for name, values in tensors.items()
            if name.startswith(OPTIMIZER)
        },
        state=tensors.get(STATE),
        position=position,
        sha256=header.get("sha256"),
    )


def read_header(path: Path) -> dict[str, Any] | None:
    """Return the entries of a checkpoint's header without any check, or None if unreadable."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
        if header.get("format") != FORMAT:
            return None
        entries = ("config", "vocabulary", "training", "text", "metrics", "position", "counts")
        found = {name: _parse(path, header, name) for name in entries if name in header}
    except (OSError, SafetensorError, CharloomError):
        return None
    return found | {"sha256": header.get("sha256")}


def refuse_other_files(path: Path) -> None:
    """Raise CharloomError unless a file begins like a safetensors file."""
    with path.open("rb") as file:
        start = file.read(9)
        size = file.seek(0, os.SEEK_END)
    length = int.from_bytes(start[:8], "little")
    if start[8:] == b"{" and length <= min(size - 8, LARGEST_HEADER):
        return  # a pickle can begin like a header's length, but has no brace then
    if re.match(rb"\x80[\x02-\x05]|PK\x03\x04", start):
        raise CharloomError(
            f"{path} is a pickle or an archive of pickles, which can run code when opened: use a "
            "safetensors file"
        )
    raise _damaged(path, "it is cut short or not a safetensors file")


def _parse(path: Path, header: Mapping[str, str], name: str) -> Any:
    try:
        value = json.loads(header[name])
    except (KeyError, ValueError, RecursionError):
        raise _damaged(path, f"unreadable entry {quoted(name)} in its header") from None
    if not isinstance(value, list if name == "vocabulary" else dict):
        raise _damaged(path, f"unreadable entry {quoted(name)} in its header")
    return value


def _model(path: Path, config: dict[str, Any], characters: list[Any]) -> tuple[Any, Any]:
    as_bytes = config.pop("bytes")
    try:
        found = ModelConfig.from_dict(config)
        if found.end_id is not None:
            characters = [END if c == "" else c for c in characters]
        vocabulary = Vocabulary(tuple(characters), as_bytes)
    except (CharloomError, TypeError, ValueError) as error:
        raise _damaged(path, str(error)) from None
    if found.vocabulary_size != len(vocabulary):
        raise _damaged(
            path,
            f"{plural(found.vocabulary_size, 'character')} configured, {len(vocabulary)} listed",
        )
    if found.end_id != vocabulary.end_id:
        raise _damaged(path, "the end of a document has two different ids")
    return found, vocabulary


def _counts_arrays(counts: Counts) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays of counts as they are stored, and their entry in the header."""
    if isinstance(counts, NGramTable):
        return {name: getattr(counts, name) for name in COUNTS}, {"context": counts.context}
    from charloom.context_mixing.mixer import ContextMixer  # Numba comes with it
    from charloom.context_mixing.packing import pack

    assert isinstance(counts, ContextMixer)
    layout = str(counts.version)
    return pack(counts), {"context": counts.context, "kind": "context-mixing", "layout": layout}


def _mixture(
    path: Path,
    vocabulary: Vocabulary,
    entry: Mapping[str, Any],
    tensors: Mapping[str, NDArray[Any]],
) -> Mixture:
    arrays = {
        name.removeprefix(PREFIX): values
        for name, values in tensors.items()
        if name.startswith(PREFIX)
    }
    counts: Counts
    if _mixes(entry):
        try:
            packing = _packing(path)
            counts = packing.unpack(arrays, vocabulary, packing.LAYOUTS[entry["layout"]])
        except ValueError as error:
            raise _damaged(path, f"in its context mixer, {error}") from None
        return Mixture(counts, tensors[THETA])
    try:
        counts = NGramTable(len(vocabulary), entry["context"], **arrays)
    except (TypeError, ValueError) as error:
        raise _damaged(path, f"in its n-gram table, {error}") from None
    return Mixture(counts, tensors[THETA])


def _mixes(entry: Mapping[str, Any]) -> bool:
    return entry.get("kind") == "context-mixing"


def _packing(path: Path) -> Any:
    """Return the module that packs context mixers, for a file that has one."""
    try:
        from charloom.context_mixing import mixer, packing

        mixer.PREDICT.require_compiler()
    except Exception as error:  # Numba raises all kinds of errors
        raise CharloomError(
            f"{path} has a context mixer, and Numba cannot be imported ({error}): pip install numba"
        ) from None
    return packing


Expected = dict[str, tuple[tuple[int, ...] | None, tuple[str, ...]]]  # a tensor's shape and types


def _expected_tensors(
    path: Path,
    config: ModelConfig,
    names: list[str],
    position: dict[str, Any] | None,
    counts: dict[str, Any] | None,
    *,
    half: bool,
) -> Expected:
    types = ({"float32": "F32", "float64": "F64"}[config.dtype],)
    stored = ("F16",) if half else types
    expected: Expected = {name: (shape, stored) for name, shape in config.shapes().items()}
    if position is not None:
        for name in names:
            if name.startswith(OPTIMIZER):
                expected[name] = (config.parameter_count,), types
        expected[STATE] = None, types  # the number of rows differs between runs
    if counts is not None:
        kinds = COUNTS
        if _mixes(counts):
            packing = _packing(path)
            known = counts.get("layout") in packing.LAYOUTS
            if not known or counts["context"] != packing.CONTEXT:
                raise CharloomError(
                    f"{path} has a context mixer of another version of charloom: use that version, "
                    "or train again"
                )
            kinds = dict.fromkeys(packing.array_names(), ("U8", "U16"))
        expected |= {f"{PREFIX}{name}": (None, found) for name, found in kinds.items()}
        expected[THETA] = (feature_count(counts["context"]),), ("F64",)
    missing = sorted(set(expected) - set(names))
    extra = sorted(set(names) - set(expected))
    if missing:
        raise _damaged(path, f"missing tensors: {', '.join(missing)}")
    if extra:
        raise _damaged(path, f"unexpected tensors: {', '.join(extra)}")
    return expected


def _damaged(path: Path, what: str) -> CharloomError:
    what = " ".join(what.split())
    return CharloomError(f"{path} is damaged ({what}): use another copy, or train again")


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, sort_keys=True)


def _digest(tensors: Mapping[str, NDArray[Any]], header: Mapping[str, str]) -> str:
    """Return the SHA-256 of all names, types, shapes, bytes and header entries."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = np.ascontiguousarray(tensors[name])
        digest.update(_json([name, str(values.dtype), list(values.shape)]).encode())
        digest.update(values.data)
    for name in sorted(header):
        digest.update(_json([name, header[name]]).encode())
    return digest.hexdigest()

"""A file that is damaged, by chance or by intent, is refused in one line.

A file is changed in three ways: byte by byte; as a header and its data; and as entries and tensors
that are signed anew, so that it is the check in question that refuses it, not the SHA-256.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as save_tensors

import charloom
from charloom.errors import CharloomError
from charloom.storage.checkpoint import load_checkpoint
from charloom.storage.folders import RESUME_FILE
from helpers.checkpoints import (
    TRILLION,
    Change,
    Tensors,
    all_in_half_precision,
    assert_same_checkpoint,
    changed,
    claimed_offsets,
    claimed_shape,
    entry,
    everything_claimed,
    header_and_data,
    header_changed,
    json_values,
    missing_within,
    poisoned,
    renamed_characters,
    tensor,
    with_another_tensor,
    with_header,
    with_tensors_of_a_run,
    within,
    without_entry,
    without_tensor,
)
from helpers.cli import refused
from helpers.texts import PROMISES

# --- Files that are damaged, by chance or by intent -----------------------------------------------


def test_a_file_that_is_cut_short_anywhere_is_refused(
    model_file: bytes, resume_file: bytes, tmp_path: Path
) -> None:
    for name, file in (("model", model_file), ("resume", resume_file)):
        path = tmp_path / name
        path.write_bytes(file)
        header_end = 8 + int.from_bytes(file[:8], "little")
        lengths = {*range(0, len(file), 5), *range(20), *range(header_end - 9, header_end + 9)}
        for length in sorted({*lengths, len(file) - 4, len(file) - 1}, reverse=True):
            os.truncate(path, length)
            with pytest.raises(CharloomError, match="damaged"):
                load_checkpoint(path)


@contextmanager
def flipped_bit(path: Path, place: int, bit: int) -> Iterator[None]:
    """One bit of a file is wrong for a while."""
    with path.open("r+b", buffering=0) as file:
        file.seek(place)
        byte = file.read(1)[0]
        for value in (byte ^ 1 << bit, byte):
            file.seek(place)
            file.write(bytes([value]))
            if value != byte:
                yield


@pytest.fixture(scope="module")
def copies(trained_run: Path, module_folder: Path) -> list[Path]:
    """Copies of a run's model and of its resume file, to be damaged and mended."""
    names = ("model.safetensors", RESUME_FILE)
    return [Path(shutil.copy(trained_run / name, module_folder / name)) for name in names]


@given(st.integers(0, 1), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
@settings(max_examples=300)
@example(0, 0.0, 0)
@example(0, 0.0, 7)
@example(1, 1 - 1e-9, 7)
def test_a_single_flipped_bit_is_seen(
    trained_run: Path, copies: list[Path], which: int, place: float, bit: int
) -> None:
    path = copies[which]
    with flipped_bit(path, int(place * path.stat().st_size), bit):
        try:
            found = load_checkpoint(path)
        except CharloomError:
            return
    assert_same_checkpoint(found, load_checkpoint(trained_run / path.name))


def test_a_flipped_bit_in_every_byte_is_seen(copies: list[Path], model_file: bytes) -> None:
    path = copies[0]
    for place in range(len(model_file)):
        with flipped_bit(path, place, place % 8), pytest.raises(CharloomError):
            load_checkpoint(path)
    assert path.read_bytes() == model_file


@given(st.binary(max_size=200) | st.binary(max_size=100).map(with_header))
def test_any_bytes_are_refused(module_folder: Path, data: bytes) -> None:
    path = module_folder / "damaged"
    path.write_bytes(data)
    with pytest.raises(CharloomError):
        load_checkpoint(path)


@given(json_values, json_values)
def test_any_json_is_refused(module_folder: Path, metadata: Any, description: Any) -> None:
    path = module_folder / "damaged"
    for header in (metadata, {"__metadata__": metadata}, {"decoder.weight": description}):
        path.write_bytes(with_header(header, b"\0" * 8))
        with pytest.raises(CharloomError):
            load_checkpoint(path)


def deep(opening: str, closing: str, levels: int = 100_000) -> str:
    return opening * levels + closing * levels


# What is changed with the SHA-256 made right again, and a word that the refusal says.
SIGNED: dict[str, tuple[Change, str]] = {
    "no-config": (without_entry("config"), "'config'"),
    "no-vocabulary": (without_entry("vocabulary"), "'vocabulary'"),
    "no-training": (without_entry("training"), "'training'"),
    "no-text": (without_entry("text"), "'text'"),
    "no-metrics": (without_entry("metrics"), "'metrics'"),
    "no-format": (without_entry("format"), "format"),
    "a-later-format": (entry("format", "charloom 2"), "format 'charloom 2'"),
    "config-a-list": (entry("config", "[]"), "'config'"),
    "config-a-number": (entry("config", "3"), "'config'"),
    "config-null": (entry("config", "null"), "'config'"),
    "config-empty": (entry("config", ""), "'config'"),
    "config-no-json": (entry("config", "{'cell': 'lstm'}"), "'config'"),
    "config-cut": (entry("config", '{"cell": "ls'), "'config'"),
    "config-without-anything": (entry("config", "{}"), "damaged"),
    "config-deep": (entry("config", deep("[", "]")), "'config'"),
    "config-deep-object": (entry("config", deep('{"a":', "}")), "'config'"),
    "config-number-of-5000-digits": (entry("config", '{"a": ' + "9" * 5000 + "}"), "'config'"),
    "config-lacks-layers": (missing_within("config", "layers"), "layers"),
    "config-lacks-bytes": (missing_within("config", "bytes"), "damaged"),
    "config-has-more": (within("config", attention=True), "attention"),
    "cell-upper-case": (within("config", cell="LSTM"), "'LSTM'"),
    "cell-another": (within("config", cell="gru"), "shape"),
    "cell-a-list": (within("config", cell=["lstm"]), "damaged"),
    "cell-null": (within("config", cell=None), "cell"),
    "hidden-size-other": (within("config", hidden_size=3), "shape"),
    "hidden-size-trillion": (within("config", hidden_size=TRILLION), "hidden_size"),
    "hidden-size-zero": (within("config", hidden_size=0), "hidden_size"),
    "hidden-size-negative": (within("config", hidden_size=-2), "hidden_size"),
    "hidden-size-a-word": (within("config", hidden_size="2"), "hidden_size"),
    "hidden-size-a-fraction": (within("config", hidden_size=2.0), "hidden_size"),
    "hidden-size-true": (within("config", hidden_size=True), "hidden_size"),
    "hidden-size-null": (within("config", hidden_size=None), "hidden_size"),
    "layers-two": (within("config", layers=2), "missing"),
    "layers-trillion": (within("config", layers=TRILLION), "layers"),
    "layers-zero": (within("config", layers=0), "layers"),
    "vocabulary-size-other": (within("config", vocabulary_size=5), "5 characters"),
    "vocabulary-size-trillion": (within("config", vocabulary_size=TRILLION), "vocabulary_size"),
    "dropout-a-word": (within("config", dropout="0"), "dropout"),
    "dropout-one": (within("config", dropout=1), "dropout"),
    "dropout-negative": (within("config", dropout=-0.5), "dropout"),
    "dropout-nan": (within("config", dropout=float("nan")), "dropout"),
    "weight-drop-one": (within("config", weight_drop=1), "weight_drop"),
    "dtype-other": (within("config", dtype="float64"), "float64"),
    "dtype-half": (within("config", dtype="float16"), "float16"),
    "dtype-a-list": (within("config", dtype=[]), "dtype"),
    "bytes-a-word": (within("config", bytes="yes"), "bytes is 'yes'"),
    "vocabulary-an-object": (entry("vocabulary", "{}"), "'vocabulary'"),
    "vocabulary-a-string": (entry("vocabulary", '"abc"'), "'vocabulary'"),
    "vocabulary-empty": (entry("vocabulary", "[]"), "damaged"),
    "vocabulary-deep": (entry("vocabulary", deep("[", "]")), "'vocabulary'"),
    "vocabulary-of-numbers": (renamed_characters(lambda c: list(range(len(c)))), "vocabulary"),
    "vocabulary-with-null": (renamed_characters(lambda c: [*c[:-1], None]), "vocabulary"),
    "vocabulary-with-a-list": (renamed_characters(lambda c: [*c[:-1], ["a"]]), "vocabulary"),
    "vocabulary-with-a-word": (renamed_characters(lambda c: [*c[:-1], "ab"]), "one character"),
    "vocabulary-with-nothing": (renamed_characters(lambda c: [*c[:-1], ""]), "one character"),
    "vocabulary-with-a-character-twice": (renamed_characters(lambda c: [*c[:-1], c[0]]), "twice"),
    "vocabulary-shorter": (renamed_characters(lambda c: c[:-1]), "characters"),
    "vocabulary-longer": (renamed_characters(lambda c: [*c, "ż"]), "characters"),
    "vocabulary-with-half-a-pair": (renamed_characters(lambda c: [*c[:-1], "\ud800"]), "damaged"),
    "training-a-list": (entry("training", "[]"), "'training'"),
    "text-null": (entry("text", "null"), "'text'"),
    "metrics-a-number": (entry("metrics", "3"), "'metrics'"),
    "position-a-list": (entry("position", "[]"), "'position'"),
    "position-in-a-model": (entry("position", "{}"), "state"),
    "no-counts": (without_entry("counts"), "counts."),
    "counts-a-list": (entry("counts", "[]"), "'counts'"),
    "counts-without-context": (entry("counts", "{}"), "context"),
    "counts-context-trillion": (within("counts", context=TRILLION), "context"),
    "counts-context-other": (within("counts", context=0), "shape"),
    "counts-context-true": (within("counts", context=True), "context"),
    "counts-turned": (tensor("counts.characters", lambda c: c[::-1].copy()), "in its n-gram"),
    "counts-shorter": (tensor("counts.characters", lambda c: c[1:]), "in its n-gram"),
    "counts-of-others": (tensor("counts.characters", lambda c: c + 100), "in its n-gram"),
    "counts-out-of-order": (tensor("counts.first", lambda f: f[::-1].copy()), "in its n-gram"),
    "counts-first-wider": (tensor("counts.first", lambda f: f.astype(np.int64)), "type"),
    "counts-flat": (tensor("counts.first", lambda f: f[None]), "in its n-gram"),
    "counts-zero": (tensor("counts.probabilities", lambda p: p * 0), "in its n-gram"),
    "counts-negative": (tensor("counts.weights", lambda w: -w), "in its n-gram"),
    "counts-nan": (tensor("counts.weights", poisoned(np.nan)), "NaN"),
    "theta-shorter": (tensor("mixture.theta", lambda t: t[1:]), "shape"),
    "theta-infinite": (tensor("mixture.theta", poisoned(np.inf)), "NaN or infinity"),
    "a-tensor-missing": (without_tensor, "decoder.bias"),
    "a-tensor-more": (with_another_tensor, "decoder.scale"),
    "an-optimizer-in-a-model": (with_tensors_of_a_run, "optimizer.momentum"),
    "a-shape-turned": (tensor("decoder.weight", lambda w: w.T.copy()), "shape"),
    "a-shape-flat": (tensor("decoder.weight", lambda w: w.ravel()), "shape"),
    "a-shape-with-one-more": (tensor("decoder.bias", lambda b: b[None]), "shape"),
    "a-tensor-shorter": (tensor("decoder.bias", lambda b: b[1:]), "shape"),
    "a-tensor-of-nothing": (tensor("decoder.bias", lambda b: b[:0]), "shape"),
    "a-tensor-a-number": (tensor("decoder.bias", lambda b: b[0:1].reshape(())), "shape"),
    "a-type-wider": (tensor("decoder.bias", lambda b: b.astype(np.float64)), "type"),
    "a-type-narrower": (tensor("decoder.bias", lambda b: b.astype(np.float16)), "type"),
    "a-type-of-whole-numbers": (tensor("decoder.bias", lambda b: b.astype(np.int32)), "type"),
    "a-type-of-truths": (tensor("decoder.bias", lambda b: b.astype(bool)), "type"),
    "all-types-narrower": (all_in_half_precision, "type"),
    "nan": (tensor("decoder.bias", poisoned(np.nan)), "NaN"),
    "infinity": (tensor("rnn.weight_hh_l0", poisoned(np.inf)), "NaN or infinity"),
    "minus-infinity": (tensor("rnn.bias_ih_l0", poisoned(-np.inf)), "NaN or infinity"),
}


def unchanged(metadata: dict[str, str], tensors: Tensors) -> None:
    """Changes nothing."""


def with_sha256(file: bytes, value: str | None) -> bytes:
    def change(header: dict[str, Any]) -> None:
        del header["__metadata__"]["sha256"]
        if value is not None:
            header["__metadata__"]["sha256"] = value

    return header_changed(file, change)


def swapped_data(file: bytes) -> bytes:
    """Two tensors of one shape change places: all is valid but the order."""

    def change(header: dict[str, Any]) -> None:
        first, second = header["rnn.bias_ih_l0"], header["rnn.bias_hh_l0"]
        first["data_offsets"], second["data_offsets"] = (
            second["data_offsets"],
            first["data_offsets"],
        )

    return header_changed(file, change)


def metadata_of_numbers(file: bytes) -> bytes:
    return header_changed(file, lambda header: header["__metadata__"].update(format=1))


def header_of(file: bytes) -> bytes:
    return file[8 : 8 + int.from_bytes(file[:8], "little")]


def rest_of(file: bytes) -> bytes:
    return file[8 + int.from_bytes(file[:8], "little") :]


OTHER_MODEL = save_tensors({"weight": np.zeros((2, 2), np.float32)}, metadata={"format": "pt"})


NO_METADATA = save_tensors({"weight": np.zeros((2, 2), np.float32)})


# What is made of a model's bytes, and a word that the refusal says.
UNSIGNED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda file: b"", "cut short"),
    "seven-bytes": (lambda file: file[:7], "cut short"),
    "only-a-length": (lambda file: file[:8], "cut short"),
    "half-a-header": (lambda file: file[:100], "cut short"),
    "only-a-header": (lambda file: file[: len(file) - len(rest_of(file))], "damaged"),
    "the-last-byte-missing": (lambda file: file[:-1], "damaged"),
    "a-byte-more": (lambda file: file + b"\0", "damaged"),
    "another-file-behind": (lambda file: file + file, "damaged"),
    "zeros": (lambda file: bytes(len(file)), "damaged"),
    "text": (lambda file: PROMISES.encode(), "not a safetensors file"),
    "html": (lambda file: b"<!DOCTYPE html>\n<html>404 Not Found</html>\n", "not a safetensors"),
    "a-git-lfs-pointer": (lambda file: b"version https://git-lfs.github.com/spec/v1\n", "damaged"),
    "header-length-zero": (lambda file: with_header(b"", rest_of(file)), "damaged"),
    "header-length-one-more": (
        lambda file: with_header(header_of(file), rest_of(file), len(header_of(file)) + 1),
        "damaged",
    ),
    "header-length-one-less": (
        lambda file: with_header(header_of(file), rest_of(file), len(header_of(file)) - 1),
        "damaged",
    ),
    "header-length-of-the-file": (
        lambda file: with_header(header_of(file), rest_of(file), len(file)),
        "cut short",
    ),
    "header-length-2-to-63": (lambda file: with_header(b"{}", b"", 2**63), "cut short"),
    "header-length-2-to-64": (lambda file: with_header(b"{}", b"", 2**64 - 1), "cut short"),
    "header-no-json": (lambda file: with_header(b"no JSON at all", rest_of(file)), "damaged"),
    "header-no-utf-8": (lambda file: with_header(b'{"\xff": 1}', rest_of(file)), "damaged"),
    "header-a-list": (lambda file: with_header([], rest_of(file)), "damaged"),
    "header-null": (lambda file: with_header(None, rest_of(file)), "damaged"),
    "header-empty": (lambda file: with_header({}), "format None"),
    "header-deep": (lambda file: with_header(deep('{"a":', "}").encode()), "damaged"),
    "header-deep-list": (lambda file: with_header(deep("[", "]").encode()), "damaged"),
    "metadata-of-numbers": (metadata_of_numbers, "damaged"),
    "metadata-a-list": (lambda file: with_header({"__metadata__": []}), "damaged"),
    "metadata-missing": (lambda file: NO_METADATA, "format None"),
    "another-model": (lambda file: OTHER_MODEL, "format 'pt'"),
    "a-shape-of-a-trillion": (lambda file: claimed_shape(file, [TRILLION, 2]), "damaged"),
    "a-shape-that-overflows": (lambda file: claimed_shape(file, [2**62, 2**62]), "damaged"),
    "a-shape-negative": (lambda file: claimed_shape(file, [-1, 2]), "damaged"),
    "a-shape-of-fractions": (lambda file: claimed_shape(file, [1.5, 2]), "damaged"),
    "a-shape-of-words": (lambda file: claimed_shape(file, ["2", "2"]), "damaged"),
    "offsets-beyond-the-file": (lambda file: claimed_offsets(file, [0, TRILLION]), "damaged"),
    "offsets-backwards": (lambda file: claimed_offsets(file, [8, 0]), "damaged"),
    "offsets-negative": (lambda file: claimed_offsets(file, [-8, 0]), "damaged"),
    "offsets-of-another": (lambda file: claimed_offsets(file, [0, 8]), "damaged"),
    "a-type-unknown": (
        lambda file: header_changed(file, lambda h: h["decoder.bias"].update(dtype="F33")),
        "damaged",
    ),
    "a-trillion-everywhere": (lambda file: everything_claimed(file, TRILLION), "damaged"),
    "a-hidden-size-of-65536": (lambda file: everything_claimed(file, 65_536), "damaged"),
    "sha-256-missing": (lambda file: with_sha256(file, None), "SHA-256"),
    "sha-256-empty": (lambda file: with_sha256(file, ""), "SHA-256"),
    "sha-256-of-something-else": (lambda file: with_sha256(file, "0" * 64), "SHA-256"),
    "tensors-that-changed-places": (swapped_data, "damaged"),
}


def damaged_file(name: str, model_file: bytes) -> tuple[bytes, str]:
    if name in SIGNED:
        change, word = SIGNED[name]
        return changed(model_file, change), word
    make, word = UNSIGNED[name]
    return make(model_file), word


def test_resigned_file_is_accepted(model_file: bytes, tmp_path: Path) -> None:
    """What the tests below rest on: a file written anew, and signed anew, is a checkpoint."""
    path = tmp_path / "model.safetensors"
    for file in (
        changed(model_file, unchanged),
        with_header(*header_and_data(model_file)),
        with_header(header_of(model_file), rest_of(model_file)),
    ):
        path.write_bytes(file)
        assert_same_checkpoint(load_checkpoint(path), charloom.load(path).checkpoint)


@pytest.mark.parametrize("name", [*SIGNED, *UNSIGNED])
def test_a_damaged_file_is_refused_in_one_line(
    model_file: bytes, tmp_path: Path, name: str
) -> None:
    file, word = damaged_file(name, model_file)
    path = tmp_path / "model.safetensors"
    path.write_bytes(file)
    with pytest.raises(CharloomError, match=r"^[^\n]+$") as caught:
        charloom.load(tmp_path)
    assert word in str(caught.value)
    for command in ("info", "sample", "evaluate"):
        line = refused(command, str(tmp_path))
        assert str(path) in line
        assert word in line
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == file

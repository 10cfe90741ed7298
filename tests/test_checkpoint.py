"""Checkpoints: what was saved is loaded to the bit, and a file that is anything else is refused.

A file is changed in three ways here: byte by byte; as a header and its data; and as entries and
tensors that are signed anew, so that it is the check in question that refuses it, not the SHA-256.
"""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

import charloom
from charloom.cli.main import main
from charloom.errors import CharloomError
from charloom.network.parameters import GATES, STATES, ModelConfig, Parameters
from charloom.ngrams.mixing import Mixture, feature_count
from charloom.prediction.mixture import fit_ngram_table
from charloom.storage import atomic
from charloom.storage import checkpoint as checkpoint_module
from charloom.storage.checkpoint import COUNTS, Checkpoint, load_checkpoint, save_checkpoint
from charloom.storage.folders import RESUME_FILE
from charloom.text.vocabulary import Vocabulary

Tensors = dict[str, NDArray[Any]]
Change = Callable[[dict[str, str], Tensors], None]

TEXT = "The woods are lovely, dark and deep,\nBut I have promises to keep.\n" * 20
OPTIONS = ["--cell", "lstm", "--hidden-size", "2", "--batch-size", "2", "--window", "8"]
OPTIONS += ["--mix-megabytes", "0.001"]  # a table small enough to damage every byte of
TRILLION = 10**12


# --- Helpers -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run, with its text beside it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    text = folder / "woods.txt"
    text.write_text(TEXT, encoding="utf-8")
    command = ["train", str(text), "--out", str(folder / "run"), "--steps", "4", *OPTIONS]
    assert main(command) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def model_file(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def resume_file(run: Path) -> bytes:
    return (run / RESUME_FILE).read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for property tests, whose examples may share one."""
    return tmp_path_factory.mktemp("scratch")


def with_header(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file of a header (bytes, or an object written as JSON) and its data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    return size.to_bytes(8, "little") + text + data


def header_and_data(file: bytes) -> tuple[dict[str, Any], bytes]:
    end = 8 + int.from_bytes(file[:8], "little")
    return json.loads(file[8:end]), file[end:]


def changed(file: bytes, change: Change) -> bytes:
    """The file with its entries and tensors changed, and a SHA-256 that is right for them."""
    metadata = header_and_data(file)[0]["__metadata__"]
    tensors = load_tensors(file)
    change(metadata, tensors)
    metadata.pop("sha256")
    metadata["sha256"] = checkpoint_module._digest(tensors, metadata)
    return save_tensors(tensors, metadata=metadata)


def entry(name: str, value: str) -> Change:
    """Puts a string in the place of an entry."""

    def change(metadata: dict[str, str], tensors: Tensors) -> None:
        metadata[name] = value

    return change


def without_entry(name: str) -> Change:
    def change(metadata: dict[str, str], tensors: Tensors) -> None:
        del metadata[name]

    return change


def within(entry_name: str, /, **values: Any) -> Change:
    """Puts values into the object that an entry holds."""

    def change(metadata: dict[str, str], tensors: Tensors) -> None:
        metadata[entry_name] = json.dumps(json.loads(metadata[entry_name]) | values)

    return change


def within_state(**values: Any) -> Change:
    """Puts values into the state that a resume file's position holds."""

    def change(metadata: dict[str, str], tensors: Tensors) -> None:
        position = json.loads(metadata["position"])
        position["state"] |= values
        metadata["position"] = json.dumps(position)

    return change


def missing_within(name: str, key: str) -> Change:
    def change(metadata: dict[str, str], tensors: Tensors) -> None:
        values = json.loads(metadata[name])
        del values[key]
        metadata[name] = json.dumps(values)

    return change


def tensor(name: str, replace: Callable[[NDArray[Any]], NDArray[Any]]) -> Change:
    def change(metadata: dict[str, str], tensors: Tensors) -> None:
        tensors[name] = replace(tensors[name])

    return change


def poisoned(value: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def replace(values: NDArray[Any]) -> NDArray[Any]:
        values = values.copy()
        values.flat[-1] = value
        return values

    return replace


def renamed_characters(rename: Callable[[list[str]], list[Any]]) -> Change:
    def change(metadata: dict[str, str], tensors: Tensors) -> None:
        metadata["vocabulary"] = json.dumps(rename(json.loads(metadata["vocabulary"])))

    return change


def without_tensor(metadata: dict[str, str], tensors: Tensors) -> None:
    del tensors["decoder.bias"]


def with_another_tensor(metadata: dict[str, str], tensors: Tensors) -> None:
    tensors["decoder.scale"] = np.zeros(3, np.float32)


def with_tensors_of_a_run(metadata: dict[str, str], tensors: Tensors) -> None:
    tensors["optimizer.momentum"] = np.zeros(3, np.float32)


def all_in_half_precision(metadata: dict[str, str], tensors: Tensors) -> None:
    for name in tensors:
        tensors[name] = tensors[name].astype(np.float16)


def header_changed(file: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    header, data = header_and_data(file)
    change(header)
    return with_header(header, data)


def claimed_shape(file: bytes, shape: list[Any]) -> bytes:
    return header_changed(file, lambda header: header["decoder.weight"].update(shape=shape))


def claimed_offsets(file: bytes, offsets: list[Any]) -> bytes:
    return header_changed(
        file, lambda header: header["decoder.weight"].update(data_offsets=offsets)
    )


def everything_claimed(file: bytes, size: int) -> bytes:
    """A configuration and tensors that agree on a hidden size, with data that never was."""
    header, data = header_and_data(file)
    metadata = header["__metadata__"]
    config = json.loads(metadata["config"]) | {"hidden_size": size}
    metadata["config"] = json.dumps(config)
    vocabulary_size = config["vocabulary_size"]
    shapes = {
        "rnn.weight_ih_l0": [4 * size, vocabulary_size],
        "rnn.weight_hh_l0": [4 * size, size],
        "rnn.bias_ih_l0": [4 * size],
        "rnn.bias_hh_l0": [4 * size],
        "decoder.weight": [vocabulary_size, size],
        "decoder.bias": [vocabulary_size],
    }
    start = 0
    for name, shape in shapes.items():
        end = start + 4 * int(np.prod([float(n) for n in shape]))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
        start = end
    return with_header(header, data)


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """What the command says as it refuses: one line, status 2, nothing on standard output."""
    capsys.readouterr()
    status = main(arguments)
    out, err = capsys.readouterr()
    assert status == 2, (status, out, err)
    assert out == ""
    # Whether there are empty lines besides is tested once, in test_bad_input.py.
    (line,) = [line for line in err.split("\n") if line]
    assert line.startswith("charloom: ")
    assert len(line) < 1000
    assert "Traceback" not in line
    assert line.isprintable(), "what a file holds must not reach the terminal as it is"
    return line


def same_bytes(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    return (
        found.dtype == expected.dtype
        and found.shape == expected.shape
        and found.tobytes() == expected.tobytes()
    )


def assert_same_checkpoint(found: Checkpoint, expected: Checkpoint) -> None:
    assert found.config == expected.config
    assert same_bytes(found.parameters.flat, expected.parameters.flat)
    assert found.vocabulary == expected.vocabulary
    assert (found.training, found.text, found.metrics) == (
        expected.training,
        expected.text,
        expected.metrics,
    )
    assert found.position == expected.position
    assert found.optimizer.keys() == expected.optimizer.keys()
    for name, values in found.optimizer.items():
        assert same_bytes(values, expected.optimizer[name])
    assert (found.state is None) == (expected.state is None)
    if found.state is not None and expected.state is not None:
        assert same_bytes(found.state, expected.state)
    assert (found.mixture is None) == (expected.mixture is None)
    if found.mixture is not None and expected.mixture is not None:
        assert same_bytes(found.mixture.theta, expected.mixture.theta)
        one, other = found.mixture.table, expected.mixture.table
        assert (one.context, one.vocabulary_size) == (other.context, other.vocabulary_size)
        for name in COUNTS:
            assert same_bytes(getattr(one, name), getattr(other, name))


# --- What was saved is loaded --------------------------------------------------------------------

EXOTIC = (
    "\0\t\n\r\x1b\x7f\x80\x85 \"\\'/{}[]é\xad\u0301\u200d\u2028\u2029"
    "\ufeff\ufffe\uffff\ufffd字🦉\U0010ffff"
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
entries = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=8), json_values, max_size=3
)


def finite_numbers(draw: st.DrawFn, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Random bits as numbers, so that subnormal ones and both zeros come too."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    bits = generator.integers(0, 256, (*shape, np.dtype(dtype).itemsize), dtype=np.uint8)
    values = bits.view(dtype)[..., 0].copy()
    values[~np.isfinite(values)] = -0.0
    return values


@st.composite
def checkpoints(draw: st.DrawFn) -> Checkpoint:
    as_bytes = draw(st.booleans())
    character = st.characters(codec="latin-1" if as_bytes else "utf-8") | st.sampled_from(
        [c for c in EXOTIC if not as_bytes or ord(c) < 256]
    )
    characters = draw(st.lists(character, min_size=1, max_size=8, unique=True))
    config = ModelConfig(
        cell=draw(st.sampled_from(sorted(GATES))),
        hidden_size=draw(st.integers(1, 5)),
        layers=draw(st.integers(1, 3)),
        vocabulary_size=len(characters),
        dropout=draw(st.sampled_from([0.0, 0.1, 0.5])),
        dtype=draw(st.sampled_from(["float32", "float64"])),
    )
    size, dtype = config.parameter_count, config.dtype
    checkpoint = Checkpoint(
        Parameters(config, finite_numbers(draw, (size,), dtype)),
        Vocabulary(tuple(characters), as_bytes),
        training=draw(entries),
        text=draw(entries),
        metrics=draw(entries),
    )
    if draw(st.booleans()):
        text = draw(st.lists(st.integers(0, len(characters) - 1), max_size=30))
        table = fit_ngram_table(
            np.array(text, np.uint8), len(characters), draw(st.integers(0, 3)), 1e6
        )
        theta = finite_numbers(draw, (feature_count(table.context),), "float64")
        checkpoint.mixture = Mixture(table, theta)
    if draw(st.booleans()):
        for name in draw(st.sets(st.sampled_from(["momentum", "square", "first"]))):
            checkpoint.optimizer[name] = finite_numbers(draw, (size,), dtype)
        rows = draw(st.integers(1, 3))
        shape = (STATES[config.cell], config.layers, rows, config.hidden_size)
        checkpoint.state = finite_numbers(draw, shape, dtype)
        checkpoint.position = draw(entries)
    return checkpoint


@pytest.fixture(scope="module")
def without_sync() -> Iterator[None]:
    """Hundreds of saves in a row need not survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic.os, "fsync", lambda handle: None)
        yield


@given(checkpoints())
@settings(max_examples=60, deadline=None)
@pytest.mark.usefixtures("without_sync")
def test_what_was_saved_is_loaded_to_the_bit(scratch: Path, checkpoint: Checkpoint) -> None:
    path = scratch / "model"
    save_checkpoint(path, checkpoint)
    assert_same_checkpoint(load_checkpoint(path), checkpoint)
    assert not list(scratch.glob(".*"))


@given(checkpoints())
@settings(max_examples=60, deadline=None)
@pytest.mark.usefixtures("without_sync")
def test_saving_twice_gives_the_same_bytes(scratch: Path, checkpoint: Checkpoint) -> None:
    path = scratch / "model"
    save_checkpoint(path, checkpoint)
    first = path.read_bytes()
    save_checkpoint(path, checkpoint)
    assert path.read_bytes() == first


@pytest.mark.usefixtures("without_sync")
def test_a_header_of_any_length_can_be_read(tmp_path: Path) -> None:
    """A file begins with its header's length, whatever those bytes look like: 0x0580 looks like a
    pickle's first two."""
    path = tmp_path / "model"
    checkpoint = Checkpoint(Parameters(ModelConfig("rnn", 1, 1, 1)), Vocabulary(("a",)))
    lengths = set()
    for padding in range(0, 4096, 8):
        checkpoint.text["name"] = "x" * padding
        save_checkpoint(path, checkpoint)
        lengths.add(path.read_bytes()[:2])
        assert load_checkpoint(path).text == checkpoint.text
    assert {b"\x80\x04", b"\x80\x05"} <= lengths


def test_every_exotic_character_survives(tmp_path: Path) -> None:
    config = ModelConfig("gru", 1, 1, len(EXOTIC))
    checkpoint = Checkpoint(Parameters(config), Vocabulary(tuple(EXOTIC)), text={"name": EXOTIC})
    save_checkpoint(tmp_path / "exotic", checkpoint)
    loaded = load_checkpoint(tmp_path / "exotic")
    assert loaded.vocabulary.characters == tuple(EXOTIC)
    assert loaded.text == {"name": EXOTIC}


def test_a_model_saved_by_hand_is_the_same_file(run: Path, tmp_path: Path) -> None:
    model = charloom.load(run)
    model.save(tmp_path)
    model.save(tmp_path / "other.safetensors")
    expected = (run / "model.safetensors").read_bytes()
    assert (tmp_path / "model.safetensors").read_bytes() == expected
    assert (tmp_path / "other.safetensors").read_bytes() == expected


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_a_checkpoint_is_as_readable_as_any_other_file(run: Path) -> None:
    usual = run.parent / "woods.txt"
    assert (run / "model.safetensors").stat().st_mode == usual.stat().st_mode


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_not_saved(tmp_path: Path, value: float) -> None:
    path = tmp_path / "model"
    config = ModelConfig("rnn", 2, 1, 2)
    checkpoint = Checkpoint(Parameters(config), Vocabulary(("a", "b")))
    save_checkpoint(path, checkpoint)
    before = path.read_bytes()
    checkpoint.parameters.flat[3] = value
    with pytest.raises(CharloomError, match="NaN or infinity"):
        save_checkpoint(path, checkpoint)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("function", ["fsync", "fdopen"])
def test_a_save_that_fails_leaves_the_old_file_and_no_other(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    model = charloom.load(run)
    target = tmp_path / "model.safetensors"
    target.write_bytes(b"the old file")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, function, fail)
    with pytest.raises(CharloomError, match="No space left"):
        model.save(target)
    assert target.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [target]


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
def copies(run: Path, scratch: Path) -> list[Path]:
    """Copies of a run's model and of its resume file, to be damaged and mended."""
    names = ("model.safetensors", RESUME_FILE)
    return [Path(shutil.copy(run / name, scratch / name)) for name in names]


@given(st.integers(0, 1), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
@settings(max_examples=300, deadline=None)
@example(0, 0.0, 0)
@example(0, 0.0, 7)
@example(1, 1 - 1e-9, 7)
def test_a_single_flipped_bit_is_seen(
    run: Path, copies: list[Path], which: int, place: float, bit: int
) -> None:
    path = copies[which]
    with flipped_bit(path, int(place * path.stat().st_size), bit):
        try:
            found = load_checkpoint(path)
        except CharloomError:
            return
    assert_same_checkpoint(found, load_checkpoint(run / path.name))


def test_a_flipped_bit_in_every_byte_is_seen(copies: list[Path], model_file: bytes) -> None:
    path = copies[0]
    for place in range(len(model_file)):
        with flipped_bit(path, place, place % 8), pytest.raises(CharloomError):
            load_checkpoint(path)
    assert path.read_bytes() == model_file


@given(st.binary(max_size=200) | st.binary(max_size=100).map(with_header))
@settings(deadline=None)
def test_any_bytes_are_refused(scratch: Path, data: bytes) -> None:
    path = scratch / "damaged"
    path.write_bytes(data)
    with pytest.raises(CharloomError):
        load_checkpoint(path)


@given(json_values, json_values)
@settings(deadline=None)
def test_any_json_is_refused(scratch: Path, metadata: Any, description: Any) -> None:
    path = scratch / "damaged"
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
    "bytes-a-word": (within("config", bytes="yes"), "vocabulary"),
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
    "counts-turned": (tensor("counts.characters", lambda c: c[::-1].copy()), "in its counts"),
    "counts-shorter": (tensor("counts.characters", lambda c: c[1:]), "in its counts"),
    "counts-of-others": (tensor("counts.characters", lambda c: c + 100), "in its counts"),
    "counts-out-of-order": (tensor("counts.first", lambda f: f[::-1].copy()), "in its counts"),
    "counts-first-wider": (tensor("counts.first", lambda f: f.astype(np.int64)), "type"),
    "counts-flat": (tensor("counts.first", lambda f: f[None]), "in its counts"),
    "counts-zero": (tensor("counts.probabilities", lambda p: p * 0), "in its counts"),
    "counts-negative": (tensor("counts.weights", lambda w: -w), "in its counts"),
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
    "text": (lambda file: TEXT.encode(), "no safetensors file"),
    "html": (lambda file: b"<!DOCTYPE html>\n<html>404 Not Found</html>\n", "no safetensors"),
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


def test_changing_nothing_is_not_refused(model_file: bytes, tmp_path: Path) -> None:
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
    model_file: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file, word = damaged_file(name, model_file)
    path = tmp_path / "model.safetensors"
    path.write_bytes(file)
    with pytest.raises(CharloomError, match=r"^[^\n]+$") as caught:
        charloom.load(tmp_path)
    assert word in str(caught.value)
    for command in ("info", "sample", "evaluate"):
        line = refused(capsys, [command, str(tmp_path)])
        assert str(path) in line
        assert word in line
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == file


# --- Files that would run code or take all memory -------------------------------------------------


class Payload:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def torch_archive(path: Path, payload: bytes) -> None:
    """A file as `torch.save` writes one: a ZIP archive with a pickle in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", payload)
        archive.writestr("model/version", "3\n")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_pickle_is_never_opened(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    protocol: int,
    archived: bool,
    name: str,
) -> None:
    victim, path = tmp_path / "victim", tmp_path / name
    payload = pickle.dumps(Payload(victim), protocol)
    pickle.loads(payload)
    assert victim.exists(), "the payload must be one that works"
    victim.unlink()
    if archived:
        torch_archive(path, payload)
    else:
        path.write_bytes(payload)
    with pytest.raises(CharloomError, match="pickle" if archived or protocol >= 2 else "damaged"):
        charloom.load(path)
    for command in ("info", "sample", "evaluate"):
        refused(capsys, [command, str(path)])
    assert list(tmp_path.iterdir()) == [path]


CLAIMS: dict[str, Callable[[bytes], bytes]] = {
    "in-the-configuration": lambda file: changed(file, within("config", hidden_size=TRILLION)),
    "in-the-configuration-and-within-limits": lambda file: changed(
        file, within("config", hidden_size=65_536, layers=64)
    ),
    "in-the-vocabulary's-size": lambda file: changed(
        file, within("config", vocabulary_size=TRILLION)
    ),
    "in-the-number-of-layers": lambda file: changed(file, within("config", layers=TRILLION)),
    "in-a-tensor's-shape": lambda file: claimed_shape(file, [TRILLION, TRILLION]),
    "in-a-tensor's-place": lambda file: claimed_offsets(file, [0, 4 * TRILLION]),
    "everywhere": lambda file: everything_claimed(file, TRILLION),
    "everywhere-and-within-limits": lambda file: everything_claimed(file, 65_536),
    "in-the-header's-length": lambda file: with_header(b"{}", b"", TRILLION),
}


@pytest.mark.parametrize("place", CLAIMS)
def test_a_claim_of_a_trillion_units_costs_no_memory(
    model_file: bytes, tmp_path: Path, place: str
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(CLAIMS[place](model_file))
    load_checkpoint_or_error(path)  # what is imported and cached at first is not counted
    tracemalloc.start()
    try:
        with pytest.raises(CharloomError):
            load_checkpoint(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def load_checkpoint_or_error(path: Path) -> Checkpoint | CharloomError:
    try:
        return load_checkpoint(path)
    except CharloomError as error:
        return error


@pytest.mark.skipif(os.name != "posix", reason="limits as POSIX has them")
def test_a_claim_is_refused_where_memory_is_short(model_file: bytes, tmp_path: Path) -> None:
    """As above, of all that a process may take: NumPy's memory, safetensors' own, and mappings."""
    resource = pytest.importorskip("resource")
    used = Path("/proc/self/statm")
    if not used.exists():
        pytest.skip("this system does not tell how much memory a process has")
    path = tmp_path / "model.safetensors"
    room = int(used.read_text().split()[0]) * resource.getpagesize() + (64 << 20)
    before = resource.getrlimit(resource.RLIMIT_AS)
    for make in CLAIMS.values():
        path.write_bytes(make(model_file))
        resource.setrlimit(resource.RLIMIT_AS, (room, before[1]))
        try:
            found = load_checkpoint_or_error(path)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        assert isinstance(found, CharloomError)


# --- One file in the place of the other -----------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_resume_file_is_a_model_of_its_own(
    run: Path, resume_file: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It holds a whole model, the current one, so that it may have the other's name."""
    (tmp_path / "model.safetensors").write_bytes(resume_file)
    found = charloom.load(tmp_path).checkpoint.parameters.flat
    assert same_bytes(found, charloom.load(run / RESUME_FILE).checkpoint.parameters.flat)
    assert main(["info", str(tmp_path)]) == 0
    assert "position" in capsys.readouterr().out, "info must say that it is a resume file"


def test_a_model_cannot_be_resumed(
    run: Path, model_file: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / RESUME_FILE).write_bytes(model_file)
    before = contents(folder)
    text = str(run.parent / "woods.txt")
    line = refused(capsys, ["train", text, "--out", str(folder), "--resume", "--steps", "9"])
    assert RESUME_FILE in line
    assert contents(folder) == before


@pytest.mark.parametrize(
    "damage", [lambda file: b"", lambda file: file[:-1], lambda file: b"\x80\x04" + file]
)
def test_a_damaged_resume_file_is_refused_and_nothing_is_lost(
    run: Path,
    resume_file: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[bytes], bytes],
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / RESUME_FILE).write_bytes(damage(resume_file))
    before = contents(folder)
    text = str(run.parent / "woods.txt")
    line = refused(capsys, ["train", text, "--out", str(folder), "--resume", "--steps", "9"])
    assert RESUME_FILE in line
    assert contents(folder) == before


def state_of_other_rows(metadata: dict[str, str], tensors: Tensors) -> None:
    tensors["state"] = np.concatenate([tensors["state"]] * 3, axis=2)


def state_of_no_shape(metadata: dict[str, str], tensors: Tensors) -> None:
    tensors["state"] = tensors["state"].ravel()


def an_optimizer_lost(metadata: dict[str, str], tensors: Tensors) -> None:
    for name in [name for name in tensors if name.startswith("optimizer.")][1:]:
        del tensors[name]


def an_optimizer_unknown(metadata: dict[str, str], tensors: Tensors) -> None:
    some = next(values for name, values in tensors.items() if name.startswith("optimizer."))
    tensors["optimizer.lucky"] = some


RESUMED: dict[str, Change] = {
    "position-empty": entry("position", "{}"),
    "no-state": missing_within("position", "state"),
    "no-ends": missing_within("position", "ends"),
    "state-empty-of-a-word": within("position", state="here"),
    "state-with-more": within("position", state={"mood": 1}),
    "state-of-words": within("position", state={"step": "four"}),
    "step-negative": within("position", state={"step": -4}),
    "a-step-of-words": within_state(step="four"),
    "a-best-step-of-words": within_state(best_step="four"),
    "a-best-loss-of-words": within_state(best_loss="low"),
    "a-smoothed-loss-of-words": within_state(smoothed_loss="low"),
    "recent-steps-of-none": within_state(recent_steps=None),
    "recent-steps-negative": within_state(recent_steps=-1),
    "threads-of-words": within("position", threads="all"),
    "threads-beyond-counting": within("position", threads=10**30),
    "no-learning-rate": within("training", learning_rate=None),
    "ends-of-words": within("position", ends={"steps": "many"}),
    "lines-of-words": within("position", metrics_lines="nine"),
    "samples-negative": within("position", samples_bytes=-1),
    "training-with-more": within("training", attention=True),
    "training-lacks-nothing-but-sense": within("training", window="eight"),
    "training-of-another-size": within("training", hidden_size=3),
    "training-of-another-cell": within("training", cell="gru"),
    "no-digest-of-the-text": missing_within("text", "sha256"),
    "state-of-other-rows": state_of_other_rows,
    "state-of-no-shape": state_of_no_shape,
    "an-optimizer-lost": an_optimizer_lost,
    "an-optimizer-unknown": an_optimizer_unknown,
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_resume_file_that_makes_no_sense_is_refused(
    run: Path, resume_file: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Every entry is signed: a later version of charloom, or a joker, wrote it."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / RESUME_FILE).write_bytes(changed(resume_file, RESUMED[name]))
    before = contents(folder)
    text = str(run.parent / "woods.txt")
    refused(capsys, ["train", text, "--out", str(folder), "--resume", "--steps", "9"])
    assert contents(folder) == before


# --- What a stranger's file says is not believed, nor shown as it is ------------------------------

ODD_VALUES: list[Any] = [None, 3, "", "\x1b[2J", [], {}, "x" * 5000]


@pytest.mark.parametrize("value", ODD_VALUES, ids=range(len(ODD_VALUES)))
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("text", "origin"),
        ("text", "name"),
        ("text", "sha256"),
        ("training", "split"),
        ("training", "raw"),
        ("metrics", "validation"),
    ],
)
def test_odd_entries_harm_no_command(
    model_file: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    key: str,
    value: Any,
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(changed(model_file, within(name, **{key: value})))
    text = tmp_path / "another.txt"
    text.write_text(TEXT[:30], encoding="utf-8")
    for command in (
        ["info", str(path)],
        ["sample", str(path), "--length", "3"],
        ["evaluate", str(path)],
        ["evaluate", str(path), str(text)],
    ):
        status = main(command)
        out, err = capsys.readouterr()
        assert status in (0, 2)
        assert "Traceback" not in err
        assert "\x1b" not in out + err, "what a file holds must not reach the terminal as it is"
    assert {*tmp_path.iterdir()} == {path, text}


@pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX has them")
@pytest.mark.parametrize("origin", ["/dev/stdin", "/dev/fd/0", "a pipe"])
def test_a_stranger_s_file_cannot_make_a_command_wait(
    model_file: bytes, tmp_path: Path, origin: str
) -> None:
    """Where it says its training text was is looked for, but nothing is waited for there."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    place = str(pipe) if origin == "a pipe" else origin
    path = tmp_path / "model.safetensors"
    path.write_bytes(changed(model_file, within("text", origin=place)))
    text = tmp_path / "another.txt"
    text.write_text(TEXT[:30], encoding="utf-8")
    command = [sys.executable, "-m", "charloom", "evaluate", str(path), str(text), "--json"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as evaluating:
        try:
            assert evaluating.wait(timeout=5) == 0
        finally:
            evaluating.kill()
        assert evaluating.stdout is not None
        assert json.loads(evaluating.stdout.read())["baselines"]["xz"]["reason"]


def test_weights_that_overflow_are_one_line_or_a_number(
    run: Path, model_file: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each weight is finite, their sums are not: no NaN may be passed off as a measurement."""
    path = tmp_path / "model.safetensors"
    largest = np.finfo(np.float32).max
    path.write_bytes(
        changed(model_file, tensor("decoder.weight", lambda w: np.where(w > 0, largest, -largest)))
    )
    for command in (
        ["sample", str(path), "--length", "20", "--seed", "1"],
        ["evaluate", str(path), str(run.parent / "woods.txt"), "--json"],
    ):
        status = main(command)
        out, err = capsys.readouterr()
        assert status in (0, 2)
        assert "NaN" not in out
        assert "Infinity" not in out
        assert "Warning" not in err


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current folder, an empty one, must be empty in the end."""
    elsewhere = tmp_path.parent / f"{tmp_path.name}-current"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    yield
    assert list(elsewhere.iterdir()) == []

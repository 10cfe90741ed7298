"""Checkpoint files that were changed: as bytes, as a header and its data, or as signed tensors."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from charloom.storage import checkpoint as checkpoint_module
from charloom.storage.checkpoint import COUNTS, Checkpoint

Tensors = dict[str, NDArray[Any]]


Change = Callable[[dict[str, str], Tensors], None]


OPTIONS = ["--cell", "lstm", "--hidden-size", "2", "--batch-size", "2", "--window", "8"]


OPTIONS += ["--mix-megabytes", "0.001"]  # a table small enough to damage every byte of


TRILLION = 10**12


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
        one, other = found.mixture.counts, expected.mixture.counts
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

"""Every machine computes the same bits: a text encoded on one is decoded on another."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from charloom.context_mixing.functions import exp, log, powers_of_half
from charloom.context_mixing.layout import make_constants, make_weights
from charloom.context_mixing.mixer import (
    DECODED,
    ContextMixer,
    decode_probabilities,
    encode_probabilities,
)
from charloom.context_mixing.tables import words_of
from charloom.kernels.sizes import MACHINE
from charloom.text.vocabulary import Vocabulary
from helpers.paths import ROOT

CONSTANTS = "5ec18d3725c8614d9bafae2ee9d019ee220b2000a72d82cf550e04f8f0bc7d5b"
WEIGHTS = "a563b522190e18ccef624d08d4c78fe74fd72b03f8f41fbb5d38e4f650946394"
LEARNED = {  # by the version of the mixer
    1: "f47fd2809af0e31ff0c6b718a8f133f2323d9b42f000ae819fa3f416c0cd2c74",
    2: "f7c5325b65a0269eb814acfd250409216ac50d3be38343960abf1923d7670c42",
}
CODES = "3ce6f223c5c34809cf92ec5e7be90636d088c8b09789ce22a5d68f85b82634a3"


def digest(arrays: Iterable[np.ndarray[Any, Any]]) -> str:
    """Return the SHA-256 of arrays' bytes, in little endian."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return found.hexdigest()


def test_tables_are_these_bits() -> None:
    assert digest(make_constants()) == CONSTANTS
    assert digest(make_weights()) == WEIGHTS
    assert digest([DECODED]) == CODES


def test_functions_have_rounding_errors_only() -> None:
    x = np.concatenate([np.arange(1, 70_000) + 0.3, np.logspace(-9, 9, 1001), [1.0]])
    np.testing.assert_allclose(log(x), np.log(x), rtol=4e-16, atol=1e-16)
    x = np.linspace(-40, 40, 10_001)
    np.testing.assert_allclose(exp(x), np.exp(x), rtol=6e-16)
    i = np.arange(512)
    np.testing.assert_allclose(powers_of_half(512, 32), np.exp2(-i / 32), rtol=4e-15)


@pytest.mark.parametrize("rounded", [False, True])
def test_codes_are_rounded_logarithms(rounded: bool) -> None:
    exact = np.exp2(-np.linspace(0, 20, 100_001))
    p = exact.astype(np.float32) if rounded else DECODED
    codes = encode_probabilities(p)
    error = np.abs(-16 * np.log2(p.astype(np.float64)) - codes)
    assert error[codes < 255].max() < 0.5001
    assert (np.diff(codes.astype(int)) >= 0).all()
    np.testing.assert_array_equal(encode_probabilities(decode_probabilities(codes)), codes)
    assert encode_probabilities(np.float32([1, 1e-6, 1e-30])).tolist() == [0, 255, 255]


def learned(version: int) -> str:
    """Return the digest of a mixer that has learned a text, and of its predictions."""
    words = ("the", "cat", "sat", "on", "that", "mat", "and", "had", "a", "hat\nso", "far", "we")
    number, text = 1, ""
    while len(text) < 6000:
        number = number * 48271 % 2147483647
        text += words[number % len(words)] + (" " if number % 7 else ". ")
    vocabulary = Vocabulary.of(text)
    ids = vocabulary.encode(text)
    counts = np.bincount(ids)
    mixer = ContextMixer.empty(vocabulary, counts, len(ids), text=ids, version=version)
    mixer.learn(ids[:5500], threads=2)
    found = mixer.predict(ids[5500:, None], mixer.state[None])[0].probabilities
    tables = mixer.tables
    singles = tables.checks.astype(np.uint64) << np.uint64(48) | tables.singles
    lists = singles, words_of(tables.shorts).ravel(), tables.longs
    return digest([*lists, *mixer.frozen, *mixer.adaptive, mixer.state, found])


@pytest.mark.parametrize("version", LEARNED)
def test_a_learned_mixer_is_these_bits(version: int) -> None:
    assert learned(version) == LEARNED[version]


@pytest.mark.extended
@pytest.mark.skipif("x86" not in MACHINE, reason="names processors with other registers")
@pytest.mark.parametrize("processor", ["x86-64", "x86-64-v3"])
def test_a_processor_with_short_vectors_computes_these_bits(processor: str) -> None:
    """The same code for processors with 4 numbers in a register, and with 8 and joined products."""
    command = "import test_portable; print(*map(test_portable.learned, (1, 2)))"
    paths = os.pathsep.join(str(ROOT / part) for part in ("src", "tests", "tests/context_mixing"))
    environment = {
        **os.environ, "PYTHONPATH": paths, "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": "",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, check=True, env=environment
    )
    assert done.stdout.decode().split() == list(LEARNED.values())

"""The numbers that a version of the arithmetic stands for."""

import hashlib

import numpy as np
import pytest

import charloom
from charloom.compression.adaptive import write_text
from charloom.compression.characters import Alphabet, codes_of_bytes
from charloom.compression.container import ARITHMETIC, MARK, NEWEST
from charloom.compression.logits import logit_of, probability_of
from charloom.compression.network import NetworkPlan
from charloom.kernels.arrays import as_flat
from charloom.kernels.kernel import Kernel
from helpers.texts import QUOTING_WOODS


def logits(p, x, back):
    """Write the logits of probabilities, (N,), and the probabilities of these logits."""
    numbers, found, returned = as_flat(p), as_flat(x), as_flat(back)
    for i in range(len(p)):
        found[i] = logit_of(numbers[i])
        returned[i] = probability_of(found[i])


def test_logits_are_exact_enough() -> None:
    ends = np.geomspace(1.2e-6, 0.5, 500)
    p = np.concatenate([ends, 1 - ends]).astype(np.float32)
    x, back = np.zeros_like(p), np.zeros_like(p)
    Kernel(logits, "logits")(p, x, back)
    exact = p.astype(np.float64)
    np.testing.assert_allclose(x, np.log(exact / (1 - exact)), atol=4e-6)
    np.testing.assert_allclose(back, exact, rtol=8e-6)


def test_files_are_those_of_the_version() -> None:
    """Compare digests. If one changes, earlier files are unreadable, so make a new version."""
    assert (ARITHMETIC, NEWEST) == (3, 4)
    alphabet, ids = Alphabet.of(codes_of_bytes((QUOTING_WOODS * 6).encode()), True)
    packed = charloom.compress(QUOTING_WOODS)
    packed += write_text(alphabet, ids, 64, NetworkPlan(64, 20))
    assert hashlib.sha256(packed).hexdigest()[:16] == "3785a4676102715f"
    branches = [(0, 1), (5, 4), (6, 3), (2, 7)]
    packed = write_text(alphabet, ids, 64, NetworkPlan(), branches=branches)
    assert hashlib.sha256(packed).hexdigest()[:16] == "1e154fce06ce731e"


def test_a_file_of_another_version_is_refused() -> None:
    packed = bytearray(charloom.compress("a text of a few words"))
    for version in (ARITHMETIC - 1, NEWEST + 1):
        packed[len(MARK)] = version
        with pytest.raises(charloom.CharloomError, match="another version"):
            charloom.decompress(bytes(packed))

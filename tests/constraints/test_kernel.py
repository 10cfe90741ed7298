"""The kernels of sampling restrict a text as the definition in NumPy does."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from charloom.constraints.options import ConstraintOptions
from charloom.constraints.texts import ConstrainedText, generate_restricted
from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import Predictor
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.network.units import Clamp, Unit
from charloom.prediction.sampling import SampleRequest, in_kernel, stream_text
from charloom.prediction.side_by_side import sample_side_by_side
from charloom.text.vocabulary import END, Vocabulary
from helpers.counts import predictor_with_counts

pytest.importorskip("numba", reason="the compiled engine needs Numba")

VOCABULARIES = {
    "book": Vocabulary(tuple("\n abcdef")),
    "documents": Vocabulary((*"abcdef ", END)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "pattern": {"match": "(a|bc)+[d-f ]{2,9}( a)?"},
    "texts": {"forbid": ["ab", "c"], "require": "fed"},
    "bias": {"bias": ["a=3.5", "b=-inf", " =-1e9"]},
    "large bias": {"match": "[a-d]{5}", "bias": ["a=1e308", "b=-1e308"]},
    "all": {"match": "[a-f]{1,9}", "alphabet": "[a-e ]", "bias": "a=2", "forbid": "aa"},
}
SETTINGS = (
    SamplingSettings(),
    SamplingSettings(0),
    SamplingSettings(1.5, top_k=3, top_p=0.9),
    SamplingSettings(1e9, min_p=0.05),
)


def predictor_of(kind: str, vocabulary: Vocabulary) -> Predictor:
    if kind == "network":
        parameters = initialize(
            ModelConfig("gru", 8, 1, len(vocabulary), end_id=vocabulary.end_id), 1
        )
        parameters.flat[:] *= 3
        return Backend("compiled").open(parameters)
    ids = np.random.default_rng(3).integers(0, len(vocabulary), 3_000).astype(np.uint8)
    return predictor_with_counts(kind, vocabulary, ids, "compiled")


@pytest.fixture(
    scope="module", params=[("network", "book"), ("table", "documents"), ("mixer", "book")]
)
def model(request: pytest.FixtureRequest) -> tuple[Predictor, Vocabulary]:
    kind, name = request.param
    return predictor_of(kind, VOCABULARIES[name]), VOCABULARIES[name]


def request_for(vocabulary: Vocabulary, name: str, length: int | None = 30) -> SampleRequest:
    read = ConstraintOptions(**OPTIONS[name]).read(vocabulary, str)
    return SampleRequest(length=length, constraints=read)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_kernel_samples_what_numpy_does(model: tuple[Predictor, Vocabulary], name: str) -> None:
    predictor, vocabulary = model
    request = replace(request_for(vocabulary, name), clamps=(Clamp(Unit(0, 0, 3), 0.8),))
    assert in_kernel(predictor, [ConstrainedText(request.constraints, 30, vocabulary.end_id)])
    for settings in SETTINGS:
        request = replace(request, settings=settings)
        documents = list(sample_side_by_side(predictor, vocabulary, request, range(8), 3))
        for index, document in enumerate(documents):
            stream = stream_text(predictor, vocabulary, replace(request, index=index))
            assert "".join(stream.characters) == document.characters
            assert stream.finish_reason == document.finish_reason
            assert name != "large bias" or document.characters == "aaaaa"


def test_rows_without_constraints_keep_their_bytes(model: tuple[Predictor, Vocabulary]) -> None:
    predictor, vocabulary = model
    generator = np.random.default_rng(2)
    uniforms, ids = generator.random((20, 5)), generator.integers(0, 6, 5)
    state = predictor.zero_state(5)
    free, _ = predictor.generate(ids, state, SETTINGS[2], uniforms)
    texts = [
        None if row % 2 else ConstrainedText(request_for(vocabulary, name).constraints, 15, None)
        for row, name in enumerate(["pattern", "", "all", "", "bias"])
    ]
    mixed, counts, _ = generate_restricted(
        texts, lambda rules: predictor.generate(ids, state, SETTINGS[2], uniforms, (), rules)
    )
    np.testing.assert_array_equal(mixed[:, [1, 3]], free[:, [1, 3]])
    assert counts[[1, 3, 4]].tolist() == [20, 20, 20]
    assert max(counts[[0, 2]]) <= 15

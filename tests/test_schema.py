"""Types as schemas: what fits, what does not, and how a mismatch is described."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest
from msgspec import Meta

from charloom.schema import Count, Finite, find_mismatch, find_wrong_field

Size = Annotated[int, Meta(ge=1, le=65_536)]
Rate = Annotated[float, Meta(ge=0, lt=1)]
Time = Annotated[float, Meta(gt=0, le=1e7)]


@dataclass
class Inner:
    size: Size = 1
    names: list[str] | None = None


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner
    sizes: dict[str, Size] = {}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1, Size),
        (65_536, Size),
        (None, Size | None),
        (0, Rate),
        (0.999, Rate),
        (np.float64(0.5), Rate),
        (1e7, Time),
        (5, Time),
        ("cpu", Literal["cpu", "cuda"]),
        (True, bool),
        (10**15 - 1, Count),
        (-1e308, Finite),
        ({"inner": {}}, Outer),
        ({"inner": {"size": 3, "names": ["a"], "later": 1}, "sizes": {"a": 1}}, Outer),
    ],
)
def test_a_value_that_fits_has_no_mismatch(value: Any, kind: Any) -> None:
    assert find_mismatch(value, kind) is None


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (0, Size, "a whole number from 1 to 65,536"),
        (10**400, Size, "a whole number from 1 to 65,536"),
        (1.0, Size, "a whole number from 1 to 65,536"),
        (True, Size, "a whole number from 1 to 65,536"),
        ("1", Size, "a whole number from 1 to 65,536"),
        (None, Size, "a whole number from 1 to 65,536"),
        (1, Rate, "a number of at least 0 and below 1"),
        (math.nan, Rate, "a number of at least 0 and below 1"),
        (True, Rate, "a number of at least 0 and below 1"),
        ("0.5", Rate, "a number of at least 0 and below 1"),
        (0, Time, "a number above 0 and at most 10,000,000"),
        (math.inf, Time, "a number above 0 and at most 10,000,000"),
        (10**400, Time | None, "a number above 0 and at most 10,000,000"),
        (math.nan, Finite, "a finite number"),
        (-math.inf, Finite | None, "a finite number"),
        (-1, Count, "a whole number of at least 0 and below 1,000,000,000,000,000"),
        ("tpu", Literal["cpu", "cuda"], "one of cpu, cuda"),
        (["cpu"], Literal["cpu", "cuda"], "one of cpu, cuda"),
        ("gpt2", Literal["charloom"], "'charloom'"),
        (1, bool, "true or false"),
        (1, str, "a string"),
        ({}, list[str], "a list"),
        ([], dict[str, Any], "an object"),
        ([], Outer, "an object"),
    ],
)
def test_a_mismatch_names_the_expected_values(value: Any, kind: Any, expected: str) -> None:
    mismatch = find_mismatch(value, kind)
    assert mismatch is not None
    assert mismatch.expected == expected


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({}, "inner is missing"),
        ({"inner": {}, "mood\n": 1}, "unknown entry mood\\n"),
        ({"inner": {}, "a` - at `$.b": 1}, "object contains unknown field `a`"),
        ({"inner": 3}, "inner is 3, not an object"),
        ({"inner": {"size": "big"}}, "inner.size is 'big', not a whole number from 1 to 65,536"),
        ({"inner": {"size": 0}}, "inner.size is 0, not a whole number from 1 to 65,536"),
        ({"inner": {"names": ["a", 2]}}, "inner.names[1] is 2, not a string"),
        ({"inner": {}, "sizes": {"a": 0}}, "expected `int` >= 1"),
    ],
)
def test_a_mismatch_within_an_object_names_its_place(value: Any, problem: str) -> None:
    mismatch = find_mismatch(value, Outer)
    assert mismatch is not None
    assert mismatch.problem == problem


def test_the_wrong_field_of_an_instance_is_found() -> None:
    assert find_wrong_field(Inner(2)) is None
    mismatch = find_wrong_field(Inner(65_537))
    assert mismatch is not None
    assert mismatch.problem == "size is 65537, not a whole number from 1 to 65,536"

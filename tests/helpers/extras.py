"""Which tests need more than the extra `test`, and what they need.

A test is *extended* if it is slow or needs an extra. README's command leaves those out (`addopts`
in pyproject.toml), whatever is installed; `pytest -m extended` runs all of them, `pytest -m torch`
and the like some. Folders mark their tests: all in `browser/` are marked `browser`.
"""

from importlib.util import find_spec

import pytest

# Marker: what must be importable for its tests.
EXTRAS = {
    "browser": ("playwright",),
    "constrain": ("llguidance", "jsonschema"),
    "hub": ("huggingface_hub",),
    "notebook": ("ipykernel", "matplotlib", "nbclient", "nbformat"),
    "onnx": ("onnx", "onnxruntime"),
    "torch": ("torch",),
    "tune": ("optuna",),
}
EXTENDED = (*EXTRAS, "docs", "foreign", "slow")
# Folder, from tests/: the marker of its tests.
FOLDERS = {
    "browser": "browser",
    "docs": "docs",
    "exchange/hub": "hub",
    "foreign": "foreign",
    "promises": "slow",
    "tuning": "tune",
}
# Fixture: the marker of the tests that use it.
FIXTURES = {
    "browser": "browser",
    "finished_search": "tune",
    "torch": "torch",
    "warm_compiler": "torch",
}
# Not even imported without the extra.
IMPORTING = {"hub": ["exchange/hub"], "torch": ["contracts/test_against_pytorch.py"]}


def is_installed(extra: str) -> bool:
    return all(find_spec(module) is not None for module in EXTRAS[extra])


def needs(module: str) -> pytest.MarkDecorator:
    """Skip a test where a package that no extra of ours is named after is missing."""
    return pytest.mark.skipif(find_spec(module) is None, reason=f"{module} is not installed")

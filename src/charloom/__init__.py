"""charloom: a recurrent language model of the characters of your own text, on a laptop's CPU.

    model = charloom.train("book.txt", minutes=3)   # or charloom.load("runs/book")
    print(model.sample("The ", length=300, temperature=0.8))

What is named here is loaded when it is first used, so that `import charloom` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from charloom.errors import CharloomError
    from charloom.gradient_check import check_gradients
    from charloom.language_model import LanguageModel, load
    from charloom.runs import train

_PLACES = {
    "CharloomError": "errors",
    "LanguageModel": "language_model",
    "check_gradients": "gradient_check",
    "load": "language_model",
    "train": "runs",
}

__all__ = ["CharloomError", "LanguageModel", "__version__", "check_gradients", "load", "train"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'charloom' has no attribute {name!r}")
    return getattr(import_module(f"charloom.{_PLACES[name]}"), name)

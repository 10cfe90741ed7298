"""charloom: a recurrent language model of the characters of your own text, on a laptop's CPU.

    model = charloom.train("book.txt", minutes=3)   # or charloom.load("runs/book")
    print(model.sample("The ", length=300, temperature=0.8))

These names are the public interface; the packages behind them can change. Each name is imported
when it is first used, so that `import charloom` loads nothing heavy.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from charloom.version import __version__

if TYPE_CHECKING:
    from charloom.analysis.exploration import Exploration, LabelFound, UnitFound, explore
    from charloom.analysis.lines import LineSurprisal, surprisal_of_lines
    from charloom.analysis.surprisal import Surprisal, surprisal_of
    from charloom.compression.api import compress, decompress
    from charloom.errors import CharloomError, CharloomWarning
    from charloom.evaluation.baselines import Baseline
    from charloom.evaluation.evaluation import Evaluation
    from charloom.evaluation.records import keep_evaluation
    from charloom.exchange.export import export
    from charloom.exchange.html import export_html
    from charloom.exchange.hub import HubModel as HubModel
    from charloom.exchange.pytorch import import_pytorch
    from charloom.language_model import LanguageModel, load
    from charloom.network.gradient_check import check_gradients
    from charloom.network.parameters import GATES, ModelConfig
    from charloom.prediction.likeliest import LikelyText
    from charloom.prediction.sampling import TextStream
    from charloom.prediction.scoring import Scores
    from charloom.prediction.side_by_side import SampledDocument
    from charloom.runs.api import train
    from charloom.runs.report import write_report
    from charloom.serving.connection import open_socket
    from charloom.serving.server import Server
    from charloom.storage.facts import info
    from charloom.text.corpora import CorpusInfo, list_corpora, open_text
    from charloom.text.overlap import CopiedStretch, Overlap
    from charloom.text.source import Text
    from charloom.text.vocabulary import UnknownCharacterError, Vocabulary
    from charloom.training.options import PRESETS, TrainingConfig
    from charloom.training.state import Progress
    from charloom.tuning.api import tune
    from charloom.tuning.search import Search, SearchProgress
    from charloom.tuning.settings import Settings, Trial

_MODULES = {
    "Baseline": "evaluation.baselines",
    "CharloomError": "errors",
    "CharloomWarning": "errors",
    "CopiedStretch": "text.overlap",
    "CorpusInfo": "text.corpora",
    "Evaluation": "evaluation.evaluation",
    "Exploration": "analysis.exploration",
    "GATES": "network.parameters",
    "HubModel": "exchange.hub",
    "LabelFound": "analysis.exploration",
    "LanguageModel": "language_model",
    "LikelyText": "prediction.likeliest",
    "LineSurprisal": "analysis.lines",
    "ModelConfig": "network.parameters",
    "Overlap": "text.overlap",
    "PRESETS": "training.options",
    "Progress": "training.state",
    "SampledDocument": "prediction.side_by_side",
    "Scores": "prediction.scoring",
    "Search": "tuning.search",
    "SearchProgress": "tuning.search",
    "Server": "serving.server",
    "Settings": "tuning.settings",
    "Surprisal": "analysis.surprisal",
    "Text": "text.source",
    "TextStream": "prediction.sampling",
    "TrainingConfig": "training.options",
    "Trial": "tuning.settings",
    "UnitFound": "analysis.exploration",
    "UnknownCharacterError": "text.vocabulary",
    "Vocabulary": "text.vocabulary",
    "check_gradients": "network.gradient_check",
    "compress": "compression.api",
    "decompress": "compression.api",
    "explore": "analysis.exploration",
    "export": "exchange.export",
    "export_html": "exchange.html",
    "import_pytorch": "exchange.pytorch",
    "info": "storage.facts",
    "keep_evaluation": "evaluation.records",
    "list_corpora": "text.corpora",
    "load": "language_model",
    "open_socket": "serving.connection",
    "open_text": "text.corpora",
    "surprisal_of": "analysis.surprisal",
    "surprisal_of_lines": "analysis.lines",
    "train": "runs.api",
    "tune": "tuning.api",
    "write_report": "runs.report",
}

# HubModel is missing, so that `from charloom import *` needs no extra.
__all__ = [
    "GATES",
    "PRESETS",
    "Baseline",
    "CharloomError",
    "CharloomWarning",
    "CopiedStretch",
    "CorpusInfo",
    "Evaluation",
    "Exploration",
    "LabelFound",
    "LanguageModel",
    "LikelyText",
    "LineSurprisal",
    "ModelConfig",
    "Overlap",
    "Progress",
    "SampledDocument",
    "Scores",
    "Search",
    "SearchProgress",
    "Server",
    "Settings",
    "Surprisal",
    "Text",
    "TextStream",
    "TrainingConfig",
    "Trial",
    "UnitFound",
    "UnknownCharacterError",
    "Vocabulary",
    "__version__",
    "check_gradients",
    "compress",
    "decompress",
    "explore",
    "export",
    "export_html",
    "import_pytorch",
    "info",
    "keep_evaluation",
    "list_corpora",
    "load",
    "open_socket",
    "open_text",
    "surprisal_of",
    "surprisal_of_lines",
    "train",
    "tune",
    "write_report",
]


if not TYPE_CHECKING:  # because a type checker would accept every name

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module 'charloom' has no attribute {name!r}")
        return getattr(_import_module(f"charloom.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*_MODULES, "__version__"]

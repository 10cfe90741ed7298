"""A model folder in the layout of Hugging Face Hub: configuration, weights and card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from charloom.errors import CharloomError, error_reason, printable, shortened
from charloom.evaluation.records import Records
from charloom.exchange.card import is_as_written, model_card, published
from charloom.json_text import to_json
from charloom.schema import find_mismatch
from charloom.storage.atomic import write_atomically
from charloom.storage.checkpoint import FORMAT, Checkpoint, save_checkpoint
from charloom.storage.folders import EVALUATIONS_FILE, MODEL_FILE
from charloom.text.vocabulary import END

CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
MODEL_TYPE = "charloom"  # the entry of `config.json` by which a folder is recognized


class HubConfig(msgspec.Struct):
    """The entry of `config.json` that marks a folder as charloom's; `hub_config` adds the rest."""

    model_type: Literal["charloom"]


def write_folder(checkpoint: Checkpoint, records: Records, folder: Path, **metadata: Any) -> bool:
    """Write a model's folder in the Hub's layout, over an earlier one.

    Args:
        checkpoint: the model.
        records: evaluations, as `read_evaluations` returns them.
        folder: the folder, which is created if it is missing.
        metadata: entries of the card's metadata, as in `model_card`.

    Returns:
        Whether a card was kept because it was edited.

    Raises:
        CharloomError: if the folder contains files of another origin or cannot be written.
    """
    # An interrupted run's current weights are a model too, without the state for resuming.
    checkpoint = replace(checkpoint, optimizer={}, state=None, position=None)
    found = published(checkpoint, records)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        card = model_card(checkpoint, found, **{"model_name": folder.resolve().name, **metadata})
        if not (folder / CONFIG_FILE).exists():
            for name in (MODEL_FILE, EVALUATIONS_FILE):
                if (folder / name).exists():
                    raise CharloomError(
                        f"{folder / name} exists and would be overwritten: pass a new folder"
                    )
        elif find_mismatch(_read_json(folder / CONFIG_FILE), HubConfig):
            raise CharloomError(
                f"{folder / CONFIG_FILE} exists and is not charloom's: pass a new folder"
            )
        # The configuration first, so that a partly written folder is recognized as charloom's.
        _write_json(folder / CONFIG_FILE, hub_config(checkpoint))
        save_checkpoint(folder / MODEL_FILE, checkpoint)
        _write_json(folder / EVALUATIONS_FILE, found)
        if (folder / CARD_FILE).exists() and not is_as_written(folder / CARD_FILE):
            return True
        write_atomically(folder / CARD_FILE, str(card).encode())
    except CharloomError:
        raise
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # also for names that are invalid for a folder
        reason = getattr(error, "strerror", None) or error
        raise CharloomError(
            f"cannot write to {shortened(str(folder))} ({reason}): pass another folder"
        ) from None
    return False


def hub_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the contents of `config.json`, for programs that cannot read the checkpoint."""
    mixture, end_id = checkpoint.mixture, checkpoint.vocabulary.end_id
    # By the names that other programs read, the end of a document also begins every text.
    ends = {} if end_id is None else {"bos_token_id": end_id, "eos_token_id": end_id}
    return {
        "model_type": MODEL_TYPE,
        "format": FORMAT,
        **checkpoint.config.as_dict(),
        "bytes": checkpoint.vocabulary.as_bytes,
        "counts": None if mixture is None else {"context": mixture.counts.context},
        # As in the checkpoint, the end of a document is an empty string.
        "vocabulary": ["" if c == END else c for c in checkpoint.vocabulary.characters],
        **ends,
    }


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """Read a folder's config.json, or return an empty dictionary if it is missing.

    Raises:
        CharloomError: if the model is not charloom's.
    """
    if not (folder / CONFIG_FILE).is_file():
        return {}
    config = _read_json(folder / CONFIG_FILE)
    if mismatch := find_mismatch({"model_type": None} | config, HubConfig):
        raise CharloomError(
            f"{printable(name)} is not a charloom model: in its {CONFIG_FILE} {mismatch.problem}"
        )
    return config


def _read_json(path: Path) -> dict[str, Any]:
    """Read a file's JSON object, or return an empty dictionary for any other content."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    except OSError as error:
        raise CharloomError(f"cannot read {path}: {error_reason(error)}") from None
    return found if isinstance(found, dict) else {}


def _write_json(path: Path, value: Any) -> None:
    write_atomically(path, (to_json(value, indent=1, allow_nan=False) + "\n").encode())

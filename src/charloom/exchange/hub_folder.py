"""A model folder in the layout of Hugging Face Hub: configuration, weights and card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from charloom.errors import CharloomError, printable, shortened
from charloom.exchange.card import Evaluations, evaluations_of, is_as_written, model_card
from charloom.schema import find_mismatch
from charloom.storage.atomic import write_atomically
from charloom.storage.checkpoint import FORMAT, Checkpoint, save_checkpoint
from charloom.storage.folders import EVALUATIONS_FILE, MODEL_FILE

CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
MODEL_TYPE = "charloom"


class HubConfig(msgspec.Struct):
    """The entry of `config.json` that marks a folder as charloom's; `hub_config` adds the rest."""

    model_type: Literal["charloom"]


# The folder.


def write_folder(
    checkpoint: Checkpoint, evaluations: Evaluations, folder: Path, **metadata: Any
) -> bool:
    """Writes a model's folder in the hub's layout, over an earlier one; returns whether a card was
    kept because somebody changed it. metadata: more of the card's, as for `model_card`.

    Raises CharloomError where the folder holds files that were not written so, or cannot be
    written.
    """
    # The current weights of an interrupted run are a model too, without what it goes on with.
    checkpoint = replace(checkpoint, optimizer={}, state=None, position=None)
    found = [dict(entry) for entry in evaluations_of(checkpoint, evaluations)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        card = model_card(checkpoint, found, **{"model_name": folder.resolve().name, **metadata})
        if not (folder / CONFIG_FILE).exists():
            for name in (MODEL_FILE, EVALUATIONS_FILE):
                if (folder / name).exists():
                    raise CharloomError(
                        f"{folder / name} is there and would be overwritten: give a new folder"
                    )
        elif find_mismatch(_read_json(folder / CONFIG_FILE), HubConfig):
            raise CharloomError(f"{folder / CONFIG_FILE} is there and not ours: give a new folder")
        # In this order a folder that was left half-way is known to be ours.
        _write_json(folder / CONFIG_FILE, hub_config(checkpoint))
        save_checkpoint(folder / MODEL_FILE, checkpoint)
        _write_json(folder / EVALUATIONS_FILE, found)
        if (folder / CARD_FILE).exists() and not is_as_written(folder / CARD_FILE):
            return True
        write_atomically(folder / CARD_FILE, str(card).encode())
    except CharloomError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # also of names that no folder can have
        reason = getattr(error, "strerror", None) or error
        raise CharloomError(
            f"cannot write to {shortened(str(folder))} ({reason}): give another folder"
        ) from None
    return False


def hub_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `config.json` says, for programs that do not read the checkpoint's own header."""
    mixture = checkpoint.mixture
    return {
        "model_type": MODEL_TYPE,
        "format": FORMAT,
        **checkpoint.config.as_dict(),
        "bytes": checkpoint.vocabulary.as_bytes,
        "counts": None if mixture is None else {"context": mixture.table.context},
        "vocabulary": list(checkpoint.vocabulary.characters),
    }


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """The folder's config.json, empty where there is none. Raises CharloomError where it says that
    the model is not charloom's."""
    if not (folder / CONFIG_FILE).is_file():
        return {}
    config = _read_json(folder / CONFIG_FILE)
    if mismatch := find_mismatch({"model_type": None} | config, HubConfig):
        raise CharloomError(
            f"{printable(name)} is no model of charloom: in its {CONFIG_FILE} {mismatch.problem}"
        )
    return config


def _read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object; an empty one for anything else that it may hold."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    except OSError as error:
        raise CharloomError(f"{path} cannot be read: {error.strerror or error}") from None
    return found if isinstance(found, dict) else {}


def _write_json(path: Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())

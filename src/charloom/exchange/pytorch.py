"""Export a model as a PyTorch state dict, and import a state dict as a model.

V: characters in the vocabulary; H: hidden units; L: layers; G: gates (1 rnn, 3 gru, 4 lstm);
T: time steps; B: rows of a batch; S: arrays of state (2 for lstm, else 1); E: extra inputs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from charloom.errors import CharloomError, error_reason, plural, shortened
from charloom.network.choices import Cell, NumberType
from charloom.network.parameters import GATES, ModelConfig, Parameters
from charloom.storage.atomic import write_atomically
from charloom.storage.checkpoint import Checkpoint, in_order, refuse_other_files, save_checkpoint
from charloom.storage.folders import MODEL_FILE
from charloom.text.vocabulary import END, Vocabulary

WRITTEN_BY = "# Written by charloom export."
UNSEEN = "unseen", "characters"  # entries of a text that UnseenCharacters requires
MODULES = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}


def export_pytorch(checkpoint: Checkpoint, out: Path) -> str:
    """Write a state dict in safetensors, and beside it the Python code that loads it.

    The header contains configuration and vocabulary.

    Returns:
        The Python code.

    Raises:
        CharloomError: if the file name has another suffix, or if the code would overwrite a file
            of another origin.
        OSError: if a file cannot be written.
    """
    script = out.with_suffix(".py")
    check_suffix(out, ".safetensors")
    if script.exists() and not script.read_bytes().startswith(WRITTEN_BY.encode()):
        raise CharloomError(f"{script} exists and is not charloom's: pass another --out")
    header = exported_header(checkpoint) | {"format": "pt"}  # the customary mark of PyTorch's files
    write_atomically(out, in_order(save(dict(checkpoint.parameters), metadata=header)))
    lines = _loading(checkpoint, out)
    if checkpoint.config.norm == "rms":
        layers = files("charloom.engines").joinpath("pytorch_normalized.py").read_text("utf-8")
        lines = f"{layers}\n\n{lines}"
    write_atomically(script, f"{WRITTEN_BY}\n{lines}".encode())
    return lines


def _loading(checkpoint: Checkpoint, out: Path) -> str:
    config, vocabulary = checkpoint.config, checkpoint.vocabulary
    first = repr(vocabulary.characters[vocabulary.start_id])
    what, going_on = "one character", "continue with rnn(..., state)"
    if vocabulary.end_id is not None:
        first, what = '[""]', "the end of a document"
        going_on += ', but before "" from zeros'
    size, hidden, extra = config.vocabulary_size, config.hidden_size, config.extra_inputs
    dtype = f"torch.{config.dtype}"
    inputs = f"torch.nn.functional.one_hot(ids, {size}).to({dtype})"
    extra_inputs = ""
    if extra:
        inputs = f"torch.cat([{inputs}, extra], 2)"
        extra_inputs = (
            f"extra = torch.zeros(*ids.shape, {extra}, dtype={dtype})"
            "  # (T, B, E): pass the extra inputs here\n"
        )
    module = f"torch.nn.{MODULES[config.cell]}("
    if config.norm == "rms":
        module = f"NormalizedNetwork({config.cell!r}, "
    return f"""\
import json, torch
from safetensors import safe_open
with safe_open({str(out)!r}, "pt") as file:
    tensors = {{name: file.get_tensor(name) for name in file.keys()}}
    vocabulary = json.loads(file.metadata()["vocabulary"])
rnn = {module}{size + extra}, {hidden}, {config.layers}, dtype={dtype})
decoder = torch.nn.Linear({hidden}, {size}, dtype={dtype})
torch.nn.ModuleDict({{"rnn": rnn, "decoder": decoder}}).load_state_dict(tensors)
ids = torch.tensor([[vocabulary.index(c)] for c in {first}])  # (T, B): here {what}
{extra_inputs}y, state = rnn({inputs})
logits = decoder(y)  # (T, B, V); {going_on}
"""


def exported_header(checkpoint: Checkpoint) -> dict[str, str]:
    """Return configuration, vocabulary and the share of unseen characters in JSON.

    The vocabulary has "" for the end of a document.
    """
    config = checkpoint.config.as_dict() | {"bytes": checkpoint.vocabulary.as_bytes}
    header = {
        "config": json.dumps(config, sort_keys=True),
        "vocabulary": json.dumps(["" if c == END else c for c in checkpoint.vocabulary.characters]),
    }
    text = {name: checkpoint.text[name] for name in UNSEEN if name in checkpoint.text}
    return header | ({"text": json.dumps(text, sort_keys=True)} if text else {})


def _read_text(header: Mapping[str, str]) -> dict[str, Any]:
    """Read the entry `text` of a header; nothing if it is missing or damaged."""
    try:
        text = json.loads(header.get("text", "{}"))
        return {name: text[name] for name in UNSEEN if isinstance(text[name], (int, float))}
    except (ValueError, RecursionError, LookupError, TypeError):
        return {}


def _read_shape(header: Mapping[str, str]) -> dict[str, Any]:
    """Read from a header what tensors do not show: E, and whether products are normalized."""
    try:
        config = json.loads(header["config"])
        found = {name: config[name] for name in ("extra_inputs", "norm") if name in config}
    except (ValueError, RecursionError, LookupError, TypeError):
        return {}
    extra = found.get("extra_inputs")
    shape: dict[str, Any] = {"norm": "rms"} if found.get("norm") == "rms" else {}
    return shape | ({"extra_inputs": extra} if type(extra) is int and extra > 0 else {})


def check_suffix(out: Path, suffix: str) -> None:
    if out.suffix != suffix:
        raise CharloomError(
            f"--out is {shortened(str(out))}: pass a file name that ends in {suffix}"
        )


KINDS = "weight_ih", "weight_hh", "bias_ih", "bias_hh", "norm_ih", "norm_hh"
RECURRENT = re.compile(rf"(.*?)({'|'.join(KINDS)})_l(\d{{1,4}})", re.S)
TYPES: dict[str, NumberType] = {"F32": "float32", "F64": "float64"}

Shapes = dict[str, tuple[int, ...]]


def import_pytorch(
    file: str | os.PathLike[str],
    vocabulary: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str],
) -> Path:
    """Make a model from a PyTorch state dict in safetensors.

    An nn.RNN is assumed to use tanh, because a state dict does not record the nonlinearity.

    Args:
        file: the state dict.
        vocabulary: a JSON file, a list of characters or one string in the order of their ids. In a
            list, "" is the end of a document. A file that `export_pytorch` wrote does not need it.
        out: the model's folder, which must be empty or missing.

    Returns:
        The path of the model's file.

    Raises:
        CharloomError: if the file is not such a state dict or cannot be read, or if the folder
            cannot be written.
    """
    checkpoint = _read_state_dict(Path(file), None if vocabulary is None else Path(vocabulary))
    folder = Path(out)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise CharloomError(f"{folder} is not empty: pass a new folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(folder / MODEL_FILE, checkpoint)
    except OSError as error:
        raise CharloomError(
            f"cannot write to {shortened(str(folder))} ({error_reason(error)}): pass another --out"
        ) from None
    return folder / MODEL_FILE


def _read_state_dict(path: Path, vocabulary: Path | None) -> Checkpoint:
    try:
        refuse_other_files(path)
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            pieces = {name: file.get_slice(name) for name in names}
            header = file.metadata() or {}
            known = _read_vocabulary(vocabulary, header)
            found = _StateDict(
                path,
                {name: tuple(pieces[name].get_shape()) for name in names},
                {name: pieces[name].get_dtype() for name in names},
                known,
                _read_shape(header),
            )
            parameters = Parameters(found.config)
            for name, source in found.sources().items():
                parameters[name][...] = file.get_tensor(source)
                if not np.isfinite(parameters[name]).all():
                    raise CharloomError(f"{path} contains NaN or infinity in {source}")
    except FileNotFoundError:
        raise CharloomError(f"{path} not found: pass an existing file") from None
    except OSError as error:
        raise CharloomError(f"cannot read {path}: {error_reason(error)}") from None
    except SafetensorError as error:
        raise CharloomError(f"{path} is damaged ({' '.join(str(error).split())})") from None
    return Checkpoint(parameters, known, text={} if vocabulary else _read_text(header))


def _read_vocabulary(path: Path | None, header: Mapping[str, str]) -> Vocabulary:
    """Read the characters, in the order of their ids, from a file or from the header."""
    where = "the file's header" if path is None else str(path)
    as_bytes = False
    try:
        if path is not None:
            characters = json.loads(path.read_text("utf-8"))
        elif "vocabulary" in header:
            characters = json.loads(header["vocabulary"])
            as_bytes = json.loads(header.get("config", "{}")).get("bytes") is True
        else:
            raise CharloomError(
                "the state dict has no vocabulary: pass its characters in the order of their ids "
                "with --vocabulary FILE.json"
            )
    except FileNotFoundError:
        raise CharloomError(f"{path} not found: pass an existing file") from None
    except OSError as error:
        raise CharloomError(f"cannot read {path}: {error_reason(error)}") from None
    except CharloomError:
        raise
    except (ValueError, RecursionError, AttributeError):
        raise CharloomError(
            f"{where} is not valid JSON: pass a list of characters, or one string"
        ) from None
    is_list = isinstance(characters, list) and all(isinstance(c, str) for c in characters)
    if not is_list and not isinstance(characters, str):
        raise CharloomError(
            f"{where} is not a vocabulary: pass a list of characters, or one string"
        )
    # In files the end of a document is "", and half of a surrogate pair is invalid.
    ends = {"": END, END: "\ud800"}
    try:
        return Vocabulary(tuple(ends.get(c, c) for c in characters), as_bytes)
    except CharloomError as error:
        raise CharloomError(f"{where}: {error}") from None


class _StateDict:
    """The tensors of a state dict, which must be one recurrent network and one decoder.

    Args:
        path: its file, for error messages.
        shapes: each tensor's shape.
        types: each tensor's number type, as safetensors names it.
        vocabulary: the characters.
        shape: `extra_inputs` and `norm` of the header. They are not inferred, because a vocabulary
            that lacks characters would look like extra inputs.

    Raises:
        CharloomError: if the configuration cannot be inferred from the shapes and types.
    """

    def __init__(
        self,
        path: Path,
        shapes: Shapes,
        types: Mapping[str, str],
        vocabulary: Vocabulary,
        shape: Mapping[str, Any],
    ) -> None:
        self._path, self._shapes = path, shapes
        found = [match for name in shapes if (match := RECURRENT.fullmatch(name))]
        self._prefix = self._find_prefix({match[1] for match in found})
        cell, hidden_size = self._find_cell()
        layers = 1 + max(int(match[3]) for match in found)
        dtype = self._find_type(set(types.values()))
        self.config = ModelConfig(
            cell,
            hidden_size,
            layers,
            len(vocabulary),
            dtype=dtype,
            end_id=vocabulary.end_id,
            **shape,
        )

    def _find_prefix(self, prefixes: set[str]) -> str:
        """Return the prefix of the recurrent network's tensors, such as `rnn.`."""
        if len(prefixes) != 1:
            what = f"{len(prefixes)} recurrent networks" if prefixes else "no recurrent network"
            raise CharloomError(
                f"{self._path} contains {what}: it must contain one, with names like "
                "rnn.weight_ih_l0"
            )
        (prefix,) = prefixes
        return prefix

    def _find_cell(self) -> tuple[Cell, int]:
        """Return the cell and its hidden units, inferred from the shape (G·H, H)."""
        name = f"{self._prefix}weight_hh_l0"
        shape = self._shapes.get(name, ())
        if len(shape) == 2 and shape[1] and shape[0] % shape[1] == 0:
            for cell, gates in GATES.items():
                if shape[0] == gates * shape[1]:
                    return cell, shape[1]
        raise CharloomError(
            f"{self._path}: {name} "
            + (f"has shape {shape}" if shape else "is missing")
            + ": it must be (G·H, H), where G is 1 for rnn, 3 for gru and 4 for lstm"
        )

    def _find_type(self, types: set[str]) -> NumberType:
        if len(types) != 1 or not types <= set(TYPES):
            raise CharloomError(
                f"{self._path} contains numbers of type {', '.join(sorted(types))}: all must be "
                "F32, or all F64"
            )
        return TYPES[types.pop()]

    def sources(self) -> dict[str, str]:
        """Return the name of the tensor for each parameter of the model.

        Raises:
            CharloomError: if a tensor is missing, superfluous or of another shape.
        """
        expected = self.config.shapes()
        sources = {
            name: self._prefix + name.removeprefix("rnn.")
            for name in expected
            if name.startswith("rnn.")
        }
        sources |= self._find_decoder(set(self._shapes) - set(sources.values()))
        missing = sorted(set(sources.values()) - set(self._shapes))
        extra = sorted(set(self._shapes) - set(sources.values()))
        if missing:
            raise CharloomError(f"{self._path} lacks tensors: {_listed(missing)}")
        if extra:
            raise CharloomError(f"{self._path} contains unexpected tensors: {_listed(extra)}")
        for name, shape in expected.items():
            found = self._shapes[sources[name]]
            if found != shape:
                further = ""
                if name == "rnn.weight_ih_l0" and found[1:] > shape[1:]:
                    further = (
                        ": pass all characters of the network. It cannot read other inputs beside "
                        "them, unless the file is an export of charloom, whose header counts them"
                    )
                raise CharloomError(
                    f"{self._path}: {sources[name]} has shape {found}, not {shape}, with "
                    f"{plural(self.config.vocabulary_size, 'character')} in the vocabulary and "
                    f"{plural(self.config.hidden_size, 'hidden unit')}{further}"
                )
        return sources

    def _find_decoder(self, others: set[str]) -> dict[str, str]:
        """Return the names of the decoder's tensors.

        The decoder can have any name, because no other weight and bias remain beside the recurrent
        network.
        """
        expected, decoder = self.config.shapes(), {}
        for name, dimensions in (("decoder.weight", 2), ("decoder.bias", 1)):
            fitting = [other for other in others if len(self._shapes[other]) == dimensions]
            exact = [other for other in fitting if self._shapes[other] == expected[name]]
            candidates = exact if len(exact) == 1 else fitting
            decoder[name] = candidates[0] if len(candidates) == 1 else name
        return decoder


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

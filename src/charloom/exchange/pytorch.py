"""In and out: a model as a PyTorch state dict or an ONNX graph, and a state dict as a model.

V: characters in the vocabulary; H: hidden units; L: layers; G: gates (1 rnn, 3 gru, 4 lstm);
T: time steps; B: rows of a batch; S: arrays of state (2 for lstm, else 1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from charloom.errors import CharloomError, shortened
from charloom.network.choices import NumberType
from charloom.network.parameters import GATES, ModelConfig, Parameters
from charloom.storage.atomic import write_atomically
from charloom.storage.checkpoint import Checkpoint, in_order, refuse_other_files, save_checkpoint
from charloom.storage.folders import MODEL_FILE
from charloom.text.vocabulary import Vocabulary

# Out, to PyTorch.

WRITTEN_BY = "# Written by charloom export."
MODULES = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}


def export_pytorch(checkpoint: Checkpoint, out: Path) -> str:
    """Writes a state dict in safetensors, with configuration and vocabulary in its header, and
    beside it the lines of Python that load it, which are returned.

    Raises CharloomError where the name will not do; OSError.
    """
    script = out.with_suffix(".py")
    check_suffix(out, ".safetensors")
    if script.exists() and not script.read_bytes().startswith(WRITTEN_BY.encode()):
        raise CharloomError(f"{script} is there and not ours: give another --out")
    header = exported_header(checkpoint) | {"format": "pt"}  # as PyTorch's users mark their files
    write_atomically(out, in_order(save(dict(checkpoint.parameters), metadata=header)))
    lines = _loading(checkpoint, out)
    write_atomically(script, f"{WRITTEN_BY}\n{lines}".encode())
    return lines


def _loading(checkpoint: Checkpoint, out: Path) -> str:
    config, vocabulary = checkpoint.config, checkpoint.vocabulary
    first = vocabulary.characters[vocabulary.start_id]
    size, hidden = config.vocabulary_size, config.hidden_size
    dtype = f"torch.{config.dtype}"
    return f"""\
import json, torch
from safetensors import safe_open
with safe_open({str(out)!a}, "pt") as file:
    tensors = {{name: file.get_tensor(name) for name in file.keys()}}
    vocabulary = json.loads(file.metadata()["vocabulary"])
rnn = torch.nn.{MODULES[config.cell]}({size}, {hidden}, {config.layers}, dtype={dtype})
decoder = torch.nn.Linear({hidden}, {size}, dtype={dtype})
torch.nn.ModuleDict({{"rnn": rnn, "decoder": decoder}}).load_state_dict(tensors)
ids = torch.tensor([[vocabulary.index(c)] for c in {first!a}])  # (T, B): here one character
y, state = rnn(torch.nn.functional.one_hot(ids, {size}).to({dtype}))
logits = decoder(y)  # (T, B, V); go on with rnn(..., state)
"""


def exported_header(checkpoint: Checkpoint) -> dict[str, str]:
    config = checkpoint.config.as_dict() | {"bytes": checkpoint.vocabulary.as_bytes}
    return {
        "config": json.dumps(config, sort_keys=True),
        "vocabulary": json.dumps(list(checkpoint.vocabulary.characters)),
    }


def check_suffix(out: Path, suffix: str) -> None:
    if out.suffix != suffix:
        raise CharloomError(
            f"--out is {shortened(str(out))}: give a file's name that ends in {suffix}"
        )


# In, from PyTorch.

KINDS = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
RECURRENT = re.compile(rf"(.*?)({'|'.join(KINDS)})_l(\d{{1,4}})", re.S)
TYPES: dict[str, NumberType] = {"F32": "float32", "F64": "float64"}

Shapes = dict[str, tuple[int, ...]]


def import_pytorch(path: Path, vocabulary: Path | None, out: Path) -> Path:
    """Makes a model of a PyTorch state dict in safetensors, in a folder; returns the model's file.

    vocabulary: a JSON file, a list of characters or one string, in the order of their ids; a file
    that `export_pytorch` wrote needs none. An nn.RNN is taken for one with tanh: a state dict does
    not tell.
    Raises CharloomError, in a sentence, for what is no such file or no such model.
    """
    try:
        refuse_other_files(path)
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            pieces = {name: file.get_slice(name) for name in names}
            shapes = {name: tuple(pieces[name].get_shape()) for name in names}
            types = {name: pieces[name].get_dtype() for name in names}
            known = _vocabulary(vocabulary, file.metadata() or {})
            config, sources = _recognize(path, shapes, types, len(known))
            parameters = Parameters(config)
            for name, source in sources.items():
                parameters[name][...] = file.get_tensor(source)
    except FileNotFoundError:
        raise CharloomError(f"{path}: there is no such file") from None
    except OSError as error:
        raise CharloomError(f"{path} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise CharloomError(f"{path} is damaged ({' '.join(str(error).split())})") from None
    try:
        if out.exists() and any(out.iterdir()):
            raise CharloomError(f"{out} is not empty: give a new folder with --out")
        out.mkdir(parents=True, exist_ok=True)
        save_checkpoint(out / MODEL_FILE, Checkpoint(parameters, known))
    except OSError as error:
        raise CharloomError(
            f"cannot write to {shortened(str(out))} ({error.strerror or error}): give another --out"
        ) from None
    return out / MODEL_FILE


def _vocabulary(path: Path | None, header: Mapping[str, str]) -> Vocabulary:
    """The characters in the order of their ids, from a file or from what `_header` wrote."""
    as_bytes = False
    try:
        if path is not None:
            where = str(path)
            characters = json.loads(path.read_text("utf-8"))
        elif "vocabulary" in header:
            where = "the file's header"
            characters = json.loads(header["vocabulary"])
            as_bytes = json.loads(header.get("config", "{}")).get("bytes") is True
        else:
            raise CharloomError(
                "a state dict has no characters: give them in the order of their ids with "
                "--vocabulary FILE.json"
            )
    except FileNotFoundError:
        raise CharloomError(f"{path}: there is no such file") from None
    except OSError as error:
        raise CharloomError(f"{path} cannot be read: {error.strerror or error}") from None
    except CharloomError:
        raise
    except (ValueError, RecursionError, AttributeError):
        raise CharloomError(f"{where} is not JSON that can be read") from None
    is_list = isinstance(characters, list) and all(isinstance(c, str) for c in characters)
    if not is_list and not isinstance(characters, str):
        raise CharloomError(f"{where} is no vocabulary: give a list of characters, or one string")
    try:
        return Vocabulary(tuple(characters), as_bytes)
    except CharloomError as error:
        raise CharloomError(f"{where}: {error}") from None


def _recognize(
    path: Path, shapes: Shapes, types: Mapping[str, str], vocabulary_size: int
) -> tuple[ModelConfig, dict[str, str]]:
    """The configuration that a state dict's shapes tell, and which of its tensors is which of
    ours."""
    found = {name: match for name in shapes if (match := RECURRENT.fullmatch(name))}
    prefixes = {match[1] for match in found.values()}
    if len(prefixes) != 1:
        what = f"{len(prefixes)} recurrent networks" if prefixes else "no recurrent network"
        raise CharloomError(
            f"{path} holds {what}: it must hold one, with names like rnn.weight_ih_l0"
        )
    (prefix,) = prefixes
    recurrent = shapes.get(f"{prefix}weight_hh_l0", ())
    cells = {gates: cell for cell, gates in GATES.items()}
    cell = None
    if len(recurrent) == 2 and recurrent[1] and recurrent[0] % recurrent[1] == 0:
        cell = cells.get(recurrent[0] // recurrent[1])
    if cell is None:
        raise CharloomError(
            f"{path}: {prefix}weight_hh_l0 "
            + (f"has shape {recurrent}" if recurrent else "is missing")
            + ": from (G·H, H) the cell is told, G being 1 for rnn, 3 for gru, 4 for lstm"
        )
    layers = 1 + max(int(match[3]) for match in found.values())
    kinds = set(types.values())
    if len(kinds) != 1 or not kinds <= set(TYPES):
        raise CharloomError(
            f"{path} holds numbers of type {', '.join(sorted(kinds))}: all must be F32, or all F64"
        )
    config = ModelConfig(cell, recurrent[1], layers, vocabulary_size, dtype=TYPES[kinds.pop()])
    sources = {
        name: prefix + name.removeprefix("rnn.")
        for name in config.shapes()
        if name.startswith("rnn.")
    }
    # Whatever it is called, the decoder is the only weight with the only bias beside the network.
    others = {name: shape for name, shape in shapes.items() if name not in sources.values()}
    for ours, dimensions in (("decoder.weight", 2), ("decoder.bias", 1)):
        fitting = [name for name, shape in others.items() if len(shape) == dimensions]
        exact = [name for name in fitting if shapes[name] == config.shapes()[ours]]
        candidates = exact if len(exact) == 1 else fitting
        sources[ours] = candidates[0] if len(candidates) == 1 else ours
    missing = sorted(set(sources.values()) - set(shapes))
    extra = sorted(set(shapes) - set(sources.values()))
    if missing:
        raise CharloomError(f"{path}: tensors are missing: {_listed(missing)}")
    if extra:
        raise CharloomError(f"{path} holds tensors that have no place here: {_listed(extra)}")
    for ours, shape in config.shapes().items():
        if shapes[sources[ours]] != shape:
            raise CharloomError(
                f"{path}: {sources[ours]} has shape {shapes[sources[ours]]}, not {shape}, with "
                f"{vocabulary_size:,} characters in the vocabulary and {config.hidden_size:,} "
                "hidden units"
            )
    return config, sources


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

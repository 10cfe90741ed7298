"""`charloom export` and `charloom import`: PyTorch, ONNX and Hugging Face Hub files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from charloom.cli.arguments import Parser, run_folder
from charloom.cli.suggestions import in_shell
from charloom.cli.terminal import Terminal
from charloom.errors import CharloomError, shortened

if TYPE_CHECKING:
    from charloom.storage.checkpoint import Checkpoint


def add_export_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument(
        "--to",
        metavar="pytorch|onnx|huggingface",
        default=argparse.SUPPRESS,
        help="the format",
    )
    parser.add_argument(
        "--out",
        metavar="FILE|DIR",
        default=argparse.SUPPRESS,
        help="the output file, or the folder for huggingface",
    )


def run_export(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.evaluation.records import evaluations_of, read_evaluations
    from charloom.evaluation.verdict import cost_without_mixture
    from charloom.exchange.onnx import export_onnx
    from charloom.exchange.pytorch import export_pytorch
    from charloom.pages.page import check_writable
    from charloom.storage.checkpoint import load_checkpoint
    from charloom.storage.folders import model_path

    to, name = getattr(arguments, "to", ""), getattr(arguments, "out", "")
    if to not in ("pytorch", "onnx", "huggingface"):
        raise CharloomError(f"--to is {shortened(to)}: pass pytorch, onnx or huggingface")
    if name == "":
        raise CharloomError("--out is missing: pass the output file or folder")
    path, out = model_path(arguments.run), Path(name)
    checkpoint = load_checkpoint(path)
    if to == "huggingface":
        return _export_for_hub(path, checkpoint, out, terminal)
    check_writable(out, page=False)
    if out.exists() and out.samefile(path):
        raise CharloomError(f"--out is the model itself, {path}: pass another file")
    if to == "pytorch":
        terminal.print(export_pytorch(checkpoint, out).rstrip("\n"))
        terminal.say(f"{out} is the state dict; this code is also in {out.with_suffix('.py')}")
    else:
        export_onnx(checkpoint, out)
        terminal.say(
            f"{out} maps ids (T, B) and state (S, L, B, H) to logits (T, B, V) and next_state"
        )
        if checkpoint.config.dtype != "float32":
            terminal.say(f"the graph computes in float32, not {checkpoint.config.dtype}")
    if checkpoint.mixture is not None:
        records = read_evaluations(path.parent)
        terminal.say(
            "only the network is exported, without the n-gram model"
            + cost_without_mixture(evaluations_of(records, checkpoint.sha256))
        )
    return 0


def _export_for_hub(path: Path, checkpoint: Checkpoint, out: Path, terminal: Terminal) -> int:
    from charloom.evaluation.records import read_evaluations
    from charloom.exchange.card import card_kept
    from charloom.exchange.hub_folder import CARD_FILE, write_folder

    if write_folder(checkpoint, read_evaluations(path.parent), out):
        terminal.say(card_kept(out / CARD_FILE))
    terminal.say(f"{out} contains the model and its card, {out / CARD_FILE}. To upload them:")
    terminal.say(f"  {in_shell('hf', 'upload', f'OWNER/{out.resolve().name}', out)}")
    return 0


def add_import_arguments(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="a PyTorch state dict in safetensors")
    parser.add_argument(
        "--vocabulary",
        metavar="FILE.json",
        help="characters in the order of their ids, as a JSON list or one string",
    )
    parser.add_argument("--out", metavar="DIR", help="output folder (default: runs/NAME)")


def run_import(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.exchange.pytorch import import_pytorch

    path = Path(arguments.file)
    vocabulary = None if arguments.vocabulary is None else Path(arguments.vocabulary)
    folder = run_folder(arguments.out, Path("runs") / path.stem)
    terminal.print(str(import_pytorch(path, vocabulary, folder)))
    terminal.say(f"Next: {in_shell('charloom', 'sample', folder)}")
    return 0

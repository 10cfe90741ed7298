"""`charloom export` and `charloom import`: PyTorch, ONNX and Hugging Face Hub files."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from charloom.cli.arguments import Parser, run_folder
from charloom.cli.terminal import Terminal
from charloom.errors import CharloomError


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
    from charloom.exchange.export import export
    from charloom.storage.facts import info

    to, out = getattr(arguments, "to", ""), getattr(arguments, "out", "")
    if out == "" and to in ("pytorch", "onnx", "huggingface"):
        raise CharloomError("--out is missing: pass the output file or folder")
    code = export(arguments.run, to, out)
    path = Path(out)
    if to == "huggingface":
        from charloom.exchange.hub_folder import CARD_FILE

        terminal.say(f"{out} contains the model and its card, {path / CARD_FILE}. To upload them:")
        terminal.say(f"  hf upload OWNER/{shlex.quote(path.resolve().name)} {shlex.quote(out)}")
        return 0
    facts = info(arguments.run)
    if to == "pytorch":
        terminal.print(code.rstrip("\n"))
        terminal.say(f"{out} is the state dict; this code is also in {path.with_suffix('.py')}")
    else:
        terminal.say(
            f"{out} maps ids (T, B) and state (S, L, B, H) to logits (T, B, V) and next_state"
        )
        if facts["config"]["dtype"] != "float32":
            terminal.say(f"the graph computes in float32, not {facts['config']['dtype']}")
    if facts["counts"] is not None:
        terminal.say("only the network is exported, without the n-gram model")
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

    folder = run_folder(arguments.out, Path("runs") / Path(arguments.file).stem)
    terminal.print(str(import_pytorch(arguments.file, arguments.vocabulary, out=folder)))
    return 0

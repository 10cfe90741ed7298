"""`charloom export` and `charloom import`: pages, and PyTorch, ONNX and Hugging Face Hub files."""

from __future__ import annotations

import argparse
from pathlib import Path

from charloom.cli.arguments import Parser, number, run_folder
from charloom.cli.suggestions import in_shell
from charloom.cli.terminal import Terminal
from charloom.errors import CharloomError, plural


def add_export_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument(
        "--to",
        metavar="html|pytorch|onnx|huggingface",
        default=argparse.SUPPRESS,
        help="the format",
    )
    parser.add_argument(
        "--out",
        metavar="FILE|DIR",
        default=argparse.SUPPRESS,
        help="the output file, or the folder for huggingface",
    )
    parser.add_argument(
        "--size",
        type=number,
        metavar="MB",
        default=argparse.SUPPRESS,
        help="of the page for html, at most (default: 4)",
    )


def run_export(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.evaluation.records import evaluations_of, read_evaluations
    from charloom.evaluation.verdict import cost_without_mixture
    from charloom.exchange.export import FORMATS, export
    from charloom.exchange.html import DEFAULT_SIZE, MEGABYTE
    from charloom.ngrams.counts import name_of
    from charloom.storage.checkpoint import load_checkpoint
    from charloom.storage.folders import model_path

    to, out = getattr(arguments, "to", ""), getattr(arguments, "out", "")
    if out == "" and to in FORMATS:
        raise CharloomError("--out is missing: pass the output file or folder")
    if hasattr(arguments, "size") and to != "html":
        raise CharloomError("--size is for --to html: omit it")
    code = export(arguments.run, to, out, size=getattr(arguments, "size", DEFAULT_SIZE))
    path = Path(out)
    if to == "html":
        megabytes = path.stat().st_size / MEGABYTE
        terminal.say(f"{code} {out}, {megabytes:.2f} MB, opens in a browser without a network")
        return 0
    if to == "huggingface":
        from charloom.exchange.hub_folder import CARD_FILE

        terminal.say(f"{out} contains the model and its card, {path / CARD_FILE}. To upload them:")
        terminal.say(f"  {in_shell('hf', 'upload', f'OWNER/{path.resolve().name}', path)}")
        return 0
    model = model_path(arguments.run)
    checkpoint = load_checkpoint(model)
    if to == "pytorch":
        terminal.print(code.rstrip("\n"))
        terminal.say(f"{out} is the state dict; this code is also in {path.with_suffix('.py')}")
    else:
        inputs = "ids (T, B) and state (S, L, B, H)"
        if checkpoint.config.extra_inputs:
            inputs = "ids (T, B), state (S, L, B, H) and extra (T, B, E)"
        terminal.say(f"{out} maps {inputs} to logits (T, B, V) and next_state")
        if checkpoint.config.dtype != "float32":
            terminal.say(f"the graph computes in float32, not {checkpoint.config.dtype}")
    if checkpoint.config.extra_inputs:
        terminal.say(
            "only the network is exported. It reads the model's predictions of the next character "
            "as extra inputs, and predicts badly without them"
        )
    elif checkpoint.mixture is not None:
        records = read_evaluations(model.parent)
        terminal.say(
            f"only the network is exported, without the {name_of(checkpoint.mixture.counts)}"
            + cost_without_mixture(evaluations_of(records, checkpoint.sha256))
        )
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
    from charloom.storage.checkpoint import load_checkpoint

    folder = run_folder(arguments.out, Path("runs") / Path(arguments.file).stem)
    path = import_pytorch(arguments.file, arguments.vocabulary, out=folder)
    terminal.print(str(path))
    extra = load_checkpoint(path).config.extra_inputs
    if extra:
        terminal.say(
            f"the network reads {plural(extra, 'extra input')}, and the context mixer that "
            "predicts them was not imported: it cannot sample by itself"
        )
    else:
        terminal.say(f"Next: {in_shell('charloom', 'sample', folder)}")
    return 0

"""`charloom evaluate`: compare a model with the baselines on held-out text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charloom.cli.arguments import (
    Parser,
    add_encoding,
    add_engine,
    add_network_only,
    limit_threads,
    load_model,
)
from charloom.cli.formatting import counted, in_bits, quoted_excerpt
from charloom.cli.terminal import Terminal
from charloom.cli.texts import open_for, say_notes, training_text
from charloom.errors import CharloomError, plural

if TYPE_CHECKING:
    from charloom.evaluation.evaluation import Evaluation
    from charloom.language_model import LanguageModel


def add_evaluate_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument(
        "text", metavar="TEXT", nargs="*", help="a text (default: the run's own test split)"
    )
    parser.add_argument(
        "--protocol",
        help="documents (default for collections), carried (default for single texts), adaptive, "
        "or cold-N like cold-256",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--training-text",
        metavar="TEXT",
        nargs="+",
        help="path of the training text, if it has moved",
    )
    parser.add_argument(
        "--skip-unknown", action="store_true", help="skip unknown characters of TEXT, at no cost"
    )
    add_encoding(parser, "TEXT")
    add_network_only(parser)
    add_engine(parser)


def run_evaluate(arguments: argparse.Namespace, terminal: Terminal) -> int:
    if arguments.skip_unknown and not arguments.text:
        raise CharloomError(
            "--skip-unknown is for a TEXT, because a run's own splits have no unknown characters "
            "to skip: pass a text, or omit it"
        )
    for option in ("encoding", "encoding_errors"):
        if getattr(arguments, option) is not None and not arguments.text:
            raise CharloomError(
                f"--{option.replace('_', '-')} is for a TEXT, because a run's own text is read as "
                "in training: pass a text, or omit it"
            )
    with limit_threads(arguments.threads):
        model = load_model(arguments, arguments.run)
        text = None
        if arguments.text:
            text = open_for(model, arguments, terminal)
        evaluation = evaluate_model(
            model,
            terminal,
            text=text,
            protocol=arguments.protocol,
            training_text=training_text(arguments),
            skip_unknown=arguments.skip_unknown,
        )
        if text is not None:
            say_notes(text.notes, terminal)
    if arguments.json:
        terminal.print_json(evaluation.as_dict())
    else:
        print_evaluation(evaluation, model, terminal)
    if not arguments.text and Path(arguments.run).is_dir():
        keep_evaluation_of(Path(arguments.run), evaluation, model, terminal)
    return 0


def keep_evaluation_of(
    folder: Path, evaluation: Evaluation, model: LanguageModel, terminal: Terminal
) -> None:
    """Save the results for the run's report, or print a message if they cannot be written."""
    from charloom.evaluation.records import keep_evaluation
    from charloom.runs.report import refresh_report

    try:
        if keep_evaluation(folder, evaluation, model.checkpoint.sha256):
            refresh_report(folder)
    except (CharloomError, OSError) as error:
        terminal.say(str(error))


def evaluate_model(model: LanguageModel, terminal: Terminal, **settings: Any) -> Evaluation:
    """Evaluate a model with a progress bar; settings as for `LanguageModel.evaluate`."""
    with terminal.task("evaluating") as on_progress:
        return model.evaluate(on_progress=on_progress, **settings)


def print_evaluation(evaluation: Evaluation, model: LanguageModel, terminal: Terminal) -> None:
    from charloom.evaluation.verdict import verdict

    e, unit = evaluation, model.vocabulary.unit
    per = unit if e.documents is None else e.unit
    bits_per_byte = "" if per == "byte" else f"{e.bits_per_byte:.4f} bits per byte, "
    size = counted(e.characters, e.documents, unit)
    terminal.print(f"{e.text}: {size}, protocol {e.protocol}")
    if e.skipped_characters:
        terminal.print(f"{plural(e.skipped_characters, f'unknown {unit}')} skipped")
    if e.unknown_characters:
        terminal.print(
            f"unknown to the model: {plural(e.unknown_characters, unit)}, scored with a share of "
            "the probability of unseen characters"
        )
    terminal.print(
        f"{e.nats_per_character:.4f} nats = {e.bits_per_character:.4f} bits per {per}, "
        f"{bits_per_byte}perplexity {e.perplexity:.3f}, top-1 accuracy {100 * e.accuracy:.1f}%"
    )
    if e.nats_per_document is not None:
        terminal.print(
            f"{e.nats_per_document:.4f} nats = {in_bits(e.nats_per_document):.4f} bits per document"
        )
    if e.interval is not None:
        low, high = e.interval
        terminal.print(
            f"95% confidence interval: {low:.4f} to {high:.4f} nats "
            f"({in_bits(low):.4f} to {in_bits(high):.4f} bits) per {per}"
        )
    if e.overlap is not None and e.overlap.length == 0:
        terminal.print("no verbatim overlap with the training text")
    elif e.overlap is not None:
        terminal.print(
            "longest verbatim overlap with the training text: "
            f"{plural(e.overlap.length, unit)}, {quoted_excerpt(e.overlap_text)}"
        )
    terminal.print()
    terminal.print(f"{f'bits per {per}':>18}  {'predictor':<10} {'protocol':<10}")
    for row in e.rows(model.config.cell):
        bits = "-" if row.bits is None else f"{row.bits:.4f}"
        terminal.print(f"{bits:>18}  {row.predictor:<10} {row.protocol:<10} {row.note}".rstrip())
    if comparison := verdict(e):
        terminal.print()
        terminal.print(comparison)

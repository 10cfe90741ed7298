"""`charloom evaluate`: compare a model with the baselines on held-out text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charloom.cli.arguments import Parser, add_engine, add_network_only, limit_threads, load_model
from charloom.cli.formatting import excerpt, in_bits
from charloom.cli.terminal import Terminal
from charloom.cli.texts import open_for
from charloom.errors import CharloomError

if TYPE_CHECKING:
    from charloom.evaluation.evaluation import Evaluation
    from charloom.language_model import LanguageModel


def add_evaluate_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument(
        "text", metavar="TEXT", nargs="?", help="a text (default: the run's own test part)"
    )
    parser.add_argument(
        "--protocol", default="carried", help="carried, adaptive, or cold-N like cold-256"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--training-text", metavar="TEXT", help="where the training text is now")
    parser.add_argument(
        "--skip-unknown", action="store_true", help="pass over unknown characters of TEXT"
    )
    add_network_only(parser)
    add_engine(parser)


def run_evaluate(arguments: argparse.Namespace, terminal: Terminal) -> int:

    with limit_threads(arguments.threads):
        model = load_model(arguments, arguments.run)
        text = None
        if arguments.text is not None:
            text = open_for(model, arguments.text, terminal)
        evaluation = evaluate_model(
            model,
            terminal,
            text=text,
            protocol=arguments.protocol,
            training_text=arguments.training_text,
            skip_unknown=arguments.skip_unknown,
        )
    if arguments.json:
        terminal.print_json(evaluation.as_dict())
    else:
        print_evaluation(evaluation, model, terminal)
    if arguments.text is None and Path(arguments.run).is_dir():
        keep_evaluation_of(Path(arguments.run), evaluation, model, terminal)
    return 0


def keep_evaluation_of(
    folder: Path, evaluation: Evaluation, model: LanguageModel, terminal: Terminal
) -> None:
    """Keeps the figures for the run's report, where its folder can be written."""
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

        def report(done: int, of: int) -> None:
            if done < of:
                on_progress("evaluating", done, of)
            else:
                on_progress("counting and compressing for the baselines", 0, None)

        return model.evaluate(report=report, **settings)


def print_evaluation(evaluation: Evaluation, model: LanguageModel, terminal: Terminal) -> None:
    e = evaluation
    terminal.print(f"{e.text}: {e.characters:,} characters, protocol {e.protocol}")
    if e.skipped_characters:
        terminal.print(f"{e.skipped_characters:,} unknown characters were passed over")
    terminal.print(
        f"{e.nats_per_character:.4f} nats = {e.bits_per_character:.4f} bits per character, "
        f"{e.bits_per_byte:.4f} bits per byte, perplexity {e.perplexity:.3f}, "
        f"top guess right {100 * e.accuracy:.1f}%"
    )
    if e.interval is not None:
        low, high = e.interval
        terminal.print(
            f"in 95 of 100 such texts between {low:.4f} and {high:.4f} nats "
            f"({in_bits(low):.4f} and {in_bits(high):.4f} bits) per character"
        )
    if e.overlap is not None:
        terminal.print(
            f"the longest stretch that stands in the training text has {e.overlap.length:,} "
            f"characters: {excerpt(ascii(e.overlap_text))}"
        )
    terminal.print()
    network = f"this {model.config.cell}"
    ours = network if e.model == "network" else "mixture"
    note = "" if e.model == "network" else f"{network} and the counts of n-grams"
    rows = [(e.bits_per_character, ours, e.protocol, note)]
    missing = []
    for name, baseline in e.baselines.items():
        name = network if name == "network" else name
        if baseline.bits_per_character is None:
            missing.append((name, baseline.protocol, baseline.reason))
        else:
            rows.append((baseline.bits_per_character, name, baseline.protocol, baseline.note))
    terminal.print(f"{'bits per character':>18}  {'predictor':<10} {'protocol':<10}")
    for bits, name, protocol, note in sorted(rows):
        terminal.print(f"{bits:>18.4f}  {name:<10} {protocol:<10} {note}".rstrip())
    for name, protocol, reason in missing:
        terminal.print(f"{'-':>18}  {name:<10} {protocol:<10} {reason}")
    better = [name for bits, name, *_ in sorted(rows) if bits < e.bits_per_character]
    ours = "network" if e.model == "network" else "mixture"
    terminal.print()
    if better:
        *others, last = better
        names = f"{', '.join(others)} and {last} predict" if others else f"{last} predicts"
        terminal.print(f"Counting wins here: {names} this part better than the {ours} does.")
    else:
        terminal.print(f"The {ours} predicts this part better than every baseline.")

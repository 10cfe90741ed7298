"""`charloom sample`: write text."""

from __future__ import annotations

import argparse
import io
import math
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charloom.cli.arguments import (
    Parser,
    add_encoding,
    add_engine,
    add_network_only,
    length,
    limit_threads,
    load_model,
    number,
    whole_number,
)
from charloom.cli.formatting import excerpt
from charloom.cli.prompts import PassedTexts, refuse_ineffective
from charloom.cli.terminal import Terminal
from charloom.cli.texts import training_text
from charloom.errors import CharloomError, plural, printable, quoted_path

if TYPE_CHECKING:
    from charloom.language_model import LanguageModel
    from charloom.prediction.likeliest import LikelyText
    from charloom.prediction.side_by_side import SampledDocument

RESTRICTING = ("match", "json_schema", "grammar", "forbid", "require", "alphabet", "bias")
BETWEEN_DOCUMENTS = "\n---\n"  # of several lines each


def add_sample_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument("--prompt", help="text at the beginning of the sample")
    parser.add_argument(
        "--prompt-file",
        metavar="FILE",
        help="file with the prompt, or - for standard input; its last line break belongs to it",
    )
    parser.add_argument(
        "--length",
        type=length,
        default="auto",
        help="characters to sample at most, or inf; auto is 500, and 10000 for a document of a "
        "collection, which ends before",
    )
    parser.add_argument("--temperature", type=number, default=1.0, help="0 for greedy sampling")
    parser.add_argument("--top-k", type=whole_number, help="sample from the k likeliest characters")
    parser.add_argument(
        "--top-p", type=number, help="sample from the likeliest characters with total probability p"
    )
    parser.add_argument(
        "--min-p",
        type=number,
        help="sample from characters at least p times as likely as the likeliest",
    )
    parser.add_argument(
        "--stop", action="append", default=[], help="text that ends the sample; may be repeated"
    )
    parser.add_argument(
        "--escapes",
        action="store_true",
        help=r"replace \n, \t, \xNN and \uNNNN in --prompt, --stop, --forbid, --require and "
        "--bias, which is always done if the model does not know the backslash",
    )
    parser.add_argument("--seed", type=whole_number, help="random seed (default: a new one)")
    parser.add_argument(
        "--count",
        type=whole_number,
        default=1,
        help="number of samples, one a line; documents of several lines are separated by the "
        "text of --separator in training, else by a line ---",
    )
    parser.add_argument(
        "--beam",
        type=whole_number,
        metavar="N",
        help="print the N likeliest completions instead, with their log-probabilities",
    )
    parser.add_argument(
        "--unique", action="store_true", help="only samples that differ from each other"
    )
    parser.add_argument(
        "--new",
        action="store_true",
        help="only documents that differ from every document of the training text",
    )
    parser.add_argument(
        "--min-length",
        type=whole_number,
        metavar="N",
        help="only samples of N characters or more, without the prompt",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="one object a line: text, log_probability, finish_reason, seed, index",
    )
    parser.add_argument(
        "--no-prompt", action="store_true", help="leave the prompt out of the output"
    )
    parser.add_argument(
        "--skip-unknown", action="store_true", help="skip unknown characters of the prompt"
    )
    parser.add_argument(
        "--clamp",
        metavar="UNIT=VALUE",
        action="append",
        default=[],
        help="hold a unit at a value, like h17=0.9 (see charloom explore); may be repeated",
    )
    add_constraints(parser)
    parser.add_argument(
        "--report-overlap",
        action="store_true",
        help="print each sample's longest verbatim overlap with the training text",
    )
    parser.add_argument(
        "--max-overlap",
        type=whole_number,
        metavar="N",
        help="copy at most N consecutive characters from the training text",
    )
    parser.add_argument(
        "--training-text",
        metavar="TEXT",
        nargs="+",
        help="path of the training text, if it has moved",
    )
    add_network_only(parser)
    add_encoding(parser, "the file of --prompt-file")
    add_engine(parser)


def add_constraints(parser: Parser) -> None:
    """Add the options that restrict what a sample can consist of."""
    parser.add_argument(
        "--match", metavar="REGEX", help="regular expression that the whole sample matches"
    )
    parser.add_argument(
        "--json-schema", metavar="FILE", help="JSON schema that the whole sample meets"
    )
    parser.add_argument(
        "--grammar", metavar="FILE", help="grammar of Lark or GBNF that the whole sample follows"
    )
    parser.add_argument(
        "--forbid",
        metavar="TEXT",
        action="append",
        default=[],
        help="text that does not occur, or a class of characters like [0-9]; may be repeated",
    )
    parser.add_argument(
        "--require",
        metavar="TEXT",
        action="append",
        default=[],
        help="text that occurs in the sample; may be repeated",
    )
    parser.add_argument(
        "--alphabet", metavar="CLASS", help="class of the characters to sample, like '[a-z ]'"
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="sample whole texts by the model's own probabilities, by rejection",
    )
    parser.add_argument(
        "--bias",
        metavar="CHARACTER=NUMBER",
        action="append",
        default=[],
        help="addition to the logit of a character, like e=-5, or <end>=2 for the end of a "
        "document (-inf excludes it); may be repeated",
    )


def read_definition(path: str | None, option: str) -> str | None:
    """Return the content of the file of an option, None without it.

    Raises:
        CharloomError: if it cannot be read.
    """
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise CharloomError(f"{option} {quoted_path(path)} is not UTF-8: convert it") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CharloomError(
            f"{option} {quoted_path(path)} cannot be read ({reason}): pass the path of a text file"
        ) from None


def run_sample(arguments: argparse.Namespace, terminal: Terminal) -> int:
    if arguments.count < 1:
        raise CharloomError(f"--count is {arguments.count}: pass 1 or more")
    refuse_ineffective(arguments)
    looks_up = arguments.report_overlap or arguments.max_overlap is not None
    with limit_threads(arguments.threads):
        model = load_model(arguments, arguments.run)
        if looks_up:  # now, so that a missing training text is reported before sampling starts
            model.training_index(training_text(arguments))
        sampling = _Sampling(arguments, model, terminal)
        if arguments.beam is not None:
            sampling.print_likeliest()
        else:
            sampling.run()
    return 0


class _Sampling:
    """The samples of one command, and their output."""

    def __init__(
        self, arguments: argparse.Namespace, model: LanguageModel, terminal: Terminal
    ) -> None:
        import secrets

        from charloom.text.typed import ShownText

        self._arguments, self._model, self._terminal = arguments, model, terminal
        self._encoding = "latin-1" if model.vocabulary.as_bytes else "utf-8"
        self._seed = secrets.randbelow(2**31) if arguments.seed is None else arguments.seed
        self._texts = PassedTexts(arguments, model)
        self._prompt = model.as_read(self._texts.prompt, skip_unknown=arguments.skip_unknown)
        self._output = ShownText(model.vocabulary)
        self._shown = "" if arguments.no_prompt else self._prompt
        self._settings: dict[str, Any] = {
            "length": arguments.length,
            "temperature": arguments.temperature,
            "top_k": arguments.top_k,
            "top_p": arguments.top_p,
            "min_p": arguments.min_p,
            "stop": self._texts.stops,
            "seed": self._seed,
            "skip_unknown": arguments.skip_unknown,
            "clamp": arguments.clamp,
            "max_overlap": arguments.max_overlap,
            "match": arguments.match,
            "forbid": self._texts.forbid,
            "require": self._texts.require,
            "alphabet": arguments.alphabet,
            "bias": self._texts.bias,
            "json_schema": read_definition(arguments.json_schema, "--json-schema"),
            "grammar": read_definition(arguments.grammar, "--grammar"),
        }

    def run(self) -> None:
        arguments = self._arguments
        selects = arguments.unique or arguments.new or arguments.min_length is not None
        endless = (
            arguments.length is None
            and self._model.vocabulary.end_id is None
            and arguments.match is arguments.json_schema is arguments.grammar is None
        )
        if arguments.json or selects or arguments.exact or (arguments.count > 1 and not endless):
            self._write_documents()
        else:
            self._stream()

    def print_likeliest(self) -> None:
        """Print the likeliest completions, which a beam search finds."""
        settings = {
            name: self._settings[name] for name in (*RESTRICTING, "length", "skip_unknown", "clamp")
        }
        beam = self._arguments.beam
        found = self._model.likeliest(beam, prompt=self._texts.prompt, **settings)
        for one in found:
            text = self._shown + one.text
            if self._arguments.json:
                self._print_likely(text, one)
            else:
                shown = as_one_line(text, self._model)
                self._terminal.print(f"{one.log_probability:10.3f}  {shown}")
        exact = sum(one.exact for one in found)
        if exact < len(found):
            which = f"those after the first {exact:,}" if exact else "these"
            self._terminal.say(f"texts likelier than {which} can exist, for the search is not full")

    def _print_likely(self, text: str, one: LikelyText) -> None:
        from charloom.text.typed import as_shown

        self._terminal.print_json(
            {
                "text": as_shown(text, self._model.vocabulary),
                "log_probability": one.log_probability,
                "exact": one.exact,
            },
            indent=None,
        )

    def _say_first(self) -> None:
        """Write the messages before the first sample, whose options have been checked."""
        from charloom.text.typed import compose

        self._terminal.output()
        for note in self._texts.notes:
            self._terminal.say(note)
        typed = self._texts.prompt
        if isinstance(typed, str) and compose(typed, self._model.vocabulary) != typed:
            self._terminal.say("the prompt is read in the Unicode form of the training text")
        _, skipped = self._model.vocabulary.encode_known(self._prompt)
        if skipped:
            unknown = plural(skipped, f"unknown {self._model.vocabulary.unit}")
            self._terminal.say(f"{unknown} of the prompt skipped")
        if self._arguments.seed is None:
            self._terminal.say(f"seed {self._seed}")

    def _stream(self) -> None:
        """Write one sample after the other while it is taken."""
        for index in range(self._arguments.count):
            stream = self._model.stream(self._texts.prompt, index=index, **self._settings)
            if index == 0:
                self._say_first()
            self._write(self._shown)
            drawn = io.StringIO()
            try:
                for piece in stream.characters:
                    self._write(piece)
                    drawn.write(piece)
            finally:  # also for a sample that Ctrl-C interrupts
                if self._ends_with_line_break(self._shown + drawn.getvalue()):
                    self._write("\n")
                if self._arguments.report_overlap:
                    self._report_overlap(index, drawn.getvalue())

    def _ends_with_line_break(self, sample: str) -> bool:
        """Return whether a line break is written after a sample, also where it is the only one."""
        if self._arguments.count > 1 or self._model.vocabulary.end_id is not None:
            return True
        return sys.stdout.isatty() and not sample.endswith("\n")

    def _write_documents(self) -> None:
        """Write samples that are taken side by side."""
        arguments = self._arguments
        documents = self._model.stream_documents(
            arguments.count,
            prompt=self._texts.prompt,
            unique=arguments.unique,
            new=arguments.new,
            min_length=arguments.min_length,
            exact=arguments.exact,
            training_text=training_text(arguments),
            **self._settings,
        )
        self._say_first()
        from charloom.prediction.side_by_side import searched_for

        found = 0
        line_ends = True  # after the output so far
        try:
            for document in documents:
                drawn = document.characters
                if arguments.json:
                    self._print_json(document, self._shown + drawn)
                else:
                    line_ends = self._write_between(found, self._shown + drawn)
                if arguments.report_overlap:
                    self._report_overlap(found, drawn)
                found += 1
        finally:
            if not line_ends:
                self._write("\n")
        if found < arguments.count:
            kind = "distinct " * arguments.unique + "new " * arguments.new + "documents"
            if arguments.min_length is not None:
                unit = self._model.vocabulary.unit
                kind += f" of at least {plural(arguments.min_length, unit)}"
            self._terminal.say(
                f"only {found:,} of {arguments.count:,} {kind} found in "
                f"{searched_for(arguments.count):,} samples: raise --temperature or lower --count"
            )

    @cached_property
    def _separator(self) -> str:
        """The text between two samples; that of a collection's own format if it has one."""
        from charloom.text.documents import unescape

        model = self._model
        if model.vocabulary.end_id is None or "\n" not in model.vocabulary.characters:
            return "\n"
        escaped = model.text_format.separator
        if escaped is None:
            return BETWEEN_DOCUMENTS
        separator = unescape(escaped)
        return separator.encode().decode("latin-1") if model.vocabulary.as_bytes else separator

    def _write_between(self, number: int, text: str) -> bool:
        """Write a sample, and before it the separator; return whether a line ends after it.

        A line break that begins the separator follows the text at once, so that a reader of lines
        need not wait for the next sample.
        """
        if number:
            self._write(self._separator.removeprefix("\n"))
        at_line = self._separator == BETWEEN_DOCUMENTS and text.endswith("\n")
        if self._separator.startswith("\n") and not at_line:
            text += "\n"
        self._write(text)
        return text.endswith("\n")

    def _print_json(self, document: SampledDocument, text: str) -> None:
        from charloom.text.typed import as_shown

        ends = document.finish_reason != "length"
        text = as_shown(text, self._model.vocabulary, ends=ends)
        log_p = document.log_probability
        conditioned = {}
        if document.conditioned_log_probability is not None:
            conditioned["conditioned_log_probability"] = document.conditioned_log_probability
        self._terminal.print_json(
            {
                "text": text,
                "log_probability": log_p if math.isfinite(log_p) else None,
                "finish_reason": document.finish_reason,
                "seed": document.seed,
                "index": document.index,
            }
            | conditioned,
            indent=None,
        )

    def _write(self, characters: str) -> None:
        """Write characters of the model: as text to a terminal, as they are to a file or a pipe."""
        raw = characters.encode(self._encoding, "replace")
        self._terminal.write(self._output.add(characters), raw)

    def _report_overlap(self, index: int, drawn: str) -> None:
        _report_overlap(self._terminal, self._model, index, self._prompt, drawn)


def as_one_line(text: str, model: LanguageModel) -> str:
    """Return characters of the model as one line for output."""
    from charloom.text.typed import as_shown

    return printable(as_shown(text, model.vocabulary))


def _report_overlap(
    terminal: Terminal, model: LanguageModel, index: int, prompt: str, drawn: str
) -> None:
    text = prompt + drawn
    content = text.encode("latin-1") if model.vocabulary.as_bytes else text
    found = model.overlap(content, drawn_from=len(prompt))
    if not found.length:
        terminal.say(f"sample {index + 1}, no verbatim overlap with the training text")
        return
    unit = model.vocabulary.unit
    document = found.training_document
    place = f"at {unit} {found.training_place + 1:,}, line {found.training_line:,}"
    if document is not None and "\n" not in document:
        place = f"in the document {excerpt(repr(document))}"
    elif document is not None:
        place += f" of the document {excerpt(repr(document))}"
    terminal.say(
        f"sample {index + 1}, longest verbatim overlap with the training text: "
        f"{plural(found.length, unit)}, {excerpt(repr(found.text))} ({place})"
    )

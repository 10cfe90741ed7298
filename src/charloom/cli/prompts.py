"""The texts that a user passes for a sample: its prompt, stop texts and those of constraints."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charloom.errors import CharloomError, quoted, quoted_path

if TYPE_CHECKING:
    from charloom.language_model import LanguageModel


class PassedTexts:
    r"""The prompt, the stop texts and the texts of constraints of a command.

    Escapes such as \n are replaced with --escapes, and otherwise where the model does not know the
    backslash, so that the text itself could not be meant.

    Attributes:
        prompt: the prompt, of a model of bytes perhaps as bytes.
        stops: the stop texts.
        forbid, require, bias: the options of this name.
        notes: sentences for the user.
    """

    def __init__(self, arguments: argparse.Namespace, model: LanguageModel) -> None:
        """Read the texts.

        Raises:
            CharloomError: if the file of a prompt cannot be read, or a stop text is impossible.
        """
        self._model = model
        self._replaces_escapes: bool = arguments.escapes
        self.notes: list[str] = []
        self._escaped: list[str] = []  # options with escapes that were replaced without --escapes
        self.prompt: str | bytes = ""
        if arguments.prompt_file is not None:
            self.prompt = self._file(arguments)
        elif arguments.prompt is not None:
            self.prompt = self._unescaped(arguments.prompt, "--prompt")
        stops = [self._unescaped(text, "--stop") for text in arguments.stop]
        self.stops = [text for text in stops if self._is_possible(text)]
        self.forbid = [self._unescaped_unless_class(text) for text in arguments.forbid]
        self.require = [self._unescaped(text, "--require") for text in arguments.require]
        self.bias = [self._unescaped_bias(text) for text in arguments.bias]
        if self._escaped:
            options = " and ".join(dict.fromkeys(self._escaped))
            self.notes.append(
                f"escapes in {options} are replaced, because the model does not know the backslash"
            )

    def _unescaped(self, text: str, option: str) -> str:
        from charloom.text.escapes import intended, is_escaped, unescape

        if self._replaces_escapes:
            return unescape(text, option)
        found = intended(text, self._model.vocabulary)
        if found != text:
            self._escaped.append(option)
        elif is_escaped(text):
            self.notes.append(
                f"{option} {quoted(text)} is not replaced, because the model knows the backslash: "
                "add --escapes for the character that it stands for"
            )
        return found

    def _unescaped_unless_class(self, text: str) -> str:
        from charloom.constraints.options import is_class  # which other samples do not need

        return text if is_class(text) else self._unescaped(text, "--forbid")

    def _unescaped_bias(self, text: str) -> str:
        name, sign, number = text.rpartition("=")
        return (self._unescaped(name, "--bias") if name else "") + sign + number

    def _file(self, arguments: argparse.Namespace) -> str | bytes:
        """Return the content of --prompt-file, read as a text of the model.

        Its last line break is omitted for a model without line breaks.
        """
        from charloom.cli.texts import format_for
        from charloom.text.format import open_texts

        path = arguments.prompt_file
        if path != "-" and not os.path.exists(path):  # noqa: PTH110 - false for any bad path
            raise CharloomError(
                f"there is no file {quoted_path(path)}: pass the path of a prompt, or - for "
                "standard input"
            )
        if Path(path).is_dir():
            raise CharloomError(f"{quoted_path(path)} is a folder: pass the path of one file")
        vocabulary = self._model.vocabulary
        format = replace(
            format_for(self._model, arguments),
            lines=False,
            separator=None,
            column=None,
            collection=False,
            joined=True,
        )
        text = open_texts([path if path == "-" else Path(path)], format)
        content = text.read()
        if "\n" not in vocabulary.characters:
            content = content.removesuffix("\n")
        if not content:
            name = "standard input" if path == "-" else quoted_path(path)
            raise CharloomError(f"the prompt in {name} is empty: pass text, or omit --prompt-file")
        return content.encode("latin-1") if vocabulary.as_bytes else content

    def _is_possible(self, stop: str) -> bool:
        """Return whether a stop text can have an effect. Raises CharloomError like `stop_forms`."""
        from charloom.text.stops import stop_forms, without_effect

        found = stop_forms(stop, self._model.text_format, self._model.vocabulary)
        if not found:
            self.notes.append(without_effect(stop))
        return bool(found)


SAMPLING: dict[str, Any] = {  # options that a beam search has no use for, and their defaults
    "temperature": 1.0, "top_k": None, "top_p": None, "min_p": None, "stop": [], "count": 1,
    "unique": False, "new": False, "min_length": None, "exact": False, "report_overlap": False,
    "max_overlap": None, "seed": None,
}  # fmt: skip


def refuse_ineffective(arguments: argparse.Namespace) -> None:
    """Raise CharloomError for an option without an effect, whatever the model."""
    if arguments.prompt is not None and arguments.prompt_file is not None:
        raise CharloomError("--prompt and --prompt-file exclude each other: pass one of them")
    if arguments.prompt is None and arguments.prompt_file is None:
        for option in ("no_prompt", "skip_unknown"):
            if getattr(arguments, option):
                _refuse(option, "requires --prompt or --prompt-file: add one of them")
    if arguments.prompt_file is None:
        for option in ("encoding", "encoding_errors"):
            if getattr(arguments, option) is not None:
                _refuse(option, "requires --prompt-file: add it, or omit this option")
    texts = (arguments.stop, arguments.forbid, arguments.require, arguments.bias)
    if arguments.escapes and arguments.prompt is None and not any(texts):
        _refuse("escapes", "requires --prompt, --stop, --forbid, --require or --bias: add one")
    if arguments.temperature == 0:
        for option in ("top_k", "top_p", "min_p"):
            if getattr(arguments, option) is not None:
                _refuse(option, "has no effect with --temperature 0: omit it")
    if arguments.beam is not None:
        for option, default in SAMPLING.items():
            if getattr(arguments, option) != default:
                _refuse(option, "has no effect with --beam, which samples nothing: omit it")
    looks_up = arguments.report_overlap or arguments.max_overlap is not None or arguments.new
    if arguments.training_text is not None and not looks_up:
        _refuse(
            "training_text", "requires --report-overlap, --max-overlap or --new: add one of them"
        )


def _refuse(option: str, reason: str) -> None:
    raise CharloomError(f"--{option.replace('_', '-')} {reason}")

"""Training options as command-line arguments, generated from `TrainingConfig`."""

from __future__ import annotations

import argparse
import codecs
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from charloom.cli.arguments import Parser, number, whole_number
from charloom.errors import CharloomError, error_reason

PARSERS: dict[type[Any], Callable[[str], Any]] = {int: whole_number, float: number, str: str}


def add_training_options(parser: Parser, help_texts: Mapping[str, str] | None = None) -> None:
    """Add an argument for every training option.

    Args:
        parser: The command's parser.
        help_texts: Other help texts by option; argparse.SUPPRESS hides an option.
    """
    from charloom.training.options import OPTIONS, option_name

    for option in OPTIONS.values():
        help_text = option.help
        if option.default is not None and option.value_type is not bool:
            help_text += f" (default: {option.default})"
        help_text = (help_texts or {}).get(option.name, help_text).replace("%", "%%")
        if option.value_type is bool:
            # An absent option is None: it differs from one that is set to its default.
            parser.add_argument(
                option_name(option.name),
                dest=option.name,
                action="store_true",
                default=None,
                help=help_text,
            )
        else:
            parser.add_argument(
                option_name(option.name),
                dest=option.name,
                type=PARSERS[option.value_type],
                metavar="|".join(option.choices) or option.value_type.__name__.upper(),
                help=help_text,
            )

    parser.add_argument(
        "--normalize-newlines",
        action="store_true",
        default=None,
        help=argparse.SUPPRESS,  # of an earlier version, which is the default now
    )


def read_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options on the command line and, with less priority, in the --config file."""
    from charloom.base_model.choices import absolute_base
    from charloom.training.options import OPTIONS, check_option, rename_earlier

    options = {} if arguments.config is None else _read_config_file(arguments.config)
    for name in OPTIONS:
        value = getattr(arguments, name)
        if value is not None:
            options[name] = value
    if arguments.normalize_newlines:
        options["normalize_newlines"] = True
    rename_earlier(options)
    if options.get("from_run") is not None:
        check_option("from_run", options["from_run"])
        options["from_run"] = absolute_base(options["from_run"])
    for name in ("validation", "test"):
        if options.get(name):
            from charloom.text.format import absolute_source

            check_option(name, options[name])
            options[name] = absolute_source(options[name])
    return options


def _read_config_file(path: str) -> dict[str, Any]:
    """Read options from a TOML file; whether they exist and fit is checked with all others."""
    import tomllib

    try:
        content = Path(path).read_bytes()
        # As Windows saves text: PowerShell as UTF-16, other programs with a byte order mark.
        marks = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE
        encoding = "utf-16" if content.startswith(marks) else "utf-8-sig"
        table = tomllib.loads(content.decode(encoding).replace("\r\n", "\n"))
    except OSError as error:
        raise CharloomError(f"--config {path}: {error_reason(error)}") from None
    except (ValueError, RecursionError) as error:  # TOML's own errors are ValueErrors
        raise CharloomError(
            f"--config {path} is not valid TOML: {' '.join(str(error).split())}"
        ) from None
    spellings = {"from": "from_run"}
    return {spellings.get(key, key.replace("-", "_")): value for key, value in table.items()}

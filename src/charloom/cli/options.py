"""The training options as command-line arguments, generated from `TrainingConfig`."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charloom.cli.arguments import Parser, number, whole_number
from charloom.errors import CharloomError

if TYPE_CHECKING:
    pass


def add_training_options(parser: Parser, told: dict[str, str] | None = None) -> None:
    """TrainingConfig's options. told: another help for some, argparse.SUPPRESS for none."""
    from charloom.training.options import TrainingConfig, option_name

    for f in fields(TrainingConfig):
        help_text = f.metadata["help"]
        if f.default is not None and not isinstance(f.default, bool):
            help_text += f" (default: {f.default})"
        help_text = (told or {}).get(f.name, help_text)
        kinds: dict[str, Any] = {"int": whole_number, "float": number, "str": str}
        kind = str(f.type).split("|")[0].strip()
        if kind == "bool":
            parser.add_argument(
                option_name(f.name), dest=f.name, action="store_true", default=None, help=help_text
            )
        else:
            choices = f.metadata.get("choices")
            parser.add_argument(
                option_name(f.name),
                dest=f.name,
                type=kinds[kind],
                metavar="|".join(choices) if choices else kind.upper(),
                help=help_text.replace("%", "%%"),
            )


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options given on the command line and, under them, in the --config file."""
    from charloom.training.options import TrainingConfig, check_option

    given: dict[str, Any] = {}
    if arguments.config is not None:
        import tomllib

        try:
            with Path(arguments.config).open("rb") as file:
                table = tomllib.load(file)
        except OSError as error:
            raise CharloomError(f"--config {arguments.config}: {error.strerror or error}") from None
        except (ValueError, RecursionError) as error:  # TOML's own errors are ValueErrors
            raise CharloomError(
                f"--config {arguments.config} is not TOML that can be read: "
                f"{' '.join(str(error).split())}"
            ) from None
        spellings = {"from": "from_run"}
        given = {spellings.get(k, k.replace("-", "_")): v for k, v in table.items()}
    for f in fields(TrainingConfig):
        value = getattr(arguments, f.name)
        if value is not None:
            given[f.name] = value
    if given.get("from_run") is not None:
        check_option("from_run", given["from_run"])
        given["from_run"] = str(Path(given["from_run"]).absolute())
    return given

"""A model in the layout of Hugging Face's hub: its file, a configuration, evaluations, a card.

    model = HubModel.from_pretrained("owner/book")  # or a run's folder, or one that was saved so
    model.save_pretrained("book")
    model.push_to_hub("owner/book")

`model.safetensors` is charloom's own checkpoint, whole: no other file is needed to load it.
`config.json` tells other programs what it is, `evaluations.json` is as in a run's folder, and
`README.md` is the model card. Whatever stands in a card and comes from a file, a text's name above
all, is shown as it is: it can become neither Markdown nor HTML nor YAML.

Importing this module needs huggingface_hub (extra `hub`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from charloom.checkpoint import (
    FORMAT,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    write_atomically,
)
from charloom.errors import CharloomError, printable, shortened
from charloom.language_model import MODEL_FILE, LanguageModel, model_path
from charloom.report import EVALUATIONS_FILE, read_evaluations, rows_of_evaluation

try:
    from huggingface_hub import (
        EvalResult,
        HfApi,
        ModelCard,
        ModelCardData,
        ModelHubMixin,
        hf_hub_download,
    )
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
except ImportError as error:
    raise CharloomError(
        f"Hugging Face's hub needs huggingface_hub, which cannot be imported ({error}): pip "
        "install 'charloom[hub]'"
    ) from None

CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
MODEL_TYPE = "charloom"  # what `config.json` says, so that a folder is known to be ours
MARK = "<!-- Written by charloom, which keeps it as it is once it was changed. SHA-256 {} -->\n"
LONGEST_NAME = 200  # characters of a text's name, or another's reason, that are shown
LONGEST_WAIT = 10.0  # seconds, for the hub's first answer
# Errors of what huggingface_hub asks by: requests, httpx or httpx2.
NO_CONNECTION = (*HfHubHTTPError.__bases__, OSError)
Evaluations = Sequence[Mapping[str, Any]]  # as `read_evaluations` gives them


class HubModel(LanguageModel, ModelHubMixin):  # type: ignore[misc]  # not imported by mypy
    """A LanguageModel that goes to Hugging Face's hub and comes from there.

    HubModel(model.checkpoint) makes one of any model. evaluations: what the card is to show, as
    `read_evaluations` gives it; those of other weights are left out. More is for LanguageModel.
    """

    def __new__(cls, *arguments: Any, **settings: Any) -> HubModel:
        return object.__new__(cls)  # the mixin's copies every weight into a configuration

    def __init__(
        self, checkpoint: Checkpoint, *, evaluations: Evaluations = (), **settings: Any
    ) -> None:
        super().__init__(checkpoint, **settings)
        self.evaluations = evaluations

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **settings: Any,
    ) -> HubModel:
        """The model of a run, of a folder that was saved for the hub, or of the hub, `owner/name`.

        settings: engine, threads, device and network_only, as for `charloom.load`; the others are
        the mixin's and mean something for the hub alone.
        Raises CharloomError where there is no such model, where the hub cannot be reached, and for
        files that are no model of charloom, damaged, or at odds with each other.
        """
        name = os.fspath(pretrained_model_name_or_path)
        path = Path(name)
        if not _exists(path):
            path = _download(
                name,
                force_download=force_download,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                revision=revision,
            )
        config = _read_config(path, name) if path.is_dir() else {}
        if path.is_dir() and not (path / MODEL_FILE).is_file():
            raise _lacks(name, MODEL_FILE)
        file = model_path(path)
        checkpoint = load_checkpoint(file)
        for entry, value in _config(checkpoint).items():
            if config.get(entry, value) != value:
                raise CharloomError(
                    f"{printable(name)}: {CONFIG_FILE} says that {entry} is "
                    f"{shortened(config[entry])}, but in {MODEL_FILE} it is {shortened(value)}: "
                    "export the model again"
                )
        return cls(checkpoint, evaluations=read_evaluations(file.parent), **settings)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        config: None = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Writes the model's folder, over an earlier one of this kind, and pushes it if asked.

        A card that somebody changed is kept, with a warning. model_card_kwargs: more of the card's
        metadata, such as {"license": "mit"}. config: is what the model is, and cannot be given.
        Returns the commit's address if it was pushed.
        Raises CharloomError where the folder holds files that were not written so, or cannot be
        written.
        """
        if config is not None:
            raise CharloomError(f"{CONFIG_FILE} is what the model is: leave config out")
        folder = Path(save_directory)
        kept = write_folder(self.checkpoint, self.evaluations, folder, **model_card_kwargs or {})
        if kept:
            warnings.warn(card_kept(folder / CARD_FILE), stacklevel=2)
        if not push_to_hub:
            return None
        return self.push_to_hub(
            repo_id or folder.resolve().name,
            model_card_kwargs=model_card_kwargs,
            **push_to_hub_kwargs,
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        ignore_patterns: Sequence[str] | str | None = None,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> str:
        """Saves the model on the hub, in a repository that is made where there is none, and returns
        the commit's address. settings: the mixin's, such as commit_message and create_pr.

        A card on the hub that somebody changed is kept, with a warning.
        Raises CharloomError where the hub cannot be reached, or does not take it.
        """
        with _explained(repo_id):
            if "/" not in repo_id:  # the hub tells whose it is
                api = HfApi(token=token)
                repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
            ignored = [ignore_patterns] if isinstance(ignore_patterns, str) else ignore_patterns
            if _card_was_changed(repo_id, branch, token):
                warnings.warn(card_kept(f"{repo_id}/{CARD_FILE}"), stacklevel=2)
                ignored = [*(ignored or ()), CARD_FILE]
            commit: str = super().push_to_hub(
                repo_id,
                private=private,
                token=token,
                branch=branch,
                ignore_patterns=ignored and list(ignored),
                model_card_kwargs={"model_name": repo_id} | dict(model_card_kwargs or {}),
                **settings,
            )
        return commit

    def generate_model_card(self, model_name: str = "model", **metadata: Any) -> ModelCard:
        """The model card, as a huggingface_hub.ModelCard; see `model_card`."""
        return model_card(self.checkpoint, self.evaluations, model_name, **metadata)


# The folder.


def write_folder(
    checkpoint: Checkpoint, evaluations: Evaluations, folder: Path, **metadata: Any
) -> bool:
    """Writes a model's folder in the hub's layout, over an earlier one; returns whether a card was
    kept because somebody changed it. metadata: more of the card's, as for `model_card`.

    Raises CharloomError where the folder holds files that were not written so, or cannot be
    written.
    """
    # The current weights of an interrupted run are a model too, without what it goes on with.
    checkpoint = replace(checkpoint, optimizer={}, state=None, position=None)
    found = [dict(entry) for entry in _evaluations_of(checkpoint, evaluations)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        card = model_card(checkpoint, found, **{"model_name": folder.resolve().name, **metadata})
        if not (folder / CONFIG_FILE).exists():
            for name in (MODEL_FILE, EVALUATIONS_FILE):
                if (folder / name).exists():
                    raise CharloomError(
                        f"{folder / name} is there and would be overwritten: give a new folder"
                    )
        elif _read_json(folder / CONFIG_FILE).get("model_type") != MODEL_TYPE:
            raise CharloomError(f"{folder / CONFIG_FILE} is there and not ours: give a new folder")
        # In this order a folder that was left half-way is known to be ours.
        _write_json(folder / CONFIG_FILE, _config(checkpoint))
        save_checkpoint(folder / MODEL_FILE, checkpoint)
        _write_json(folder / EVALUATIONS_FILE, found)
        if (folder / CARD_FILE).exists() and not _is_as_written(folder / CARD_FILE):
            return True
        write_atomically(folder / CARD_FILE, str(card).encode())
    except CharloomError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # also of names that no folder can have
        reason = getattr(error, "strerror", None) or error
        raise CharloomError(
            f"cannot write to {shortened(str(folder))} ({reason}): give another folder"
        ) from None
    return False


def card_kept(card: str | Path) -> str:
    """The sentence about a card that was not replaced."""
    return (
        f"{printable(str(card))} is not as charloom wrote it and is kept as it is, its figures too:"
        " delete it to have a new one"
    )


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `config.json` says, for programs that do not read the checkpoint's own header."""
    mixture = checkpoint.mixture
    return {
        "model_type": MODEL_TYPE,
        "format": FORMAT,
        **checkpoint.config.as_dict(),
        "bytes": checkpoint.vocabulary.as_bytes,
        "counts": None if mixture is None else {"context": mixture.table.context},
        "vocabulary": list(checkpoint.vocabulary.characters),
    }


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    """The folder's config.json, empty where there is none. Raises CharloomError where it says that
    the model is not charloom's."""
    if not (folder / CONFIG_FILE).is_file():
        return {}
    config = _read_json(folder / CONFIG_FILE)
    if config.get("model_type") != MODEL_TYPE:
        raise CharloomError(
            f"{printable(name)} is no model of charloom: in its {CONFIG_FILE} model_type is "
            f"{shortened(config.get('model_type'))}, not {MODEL_TYPE!r}"
        )
    return config


def _read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object; an empty one for anything else that it may hold."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    except OSError as error:
        raise CharloomError(f"{path} cannot be read: {error.strerror or error}") from None
    return found if isinstance(found, dict) else {}


def _write_json(path: Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def _evaluations_of(checkpoint: Checkpoint, evaluations: Evaluations) -> Iterator[dict[str, Any]]:
    """Those of these weights that are whole, without the stretch of text that a leak showed."""
    for entry in evaluations:
        found = entry["evaluation"]
        shown = rows_of_evaluation(found, checkpoint.config.cell)
        if checkpoint.sha256 is None or entry["sha256"] != checkpoint.sha256 or shown is None:
            continue
        overlap = found["longest_overlap"]
        yield {
            "sha256": entry["sha256"],
            "evaluation": {**found, "longest_overlap": overlap and {**overlap, "text": ""}},
        }


# The hub.


@contextlib.contextmanager
def _explained(name: str, revision: str | None = None) -> Iterator[None]:
    """Turns whatever huggingface_hub raises into a CharloomError, in a sentence."""
    shown = printable(name)
    try:
        yield
    except CharloomError:
        raise
    except HFValidationError:
        raise CharloomError(
            f"{shortened(name)} is neither a folder nor a name on the hub: give a run's folder, or "
            "owner/name"
        ) from None
    except GatedRepoError:
        raise CharloomError(
            f"{shown} is for those whom its owner lets in: ask on its page, then hf auth login"
        ) from None
    except RepositoryNotFoundError:
        raise CharloomError(
            f"{shown} is no folder here, and no model on the hub that you may see: look at the "
            "name, or hf auth login where it is private"
        ) from None
    except RevisionNotFoundError:
        raise CharloomError(f"{shown} has no revision {shortened(revision)} on the hub") from None
    except (*NO_CONNECTION, RuntimeError, ValueError) as error:
        if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # of a thread that uploads
        response = getattr(error, "response", None)
        if response is not None and response.status_code in (401, 403):
            reason = "it does not let you: hf auth login, with a token that may write there"
        else:
            reason = _reason(error)
        raise CharloomError(f"Hugging Face's hub, asked about {shown}: {reason}") from error


def _reason(error: Exception) -> str:
    """What an error says, of which the libraries make pages, on one line."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return printable(first)[:LONGEST_NAME]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a null character
        return False


def _download(
    name: str,
    *,
    revision: str | None,
    token: str | bool | None,
    local_files_only: bool,
    **how: Any,
) -> Path:
    """The folder in the cache with a model's files, all of one commit. Where the hub cannot be
    reached, what was downloaded before will do."""
    with _explained(name, revision):
        files, hub = None, "is not to be asked"
        if not local_files_only:
            try:
                files = _files_of(name, revision, token)
            except HfHubHTTPError:  # an answer
                raise
            except NO_CONNECTION as error:
                local_files_only, hub = True, f"cannot be reached ({_reason(error)})"
        if files is not None and not {CONFIG_FILE, MODEL_FILE} <= files:
            raise _lacks(name, MODEL_FILE if MODEL_FILE not in files else CONFIG_FILE)

        def download(file: str, revision: str | None) -> Path:
            how["local_files_only"] = local_files_only
            try:
                return Path(hf_hub_download(name, file, revision=revision, token=token, **how))
            except LocalEntryNotFoundError as error:
                if not local_files_only:
                    raise
                raise CharloomError(
                    f"{printable(name)} is no folder here and was not downloaded before, and the "
                    f"hub {hub}: look at the name and the connection"
                ) from error

        # First what tells whose model it is: another library's may have gigabytes.
        folder = download(CONFIG_FILE, revision).parent
        _read_config(folder, name)
        if files is None or EVALUATIONS_FILE in files:
            with contextlib.suppress(EntryNotFoundError, CharloomError):
                download(EVALUATIONS_FILE, folder.name)
        return download(MODEL_FILE, folder.name).parent


def _files_of(name: str, revision: str | None, token: str | bool | None) -> set[str]:
    """The files of a model on the hub. huggingface_hub's other requests wait for ever for an
    answer, or for minutes."""
    info = HfApi(token=token).model_info(name, revision=revision, timeout=LONGEST_WAIT)
    return {file.rfilename for file in info.siblings or ()}


def _lacks(name: str, file: str) -> CharloomError:
    return CharloomError(
        f"{printable(name)} holds no {file}: give a run, or a model that charloom exported (it "
        "loads nothing else, and no pickles, which can run code when they are opened)"
    )


def _card_was_changed(repo_id: str, branch: str | None, token: str | None) -> bool:
    """Whether a repository has a card that is not as we wrote it."""
    try:
        if CARD_FILE not in _files_of(repo_id, branch, token):
            return False
    except (RepositoryNotFoundError, RevisionNotFoundError):  # is still to be made
        return False
    with tempfile.TemporaryDirectory() as folder:
        path = hf_hub_download(repo_id, CARD_FILE, revision=branch, token=token, local_dir=folder)
        return not _is_as_written(Path(path))


# The card.


def model_card(
    checkpoint: Checkpoint, evaluations: Evaluations, model_name: str, **metadata: Any
) -> ModelCard:
    """What a model is, how to load it and how well it predicts, with metadata for the hub.

    evaluations: those of other weights are left out. metadata: entries of ModelCardData, which
    stand above ours, such as license. Ends with a mark by which a changed card is known.
    """
    config = checkpoint.config
    found = [
        {**rows, "bits_of_network": _bits_of_network(entry["evaluation"])}
        for entry in _evaluations_of(checkpoint, evaluations)
        if (rows := rows_of_evaluation(entry["evaluation"], config.cell)) is not None
    ]
    data = ModelCardData(
        **{
            "library_name": "charloom",
            "pipeline_tag": "text-generation",
            "tags": ["character-level", "language-model", "recurrent-neural-network", config.cell],
            "model_name": printable(model_name),
            "eval_results": _eval_results(checkpoint, found) or None,
        }
        | metadata
    )
    parts = [
        f"# {_code(model_name)}",
        _what_it_is(checkpoint),
        "## Training text",
        _training_text(checkpoint),
        "## Use",
        _use(model_name),
        "## Evaluation",
        *(_evaluation(checkpoint, one) for one in found),
        _protocols() if found else _not_evaluated(checkpoint),
        "## Limits",
        "It writes in the manner of its text, a character at a time. It knows nothing, makes "
        "things up, can repeat stretches of its text word for word, and cannot write a character "
        "that its text does not have. Its figures hold for that text alone.",
    ]
    card = ModelCard("---\n" + data.to_yaml() + "\n---\n\n" + "\n\n".join(parts) + "\n\n")
    card.text += _mark(str(card))
    return card


def _mark(content: str) -> str:
    return MARK.format(hashlib.sha256(content.encode()).hexdigest())


def _is_as_written(path: Path) -> bool:
    """Whether a card is one of ours to which nobody did anything."""
    try:
        content, found, _ = (text := path.read_text("utf-8")).rpartition(MARK.split("{}")[0])
    except ValueError:
        return False
    return bool(found) and content + _mark(content) == text


def _what_it_is(checkpoint: Checkpoint) -> str:
    config, vocabulary = checkpoint.config, checkpoint.vocabulary
    kind = "bytes" if vocabulary.as_bytes else "characters"
    layers = "one layer" if config.layers == 1 else f"{config.layers} layers"
    text = (
        f"A language model of {kind}, made with charloom: a recurrent network ({config.cell}) of "
        f"{config.hidden_size:,} hidden units in {layers}, {config.parameter_count:,} parameters "
        f"in {config.dtype}, over a vocabulary of {len(vocabulary):,} {kind}."
    )
    if checkpoint.mixture is None:
        return f"{text} It is the network alone, without counts."
    table = checkpoint.mixture.table
    return (
        f"{text} Its predictions are mixed with those of {len(table.characters):,} n-grams that "
        f"were counted ({table.context} characters of context), which hold the text's own wording."
    )


def _training_text(checkpoint: Checkpoint) -> str:
    text = checkpoint.text
    if not text:
        return "The model does not say what text it was trained on."
    size = text.get("characters")
    of = "characters" if type(size) is not int else f"{size:,} characters"
    return (
        f"{_code(text.get('name', ''))}, {of}, SHA-256 {_code(text.get('sha256', ''))}. Nothing is "
        "claimed here about its license."
    )


def _use(model_name: str) -> str:
    name = printable(model_name)
    folder = shlex.quote(name.rpartition("/")[2] or name)
    where = "" if "/" in name else "  # this folder; on the hub its owner stands before it"
    lines = [
        "```python",
        "from charloom.hub import HubModel  # pip install 'charloom[hub]'",
        "",
        f"model = HubModel.from_pretrained({name!a}){where}",
        "print(model.sample(length=200, temperature=0.7))",
        "```",
        "",
        "The file `model.safetensors` is all there is to it: it is checked whole by its SHA-256, "
        "cannot run code, and needs charloom alone.",
        "",
        "```sh",
        *([f"hf download {shlex.quote(name)} --local-dir {folder}"] if "/" in name else []),
        f"charloom sample {folder} --length 200 --temperature 0.7",
        f"charloom info {folder}",
        "```",
    ]
    return "\n".join(lines)


def _evaluation(checkpoint: Checkpoint, found: Mapping[str, Any]) -> str:
    """An evaluation in words, and its rows as `charloom evaluate` prints them."""
    sentences = [
        f"On the {_plain(found['text'])} of {_code(checkpoint.text.get('name', ''))}, "
        f"{found['characters']:,} characters, by the protocol {_plain(found['protocol'])}: "
        f"{found['bits']:.4f} bits per character ({found['bits_per_byte']:.4f} per byte), "
        f"perplexity {found['perplexity']:.3f} per character, top guess right "
        f"{100 * found['accuracy']:.1f}%."
    ]
    if found["interval"]:
        low, high = (nats / math.log(2) for nats in found["interval"])
        sentences.append(f"In 95 of 100 such texts it is between {low:.4f} and {high:.4f} bits.")
    if found["overlap"]:
        sentences.append(
            f"The longest stretch that stands in the training text has "
            f"{found['overlap']['characters']:,} characters."
        )
    if found["text"] == "validation part":
        sentences.append("The best weights were chosen on this very part, which flatters them.")
    rows = ["| bits per character | predictor | protocol | |", "| ---: | --- | --- | --- |"]
    for bits, name, protocol, note in found["rows"]:
        figure = "–" if bits is None else f"{bits:.4f}"
        ours = "**" if name == found["ours"] else ""
        cells = (ours + figure + ours, _plain(name), _plain(protocol), _plain(note))
        rows.append(f"| {' | '.join(cells)} |".replace("  ", " "))
    network = f"this {checkpoint.config.cell}"
    better = [
        name
        for bits, name, *_ in found["rows"]
        if bits is not None and bits < found["bits"] and name not in (found["ours"], network)
    ]
    if better:
        verdict = f"Better than this model here: {', '.join(_plain(name) for name in better)}."
    else:
        verdict = "No other predictor in the table is better here."
    return "\n".join([" ".join(sentences), "", *rows, "", verdict])


def _protocols() -> str:
    return (
        "The protocol says what a predictor may know: `carried` all of the part that went before, "
        "`cold-N` at most N characters of it; `adaptive` ones go on learning from it, `static` "
        "ones look at nothing before."
    )


def _not_evaluated(checkpoint: Checkpoint) -> str:
    text = (
        "These weights were not evaluated: `charloom evaluate` on their run, before they are saved "
        "for the hub, puts their figures here, beside those of n-grams and compressors."
    )
    found = checkpoint.metrics.get("validation")
    found = found if isinstance(found, dict) else {}
    nats = found.get("nats_per_character")
    if not isinstance(nats, float):
        return text
    return (
        f"{text} While it was trained, the network alone had {nats / math.log(2):.4f} bits per "
        f"character on what was held out (protocol {_plain(found.get('protocol'))}). That is the "
        "best of its validations, which flatters it."
    )


def _bits_of_network(found: Mapping[str, Any]) -> float | None:
    """The figure of a mixture's network alone, where there is one."""
    bits = found["baselines"].get("network", {}).get("bits_per_character")
    return None if bits is None else float(bits)


def _eval_results(checkpoint: Checkpoint, found: Sequence[Mapping[str, Any]]) -> list[EvalResult]:
    """The model's own figures; those of other predictors are no results of it."""
    results = []
    for one in found:
        protocol = printable(one["protocol"])
        figures = [
            ("bits_per_character", "bits per character", one["bits"], one["ours"]),
            ("perplexity", "perplexity per character", one["perplexity"], one["ours"]),
            ("accuracy", "top guess right", one["accuracy"], one["ours"]),
        ]
        if one["bits_of_network"] is not None:
            network = f"this {checkpoint.config.cell} alone"
            bits = one["bits_of_network"]
            figures.append(("bits_per_character", "bits per character", bits, network))
        part, name = printable(one["text"]), printable(checkpoint.text.get("name", ""))
        results += [
            EvalResult(
                task_type="text-generation",
                dataset_type="own-text",
                dataset_name=f"{name[:LONGEST_NAME]}, {part}",
                dataset_split=part.removesuffix(" part"),
                metric_type=kind,
                metric_name=f"{figure} ({whose}, {protocol})",
                metric_value=round(value, 4),
            )
            for kind, figure, value, whose in figures
        ]
    return results


def _code(text: object) -> str:
    """A text as Markdown shows it letter by letter, whatever it is: a code span of one line."""
    shown = printable(str(text))[:LONGEST_NAME]
    if not shown.strip():
        return "(without a name)"
    longest = max(map(len, re.findall("`+", shown)), default=0)
    space = " " if shown[0] in "` " or shown[-1] in "` " else ""
    fence = "`" * (longest + 1)
    return f"{fence}{space}{shown}{space}{fence}"


def _plain(text: object) -> str:
    """A text that Markdown shows as it is, in a table too."""
    return re.sub(r"([\\`*_\[\]<>|&~$:@])", r"\\\1", printable(str(text)))

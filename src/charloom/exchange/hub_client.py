"""Requests to Hugging Face Hub, with their errors explained."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from charloom.errors import CharloomError, printable, shortened
from charloom.exchange.card import LONGEST_NAME, is_as_written
from charloom.exchange.hub_folder import CARD_FILE, CONFIG_FILE, read_config
from charloom.exchange.hub_library import (
    EntryNotFoundError,
    GatedRepoError,
    HfApi,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    hf_hub_download,
)
from charloom.storage.folders import EVALUATIONS_FILE, MODEL_FILE

LONGEST_WAIT = 10.0  # seconds, for the hub's first answer
# Errors of what huggingface_hub asks by: requests, httpx or httpx2.
NO_CONNECTION = (*HfHubHTTPError.__bases__, OSError)


# The hub.


@contextlib.contextmanager
def explained(name: str, revision: str | None = None) -> Iterator[None]:
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


def file_exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a null character
        return False


def download_files(
    name: str,
    *,
    revision: str | None,
    token: str | bool | None,
    local_files_only: bool,
    **how: Any,
) -> Path:
    """The folder in the cache with a model's files, all of one commit. Where the hub cannot be
    reached, what was downloaded before will do."""
    with explained(name, revision):
        files, hub = None, "is not to be asked"
        if not local_files_only:
            try:
                files = _files_of(name, revision, token)
            except HfHubHTTPError:  # an answer
                raise
            except NO_CONNECTION as error:
                local_files_only, hub = True, f"cannot be reached ({_reason(error)})"
        if files is not None and not {CONFIG_FILE, MODEL_FILE} <= files:
            raise lacks_file(name, MODEL_FILE if MODEL_FILE not in files else CONFIG_FILE)

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
        read_config(folder, name)
        if files is None or EVALUATIONS_FILE in files:
            with contextlib.suppress(EntryNotFoundError, CharloomError):
                download(EVALUATIONS_FILE, folder.name)
        return download(MODEL_FILE, folder.name).parent


def _files_of(name: str, revision: str | None, token: str | bool | None) -> set[str]:
    """The files of a model on the hub. huggingface_hub's other requests wait for ever for an
    answer, or for minutes."""
    info = HfApi(token=token).model_info(name, revision=revision, timeout=LONGEST_WAIT)
    return {file.rfilename for file in info.siblings or ()}


def lacks_file(name: str, file: str) -> CharloomError:
    return CharloomError(
        f"{printable(name)} holds no {file}: give a run, or a model that charloom exported (it "
        "loads nothing else, and no pickles, which can run code when they are opened)"
    )


def card_was_changed(repo_id: str, branch: str | None, token: str | None) -> bool:
    """Whether a repository has a card that is not as we wrote it."""
    try:
        if CARD_FILE not in _files_of(repo_id, branch, token):
            return False
    except (RepositoryNotFoundError, RevisionNotFoundError):  # is still to be made
        return False
    with tempfile.TemporaryDirectory() as folder:
        path = hf_hub_download(repo_id, CARD_FILE, revision=branch, token=token, local_dir=folder)
        return not is_as_written(Path(path))

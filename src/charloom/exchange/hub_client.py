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

LONGEST_WAIT = 10.0  # seconds, for the first response
# Errors of the HTTP library that huggingface_hub uses: requests, httpx or httpx2.
NO_CONNECTION = (*HfHubHTTPError.__bases__, OSError)


@contextlib.contextmanager
def explained(name: str, revision: str | None = None) -> Iterator[None]:
    """Convert errors of huggingface_hub to a CharloomError of one line."""
    shown = printable(name)
    try:
        yield
    except CharloomError:
        raise
    except HFValidationError:
        raise CharloomError(
            f"{shortened(name)} is neither a folder nor a model's name on Hugging Face Hub: pass "
            "a run's folder or OWNER/NAME"
        ) from None
    except GatedRepoError:
        raise CharloomError(
            f"access to {shown} is restricted by its owner: request it on the model's page, then "
            "run hf auth login"
        ) from None
    except RepositoryNotFoundError:
        raise CharloomError(
            f"{shown} is neither a folder nor an accessible model on Hugging Face Hub: check the "
            "name, or run hf auth login if it is private"
        ) from None
    except RevisionNotFoundError:
        raise CharloomError(
            f"{shown} has no revision {shortened(revision)} on Hugging Face Hub: pass another one"
        ) from None
    except (*NO_CONNECTION, RuntimeError, ValueError) as error:
        if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # the error of an uploading thread
        response = getattr(error, "response", None)
        if response is not None and response.status_code in (401, 403):
            reason = "access denied; run hf auth login with a token for the repository"
        else:
            reason = _reason(error)
        raise CharloomError(f"Hugging Face Hub request for {shown} failed: {reason}") from error


def _reason(error: Exception) -> str:
    """Return the first line of an error's message, because the libraries write pages."""
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
    **options: Any,
) -> Path:
    """Download a model's files, all of one commit, and return their folder in the cache.

    Args:
        name: the model's name, OWNER/NAME.
        revision: a branch, tag or commit.
        token: the access token, as huggingface_hub expects it.
        local_files_only: whether only the cache is used. It is also used if the Hub cannot be
            reached.
        options: other options of `hf_hub_download`.

    Raises:
        CharloomError: if the model is not charloom's, cannot be accessed or cannot be reached.
    """
    with explained(name, revision):
        files, hub = None, "is not used (local_files_only)"
        if not local_files_only:
            try:
                files = _files_of(name, revision, token)
            except HfHubHTTPError:  # the Hub was reached, and its response is an error
                raise
            except NO_CONNECTION as error:
                local_files_only, hub = True, f"cannot be reached ({_reason(error)})"
        if files is not None and not {CONFIG_FILE, MODEL_FILE} <= files:
            raise lacks_file(name, MODEL_FILE if MODEL_FILE not in files else CONFIG_FILE)
        options |= {"token": token, "local_files_only": local_files_only}
        try:
            # The configuration first, because another library's model can have gigabytes.
            folder = Path(hf_hub_download(name, CONFIG_FILE, revision=revision, **options)).parent
            read_config(folder, name)
            commit = folder.name
            if files is None or EVALUATIONS_FILE in files:
                with contextlib.suppress(EntryNotFoundError):
                    hf_hub_download(name, EVALUATIONS_FILE, revision=commit, **options)
            return Path(hf_hub_download(name, MODEL_FILE, revision=commit, **options)).parent
        except LocalEntryNotFoundError as error:
            if not local_files_only:
                raise
            raise CharloomError(
                f"{printable(name)} is neither a folder nor in the cache, and Hugging Face Hub "
                f"{hub}: check the name and the connection"
            ) from error


def _files_of(name: str, revision: str | None, token: str | bool | None) -> set[str]:
    """Return the names of a model's files on the Hub.

    It is called before any other request, because huggingface_hub waits for minutes, or without
    a limit, for a response to those.
    """
    info = HfApi(token=token).model_info(name, revision=revision, timeout=LONGEST_WAIT)
    return {file.rfilename for file in info.siblings or ()}


def lacks_file(name: str, file: str) -> CharloomError:
    return CharloomError(
        f"{printable(name)} contains no {file}: pass a run or a model exported by charloom (other "
        "formats are not loaded, and pickles can run code)"
    )


def card_was_changed(repo_id: str, branch: str | None, token: str | None) -> bool:
    """Return whether a repository has a card that was edited."""
    try:
        if CARD_FILE not in _files_of(repo_id, branch, token):
            return False
    except (RepositoryNotFoundError, RevisionNotFoundError):  # it is created by the upload
        return False
    with tempfile.TemporaryDirectory() as folder:
        path = hf_hub_download(repo_id, CARD_FILE, revision=branch, token=token, local_dir=folder)
        return not is_as_written(Path(path))

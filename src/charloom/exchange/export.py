"""Export a model: as a web page, or in the format of PyTorch, ONNX or Hugging Face Hub."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from charloom.errors import (
    CharloomError,
    CharloomWarning,
    error_reason,
    quoted_path,
    shortened,
)
from charloom.evaluation.records import read_evaluations
from charloom.exchange.html import DEFAULT_SIZE, export_html
from charloom.exchange.onnx import export_onnx
from charloom.exchange.pytorch import export_pytorch
from charloom.language_model import LanguageModel
from charloom.pages.page import check_writable, write_page
from charloom.storage.checkpoint import load_checkpoint
from charloom.storage.folders import model_path

FORMATS = ("html", "pytorch", "onnx", "huggingface")


def export(
    model: LanguageModel | str | os.PathLike[str],
    to: str,
    out: str | os.PathLike[str],
    *,
    size: float = DEFAULT_SIZE,
) -> str:
    """Write a model as a web page, or in the format of another program.

    The page is that of `export_html`. PyTorch and ONNX get the network alone, without the n-gram
    model or context mixer. If it reads their predictions, these are its extra inputs. The folder
    for Hugging Face Hub has the whole model with its card, which includes the evaluations in a
    run's folder.

    Args:
        model: the model, or a run's folder or a checkpoint file.
        to: `html`, `pytorch`, `onnx` or `huggingface`. The page continues texts in a browser. For
            PyTorch, it is a state dict in safetensors with the Python code that loads it, and for
            ONNX a graph in float32.
        out: the output file (.html, .safetensors or .onnx), or the folder.
        size: megabytes of the page, at most.

    Returns:
        For `pytorch` the Python code, for `html` what the page's size costs, in a sentence; else an
        empty string.

    Raises:
        CharloomError: if the output cannot be written, or an extra is not installed.
    """
    if to not in FORMATS:
        raise CharloomError(f"--to is {shortened(to)}: pass html, pytorch, onnx or huggingface")
    target = Path(out)
    if to == "html":
        check_writable(target)
        page = export_html(model, size=size)
        write_page(target, page)
        return page.cost
    path, evaluations = None, []
    if isinstance(model, LanguageModel):
        checkpoint = model.checkpoint
    else:
        path = model_path(model)
        checkpoint, evaluations = load_checkpoint(path), read_evaluations(path.parent)
    if to == "huggingface":
        from charloom.exchange.card import card_kept
        from charloom.exchange.hub_folder import CARD_FILE, write_folder

        if write_folder(checkpoint, evaluations, target):
            warnings.warn(card_kept(target / CARD_FILE), CharloomWarning, stacklevel=2)
        return ""
    check_writable(target, page=False)
    if path is not None and target.exists() and target.samefile(path):
        raise CharloomError(f"--out is the model itself, {path}: pass another file")
    try:
        if to == "pytorch":
            return export_pytorch(checkpoint, target)
        export_onnx(checkpoint, target)
    except OSError as error:
        raise CharloomError(
            f"cannot write {quoted_path(target)} ({error_reason(error)}): use another file"
        ) from None
    return ""

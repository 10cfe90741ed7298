"""Tiny runs: trained once a session by each worker, and copied where a test changes them."""

from pathlib import Path

from charloom.cli.main import main

TINY = ["--hidden-size=8", "--batch-size=2", "--window=8"]
FEW = [*TINY, "--steps=4"]


def train_tiny(
    folder: Path, text: str, *options: str, file: str = "woods.txt", name: str = "run"
) -> Path:
    """Write a text into a folder and train on it; the run's folder beside it."""
    (folder / file).write_text(text, encoding="utf-8")
    assert main(["train", str(folder / file), "--out", str(folder / name), *options]) == 0
    return folder / name

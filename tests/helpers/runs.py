"""Tiny runs."""

TINY = ["--hidden-size=8", "--batch-size=2", "--window=8"]


FEW = [*TINY, "--steps=4"]

"""Train an rnn, a gru and an lstm with equal parameter counts and plot them: compare_cells.png.

Usage: python compare_cells.py [STEPS]. Requires Matplotlib.
"""

import sys

import matplotlib.pyplot as plt

import charloom
from charloom import GATES, ModelConfig

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 400
vocabulary_size = 103
budget = ModelConfig("lstm", 96, 1, vocabulary_size).parameter_count


def hidden_size_for(cell: str) -> int:
    """Return the largest hidden size with at most `budget` parameters."""
    sizes = range(8, 1024, 2)
    fitting = (
        n for n in sizes if ModelConfig(cell, n, 1, vocabulary_size).parameter_count <= budget
    )
    return max(fitting)


figure, axes = plt.subplots(figsize=(7, 4))
for cell in GATES:
    curve = []

    def keep(progress, curve=curve):
        if progress.validation is not None:
            curve.append((progress.step, progress.validation.nats_per_character))

    size = hidden_size_for(cell)
    model = charloom.train(
        "python-docs", cell=cell, hidden_size=size, steps=steps, seed=1, progress=keep
    )
    axes.plot(*zip(*curve, strict=True), marker=".", label=f"{cell}, {size} units")
    print(
        f"{cell:>4}: {size} units, {model.config.parameter_count:,} parameters, "
        f"{curve[-1][1]:.3f} nats per character after {steps} steps"
    )
axes.set(xlabel="steps", ylabel="validation, nats per character", title="Equal parameters")
axes.legend()
figure.tight_layout()
figure.savefig("compare_cells.png", dpi=120)

"""The workloads: models, windows, optimizers, and the amount of arithmetic they require.

V: characters in the vocabulary; H: hidden units; L: layers; G: gates; T: time steps; B: rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from charloom.network.parameters import GATES, ModelConfig

KNESER_NEY, CONTEXT_MIXING = "Kneser-Ney counts", "a context mixer, read"
CHECKED_STEPS = 10  # all systems must agree on their losses before anything is timed


@dataclass(frozen=True)
class Workload:
    """One row of the table. `against` contains the minimum and target ratios to other systems."""

    name: str
    kind: str  # train, sample, score or adapt
    cell: str
    hidden_size: int
    layers: int = 1
    rows: int = 1  # B
    window: int = 64  # T; for sampling and scoring, characters per call
    optimizer: str = "adamw"  # or adagrad
    learning_rate: float = 4e-3
    clip: float = 1.0
    classic: bool = False  # like the notebook: sliding windows, summed gradients, ε inside the root
    counts: str = ""  # beside the network: KNESER_NEY or CONTEXT_MIXING
    counted: int = 100_000  # characters that they have learned
    against: tuple[tuple[str, float, float], ...] = ()  # (peer or "best", minimum, target)

    def config(self, vocabulary_size: int) -> ModelConfig:
        read = vocabulary_size if self.counts == CONTEXT_MIXING else 0
        return ModelConfig(
            self.cell, self.hidden_size, self.layers, vocabulary_size, extra_inputs=read
        )

    @property
    def characters(self) -> int:
        """Return the number of predictions in one step."""
        return self.rows * self.window

    def operations(self, vocabulary_size: int) -> int:
        """Return the additions and multiplications of the matrix products per character.

        The first layer's input product is excluded for all systems, because it is a look-up. Those
        of counts are excluded too.
        """
        h = self.hidden_size
        products = GATES[self.cell] * h * h * (2 * self.layers - 1) + h * vocabulary_size
        products += GATES[self.cell] * h * self.config(vocabulary_size).extra_inputs
        return 2 * products * {"train": 3, "adapt": 4}.get(self.kind, 1)

    def bytes_touched(self, vocabulary_size: int) -> int:
        """Return the minimum memory traffic per character in bytes, in float32.

        Operands and results of every product are counted once, and activations once in each pass.
        Weights are counted once per time step, because they leave the L1 cache between two steps.
        The optimizer's vectors are counted once per step.
        """
        h, gates = self.hidden_size, GATES[self.cell]
        weights = gates * h * h * (2 * self.layers - 1)
        parameters = self.config(vocabulary_size).parameter_count
        activations = self.layers * (gates + 3) * h + vocabulary_size
        if self.kind != "train":
            return 4 * ((weights + h * vocabulary_size) // self.rows + activations)
        slots = 2 if self.optimizer == "adamw" else 1
        a_step = parameters * (2 + 2 * slots + 2)  # parameters and slots in and out, gradients
        return 4 * (2 * weights // self.rows + 4 * activations + a_step // self.characters)


WORKLOADS = (
    Workload(
        "training, rnn H=100, B=1, T=25, AdaGrad (the notebook's)",
        # Use a tenth of the notebook's learning rate. At 0.1 the first steps are so large that the
        # tenth loss depends on rounding, and the systems could not agree on it.
        "train", "rnn", 100, window=25, optimizer="adagrad", learning_rate=0.01, clip=0.0,
        classic=True, against=(("pytorch", 32, 40), ("jax", 5.3, 6.5)),
    ),
    Workload(
        "training, rnn H=128, B=32, T=64",
        "train", "rnn", 128, rows=32, against=(("pytorch", 4, 5), ("jax", 2.5, 3.3)),
    ),
    Workload(
        "training, lstm L=2 H=128, B=50, T=50 (char-rnn's)",
        "train", "lstm", 128, layers=2, rows=50, window=50, against=(("best", 1.4, 1.65),),
    ),
    Workload(
        "training, lstm H=256, B=32, T=64",
        "train", "lstm", 256, rows=32, against=(("best", 1.3, 1.55),),
    ),
    Workload(
        "training, gru H=256, B=32, T=64",
        "train", "gru", 256, rows=32, against=(("best", 1.3, 1.55),),
    ),
    Workload(
        "training, lstm H=512, B=64, T=128",
        "train", "lstm", 512, rows=64, window=128, against=(("best", 1.2, 1.4),),
    ),
    Workload(
        "sampling one stream, rnn H=100",
        "sample", "rnn", 100, window=1000, against=(("pytorch", 40, 100),),
    ),
    Workload(
        "sampling one stream, lstm H=512",
        "sample", "lstm", 512, window=1000, against=(("pytorch", 1.8, 2.5),),
    ),
    Workload(
        "sampling 64 streams at once, lstm H=256",
        "sample", "lstm", 256, rows=64, window=200, against=(("pytorch", 2, 4),),
    ),
    Workload(
        "scoring one long text with carried state, lstm H=256",
        "score", "lstm", 256, window=20_000, against=(("pytorch", 1.3, 2),),
    ),
    *(
        Workload(f"mixture with {counts}, {what}, gru H=256", *rest, counts=counts)
        for counts in (KNESER_NEY, CONTEXT_MIXING)
        for what, *rest in (
            ("sampling one stream", "sample", "gru", 256, 1, 1, 200),
            ("sampling 64 streams at once", "sample", "gru", 256, 1, 64, 10),
            ("scoring", "score", "gru", 256, 1, 1, 4_000),
            ("adaptive scoring", "adapt", "gru", 256, 1, 1, 1_000),
        )
    ),
)  # fmt: skip
PEAK_SHARE = {"training, lstm H=512, B=64, T=128": (0.70, 0.82)}


def small(workload: Workload) -> Workload:
    """Return a small version of the workload, which runs in milliseconds, for smoke tests."""
    return replace(
        workload,
        hidden_size=workload.hidden_size // 8,
        rows=max(workload.rows // 8, 1),
        window=min(workload.window, 25),
        counted=2_000,
    )

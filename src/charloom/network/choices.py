"""Values that a network's options can have. NumPy stays out, so that `--help` is quick."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

Cell = Literal["rnn", "lstm", "gru"]
HiddenSize = Annotated[int, Meta(ge=1, le=65_536)]
Normalization = Literal["none", "rms"]
Layers = Annotated[int, Meta(ge=1, le=64)]
DropProbability = Annotated[float, Meta(ge=0, lt=1)]
NumberType = Literal["float32", "float64"]
OptimizerName = Literal["adagrad", "rmsprop", "adam", "adamw", "sgd"]
Schedule = Literal["constant", "linear", "cosine"]

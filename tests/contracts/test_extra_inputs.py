"""Extra inputs in every engine: E numbers that the first layer reads beside each character."""

import pytest

from charloom.engines.protocol import ENGINES
from charloom.network.gradient_check import check_gradients
from helpers.engines import make, probabilities, window

CELLS = ("rnn", "lstm", "gru")
END = 3
EXTRA = 4

every_engine = pytest.mark.parametrize("name", [name for name in ENGINES if name != "auto"])
every_cell = pytest.mark.parametrize("cell", CELLS)


@every_engine
@every_cell
@pytest.mark.parametrize(("layers", "dropout", "end_id"), [(1, 0.0, None), (2, 0.4, END)])
def test_gradients_equal_central_differences(
    name: str, cell: str, layers: int, dropout: float, end_id: int | None
) -> None:
    engine = make(
        name, cell, layers=layers, dropout=dropout, end_id=end_id, extra_inputs=EXTRA, threads=1
    )
    inputs, targets, state = window(engine, 4, 3)
    extra = probabilities(engine, 4, 3)
    if end_id is not None:
        inputs[1:3, 1] = inputs[0, 0] = end_id

    def loss() -> float:
        return engine.loss_and_gradients(inputs, targets, state, dropout_step=3, **extra)[0]

    loss()
    most = None if engine.name == "reference" else 25
    errors = check_gradients(loss, engine.parameters, engine.gradients, most=most)
    assert len(errors) == 4 * layers + 2
    assert max(errors.values()) <= 1e-7, errors
    assert engine.gradients["rnn.weight_ih_l0"].shape[1] == 7 + EXTRA
    assert engine.gradients["rnn.weight_ih_l0"][:, 7:].any()

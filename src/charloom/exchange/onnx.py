"""Export a network as an ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from charloom.errors import CharloomError
from charloom.exchange.pytorch import MODULES, check_suffix, exported_header
from charloom.network.parameters import STATES, Float, ModelConfig
from charloom.storage.atomic import write_atomically
from charloom.storage.checkpoint import Checkpoint

# Out, to ONNX. Its gates stand in an order of its own: the blocks of ours, in its order.

ONNX_BLOCKS = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}  # lstm i, o, f, c; gru z, r, h
OPSET, IR_VERSION = 14, 8  # old enough for runtimes of several years


def export_onnx(checkpoint: Checkpoint, out: Path) -> None:
    """Writes an ONNX graph in float32: ids (T, B) and state (S, L, B, H) -> logits (T, B, V) and
    next_state. Raises CharloomError where the name will not do or onnx is missing; OSError.
    """
    check_suffix(out, ".onnx")
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError as error:
        raise CharloomError(
            f"exporting to ONNX needs onnx, which cannot be imported ({error}): pip install "
            "'charloom[onnx]'"
        ) from None
    config, p = checkpoint.config, checkpoint.parameters
    arrays, layers = STATES[config.cell], config.layers
    constants: dict[str, Any] = {
        "characters": np.array(config.vocabulary_size, np.int64),
        "zero_and_one": np.array([0, 1], np.float32),
        "directions": np.array([1], np.int64),
        "layers_in_a_row": np.array([arrays * layers, -1, config.hidden_size], np.int64),
        "shape_of_state": np.array([arrays, layers, -1, config.hidden_size], np.int64),
        "decoder.weight": np.ascontiguousarray(p["decoder.weight"].T, np.float32),  # (H, V)
        "decoder.bias": p["decoder.bias"].astype(np.float32),
    }
    # The state's arrays, a layer at a time, in the order of (S, L); each (1, B, H).
    before = [f"before_{index}" for index in range(arrays * layers)]
    after = [f"after_{index}" for index in range(arrays * layers)]
    nodes = [
        helper.make_node("OneHot", ["ids", "characters", "zero_and_one"], ["outputs_0"]),
        helper.make_node("Reshape", ["state", "layers_in_a_row"], ["states"]),
        helper.make_node("Split", ["states"], before, axis=0),
    ]
    attributes = {"linear_before_reset": 1} if config.cell == "gru" else {}
    for layer in range(layers):
        names = [f"{kind}_l{layer}" for kind in ("weight_ih", "weight_hh", "bias")]
        biases = [_onnx_order(config, p[f"rnn.bias_{of}_l{layer}"]) for of in ("ih", "hh")]
        constants[names[0]] = _onnx_order(config, p[f"rnn.weight_ih_l{layer}"])[None]
        constants[names[1]] = _onnx_order(config, p[f"rnn.weight_hh_l{layer}"])[None]
        constants[names[2]] = np.concatenate(biases)[None]
        nodes += [
            helper.make_node(
                MODULES[config.cell],
                [f"outputs_{layer}", *names, "", *before[layer::layers]],
                [f"directed_{layer}", *after[layer::layers]],
                hidden_size=config.hidden_size,
                **attributes,
            ),
            helper.make_node(  # (T, 1, B, H) -> (T, B, H)
                "Squeeze", [f"directed_{layer}", "directions"], [f"outputs_{layer + 1}"]
            ),
        ]
    nodes += [
        helper.make_node("MatMul", [f"outputs_{layers}", "decoder.weight"], ["products"]),
        helper.make_node("Add", ["products", "decoder.bias"], ["logits"]),
        helper.make_node("Concat", after, ["next_states"], axis=0),
        helper.make_node("Reshape", ["next_states", "shape_of_state"], ["next_state"]),
    ]
    state_shape = [arrays, layers, "B", config.hidden_size]
    graph = helper.make_graph(
        nodes,
        "charloom",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["T", "B"]),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, state_shape),
        ],
        [
            helper.make_tensor_value_info(
                "logits", TensorProto.FLOAT, ["T", "B", config.vocabulary_size]
            ),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, state_shape),
        ],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(
        graph,
        producer_name="charloom",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, exported_header(checkpoint))
    checker.check_model(model)
    write_atomically(out, model.SerializeToString())


def _onnx_order(config: ModelConfig, values: Float) -> Float:
    """Gate blocks (G·H, ...) in ONNX's order, in float32."""
    blocks = np.split(values.astype(np.float32), config.gates)
    return np.concatenate([blocks[block] for block in ONNX_BLOCKS[config.cell]])

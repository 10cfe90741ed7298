"""Export a network as an ONNX graph.

V: characters in the vocabulary; H: hidden units; L: layers; G: gates (1 rnn, 3 gru, 4 lstm);
T: time steps; B: rows of a batch; S: arrays of state (2 for lstm, else 1); E: extra inputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from charloom.errors import CharloomError
from charloom.exchange.pytorch import MODULES, check_suffix, exported_header
from charloom.network.parameters import STATES, Float, ModelConfig, Parameters
from charloom.storage.atomic import write_atomically
from charloom.storage.checkpoint import Checkpoint

# The indices of our gate blocks in the order of ONNX, which is i, o, f, c (lstm) or z, r, h (gru).
ONNX_BLOCKS = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
OPSET, IR_VERSION = 14, 8  # old enough for runtimes that are several years old


def export_onnx(checkpoint: Checkpoint, out: Path) -> None:
    """Write an ONNX graph in float32.

    It maps ids (T, B) and state (S, L, B, H) to logits (T, B, V) and next_state (S, L, B, H). In a
    model of documents, the caller empties a row's state before it passes the end of a document. The
    model's description states it.

    Raises:
        CharloomError: if the file name has another suffix, or if onnx is not installed.
        OSError: if the file cannot be written.
    """
    check_suffix(out, ".onnx")
    try:
        from onnx import checker, helper
    except ImportError as error:
        raise CharloomError(
            f"exporting to ONNX requires onnx, which cannot be imported ({error}): pip install "
            "'charloom[onnx]'"
        ) from None
    model = helper.make_model(
        _graph(checkpoint.config, checkpoint.parameters),
        producer_name="charloom",
        doc_string=_description(checkpoint.config),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, exported_header(checkpoint))
    checker.check_model(model)
    write_atomically(out, model.SerializeToString())


def _description(config: ModelConfig) -> str:
    """Return what the model's user must know about ends of documents and extra inputs."""
    found = []
    if config.end_id is not None:
        found.append(
            f"Id {config.end_id} is the end of a document, which precedes every document too. "
            "Before it is passed, set the state of its row to zero; it must be the first id of a "
            "window."
        )
    if config.extra_inputs:
        found.append(
            f"The input `extra`, (T, B, {config.extra_inputs}), contains the numbers that the "
            "network reads beside each id."
        )
    return " ".join(found)


def _graph(config: ModelConfig, parameters: Parameters) -> Any:
    """Return the graph: one-hot characters with the extra inputs, the layers, the decoder."""
    from onnx import TensorProto, helper, numpy_helper

    arrays, layers = STATES[config.cell], config.layers
    # The state's arrays in the order of (S, L), each (1, B, H).
    before = [f"before_{index}" for index in range(arrays * layers)]
    after = [f"after_{index}" for index in range(arrays * layers)]
    one_hot, beside = "outputs_0", []
    if config.extra_inputs:
        one_hot, shape = "one_hot", ["T", "B", config.extra_inputs]
        beside = [helper.make_tensor_value_info("extra", TensorProto.FLOAT, shape)]
    nodes = [
        helper.make_node("OneHot", ["ids", "characters", "zero_and_one"], [one_hot]),
        helper.make_node("Reshape", ["state", "layers_in_a_row"], ["states"]),
        helper.make_node("Split", ["states"], before, axis=0),
    ]
    if beside:
        nodes.append(helper.make_node("Concat", [one_hot, "extra"], ["outputs_0"], axis=2))
    for layer in range(layers):
        nodes += _layer_nodes(config, layer, before[layer::layers], after[layer::layers])
    nodes += [
        helper.make_node("MatMul", [f"outputs_{layers}", "decoder.weight"], ["products"]),
        helper.make_node("Add", ["products", "decoder.bias"], ["logits"]),
        helper.make_node("Concat", after, ["next_states"], axis=0),
        helper.make_node("Reshape", ["next_states", "shape_of_state"], ["next_state"]),
    ]
    ids_shape, state_shape = ["T", "B"], [arrays, layers, "B", config.hidden_size]
    logits_shape = ["T", "B", config.vocabulary_size]
    return helper.make_graph(
        nodes,
        "charloom",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ids_shape),
            *beside,
            helper.make_tensor_value_info("state", TensorProto.FLOAT, state_shape),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits_shape),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, state_shape),
        ],
        [
            numpy_helper.from_array(values, name)
            for name, values in _constants(config, parameters).items()
        ],
    )


def _layer_nodes(config: ModelConfig, layer: int, before: list[str], after: list[str]) -> list[Any]:
    """Return a layer's nodes. before, after: the names of its S arrays of state."""
    from onnx import helper

    attributes = {"linear_before_reset": 1} if config.cell == "gru" else {}
    return [
        helper.make_node(
            MODULES[config.cell],
            [f"outputs_{layer}", *_weight_names(layer), "", *before],
            [f"directed_{layer}", *after],
            hidden_size=config.hidden_size,
            **attributes,
        ),
        helper.make_node(  # (T, 1, B, H) -> (T, B, H)
            "Squeeze", [f"directed_{layer}", "directions"], [f"outputs_{layer + 1}"]
        ),
    ]


def _constants(config: ModelConfig, parameters: Parameters) -> dict[str, Any]:
    """Return the graph's constant arrays by name: shapes and weights."""
    rows = STATES[config.cell] * config.layers
    constants: dict[str, Any] = {
        "characters": np.array(config.vocabulary_size, np.int64),
        "zero_and_one": np.array([0, 1], np.float32),
        "directions": np.array([1], np.int64),
        "layers_in_a_row": np.array([rows, -1, config.hidden_size], np.int64),
        "shape_of_state": np.array(
            [STATES[config.cell], config.layers, -1, config.hidden_size], np.int64
        ),
        "decoder.weight": np.ascontiguousarray(
            parameters["decoder.weight"].T, np.float32
        ),  # (H, V)
        "decoder.bias": parameters["decoder.bias"].astype(np.float32),
    }
    for layer in range(config.layers):
        arrays = {
            name: _onnx_order(config, parameters[f"rnn.{name}_l{layer}"])
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        weight_ih, weight_hh, bias = _weight_names(layer)
        constants[weight_ih] = arrays["weight_ih"][None]
        constants[weight_hh] = arrays["weight_hh"][None]
        constants[bias] = np.concatenate([arrays["bias_ih"], arrays["bias_hh"]])[None]
    return constants


def _weight_names(layer: int) -> list[str]:
    return [f"{kind}_l{layer}" for kind in ("weight_ih", "weight_hh", "bias")]


def _onnx_order(config: ModelConfig, values: Float) -> Float:
    """Return gate blocks, (G·H, ...), in ONNX's order and in float32."""
    blocks = np.split(values.astype(np.float32), config.gates)
    return np.concatenate([blocks[block] for block in ONNX_BLOCKS[config.cell]])

"""Export a network as an ONNX graph.

V: characters in the vocabulary; H: hidden units; L: layers; G: gates (1 rnn, 3 gru, 4 lstm);
T: time steps; B: rows of a batch; S: arrays of state (2 for lstm, else 1); E: extra inputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from charloom.engines.reference_normalization import EPSILON
from charloom.errors import CharloomError
from charloom.exchange.pytorch import MODULES, check_suffix, exported_header
from charloom.network.choices import Cell
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

    if config.norm == "rms":
        return _normalized_layer(config, layer, before, after)
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
        if config.norm == "rms":
            constants |= _normalized_constants(config, parameters, layer)
            continue
        arrays = {
            name: _onnx_order(config, parameters[f"rnn.{name}_l{layer}"])
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        weight_ih, weight_hh, bias = _weight_names(layer)
        constants[weight_ih] = arrays["weight_ih"][None]
        constants[weight_hh] = arrays["weight_hh"][None]
        constants[bias] = np.concatenate([arrays["bias_ih"], arrays["bias_hh"]])[None]
    return constants


# A layer with normalized products: ONNX has no operator for it, so a Scan goes through time.


def _normalized_constants(
    config: ModelConfig, parameters: Parameters, layer: int
) -> dict[str, Any]:
    """Return a layer's constant arrays by name, with its weights transposed."""
    found: dict[str, Any] = {}
    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "norm_ih", "norm_hh"):
        values = parameters[f"rnn.{kind}_l{layer}"].astype(np.float32)
        found[f"{kind}_l{layer}"] = np.ascontiguousarray(values.T)
    gates, hidden = config.gates, config.hidden_size
    return found | {
        "epsilon": np.array(EPSILON, np.float32),
        "by_gate_in_time": np.array([0, 0, gates, hidden], np.int64),
        "by_gate": np.array([0, gates, hidden], np.int64),
        "stacked_in_time": np.array([0, 0, gates * hidden], np.int64),
        "stacked": np.array([0, gates * hidden], np.int64),
        "first": np.array([0], np.int64),
        "one": np.array(1, np.float32),
    }


def _normalized_product(source: str, kind: str, layer: int, in_time: str) -> list[Any]:
    """Return nodes for `kind`_sums = g ⊙ y of W times `source`, plus the bias."""
    from onnx import helper

    def name(what: str) -> str:
        return f"{kind}_{what}_{layer}"

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> Any:
        return helper.make_node(operator, inputs, [name(output)], **attributes)

    return [
        node("MatMul", [source, f"weight_{kind}_l{layer}"], "product"),
        node("Reshape", [name("product"), f"by_gate{in_time}"], "blocks"),
        node("Mul", [name("blocks"), name("blocks")], "squares"),
        node("ReduceMean", [name("squares")], "mean", axes=[-1], keepdims=1),
        node("Add", [name("mean"), "epsilon"], "above_zero"),
        node("Sqrt", [name("above_zero")], "root"),
        node("Div", [name("blocks"), name("root")], "normalized"),
        node("Reshape", [name("normalized"), f"stacked{in_time}"], "y"),
        node("Mul", [name("y"), f"norm_{kind}_l{layer}"], "scaled"),
        node("Add", [name("scaled"), f"bias_{kind}_l{layer}"], "sums"),
    ]


def _cell_nodes(cell: Cell) -> list[tuple[str, list[str], list[str]]]:
    """Return operators, inputs and outputs of a cell's step, from x and a to the next states."""
    if cell == "rnn":
        return [("Add", ["x", "a"], ["sum"]), ("Tanh", ["sum"], ["h_next"])]
    if cell == "lstm":
        return [
            ("Add", ["x", "a"], ["sum"]),
            ("Split", ["sum"], ["a_i", "a_f", "a_g", "a_o"]),
            ("Sigmoid", ["a_i"], ["i"]),
            ("Sigmoid", ["a_f"], ["f"]),
            ("Tanh", ["a_g"], ["g"]),
            ("Sigmoid", ["a_o"], ["o"]),
            ("Mul", ["f", "c"], ["kept"]),
            ("Mul", ["i", "g"], ["added"]),
            ("Add", ["kept", "added"], ["c_next"]),
            ("Tanh", ["c_next"], ["tanh_c"]),
            ("Mul", ["o", "tanh_c"], ["h_next"]),
        ]
    return [
        ("Split", ["x"], ["x_r", "x_z", "x_n"]),
        ("Split", ["a"], ["a_r", "a_z", "q"]),
        ("Add", ["x_r", "a_r"], ["sum_r"]),
        ("Sigmoid", ["sum_r"], ["r"]),
        ("Add", ["x_z", "a_z"], ["sum_z"]),
        ("Sigmoid", ["sum_z"], ["z"]),
        ("Mul", ["r", "q"], ["reset"]),
        ("Add", ["x_n", "reset"], ["sum_n"]),
        ("Tanh", ["sum_n"], ["n"]),
        ("Sub", ["one", "z"], ["new"]),
        ("Mul", ["new", "n"], ["from_new"]),
        ("Mul", ["z", "h"], ["from_old"]),
        ("Add", ["from_new", "from_old"], ["h_next"]),
    ]


def _normalized_layer(
    config: ModelConfig, layer: int, before: list[str], after: list[str]
) -> list[Any]:
    from onnx import TensorProto, helper

    def value(name: str, width: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", width])

    hidden, stacked = config.hidden_size, config.gates * config.hidden_size
    arrays = ["h", "c"][: STATES[config.cell]]
    body = _normalized_product("h", "hh", layer, "")
    body.append(helper.make_node("Identity", [f"hh_sums_{layer}"], ["a"]))
    for operator, inputs, outputs in _cell_nodes(config.cell):
        split = {"axis": 1} if operator == "Split" else {}
        body.append(helper.make_node(operator, inputs, outputs, **split))
    body.append(helper.make_node("Identity", ["h_next"], ["output"]))
    step = helper.make_graph(
        body,
        f"step_of_layer_{layer}",
        [*(value(name, hidden) for name in arrays), value("x", stacked)],
        [*(value(f"{name}_next", hidden) for name in arrays), value("output", hidden)],
    )
    starts = [f"start_{name}_{layer}" for name in arrays]
    ends = [f"end_{name}_{layer}" for name in arrays]
    return [
        *_normalized_product(f"outputs_{layer}", "ih", layer, "_in_time"),
        *(
            helper.make_node("Squeeze", [source, "first"], [start])
            for source, start in zip(before, starts, strict=True)
        ),
        helper.make_node(
            "Scan",
            [*starts, f"ih_sums_{layer}"],
            [*ends, f"outputs_{layer + 1}"],
            body=step,
            num_scan_inputs=1,
        ),
        *(
            helper.make_node("Unsqueeze", [end, "first"], [target])
            for end, target in zip(ends, after, strict=True)
        ),
    ]


def _weight_names(layer: int) -> list[str]:
    return [f"{kind}_l{layer}" for kind in ("weight_ih", "weight_hh", "bias")]


def _onnx_order(config: ModelConfig, values: Float) -> Float:
    """Return gate blocks, (G·H, ...), in ONNX's order and in float32."""
    blocks = np.split(values.astype(np.float32), config.gates)
    return np.concatenate([blocks[block] for block in ONNX_BLOCKS[config.cell]])

"""A BERT as a graph in the form that runtimes compute fastest.

What an exporter writes follows the program; this graph follows the arithmetic. States are one table of tokens [T, H], so that each product and its bias are one `Gemm`, which
becomes one product of integers when it is int8; the activation is one operator; the scale of attention lies in the weights of the queries; the mean needs no division,
because the vector's length becomes 1 behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tastemaker.models.bert import Bert, Layer, Rounded
from tastemaker.schema.protocols import FloatArray

OPSET = 20
"""The first with `Gelu`."""
HEARD = "heard"
"""What the heads bring is called `layerN.heard.given`: its channels' sizes can be moved into the values' weights."""


def write_bert(model: Bert, max_length: int, path: Path) -> None:
    """Writes a model with the inputs and the output of an exported one.

    Args:
        model: in float.
        max_length: longest text in tokens; positions behind it are never read, so they are left out.
        path: of the graph.
    """
    graph = _Graph()
    shape = model.shape
    graph.node("Shape", ["input_ids"], "size")
    graph.node("Gather", ["size", graph.numbers("second", 1)], "length")
    graph.node("Range", [graph.numbers("zero", 0), "length", graph.numbers("one", 1)], "places")
    words = graph.node("Gather", [graph.weights("words", model.words.weight), "input_ids"], "word_vectors")
    places = graph.node("Gather", [graph.weights("positions", model.positions.weight[:max_length]), "places"], "place_vectors")
    graph.node("Add", [words, places], "met")
    graph.node("Reshape", ["met", graph.numbers("flat", [-1, shape.hidden])], "tokens")
    hidden = graph.norm("begin", "tokens", model.norm)
    graph.node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
    graph.node("Sub", ["mask", graph.constant("whole", np.float32(1))], "missing")
    graph.node("Mul", ["missing", graph.constant("far", np.float32(1e4))], "barred_flat")
    graph.node("Unsqueeze", ["barred_flat", graph.numbers("inner", [1, 2])], "barred")
    for number, layer in enumerate(model.each_layer()):
        hidden = _layer(graph, f"layer{number}", hidden, layer)
    graph.node("Concat", ["size", graph.numbers("wide", [shape.hidden])], "full", axis=0)
    graph.node("Reshape", [hidden, "full"], "states")
    if shape.pooling == "cls":
        graph.node("Gather", ["states", graph.numbers("first", 0)], "pooled", axis=1)
    else:
        graph.node("Unsqueeze", ["mask", graph.numbers("middle", [1])], "weights")
        graph.node("MatMul", ["weights", "states"], "summed")
        graph.node("Squeeze", ["summed", graph.numbers("middle", [1])], "pooled")
    graph.node("ReduceL2", ["pooled", graph.numbers("last", [-1])], "size_of", keepdims=1)
    graph.node("Max", ["size_of", graph.constant("least", np.float32(1e-12))], "divisor")
    graph.node("Div", ["pooled", "divisor"], "vector")
    graph.save(path, shape.hidden)


def _layer(graph: _Graph, name: str, hidden: str, layer: Layer) -> str:
    heads, dim, width = layer.heads, layer.head_dim, layer.heads * layer.head_dim
    split = graph.node("Concat", ["size", graph.numbers(f"heads{heads}", [heads, dim])], f"{name}.split", axis=0)
    given = graph.node("Identity", [hidden], f"{name}.query_key_value.given")
    weight, bias = layer.query_key_value.weight.detach(), layer.query_key_value.bias.detach()
    turned = {}
    for place, (part, turn) in enumerate((("query", (0, 2, 1, 3)), ("key", (0, 2, 3, 1)), ("value", (0, 2, 1, 3)))):
        rows, scale = slice(place * width, (place + 1) * width), dim**-0.5 if part == "query" else 1.0
        found = graph.product(f"{name}.{part}", given, weight[rows] * scale, bias[rows] * scale)
        apart = graph.node("Reshape", [found, split], f"{name}.{part}.apart")
        turned[part] = graph.node("Transpose", [apart], f"{name}.{part}.turned", perm=turn)
    graph.node("MatMul", [turned["query"], turned["key"]], f"{name}.scores")
    graph.node("Add", [f"{name}.scores", "barred"], f"{name}.open")
    graph.node("Softmax", [f"{name}.open"], f"{name}.attention", axis=-1)
    graph.node("MatMul", [f"{name}.attention", turned["value"]], f"{name}.brought")
    graph.node("Transpose", [f"{name}.brought"], f"{name}.beside", perm=(0, 2, 1, 3))
    heard = graph.node("Reshape", [f"{name}.beside", graph.numbers(f"flat{width}", [-1, width])], f"{name}.{HEARD}.given")
    out = graph.linear(f"{name}.out", heard, layer.out)
    graph.node("Add", [out, hidden], f"{name}.added")
    middle = graph.norm(f"{name}.norm_attention", f"{name}.added", layer.norm_attention)
    up = graph.linear(f"{name}.up", middle, layer.up)
    graph.node("Gelu", [up], f"{name}.thought.given")
    down = graph.linear(f"{name}.down", f"{name}.thought.given", layer.down)
    graph.node("Add", [down, middle], f"{name}.added_again")
    return graph.norm(f"{name}.norm_forward", f"{name}.added_again", layer.norm_forward)


class _Graph:
    """Nodes and constants while they are collected."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        self._constants.setdefault(name, numpy_helper.from_array(np.asarray(value), name))
        return name

    def numbers(self, name: str, value: int | Sequence[int]) -> str:
        return self.constant(f"number.{name}", np.array(value, dtype=np.int64))

    def weights(self, name: str, value: Any) -> str:
        table: FloatArray = np.ascontiguousarray(value.detach().float().numpy())
        return self.constant(name, table)

    def product(self, name: str, given: str, weight: Any, bias: Any) -> str:
        """A product with its bias: [T, K] by [N, K]."""
        constants = [self.weights(f"{name}.weight", weight.T), self.weights(f"{name}.bias", bias)]
        return self.node("Gemm", [given, *constants], f"{name}.product")

    def linear(self, name: str, given: str, layer: Rounded) -> str:
        return self.product(name, given, layer.weight, layer.bias)

    def norm(self, name: str, given: str, norm: Any) -> str:
        constants = [self.weights(f"{name}.gain", norm.weight), self.weights(f"{name}.shift", norm.bias)]
        return self.node("LayerNormalization", [given, *constants], f"{name}.normed", axis=-1, epsilon=float(norm.eps))

    def save(self, path: Path, width: int) -> None:
        """Checks the graph and writes it."""
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "length"]) for name in ("input_ids", "attention_mask")
        ]
        outputs = [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["rows", width])]
        graph = helper.make_graph(self._nodes, "bert", inputs, outputs, list(self._constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(model)
        onnx.save(model, str(path))

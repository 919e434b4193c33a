"""Eight bits in place of thirty-two: weights and what meets them, in an ONNX graph that any runtime reads.

Each product with constant weights gets QuantizeLinear / DequantizeLinear around its operands (the format of ONNX, "QDQ"): ONNX Runtime and OpenVINO compute it in
integers where the CPU can, and anything else undoes it and computes the same numbers in float. Weights are symmetric for each output channel, rounded as `rounding`
says; activations have one scale, chosen on real inputs as `calibration` says. Tables of word vectors keep one scale a row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tastemaker.compression.calibration import Feed, Seen, activation_scale, calibrate, eight_bits
from tastemaker.compression.rounding import compensated
from tastemaker.compression.step import NotApplicable
from tastemaker.schema.protocols import FloatArray

LEAST_NUMBERS = 4_096
"""Smaller tables and weights stay as they are."""
_PRODUCTS = ("MatMul", "Gemm")


@dataclass(frozen=True)
class Product:
    """A product with constant weights.

    Attributes:
        node: its name. given: the tensor that meets the weights. weights: name of the constant. transposed: the weights are [out, in].
    """

    node: str
    given: str
    weights: str
    transposed: bool


def products(model: onnx.ModelProto) -> list[Product]:
    """The products of a graph whose weights are constant and large enough, in order."""
    sizes = {one.name: int(np.prod(one.dims)) for one in model.graph.initializer if len(one.dims) == 2}
    found = []
    for place, node in enumerate(model.graph.node):
        if not node.name:
            node.name = f"node_{place}"
        if node.op_type in _PRODUCTS and sizes.get(node.input[1], 0) >= LEAST_NUMBERS and node.input[0] not in sizes:
            attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            if not attributes.get("transA"):
                found.append(Product(node.name, node.input[0], node.input[1], bool(attributes.get("transB"))))
    return found


def quantize(
    source: Path,
    target: Path,
    feeds: Sequence[Feed],
    keep: Collection[str] = (),
    alpha: float | None = None,
    seen: dict[str, Seen] | None = None,
) -> dict[str, float | int | str]:
    """Writes the int8 form of a graph.

    Args:
        source, target: the graphs.
        feeds: real inputs; what they look like sets the scales of the activations.
        keep: names of products that stay as they are.
        alpha: of SmoothQuant; None: chosen for each tensor; 0 moves nothing.
        seen: what `observe` saw of these feeds already; None: it is looked at now.

    Returns:
        How many products and tables became int8.

    Raises:
        NotApplicable: nothing in the graph can become int8, it already is, or the inputs don't fit it.
    """
    model = onnx.load(str(source))
    if any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in model.graph.node):
        raise NotApplicable("it is int8 already")
    chosen = [one for one in products(model) if one.node not in keep]
    tables = table_names(model)
    if not chosen and not tables:
        raise NotApplicable("no product in it has constant weights, so nothing can become int8")
    if seen is None:
        seen = calibrate(model, list(dict.fromkeys(one.given for one in chosen)), feeds) if chosen else {}
    _Rewriting(model, seen, alpha).run(chosen, tables)
    onnx.checker.check_model(model)
    onnx.save(model, str(target))
    return {"int8 products": len(chosen), "int8 tables": len(tables), "float products": len(products(model))}


def observe(source: Path, feeds: Sequence[Feed]) -> dict[str, Seen]:
    """What calibration sees of everything that meets constant weights; see `calibrate`."""
    model = onnx.load(str(source))
    return calibrate(model, list(dict.fromkeys(one.given for one in products(model))), feeds)


def quantize_tables(model: onnx.ModelProto) -> int:
    """Makes the tables of a graph int8, in place; gives how many. Exact but for the rounding, so it needs no inputs."""
    tables = table_names(model)
    _Rewriting(model, {}, 0.0).run([], tables)
    return len(tables)


def table_names(model: onnx.ModelProto) -> list[str]:
    """Constant tables of vectors that a graph looks rows up in."""
    large = {
        one.name
        for one in model.graph.initializer
        if one.data_type == TensorProto.FLOAT and len(one.dims) == 2 and np.prod(one.dims) >= LEAST_NUMBERS
    }
    used: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            used.setdefault(name, []).append(node)
    return [
        name
        for name in sorted(large)
        if used.get(name) and all(node.op_type == "Gather" and node.input[0] == name and _axis(node) == 0 for node in used[name])
    ]


class _Rewriting:
    """One graph while its operands are replaced."""

    def __init__(self, model: onnx.ModelProto, seen: Mapping[str, Seen], alpha: float | None) -> None:
        self._model, self._seen, self._alpha = model, seen, alpha
        self._constants = {one.name: one for one in model.graph.initializer}
        self._before: dict[str, list[onnx.NodeProto]] = {}
        self._new: list[onnx.TensorProto] = []

    def run(self, chosen: Sequence[Product], tables: Sequence[str]) -> None:
        groups: dict[str, list[Product]] = {}
        for one in chosen:
            groups.setdefault(one.given, []).append(one)
        for given, members in groups.items():
            self._group(given, members)
        nodes: list[onnx.NodeProto] = []
        for node in self._model.graph.node:
            if node.op_type == "Gather" and node.input[0] in tables:
                nodes += self._looked_up(node)
                continue
            nodes += [*self._before.pop(node.name, []), node]
        used = {name for node in nodes for name in node.input}
        kept = [one for one in self._model.graph.initializer if one.name in used]
        del self._model.graph.node[:]
        self._model.graph.node.extend(nodes)
        del self._model.graph.initializer[:]
        self._model.graph.initializer.extend([*kept, *self._new])
        del self._model.graph.value_info[:]

    def _group(self, given: str, members: Sequence[Product]) -> None:
        """Products that read one tensor: they share its smoothing and its eight bits."""
        nodes = {node.name: node for node in self._model.graph.node}
        weights = {one.node: self._weights(one) for one in members}
        seen = self._seen[given]
        chosen = eight_bits(seen, list(weights.values()), self._alpha)
        factor = chosen.factor
        first = min(members, key=lambda one: list(nodes).index(one.node)).node
        made = self._before.setdefault(first, [])
        name = given
        if factor is not None:
            name = f"{given}.smooth"
            made.append(helper.make_node("Mul", [given, self._constant(f"{name}.factor", 1 / factor)], [name]))
        scale, zero = activation_scale(chosen.low, chosen.high)
        scale_name, zero_name = self._constant(f"{name}.scale", np.float32(scale)), self._constant(f"{name}.zero", np.uint8(zero))
        made.append(helper.make_node("QuantizeLinear", [name, scale_name, zero_name], [f"{name}.u8"]))
        made.append(helper.make_node("DequantizeLinear", [f"{name}.u8", scale_name, zero_name], [f"{name}.back"]))
        moments = seen.moments_of(factor if factor is not None else np.ones_like(seen.low), scale)
        for one in members:
            table = weights[one.node] * (factor[:, None] if factor is not None else 1.0)
            codes = channel_codes(table.astype(np.float32), moments)
            self._product(nodes[one.node], one, codes, f"{name}.back", scale, made)

    def _product(
        self,
        node: onnx.NodeProto,
        one: Product,
        codes: tuple[NDArray[np.int8], FloatArray],
        given: str,
        scale: float,
        made: list[onnx.NodeProto],
    ) -> None:
        (codes_KN, scale_N), prefix = codes, f"{one.node}.weights"
        axis = 0 if one.transposed else 1
        stored = np.ascontiguousarray(codes_KN.T if one.transposed else codes_KN)
        names = [
            self._constant(f"{prefix}.s8", stored),
            self._constant(f"{prefix}.scale", scale_N),
            self._constant(f"{prefix}.zero", np.zeros(len(scale_N), np.int8)),
        ]
        made.append(helper.make_node("DequantizeLinear", names, [f"{prefix}.back"], axis=axis))
        node.input[0], node.input[1] = given, f"{prefix}.back"
        if node.op_type == "Gemm" and len(node.input) == 3 and node.input[2] in self._constants:
            self._bias(node, prefix, scale * scale_N, made)

    def _bias(self, node: onnx.NodeProto, prefix: str, scale_N: FloatArray, made: list[onnx.NodeProto]) -> None:
        """The bias in the integers in which the product is summed up: it costs nothing there."""
        bias_N = numpy_helper.to_array(self._constants[node.input[2]]).astype(np.float64)
        codes_N = np.clip(np.rint(bias_N / scale_N), -(2**31) + 1, 2**31 - 1).astype(np.int32)
        names = [
            self._constant(f"{prefix}.bias", codes_N),
            self._constant(f"{prefix}.bias_scale", scale_N.astype(np.float32)),
            self._constant(f"{prefix}.bias_zero", np.zeros(len(scale_N), np.int32)),
        ]
        made.append(helper.make_node("DequantizeLinear", names, [f"{prefix}.bias_back"], axis=0))
        node.input[2] = f"{prefix}.bias_back"

    def _looked_up(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """A Gather of a table as a Gather of bytes, widened, times a Gather of scales."""
        name, rows, out = node.input[0], node.input[1], node.output[0]
        table = numpy_helper.to_array(self._constants[name])
        codes_NV, scale_V = channel_codes(np.ascontiguousarray(table.T))
        codes = self._constant(f"{name}.s8", np.ascontiguousarray(codes_NV.T))
        scales = self._constant(f"{name}.scale", scale_V[:, None])
        return [
            helper.make_node("Gather", [codes, rows], [f"{out}.s8"]),
            helper.make_node("Cast", [f"{out}.s8"], [f"{out}.wide"], to=TensorProto.FLOAT),
            helper.make_node("Gather", [scales, rows], [f"{out}.scale"]),
            helper.make_node("Mul", [f"{out}.wide", f"{out}.scale"], [out]),
        ]

    def _weights(self, one: Product) -> FloatArray:
        table = numpy_helper.to_array(self._constants[one.weights]).astype(np.float32)
        return table.T if one.transposed else table

    def _constant(self, name: str, value: Any) -> str:
        if name not in {one.name for one in self._new}:
            self._new.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def channel_codes(table_KN: FloatArray, moments_KK: FloatArray | None = None) -> tuple[NDArray[np.int8], FloatArray]:
    """int8 codes [K, N] and a scale for each column, float32 [N]; with the moments of the inputs their products stay close, else each number by itself."""
    scale_N = np.maximum(np.abs(table_KN).max(axis=0) / 127, 1e-12).astype(np.float32)
    if moments_KK is not None:
        return compensated(table_KN, scale_N, moments_KK), scale_N
    return np.rint(table_KN / scale_N).astype(np.int8), scale_N


def _axis(node: onnx.NodeProto) -> int:
    return next((int(one.i) for one in node.attribute if one.name == "axis"), 0)

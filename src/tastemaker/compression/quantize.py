"""Eight bits in place of thirty-two: weights and what meets them, in an ONNX graph that any runtime reads.

Each product with constant weights gets QuantizeLinear / DequantizeLinear around its operands (the format of ONNX, "QDQ"): ONNX Runtime and OpenVINO compute it in
integers where the CPU can, and anything else undoes it and computes the same numbers in float. Weights are symmetric for each output channel; activations have one
scale, measured on real inputs. Before, scale is moved from activations with outliers to the weights behind them (SmoothQuant: G. Xiao et al., 2023, arXiv
2211.10438). Tables of word vectors keep one scale a row.
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

from tastemaker.compression.step import NotApplicable
from tastemaker.schema.protocols import FloatArray

Feed = Mapping[str, NDArray[Any]]
LEAST_NUMBERS = 4_096
"""Smaller tables and weights stay as they are."""
ALPHA = 0.8
"""How much of an outlier is moved to the weights."""
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


@dataclass(frozen=True)
class Seen:
    """The smallest and the largest number that calibration saw in each channel of a tensor, float32 [K]."""

    low: FloatArray
    high: FloatArray

    @property
    def size(self) -> FloatArray:
        """The largest size in each channel, float32 [K]."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


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


def calibrate(model: onnx.ModelProto, tensors: Sequence[str], feeds: Sequence[Feed]) -> dict[str, Seen]:
    """Runs a graph on real inputs and looks at some of its tensors.

    Raises:
        NotApplicable: there are no inputs, they don't fit the graph, or a tensor holds a number that is none.
    """
    if not feeds:
        raise NotApplicable("there are no inputs to calibrate with")
    runs = _watched(model, tensors)
    seen: dict[str, Seen] = {}
    for feed in feeds:
        try:
            answers = runs.run(list(tensors), dict(feed))
        except Exception as error:  # the runtime raises classes of its own that share no base
            raise NotApplicable(f"the calibration inputs don't fit the graph ({str(error)[:150]})") from None
        for name, value in zip(tensors, answers, strict=True):
            if not np.isfinite(value).all():
                raise NotApplicable(f"the calibration inputs make {name} infinite: they are damaged, or of another model")
            flat = value.reshape(-1, value.shape[-1])
            before = seen.get(name, Seen(flat[0], flat[0]))
            seen[name] = Seen(np.minimum(before.low, flat.min(axis=0)), np.maximum(before.high, flat.max(axis=0)))
    return seen


def quantize(
    source: Path,
    target: Path,
    feeds: Sequence[Feed],
    keep: Collection[str] = (),
    alpha: float = ALPHA,
    seen: dict[str, Seen] | None = None,
) -> dict[str, float | int | str]:
    """Writes the int8 form of a graph.

    Args:
        source, target: the graphs.
        feeds: real inputs; what they look like sets the scales of the activations.
        keep: names of products that stay as they are.
        alpha: of SmoothQuant; 0 moves nothing.
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

    def __init__(self, model: onnx.ModelProto, seen: Mapping[str, Seen], alpha: float) -> None:
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
        gone = {one.weights for one in chosen} | set(tables)
        used = {name for node in nodes for name in node.input}
        kept = [one for one in self._model.graph.initializer if one.name not in gone or one.name in used]
        del self._model.graph.node[:]
        self._model.graph.node.extend(nodes)
        del self._model.graph.initializer[:]
        self._model.graph.initializer.extend([*kept, *self._new])
        del self._model.graph.value_info[:]

    def _group(self, given: str, members: Sequence[Product]) -> None:
        """Products that read one tensor: they share its smoothing and its eight bits."""
        nodes = {node.name: node for node in self._model.graph.node}
        weights = {one.node: self._weights(one) for one in members}
        sizes = np.max([np.abs(table).max(axis=1) for table in weights.values()], axis=0)
        seen = self._seen[given]
        factor = smoothing(seen.size, sizes, self._alpha)
        first = min(members, key=lambda one: list(nodes).index(one.node)).node
        made = self._before.setdefault(first, [])
        name = given
        divisor = np.ones_like(seen.low) if factor is None else factor
        low, high = float((seen.low / divisor).min()), float((seen.high / divisor).max())
        if factor is not None:
            name = f"{given}.smooth"
            made.append(helper.make_node("Mul", [given, self._constant(f"{name}.factor", 1 / factor)], [name]))
        scale, zero = activation_scale(low, high)
        scale_name, zero_name = self._constant(f"{name}.scale", np.float32(scale)), self._constant(f"{name}.zero", np.uint8(zero))
        made.append(helper.make_node("QuantizeLinear", [name, scale_name, zero_name], [f"{name}.u8"]))
        made.append(helper.make_node("DequantizeLinear", [f"{name}.u8", scale_name, zero_name], [f"{name}.back"]))
        for one in members:
            table = weights[one.node] * (factor[:, None] if factor is not None else 1.0)
            self._product(nodes[one.node], one, table.astype(np.float32), f"{name}.back", made)

    def _product(self, node: onnx.NodeProto, one: Product, table_KN: FloatArray, given: str, made: list[onnx.NodeProto]) -> None:
        codes_KN, scale_N = channel_codes(table_KN)
        prefix = f"{one.node}.weights"
        axis = 0 if one.transposed else 1
        stored = np.ascontiguousarray(codes_KN.T if one.transposed else codes_KN)
        names = [
            self._constant(f"{prefix}.s8", stored),
            self._constant(f"{prefix}.scale", scale_N),
            self._constant(f"{prefix}.zero", np.zeros(len(scale_N), np.int8)),
        ]
        made.append(helper.make_node("DequantizeLinear", names, [f"{prefix}.back"], axis=axis))
        node.input[0], node.input[1] = given, f"{prefix}.back"

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


def smoothing(channels: FloatArray, weights: FloatArray, alpha: float) -> FloatArray | None:
    """What each channel of an activation is divided by, float32 [K]; None where nothing is moved.

    Args:
        channels: largest size of the activation in each channel, [K]. weights: largest size of the weights that meet it, [K].
        alpha: of SmoothQuant, in [0, 1].
    """
    if alpha <= 0:
        return None
    factor = np.maximum(channels, 1e-5) ** alpha / np.maximum(weights, 1e-5) ** (1 - alpha)
    clipped: FloatArray = np.clip(factor / np.exp(np.log(factor).mean()), 1e-2, 1e2).astype(np.float32)
    return clipped


def channel_codes(table_KN: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    """int8 codes [K, N] and a scale for each column, float32 [N]."""
    scale_N = np.maximum(np.abs(table_KN).max(axis=0) / 127, 1e-12).astype(np.float32)
    return np.rint(table_KN / scale_N).astype(np.int8), scale_N


def activation_scale(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of eight bits without sign from the smallest to the largest number, zero among them exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 255, 1e-12)
    return scale, round(-low / scale)


def _axis(node: onnx.NodeProto) -> int:
    return next((int(one.i) for one in node.attribute if one.name == "axis"), 0)


def _watched(model: onnx.ModelProto, tensors: Sequence[str]) -> Any:
    import onnxruntime

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {one.name for one in copy.graph.output}
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise NotApplicable(f"the runtime can't read the graph ({str(error)[:150]})") from None

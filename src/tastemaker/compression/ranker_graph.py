"""The ranker's products in eight bits: weights as codes, and an ONNX graph that multiplies these codes with the columns of one list, rounded to eight bits as well.

    x       prepared columns, the items' projections, and these times the asker's
    h_0     round(x / factor) W_0 + the asker's own part, which is one row for a list and stays in float
    h_i     round(max(h_i-1, 0)) W_i + b_i
    logits  x wide + max(h_L, 0) tower, in float

All scales are constants, chosen on real candidates. The graph holds no weights of the experts: it reads them from the files of the codes, which are also what is multiplied in float
where a CPU has no instructions for bytes. Written for one network without names and crosses, whose products are nearly all in its experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tastemaker.compression.calibration import Seen, activation_scale, eight_bits
from tastemaker.compression.quantize import channel_codes
from tastemaker.models.ranker import PRODUCTS, Columns, Ranker
from tastemaker.schema.protocols import FloatArray

ROWS = 16_384
"""Candidates at most that scales are chosen on."""
_PARTS = 16
_RUNTIME = "com.microsoft"


@dataclass(frozen=True)
class Layer:
    """A layer's weights and what meets them.

    Attributes:
        codes: of the weights, int8 [K, N]. steps: what a code of each output is worth, [N]. rows: and of each input besides, [K].
        scale, zero: of the eight bits of what meets it, once that is multiplied by `rows`' inverse.
    """

    codes: NDArray[np.int8]
    steps: FloatArray
    rows: FloatArray
    scale: float
    zero: int


def layers_of(ranker: Ranker, columns: Columns) -> list[Layer]:
    """All layers of the network in eight bits, chosen on some candidates."""
    arrays, mine = ranker.arrays, mine_of(columns)
    x = columns.table()
    x = np.ascontiguousarray(x[:: -(-len(x) // ROWS)])
    found = [_first(arrays["expert_0"][0], x, mine)]
    h = x
    for layer in range(1, len(ranker.plan.shape.hidden)):
        h = np.maximum(h @ arrays[f"expert_{layer - 1}"][0] + arrays[f"expert_bias_{layer - 1}"].reshape(-1), 0.0)
        found.append(_layer(arrays[f"expert_{layer}"][0], h, 0.0))
    return found


def mine_of(columns: Columns) -> slice:
    """Where the table's columns of the asker alone lie."""
    own = columns.prepared.shape[1]
    return slice(own, own + columns.theirs.shape[1])


def _layer(table_KN: FloatArray, rows_RK: FloatArray, alpha: float | None) -> Layer:
    """Of weights and what meets them; `alpha` is that of SmoothQuant."""
    parts = np.array_split(rows_RK, min(_PARTS, len(rows_RK)))
    seen = Seen.of(parts[0])
    for part in parts[1:]:
        seen.add(part)
    chosen = eight_bits(seen, [table_KN], alpha)
    factor = np.ones_like(seen.low) if chosen.factor is None else chosen.factor
    scale, zero = activation_scale(chosen.low, chosen.high)
    codes, steps = channel_codes((table_KN * factor[:, None]).astype(np.float32), seen.moments_of(factor, scale))
    return Layer(codes, steps, (1 / factor).astype(np.float32), scale, zero)


def _first(table_KN: FloatArray, rows_RK: FloatArray, mine: slice) -> Layer:
    """The first layer: weights of the asker's own columns become codes, too, but nothing meets them in eight bits."""
    others = np.delete(np.arange(len(table_KN)), mine)
    found = _layer(table_KN[others], rows_RK[:, others], None)
    largest = max(float((np.abs(table_KN[mine]) / found.steps).max(initial=0.0)) / 127, 1e-12)
    codes, rows = np.empty(table_KN.shape, np.int8), np.full(len(table_KN), largest, dtype=np.float32)
    codes[others], rows[others] = found.codes, found.rows
    codes[mine] = np.rint(table_KN[mine] / (found.steps * largest))
    return Layer(codes, found.steps, rows, found.scale, found.zero)


def write(folder: Path, ranker: Ranker, layers: Sequence[Layer], mine: slice) -> list[str]:
    """Writes codes, scales and graph into the folder of a ranker; gives the names of the files.

    Args:
        ranker: whose other weights go into the graph. mine: of `mine_of`.
    """
    names = [PRODUCTS]
    for place, one in enumerate(layers):
        parts: dict[str, NDArray[Any]] = {"weights": one.codes[None], "scale": one.steps[None, None]}
        files = {f"{part}.expert_{place}.npy": array for part, array in parts.items()}
        if not place:
            files["scale.expert_0.rows.npy"] = one.rows[None, :, None]
        for name, array in files.items():
            np.save(folder / name, array, allow_pickle=False)
        names += files
    onnx.save(_Writing(folder, ranker, layers, mine).graph(), str(folder / PRODUCTS))
    onnx.checker.check_model(str(folder / PRODUCTS))
    return names


class _Writing:
    """One graph while it is written."""

    def __init__(self, folder: Path, ranker: Ranker, layers: Sequence[Layer], mine: slice) -> None:
        self._folder, self._arrays, self._layers, self._mine = folder, ranker.arrays, layers, mine
        self._tasks = ranker.plan.shape.tasks
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def graph(self) -> onnx.ModelProto:
        own, width = self._mine.start, self._mine.stop - self._mine.start
        self._columns()
        h = "h_0"
        for place in range(1, len(self._layers)):
            h = self._product(
                place, h, f"h_{place}", self._constant(f"b_{place}", self._arrays[f"expert_bias_{place}"].reshape(-1))
            )
        self._node("Relu", [h], "positive")
        self._node("MatMul", ["positive", self._constant("tower", self._arrays["tower"].T)], "told")
        self._node("Add", ["told", "beside"], "logits")
        given = [("prepared", ["n", own]), ("theirs", ["n", width]), ("mine", [1, width])]
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in given]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", self._tasks])]
        made = helper.make_graph(self._nodes, "ranker", inputs, outputs, self._constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(_RUNTIME, 1)]
        return helper.make_model(made, opset_imports=opsets, ir_version=8)

    def _columns(self) -> None:
        """x, h_0 and what stands beside the experts."""
        first, mine, wide = self._layers[0], self._mine, self._arrays["wide"]
        self._node("Mul", ["theirs", "mine"], "both")
        self._node("Concat", ["prepared", "theirs", "both"], "x", axis=1)
        self._node("Mul", ["x", self._constant("smooth", np.delete(first.rows, mine))], "even")
        self._codes(0, "before", 0, mine.start)
        self._codes(0, "behind", mine.stop, len(first.codes))
        self._codes(0, "asker", mine.start, mine.stop)
        self._node("Concat", ["before", "behind"], "weights_0", axis=0)
        self._node("Cast", ["asker"], "asker_wide", to=TensorProto.FLOAT)
        self._node(
            "Mul", ["asker_wide", self._constant("asker_steps", first.steps * first.rows[mine].max(initial=0.0))], "asker_weights"
        )
        shift = self._of_asker("asker_weights", self._constant("b_0", self._arrays["expert_bias_0"].reshape(-1)), "shift")
        self._product(0, "even", "h_0", shift, "weights_0")
        level = self._of_asker(self._constant("asker_beside", wide[mine]), self._constant("bias", self._arrays["bias"]), "level")
        self._node("MatMul", ["x", self._constant("wide", np.delete(wide, mine, axis=0))], "linear")
        self._node("Add", ["linear", level], "beside")

    def _of_asker(self, weights: str, shift: str, name: str) -> str:
        """What the asker's own columns give to all candidates, one row, [N]."""
        self._node("MatMul", ["mine", weights], f"{name}_product")
        self._node("Add", [f"{name}_product", shift], f"{name}_row")
        return self._node("Reshape", [f"{name}_row", self._constant("flat", np.array([-1]), np.int64)], name)

    def _product(self, place: int, given: str, name: str, shift: str, weights: str = "") -> str:
        """A layer: what is given rounded to bytes, negatives to 0 where the zero is 0, times codes, in float again."""
        one = self._layers[place]
        if not weights:
            weights = self._codes(place, f"weights_{place}", 0, len(one.codes))
        scale, zero = self._constant(f"scale_{place}", np.float32(one.scale)), self._constant(f"zero_{place}", one.zero, np.uint8)
        self._node("QuantizeLinear", [given, scale, zero], f"bytes_{place}")
        operands = [f"bytes_{place}", weights, scale, self._constant(f"steps_{place}", one.steps), zero, "", shift]
        return self._node("MatMulIntegerToFloat", operands, name, domain=_RUNTIME)

    def _codes(self, place: int, name: str, begin: int, end: int) -> str:
        """Rows of a layer's codes, where they lie in their file of NumPy's."""
        codes, path = self._layers[place].codes, self._folder / f"weights.expert_{place}.npy"
        one = TensorProto(
            name=name, data_type=TensorProto.INT8, dims=[end - begin, codes.shape[1]], data_location=TensorProto.EXTERNAL
        )
        offset = path.stat().st_size - codes.nbytes + begin * codes.shape[1]
        for key, value in (("location", path.name), ("offset", offset), ("length", (end - begin) * codes.shape[1])):
            one.external_data.add(key=key, value=str(value))
        self._constants.append(one)
        return name

    def _constant(self, name: str, value: Any, kind: Any = None) -> str:
        if name not in {one.name for one in self._constants}:
            self._constants.append(
                numpy_helper.from_array(
                    np.ascontiguousarray(value, dtype=kind or np.asarray(value).dtype).reshape(np.shape(value)), name
                )
            )
        return name

    def _node(self, kind: str, given: Sequence[str], name: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, list(given), [name], **attributes))
        return name

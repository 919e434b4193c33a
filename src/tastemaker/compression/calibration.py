"""What meets the weights of a graph on real inputs, and the eight bits that lose least of it.

For each tensor two things are chosen by how far the products behind it would move: how much of the channels' difference in size is carried by the weights (SmoothQuant:
G. Xiao et al., 2023, arXiv 2211.10438), and how much of rare large numbers is cut off so that the others are told apart more finely.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from tastemaker.compression.step import NotApplicable
from tastemaker.schema.protocols import FloatArray

Feed = Mapping[str, NDArray[Any]]
ALPHAS = (0.9, 0.8, 0.7, 0.6)
"""How much of an outlier may be moved to the weights."""
CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of the range seen that may be kept, on either side."""
COMPENSATED = 0.3
"""Of what rounding each weight by itself loses, the share that is left when they make up for each other (`rounding`): 1 - .975 against 1 - .962 of the neighbours."""
_ROWS, _WIDEST = 384, 2_048


@dataclass
class Seen:
    """What calibration saw of a tensor.

    Attributes:
        low, high: the smallest and the largest number in each channel, float32 [K].
        rows: some of its rows, float32 [R, K].
        moments: sum of the outer products of all rows, float32 [K, K]; None: it is too wide for that.
        count: rows seen.
    """

    low: FloatArray
    high: FloatArray
    rows: FloatArray
    moments: FloatArray | None
    count: int

    @classmethod
    def of(cls, flat: FloatArray, moments: bool = True) -> Seen:
        """Of the first rows [n, K]; without moments where nothing will be rounded by them."""
        outer = flat.T @ flat if moments and flat.shape[1] <= _WIDEST else None
        return cls(flat.min(axis=0), flat.max(axis=0), flat[: _ROWS // 4].copy(), outer, len(flat))

    def add(self, flat: FloatArray) -> None:
        """Looks at more rows [n, K]."""
        self.low, self.high = np.minimum(self.low, flat.min(axis=0)), np.maximum(self.high, flat.max(axis=0))
        if len(self.rows) < _ROWS:
            self.rows = np.concatenate([self.rows, flat[: _ROWS // 16]])
        if self.moments is not None:
            self.moments += flat.T @ flat
        self.count += len(flat)

    @property
    def size(self) -> FloatArray:
        """The largest size in each channel, float32 [K]."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def moments_of(self, factor: FloatArray, step: float) -> FloatArray | None:
        """The moments of what the product meets: channels divided by `factor` [K], rounded to multiples of `step`."""
        if self.moments is None:
            return None
        noise = np.eye(len(factor), dtype=np.float32) * (self.count * step**2 / 12)
        found: FloatArray = self.moments / np.outer(factor, factor) + noise
        return found


@dataclass(frozen=True)
class EightBits:
    """How a tensor is rounded.

    Attributes:
        factor: what each channel is divided by before, float32 [K]; None: nothing.
        low, high: the range that the 256 steps cover.
    """

    factor: FloatArray | None
    low: float
    high: float


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
            flat = np.ascontiguousarray(value.reshape(-1, value.shape[-1]), dtype=np.float32)
            if name in seen:
                seen[name].add(flat)
            else:
                seen[name] = Seen.of(flat)
    return seen


def eight_bits(seen: Seen, weights: Sequence[FloatArray], alpha: float | None = None) -> EightBits:
    """The rounding that moves the products behind a tensor least.

    Args:
        seen: of the tensor.
        weights: that meet it, float32 [K, N] each.
        alpha: of SmoothQuant; None: the best of `ALPHAS`; 0: nothing is moved.
    """
    sizes = np.max([np.abs(table).max(axis=1) for table in weights], axis=0)
    best: tuple[float, EightBits] | None = None
    for one in ALPHAS if alpha is None else (alpha,):
        factor = smoothing(seen.size, sizes, one)
        divisor = np.ones_like(seen.low) if factor is None else factor
        rows = seen.rows / divisor
        heard = sum((table**2).sum(axis=1) for table in weights) * divisor**2
        by_weights = COMPENSATED * _lost_by_weights(weights, divisor, rows)
        low, high = min(float((seen.low / divisor).min()), 0.0), max(float((seen.high / divisor).max()), 0.0)
        for begin, end in dict.fromkeys((low * a, high * b) for a in CLIPS for b in CLIPS if 1 in (a, b) or a == b):
            lost = float((((_rounded(rows, begin, end) - rows) ** 2) @ heard).sum())
            lost += by_weights
            if best is None or lost < best[0]:
                best = lost, EightBits(factor, begin, end)
    assert best is not None
    return best[1]


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


def activation_scale(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of eight bits without sign from the smallest to the largest number, zero among them exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 255, 1e-12)
    return scale, round(-low / scale)


def _rounded(rows: FloatArray, low: float, high: float) -> FloatArray:
    scale, zero = activation_scale(low, high)
    found: FloatArray = (np.clip(np.rint(rows / np.float32(scale)), -zero, 255 - zero)) * np.float32(scale)
    return found


def _lost_by_weights(weights: Sequence[FloatArray], divisor: FloatArray, rows: FloatArray) -> float:
    """Expected squared error of the products by rounding each weight to the 255 steps of its column, independent of each other."""
    steps = sum(float(((np.abs(table * divisor[:, None]).max(axis=0) / 127) ** 2).sum()) for table in weights)
    return steps / 12 * float((rows**2).sum())


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

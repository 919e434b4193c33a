"""The ranker: from what is known of candidates to the chance of each label, and to one final score. NumPy only: it answers live.

    z          cross network or factorisation machine over all inputs
    e_1 … e_J  experts over all inputs, shared by the heads through a gate of each
    logit_h    w_h·z + t_h·Σ_j gate_hj e_j + b_h

The first head is `next`: a · fusion + logit, a softmax over the query's candidates; it begins as the fusion itself. The others are labels, each calibrated.
final score = Σ weight_h · P(h). `models.ranker_network` is the same formula in torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.models.calibration import Calibration
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.protocols import FloatArray

NEXT = "next"
"""The head that tells which candidate comes next."""
BODIES = ("dcn", "deepfm", "mlp")
SHARINGS = ("mmoe", "ple", "bottom")
HIDDEN = -1e9
PRODUCTS = "model.onnx"
"""Where a ranker has it: the graph that computes the network's logits for the candidates of one list in eight bits; see `inference.ranker`."""
_ZEROS = np.zeros(16_384, dtype=np.float32)


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How a network is built.

    Attributes:
        dense: X, columns besides names. fields: C, names; buckets: B, numbers of a name. embedding: E, length of its vector.
        tasks: T, `next` and the labels. body, sharing: of `BODIES` and `SHARINGS`.
        cross_layers: of the cross network. experts: shared ones. hidden: widths of an expert's layers.
    """

    dense: int
    fields: int
    buckets: int
    embedding: int
    tasks: int
    body: str = "dcn"
    sharing: str = "mmoe"
    cross_layers: int = 2
    experts: int = 3
    hidden: tuple[int, ...] = (48, 24)

    @property
    def width(self) -> int:
        """W: columns and vectors of names together."""
        return self.dense + self.fields * self.embedding

    @property
    def wide(self) -> int:
        """Z: what stands beside the experts."""
        return self.width + (self.embedding if self.body == "deepfm" else 0)

    @property
    def all_experts(self) -> int:
        """J: shared experts, and with `ple` one of each task's own."""
        return 1 if self.sharing == "bottom" else self.experts + (self.tasks if self.sharing == "ple" else 0)

    def mask(self) -> FloatArray:
        """What is added to the gates, float32 [T, J]: another task's own expert is hidden."""
        found = np.zeros((self.tasks, self.all_experts), dtype=np.float32)
        if self.sharing == "ple":
            found[:, self.experts :] = np.where(np.eye(self.tasks, dtype=bool), 0.0, HIDDEN)
        return found


@dataclass(frozen=True)
class Columns:
    """What a network reads of some lists besides names, one list behind the other, before it is written out as a table.

    Attributes:
        prepared: columns of the candidates, float32 [n, P]. mine: projections of each list's asker, [Q, K]. theirs: of the items, [n, K].
        begin: where each list begins, and n, [Q + 1].
    """

    prepared: FloatArray
    mine: FloatArray
    theirs: FloatArray
    begin: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.prepared)

    def table(self) -> FloatArray:
        """Float32 [n, P + 3 K]: `prepared`, the asker's and the items' projections and their products."""
        own, width = self.prepared.shape[1], self.theirs.shape[1]
        found = np.empty((len(self), own + 3 * width), dtype=np.float32)
        mine = np.repeat(self.mine, np.diff(self.begin), axis=0)
        found[:, :own], found[:, own : own + width], found[:, own + width : own + 2 * width] = self.prepared, mine, self.theirs
        np.multiply(mine, self.theirs, out=found[:, own + 2 * width :])
        return found

    def products(self, matrix: FloatArray, shift: FloatArray, wide: int) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
        """`table() @ matrix + shift`, list by list as its rows, the first `wide` columns [n, wide] (the next list's overwrite them: so they stay in the cache) and the
        others, with less than half of the work: what is the asker's alone is one row for a whole list, and of the other two thirds one product is left,
        (theirs · mine) B + theirs A = theirs (mine B + A).

        Args:
            matrix: float32 [P + 3 K, H]. shift: [H].
        """
        own, width = self.prepared.shape[1], self.theirs.shape[1]
        a_mine, a_theirs, a_both = (matrix[own + part * width : own + (part + 1) * width] for part in range(3))
        longest = int((self.begin[1:] - self.begin[:-1]).max(initial=0))
        rows = np.empty((longest, own + width + 1), dtype=np.float32)
        rows[:, -1] = 1.0
        weights = np.empty((own + width + 1, matrix.shape[1]), dtype=np.float32)
        weights[:own] = matrix[:own]
        found = np.empty((longest, wide), dtype=np.float32)
        for mine, begin, end in zip(self.mine, self.begin[:-1].tolist(), self.begin[1:].tolist(), strict=True):
            np.multiply(a_both, mine[:, None], out=weights[own:-1])
            weights[own:-1] += a_theirs
            np.add(mine @ a_mine, shift, out=weights[-1])
            count = end - begin
            rows[:count, :own], rows[:count, own:-1] = self.prepared[begin:end], self.theirs[begin:end]
            yield slice(begin, end), np.matmul(rows[:count], weights[:, :wide], out=found[:count]), rows[:count] @ weights[:, wide:]


def forward(shape: Shape, arrays: Mapping[str, FloatArray], dense: FloatArray | Columns, codes: NDArray[np.int64]) -> FloatArray:
    """Logits of all tasks, float32 [n, T], from columns [n, X] and numbers of names [n, C]."""
    dense = dense.table() if isinstance(dense, Columns) else dense
    named = arrays["tables"][np.arange(shape.fields), codes]  # [n, C, E]
    x = np.concatenate([dense, named.reshape(len(dense), shape.fields * shape.embedding)], axis=1) if shape.fields else dense
    wide = _wide(shape, arrays, dense, named, x)
    h = x[None] @ arrays["expert_0"]  # [J, n, H]
    h += arrays["expert_bias_0"]
    return _logits(shape, arrays, _positive(h), x @ arrays["gate"], wide @ arrays["wide"])


@dataclass(frozen=True)
class First:
    """All that is linear in the columns of a network, as one product: the experts' first layer, gates and what stands beside the experts.

    Attributes:
        matrix: float32 [W, J H + T J + T]. shift: what is added, [J H + T J + T].
    """

    matrix: FloatArray
    shift: FloatArray

    @classmethod
    def of(cls, shape: Shape, arrays: Mapping[str, FloatArray]) -> First | None:
        """That of a network; None where columns are multiplied with each other or stand beside names."""
        if shape.body != "mlp" or shape.fields:
            return None
        layer = arrays["expert_0"].transpose(1, 0, 2).reshape(shape.width, -1)
        rest = np.zeros(shape.tasks * shape.all_experts + shape.tasks, dtype=np.float32)
        matrix = np.concatenate([layer, arrays["gate"], arrays["wide"]], axis=1)
        return cls(matrix, np.concatenate([arrays["expert_bias_0"].ravel(), rest]))

    def forward(self, shape: Shape, arrays: Mapping[str, FloatArray], dense: Columns) -> FloatArray:
        """As the function `forward`."""
        told, size = np.empty((len(dense), shape.tasks), dtype=np.float32), shape.hidden[0]
        for rows, found, rest in dense.products(self.matrix, self.shift, shape.all_experts * size):
            h = _positive(found).reshape(len(found), shape.all_experts, size).transpose(1, 0, 2)
            told[rows] = _logits(shape, arrays, h, rest[:, : -shape.tasks], rest[:, -shape.tasks :])
        return told


def _logits(shape: Shape, arrays: Mapping[str, FloatArray], h: FloatArray, gates: FloatArray, beside: FloatArray) -> FloatArray:
    """From the experts' first layer [J, n, H], its negatives made 0, gates [n, T J] and what stands beside the experts [n, T]."""
    for layer in range(1, len(shape.hidden)):
        h = h @ arrays[f"expert_{layer}"]
        h += arrays[f"expert_bias_{layer}"]
        _positive(h)
    told = (h @ arrays["tower"].T).transpose(1, 2, 0)  # [n, T, J]
    if shape.all_experts == 1:  # a gate of one is open
        alone: FloatArray = beside + told[:, :, 0] + arrays["bias"]
        return alone
    gate = gates.reshape(len(gates), shape.tasks, shape.all_experts) + shape.mask()
    gate = np.exp(gate - gate.max(axis=-1, keepdims=True))
    gate /= gate.sum(axis=-1, keepdims=True)
    logits: FloatArray = beside + (gate * told).sum(axis=-1) + arrays["bias"]
    return logits


def _positive(h: FloatArray) -> FloatArray:
    """The same contiguous array, its negatives made 0: against an array NumPy takes the larger number in a quarter of the time that it takes against a number."""
    flat = h.reshape(-1)
    for begin in range(0, len(flat), len(_ZEROS)):
        part = flat[begin : begin + len(_ZEROS)]
        np.maximum(part, _ZEROS[: len(part)], out=part)
    return h


def _wide(shape: Shape, arrays: Mapping[str, FloatArray], dense: FloatArray, named: FloatArray, x: FloatArray) -> FloatArray:
    if shape.body == "deepfm":  # H. Guo et al., 2017: the squares' sum against the sum's square
        total = dense @ arrays["factors"] + named.sum(axis=1)
        squares = (dense * dense) @ (arrays["factors"] ** 2) + (named * named).sum(axis=1)
        return np.concatenate([x, 0.5 * (total * total - squares)], axis=1)
    crossed = x
    if shape.body == "dcn":  # R. Wang et al., 2021 (DCN V2): x0 ∘ (W x + b) + x
        for layer in range(shape.cross_layers):
            crossed = x * (crossed @ arrays["cross"][layer] + arrays["cross_bias"][layer]) + crossed
    return crossed


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a ranker is besides its weights.

    Attributes:
        shape: of the network. heads: the labels, `next` not among them. calibrations: one a label.
        orders: whether `next` was found better than the fusion; if not, it is the fusion's own.
        found: share of the questions whose answer was among the candidates that are ordered.
        boost: added to the `next` logit of new items that suit the asker.
        depth: candidates that are ordered.
    """

    shape: Shape
    heads: tuple[str, ...]
    calibrations: tuple[Calibration, ...]
    orders: bool
    found: float
    boost: float
    depth: int


@dataclass(frozen=True)
class Ranker:
    """A trained ranker.

    Attributes:
        plan: how it is built. arrays: its weights.
        products: computes the network in place of the products of `arrays`, from the columns of some lists to [n, T]; None: nothing does.
    """

    plan: Plan
    arrays: dict[str, FloatArray]
    products: Callable[[Columns], FloatArray] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All heads in the order of `chances`."""
        return (NEXT, *self.plan.heads)

    @cached_property
    def _first(self) -> First | None:
        return First.of(self.plan.shape, self.arrays)

    def logits(self, dense: FloatArray | Columns, codes: NDArray[np.int64], fusion: FloatArray) -> FloatArray:
        """Of all heads, float32 [n, T]; `next` includes the fusion's score.

        Args:
            dense, codes: of `features.ranker_input`. fusion: its scores, new items not raised, [n].
        """
        if self.products is not None and isinstance(dense, Columns):
            found = self.products(dense)
        elif self._first is not None and isinstance(dense, Columns):
            found = self._first.forward(self.plan.shape, self.arrays, dense)
        else:
            found = forward(self.plan.shape, self.arrays, dense, codes)
        found[:, 0] += self.arrays["fusion_scale"][0] * fusion
        finite = np.count_nonzero(np.isfinite(found)) == found.size
        return found if finite else np.nan_to_num(found, nan=0.0, posinf=1e9, neginf=-1e9)

    def settled(self, logits: FloatArray, fusion: FloatArray, new: NDArray[np.bool_], begin: NDArray[np.int64]) -> FloatArray:
        """The `next` logits, float32 [n]; items that no training has met keep the place that the fusion gives them: of the network they get the mean of
        the others of their list.

        Args:
            logits: of all heads, [n, T]. fusion: as in `logits`, [n]. new: items without events, [n]. begin: where each list begins, and n, [Q + 1].
        """
        if not np.count_nonzero(new):
            return logits[:, 0]
        plain = self.arrays["fusion_scale"][0] * fusion
        own = logits[:, 0] - plain
        for first, end in zip(begin[:-1].tolist(), begin[1:].tolist(), strict=True):
            strange = new[first:end]
            if strange.any():
                own[first:end][strange] = own[first:end][~strange].mean() if not strange.all() else 0.0
        return np.asarray(plain + own, dtype=np.float32)

    def chances(
        self, logits: FloatArray, raised: NDArray[np.bool_], scores: FloatArray, begin: NDArray[np.int64] | None = None
    ) -> FloatArray:
        """Probabilities of all heads for the candidates of one query, float32 [n, T].

        Args:
            logits: of all heads, [n, T]. raised: new items that suit the asker, [n].
            scores: of the fusion, which stand for `next` where the ranker was not found better, [n].
            begin: where each of several lists, none of them empty, begins, and n, [Q + 1]; None: all are of one.
        """
        found = np.empty((len(self.names), len(logits)), dtype=np.float32)
        if not len(logits):
            return found.T
        begin = np.array([0, len(logits)]) if begin is None else begin
        starts, sizes = begin[:-1], begin[1:] - begin[:-1]
        first = (logits[:, 0] + self.plan.boost * raised if self.plan.orders else scores).astype(np.float64)
        first -= np.maximum.reduceat(first, starts).repeat(sizes)
        np.exp(first, out=first)
        sums = np.maximum(np.add.reduceat(first, starts), 1e-300).repeat(sizes)
        first *= self.plan.found
        np.divide(first, sums, out=found[0])
        for place, one in enumerate(self.plan.calibrations, 1):
            found[place] = one.apply(logits[:, place])
        return np.ascontiguousarray(found.T)

    def weights(self, wanted: Mapping[str, float]) -> FloatArray:
        """Weights of all heads, float32 [T]; with none named, `next` alone.

        Raises:
            SettingsError: a head is unknown, or nothing has a weight.
        """
        unknown = [name for name in wanted if name not in self.names]
        if unknown:
            raise SettingsError(
                f"ranker.weights names {unknown[0]!r}, but this ranker knows {', '.join(self.names)}. "
                "Name one of these, or add it to ranker.heads and train again."
            )
        found = np.array([wanted.get(name, 0.0) for name in self.names] if wanted else [1.0] + [0.0] * len(self.plan.heads))
        if not np.isfinite(found).all() or not found.any():
            raise SettingsError(
                f"ranker.weights is {dict(wanted)}, which weighs nothing: every score would be 0. Give at least one head a weight, "
                f"as in {{{NEXT} = 1.0}}, or leave it out."
            )
        return found.astype(np.float32)

    def save(self, folder: Path) -> None:
        """Writes `ranker.json` and one `.npy` for each array."""
        (folder / "ranker.json").write_bytes(msgspec.json.encode(self.plan))
        for name, array in self.arrays.items():
            np.save(folder / f"weights.{name}.npy", array, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Ranker:
        """Reads what `save` wrote; weights beside which `scale.*.npy` lies are codes, its products in float."""
        plan = msgspec.json.decode((folder / "ranker.json").read_bytes(), type=Plan)
        arrays: dict[str, Any] = {
            path.name.split(".")[1]: np.load(path, allow_pickle=False) for path in sorted(folder.glob("weights.*.npy"))
        }
        for path in folder.glob("scale.*.npy"):
            name = path.name.split(".")[1]
            arrays[name] = arrays[name] * np.load(path, allow_pickle=False)
        return cls(plan, arrays)


def behind(scores: FloatArray, first: NDArray[np.int64], final: FloatArray) -> FloatArray:
    """Final scores of all candidates, float32 [M]: of those that were ordered, and below them the others in the order that they had.

    Args:
        scores: of all candidates before, [M]. first: places of those that were ordered, [n]. final: their final scores, [n].
    """
    found = np.empty(len(scores), dtype=np.float64)
    if len(first) == len(scores):
        found[first] = final
        return found.astype(np.float32)
    lowest, rest = float(final.min(initial=0.0)), np.ones(len(scores), dtype=bool)
    rest[first] = False
    step = max(float(final.max(initial=0.0)) - lowest, 1e-3) / max(len(scores), 1)
    left = np.flatnonzero(rest)
    down = np.argsort(np.argsort(-scores[left], kind="stable"), kind="stable") + 1
    found[left] = lowest - step * down
    found[first] = final
    return found.astype(np.float32)

"""The ranker in fewer bytes. What is learned anew stands in `students`.

A wide one of a plain kind computes in eight bits besides (`ranker_graph`), where that was seen to be quicker; the products of others stay in float: in ONNX Runtime, eight bits of some thirty
candidates and few neurons took longer than float (50 us against 41). What counts besides the bytes is what people are told: a step that moves the mean chance of a label is not taken, whatever the lists say.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.compression.step import Facts, NotApplicable, Tools, carry
from tastemaker.compression.text import KEPT, write_golden
from tastemaker.compression.user import histories
from tastemaker.models.ranker import PRODUCTS, Ranker
from tastemaker.models.ranker import Columns as Read
from tastemaker.schema.columns import Columns
from tastemaker.schema.protocols import Asker, FloatArray

FOLDER = "ranker"
LISTS = 2_048
"""Lists of candidates at most, one a user; of three quarters of the users is learned, the others tell what it cost."""
FEWEST = 16
GOLDEN = 8
"""Candidates that are kept beside the graph, with what it answers."""
MOST_MOVED = 0.02
"""By which share the mean chance of a label may change."""
LEAST_ALIKE = 0.95
"""Smallest correlation of a label's logits with what they were."""
K = 10
QUICKER = 0.9
"""Share of the time of a list in float that products in eight bits may take."""
_AT_ONCE = 64
_HEAD = 128
"""Bytes that a file of an array begins with."""


@dataclass(frozen=True)
class Lists:
    """What a ranker reads of some lists of candidates, one behind the other, R together.

    Attributes:
        columns: as a request gives them. codes: numbers of names, int64 [R, C]. plain: the fusion's scores, [R].
    """

    columns: Read
    codes: NDArray[np.int64]
    plain: FloatArray

    @property
    def begin(self) -> NDArray[np.int64]:
        """Where each list begins, and R, [Q + 1]."""
        return self.columns.begin

    @cached_property
    def dense(self) -> FloatArray:
        """The columns as a table, float32 [R, X]."""
        return self.columns.table()

    def some(self, first: int, last: int) -> Lists:
        """The lists from one to before another."""
        begin = self.begin[first : last + 1]
        rows, columns = slice(int(begin[0]), int(begin[-1])), self.columns
        read = Read(columns.prepared[rows], columns.mine[first:last], columns.theirs[rows], begin - begin[0])
        return Lists(read, self.codes[rows], self.plain[rows])

    @classmethod
    def joined(cls, parts: Sequence[Lists]) -> Lists:
        """Some lists behind others."""
        shifts = np.cumsum([0, *(len(one.plain) for one in parts)])
        begin = [one.begin[:-1] + shift for one, shift in zip(parts, shifts[:-1].tolist(), strict=True)]
        codes, plain = (np.concatenate([getattr(one, name) for one in parts]) for name in ("codes", "plain"))
        columns = [one.columns for one in parts]
        prepared, mine, theirs = (
            np.concatenate([getattr(one, name) for one in columns]) for name in ("prepared", "mine", "theirs")
        )
        return cls(Read(prepared, mine, theirs, np.concatenate([*begin, shifts[-1:]])), codes, plain)

    def own(self, ranker: Ranker) -> FloatArray:
        """What a ranker's network says, float32 [R, T]: of `next` without the fusion, less its mean over the list, which the softmax over the list does not see."""
        logits = ranker.logits(self.columns, self.codes, self.plain)
        logits[:, 0] -= ranker.arrays["fusion_scale"][0] * self.plain
        logits[:, 0] -= np.repeat(np.add.reduceat(logits[:, 0], self.begin[:-1]) / np.diff(self.begin), np.diff(self.begin))
        return logits


def int8(bundle: Path, place: Path, tools: Tools) -> Facts:
    """Weights of the ranker as bytes, a scale for each output; and its products in eight bits, where they are quicker."""
    before = load(bundle)
    if list((bundle / FOLDER).glob("scale.*.npy")):
        raise NotApplicable("the ranker's weights are bytes already")
    codes = {name: found for name, array in before.arrays.items() if (found := bytes_of(name, array)) is not None}
    if not codes:
        raise NotApplicable("no table of the ranker is so large that bytes would be fewer")
    carry(bundle, place, [f"{FOLDER}/weights.{name}.npy" for name in codes])
    for name, (stored, scale) in codes.items():
        np.save(place / FOLDER / f"weights.{name}.npy", stored, allow_pickle=False)
        np.save(place / FOLDER / f"scale.{name}.npy", scale, allow_pickle=False)
    learn, check = lists_of(bundle, tools)
    facts = {"tables in bytes": len(codes), **kept(before, Ranker.load(place / FOLDER), check)}
    try:
        return {**facts, **in_eight_bits(place / FOLDER, before, (learn, check), tools)}
    except NotApplicable as reason:
        return {**facts, "products": f"in float: {reason}"}


def in_eight_bits(folder: Path, before: Ranker, lists: tuple[Lists, Lists], tools: Tools) -> Facts:
    """Adds the graph that computes in eight bits to a ranker whose weights are bytes, and gives it the weights of that.

    Raises:
        NotApplicable: it is of another kind, this CPU can't show what it brings, it is not quicker, or chances would not be what they were.
    """
    from tastemaker.compression.ranker_graph import layers_of, mine_of, write

    shape, (learn, check) = before.plan.shape, lists
    if shape.body != "mlp" or shape.fields or shape.all_experts > 1:
        raise NotApplicable(
            "only one network without crosses and names is written in eight bits (ranker.body = mlp, ranker.sharing = bottom)"
        )
    in_float = Ranker.load(folder)
    with TemporaryDirectory() as name:
        trial = Path(name) / FOLDER
        shutil.copytree(folder, trial)
        made = write(trial, in_float, layers_of(before, learn.columns), mine_of(learn.columns))
        first = check.some(0, 1).columns
        feed = {"prepared": first.prepared[:GOLDEN], "theirs": first.theirs[:GOLDEN], "mine": first.mine}
        write_golden(trial, feed)
        after = tools.ranker(trial)
        if after.products is None:
            raise NotApplicable("it can't be run here")
        took = _seconds((after, in_float), check.some(0, 1))
        if took[0] > QUICKER * took[1]:
            raise NotApplicable(f"a list takes {1e6 * took[0]:.0f} us in eight bits, {1e6 * took[1]:.0f} in float")
        kept(before, Ranker.load(trial), check)  # where a CPU has no instructions for it
        facts = kept(before, after, check)
        for name in [*made, KEPT]:
            (folder / name).unlink(missing_ok=True)
            shutil.copyfile(trial / name, folder / name)
    return {**facts, "products": "in eight bits"}


def load(bundle: Path) -> Ranker:
    """The ranker of a bundle. Raises NotApplicable where it has none."""
    if not (bundle / FOLDER / "ranker.json").is_file():
        raise NotApplicable("the bundle has no ranker")
    return Ranker.load(bundle / FOLDER)


def network_files(bundle: Path) -> list[str]:
    """Names of the files that another network replaces: what it is, its weights, and the graph that computes with them."""
    kinds = ("ranker.json", "weights.*.npy", "scale.*.npy", PRODUCTS, KEPT)
    return [f"{FOLDER}/{path.name}" for kind in kinds for path in (bundle / FOLDER).glob(kind)]


def bytes_of(name: str, array: FloatArray) -> tuple[NDArray[np.int8], FloatArray] | None:
    """Codes and scales of weights, a scale for each output (for each row of a table of names); None where they would be no fewer bytes."""
    if array.ndim < 2:
        return None
    scale = np.maximum(np.abs(array).max(axis=-1 if name == "tables" else -2, keepdims=True, initial=0.0) / 127, 1e-12).astype(
        np.float32
    )
    if array.size + scale.nbytes + _HEAD >= array.nbytes:
        return None
    return np.rint(array / scale).astype(np.int8), scale


def lists_of(bundle: Path, tools: Tools) -> tuple[Lists, Lists]:
    """Lists of candidates as the bundle's own channels find them now for its users, features told: to learn from, and of other users to tell what it cost.

    Raises:
        NotApplicable: too few users have a history or candidates.
    """
    answers = tools.open(bundle)
    ids = pl.read_parquet(bundle / "users" / "user_ids.parquet")[Columns.USER_ID]
    chosen, parts = histories(bundle, LISTS, tools.seed), list[Lists]()
    for begin in range(0, len(chosen), _AT_ONCE):
        some = chosen[begin : begin + _AT_ONCE]
        found = answers.candidates([met for _, met, _ in some], [Asker(ids[user], moment) for user, _, moment in some])
        if found is not None:
            parts.append(Lists(found.dense, found.names, found.plain))
    count = sum(len(one.begin) - 1 for one in parts)
    if count < FEWEST:
        raise NotApplicable(f"candidates of {count} users are known, {FEWEST} are needed to tell what it would cost")
    every = Lists.joined(parts)
    cut = count * 3 // 4
    return every.some(0, cut), every.some(cut, count)


def kept(before: Ranker, after: Ranker, lists: Lists) -> Facts:
    """What another ranker keeps of one on some lists: places among the best ten, and of each label its mean chance and its order; and the time that a list takes.

    Raises:
        NotApplicable: a label's chances are no longer what they were: their mean moves by more than `MOST_MOVED`, or they rise and fall otherwise.
    """
    told = [lists.own(one) for one in (before, after)]
    facts: Facts = {"weights": sum(array.size for array in after.arrays.values())}
    for head, (name, calibration) in enumerate(zip(before.plan.heads, before.plan.calibrations, strict=True), 1):
        was, now = (float(calibration.apply(logits[:, head]).mean()) for logits in told)
        alike = correlation(told[0][:, head], told[1][:, head])
        facts |= {
            f"mean chance of {name}, of what it was": round(now / max(was, 1e-9), 4),
            f"correlation of {name}": round(alike, 4),
        }
        if abs(now - was) > MOST_MOVED * was:
            raise NotApplicable(
                f"the mean chance of {name} would move from {was:.4f} to {now:.4f}; {MOST_MOVED:.0%} of it is allowed"
            )
        if alike < LEAST_ALIKE:
            raise NotApplicable(
                f"chances of {name} would keep a correlation of {alike:.3f} with what they were; {LEAST_ALIKE} is asked for"
            )
    shared = []
    for logits in told:
        logits[:, 0] += before.arrays["fusion_scale"][0] * lists.plain
    for begin, end in zip(lists.begin[:-1].tolist(), lists.begin[1:].tolist(), strict=True):
        one, other = (np.argsort(-logits[begin:end, 0], kind="stable")[:K] for logits in told)
        shared.append(len(np.intersect1d(one, other)) / len(one))
    facts["best ten kept"] = round(float(np.mean(shared)), 4)
    facts["microseconds a list"] = " to ".join(f"{1e6 * took:.0f}" for took in _seconds((before, after), lists.some(0, 1)))
    return facts


def correlation(one: FloatArray, other: FloatArray) -> float:
    """Of two columns of logits, in [-1, 1]; 1 where the first is all the same."""
    a, b = one.astype(np.float64) - one.mean(), other.astype(np.float64) - other.mean()
    return float((a * b).sum() / max(math.sqrt((a * a).sum() * (b * b).sum()), 1e-12)) if np.abs(a).max() > 1e-6 else 1.0


def _seconds(rankers: Sequence[Ranker], lists: Lists) -> list[float]:
    """Median seconds that each of some rankers takes for some lists, asked in turns."""
    times = list[list[float]]()
    for _ in range(200):
        times.append([])
        for ranker in rankers:
            began = time.perf_counter()
            ranker.logits(lists.columns, lists.codes, lists.plain)
            times[-1].append(time.perf_counter() - began)
    found: list[float] = np.median(times, axis=0).tolist()
    return found

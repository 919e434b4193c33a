"""Builds the approximate index of a large catalogue, when its bundle is written, and measures what it finds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.index.approximate import HEAD, ApproximateIndex, Plan, completed
from tastemaker.index.exact import DenseIndex, top
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import IndexSettings

if TYPE_CHECKING:
    from tastemaker.index._faiss import InvertedFile

JUDGED_AT = 100
"""Recall is measured among so many best."""
QUESTIONS = 512
"""At most; the more, the smaller is the standard error that has to be found besides what is asked."""
FINER = 2
"""So often the way between too few lists and enough is halved."""
NOISE = 0.5
"""Length of the noise on the rows that are asked for where no questions are given, in lengths of the rows."""
USER_LENGTH = 12.0
"""Length of a user vector, in lengths of an item vector, before training has moved it: what offsets are weighed against where no questions are given."""
_BLOCK = 65_536
_FEWEST_PROBES = 4
MORE = 0.5
"""Share of the wanted items that is looked for besides where codes alone are too rough."""
RECALLS = ((50_000, 0.995), (500_000, 0.98), (5_000_000, 0.95), (math.inf, 0.90))
"""Up to so many rows the share of the true best that is aimed at."""
FLOOR, FLOOR_FROM = 0.90, 50_000
"""With more rows than these an index that misses the aim is used if it finds so much, as a look at all of them costs many times as much. It is also
what the alert `IndexInexact` asks for by default."""
AIM_SHARE, FLOOR_SHARE = 8, 4
"""For the aim at most the lists divided by this are read, for the least that is asked for by that. `benchmarks/index.py --reach` (200,000 rows with
cosines of .3 to their neighbours): an eighth of the lists costs .12 of the CPU of an exact search asked alone and .26 sixteen together, a quarter .21
and .46, a half .41 and .92."""


def build(
    index: DenseIndex, folder: Path, name: str, settings: IndexSettings, questions: FloatArray | None = None, threads: int = 2
) -> Plan | None:
    """Writes an inverted file beside an index's vectors, `NAME.ivf`, `NAME.lists.npy`, `NAME.head.npy` and `NAME.plan.json`, if the settings want one and it finds enough.

    Args:
        index: exact, with all rows in it. folder, name: where its vectors lie.
        questions: queries by which recall is measured, float32 [Q, D]; None: rows of the index with noise on them.
        threads: of the learning of the centres.

    Returns:
        How it is asked and what it reached; None where search stays exact: the settings ask for that, there are few rows, faiss is not installed, all rows
        are zero, or recall is below what `recall_asked` calls the least.
    """
    if settings.kind == "exact" or not len(index) or (settings.kind == "auto" and len(index) <= settings.exact_to):
        return None
    try:
        from tastemaker.index._faiss import InvertedFile
    except ImportError:
        print(
            f"{name}: search reads all {len(index):,} items, which takes long: faiss is missing. pip install faiss-cpu", flush=True
        )
        return None
    asked = (
        _rows_with_noise(index, 1.0 if index.offsets is None else USER_LENGTH)
        if questions is None
        else np.asarray(questions, dtype=np.float32)
    )[:QUESTIONS]
    if not asked.any():  # a bundle without texts: there is nothing to find
        return None
    scale = 0.0 if index.offsets is None else float(np.linalg.norm(asked, axis=1).mean()) or 1.0
    radius = _radius(index, scale)
    inverted, list_of = _filled(InvertedFile, index, scale, radius, threads)
    offsets = None if index.offsets is None else index.offsets.values
    head = np.sort(top(offsets[None], HEAD)[0]) if offsets is not None else np.zeros(0, np.int64)
    plan = Plan(len(index), index.dim, len(inverted.centres), 1, scale, radius, 0.0, len(asked))
    wanted, least = recall_asked(len(index), settings)
    plan = _tried(ApproximateIndex(index.base, offsets, inverted, list_of, plan, head), index, asked, wanted, least)
    if plan.recall < wanted and settings.kind == "auto":
        print(f"{name}: {_missed(plan, wanted, least)}", flush=True)
        if plan.recall < least:
            return None
    inverted.save(folder / f"{name}.ivf")
    np.save(folder / f"{name}.lists.npy", list_of, allow_pickle=False)
    np.save(folder / f"{name}.head.npy", head, allow_pickle=False)
    (folder / f"{name}.plan.json").write_bytes(msgspec.json.encode(plan))
    return plan


def usual_recall(rows: int) -> float:
    """What an index of so many rows aims at where the settings ask for nothing of their own."""
    return next(recall for most, recall in RECALLS if rows <= most)


def recall_asked(rows: int, settings: IndexSettings) -> tuple[float, float]:
    """The share of the true best that an index of so many rows aims at, and the least with which it is used; the settings' own is both."""
    if settings.recall:
        return settings.recall, settings.recall
    aim = usual_recall(rows)
    return aim, min(FLOOR, aim) if rows > FLOOR_FROM else aim


def _missed(plan: Plan, wanted: float, least: float) -> str:
    """What becomes of an index that misses its aim, in a sentence."""
    found = f"an inverted file finds {plan.recall:.3f} of the true best"
    if plan.recall < least:
        return f"search stays exact and reads all {plan.rows:,} items: {found}, at least {least} is asked for."
    return (
        f"{found} where {wanted} was aimed at and is used, as a look at all {plan.rows:,} items takes far longer; "
        f"index.recall = {wanted} makes that a must, without which search stays exact."
    )


def lists_for(rows: int) -> int:
    """Lists of an inverted file: the power of two closest to four roots of the rows, at most 8,192."""
    return int(2 ** np.clip(np.round(np.log2(4 * np.sqrt(max(rows, 1)))), 0, 13))


def _filled(
    kind: type[InvertedFile], index: DenseIndex, scale: float, radius: float, threads: int
) -> tuple[InvertedFile, NDArray[np.uint16]]:
    """An inverted file with all rows of an index, and the list of each; rows are read in blocks."""
    from tastemaker.index._faiss import SAMPLE, width_of

    rows, offsets = len(index), None if index.offsets is None else index.offsets.values
    width, lists = width_of(index.dim + (2 if scale else 0)), min(lists_for(rows), rows)

    def wide(places: NDArray[np.int64]) -> FloatArray:
        return completed(index.rows(places), width, scale, radius, None if offsets is None else offsets[places])

    sample = np.random.default_rng(0).choice(rows, min(rows, SAMPLE * lists), replace=False)
    inverted = kind.learned(wide(np.sort(sample)), lists, 0, threads)
    blocks = (wide(np.arange(begin, min(begin + _BLOCK, rows))) for begin in range(0, rows, _BLOCK))
    return inverted, np.concatenate(inverted.add(blocks, threads)).astype(np.uint16)


def _tried(found: ApproximateIndex, index: DenseIndex, questions: FloatArray, wanted: float, least: float) -> Plan:
    """The cheapest search that finds the wanted share of the true best, and a standard error more.

    The fewest lists by doubling and then halving the way back, at most an eighth of them and never fewer than four, first by the codes alone, then with
    some more items that are scored by their own vectors. Where nothing suffices: what finds most; if that is not even the least, of up to a quarter of the
    lists.
    """
    depth, lists = min(JUDGED_AT, len(index)), found.plan.lists
    true, best = _truth(index, questions, depth), found.plan

    def reached(probes: int, more: float) -> tuple[Plan, bool]:
        """What a search finds, and whether it suffices."""
        found.plan = msgspec.structs.replace(found.plan, probes=probes, more=more)
        pairs = zip(found.search(questions, depth), true, strict=True)
        shares = np.array([len(np.intersect1d(items, right)) / depth for (items, _), right in pairs])
        plan = msgspec.structs.replace(found.plan, recall=float(shares.mean()))
        return plan, bool(plan.recall - shares.std() / np.sqrt(len(shares)) >= wanted)

    for more in (0.0, MORE):
        probes, few = min(_FEWEST_PROBES, lists), 0
        while True:
            plan, enough = reached(probes, more)
            if enough:
                break
            best = max(best, plan, key=lambda one: one.recall)
            if probes * 2 > max(lists // AIM_SHARE, _FEWEST_PROBES):
                break
            probes, few = probes * 2, probes
        if not enough:
            continue
        for _ in range(FINER):
            middle = (few + plan.probes) // 2
            if not few or middle == few:
                break
            finer, enough = reached(middle, more)
            if enough:
                plan = finer
            else:
                few = middle
        return plan
    if best.recall < least and lists // FLOOR_SHARE > best.probes:
        best = max(best, reached(lists // FLOOR_SHARE, MORE)[0], key=lambda one: one.recall)
    return best


def _radius(index: DenseIndex, scale: float) -> float:
    """The longest row with its offset."""
    if index.offsets is None:
        return 0.0
    longest = 0.0
    for begin in range(0, len(index), _BLOCK):
        rows = index.rows(np.arange(begin, min(begin + _BLOCK, len(index))))
        squares = np.einsum("nd,nd->n", rows, rows) + (index.offsets.values[begin : begin + len(rows)] / scale) ** 2
        longest = max(longest, float(squares.max()))
    return float(np.sqrt(longest))


def _truth(index: DenseIndex, questions: FloatArray, depth: int) -> list[NDArray[np.int64]]:
    """The true best of each question, by blocks of rows."""
    offsets, best = index.offsets, [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in questions]
    for begin in range(0, len(index), _BLOCK):
        places = np.arange(begin, min(begin + _BLOCK, len(index)))
        scores = questions @ index.rows(places).T
        if offsets is not None:
            scores += offsets.values[places]
        for row, found in enumerate(top(scores, depth)):
            items = np.concatenate([best[row][0], places[found]])
            worth = np.concatenate([best[row][1], scores[row, found]])
            order = np.argsort(-worth, kind="stable")[:depth]
            best[row] = items[order], worth[order]
    return [items for items, _ in best]


def _rows_with_noise(index: DenseIndex, scale: float) -> FloatArray:
    random = np.random.default_rng(1)
    rows = index.rows(np.sort(random.choice(len(index), min(len(index), QUESTIONS), replace=False)))
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    found: FloatArray = rows + NOISE * length * random.standard_normal(rows.shape, dtype=np.float32) / np.sqrt(rows.shape[1])
    return np.float32(scale) * found

"""Item vectors in fewer bytes: int8, product codes, and item-to-item weights with their weakest links left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.compression.step import NotApplicable, Tools, carry
from tastemaker.index.coded import Bytes, Plain, Product, Vectors, load
from tastemaker.index.exact import top
from tastemaker.schema.protocols import FloatArray

TABLES = ("items", "text")
COPY = "features/item_vectors.npy"
"""Text vectors once more, as the features read them: half of their bytes are enough there."""
DEPTH = 100
GROUP = 4
"""Dimensions that share one of 256 centres: a sixteenth of float32."""
LEAST_ITEMS = 100_000
"""Smaller catalogues answer faster from int8 rows: with 1,682 items codes took three times as long."""
CENTRES, ROUNDS, SAMPLE, ASKED = 256, 12, 50_000, 200


def to_bytes(bundle: Path, place: Path, tools: Tools) -> dict[str, float | int | str]:
    """int8 rows in place of float32 ones: a quarter of the bytes."""
    channels = bundle / "channels"
    plain = [name for name in TABLES if (channels / f"{name}.npy").is_file()]
    if not plain:
        raise NotApplicable("the item vectors are bytes already")
    carry(bundle, place, [COPY, *(f"channels/{name}.npy" for name in plain)])
    _halve(bundle, place)
    facts: dict[str, float | int | str] = {}
    for name in plain:
        table = np.load(channels / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        codes = Bytes.of(table)
        codes.save(place / "channels", name)
        facts |= _facts(name, table, codes, tools.seed)
    return facts


def to_codes(bundle: Path, place: Path, tools: Tools) -> dict[str, float | int | str]:
    """Product codes that are scanned in place of the rows, a sixteenth of the bytes; the best are scored again with the int8 rows."""
    channels, facts = bundle / "channels", dict[str, float | int | str]()
    tables = {name: load(channels, name) for name in TABLES}
    wanted = {name: table for name, table in tables.items() if not isinstance(table, Product)}
    if not wanted:
        raise NotApplicable("the item vectors are product codes already")
    if len(tables["items"]) < LEAST_ITEMS:
        raise NotApplicable(
            f"the catalogue has {len(tables['items']):,} items; below {LEAST_ITEMS:,} codes take longer than they save"
        )
    carry(bundle, place, [COPY, *(f"channels/{name}.npy" for name in wanted)])
    _halve(bundle, place)
    for name, table in wanted.items():
        rows = table.rows(np.arange(len(table)))
        exact = table if isinstance(table, Bytes) else Bytes.of(rows)
        if isinstance(table, Plain):
            exact.save(place / "channels", name)
        codes = product_codes(rows, exact, tools.seed)
        codes.save(place / "channels", name)
        facts |= _facts(name, rows, codes, tools.seed)
    return facts


def fewer_neighbours(bundle: Path, place: Path, tools: Tools) -> dict[str, float | int | str]:
    """Half of each item's neighbours, the strongest, and numbers no longer than the catalogue needs."""
    channels, facts = bundle / "channels", dict[str, float | int | str]()
    files = [f"channels/{name}.{part}.npy" for name in ("neighbours", "together") for part in ("data", "indices", "indptr")]
    carry(bundle, place, files)
    for name in ("neighbours", "together"):
        data, indices, indptr = (
            np.load(channels / f"{name}.{part}.npy", allow_pickle=False) for part in ("data", "indices", "indptr")
        )
        most = max(int(np.diff(indptr).max(initial=0)) // 2, 1)
        kept = _strongest(data, indptr, most)
        weights = sp.csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, len(indptr) - 1))
        rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))[kept]
        less = sp.csr_matrix((weights.data[kept], (rows, weights.indices[kept])), shape=weights.shape)
        for part in ("data", "indices", "indptr"):
            np.save(place / "channels" / f"{name}.{part}.npy", getattr(less, part), allow_pickle=False)
        facts[f"{name} kept"] = round(len(less.data) / max(len(data), 1), 4)
    return facts


def product_codes(rows: FloatArray, exact: Vectors, seed: int, group: int = GROUP) -> Product:
    """Learns centres of each group of dimensions by k-means (S. Lloyd, 1982) and codes the rows.

    Args:
        rows: float32 [N, D]. exact: what answers are made of.
        seed: of sample and start.
        group: dimensions that share a code; D is filled up with zeros where it is no multiple.
    """
    from tastemaker.index.coded import padded

    table = padded(rows, group)
    random = np.random.default_rng(seed)
    sample = table[np.sort(random.permutation(len(table))[:SAMPLE])]
    groups = table.shape[1] // group
    centres = np.empty((groups, CENTRES, group), dtype=np.float32)
    codes = np.empty((len(table), groups), dtype=np.uint8)
    for place in range(groups):
        part = slice(place * group, (place + 1) * group)
        centres[place] = _centres(np.ascontiguousarray(sample[:, part]), random)
        codes[:, place] = _nearest(np.ascontiguousarray(table[:, part]), centres[place])
    return Product(codes, centres, exact)


def recall(before: FloatArray, after: Vectors, seed: int, depth: int = DEPTH) -> float:
    """Share of the `depth` nearest rows that coded ones find as well, for rows of the table as questions, in [0, 1]."""
    rows = np.random.default_rng(seed).permutation(len(before))[:ASKED]
    queries = np.asarray(before[np.sort(rows)], dtype=np.float32)
    queries = queries[np.abs(queries).max(axis=1, initial=0.0) > 0]
    if not len(queries):
        return 1.0
    depth = min(depth, len(before))
    wanted, found = top(queries @ np.asarray(before).T, depth), top(after.scores(queries), depth)
    return float(np.mean([len(np.intersect1d(one, other)) / depth for one, other in zip(wanted, found, strict=True)]))


def _halve(bundle: Path, place: Path) -> None:
    if (bundle / COPY).is_file():
        (place / COPY).parent.mkdir(exist_ok=True)
        np.save(place / COPY, np.load(bundle / COPY, allow_pickle=False).astype(np.float16), allow_pickle=False)


def _facts(name: str, before: FloatArray, after: Vectors, seed: int) -> dict[str, float | int | str]:
    return {f"{name} recall@{DEPTH}": round(recall(before, after, seed), 4), f"{name} scanned bytes a row": after.scanned}


def _centres(sample: FloatArray, random: np.random.Generator) -> FloatArray:
    centres = sample[random.permutation(len(sample))[:CENTRES]]
    if len(centres) < CENTRES:
        centres = np.concatenate([centres, np.zeros((CENTRES - len(centres), sample.shape[1]), np.float32)])
    for _ in range(ROUNDS):
        nearest = _nearest(sample, centres)
        count = np.bincount(nearest, minlength=CENTRES)
        sums = np.stack([np.bincount(nearest, weights=column, minlength=CENTRES) for column in sample.T], axis=1)
        full = count > 0
        centres = centres.copy()
        centres[full] = (sums[full] / count[full, None]).astype(np.float32)
        empty = np.flatnonzero(~full)
        centres[empty] = sample[random.integers(0, len(sample), len(empty))]
    return centres


def _nearest(rows: FloatArray, centres: FloatArray) -> NDArray[np.uint8]:
    found = np.empty(len(rows), dtype=np.uint8)
    half = (centres**2).sum(axis=1) / 2
    for begin in range(0, len(rows), 8_192):
        found[begin : begin + 8_192] = np.argmax(rows[begin : begin + 8_192] @ centres.T - half, axis=1)
    return found


def _strongest(data: FloatArray, indptr: NDArray[np.integer], most: int) -> NDArray[np.int64]:
    """Places of each row's `most` largest weights, in order."""
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    order = np.lexsort((-data, rows))
    rank = np.arange(len(order)) - np.repeat(indptr[:-1], np.diff(indptr))
    return np.sort(order[rank < most])

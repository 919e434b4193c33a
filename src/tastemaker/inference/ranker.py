"""A bundle's ranker as it computes on this CPU: in eight bits where the bundle has a graph for that and the CPU the instructions, else in float with the same weights.

The graph computes one list. Its scales are constants, learned on real candidates, so that nobody's answer hangs on who else is answered at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tastemaker.inference.cpu import flags
from tastemaker.inference.runtimes import GOLDEN, Runs, by_onnxruntime
from tastemaker.models.ranker import PRODUCTS, Columns, Ranker
from tastemaker.schema.protocols import FloatArray

INTEGERS = {"avx512_vnni", "avx_vnni"}
"""Instructions of which one is needed: sums of products of bytes that don't overflow."""
APART = 1e-4
"""How far answers may lie from the kept ones, as a share of the largest of these."""


def open_ranker(folder: Path, threads: int = 1) -> Ranker:
    """The ranker in the folder `ranker/` of a bundle."""
    ranker = Ranker.load(folder)
    if not (folder / PRODUCTS).is_file() or not flags() & INTEGERS:
        return ranker
    try:
        products = Products(by_onnxruntime(folder / PRODUCTS, threads))
        apart = products.apart(folder / GOLDEN)
    except Exception as error:  # the runtime raises classes of its own that share no base
        print(f"{folder.name}: computes in float, as its products in eight bits can't be run ({str(error)[:150]})", flush=True)
        return ranker
    if not apart <= APART:
        print(f"{folder.name}: computes in float, as its products in eight bits are wrong here ({apart:.1%} apart)", flush=True)
        return ranker
    return replace(ranker, products=products)


@dataclass(frozen=True)
class Products:
    """The network of a ranker in eight bits.

    Attributes:
        runs: the graph, from `prepared` [n, P], `theirs` [n, K] and `mine` [1, K] of one list to [n, T].
    """

    runs: Runs

    def __call__(self, columns: Columns) -> FloatArray:
        """Logits without the fusion's part, float32 [n, T], list by list: each row has the same bits whatever stands beside it."""
        places = zip(columns.begin[:-1].tolist(), columns.begin[1:].tolist(), strict=True)
        return np.concatenate([self._of(columns, row, begin, end) for row, (begin, end) in enumerate(places)])

    def _of(self, columns: Columns, row: int, begin: int, end: int) -> FloatArray:
        feed = {"prepared": columns.prepared[begin:end], "theirs": columns.theirs[begin:end], "mine": columns.mine[row : row + 1]}
        return self._answer(feed)

    def _answer(self, feed: Mapping[str, Any]) -> FloatArray:
        found: FloatArray = self.runs.run(None, feed)[0]
        return found

    def apart(self, golden: Path) -> float:
        """How far its answer to the kept inputs lies from the kept one, as a share of the largest logit of that."""
        with np.load(golden, allow_pickle=False) as table:
            kept = {name: table[name] for name in table.files}
        wanted = kept.pop("vector")
        found = self._answer(kept)
        if found.shape != wanted.shape:
            raise ValueError(f"it answers with the shape {found.shape}; {wanted.shape} is kept")
        return float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-9))

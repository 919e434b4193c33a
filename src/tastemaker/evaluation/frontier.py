"""What variety costs: relevance of lists beside how unlike their items are, for each way and strength of making them varied."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.evaluation import page, plots

WAYS = {"mmr": "MMR", "dpp": "DPP"}


def unlikeness(vectors: NDArray[np.floating]) -> float:
    """Mean of 1 - cosine over all pairs of a list's items, in [0, 2]; 0 for fewer than two (intra-list distance; B. Smyth and P. McClave, 2001).

    Args:
        vectors: unit rows, [k, D].
    """
    k = len(vectors)
    if k < 2:
        return 0.0
    alike = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    return float(1 - (alike.sum() - np.trace(alike)) / (k * (k - 1)))


def frontier_section(frontier: dict[str, Any]) -> str:
    """The section of the report: a line for each way, a point for each strength."""
    points = frontier["points"]
    series = [
        (name, sorted((point["unlikeness"], point["NDCG@10"]) for point in points if point["by"] in (way, "none")))
        for way, name in WAYS.items()
    ]
    plot = plots.lines(
        series, "NDCG@10 by how unlike the items of a list are", below="unlikeness (mean 1 - cosine of a list's pairs)", digits=3
    )
    rows = [
        [
            WAYS.get(point["by"], "by score alone"),
            f"{point['strength']:g}",
            f"{point['NDCG@10']:.4f}",
            f"{point['unlikeness']:.3f}",
            f"{point['categories']:.1f}",
        ]
        for point in points
    ]
    told = page.table(["", "diversity", "NDCG@10", "unlikeness", "categories in a list"], rows)
    words = f"{frontier['questions']:,} of the questions above, lists of {frontier['k']}. The dial is `lists.diversity`, the way `lists.diversity_by`."
    return f"<h2>What does variety cost?</h2>{plot}{told}<p class=soft>{page.text(words)}</p>"

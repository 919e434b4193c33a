"""How soon a stranger is served better than by what is popular: NDCG@10 after no, one, two, … events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.evaluation import page, plots
from tastemaker.evaluation.ranking import per_user
from tastemaker.evaluation.significance import interval, paired

NDCG = "NDCG@10"


def first_events_curve(
    ours: pl.DataFrame,
    floors: dict[str, pl.DataFrame],
    targets: pl.DataFrame,
    numbers: NDArray[np.int64],
    words: str,
    resamples: int = 1_000,
) -> dict[str, Any]:
    """The curve of ours beside that of the better floor, with paired gaps.

    Args:
        ours, floors: lists (user_id is the question's name, item_id, rank). targets: user_id, item_id, a row a question.
        numbers: events known in each question, int [R], in the order of `targets`. words: who was asked.

    Returns:
        words, floor (its name), points (events, questions, ours, floor, gain with its interval and p), beats (the number of events from which on the
        floor is beaten for sure, or None) and a sentence.
    """
    mine = per_user(ours, targets, (10,)).values[NDCG]
    theirs = {name: per_user(lists, targets, (10,)).values[NDCG] for name, lists in floors.items()}
    floor = max(theirs, key=lambda name: float(theirs[name].mean()))
    points = []
    for number in sorted(set(numbers.tolist())):
        rows = numbers == number
        gap, p = paired(mine[rows], theirs[floor][rows], resamples)
        points.append(
            {
                "events": number,
                "questions": int(rows.sum()),
                "ours": msgspec.to_builtins(interval(mine[rows], resamples)),
                "floor": msgspec.to_builtins(interval(theirs[floor][rows], resamples)),
                "gain": {**msgspec.to_builtins(gap), "p": p},
            }
        )
    beats = _beats(points)
    return {"words": words, "floor": floor, "points": points, "beats": beats, "sentence": _sentence(points, beats, floor)}


def curve_section(curve: dict[str, Any], ours: str) -> str:
    """The section of the report."""
    points: Sequence[dict[str, Any]] = curve["points"]
    series = [(name, [(place, point[key]["mean"]) for place, point in enumerate(points)]) for name, key in _names(curve, ours)]
    names = [str(point["events"]) for point in points]
    plot = plots.lines(series, "NDCG@10 by the number of events known", names=names, below="events known", digits=4)
    rows = [
        [
            str(point["events"]),
            f"{point['questions']:,}",
            *(f"{point[key]['mean']:.4f}" for _, key in _names(curve, ours)),
            f"{point['gain']['mean']:+.4f} [{point['gain']['low']:+.4f}, {point['gain']['high']:+.4f}]",
        ]
        for point in points
    ]
    heads = ["events known", "questions", ours, curve["floor"], "gain"]
    told = page.table(heads, rows)
    return (
        f"<h2>How soon is a stranger served well?</h2><p><b>{page.text(curve['sentence'])}</b></p>{plot}{told}"
        f"<p class=soft>{page.text(curve['words'])}.</p>"
    )


def _names(curve: dict[str, Any], ours: str) -> list[tuple[str, str]]:
    return [(ours, "ours"), (curve["floor"], "floor")]


def _beats(points: Sequence[dict[str, Any]]) -> int | None:
    """The smallest number of events at which the floor is beaten for sure, and after which it never leads again."""
    found: int | None = None
    for point in reversed(points):
        if point["gain"]["mean"] <= 0:
            break
        if point["gain"]["low"] > 0:
            found = int(point["events"])
    return found


def _sentence(points: Sequence[dict[str, Any]], beats: int | None, floor: str) -> str:
    if beats is None:
        most = points[-1]["events"] if points else 0
        return f"Events until we beat popularity: not shown within {most} events ({floor} is as good for these people)."
    point = next(point for point in points if point["events"] == beats)
    return (
        f"Events until we beat popularity: {beats}. Then NDCG@10 is {point['ours']['mean']:.4f} against {point['floor']['mean']:.4f} of {floor} "
        f"(gain {point['gain']['low']:+.4f} to {point['gain']['high']:+.4f})."
    )

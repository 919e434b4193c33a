"""The user tower in eight bits, calibrated on real histories. What is learned anew stands in `students`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tastemaker.compression.calibration import Feed
from tastemaker.compression.step import Facts, NotApplicable, Tools, carry
from tastemaker.compression.text import GRAPH, most_alike, write_golden
from tastemaker.index.coded import Vectors, load
from tastemaker.schema.protocols import IntArray

TOWER = "user_tower"
HISTORIES = 2_048
"""Least number to calibrate with: of each only one state meets most products, so that few would tell little (cosine .9964 with 128, .9996 with these)."""
GOLDEN = 4
"""Histories whose vectors are kept beside the graph: 32 would take more bytes than the eight bits save."""
_AT_ONCE = 32


def int8(bundle: Path, place: Path, tools: Tools) -> Facts:
    """Products of the user tower in eight bits."""
    feeds = history_feeds(bundle, max(tools.settings.calibration, HISTORIES), tools.seed)
    carry(bundle, place, [TOWER])
    (place / TOWER).mkdir()
    facts = most_alike(bundle / TOWER / GRAPH, place / TOWER / GRAPH, feeds)
    keep_golden(place / TOWER, feeds[0])
    return facts


def keep_golden(folder: Path, feed: Feed) -> None:
    """Keeps some histories beside a tower's graph, with what it answers."""
    write_golden(folder, {name: values[:GOLDEN] for name, values in feed.items()})


def sequence_settings(bundle: Path) -> dict[str, Any]:
    """Section `sequence` of what the bundle was trained with."""
    return dict(msgspec.json.decode((bundle / "settings.json").read_bytes())["sequence"])


def history_feeds(bundle: Path, most: int, seed: int) -> list[Feed]:
    """Real histories as the tower's inputs, a few at a time.

    Raises:
        NotApplicable: nobody has a history.
    """
    return _feeds(bundle, [history for _, history, _ in histories(bundle, most, seed)])


def begun_feeds(bundle: Path, most: int, seed: int) -> list[Feed]:
    """The same of histories as they were after some of their events, drawn by chance from all users: up to `most`, of like length.

    Raises:
        NotApplicable: nobody has a history.
    """
    offsets, items = (np.load(bundle / "users" / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("offsets", "items"))
    length = int(sequence_settings(bundle)["max_length"])
    ends = np.random.default_rng(seed).permutation(len(items))[:most] + 1
    if not len(ends):
        raise NotApplicable("nobody has a history to learn from")
    begins = np.maximum(offsets[np.searchsorted(offsets, ends, side="left") - 1], ends - length)
    order = np.argsort(ends - begins, kind="stable")
    return _feeds(bundle, [np.asarray(items[begins[row] : ends[row]]) for row in order.tolist()], 2 * _AT_ONCE)


def histories(bundle: Path, most: int, seed: int) -> list[tuple[int, IntArray, float]]:
    """Some users by number, with their last events and the time of the last one.

    Raises:
        NotApplicable: nobody has a history.
    """
    length = int(sequence_settings(bundle)["max_length"])
    offsets, items, times = (
        np.load(bundle / "users" / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("offsets", "items", "times")
    )
    users = np.flatnonzero(np.diff(offsets) > 0)
    if not len(users):
        raise NotApplicable("nobody has a history to calibrate with")
    chosen = np.random.default_rng(seed).permutation(users)[:most].tolist()
    return [
        (user, np.asarray(items[offsets[user] : offsets[user + 1]])[-length:], float(times[offsets[user + 1] - 1]))
        for user in chosen
    ]


def _feeds(bundle: Path, found: Sequence[IntArray], size: int = _AT_ONCE) -> list[Feed]:
    vectors = load(bundle / "channels", "items")
    return [_feed(vectors, found[begin : begin + size]) for begin in range(0, len(found), size)]


def _feed(vectors: Vectors, found: Sequence[IntArray]) -> Feed:
    lengths = np.array([len(history) for history in found], dtype=np.int64)
    places = np.zeros((len(found), max(int(lengths.max()), 2)), dtype=np.int64)
    for row, history in enumerate(found):
        places[row, : len(history)] = history
    return {"vectors": vectors.rows(places.ravel()).reshape(*places.shape, -1), "lengths": lengths}

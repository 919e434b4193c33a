"""The user tower in eight bits, calibrated on real histories."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from tastemaker.compression.calibration import Feed
from tastemaker.compression.step import Facts, NotApplicable, Tools, carry
from tastemaker.compression.text import GRAPH, most_alike, write_golden
from tastemaker.index.coded import load

TOWER = "user_tower"
HISTORIES = 2_048
"""Least number to calibrate with: of each only one state meets most products, so that few would tell little (cosine .9964 with 128, .9996 with these)."""
_AT_ONCE = 32


def int8(bundle: Path, place: Path, tools: Tools) -> Facts:
    """Products of the user tower in eight bits."""
    feeds = history_feeds(bundle, max(tools.settings.calibration, HISTORIES), tools.seed)
    carry(bundle, place, [TOWER])
    (place / TOWER).mkdir()
    facts = most_alike(bundle / TOWER / GRAPH, place / TOWER / GRAPH, feeds)
    write_golden(place / TOWER, feeds[0])
    return facts


def history_feeds(bundle: Path, most: int, seed: int) -> list[Feed]:
    """Real histories as the tower's inputs, a few at a time.

    Raises:
        NotApplicable: nobody has a history.
    """
    length = int(msgspec.json.decode((bundle / "settings.json").read_bytes())["sequence"]["max_length"])
    offsets, items = (np.load(bundle / "users" / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("offsets", "items"))
    users = np.flatnonzero(np.diff(offsets) > 0)
    if not len(users):
        raise NotApplicable("nobody has a history to calibrate with")
    vectors, feeds = load(bundle / "channels", "items"), list[Feed]()
    chosen = np.random.default_rng(seed).permutation(users)[:most]
    for begin in range(0, len(chosen), _AT_ONCE):
        histories = [np.asarray(items[offsets[user] : offsets[user + 1]])[-length:] for user in chosen[begin : begin + _AT_ONCE]]
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        places = np.zeros((len(histories), max(int(lengths.max()), 2)), dtype=np.int64)
        for row, history in enumerate(histories):
            places[row, : len(history)] = history
        feeds.append({"vectors": vectors.rows(places.ravel()).reshape(*places.shape, -1), "lengths": lengths})
    return feeds

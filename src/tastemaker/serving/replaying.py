"""Are live features those that the journal gives: sampled lists are replayed from the bundle and the journal, by a state that has never served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from tastemaker.bundle.registry import Registry
from tastemaker.features.base import FeatureQuery
from tastemaker.features.feature_set import FeatureSet
from tastemaker.inference.brain import Brain
from tastemaker.journal.append import Journal
from tastemaker.journal.sampled import Sampled
from tastemaker.schema.errors import BundleError


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay found.

    Attributes:
        lists, numbers: compared; items that were changed since are left out (`left_out` numbers). equal: share of the numbers that came out again, bit by bit;
            None where nothing could be compared.
        differing: by feature, how many did not.
    """

    lists: int
    numbers: int
    left_out: int
    equal: float | None
    differing: dict[str, int]


def replay(bundles: Path, journal: Journal, samples: Sequence[Sampled]) -> Replayed:
    """Replays the sampled lists of the bundle that gave most of them.

    The journal keeps every event but of an item only its latest form, so lists are compared in those items that have not changed since.
    """
    told = [one for one in samples if one.values]
    if not told:
        return Replayed(lists=0, numbers=0, left_out=0, equal=None, differing={})
    version = Counter(one.model_version for one in told).most_common(1)[0][0]
    folder = Registry(bundles).folder(version)
    if not (folder / "features").is_dir():
        raise BundleError(f"Bundle {version} has no features, so nothing can be replayed. Train with features.")
    brain, (features, state) = Brain(folder), FeatureSet.load(folder / "features")
    data = msgspec.json.decode((folder / "manifest.json").read_bytes())["data"]
    position, change = int(data["position"]), int(data["change"])
    changes = {one.item_id: one for one in journal.item_changes(change, 1_000_000)}
    for changed in changes.values():
        if changed.item is not None and changed.vector and changed.vector_version == brain.content_version:
            features.put_item(state, changed.item, np.frombuffer(changed.vector, dtype=np.float32)[: brain.text.width])
    numbers = left = 0
    differing = Counter[str]()
    ordered = sorted((one for one in told if one.model_version == version), key=lambda one: one.position)
    for one in ordered:
        while position < one.position:
            events = [stored for stored in journal.tail(position, 10_000) if stored.seq <= one.position]
            for stored in events:
                features.update(state, stored.event)
            position = events[-1].seq if events else one.position
        found = features.gives(state, FeatureQuery(one.user_id, one.items, one.moment, one.context))
        live = np.array([[np.nan if x is None else x for x in row] for row in one.values], dtype=np.float32)
        kept = [item not in changes or changes[item].change <= one.change for item in one.items]
        left += int((~np.array(kept)).sum()) * live.shape[1]
        same = (found == live)[kept]
        numbers += same.size
        differing.update({name: int(count) for name, count in zip(one.names, (~same).sum(axis=0), strict=True) if count})
    wrong = sum(differing.values())
    return Replayed(
        lists=len(ordered),
        numbers=numbers,
        left_out=left,
        equal=1 - wrong / numbers if numbers else None,
        differing=dict(differing),
    )

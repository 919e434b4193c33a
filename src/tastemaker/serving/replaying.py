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
from tastemaker.journal.past import PastJournal
from tastemaker.journal.sampled import Sampled
from tastemaker.pipeline.engine import Found, Wish
from tastemaker.schema.errors import BundleError
from tastemaker.schema.protocols import Asker
from tastemaker.schema.settings import Settings
from tastemaker.serving.wire import Live


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay found.

    Attributes:
        lists, numbers: compared; items that were changed since are left out (`left_out` numbers). equal: share of the numbers that came out again, bit by bit;
            None where nothing could be compared.
        differing: by feature, how many did not. scores: compared. score_difference: their mean difference, relative to the live ones; None where none was.
    """

    lists: int
    numbers: int
    left_out: int
    equal: float | None
    differing: dict[str, int]
    scores: int = 0
    score_difference: float | None = None


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


def replay_scores(bundles: Path, journal: Path, samples: Sequence[Sampled], service: Settings) -> tuple[int, float | None]:
    """Makes the sampled lists of the bundle that gave most of them once more, from the bundle and the journal as it was then.

    Left out are lists with a session, which is not kept, and places that the list made now has not (a fresh slot, a pin).

    Args:
        service: the settings with which the service answers.

    Returns:
        How many scores were compared, and their mean difference relative to the live ones; None where none was.
    """
    if not samples:
        return 0, None
    version = Counter(one.model_version for one in samples).most_common(1)[0][0]
    ordered = sorted((one for one in samples if one.model_version == version), key=lambda one: (one.position, one.change))
    past = PastJournal.at(journal, ordered[0].position, ordered[0].change)
    apart, compared = 0.0, 0
    try:
        live = Live(Registry(bundles).folder(version), past, service=service)
        live.road.gatherer.seconds = 0.0  # nobody waits
        for one in ordered:
            past.until = (one.position, max(one.change, past.until[1]))
            live.poll()
            history = live.state.history(one.user_id) if one.user_id else np.zeros(0, dtype=np.int32)
            if len(history) != one.known:
                continue
            k = min(max(len(one.items), live.settings.fusion.depth), live.channels.n_items)  # more would look for more candidates
            rules = live.house.rules(live.state.index_of, k, live.barred(), history)
            wish = Wish(k, live.barred(), live.state.n_base, rules)
            found = live.recommend_together([history], [Asker(one.user_id, one.time, one.context)], [wish])[0]
            if not isinstance(found, Found):
                continue
            now = {
                live.state.rows[int(item)]["item_id"]: float(score) for item, score in zip(found.items, found.scores, strict=True)
            }
            for item, was in zip(one.items, one.scores, strict=True):
                if was is not None and item in now:
                    apart, compared = apart + abs(now[item] - was) / max(abs(was), 1e-6), compared + 1
    finally:
        past.close()
    return compared, apart / compared if compared else None

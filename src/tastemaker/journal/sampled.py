"""A sample of the lists that were answered, with what was known then: monitoring compares it with training, and replays it from the journal.

Kept like `journal.served`: one file a day and process, JSON lines, never waited for. Whether a list is in the sample follows from its request id, so it
does not depend on what stands in it.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec


class Sampled(msgspec.Struct, frozen=True, kw_only=True):
    """One list.

    Attributes:
        time: epoch seconds of the answer. moment: epoch seconds that features were asked at. context: of the asker.
        position, change: up to where the journal was known.
        known: events in the asker's history. items: item ids, the top first; scores, sources: of each.
        candidates: item ids among which the ranker chose, for which chances were told; chances: by head, one row a head.
        names: of the features. values: one row an item of the list, [k][F]; NaN and infinities are null.
        recall: share of the exact best that the index found; None where the index is exact.
    """

    request_id: str
    user_id: str
    time: float
    moment: float
    model_version: str
    position: int = 0
    change: int = 0
    known: int = 0
    context: dict[str, object] | None = None
    items: list[str]
    scores: list[float | None]
    sources: list[str]
    chances: dict[str, list[float | None]] = {}
    names: list[str] = []
    values: list[list[float | None]] = []
    recall: float | None = None


def in_sample(request_id: str, share: float) -> bool:
    """Whether a request is in the sample: the same everywhere, for about `share` of all."""
    if share <= 0:
        return False
    drawn = int.from_bytes(blake2b(request_id.encode("utf-8", "replace"), digest_size=8, person=b"sample").digest(), "big")
    return drawn < share * 2.0**64

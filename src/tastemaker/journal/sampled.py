"""A sample of the lists that were answered, with what was known then: monitoring compares it with training, and replays it from the journal.

Kept like `journal.served`: one file a day and process, JSON lines, never waited for. Whether a list is in the sample follows from its request id, so it
does not depend on what stands in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

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


class SampleReader:
    """Follows what all processes of a service keep.

    Args:
        folder: of the sample; it may come to be later.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._read = folder, dict[Path, int]()
        self._decode = msgspec.json.Decoder(Sampled).decode

    def skip(self) -> None:
        """Leaves out what was kept before now."""
        self._read = {path: path.stat().st_size for path in self._folder.glob("*.jsonl")}

    def new(self) -> list[Sampled]:
        """What was kept since the last call, oldest first; a line that is not whole is read when it is."""
        found = [one for path in sorted(self._folder.glob("*.jsonl")) for one in self._of(path)]
        return sorted(found, key=lambda one: one.time)

    def _of(self, path: Path) -> Iterator[Sampled]:
        try:
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
        except OSError:
            return
        whole = text.rfind(b"\n") + 1
        self._read[path] = self._read.get(path, 0) + whole
        for line in text[:whole].splitlines():
            try:
                yield self._decode(line)
            except msgspec.DecodeError:
                continue

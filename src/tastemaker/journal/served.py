"""What was answered: each place with its propensity, so that later events can judge another policy by what this one did.

One file a day and process, JSON lines, written without waiting for the disk: an answer lost in a crash is an answer less to learn from, an event is
never held up. Events name the answer that they belong to by `request_id`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import polars as pl

from tastemaker.journal.sampled import Sampled
from tastemaker.journal.trial import Tried
from tastemaker.schema.columns import Columns

DAY = 86_400.0
_encode = msgspec.json.Encoder().encode


class Served(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer.

    Attributes:
        time: epoch seconds. items: item_id, score, source, propensity of each place, the top first.
        variant: `live`; while a bundle is on trial `canary` and `control`, too.
    """

    request_id: str
    user_id: str | None
    time: float
    model_version: str
    items: list[tuple[str, float, str, float]]
    variant: str = "live"


class ServedLog:
    """Where one process keeps its answers.

    Args:
        folder: made with the first answer. days: after which files are removed.

    Attributes:
        lost: answers that could not be kept.
    """

    def __init__(self, folder: Path, days: int) -> None:
        self.folder, self._days, self.lost = folder, days, 0
        self._day, self._file = "", -1

    def write(self, answer: Served | Sampled | Tried) -> None:
        """Keeps an answer; never fails, as the answer itself matters more."""
        try:
            day = time.strftime("%Y-%m-%d", time.gmtime(answer.time))
            if day != self._day:
                self._open(day)
            os.write(self._file, _encode(answer) + b"\n")
        except (OSError, UnicodeEncodeError):  # the latter: a name that is no valid Unicode
            self.lost += 1

    def close(self) -> None:
        """Lets go of the file."""
        if self._file >= 0:
            os.close(self._file)
        self._day, self._file = "", -1

    def _open(self, day: str) -> None:
        self.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        oldest = time.time() - self._days * DAY
        for path in self.folder.glob("*.jsonl"):
            if path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
        self._file = os.open(self.folder / f"{day}-{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._day = day


def read_served(folder: Path) -> pl.DataFrame:
    """The kept answers, oldest first: request_id, user_id, timestamp, model_version, item_id, position (0 is the top), score, source, propensity, variant.

    A line that was cut off, as by a crash, is left out.
    """
    decode = msgspec.json.Decoder(Served).decode
    found: list[Served] = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            try:
                found.append(decode(line))
            except msgspec.DecodeError:
                continue
    found.sort(key=lambda answer: answer.time)
    rows = [
        (
            answer.request_id,
            answer.user_id,
            answer.time,
            answer.model_version,
            item_id,
            place,
            score,
            source,
            propensity,
            answer.variant,
        )
        for answer in found
        for place, (item_id, score, source, propensity) in enumerate(answer.items)
    ]
    schema = {
        Columns.REQUEST_ID: pl.String,
        Columns.USER_ID: pl.String,
        Columns.TIMESTAMP: pl.Float64,
        "model_version": pl.String,
        Columns.ITEM_ID: pl.String,
        Columns.POSITION: pl.Int64,
        Columns.SCORE: pl.Float64,
        "source": pl.String,
        Columns.PROPENSITY: pl.Float64,
        "variant": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")

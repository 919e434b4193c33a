"""Reports that travel between rooms: plain counts and figures, ready for JSON."""

from __future__ import annotations

import msgspec


class ImportReport(msgspec.Struct, kw_only=True):
    """What an import did with each row. `read == accepted + duplicates + quarantined`, always.

    Attributes:
        quarantined: rows put aside, by reason.
        warnings: rows kept although something is odd about them, by reason.
        guesses: how columns and times were understood, in plain words.
    """

    kind: str
    files: list[str] = []
    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    quarantined: dict[str, int] = {}
    warnings: dict[str, int] = {}
    guesses: list[str] = []
    seconds: float = 0.0


class Interval(msgspec.Struct, frozen=True):
    """A figure with its 95 % bootstrap interval; a lone number is never printed."""

    mean: float
    low: float
    high: float

"""Which events a memory takes: all, or those that bear one of some labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tastemaker.features.names import Names
from tastemaker.features.rows import Rows
from tastemaker.schema.labels import COMPARE, Label, parse_label


@dataclass(frozen=True)
class Which:
    """Labels of which one is enough; none: every event is taken."""

    labels: tuple[Label, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Which:
        """Reads `purchase`, `rating>=4` or `like|share`; `all` takes every event.

        Raises:
            SettingsError: a part is no label.
        """
        if text.strip() in ("", "all"):
            return ALL
        return cls(tuple(parse_label(part) for part in text.split("|")))

    def mask(self, rows: Rows, kinds: Names) -> NDArray[np.bool_]:
        """True for the events that are taken, bool [n]; a missing value satisfies no bound."""
        if not self.labels:
            return np.ones(len(rows), dtype=np.bool_)
        taken = np.zeros(len(rows), dtype=np.bool_)
        for label in self.labels:
            kind = kinds.find(label.event_type)
            if kind < 0:
                continue
            held = rows.kind == kind
            if label.sign is not None:
                held &= np.isfinite(rows.value) & COMPARE[label.sign](rows.value, label.bound)  # type: ignore[arg-type]
            taken |= held
        return taken


ALL = Which()

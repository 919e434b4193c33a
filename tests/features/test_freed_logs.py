"""Logs are large, and the collector of rings of objects does not know how large: what is no longer needed must go at once."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import polars as pl

from tastemaker.features.feature_set import FeatureSet
from tastemaker.features.past import Log, OwnPast
from tastemaker.features.rows import Rows


def test_a_log_that_was_asked_is_freed_without_the_collector() -> None:
    declared = FeatureSet.declared(("item_events", "item_faded", "user_events", "user_recency", "user_item"))
    parts = declared.parts(pl.Series(["a", "b", "c"]), ["view"], [])
    rows, nobody = 30, np.full(30, -1, dtype=np.int64)
    item = np.arange(rows, dtype=np.int64) % 3
    events = Rows(np.arange(rows, dtype=np.int64) % 5, item, nobody, np.zeros(rows, np.int64), np.arange(rows) * 1e3 + 1e9,
                  np.ones(rows), nobody)  # fmt: skip
    gc.collect()
    gc.disable()
    try:
        log = parts.log(events)
        contents = parts.contents(log)
        parts.of_slice(log, contents)
        gone = [weakref.ref(log), weakref.ref(OwnPast(log)), *(weakref.ref(log.line(memory)) for memory in parts.carried)]
        assert isinstance(log, Log)
        del log, contents
        assert [one() for one in gone] == [None] * len(gone)
    finally:
        gc.enable()

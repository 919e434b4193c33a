"""Steps on the models that see pictures and hear sounds: their products in eight bits, calibrated on the catalogue's own files.

What the index holds of an item stays as the model read it before: the catalogue's files may be gone by now. So the vectors themselves must stay: on files that set no scale.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from tastemaker.compression.calibration import Feed
from tastemaker.compression.step import Facts, NotApplicable, Tools, carry
from tastemaker.compression.text import GRAPH, most_alike, write_golden
from tastemaker.features.fetch import Unreadable
from tastemaker.features.media_reader import MediaReader
from tastemaker.schema.errors import MissingExtraError
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings_file import from_table
from tastemaker.schema.signals import AUDIO, IMAGE

LEAST_ALIKE = 0.99
"""Smallest mean cosine of a file's vector with the one before."""
FEWEST, _AT_ONCE = 16, 4
WORDS = {IMAGE: "picture", AUDIO: "sound"}


def int8(name: str) -> Callable[[Path, Path, Tools], Facts]:
    """The step for one signal, `image` or `audio`."""

    def apply(bundle: Path, place: Path, tools: Tools) -> Facts:
        folder = f"{name}_encoder"
        if not (bundle / folder / GRAPH).is_file():
            raise NotApplicable(f"the bundle has no model that reads the items' {WORDS[name]}s")
        feeds = file_feeds(bundle, name, tools.settings.calibration, tools.seed)
        carry(bundle, place, [f"{folder}/{GRAPH}"])
        facts = most_alike(bundle / folder / GRAPH, place / folder / GRAPH, feeds)
        if float(facts["cosine"]) < LEAST_ALIKE:
            raise NotApplicable(
                f"a {WORDS[name]}'s vector would keep a cosine of {facts['cosine']:.3f} only; {LEAST_ALIKE} is asked for"
            )
        write_golden(place / folder, feeds[0])
        return facts

    return apply


def file_feeds(bundle: Path, name: str, most: int, seed: int) -> list[Feed]:
    """The catalogue's own files as the model's inputs, a few at a time.

    Raises:
        NotApplicable: too few of them can be read now.
    """
    settings = from_table(msgspec.json.decode((bundle / "settings.json").read_bytes()))
    catalogue = pl.read_parquet(bundle / "catalogue" / "items.parquet")
    named = catalogue[name].drop_nulls().unique(maintain_order=True).to_list() if name in catalogue.columns else []
    try:
        reader = MediaReader.load(bundle / f"{name}_encoder", getattr(settings, name))
    except MissingExtraError as error:
        raise NotApplicable(str(error)) from None
    found: list[FloatArray] = []
    for row in np.random.default_rng(seed).permutation(len(named))[: 4 * most].tolist():
        if len(found) == most:
            break
        try:
            found.append(reader.prepared(reader.content(named[row])))
        except Unreadable:
            continue
    if len(found) < FEWEST:
        raise NotApplicable(f"only {len(found)} {WORDS[name]}s of the catalogue can be read now; {FEWEST} are needed to calibrate")
    return [{name: np.stack(found[begin : begin + _AT_ONCE])} for begin in range(0, len(found), _AT_ONCE)]

"""After the text encoder has changed, the catalogue is read again: what is found offline and what the service reads are the same numbers."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from tastemaker.compression.step import NotApplicable, Tools
from tastemaker.index.coded import Bytes, load
from tastemaker.models.text_template import fill
from tastemaker.schema.columns import Columns
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.signals import TEXT

ENCODER = "text_encoder"
LEFT = (ENCODER, "channels/text.npy", "channels/text.int8.npy", "channels/text.scale.npy", "channels/text.codes.npy", "channels/text.centres.npy",
        "channels/items.npy", "features/item_vectors.npy")  # fmt: skip
"""Files that `reread` writes itself."""


def texts_of(bundle: Path) -> list[str]:
    """What the encoder reads of each item, in the order of the catalogue; empty texts included.

    Raises:
        NotApplicable: the bundle has no text encoder.
    """
    config = bundle / ENCODER / "config.json"
    if not config.is_file():
        raise NotApplicable("the catalogue has no text, so there is no text encoder")
    template = str(msgspec.json.decode(config.read_bytes())["template"])
    table = pl.read_parquet(bundle / "catalogue" / "items.parquet")
    columns = (table[name].to_list() for name in (Columns.TITLE, Columns.TEXT, Columns.CATEGORIES))
    return [fill(template, *words) for words in zip(*columns, strict=True)]


def reread(bundle: Path, place: Path, tools: Tools) -> None:
    """Writes the vectors of all texts by the encoder that lies in `place`, and with them the item vectors of items without events."""
    texts, old = texts_of(bundle), load(bundle / "channels", "text")
    part = _text_part(bundle, int(old.shape[1]))
    text = tools.reader(place / ENCODER, part.stop - part.start).encode(texts)
    content = np.array(old.rows(np.arange(len(texts))))
    content[:, part] = text
    if (bundle / "channels" / "text.npy").is_file():
        np.save(place / "channels" / "text.npy", content, allow_pickle=False)
    else:
        Bytes.of(content).save(place / "channels", "text")
    if (bundle / "features" / "item_vectors.npy").is_file():
        np.save(place / "features" / "item_vectors.npy", _told(bundle, text), allow_pickle=False)
    if (bundle / "channels" / "items.npy").is_file():
        items = np.array(np.load(bundle / "channels" / "items.npy", allow_pickle=False))
        new = np.flatnonzero(np.load(bundle / "channels" / "counts.npy", allow_pickle=False) == 0)
        if len(new):
            items[new] = _cold(bundle, tools, content[new])
        np.save(place / "channels" / "items.npy", items, allow_pickle=False)


def _told(bundle: Path, text: FloatArray) -> FloatArray:
    """The text vectors that the features hold, in their own order of items."""
    kept: FloatArray = np.load(bundle / "features" / "item_vectors.npy", allow_pickle=False)
    names = pl.read_parquet(bundle / "features" / "item.parquet")["name"].to_list()
    ids = pl.read_parquet(bundle / "catalogue" / "items.parquet", columns=[Columns.ITEM_ID])[Columns.ITEM_ID].to_list()
    row = {item: place for place, item in enumerate(ids)}
    for place, name in enumerate(names):
        if name in row and kept.shape[1] == text.shape[1]:
            kept[place] = text[row[name]]
    return kept


def _text_part(bundle: Path, width: int) -> slice:
    """Where the text vector stands in an item's content of this width."""
    path = bundle / "item_tower" / "signals.json"
    widths = msgspec.json.decode(path.read_bytes(), type=dict[str, int]) if path.is_file() else {TEXT: width}
    before = 0
    for name, size in widths.items():
        if name == TEXT:
            return slice(before, before + size)
        before += size
    raise NotApplicable("the items have no text signal")


def _cold(bundle: Path, tools: Tools, content: FloatArray) -> FloatArray:
    return tools.tower(bundle / "item_tower" / "model.onnx", content)

"""What is known of items besides events, by item slot; and the names behind all slots. It learns from the catalogue, never from events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.grown import Grown, Mapped
from tastemaker.features.names import Names
from tastemaker.features.rows import TIMELESS, Rows, when, worth, worths
from tastemaker.features.script import script
from tastemaker.schema.columns import DEFAULT_EVENT_TYPE, Columns
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item
from tastemaker.schema.protocols import FloatArray

CATEGORIES = 8
"""Categories read of an item; the first ones, as catalogues name the most telling first."""
BRAND_FIELDS = ("brand", "manufacturer", "artist", "author", "publisher", "developer", "store", "director")
"""Fields of `extra` that can name who made an item; the first that is filled counts."""
DEVICE = "device"
"""The field of a context that names the device."""
DEVICES = ("mobile", "desktop", "tablet", "tv")
"""Devices with a number of their own; others are told apart by target encoding only."""
UNREAD = (np.nan,) * 4
NUMBERS = ("price", "relative_price", "created_at", "words", "east_asian", "latin", "letters", "filled")
"""Numbers of an item; NaN where the catalogue says nothing."""
NAMED = ("user", "item", "category", "brand", "device", "kind")


class Facts:
    """Names and item facts.

    Args:
        text_dim: length of the text vectors. read_texts: whether length and script of texts will be asked.

    Attributes:
        user, item, category, brand_name, device, kind: names of each sort; `kind` are event types.
        categories: category slots by item slot, int32 [items, CATEGORIES], filled up with -1.
        brand: brand slot by item slot, int32 [items].
        numbers: by item slot, float64 [items, NUMBERS].
        vectors: unit text vectors by item slot, float32 [items, T]; zeros where there is none.
        usual: median log(1 + price) of each category by slot; usual_of_all: of the catalogue. NaN where no price is known.
    """

    def __init__(self, text_dim: int = 0, read_texts: bool = True) -> None:
        self.read_texts = read_texts
        self.user, self.item, self.category, self.brand_name, self.kind = (Names() for _ in range(5))
        self.device = Names(DEVICES)
        self.categories = Grown(-1, np.int32, CATEGORIES)
        self.brand = Grown(-1, np.int32)
        self.numbers = Grown(np.nan, np.float64, len(NUMBERS))
        self.vectors: Grown = Grown(0.0, np.float32, max(text_dim, 1))
        self.usual = Grown(np.nan)
        self.usual_of_all = np.nan

    def copy(self) -> Facts:
        """A copy that can learn alone."""
        other = Facts()
        for name, value in vars(self).items():
            setattr(other, name, value.copy() if isinstance(value, (Names, Grown)) else value)
        return other

    def number(self, name: str, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """One of `NUMBERS` for item slots, float64 [n]; NaN where unknown."""
        found: NDArray[np.float64] = self.numbers.read(items)[:, NUMBERS.index(name)]
        return found

    # ---- the catalogue

    def put_items(self, items: pl.DataFrame) -> None:
        """Takes a whole catalogue in; the usual prices are told by it."""
        found = [_item(row) for row in items.iter_rows(named=True)]
        prices: dict[int, list[float]] = {}
        for item in found:
            price = _price(item.price)
            if np.isfinite(price):
                for slot in [-1, *self._category_slots(item)]:
                    prices.setdefault(slot, []).append(np.log1p(price))
        for slot, listed in prices.items():
            if slot >= 0:
                self.usual.put(slot, float(np.median(listed)))
            else:
                self.usual_of_all = float(np.median(listed))
        for item in found:
            self.put_item(item)

    def put_item(self, item: Item, vector: FloatArray | None = None) -> int:
        """Adds or changes an item; gives its slot. Usual prices stay as they were."""
        slot = self.item.add(item.item_id)
        listed = np.full(CATEGORIES, -1)
        slots = self._category_slots(item)
        listed[: len(slots)] = slots
        self.categories.put(slot, listed)
        maker = _brand(item.extra)
        self.brand.put(slot, self.brand_name.add(maker) if maker else -1)
        told = script(" ".join(part for part in (item.title, item.text) if part)) if self.read_texts else UNREAD
        price = _price(item.price)
        filled = [item.title, item.text, item.categories, item.image, item.price is not None]
        created = when(item.created_at)
        self.numbers.put(
            slot,
            [
                price,
                np.log1p(price) - self._usual_price(slots),
                created if created > TIMELESS else np.nan,
                *told,
                sum(bool(part) for part in filled) / len(filled),
            ],
        )
        if vector is not None:
            self.put_vectors(np.array([slot]), np.asarray(vector, dtype=np.float32)[None])
        return slot

    def put_vectors(self, slots: NDArray[np.int64], vectors: FloatArray) -> None:
        """Text vectors of items, float32 [n, T]; they are brought to unit length, and rows that are not finite count as none."""
        with np.errstate(over="ignore", invalid="ignore"):
            vectors = np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, 0.0)
            scaled = vectors / np.maximum(np.abs(vectors).max(axis=1, keepdims=True, initial=0.0), 1e-30)
            length = np.linalg.norm(scaled, axis=1, keepdims=True)
        self.vectors.put(slots, np.where(length > 0, scaled / np.maximum(length, 1e-30), 0.0).astype(np.float32))

    def _category_slots(self, item: Item) -> list[int]:
        return [self.category.add(name) for name in list(dict.fromkeys(name for name in item.categories if name))[:CATEGORIES]]

    def _usual_price(self, categories: list[int]) -> float:
        usual = self.usual.read(np.array(categories, dtype=np.int64))
        usual = usual[np.isfinite(usual)]
        return float(usual.mean()) if len(usual) else self.usual_of_all

    # ---- names to slots

    def events(self, events: pl.DataFrame, ordered: bool, devices: bool) -> Rows:
        """A log as slots; new names are learned.

        Args:
            events: with the journal's columns; all but user, item and time may be absent.
            ordered: whether ties must be ordered. devices: whether contexts must be read.
        """
        rows = events.height
        kinds = _column(events, Columns.EVENT_TYPE, pl.String).fill_null(DEFAULT_EVENT_TYPE)
        return Rows(
            self.user.add_all(events[Columns.USER_ID]),
            self.item.add_all(events[Columns.ITEM_ID]),
            self.device.add_all(devices_of(events)) if devices else np.full(rows, -1, dtype=np.int64),
            self.kind.add_all(kinds),
            _times(events[Columns.TIMESTAMP]),
            worths(_column(events, Columns.VALUE, pl.Float64)),
            _order(events) if ordered else np.zeros(rows, dtype=np.int64),
        )

    def questions(self, queries: pl.DataFrame, devices: bool) -> Rows:
        """Questions (user_id, item_id, timestamp, optional context) as slots; nothing is learned."""
        rows = queries.height
        nothing = np.full(rows, -1, dtype=np.int64)
        return Rows(
            self.user.find_all(queries[Columns.USER_ID]),
            self.item.find_all(queries[Columns.ITEM_ID]),
            self.device.find_all(devices_of(queries)) if devices else nothing,
            nothing,
            _times(queries[Columns.TIMESTAMP]),
            np.full(rows, np.nan),
            nothing,
        )

    def event(self, event: Event) -> Rows:
        """One event as slots; new names are learned."""
        device = device_of(event.context)
        return Rows(
            np.array([self.user.add(event.user_id)], dtype=np.int64),
            np.array([self.item.add(event.item_id)], dtype=np.int64),
            np.array([self.device.add(device) if device else -1], dtype=np.int64),
            np.array([self.kind.add(event.event_type)], dtype=np.int64),
            np.array([when(event.timestamp)]),
            np.array([worth(event.value)]),
            np.zeros(1, dtype=np.int64),
        )

    def question(self, user_id: str, item_ids: list[str], now: float, context: Mapping[str, Any] | None) -> Rows:
        """One user and several items as slots; nothing is learned."""
        rows = len(item_ids)
        nothing = np.full(rows, -1, dtype=np.int64)
        return Rows(
            np.full(rows, self.user.find(user_id), dtype=np.int64),
            np.array([self.item.find(item_id) for item_id in item_ids], dtype=np.int64),
            np.full(rows, self.device.find(device_of(context)), dtype=np.int64),
            nothing,
            np.full(rows, when(now)),
            np.full(rows, np.nan),
            nothing,
        )

    # ---- on disk

    def save(self, folder: Path) -> None:
        """Writes names and facts into a folder."""
        for name in NAMED:
            pl.DataFrame({"name": list(self._names(name))}, schema={"name": pl.String}).write_parquet(folder / f"{name}.parquet")
        items = len(self.item)
        np.save(folder / "item_categories.npy", self.categories.first(items), allow_pickle=False)
        np.save(folder / "item_brand.npy", self.brand.first(items), allow_pickle=False)
        np.save(folder / "item_numbers.npy", self.numbers.first(items), allow_pickle=False)
        partial = folder / "item_vectors.partial.npy"
        np.save(partial, self.vectors.first(items), allow_pickle=False)
        partial.replace(folder / "item_vectors.npy")  # these facts may read that very file
        usual = np.append(self.usual.first(len(self.category)), self.usual_of_all)
        np.save(folder / "usual_price.npy", usual, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path, read_texts: bool = True) -> Facts:
        """Reads what `save` wrote. Vectors stay in their file, which must be there as long as the facts are."""
        facts = cls(read_texts=read_texts)
        vectors = facts.vectors = Mapped(0.0, np.float32, folder / "item_vectors.npy")
        for name in NAMED:
            names = Names(pl.read_parquet(folder / f"{name}.parquet")["name"].to_list())
            setattr(facts, "brand_name" if name == "brand" else name, names)
        if vectors.filed != len(facts.item):
            raise ValueError(f"{vectors.filed} text vectors of {len(facts.item)} items")
        slots = np.arange(len(facts.item))
        facts.categories.put(slots, np.load(folder / "item_categories.npy", allow_pickle=False))
        facts.brand.put(slots, np.load(folder / "item_brand.npy", allow_pickle=False))
        facts.numbers.put(slots, np.load(folder / "item_numbers.npy", allow_pickle=False))
        usual = np.load(folder / "usual_price.npy", allow_pickle=False)
        facts.usual.put(np.arange(len(usual) - 1), usual[:-1])
        facts.usual_of_all = float(usual[-1])
        return facts

    def _names(self, name: str) -> Names:
        found: Names = getattr(self, "brand_name" if name == "brand" else name)
        return found


def device_of(context: Mapping[str, Any] | None) -> str | None:
    """The device that a context names, in small letters; None for none."""
    named = context.get(DEVICE) if isinstance(context, Mapping) else None
    return named.strip().lower() or None if isinstance(named, str) else None


def devices_of(table: pl.DataFrame) -> pl.Series:
    """The device that each row's `context` (JSON text) names, in small letters; null for none."""
    contexts = _column(table, Columns.CONTEXT, pl.String)
    known: dict[str | None, str | None] = {None: None}
    for text in contexts.drop_nulls().unique():
        try:
            known[text] = device_of(msgspec.json.decode(text))
        except msgspec.DecodeError:
            known[text] = None
    return pl.Series("device", [known[text] for text in contexts], dtype=pl.String)


def _column(table: pl.DataFrame, name: str, kind: Any) -> pl.Series:
    return table[name].cast(kind) if name in table.columns else pl.Series(name, [None], dtype=kind).new_from_index(0, table.height)


def _times(times: pl.Series) -> NDArray[np.float64]:
    found = times.cast(pl.Float64).fill_null(TIMELESS).to_numpy()
    return np.where(np.isfinite(found), found, TIMELESS)


def _order(events: pl.DataFrame) -> NDArray[np.int64]:
    """Rank of (event id, item id) of each event: the order of events at one time."""
    ids = tied_ids(events).with_row_index("row").sort("event_id", "item_id", maintain_order=True)
    order = np.empty(events.height, dtype=np.int64)
    order[ids["row"].to_numpy()] = np.arange(events.height)
    return order


def tied_ids(events: pl.DataFrame) -> pl.DataFrame:
    """`event_id` (empty where it is absent) and `item_id` of a log."""
    names = _column(events, Columns.EVENT_ID, pl.String).fill_null("")
    return pl.DataFrame([names.alias("event_id"), events[Columns.ITEM_ID].cast(pl.String).alias("item_id")])


def _item(row: dict[str, Any]) -> Item:
    known = {name: row[name] for name in Item.__struct_fields__ if name in row and row[name] is not None}
    extra = known.get("extra")
    if isinstance(extra, str):
        try:
            known["extra"] = msgspec.json.decode(extra, type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError):
            known["extra"] = {}
    return Item(**known)


def _brand(extra: Mapping[str, Any]) -> str | None:
    for field in BRAND_FIELDS:
        named = extra.get(field)
        if isinstance(named, str) and named.strip():
            return named.strip()
    return None


def _price(price: float | None) -> float:
    """A price; NaN where there is none, or none that can be: negative, NaN, infinite."""
    return float(price) if price is not None and np.isfinite(price) and price >= 0 else float("nan")

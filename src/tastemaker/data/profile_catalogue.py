"""What the catalogue holds: what is missing, categories, prices, texts and the scripts that they are written in."""

from __future__ import annotations

import msgspec
import polars as pl

from tastemaker.data.numbers import Numbers, numbers_of
from tastemaker.data.tallies import category_of
from tastemaker.schema.baseline import CategoryBaseline
from tastemaker.schema.columns import Columns

READ = 2_000
"""Letters of an item's title and text in which scripts are counted."""
LISTED = 20
_KANA = r"[\p{Hiragana}\p{Katakana}]"
SCRIPTS = {
    "Latin": r"\p{Latin}", "Chinese": r"\p{Han}", "Japanese": _KANA, "Korean": r"\p{Hangul}", "Cyrillic": r"\p{Cyrillic}",
    "Greek": r"\p{Greek}", "Arabic": r"\p{Arabic}", "Hebrew": r"\p{Hebrew}", "Devanagari": r"\p{Devanagari}",
    "Bengali": r"\p{Bengali}", "Tamil": r"\p{Tamil}", "Thai": r"\p{Thai}",
}  # fmt: skip
"""Scripts by name, and the letters that belong to them (Unicode Standard Annex 24)."""
OTHER, NO_LETTERS = "other", "no letters"


class Script(msgspec.Struct, kw_only=True, frozen=True):
    """Items that are mostly written in a script, and the letters of it in all items."""

    name: str
    items: int
    letters: int


class SameTitles(msgspec.Struct, kw_only=True, frozen=True):
    """Titles that several items share, capitals and blanks aside: how many titles, their items, and the most shared by name."""

    titles: int
    items: int
    most: list[tuple[str, int]]


class CatalogueFigures(msgspec.Struct, kw_only=True, frozen=True):
    """The catalogue in figures.

    Attributes:
        items: rows. hidden: those never to be recommended.
        missing: items without, for each column; blank texts and empty lists count as missing.
        no_text: items of which neither title nor text nor categories say anything: nothing can be read there.
        categories: one row for each category of an item.
        scripts: most items first.
        letters: of title and text together. price: as it is.
        unmet: items of the catalogue without any event.
        unknown_items, unknown_events: items with events that the catalogue does not know, and their events.
    """

    items: int
    hidden: int
    missing: dict[str, int]
    no_text: int
    categories: CategoryBaseline
    scripts: list[Script]
    letters: Numbers
    price: Numbers
    same_titles: SameTitles
    unmet: int
    unknown_items: int
    unknown_events: int


def catalogue_of(items: pl.DataFrame, events: pl.LazyFrame) -> CatalogueFigures:
    """Looks at a catalogue (`journal.catalogue.ITEM_SCHEMA`) beside the events."""
    met = events.group_by(Columns.ITEM_ID).len().collect(engine="streaming")
    known = met.join(items.select(Columns.ITEM_ID), on=Columns.ITEM_ID, how="semi")
    empty = {name: _empty(name) for name in (Columns.TITLE, Columns.TEXT, Columns.CATEGORIES, Columns.PRICE, Columns.IMAGE)}
    missing = items.select(**{name: one.sum() for name, one in empty.items()}, created_at=pl.col(Columns.CREATED_AT).null_count())
    wordless = empty[Columns.TITLE] & empty[Columns.TEXT] & empty[Columns.CATEGORIES]
    return CatalogueFigures(
        items=items.height,
        hidden=int(items[Columns.HIDDEN].sum()),
        missing=missing.row(0, named=True),
        no_text=int(items.select(wordless.sum()).item()),
        categories=categories_of(items),
        scripts=scripts_of(items),
        letters=numbers_of(letters(items).lazy(), "letters"),
        price=numbers_of(items.lazy(), Columns.PRICE),
        same_titles=_same_titles(items),
        unmet=items.height - known.height,
        unknown_items=met.height - known.height,
        unknown_events=int(met["len"].sum()) - int(known["len"].sum()),
    )


def categories_of(items: pl.DataFrame) -> CategoryBaseline:
    """How often each category came; one row for each category of an item, items without any count as missing."""
    some = items.filter(~_empty(Columns.CATEGORIES))
    rows = some.lazy().select(pl.col(Columns.CATEGORIES).explode())
    return category_of(rows, Columns.CATEGORIES, items.height - some.height)


def letters(items: pl.DataFrame) -> pl.DataFrame:
    """Letters (characters) of title and text together, one row an item."""
    return items.select(
        (pl.col(Columns.TITLE).fill_null("").str.len_chars() + pl.col(Columns.TEXT).fill_null("").str.len_chars()).alias("letters")
    )


def missing_of(items: pl.DataFrame) -> dict[str, int]:
    """Items without title, text, categories and price."""
    names = (Columns.TITLE, Columns.TEXT, Columns.CATEGORIES, Columns.PRICE)
    return (
        items.select(**{name: _empty(name).sum() for name in names}).row(0, named=True) if items.height else dict.fromkeys(names, 0)
    )


def scripts_of(items: pl.DataFrame) -> list[Script]:
    """Which scripts the texts are written in.

    The script with most letters is an item's own; where there is kana the text is Japanese, although most of its letters may be Chinese.
    """
    text = pl.concat_str(pl.col(Columns.TITLE, Columns.TEXT).fill_null("").str.slice(0, READ), separator=" ")
    named = [text.str.count_matches(pattern).cast(pl.Int64).alias(name) for name, pattern in SCRIPTS.items()]
    every = text.str.count_matches(r"\p{L}").cast(pl.Int64).alias("every")
    counts = items.lazy().select(every, *named).collect(engine="streaming")
    counts = counts.with_columns((pl.col("every") - pl.sum_horizontal(list(SCRIPTS))).clip(0).alias(OTHER)).drop("every")
    names = counts.columns
    most = pl.concat_list(names).list.arg_max()
    own = counts.select(
        pl.when(pl.max_horizontal(names) == 0)
        .then(pl.lit(NO_LETTERS))
        .when(pl.col("Japanese") > 0, most == names.index("Chinese"))
        .then(pl.lit("Japanese"))
        .otherwise(most.replace_strict(dict(enumerate(names)), return_dtype=pl.String, default=OTHER))
        .alias("script")
    )
    of_items = dict(own["script"].value_counts().iter_rows())
    found = [
        Script(name=name, items=of_items.get(name, 0), letters=int(counts[name].sum()) if name in names else 0)
        for name in (*names, NO_LETTERS)
    ]
    return sorted((one for one in found if one.items or one.letters), key=lambda one: (-one.items, -one.letters))


def _empty(name: str) -> pl.Expr:
    column = pl.col(name)
    if name == Columns.CATEGORIES:
        return column.is_null() | (column.list.len() == 0)
    if name == Columns.PRICE:
        return column.is_null() | column.is_nan()
    return column.is_null() | (column.str.strip_chars() == "")


def _same_titles(items: pl.DataFrame) -> SameTitles:
    told = items.filter(~_empty(Columns.TITLE))
    plain = pl.col(Columns.TITLE).str.strip_chars().str.replace_all(r"\s+", " ").str.to_lowercase().alias("plain")
    table = told.group_by(plain).agg(pl.len().alias("n"), pl.col(Columns.TITLE).first()).filter(pl.col("n") > 1)
    most = table.sort(["n", "plain"], descending=[True, False]).head(LISTED)
    return SameTitles(titles=table.height, items=int(table["n"].sum()), most=list(most.select(Columns.TITLE, "n").iter_rows()))

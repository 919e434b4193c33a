"""All steps by name, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Sequence

from tastemaker.compression import text, user, vectors
from tastemaker.compression.ladder import Group
from tastemaker.compression.step import DEAD, TEXT, USER, VECTORS, Step
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings import CompressSettings

VOCABULARY = Step("vocabulary", TEXT, "word pieces that the catalogue does not use are left out", text.vocabulary)
INT8_TEXT = Step("int8-text", TEXT, "products and word vectors of the language model in eight bits", text.int8)
INT8_SENSITIVE = Step("int8-text-sensitive", TEXT, "the same, the products that cost most left in float", text.int8_sensitive)
INT8_TABLES = Step("int8-word-vectors", TEXT, "word vectors in eight bits, products in float", text.int8_tables)
INT8_USER = Step("int8-user", USER, "products of the user tower in eight bits", user.int8)
NEIGHBOURS = Step("neighbours", DEAD, "the weaker half of each item's neighbours is left out", vectors.fewer_neighbours)
BYTES = Step("int8-vectors", VECTORS, "item vectors in eight bits", vectors.to_bytes)
CODES = Step("product-codes", VECTORS, "item vectors as product codes, the best scored again in eight bits", vectors.to_codes)


def ladder(settings: CompressSettings) -> list[Group]:
    """The groups of steps that the settings ask for.

    Raises:
        SettingsError: a step or an effort that is not known.
    """
    if settings.effort not in ("quick", "normal"):
        raise SettingsError(f"compress.effort is {settings.effort!r}; expected quick or normal.")
    groups: list[Group] = [[VOCABULARY], [INT8_TEXT, INT8_SENSITIVE, INT8_TABLES], [INT8_USER], [NEIGHBOURS], [CODES, BYTES]]
    return _chosen(groups, settings.steps)


def _chosen(groups: Sequence[Group], names: Sequence[str]) -> list[Group]:
    known = [step.name for group in groups for step in group]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SettingsError(f"compress.steps names {', '.join(unknown)}; there are {', '.join(known)}.")
    return [group for group in ([step for step in group if not names or step.name in names] for group in groups) if group]

"""All steps by name, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tastemaker.compression import media, ranker, shared, text, user, vectors
from tastemaker.compression.ladder import Group
from tastemaker.compression.step import DEAD, MEDIA, RANKER, TEXT, USER, VECTORS, Facts, Step, Tools
from tastemaker.data.split import NAMES
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings import CompressSettings
from tastemaker.schema.signals import AUDIO, IMAGE

VOCABULARY = Step("vocabulary", TEXT, "word pieces that the catalogue does not use are left out", text.vocabulary(1))
VOCABULARIES = [
    VOCABULARY,
    *(
        Step(f"vocabulary-{times}", TEXT, f"the same, with {times} times as many common ones kept", text.vocabulary(times))
        for times in (2, 3)
    ),
]
INT8_TEXT = Step("int8-text", TEXT, "products and word vectors of the language model in eight bits", text.int8)
INT8_SENSITIVE = Step("int8-text-sensitive", TEXT, "the same, the products that cost most left in float", text.int8_sensitive)
INT8_TABLES = Step("int8-word-vectors", TEXT, "word vectors in eight bits, products in float", text.int8_tables)
INT8_USER = Step("int8-user", USER, "products of the user tower in eight bits", user.int8)
INT8_RANKER = Step("int8-ranker", RANKER, "weights of the ranker as bytes, its products too where that is quicker", ranker.int8)
INT8_IMAGE = Step("int8-image", MEDIA, "products of the picture model in eight bits", media.int8(IMAGE))
INT8_AUDIO = Step("int8-audio", MEDIA, "products of the sound model in eight bits", media.int8(AUDIO))
NEIGHBOURS = Step("neighbours", DEAD, "the weaker half of each item's neighbours is left out", vectors.fewer_neighbours)
BYTES = Step("int8-vectors", VECTORS, "item vectors in eight bits", vectors.to_bytes)
CODES = Step("product-codes", VECTORS, "item vectors as product codes, the best scored again in eight bits", vectors.to_codes)
SHARED = Step(
    "shared-weights",
    DEAD,
    "weights in a file of their own, which processes share and of which unused rows are never read",
    shared.shared,
    gains=("resident",),
)


def ladder(settings: CompressSettings) -> list[Group]:
    """The groups of steps that the settings ask for.

    Raises:
        SettingsError: a step, an effort, an importance or a split that is not known.
    """
    if settings.effort not in ("quick", "normal"):
        raise SettingsError(f"compress.effort is {settings.effort!r}; expected quick or normal.")
    if settings.importance not in ("activation", "taylor"):
        raise SettingsError(f"compress.importance is {settings.importance!r}; expected activation or taylor.")
    if settings.split not in ("auto", *NAMES):
        raise SettingsError(f"compress.split is {settings.split!r}; expected auto, {', '.join(NAMES[:-1])} or {NAMES[-1]}.")
    groups: list[Group] = [
        *([_smaller(settings)] if settings.effort == "normal" else []),
        VOCABULARIES,
        [INT8_TEXT, INT8_SENSITIVE, INT8_TABLES],
        *([[SMALLER_USER]] if settings.effort == "normal" else []),
        [INT8_USER],
        *([[SMALLER_RANKER]] if settings.effort == "normal" else []),
        [INT8_RANKER],
        [INT8_IMAGE],
        [INT8_AUDIO],
        [NEIGHBOURS],
        [CODES, BYTES],
        [SHARED],
    ]
    return _chosen(groups, settings.steps)


def _smaller(settings: CompressSettings) -> Group:
    """Language models that are learned, the cheapest first. torch is loaded when one of them is tried."""
    found = [Step("static", TEXT, "a table of word vectors in place of the language model", _learned("static"))]
    for count in settings.layers:
        words = f"{count} layers of the language model, healed by distillation"
        found.append(Step(f"layers-{count}", TEXT, words, _learned("layers", count)))
    words = "all layers, with fewer heads and neurons, healed by distillation"
    found.append(Step("narrow", TEXT, words, _learned("layers", 0, settings.heads, settings.forward, "narrow")))
    words = "all layers, healed by distillation against the rounding to eight bits"
    found.append(Step("healed", TEXT, words, _learned("layers", 0, 1.0, 1.0, "healed"), gains=()))
    return found


def _learned(name: str, *given: Any) -> Callable[[Path, Path, Tools], Facts]:
    def apply(bundle: Path, place: Path, tools: Tools) -> Facts:
        from tastemaker.compression import distill

        return distill.static(bundle, place, tools) if name == "static" else distill.layers(*given)(bundle, place, tools)

    return apply


def _taught(name: str) -> Callable[[Path, Path, Tools], Facts]:
    def apply(bundle: Path, place: Path, tools: Tools) -> Facts:
        from tastemaker.compression import students

        return (students.user if name == "user" else students.ranker)(bundle, place, tools)

    return apply


SMALLER_USER = Step("smaller-user", USER, "a narrower user tower that learns the vectors of the larger one", _taught("user"))
SMALLER_RANKER = Step(
    "smaller-ranker", RANKER, "a ranker of fewer neurons that learns the chances of the larger one", _taught("ranker")
)


def _chosen(groups: Sequence[Group], names: Sequence[str]) -> list[Group]:
    known = [step.name for group in groups for step in group]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SettingsError(f"compress.steps names {', '.join(unknown)}; there are {', '.join(known)}.")
    return [group for group in ([step for step in group if not names or step.name in names] for group in groups) if group]

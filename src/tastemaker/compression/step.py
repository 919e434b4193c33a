"""The contract of a step: from the folder of one bundle to the payload of a smaller one, and what it says of itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tastemaker.bundle.verify import payload_files
from tastemaker.features.ranking import Read
from tastemaker.models.ranker import Ranker
from tastemaker.schema.protocols import Asker, FloatArray, IntArray, TextEncoder
from tastemaker.schema.settings import CompressSettings

Facts = dict[str, float | int | str]
"""What a step tells of itself, for the report."""


class NotApplicable(Exception):
    """A step has nothing to do in this bundle, or can't work here; the message is the sentence that the report shows."""


class Answering(Protocol):
    """A bundle that answers. The command line gives `serving.wire.Live`; this wing never imports that one."""

    def lists(self, histories: Sequence[IntArray], k: int, askers: Sequence[Asker] | None = None) -> list[IntArray]:
        """The k best items of each history, best first, its own items left out; features are told where it is known who asks, and when."""

    def chances(
        self, histories: Sequence[IntArray], items: Sequence[IntArray], askers: Sequence[Asker] | None = None
    ) -> list[FloatArray]:
        """How likely each of some items is taken next, [n] for each history: the first head's chance, or the score where there is no ranker."""

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Whitened unit vectors of texts, float32 [n, T]."""

    def users(self, histories: Sequence[IntArray]) -> FloatArray:
        """User vectors, float32 [B, D]."""

    def candidates(self, histories: Sequence[IntArray], askers: Sequence[Asker]) -> Read | None:
        """What the ranker reads of the candidates that it would order for people with these histories, none empty; None: there is no ranker."""


@dataclass(frozen=True)
class Tools:
    """What steps need of the answering wing, and what they share.

    Attributes:
        open: opens a whole bundle: folder to answers.
        reader: opens a text encoder: its folder and the length of a vector to an encoder, in the runtime that will serve it.
        tower: runs an item tower: its graph and text vectors [n, T] to item vectors [n, D].
        settings: section `compress`.
        cache: results that depend on a graph and its texts alone are kept here, so that they are made once.
        seed: of samples and trainings.
        ranker: opens a ranker as it will answer on this CPU; by default its products are in float.
        judging: the bundle is tried, so texts that no step learns from must be met as new ones; else it is the one that will serve, and all its texts are known.
    """

    open: Callable[[Path], Answering]
    reader: Callable[[Path, int], TextEncoder]
    tower: Callable[[Path, FloatArray], FloatArray]
    settings: CompressSettings
    cache: Path
    seed: int = 0
    ranker: Callable[[Path], Ranker] = Ranker.load
    judging: bool = False
    progress: Callable[[str, int, int], None] | None = None


@dataclass(frozen=True)
class Step:
    """One way to make a bundle smaller.

    Attributes:
        name: as `--steps` takes it.
        part: which learned part it changes.
        words: what it does, in one sentence.
        gains: figures of which at least one must get better (see `figures.gained`); none: it prepares what comes behind it.
        apply: called as apply(bundle, place, tools): writes the whole payload of the new bundle into the folder `place`, never into `bundle`; gives
            facts for the report. Raises NotApplicable with a sentence.
    """

    name: str
    part: str
    words: str
    apply: Callable[[Path, Path, Tools], Facts]
    gains: tuple[str, ...] = ("bytes", "answers", "texts")


def carry(bundle: Path, place: Path, leave: Collection[str] = ()) -> None:
    """Brings a bundle's payload into another folder by hard links, or copies where the disk has none.

    Args:
        bundle, place: from and to.
        leave: files and folders, relative to the bundle, that the step writes itself; a linked file must never be written to.
    """
    for name in payload_files(bundle):
        if any(name == other or name.startswith(f"{other}/") for other in leave):
            continue
        bring(bundle / name, place / name)


def bring(source: Path, target: Path) -> None:
    """A file in a second place: a hard link, or a copy where the disk has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


TEXT, USER, RANKER, MEDIA = "text encoder", "user tower", "ranker", "picture and sound models"
VECTORS, DEAD = "item vectors", "dead weight"
"""The parts that steps change."""

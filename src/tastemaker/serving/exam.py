"""A new bundle against the live one: the same questions to both, in turns; what is worse for sure, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.evaluation.significance import interval, paired
from tastemaker.journal.append import Journal
from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import BundleError
from tastemaker.schema.labels import parse_label
from tastemaker.schema.protocols import IntArray
from tastemaker.schema.settings import ReleaseSettings, Settings
from tastemaker.serving.footprint import footprints
from tastemaker.serving.wire import Live

K = 10
PROBES = 50
"""Of so many questions the raw scores are looked at, too."""
RESAMPLED = 200
Values = NDArray[np.float64]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Question:
    """What somebody met, oldest first, and what came next."""

    user_id: str
    history: tuple[str, ...]
    target: str


@dataclass
class Sitting:
    """How a bundle did.

    Attributes:
        gains: NDCG@10 of each question, [Q]. seconds: of the processor for each answer, [Q]: a clock that other programs do not hurry. popular: NDCG@10 of the most popular items instead, [Q].
        counts: events of each target in training, [Q]. shown: items that stood in some list. load: seconds until it could answer.
        broken: answers that were empty or had scores that are no numbers.
    """

    gains: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    popular: list[float] = field(default_factory=list)
    counts: list[float] = field(default_factory=list)
    shown: set[str] = field(default_factory=set)
    load: float = 0.0
    broken: int = 0


@dataclass(frozen=True)
class Finding:
    """One gate: what was looked at, in words, and whether it speaks against the release."""

    gate: str
    words: str
    against: bool


def later_questions(journal: Journal, after: int, settings: Settings, most: int) -> list[Question]:
    """Events after a sequence number that no bundle has learned from, each with what its user had met until then; at most so many, drawn at random."""
    labels = [parse_label(text) for text in settings.data.positive]
    users = journal.scan(after).select(Columns.USER_ID).unique().collect()
    table = (
        journal.scan()
        .select(Columns.SEQ, Columns.USER_ID, Columns.ITEM_ID, Columns.EVENT_TYPE, Columns.VALUE)
        .filter(pl.col(Columns.USER_ID).is_in(users[Columns.USER_ID].implode()))
        .sort(Columns.SEQ)
        .collect()
    )
    met: dict[str, list[str]] = {}
    found = []
    for seq, user, item, kind, value in table.iter_rows():
        if labels and not any(label.holds(kind, value) for label in labels):
            continue
        history = met.setdefault(user, [])
        if seq > after and item not in history:
            found.append(Question(user, tuple(history), item))
        history.append(item)
    return _drawn(found, most, settings.train.seed)


def remembered_questions(live: Live, most: int, seed: int = 0) -> list[Question]:
    """The last event of users that a bundle has learned from: they show what is broken, not what is better."""
    names = live.state.rows
    found = []
    for user in _drawn(list(live.brain.users), most, seed):
        history = [names[place]["item_id"] for place in live.brain.history(user)]
        if len(history) > 1 and history[-1] not in history[:-1]:
            found.append(Question(user, tuple(history[:-1]), history[-1]))
    return found


def sit(folders: Sequence[Path], questions: Sequence[Question], service: Settings) -> list[Sitting]:
    """Asks all bundles all questions, in turns, so that a busy machine is equally busy for each."""
    lives, sittings = [], []
    for folder in folders:
        began = time.perf_counter()
        live = Live(folder, service=service)
        sittings.append(Sitting(load=time.perf_counter() - began))
        lives.append(live)
    for live, sitting in zip(lives, sittings, strict=True):
        sitting.broken = sum(not _sound(live, question) for question in questions[:PROBES])
    popular = [np.argsort(-live.channels.counts, kind="stable")[: K + 1_000] for live in lives]
    for number, question in enumerate(questions):
        for at in np.roll(np.arange(len(lives)), number):
            _ask(lives[at], question, sittings[at], popular[at])
    return sittings


def examine(
    new: Sitting, live: Sitting, users: Sequence[str], unseen: bool, sizes: tuple[int, int], limits: ReleaseSettings
) -> list[Finding]:
    """What the sittings say, gate by gate.

    Args:
        new, live: on the same questions. users: whose each question is. unseen: no bundle has learned from them. sizes: bytes of the new bundle and the live one.
        limits: how much worse is too much.
    """
    ours, theirs = np.array(new.gains), np.array(live.gains)
    groups = np.unique(np.array(users), return_inverse=True)[1].astype(np.int64)
    found = [
        Finding("answers", f"{new.broken} of {len(ours):,} answers were empty or had scores that are no numbers", new.broken > 0)
    ]
    change, _ = paired(ours, theirs, groups=groups)
    base = max(float(theirs.mean()), 1e-9)
    what = "events that neither has learned from" if unseen else "the last events of users, which both have learned from"
    words = f"NDCG@10 changes by {change.mean / base:+.1%} [{change.low / base:+.1%}, {change.high / base:+.1%}] on {len(ours):,} {what}"
    found.append(Finding("quality", words, change.high < -limits.sure_loss * base or change.mean < -limits.max_loss * base))
    found += _slices(ours, theirs, np.array(live.counts), groups, limits)
    popular = float(np.mean(live.popular)) if live.popular else 0.0
    needed = limits.over_popularity * popular
    words = f"NDCG@10 is {ours.mean():.4f}, that of the most popular items {popular:.4f}"
    found.append(Finding("popularity", words, ours.mean() < needed <= theirs.mean()))
    words = f"{len(new.shown):,} different items were shown, by the live bundle {len(live.shown):,}"
    found.append(Finding("coverage", words, len(new.shown) < limits.coverage * len(live.shown)))
    ratio = float(np.median(np.array(new.seconds) / np.array(live.seconds)))
    words = (
        f"an answer takes {ratio:.2f} times as long as the live bundle's ({1e3 * np.median(new.seconds):.2f} ms of the processor)"
    )
    more = 1e3 * float(np.median(np.array(new.seconds) - np.array(live.seconds)))
    found.append(Finding("latency", words, ratio > limits.slower and more > limits.slack_ms))
    found.append(_tail(np.array(new.seconds), np.array(live.seconds), limits))
    found.append(
        Finding("size", f"{sizes[0] / 1e6:.1f} MB, the live bundle {sizes[1] / 1e6:.1f} MB", sizes[0] > limits.larger * sizes[1])
    )
    found.append(Finding("loading", f"it can answer {new.load:.1f} s after it is opened", new.load > limits.load_seconds))
    return found


def weighed(folders: Sequence[Path], limits: ReleaseSettings) -> Finding:
    """The memory of a process with the new bundle, the first one, beside that with the live one."""
    try:
        new, live = footprints(folders)
    except BundleError as error:
        return Finding("memory", str(error), True)
    words = f"a process keeps {new / 1e6:.0f} MB of memory, with the live bundle {live / 1e6:.0f} MB"
    return Finding("memory", words, new > limits.heavier * live)


def _tail(new: Values, live: Values, limits: ReleaseSettings) -> Finding:
    """99th percentiles of the times, and their ratio between resampled questions (B. Efron, 1979: percentile bootstrap, the same questions for both)."""
    places = np.random.default_rng(0).integers(len(new), size=(RESAMPLED, len(new)))
    low, high = np.quantile(np.quantile(new[places], 0.99, axis=1) / np.quantile(live[places], 0.99, axis=1), (0.025, 0.975))
    words = f"99 of 100 answers take at most {1e3 * np.quantile(new, 0.99):.2f} ms, {low:.2f} to {high:.2f} times as long as the live bundle's"
    more = 1e3 * float(np.quantile(new, 0.99) - np.quantile(live, 0.99))
    return Finding("slow answers", words, bool(low > limits.slower_tail) and more > limits.slack_ms)


def _ask(live: Live, question: Question, sitting: Sitting, popular: NDArray[np.int64]) -> None:
    state, began = live.state, time.process_time()
    history = _known(live, question)
    items, _ = live.best([live.query(history)], K)[0]
    sitting.seconds.append(time.process_time() - began)
    sitting.broken += not len(items)
    shown = [state.rows[int(item)]["item_id"] for item in items]
    sitting.shown.update(shown)
    sitting.gains.append(_gain(shown, question.target))
    met = set(history.tolist())
    head = [int(item) for item in popular if int(item) not in met][:K]
    sitting.popular.append(_gain([state.rows[item]["item_id"] for item in head], question.target))
    place = state.index_of.get(question.target, len(live.channels.counts))
    sitting.counts.append(float(live.channels.counts[place]) if place < len(live.channels.counts) else 0.0)


def _sound(live: Live, question: Question) -> bool:
    """Whether what the models say is numbers; in lists those that are none sink and would not be seen."""
    history = _known(live, question)
    state = live.query(history)
    found = live.channels.candidates([state], live.settings.fusion.depth)[0]
    scores = live.road.fusion.score(found, len(history))  # one that is none comes out as the lowest of all
    return bool((np.abs(scores) < 1e8).all()) and not bool(np.isnan(found.scores).any())


def _known(live: Live, question: Question) -> IntArray:
    index = live.state.index_of
    return np.array([index[item] for item in question.history if item in index], dtype=np.int32)


def _gain(shown: Sequence[str], target: str) -> float:
    return 1 / float(np.log2(shown.index(target) + 2)) if target in shown else 0.0


def _slices(ours: Values, theirs: Values, counts: Values, groups: NDArray[np.int64], limits: ReleaseSettings) -> list[Finding]:
    """Kinds of targets, each with enough questions: new ones, the third that is met most, the rest."""
    head = np.quantile(counts, 2 / 3) if len(counts) else 0.0
    found = []
    for name, chosen in (
        ("new items", counts == 0),
        ("frequent items", counts > head),
        ("rare items", (counts > 0) & (counts <= head)),
    ):
        base = float(theirs[chosen].mean()) if chosen.any() else 0.0
        if chosen.sum() < limits.slice_questions or not base:
            continue
        change = interval((ours - theirs)[chosen], groups=np.unique(groups[chosen], return_inverse=True)[1].astype(np.int64))
        words = f"NDCG@10 of {name} changes by {change.mean / base:+.1%} [{change.low / base:+.1%}, {change.high / base:+.1%}] on {int(chosen.sum()):,}"
        found.append(Finding(name, words, change.high / base < -limits.max_slice_loss))
    return found


def _drawn(found: list[Found], most: int, seed: int) -> list[Found]:
    if len(found) <= most:
        return found
    chosen = np.sort(np.random.default_rng(seed).choice(len(found), most, replace=False))
    return [found[place] for place in chosen]

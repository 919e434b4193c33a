"""Chooses which attributes of people say what they like: popularity by segment, judged on people who were held back.

No column has a name here. Each scalar column of the users' table is tried: numbers are cut at quantiles, words stand for themselves where enough people
share them. Columns are added one by one, each with the strength of smoothing and the weight that explain the events of held-back people best, while
the mean gain in log-likelihood of an event, person by person, is sure (more than `SURE` standard errors).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.data.sequences import Sequences
from tastemaker.models.segments import Column, Segments, number_of, word_of
from tastemaker.schema.columns import Columns
from tastemaker.schema.protocols import FloatArray
from tastemaker.training.neighbours import recent_counts

FEWEST_PEOPLE = 100
"""People with attributes and events from which on anything is tried."""
FEWEST_OF_SEGMENT = 10
BINS = 5
MOST_VALUES = 50
EVENTS_EACH = 50
"""First events of a person that are counted, so that the busiest do not decide."""
HELD_SHARE, MOST_HELD = 0.3, 500
STRENGTHS = (30.0, 300.0, 3_000.0)
WEIGHTS = (0.5, 1.0)
SURE = 2.0
MOST_COLUMNS = 4
MOST_ITEMS = 20_000
"""Of a larger catalogue only the most popular items judge a column; the popularity by segment is that of all items."""


@dataclass(frozen=True)
class _People:
    """Who has attributes and events.

    Attributes:
        rows: their rows in the sequences. attributes: of each. met: events by person and item, float64 [P, N].
        learn, held: places of those who are learned from and of those who judge.
    """

    rows: NDArray[np.int64]
    attributes: list[Mapping[str, Any]]
    met: sp.csr_matrix
    learn: NDArray[np.int64]
    held: NDArray[np.int64]


@dataclass(frozen=True)
class SegmentsLearned:
    """What came of it.

    Attributes:
        segments: of all people; None where no column says anything.
        gain: mean gain in log-likelihood of a held-back person's event, in nats; its standard error.
        note: a sentence for whoever trains.
    """

    segments: Segments | None
    gain: float = 0.0
    error: float = 0.0
    note: str = ""


def learn_segments(users: pl.DataFrame, sequences: Sequences, time_is_order: bool, seed: int) -> SegmentsLearned:
    """Popularity by the segments of the columns that help.

    Args:
        users: user_id and extra (JSON text). sequences: histories. time_is_order: whether times are only an order.
        seed: chooses the people who are held back.
    """
    people = _people(users, sequences, seed)
    if people is None:
        return SegmentsLearned(None)
    columns = _columns(people)
    prior = np.log(recent_counts(sequences, time_is_order) + 0.01)
    prior -= np.log(np.exp(prior).sum())
    chosen, gain, error = _chosen(people, columns, prior)
    if not chosen:
        tried = ", ".join(column.name for column in columns) or "none"
        return SegmentsLearned(None, note=f"New users: no attribute tells what they like (tried: {tried}).")
    every = np.arange(len(people.rows))
    parts = [_lifts(column, people, every, strength) for column, strength in chosen]
    words = ", ".join(column.name for column, _ in chosen)
    share = f"{math.expm1(gain):+.1%} likelihood of an event"
    return SegmentsLearned(
        Segments(
            prior.astype(np.float32), [column for column, _ in chosen], [base for base, _ in parts], [more for _, more in parts]
        ),
        gain,
        error,
        f"New users: popularity by {words} ({share} of held-back people, {gain / max(error, 1e-12):.1f} standard errors).",
    )


def _people(users: pl.DataFrame, sequences: Sequences, seed: int) -> _People | None:
    if not users.height or "extra" not in users.columns:
        return None
    row_of = {user: row for row, user in enumerate(sequences.user_ids)}
    rows, attributes = [], []
    for user, extra in users.select(Columns.USER_ID, "extra").iter_rows():
        told = msgspec.json.decode(extra) if extra else {}
        if user in row_of and told:
            rows.append(row_of[user])
            attributes.append(told)
    if len(rows) < FEWEST_PEOPLE:
        return None
    first = [sequences.history(row)[:EVENTS_EACH] for row in rows]
    owner = np.repeat(np.arange(len(rows)), [len(items) for items in first])
    items = np.concatenate(first)
    met = sp.csr_matrix((np.ones(len(items)), (owner, items)), shape=(len(rows), sequences.n_items))
    mixed = np.random.default_rng(seed).permutation(len(rows))
    held = min(round(len(rows) * HELD_SHARE), MOST_HELD)
    return _People(np.array(rows), attributes, met, np.sort(mixed[held:]), np.sort(mixed[:held]))


def _columns(people: _People) -> list[Column]:
    """Every column that can be cut into segments of enough people."""
    names = dict.fromkeys(name for told in people.attributes for name in told)
    return [column for name in names if (column := _column(name, [told.get(name) for told in people.attributes])) is not None]


def _column(name: str, values: list[Any]) -> Column | None:
    known = [value for value in values if value is not None and value != "" and not isinstance(value, (list, dict))]
    if len(known) < FEWEST_OF_SEGMENT:
        return None
    numbers = np.array([number_of(value) for value in known])
    if np.isfinite(numbers).mean() > 0.95 and len(np.unique(numbers)) > 2 * BINS:
        finite = numbers[np.isfinite(numbers)]
        edges = np.unique(np.quantile(finite, np.arange(1, BINS) / BINS, method="lower"))
        return Column(name, edges=edges.tolist())
    words, counts = np.unique([word_of(value) for value in known], return_counts=True)
    frequent = [str(words[place]) for place in np.argsort(-counts, kind="stable") if counts[place] >= FEWEST_OF_SEGMENT]
    if not frequent or len(words) == 1:
        return None
    return Column(name, values=frequent[:MOST_VALUES])


def _chosen(people: _People, columns: list[Column], prior: NDArray[np.float64]) -> tuple[list[tuple[Column, float]], float, float]:
    """Columns with their weights and strengths, added while they help; the gain over plain popularity and its standard error."""
    kept = np.sort(np.argsort(-prior, kind="stable")[:MOST_ITEMS])
    prior, met = prior[kept], people.met[people.held][:, kept]
    events = np.maximum(np.asarray(met.sum(axis=1)).ravel(), 1.0)
    logits = np.broadcast_to(prior, (len(people.held), len(prior)))
    plain = now = _likelihood(logits, met, events)
    chosen: list[tuple[Column, float]] = []
    while len(chosen) < MOST_COLUMNS:
        best: tuple[NDArray[np.float64], NDArray[np.float64], Column, float] | None = None
        for column in columns:
            if any(column.name == other.name for other, _ in chosen):
                continue
            mine = np.array([column.segment(people.attributes[place]) for place in people.held])
            for strength in STRENGTHS:
                base, more = _lifts(column, people, people.learn, strength)
                lift = np.where((mine >= 0)[:, None], base[mine][:, None] + more[mine][:, kept].toarray(), 0.0)
                for weight in WEIGHTS:
                    tried = logits + weight * lift
                    judged = _likelihood(tried, met, events)
                    if best is None or judged.mean() > best[1].mean():
                        best = tried, judged, msgspec.structs.replace(column, weight=weight), strength
        if best is None or not _sure(best[1] - now):
            break
        logits, now = best[0], best[1]
        chosen.append((best[2], best[3]))
    gap = now - plain
    return chosen, float(gap.mean()), float(gap.std(ddof=1) / math.sqrt(len(gap)))


def _sure(gap: NDArray[np.float64]) -> bool:
    return bool(gap.mean() > SURE * gap.std(ddof=1) / math.sqrt(len(gap)))


def _likelihood(logits: NDArray[np.float64], met: sp.csr_matrix, events: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean log-likelihood of a person's events, float64 [P]."""
    found = np.empty(len(logits))
    for begin, end in itertools.pairwise([*range(0, len(logits), 64), len(logits)]):
        part = logits[begin:end]
        total = np.log(np.exp(part - part.max(axis=1, keepdims=True)).sum(axis=1)) + part.max(axis=1)
        found[begin:end] = np.asarray(met[begin:end].multiply(part).sum(axis=1)).ravel() / events[begin:end]
        found[begin:end] -= total * (np.asarray(met[begin:end].sum(axis=1)).ravel() / events[begin:end])
    return found


def _lifts(column: Column, people: _People, places: NDArray[np.int64], strength: float) -> tuple[FloatArray, sp.csr_matrix]:
    """Log-lift of an item that nobody of a segment met, float32 [S], and what lies above it for the others, sparse float32 [S, N]."""
    segments = np.array([column.segment(people.attributes[place]) for place in places])
    inside = np.flatnonzero(segments >= 0)
    share = np.asarray(people.met[places].sum(axis=0)).ravel()
    share = (share + 0.01) / (share + 0.01).sum()
    one = sp.csr_matrix((np.ones(len(inside)), (segments[inside], inside)), shape=(column.size, len(places)))
    counts = (one @ people.met[places]).tocsr()
    total = np.asarray(counts.sum(axis=1)).ravel()
    base = np.log(strength / (total + strength))
    more = counts.copy()
    more.data = np.log1p(counts.data / (strength * share[counts.indices]))
    return base.astype(np.float32), more.astype(np.float32)

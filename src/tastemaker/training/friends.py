"""Learns how far common friends, circles and tastes are to be trusted, from friendships that are hidden."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp

from tastemaker.data.sequences import Sequences
from tastemaker.index.friends import CHANNELS, LATEST, Friends, Person
from tastemaker.models.fusion import Fusion, features
from tastemaker.schema.graph import Social
from tastemaker.schema.protocols import FloatArray, Progress
from tastemaker.schema.settings import FusionSettings, Settings
from tastemaker.training.fusion import ROWS, Examples, train_fusion
from tastemaker.training.neighbours import who_met
from tastemaker.training.propagation import SPARE, TURNS, unit

HIDDEN_SHARE = 0.1
LONELY_SHARE = 0.1
"""Share of the examples whose asker is shown without any friend, so that taste alone is learned to be enough."""
CIRCLE_DIM = 128


@dataclasses.dataclass(frozen=True)
class LearnedFriends:
    """What finds people, and what weighs the ways of finding.

    Attributes:
        friends: of all connections.
        fusion: learned from hidden ones.
        rows: examples. quality: NDCG@10 on a fifth of them; None where there were too few.
    """

    friends: Friends
    fusion: Fusion
    rows: int
    quality: float | None


def learn_friends(social: Social, sequences: Sequences, settings: Settings, progress: Progress | None = None) -> LearnedFriends:
    """Hides a tenth of the connections, learns to find them again with the rest, and then takes all."""
    seed = settings.train.seed
    tastes, item_tastes = user_tastes(social, sequences, settings.graph.dim, seed)
    low, high, weights = pairs_of(social)
    random = np.random.default_rng(seed)
    hidden = random.random(len(low)) < HIDDEN_SHARE
    kept = social_of(social, low[~hidden], high[~hidden], weights[~hidden])
    early = Friends(kept, tastes, item_tastes, circles(kept, CIRCLE_DIM, seed))
    examples = _gather(early, np.stack([low[hidden], high[hidden]], axis=1), settings.fusion.depth, random, progress)
    fusion, quality = train_fusion(examples, FusionSettings(), seed, CHANNELS)
    friends = Friends(social, tastes, item_tastes, circles(social, CIRCLE_DIM, seed))
    return LearnedFriends(friends, fusion, len(examples.target), quality)


def user_tastes(social: Social, sequences: Sequences, dim: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Users as unit vectors by what they met, float32 [n, d], and what an item adds to such a vector, float32 [N, d].

    Right singular vectors of who met what, rarer items weighing more (latent semantic analysis of histories).
    """
    met = who_met(sequences, LATEST)
    rarity = np.log(max(sequences.n_users, 2) / np.maximum(np.asarray(met.sum(axis=0)).ravel(), 1)).astype(np.float32)
    weighed = (met @ sp.diags(rarity)).tocsr()
    length = np.sqrt(np.asarray(weighed.multiply(weighed).sum(axis=1)).ravel())
    rows = (sp.diags(1 / np.maximum(length, 1e-9)) @ weighed).tocsr().astype(np.float32)
    shape = met.shape
    width = max(1, min(dim, *shape))
    basis = np.linalg.qr(
        rows.T @ np.random.default_rng(seed).standard_normal((shape[0], min(width + SPARE, *shape))).astype(np.float32)
    )[0]
    for _ in range(TURNS):
        basis = np.linalg.qr(rows.T @ (rows @ basis))[0]
    _, _, turn = np.linalg.svd(rows @ basis, full_matrices=False)
    adds = (rarity[:, None] * (basis @ turn.T)[:, :width]).astype(np.float32)
    found = np.zeros((social.n_users, width), dtype=np.float32)
    found[: sequences.n_users] = unit(np.asarray(met @ adds, dtype=np.float32))
    return found, adds


def circles(social: Social, dim: int, seed: int) -> FloatArray:
    """Users by the leading eigenvectors of the normalised adjacency, each times its eigenvalue, float32 [n, c]."""
    n = social.n_users
    ones = np.ones(len(social.friends), dtype=np.float32)
    near = sp.csr_matrix((ones, np.asarray(social.friends), np.asarray(social.offsets)), shape=(n, n))
    scale = sp.diags(np.maximum(np.diff(social.offsets), 1).astype(np.float32) ** -0.5)
    near = (scale @ near @ scale).tocsr().astype(np.float32)
    width = max(1, min(dim, n))
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, min(width + SPARE, n))).astype(np.float32))[0]
    for _ in range(4 * TURNS):
        basis = np.linalg.qr(0.5 * (near @ basis + basis))[
            0
        ]  # half a step each way: the largest eigenvalues lead, not those near -1
    inner = basis.T @ (near @ basis)
    values, turn = np.linalg.eigh((inner + inner.T) / 2)
    order = np.argsort(-values)[:width]
    return np.ascontiguousarray((basis @ turn[:, order]) * values[order].clip(0), dtype=np.float32)


def pairs_of(social: Social) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each connection once: the lower user, the higher one, the weight."""
    owner = np.repeat(np.arange(social.n_users, dtype=np.int32), np.diff(social.offsets))
    once = owner < social.friends
    return owner[once], np.asarray(social.friends)[once], np.asarray(social.weights)[once]


def social_of(social: Social, low: np.ndarray, high: np.ndarray, weights: np.ndarray) -> Social:
    """The same users with other connections."""
    own, other = np.concatenate([low, high]), np.concatenate([high, low])
    order = np.lexsort((other, own))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(own, minlength=social.n_users))]).astype(np.int64)
    twice = np.concatenate([weights, weights]).astype(np.float32)[order]
    return Social(social.names, social.n_known, offsets, other[order].astype(np.int32), twice)


def _gather(friends: Friends, hidden: np.ndarray, depth: int, random: np.random.Generator, progress: Progress | None) -> Examples:
    """For each end of a hidden connection the candidates, the other end among them; the asker's other hidden friends are none."""
    both = np.concatenate([hidden, hidden[:, ::-1]])
    theirs: dict[int, list[int]] = {}
    for asker, other in both.tolist():
        theirs.setdefault(asker, []).append(other)
    rows = both[random.permutation(len(both))[:ROWS]]
    lonely = random.random(len(rows)) < LONELY_SHARE
    given, sizes, places = [], [], []
    for place, (asker, wanted) in enumerate(rows.tolist()):
        away = [other for other in theirs[asker] if other != wanted]
        known = friends.friends(asker)
        person = Person(asker, friends.tastes[asker], np.array(away, dtype=np.int32))
        if lonely[place]:
            person = Person(-1, friends.tastes[asker], np.array([*away, asker, *known], dtype=np.int32))
        found = friends.candidates(person, depth)
        at = np.flatnonzero(found.items == wanted)
        if len(at):
            given.append(features(found, 0 if lonely[place] else len(known)))
            sizes.append(len(found.items))
            places.append(int(at[0]))
        if progress and place % 512 == 511:
            progress("friends", place + 1, len(rows))
    begin = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    whole = np.concatenate(given) if given else np.zeros((0, 1), np.float32)
    none = np.zeros(len(whole), dtype=bool)
    return Examples(whole, begin, np.array(places, dtype=np.int64), none, none, 0, len(rows))

"""What friends met and are like, as a channel and as a share of a user's own vector; how large that share is, held-back events say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from tastemaker.data.sequences import Sequences
from tastemaker.index.companions import Companions
from tastemaker.schema.graph import Social
from tastemaker.schema.protocols import FloatArray, IntArray
from tastemaker.schema.settings import Settings
from tastemaker.training.holdout import Holdout
from tastemaker.training.sequence import VALIDATION_ROWS, SequenceModel

UNKNOWN_SHARE = 0.1
"""Share of the fusion's questions that are asked as if nothing but the friends were known, so that it learns to answer new users by them."""
_EMPTY = np.zeros(0, dtype=np.int32)


def companions_of(social: Social, sequences: Sequences, model: SequenceModel, smoothing: float) -> Companions:
    """The friends of everybody, with what they met and their vectors."""
    asked = np.flatnonzero((np.diff(social.offsets)[: sequences.n_users] > 0) & (sequences.lengths() > 0))
    vectors = np.zeros((sequences.n_users, model.items.dim), dtype=np.float32)
    vectors[asked] = model.user_vectors([sequences.history(int(user)) for user in asked])
    return Companions(social, met_of(sequences), vectors, smoothing)


def met_of(sequences: Sequences) -> sp.csr_matrix:
    """Who met what, float32 [U, N], each row divided by the root of its length."""
    users = np.repeat(np.arange(sequences.n_users), sequences.lengths())
    shape = (sequences.n_users, sequences.n_items)
    met = sp.csr_matrix((np.ones(len(users), np.float32), (users, sequences.items)), shape=shape)
    met.data[:] = 1.0  # duplicates were summed
    return (sp.diags(np.maximum(np.diff(met.indptr), 1).astype(np.float32) ** -0.5) @ met).tocsr().astype(np.float32)


def choose_smoothing(companions: Companions, model: SequenceModel, held: Holdout, settings: Settings) -> float:
    """The share of friends in a user's vector with which held-back items are found best; the smallest of equals."""
    shares = sorted(settings.graph.smoothing)
    rows = held.warm_rows(VALIDATION_ROWS, settings.train.seed)
    rows = rows[np.diff(companions.social.offsets)[held.users[rows]] > 0]
    if len(shares) < 2 or len(rows) == 0:
        return shares[0]
    histories = [held.histories[row] for row in rows]
    own, items, bias = model.user_vectors(histories), model.item_vectors(), model.bias.detach().numpy()
    scores = [
        _ndcg(companions.smoothed(held.users[rows], own, share) @ items.T + bias, histories, held.targets[rows]) for share in shares
    ]
    return shares[int(np.argmax(scores))]


def without_histories(histories: Sequence[IntArray], companions: Companions, users: IntArray, seed: int) -> list[IntArray]:
    """The same questions, a tenth of those of users with friends as if these users had met nothing yet."""
    has = np.diff(companions.social.offsets)[users] > 0
    blank = has & (np.random.default_rng(seed).random(len(users)) < UNKNOWN_SHARE)
    return [_EMPTY if empty else history for history, empty in zip(histories, blank, strict=True)]


def _ndcg(scores: FloatArray, histories: Sequence[IntArray], targets: IntArray) -> float:
    wanted = scores[np.arange(len(targets)), targets].copy()
    for row, history in enumerate(histories):
        scores[row, history] = -np.inf
    place = (scores > wanted[:, None]).sum(axis=1)
    return float(np.where(place < 10, 1 / np.log2(place + 2.0), 0.0).mean())

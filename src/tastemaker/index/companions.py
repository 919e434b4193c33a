"""What a user's friends met, and what they are like: a channel of its own, and a share of the user's own vector."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import scipy.sparse as sp

from tastemaker.index.neighbours import entries
from tastemaker.schema.columns import Columns
from tastemaker.schema.graph import Social
from tastemaker.schema.protocols import FloatArray, IntArray


class Companions:
    """The friends of those who ask.

    Args:
        social: who is connected with whom; the first `n_known` users have histories.
        met: who met what, float32 [n_known, N], each row divided by the root of its length, so that no busy friend drowns the others.
        vectors: user vectors of those with histories, float32 [n_known, D].
        smoothing: share of a user's vector that comes from friends, in [0, 1].
    """

    def __init__(self, social: Social, met: sp.csr_matrix, vectors: FloatArray, smoothing: float) -> None:
        self.social, self.met, self.vectors, self.smoothing = social, met, vectors, smoothing
        self._row: dict[str, int] | None = None

    def row(self, user_id: str) -> int:
        """The number of a user; -1 for one whom the connections do not know."""
        if self._row is None:
            self._row = {name: row for row, name in enumerate(self.social.names)}
        return self._row.get(user_id, -1)

    def scores(self, rows: IntArray, n_items: int) -> FloatArray:
        """How much the friends of each user met each item, float32 [B, n_items]: the mean of their rows of `met`, by the friendships' weights.

        Args:
            rows: numbers of users, int [B]; -1 has no friends.
        """
        found = np.zeros((len(rows), n_items), dtype=np.float32)
        product = (self._shares(rows) @ self.met).tocsr()
        owner = np.repeat(np.arange(len(rows)), np.diff(product.indptr))
        found[owner, product.indices] = product.data
        return found

    def around(self, row: int) -> tuple[IntArray, FloatArray]:
        """What `scores` sums for one user, without the sums: what the friends met, an item as often as a friend did, and each one's share."""
        return entries(self.met, *self._friends(row))

    def smoothed(self, rows: IntArray, vectors: FloatArray, smoothing: float | None = None) -> FloatArray:
        """User vectors with a share of their friends' in them, at the same length, float32 [B, D]; a zero vector becomes the friends' own mean.

        Args:
            rows: numbers of users, int [B]; -1 has no friends. vectors: their own, zero for an empty history.
            smoothing: another share than the learned one, to try it.
        """
        share = self.smoothing if smoothing is None else smoothing
        mine = np.linalg.norm(vectors, axis=1, keepdims=True)
        theirs = np.asarray(self._shares(rows) @ self.vectors, dtype=np.float32)
        length = np.linalg.norm(theirs, axis=1, keepdims=True)
        usual = float(np.linalg.norm(self.vectors[:1])) if len(self.vectors) else 1.0
        toward = theirs / np.maximum(length, 1e-9)
        mixed = (1 - share) * vectors / np.maximum(mine, 1e-9) + share * toward
        mixed *= mine / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-9)
        has = length > 1e-9
        found: FloatArray = np.where(has & (mine > 1e-9), mixed, np.where(has, usual * toward, vectors)).astype(np.float32)
        return found

    def save(self, folder: Path) -> None:
        """Writes the arrays as `.npy`, to be memory-mapped by `load`."""
        save_social(self.social, folder)
        parts = {
            "met.data": self.met.data,
            "met.indices": self.met.indices,
            "met.indptr": self.met.indptr,
            "user_vectors": self.vectors,
        }
        for name, array in parts.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        told = {"smoothing": self.smoothing, "items": int(self.met.shape[1])}
        (folder / "companions.json").write_bytes(msgspec.json.encode(told))

    @classmethod
    def load(cls, folder: Path) -> Companions:
        """Reads what `save` wrote; arrays are memory-mapped and so shared between processes."""
        names = ("met.data", "met.indices", "met.indptr", "user_vectors")
        data, indices, indptr, vectors = (np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names)
        told = msgspec.json.decode((folder / "companions.json").read_bytes())
        met = sp.csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, told["items"]), copy=False)
        return cls(load_social(folder), met, vectors, float(told["smoothing"]))

    def _shares(self, rows: IntArray) -> sp.csr_matrix:
        """Each user's friends with histories, their weights divided by their sum, [B, n_known]."""
        each = [self._friends(row) for row in (*rows.tolist(), -1)]  # at least one, as nothing can't be joined
        friends, shares = (np.concatenate(parts) for parts in zip(*each, strict=True))
        counts = np.cumsum([0, *(len(theirs) for theirs, _ in each[:-1])])
        return sp.csr_matrix((shares, friends, counts), shape=(len(rows), self.social.n_known), dtype=np.float32)

    def _friends(self, row: int) -> tuple[IntArray, FloatArray]:
        """Numbers of a user's friends with histories, and their weights divided by their sum; none of -1."""
        social = self.social
        part = slice(int(social.offsets[row]), int(social.offsets[row + 1])) if row >= 0 else slice(0, 0)
        friends, weights = np.asarray(social.friends[part]), np.asarray(social.weights[part])
        known = friends < social.n_known
        friends, weights = friends[known], weights[known]
        return friends, weights / max(float(weights.sum()), 1e-9)


def save_social(social: Social, folder: Path) -> None:
    """Writes who is connected with whom."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("offsets", "friends", "weights"):
        np.save(folder / f"{name}.npy", getattr(social, name), allow_pickle=False)
    known = np.arange(social.n_users) < social.n_known
    pl.DataFrame(
        {Columns.USER_ID: social.names, "known": known}, schema={Columns.USER_ID: pl.String, "known": pl.Boolean}
    ).write_parquet(folder / "user_ids.parquet")


def load_social(folder: Path) -> Social:
    """Reads what `save_social` wrote."""
    table = pl.read_parquet(folder / "user_ids.parquet")
    arrays = [np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("offsets", "friends", "weights")]
    return Social(table[Columns.USER_ID].to_list(), int(table["known"].sum()), *arrays)

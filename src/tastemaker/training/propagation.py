"""What people think of a node's neighbours, handed on along the edges: vectors for items that nobody has met.

An item that people met has a vector by who they are. An entity has the mean of its items' vectors, and an item the mean of its entities', the
item's own part left out: so a new item gets exactly what a known one gets, two edges away (one layer of LightGCN there and back, He et al. 2020,
without the self-connection). Everything is linear in the edges.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.data.sequences import Sequences
from tastemaker.schema.graph import ITEM, Graph
from tastemaker.schema.protocols import FloatArray

TURNS = 6
SPARE = 16
SHRINK = 5.0
"""An entity with n other items is trusted n / (n + SHRINK): one film says little of its director."""
_NOTHING = 1e-6


def taste_basis(sequences: Sequences, dim: int, seed: int) -> FloatArray:
    """Users as places in the space of tastes: left singular vectors of who met what, float32 [U, d] with d up to `dim`.

    Rows and columns are divided by the root of their sums, so that neither busy users nor popular items fill the space. Found by subspace
    iteration with random start (Halko et al. 2011).
    """
    met = _met(sequences)
    width = max(1, min(dim, *met.shape))
    start = np.random.default_rng(seed).standard_normal((met.shape[1], min(width + SPARE, *met.shape))).astype(np.float32)
    basis: NDArray[np.floating] = np.linalg.qr(met @ start)[0]
    for _ in range(TURNS):
        basis = np.linalg.qr(met @ (met.T @ basis))[0]
    inner, _, _ = np.linalg.svd((met.T @ basis).T, full_matrices=False)
    return np.ascontiguousarray((basis @ inner)[:, :width], dtype=np.float32)


def item_tastes(sequences: Sequences, basis: FloatArray) -> FloatArray:
    """Items by who met them, unit rows, float32 [N, d]; zero rows for items without events. `basis` may come from part of the same log."""
    return unit(np.asarray(_met(sequences).T @ basis, dtype=np.float32))


def propagate(graph: Graph, tastes: FloatArray) -> FloatArray:
    """Vectors of all nodes of the graph, unit rows, float32 [n, d]: items by the items that share an entity with them, or that an edge leads to.

    An entity has the mean of its items. Rarer neighbours say more: one that k of the N items are connected with weighs log(N / k). A row is zero
    where nothing is known of what it hangs together with.

    Args:
        graph: items and entities.
        tastes: float32 [n_items, d], zero rows where nothing is known.
    """
    n, n_items = graph.n_nodes, graph.n_items
    known = np.zeros(n, dtype=np.float32)
    known[:n_items] = np.abs(tastes).sum(axis=1) > 0
    is_item = np.arange(n) < n_items
    is_item[[n_items + place for place, name in enumerate(graph.names) if name.startswith(ITEM)]] = True
    owner, other = np.repeat(np.arange(n), graph.degrees()), np.asarray(graph.others)
    weight = np.asarray(graph.weights, dtype=np.float32)
    met = known[other] > 0
    sums = sp.csr_matrix((weight[met], (owner[met], other[met])), shape=(n, n_items)) @ tastes
    told = np.where(is_item[:, None], 0.0, sums).astype(np.float32)  # what a neighbour hands on: its items' tastes, or its own
    told[:n_items] = tastes
    mass = np.where(is_item, known, np.bincount(owner, weights=weight * known[other], minlength=n)).astype(np.float32)
    own = np.where(is_item[other], 0.0, weight * known[owner])  # what a node brought to its neighbour itself
    left = mass[other] - own
    rarity = np.log(max(n_items, 2) / np.maximum(np.bincount(owner, weights=is_item[other], minlength=n), 1)).clip(0)
    trust = rarity[other] * left / (left + np.where(is_item[other], 1.0, SHRINK))
    share = np.where(left > _NOTHING, weight * trust / np.maximum(left, _NOTHING), 0.0).astype(np.float32)
    found = np.asarray(sp.csr_matrix((share, other, graph.offsets), shape=(n, n)) @ told, dtype=np.float32)
    back = np.bincount(owner, weights=share * own, minlength=n).astype(np.float32)
    found[:n_items] -= back[:n_items, None] * tastes
    return unit(np.where(is_item[:, None], found, sums).astype(np.float32))


def unit(rows: FloatArray) -> FloatArray:
    """Rows of length one; rows that are next to nothing become zero."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    found: FloatArray = np.where(length > 1e-6, rows / np.maximum(length, 1e-6), 0.0).astype(np.float32)
    return found


def _met(sequences: Sequences) -> sp.csr_matrix:
    """Who met what, [U, N], rows and columns divided by the root of their sums."""
    users = np.repeat(np.arange(sequences.n_users), sequences.lengths())
    met = sp.csr_matrix((np.ones(len(users), np.float32), (users, sequences.items)), shape=(sequences.n_users, sequences.n_items))
    met.data[:] = 1.0  # duplicates were summed
    scales = [sp.diags(np.maximum(np.asarray(met.sum(axis=axis)).ravel(), 1.0) ** -0.5) for axis in (1, 0)]
    return (scales[0] @ met @ scales[1]).tocsr().astype(np.float32)

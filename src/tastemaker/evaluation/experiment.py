"""A/B experiments that may be looked at any time: who sees what, whether the groups are as large as they should be, and how sure a difference is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

Values = NDArray[np.float64]
MISMATCH = 0.001
"""Below this p-value the groups are not as they were dealt, and no figure of the experiment means anything (R. Fabijan et al., 2019, KDD)."""
_GRAIN = 2**64


def variant_of(user_id: str, experiment: str, shares: Mapping[str, float]) -> str:
    """The variant of a user: always the same, independent of other experiments, and of those who are asked before.

    Args:
        experiment: its name; another name deals anew. shares: of each variant, with the sum 1, in a fixed order.

    Raises:
        ValueError: shares that are negative or whose sum is not 1.
    """
    total = math.fsum(shares.values())
    if abs(total - 1) > 1e-9 or min(shares.values(), default=-1) < 0:
        raise ValueError(
            f"The shares of the variants are {dict(shares)}: none may be negative, and their sum is to be 1, not {total:g}."
        )
    digest = hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=8, person=_person(experiment)).digest()
    place, border = int.from_bytes(digest, "big") / _GRAIN, 0.0
    for variant, share in shares.items():
        border += share
        if place < border:
            return variant
    return next(variant for variant, share in reversed(list(shares.items())) if share > 0)


def sample_ratio(counts: Sequence[int], shares: Sequence[float]) -> float:
    """p-value (chi-square) that groups of these sizes were dealt by these shares; below `MISMATCH` the experiment is broken.

    Raises:
        ValueError: another number of counts than of shares, or a share that is not positive.
    """
    if len(counts) != len(shares) or min(shares, default=0.0) <= 0:
        raise ValueError(f"{len(counts)} groups and the shares {list(shares)}: each group needs a positive share.")
    seen = np.asarray(counts, dtype=np.float64)
    due = seen.sum() * np.asarray(shares, dtype=np.float64) / sum(shares)
    if not seen.sum():
        return 1.0
    return float(chdtrc(len(counts) - 1, ((seen - due) ** 2 / due).sum()))  # `scipy.stats` would take .7 s of every worker's start


@dataclass(frozen=True)
class Difference:
    """The mean of one group less that of another.

    Attributes:
        low, high: hold the truth with the asked level at ALL times together, however often somebody looks.
    """

    mean: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def difference(new: Values, old: Values, level: float = 0.95, horizon: int = 10_000) -> Difference:
    """Always-valid difference of two groups' means.

    An asymptotic confidence sequence (I. Waudby-Smith, D. Arbour, R. Sinha, E. Kennedy and A. Ramdas, 2021, "Time-uniform central limit theory and
    asymptotic confidence sequences", theorem 2.2): a mixture of sequential ratio tests, so that looking every day does not make a chance look like a gain.

    Args:
        new, old: one number a user (not a request: requests of one user resemble each other), [n] and [m].
        level: how sure. horizon: users of both groups together at which the interval is to be narrowest.

    Raises:
        ValueError: a group has fewer than two users.
    """
    if min(len(new), len(old)) < 2:
        raise ValueError(f"Groups of {len(new)} and {len(old)} users; at least two are needed in each.")
    n = len(new) + len(old)
    variance = n * (new.var(ddof=1) / len(new) + old.var(ddof=1) / len(old))
    mean = float(new.mean() - old.mean())
    if variance == 0:
        return Difference(mean, mean, mean) if n >= horizon else Difference(mean, -math.inf, math.inf)
    alpha = 1 - level
    # rho in units of the standardised difference; near-optimal at the horizon (same paper, appendix C.3)
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / horizon
    scaled = n * rho2
    spread = math.sqrt(variance) * math.sqrt((scaled + 1) / (n * scaled) * (math.log(scaled + 1) - 2 * math.log(alpha)))
    return Difference(mean, mean - spread, mean + spread)


def _person(experiment: str) -> bytes:
    return hashlib.blake2b(experiment.encode("utf-8", "surrogatepass"), digest_size=16).digest()

"""Evidence that may be looked at after every single number: how sure it is that something happens more often than it may.

An e-process is a bet against a hypothesis: under it, the wager is expected never to grow, so that the chance that it EVER reaches 1 / alpha is at most alpha
(J. Ville, 1939), however often somebody looks and whenever they stop (A. Ramdas, P. Grünwald, V. Vovk and G. Shafer, 2023, "Game-theoretic statistics").
"""

from __future__ import annotations

import math

from scipy.special import betainc, betaln


def more_than(hits: int, trials: int, chance: float) -> float:
    """The wager against "each trial hits with at most this chance": a uniform mixture over all larger chances (H. Robbins, 1970).

    Args:
        hits, trials: 0 <= hits <= trials. chance: in (0, 1).

    Returns:
        At least 1 / alpha with a chance of at most alpha, at all times together, where the hypothesis holds. At most 1e300.

    Raises:
        ValueError: figures out of these ranges.
    """
    _check(hits, trials, chance)
    above = 1 - float(betainc(hits + 1, trials - hits + 1, chance))
    if above <= 0:
        return 0.0
    mixture = float(betaln(hits + 1, trials - hits + 1)) + math.log(above) - math.log1p(-chance)
    return _exp(mixture - hits * math.log(chance) - (trials - hits) * math.log1p(-chance))


def other_than(hits: int, trials: int, chance: float) -> float:
    """The wager against "each trial hits with exactly this chance"; for groups that are not as they were dealt at any time.

    With two groups it is the test of M. Lindon and A. Malek, 2020 ("Anytime-valid inference for multinomial count data") with a flat prior. Arguments,
    result and errors as of `more_than`.
    """
    _check(hits, trials, chance)
    return _exp(float(betaln(hits + 1, trials - hits + 1)) - hits * math.log(chance) - (trials - hits) * math.log1p(-chance))


def rate_exceeds(new: tuple[int, int], old: tuple[int, int], factor: float) -> float:
    """The wager against "it happens in the new group at most `factor` times as often as in the old one".

    Whose each event is follows, under the hypothesis, a coin with a known bound (the conditional test of two Poisson rates; J. Przyborowski and
    H. Wilenski, 1940), so that neither rate has to be known.

    Args:
        new, old: (events, trials) of each group; without trials of the new group nothing is known, and it is 1.
    """
    if not new[1] or not old[1]:
        return 1.0
    return more_than(new[0], new[0] + old[0], factor * new[1] / (factor * new[1] + old[1]))


def _check(hits: int, trials: int, chance: float) -> None:
    if not (0 <= hits <= trials and 0 < chance < 1):
        raise ValueError(
            f"{hits} hits in {trials} trials with the chance {chance}: expected 0 <= hits <= trials and a chance in (0, 1)."
        )


def _exp(logarithm: float) -> float:
    return math.exp(min(logarithm, math.log(1e300)))

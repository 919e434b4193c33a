"""What speaks against putting a bundle in the place of the live one."""

from __future__ import annotations

import math

from tastemaker.bundle.read import open_bundle
from tastemaker.bundle.registry import Registry
from tastemaker.schema.manifest import Manifest

METRIC = "validation_ndcg_fusion"
TOLERANCE = 0.05
"""A candidate whose validation NDCG@10 is lower than the live one's by more than this share is refused."""


def weigh(registry: Registry, version: str, figures: bool = True) -> list[str]:
    """What speaks against releasing a version of a registry, in plain words; nothing: it may go live.

    Args:
        figures: compare the figures of the two validations, too. They are of different events: a poor guide where both can be asked the same.

    Raises:
        BundleError: there is no such bundle, or it is not whole.
    """
    live = registry.stages().live
    new = open_bundle(registry.folder(version)).manifest
    return gate(new, open_bundle(registry.folder(live), check=False).manifest if live and live != version else None, figures)


def gate(new: Manifest, live: Manifest | None, figures: bool = True) -> list[str]:
    """What speaks against a release by what two manifests say, in plain words; nothing: it may go live."""
    # JSON has no NaN: a figure that was not finite comes back from the manifest as null
    against = [
        f"{name} is {value}, not a finite number"
        for name, value in new.metrics.items()
        if value is None or (isinstance(value, float) and not math.isfinite(value))
    ]
    if live is None:
        return against
    ours, theirs = new.metrics.get(METRIC), live.metrics.get(METRIC)
    if figures and isinstance(ours, float) and isinstance(theirs, float) and ours < theirs * (1 - TOLERANCE):
        against.append(f"its validation NDCG@10 is {ours:.4f}, that of the live bundle {theirs:.4f}")
    if new.data.position < live.data.position:
        against.append(
            f"it has learned from the first {new.data.position:,} events of the journal, the live bundle from {live.data.position:,}"
        )
    if new.data.items < 0.5 * live.data.items:
        against.append(f"it knows {new.data.items:,} items, the live bundle {live.data.items:,}")
    return against

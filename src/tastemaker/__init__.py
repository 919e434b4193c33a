"""Tastemaker: from a catalogue and an event log to a recommender you can stand behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Dataset", "Recommender", "Settings", "__version__"]

if TYPE_CHECKING:
    from tastemaker.data.dataset import Dataset
    from tastemaker.recommender import Recommender
    from tastemaker.schema.settings import Settings


def __getattr__(name: str) -> Any:
    """Loads the public names on first use, so that the service's workers never import what only training needs."""
    if name == "Dataset":
        from tastemaker.data.dataset import Dataset

        return Dataset
    if name == "Recommender":
        from tastemaker.recommender import Recommender

        return Recommender
    if name == "Settings":
        from tastemaker.schema.settings import Settings

        return Settings
    raise AttributeError(f"module 'tastemaker' has no attribute {name!r}")

"""What the recommenders of a report are called."""

from __future__ import annotations

OURS = "Tastemaker"
UNRANKED = "Tastemaker without its ranker"
"""What retrieval and fusion alone give: shown beside, and no baseline."""

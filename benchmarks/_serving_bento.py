"""The service of BentoML's own shape, for benchmarks/_serving_peers.py; it is imported by `bentoml serve` alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

if "PEER_BUNDLE" in os.environ:
    import bentoml
    from _serving_peers import Work

    @bentoml.service(workers=int(os.environ["PEER_WORKERS"]), traffic={"timeout": 30})
    class Recommender:
        """The work of a peer."""

        def __init__(self) -> None:
            self.work = Work(Path(os.environ["PEER_BUNDLE"]))

        @bentoml.api(route="/recommend")
        def recommend(self, user_id: str, k: int = 10) -> dict[str, Any]:
            """Ten items."""
            return self.work.answer(user_id, k)

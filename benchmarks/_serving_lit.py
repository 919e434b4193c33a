"""The service of LitServe's own shape, for benchmarks/_serving_peers.py: its workers import it by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

if __name__ != "__main__":
    import litserve
    from _serving_peers import Work

    class Api(litserve.LitAPI):
        """The work of a peer."""

        def setup(self, device: str) -> None:
            self.work = Work(Path(os.environ["PEER_BUNDLE"]))

        def decode_request(self, request):  # its server reads annotations as types, not as text
            return request

        def predict(self, asked: dict[str, Any]) -> dict[str, Any]:
            return self.work.answer(asked["user_id"], asked["k"])

        def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
            return output

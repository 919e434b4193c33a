"""The same work behind other servers: torch eager models, the same index file, the same shapes. Started by benchmarks/serving.py --table.

What they do: the user tower over 50 events, a search in the index, 200 seen items dropped, 200 candidates, the ranker's columns of them (scores and places of the channels, the
fusion, counts, cosine, and both vectors by 32 directions with their products), three heads, the best ten. What ours does besides: sources of the places, rules, the fresh slot, metrics,
deadlines and the ladder, the look for new events.

python benchmarks/_serving_peers.py fastapi|litserve|bentoml BUNDLE PORT WORKERS
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from _served_world import DIM, HEADS, HIDDEN, RANKED

CHANNELS = 6


class Work:
    """A user's vector, the best items by the index without those seen, a ranker over them."""

    def __init__(self, bundle: Path) -> None:
        import torch
        from threadpoolctl import threadpool_limits

        from tastemaker.index.approximate import load
        from tastemaker.index.coded import load as load_vectors
        from tastemaker.models.user_sequence import UserSequence
        from tastemaker.schema.settings import SequenceSettings

        torch.set_num_threads(1)
        threadpool_limits(1)
        torch.manual_seed(0)
        self.torch, sequence = torch, SequenceSettings()
        self.length = sequence.max_length
        self.users = UserSequence(DIM, sequence.layers, sequence.heads, self.length, 0.0).eval()
        with torch.no_grad():
            for weight in self.users.blocks.parameters():
                weight *= 0.3
        channels = bundle / "channels"
        self.bias = np.load(channels / "bias.npy")
        self.index = load(channels, "items", load_vectors(channels, "items"), self.bias)
        self.table = np.load(channels / "items.npy", mmap_mode="r")
        self.popularity, self.counts = np.load(channels / "popular.npy"), np.load(channels / "counts.npy")
        self.popular = np.argsort(-self.popularity, kind="stable")[: 4 * RANKED]
        offsets, items = np.load(bundle / "users" / "offsets.npy"), np.load(bundle / "users" / "items.npy")
        self.histories = {f"u{user}": items[begin:end] for user, (begin, end) in enumerate(itertools.pairwise(offsets))}
        turn = np.load(bundle / "ranker" / "of_item.npy")
        self.turn = torch.from_numpy(turn)
        columns = int(np.load(bundle / "ranker" / "weights.expert_0.npy").shape[1])
        sizes = (columns, *HIDDEN, 1 + len(HEADS))
        layers: list[Any] = []
        for before, after in itertools.pairwise(sizes):
            layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
        self.ranker, self.columns = torch.nn.Sequential(*layers[:-1]).eval(), columns

    def told(self, user: Any, vectors: Any, items: Any, events: int) -> Any:
        """The columns of candidates besides vectors, [n, 19]: as `features.ranker_input.channel_columns` and `compared` give them."""
        torch = self.torch
        scores, counts = torch.zeros((len(items), CHANNELS)), torch.from_numpy(self.counts[items])
        scores[:, 0] = vectors @ user + torch.from_numpy(self.bias[items])
        scores[:, -1] = torch.from_numpy(self.popularity[items])
        places = scores.argsort(dim=0, descending=True).argsort(dim=0)
        says = (scores != 0) & (places < RANKED // 2)
        fusion = torch.where(says, 10.0 / (10.0 + places), 0.0).sum(1)
        own = torch.stack(
            [
                fusion - fusion.max(),
                torch.log1p(fusion.argsort(descending=True).argsort().float()),
                (counts == 0).float(),
                torch.log1p(counts),
                torch.full_like(fusion, math.log1p(events)),
                fusion,
            ],
            dim=1,
        )
        scaled = torch.cat([scores, (vectors @ torch.nn.functional.normalize(user, dim=0))[:, None]], dim=1)
        scaled = (scaled - scaled.mean(0)) / (scaled.std(0, correction=0) + 1e-6)
        return torch.cat([scaled, torch.where(says, 1.0 / (1.0 + places), 0.0), own], dim=1)

    def answer(self, user_id: str, k: int) -> dict[str, Any]:
        """Ten items as JSON takes them."""
        torch, history = self.torch, self.histories[user_id]
        with torch.inference_mode():
            latest = torch.from_numpy(self.table[history[-self.length :]])[None]
            user = self.users(latest, torch.tensor([latest.shape[1]]))
            found, scores = self.index.search(user.numpy(), RANKED // 2 + len(history))[0]
            keep = ~np.isin(found, history)
            found, scores = found[keep][: RANKED // 2], scores[keep][: RANKED // 2]
            more = self.popular[~np.isin(self.popular, history)][: RANKED // 2]
            items = np.concatenate([found, more[~np.isin(more, found)]])
            vectors = torch.from_numpy(self.table[items])
            mine, theirs = torch.nn.functional.normalize(user) @ self.turn, vectors @ self.turn
            told = self.told(user[0], vectors, items, len(history))
            heads = self.ranker(torch.cat([told, mine.expand(len(items), -1), theirs, mine * theirs], dim=1))
            final = torch.softmax(heads[:, 0], 0) + torch.sigmoid(heads[:, 1:]).sum(1)
            worth, best = torch.topk(final, min(k, len(items)))
        return {
            "items": [
                {"item_id": f"i{items[place]}", "score": score} for place, score in zip(best.tolist(), worth.tolist(), strict=True)
            ]
        }


def fastapi(bundle: Path, port: int, workers: int) -> None:
    """FastAPI on uvicorn, as its documentation has it."""
    import uvicorn

    os.environ["PEER_BUNDLE"] = str(bundle)
    uvicorn.run("_serving_peers:make_fastapi", factory=True, port=port, workers=workers, log_level="warning", access_log=False)


def make_fastapi() -> Any:
    from fastapi import FastAPI
    from pydantic import create_model

    app, work = FastAPI(), Work(Path(os.environ["PEER_BUNDLE"]))
    query = create_model("Query", user_id=(str, ...), k=(int, 10))

    async def recommend(asked: Any) -> dict[str, Any]:
        return work.answer(asked.user_id, asked.k)

    recommend.__annotations__["asked"] = query
    app.post("/recommend")(recommend)
    return app


def litserve(bundle: Path, port: int, workers: int) -> None:
    """LitServe with as many workers of its one device."""
    import litserve
    from _serving_lit import Api

    os.environ["PEER_BUNDLE"] = str(bundle)
    server = litserve.LitServer(Api(api_path="/recommend"), accelerator="cpu", workers_per_device=workers)
    server.run(port=port, log_level="error", generate_client_file=False)


def bentoml(bundle: Path, port: int, workers: int) -> None:
    """A BentoML service with as many workers."""
    os.environ |= {"PEER_BUNDLE": str(bundle), "PEER_WORKERS": str(workers), "BENTOML_DO_NOT_TRACK": "True"}
    os.chdir(Path(__file__).parent)
    os.execvp(
        sys.executable,
        [sys.executable, "-m", "bentoml", "serve", "_serving_bento:Recommender", "--port", str(port), "--host", "127.0.0.1"],
    )


if __name__ == "__main__":
    {"fastapi": fastapi, "litserve": litserve, "bentoml": bentoml}[sys.argv[1]](
        Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    )

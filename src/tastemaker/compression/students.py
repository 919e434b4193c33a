"""A smaller user tower and a smaller ranker that give what the larger ones give, learned on the bundle's own histories and candidates.

No label is learned anew: what the larger one says is the target, so that the user's vectors stay in the space of the item vectors, and chances what they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.compression.ranker import FOLDER, Lists, kept, lists_of, load, network_files
from tastemaker.compression.step import Facts, Tools, carry
from tastemaker.compression.text import GRAPH, answers_of, cosine
from tastemaker.compression.user import TOWER, begun_feeds, history_feeds, keep_golden, sequence_settings
from tastemaker.index.coded import load as load_vectors
from tastemaker.models.ranker import Ranker, Shape
from tastemaker.models.ranker_network import RankerNetwork
from tastemaker.models.user_sequence import NarrowTower
from tastemaker.training.export import write_users

BEGUN, CHECKED = 16_384, 512
"""Histories that a tower learns from, as they were after some of their events; and those by which it is told what it keeps."""
ITEMS = 2_048
"""Items whose scores must stay, drawn by chance."""
ROWS, RATE, _RISE = 1_024, 4e-3, 0.1
MORE = 4
"""Steps for each of `compress.heal_steps`: one is a hundredth of a language model's (a tower's cosine: .964 with as many, .982 with four times as many)."""


def user(bundle: Path, place: Path, tools: Tools) -> Facts:
    """A user tower of half the layers and half the numbers a state."""
    tower, graph = tower_of(bundle, tools), bundle / TOWER / GRAPH
    carry(bundle, place, [TOWER])
    (place / TOWER).mkdir()
    write_users(tower, tower.into.in_features, int(sequence_settings(bundle)["max_length"]), place / TOWER / GRAPH)
    check = history_feeds(bundle, CHECKED, tools.seed + 1)
    keep_golden(place / TOWER, check[0])
    alike = cosine(answers_of(graph, check), answers_of(place / TOWER / GRAPH, check))
    weights = sum(one.numel() for one in tower.parameters())
    return {"numbers a state": tower.into.out_features, "weights": weights, "cosine": round(alike, 4)}


def tower_of(bundle: Path, tools: Tools) -> NarrowTower:
    """The smaller tower, taught: its vectors to be those of the larger one, and the chances that they give to items."""
    shape, vectors = sequence_settings(bundle), load_vectors(bundle / "channels", "items")
    random = np.random.default_rng(tools.seed)
    items = vectors.rows(np.sort(random.permutation(len(vectors))[:ITEMS]))
    feeds = begun_feeds(bundle, BEGUN, tools.seed)
    told = answers_of(bundle / TOWER / GRAPH, feeds)
    wanted = np.split(told, np.cumsum([len(feed["lengths"]) for feed in feeds])[:-1])
    torch.manual_seed(tools.seed)
    narrow, heads = items.shape[1] // 2, int(shape["heads"])
    directions = torch.from_numpy(np.linalg.svd(items, full_matrices=False)[2][:narrow].astype(np.float32))
    layers, length = max(int(shape["layers"]) // 2, 1), float(np.linalg.norm(told, axis=1).mean())
    heads = heads if narrow % heads == 0 else 1
    tower = NarrowTower(directions, layers, heads, int(shape["max_length"]), length, str(shape["block"]))
    scores = torch.from_numpy(items).T

    def loss() -> Tensor:
        row = int(random.integers(len(feeds)))
        aim = torch.from_numpy(wanted[row])
        found = tower(*(torch.from_numpy(feeds[row][name]) for name in ("vectors", "lengths")))
        apart = F.kl_div(F.log_softmax(found @ scores, -1), F.log_softmax(aim @ scores, -1), log_target=True, reduction="batchmean")
        return apart + (1 - F.cosine_similarity(found, aim)).mean()

    taught(tower, tools, loss)
    return tower


def ranker(bundle: Path, place: Path, tools: Tools) -> Facts:
    """A ranker of one expert with half the neurons, which learns the larger one's logits."""
    before = load(bundle)
    learn, check = lists_of(bundle, tools)
    after = pupil(before, learn, tools)
    facts = kept(before, after, check)
    carry(bundle, place, network_files(bundle))
    (place / FOLDER).mkdir(exist_ok=True)
    after.save(place / FOLDER)
    return {"weights before": sum(one.size for one in before.arrays.values()), **facts}


def smaller(shape: Shape) -> Shape:
    """One expert in place of several, half of its neurons, one cross layer at most."""
    hidden = tuple(max(size // 2, 2) for size in shape.hidden)
    return msgspec.structs.replace(shape, sharing="bottom", experts=1, hidden=hidden, cross_layers=min(shape.cross_layers, 1))


def pupil(teacher: Ranker, lists: Lists, tools: Tools) -> Ranker:
    """The smaller ranker. Each head's error counts in its own spread; a last shift of each label's logit brings its mean chance back to what it was."""
    wanted, random = lists.own(teacher), np.random.default_rng(tools.seed)
    torch.manual_seed(tools.seed)
    network = RankerNetwork(smaller(teacher.plan.shape))
    with torch.no_grad():
        for name in ("tables", "wide", "bias", "fusion_scale"):
            getattr(network, name).copy_(torch.from_numpy(teacher.arrays[name]))
    dense, codes, told = torch.from_numpy(lists.dense), torch.from_numpy(lists.codes), torch.from_numpy(wanted)
    spread, nothing = told.std(0).clamp(min=1e-3), torch.zeros(ROWS)

    def loss() -> Tensor:
        rows = torch.from_numpy(random.integers(0, len(wanted), ROWS))
        error: Tensor = (((network(dense[rows], codes[rows], nothing) - told[rows]) / spread) ** 2).mean()
        return error

    taught(network, tools, loss)
    left = ("positions",)
    arrays = {name: value.detach().numpy().copy() for name, value in network.state_dict().items() if name not in left}
    made = Ranker(msgspec.structs.replace(teacher.plan, shape=network.shape), arrays)
    for head in range(1, wanted.shape[1]):
        made.arrays["bias"][head] += _shift(teacher, head, wanted[:, head], lists.own(made)[:, head])
    return made


def _shift(teacher: Ranker, head: int, wanted: np.ndarray, found: np.ndarray) -> float:
    """What must be added to a label's logits so that its mean chance is the wanted one, by bisection."""
    chance: Callable[[np.ndarray], np.ndarray] = teacher.plan.calibrations[head - 1].apply
    aim, low, high = float(chance(wanted).mean()), -2.0, 2.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if float(chance(found + np.float32(middle)).mean()) < aim else (low, middle)
    return (low + high) / 2


def taught(network: nn.Module, tools: Tools, loss: Callable[[], Tensor]) -> None:
    """`MORE` times `compress.heal_steps` steps of AdamW, the rate rising shortly and then falling with a cosine."""
    steps = MORE * tools.settings.heal_steps
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.0)
    network.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min((step + 1) / max(round(steps * _RISE), 1), 0.5 * (1 + math.cos(math.pi * step / steps)))
        optimiser.zero_grad(set_to_none=True)
        loss().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if tools.progress and (step % 20 == 19 or step + 1 == steps):
            tools.progress("heal", step + 1, steps)
    network.eval()

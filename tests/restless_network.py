"""Networks of rankers that say something of everything, without a training."""

from __future__ import annotations

from pathlib import Path

import torch

from tastemaker.models.ranker import Plan, Ranker, Shape
from tastemaker.models.ranker_network import RankerNetwork


def write_network(folder: Path, plan: Plan, shape: Shape) -> None:
    """Puts a network of a shape in a ranker's place; its weights are those of seed 0."""
    torch.manual_seed(0)
    network = RankerNetwork(shape)
    with torch.no_grad():
        network.tower.normal_(0, 0.3)
        network.wide.normal_(0, 0.05)
        network.bias[1] = -1.0
    for path in folder.glob("weights.*.npy"):
        path.unlink()
    arrays = {name: value.detach().numpy() for name, value in network.state_dict().items() if name != "positions"}
    Ranker(plan, arrays).save(folder)

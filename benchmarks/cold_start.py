"""New items on Amazon Beauty: what the boost of unseen items gives and costs, from one fit.

    python benchmarks/cold_start.py [--data ../shared/data] [--seed 0] [--set fusion.cold_price=0.1]

The protocol `beauty-cold` of benchmarks/quality.py: the last event of each user, a random tenth of the items taken out of training altogether; whole
catalogue, seen items left out, and nobody is told which targets are new. The fit chooses a boost by `fusion.cold_price`; beside it stand others, added by
`fusion.cold_boost`. Prints NDCG@10 of all, known and new targets as ratios to the limits asked for: .055 of all and .065 of the new ones, in one setting.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from quality import ROOT, protocol

from tastemaker.schema.settings_file import load_settings

ASKED_ALL, ASKED_NEW = 0.055, 0.065
BOOSTS = (0.0, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
K = 10


def places(brain: Any, histories: list[np.ndarray], targets: np.ndarray, boosts: tuple[float, ...]) -> np.ndarray:
    """Place of each target with each boost, int64 [boosts, R]; K where it is not among the first."""
    from tastemaker.training.fit import states_of

    fusions = [dataclasses.replace(brain.fusion, cold_boost=boost) for boost in boosts]
    found = np.full((len(boosts), len(targets)), K)
    states = states_of(brain.model, histories)
    for begin in range(0, len(states), 256):
        part = states[begin : begin + 256]
        for row, (state, one) in enumerate(
            zip(part, brain.channels.candidates(part, brain.settings.fusion.depth), strict=True), begin
        ):
            at = np.flatnonzero(one.items == targets[row])
            if not len(at):
                continue
            for which, fusion in enumerate(fusions):
                order = np.argsort(-fusion.score(one, len(state.history)), kind="stable")
                found[which, row] = min(int(np.flatnonzero(order == at[0])[0]), K)
    return found


def main() -> None:
    """Fits, sweeps, prints."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    reader.add_argument("--seed", type=int, default=0)
    reader.add_argument("--work", type=Path, default=ROOT / "runs" / "quality")
    reader.add_argument("--set", nargs="*", default=[], help="SECTION.KEY=VALUE, to try other settings")
    given = reader.parse_args()
    from tastemaker.training.fit import fit

    asked = protocol("beauty-cold", given.data, Path())
    settings = load_settings(None, [*given.set, f"train.seed={given.seed}"], {})
    run = given.work / "runs" / f"beauty-cold-{given.seed}"
    brain = fit(asked.data, settings, run_dir=run, cache_dir=given.work / "cache", rows=False)
    number = {item: place for place, item in enumerate(brain.sequences.item_ids)}
    histories = [np.array([number[item] for item in history], dtype=np.int32) for history in asked.histories]
    targets = np.array([number.get(item, -1) for item in asked.targets])
    new = brain.sequences.counts()[targets] == 0
    chosen = brain.fusion.cold_boost
    boosts = tuple(sorted({*BOOSTS, chosen}))
    print(f"cold_price {settings.fusion.cold_price}: boost {chosen} chosen; {len(targets):,} questions, {new.sum():,} of new items")
    print("| boost | NDCG@10 all | known | new | all / .055 | new / .065 |\n|---|---|---|---|---|---|")
    for boost, place in zip(boosts, places(brain, histories, targets, boosts), strict=True):
        gain = np.where(place < K, 1 / np.log2(place + 2.0), 0.0)
        every, known, fresh = gain.mean(), gain[~new].mean(), gain[new].mean()
        mark = "**" if boost == chosen else ""
        print(
            f"| {mark}{boost}{mark} | {every:.4f} | {known:.4f} | {fresh:.4f} | {every / ASKED_ALL:.2f} | {fresh / ASKED_NEW:.2f} |",
            flush=True,
        )
    print(msgspec.json.encode(dict(brain.metrics)).decode())


if __name__ == "__main__":
    main()

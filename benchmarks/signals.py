"""What a picture is worth where tastes follow nothing else: NDCG@10 on new items, with ids, with texts, with pictures, and with some of these missing.

A generated shop: each of 400 items is a rendered picture of some shape in one of eight hues, at a random place, in a random size and tint, on a random
background; its title is random words. Each person likes one of the eight hues. A fifth of the items is new: no event of training has it. Each person's
next item is a new one of the liked hue: a hard question, as training saw 32 known items of that hue that were as likely. All items are ranked, what the
person has met left out; then the new items alone, by the whole answer and by the towers.
The vision model is a small ConvNeXt with random weights: it tells colours apart, and nobody taught it shapes.

An ideal list knows kinds and that the next item is new: .454, as ten new items of a kind are all as likely.

    python benchmarks/signals.py [--seeds 2] [--users 800]
"""

from __future__ import annotations

import argparse
import base64
import colorsys
import io
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

HUES, SHAPES = 8, ("disc", "square", "ring")
ITEMS, NEW_SHARE, SIDE = 400, 0.2, 48
ARMS = {
    "ids only": (False, None),
    "text only": (True, None),
    "image": (True, 0.0),
    "image, 30 % missing": (True, 0.3),
    "image, 60 % missing": (True, 0.6),
}


def picture(hue: int, random: np.random.Generator) -> str:
    """A rendered picture as base64."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (SIDE, SIDE), tuple(int(value) for value in random.integers(170, 256, 3)))
    near = (hue + random.uniform(-0.3, 0.3)) / HUES
    colour = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(near % 1, random.uniform(0.7, 1), random.uniform(0.6, 1)))
    size = int(random.integers(20, 36))
    left, top = (int(value) for value in random.integers(2, SIDE - size - 2, 2))
    box, shape = (left, top, left + size, top + size), SHAPES[int(random.integers(len(SHAPES)))]
    draw = ImageDraw.Draw(image)
    if shape == "square":
        draw.rectangle(box, fill=colour)
    else:
        draw.ellipse(box, fill=colour if shape == "disc" else None, outline=colour, width=8)
    out = io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def shop(seed: int, users: int) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, str]]:
    """Items with kind, title and picture; events without new items; each person's next item."""
    random = np.random.default_rng(seed)
    kind = np.arange(ITEMS) % HUES
    new = np.arange(ITEMS) >= ITEMS * (1 - NEW_SHARE)
    words = ["alpha", "bravo", "delta", "echo", "kilo", "lima", "metro", "nova", "orbit", "polar", "quartz", "river"]
    rows = [
        {
            "item_id": f"i{item}",
            "title": " ".join(random.choice(words, 4)),
            "image": picture(int(kind[item]), random),
            "kind": int(kind[item]),
            "new": bool(new[item]),
        }
        for item in range(ITEMS)
    ]
    events, targets = [], {}
    for user in range(users):
        liked = int(random.integers(HUES))
        known = np.flatnonzero((kind == liked) & ~new)
        history = random.choice(known, int(random.integers(5, 13)), replace=False)
        events += [(f"u{user}", f"i{item}", 1_600_000_000.0 + 60.0 * (len(events) + at)) for at, item in enumerate(history)]
        targets[f"u{user}"] = f"i{random.choice(np.flatnonzero((kind == liked) & new))}"
    return pl.DataFrame(rows), pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row"), targets


def vision_model(folder: Path) -> Path:
    """A ConvNeXt with random weights."""
    import torch
    from transformers import ConvNextConfig, ConvNextImageProcessorPil, ConvNextModel

    torch.manual_seed(0)
    config = ConvNextConfig(hidden_sizes=[32, 64], depths=[2, 2], num_stages=2, image_size=SIDE, patch_size=4)
    ConvNextModel(config).save_pretrained(folder)
    ConvNextImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def one(arm: str, seed: int, users: int, model: Path, more: list[str]) -> dict[str, float]:
    """NDCG@10 of the next items, all new ones, among all items and among the new ones."""
    from tastemaker import Dataset
    from tastemaker.schema.settings_file import load_settings
    from tastemaker.training.fit import fit, states_of

    items, events, targets = shop(seed, users)
    titles, missing = ARMS[arm]
    gone = np.random.default_rng(seed + 1_000).random(ITEMS) < (1.0 if missing is None else missing)
    table = items.drop("kind", "new").with_columns(
        pl.when(pl.Series(gone)).then(None).otherwise(pl.col("image")).alias("image"),
        (pl.col("title") if titles else pl.lit(None, dtype=pl.String)).alias("title"),
    )
    small = ["sequence.dim=64", "sequence.min_steps=300", "train.precision=fp32"]
    settings = load_settings(None, [*small, f"image.model={model}", f"train.seed={seed}", *more], {})
    began = time.perf_counter()
    brain = fit(Dataset.read(events=events, items=table), settings, rows=False)
    place = {item: at for at, item in enumerate(brain.sequences.item_ids)}
    wanted = np.array([place[targets[user]] for user in brain.sequences.user_ids])
    histories = brain.sequences.histories()
    new = np.array([place[item] for item in items.filter(pl.col("new"))["item_id"]])
    there = ~gone[[int(brain.sequences.item_ids[item][1:]) for item in wanted]]
    gains = [_gain(found.tolist(), target) for (found, _), target in zip(brain.recommend(histories, 10), wanted, strict=True)]
    states, allowed = states_of(brain.model, histories), np.isin(np.arange(ITEMS), new)
    whole = []
    for state, found, target in zip(states, brain.channels.candidates(states, 100, allowed), wanted, strict=True):
        order = np.argsort(-brain.fusion.score(found, len(state.history)), kind="stable")[:10]
        whole.append(_gain(found.items[order].tolist(), target))
    scores = np.stack([state.user_vector for state in states]) @ brain.model.item_vectors()[new].T  # type: ignore[misc]
    best = new[np.argsort(-scores, axis=1, kind="stable")[:, :10]]
    towers = [_gain(row.tolist(), target) for row, target in zip(best, wanted, strict=True)]
    return {
        "all": float(np.mean(gains)),
        "new": float(np.mean(whole)),
        "towers": float(np.mean(towers)),
        "there": float(np.mean(np.array(whole)[there])) if there.any() else float("nan"),
        "seconds": time.perf_counter() - began,
    }


def _gain(found: list[int], target: int) -> float:
    return 1 / np.log2(found.index(target) + 2) if target in found else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--users", type=int, default=800)
    parser.add_argument("--set", action="append", default=[], help="SECTION.KEY=VALUE")
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    asked = parser.parse_args()
    print(f"{'':22} {'all items':>10} {'new items':>10} {'ratio':>6} {'towers':>7} {'with picture':>13} {'seconds':>8}")
    print(
        "(new items: the whole answer among these alone; ratio: to `image`; towers: the towers alone; with picture: where the next item has one)"
    )
    with tempfile.TemporaryDirectory() as folder:
        model = vision_model(Path(folder) / "vision")
        rows = {}
        for arm in sorted(asked.arms, key=lambda arm: arm != "image"):
            found = [one(arm, seed, asked.users, model, asked.set) for seed in range(asked.seeds)]
            rows[arm] = {name: float(np.mean([row[name] for row in found])) for name in found[0]}
            ratio = rows[arm]["new"] / rows.get("image", rows[arm])["new"]
            row = rows[arm]
            cells = f"{row['all']:10.4f} {row['new']:10.4f} {ratio:6.2f} {row['towers']:7.4f} {row['there']:13.4f} {row['seconds']:8.1f}"
            print(f"{arm:22} {cells}", flush=True)


if __name__ == "__main__":
    main()

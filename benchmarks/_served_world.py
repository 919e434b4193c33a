"""A served workspace of any size without a training: clustered item vectors, people with 200 events each, a user tower with random weights, a ranker with random weights.

The speed of answers does not depend on what the weights are; their quality is measured elsewhere.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import polars as pl
import scipy.sparse as sp
from onnx import numpy_helper, parser

DIM, SEEN, USERS, RANKED = 128, 200, 400, 200
HEADS = ("click", "purchase")
HIDDEN = (256, 128)
DIRECTIONS = 32
"""Leading directions of the user's and the item's vector, and of their product, that the ranker reads."""
PLACE = "place.json"
_BLOCK = 250_000
_ITEM_TOWER = """agraph (float[n,one] text) => (float[n,d] vector) {
    wide = MatMul (text, weight)
    vector = LpNormalization <axis = -1, p = 2> (wide)
}"""


def vectors(items: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """Unit rows around one centre for about 200 of them, float32 [N, D]."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(items // 200, 64), dim), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    found = np.empty((items, dim), dtype=np.float32)
    for begin in range(0, items, _BLOCK):
        part = found[begin : begin + _BLOCK]
        part[:] = centres[random.integers(0, len(centres), len(part))]
        part += random.standard_normal(part.shape, dtype=np.float32) / math.sqrt(dim)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found


def write(folder: Path, items: int) -> Path:
    """A workspace whose live bundle has so many items; one that is there already stays."""
    from tastemaker.bundle.registry import Registry
    from tastemaker.bundle.write import write_bundle
    from tastemaker.journal.append import Journal
    from tastemaker.schema.manifest import DataFingerprint

    if (folder / PLACE).is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal.open(folder / "journal")
    data = DataFingerprint(items=items, users=USERS, change=journal.change(), position=journal.position())
    journal.close()
    (folder / "tastemaker.toml").touch()
    version = write_bundle(folder / "bundles", lambda place: _payload(place, items), data=data)
    Registry(folder / "bundles").add(version)
    (folder / PLACE).write_bytes(msgspec.json.encode({"version": version}))
    return folder


def with_int8_ranker(folder: Path, items: int) -> Path:
    """The same world in a workspace of its own beside, whose ranker `compress` made: the step `int8-ranker`."""
    from tastemaker.bundle.read import open_bundle
    from tastemaker.bundle.registry import Registry
    from tastemaker.bundle.write import write_bundle
    from tastemaker.cli.compress import Served
    from tastemaker.compression.step import Tools
    from tastemaker.compression.steps import INT8_RANKER
    from tastemaker.inference.ranker import open_ranker
    from tastemaker.schema.settings import CompressSettings

    plain = write(folder, items)
    made = folder.with_name(f"{folder.name}-int8-ranker")
    if (made / PLACE).is_file():
        return made
    shutil.copytree(plain / "journal", made / "journal")
    (made / "tastemaker.toml").touch()
    bundle = Registry(plain / "bundles").live()
    tools = Tools(Served, None, None, CompressSettings(), made / "cache", ranker=open_ranker)  # type: ignore[arg-type]
    manifest = open_bundle(bundle, check=False).manifest

    def payload(place: Path) -> None:
        print(f"int8-ranker: {INT8_RANKER.apply(bundle, place, tools)}", flush=True)

    version = write_bundle(made / "bundles", payload, data=manifest.data, parents=[bundle.name])
    Registry(made / "bundles").add(version)
    (made / PLACE).write_bytes(msgspec.json.encode({"version": version}))
    return made


def _payload(folder: Path, items: int) -> None:
    import torch

    from tastemaker.bundle.catalogue import TABLE, Catalogue
    from tastemaker.index.channels import Channels, Decays
    from tastemaker.index.lexical import Lexicon
    from tastemaker.index.neighbours import Neighbours
    from tastemaker.inference.engine import UserTower
    from tastemaker.models.fusion import Fusion
    from tastemaker.models.user_sequence import UserSequence
    from tastemaker.schema.settings_file import load_settings, to_table
    from tastemaker.training.export import export_users

    random = np.random.default_rng(1)
    settings = load_settings(None, [f"sequence.dim={DIM}", f"fusion.depth={RANKED // 2}", f"ranker.depth={RANKED}"], {})
    table = vectors(items)
    torch.manual_seed(0)
    users = UserSequence(DIM, settings.sequence.layers, settings.sequence.heads, settings.sequence.max_length, 0.0)
    with torch.no_grad():  # a user's vector lies among the items that were met, as training makes it
        for weight in users.blocks.parameters():
            weight *= 0.3
    for name in ("user_tower", "item_tower", "catalogue", "users"):
        (folder / name).mkdir()
    export_users(users, DIM, folder / "user_tower" / "model.onnx")
    tower = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>\n' + _ITEM_TOWER)
    tower.graph.initializer.append(numpy_helper.from_array(random.standard_normal((1, DIM)).astype(np.float32), "weight"))
    onnx.save(tower, folder / "item_tower" / "model.onnx")
    met = _histories(folder / "users", table, random)
    asked = UserTower(folder / "user_tower" / "model.onnx", settings.sequence.max_length).vectors(
        list(met), lambda rows: table[rows]
    )
    counts = np.bincount((items * random.random(5 * items) ** 3).astype(np.int64), minlength=items).astype(np.float32)
    bias = np.log1p(counts) - np.log1p(counts).max()
    nothing = Neighbours(sp.csr_matrix((items, items), dtype=np.float32))
    zero = np.zeros((items, 1), dtype=np.float32)
    channels = Channels(table, bias, zero, counts / counts.max(), counts, nothing, nothing, Decays())
    channels.save(folder / "channels", settings.index, asked)
    Lexicon([]).save(folder / "lexicon")
    (folder / "fusion.json").write_bytes(msgspec.json.encode(Fusion.reciprocal_ranks(channels.names).to_dict()))
    ids = [f"i{place}" for place in range(items)]
    columns = {
        "item_id": ids,
        "title": [f"Item {place}" for place in range(items)],
        "categories": [[f"c{place % 50}"] for place in range(items)],
    }
    catalogue = pl.DataFrame(columns).with_columns(
        pl.lit(None, pl.String).alias("text"), pl.lit(None, pl.String).alias("image"), pl.lit(9.5).alias("price"),
        pl.lit(None, pl.Float64).alias("created_at"), pl.lit(False).alias("hidden"), pl.lit(None, pl.String).alias("extra"),
    )  # fmt: skip
    catalogue.write_parquet(folder / "catalogue" / TABLE)
    Catalogue.of(catalogue).save(folder / "catalogue")
    _ranker(folder / "ranker", channels.names)
    (folder / "settings.json").write_bytes(msgspec.json.encode(to_table(settings)))


def _histories(folder: Path, table: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Each user has met items around a few others, int32 [users, seen]."""
    met = np.empty((USERS, SEEN), dtype=np.int32)
    for user in range(USERS):
        some = np.sort(random.choice(len(table), min(20_000, len(table)), replace=False))
        likes = table[some] @ table[random.integers(0, len(table), 3)].T
        best = np.argsort(-likes.max(axis=1))[: 2 * SEEN]
        met[user] = some[random.permutation(best)[:SEEN]]
    np.save(folder / "offsets.npy", np.arange(USERS + 1, dtype=np.int64) * SEEN)
    np.save(folder / "items.npy", met.ravel())
    np.save(folder / "times.npy", np.arange(met.size, dtype=np.float64))
    pl.DataFrame({"user_id": [f"u{user}" for user in range(USERS)]}).write_parquet(folder / "user_ids.parquet")
    return met


def _ranker(folder: Path, channels: tuple[str, ...]) -> None:
    from tastemaker.features.categories import Categories
    from tastemaker.features.preparation import Column, Preparation, Reduction
    from tastemaker.features.ranker_input import RankerInput, channel_names
    from tastemaker.models.calibration import Calibration
    from tastemaker.models.ranker import Plan, Ranker, Shape
    from tastemaker.models.ranker_network import RankerNetwork

    folder.mkdir()
    columns = channel_names(channels)
    preparation = Preparation(names=columns, columns=[Column(place=place, scaling="none") for place in range(len(columns))])
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((DIM, DIM)))[0][:, :DIRECTIONS].astype(np.float32)
    given = RankerInput(
        preparation, Reduction(name="text_part", mean=[0.0], components=[], explained=[]), Categories((), 7), turn, turn
    )
    tasks = 1 + len(HEADS)
    shape = Shape(
        dense=len(given.names), fields=0, buckets=7, embedding=1, tasks=tasks, body="mlp", sharing="bottom", hidden=HIDDEN
    )
    network = RankerNetwork(shape)
    arrays = {name: value.detach().numpy() for name, value in network.named_parameters() if name != "positions"}
    plan = Plan(
        shape=shape, heads=HEADS, calibrations=tuple(Calibration() for _ in HEADS), orders=True, found=0.5, boost=0.0, depth=RANKED
    )
    Ranker(plan, arrays).save(folder)
    given.save(folder)

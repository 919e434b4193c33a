"""A small real workspace that needs no training: three kinds of things, people who like one kind each, graphs written by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import polars as pl
from numpy.typing import NDArray
from onnx import numpy_helper, parser
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from tastemaker.bundle.registry import Registry
from tastemaker.bundle.verify import read_manifest
from tastemaker.bundle.write import write_bundle
from tastemaker.index.channels import Channels, Decays
from tastemaker.index.neighbours import Neighbours
from tastemaker.journal.append import Journal
from tastemaker.models.fusion import Fusion, features
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item
from tastemaker.schema.manifest import DataFingerprint
from tastemaker.schema.settings_file import load_settings, to_table

KINDS = {
    "boots": "waterproof hiking boots leather trail mountain",
    "coffee": "espresso coffee machine grinder roast beans",
    "guitar": "acoustic guitar strings amplifier chord music",
}
BRANDS = tuple(f"brand{number}" for number in range(20))
WIDTH = 24
PER_KIND = 20


def items(per_kind: int = PER_KIND) -> list[Item]:
    """Things with a kind, a brand and a price."""
    found = []
    for kind, words in KINDS.items():
        for number in range(per_kind):
            some = words.split()[number % 3 : number % 3 + 3]
            title = " ".join([BRANDS[number % len(BRANDS)], *some, kind])
            found.append(Item(item_id=f"{kind}-{number}", title=title, categories=[kind], price=float(10 + number)))
    return found


def histories(catalogue: list[Item], users: int = 30, seed: int = 0) -> list[NDArray[np.int32]]:
    """User u likes kind u modulo 3."""
    random = np.random.default_rng(seed)
    kinds = list(KINDS)
    found = []
    for user in range(users):
        own = [place for place, item in enumerate(catalogue) if item.item_id.startswith(kinds[user % 3])]
        found.append(random.permutation(own)[:8].astype(np.int32))
    return found


def graph(text: str, constants: dict[str, NDArray[Any]]) -> onnx.ModelProto:
    """A model from ONNX's own text form and constant arrays."""
    model: onnx.ModelProto = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>\n' + text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    onnx.checker.check_model(model)
    return model


ENCODER = """agraph (int64[n,l] input_ids, int64[n,l] attention_mask) => (float[n,h] vectors) {
    looked = Gather (table, input_ids)
    mask = Cast <to = 1> (attention_mask)
    wide = Unsqueeze (mask, last)
    kept = Mul (looked, wide)
    vectors = ReduceSum <keepdims = 0> (kept, middle)
}"""
ITEM_TOWER = """agraph (float[n,t] text) => (float[n,t] vector) {
    vector = LpNormalization <axis = -1, p = 2> (text)
}"""
USER_TOWER = """agraph (float[b,l,d] vectors, int64[b] lengths) => (float[b,d] vector) {
    shape = Shape (vectors)
    length = Gather (shape, one)
    places = Range (zero, length, one)
    ends = Unsqueeze (lengths, last)
    inside = Less (places, ends)
    mask = Cast <to = 1> (inside)
    wide = Unsqueeze (mask, last)
    kept = Mul (vectors, wide)
    total = ReduceSum <keepdims = 0> (kept, middle)
    vector = LpNormalization <axis = -1, p = 2> (total)
}"""


def write_text_encoder(folder: Path, seed: int = 0) -> None:
    """A tokenizer of whole words and a table of word vectors."""
    folder.mkdir(parents=True)
    words = sorted({word for text in KINDS.values() for word in text.split()} | set(KINDS) | set(BRANDS))
    vocabulary = {"[UNK]": 0, **{word: place + 1 for place, word in enumerate(words)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    random = np.random.default_rng(seed)
    table = 0.3 * random.normal(size=(len(vocabulary), WIDTH)).astype(np.float32)
    for kind, text in KINDS.items():
        heart = random.normal(size=WIDTH).astype(np.float32)
        for word in (kind, *text.split()):
            table[vocabulary[word]] += heart
    constants = {"table": table, "middle": np.array([1]), "last": np.array([-1])}
    onnx.save(graph(ENCODER, constants), folder / "model.onnx")
    np.save(folder / "whitening_mean.npy", np.zeros(WIDTH, np.float32))
    np.save(folder / "whitening_components.npy", np.eye(WIDTH, dtype=np.float32))
    config = {"template": "{title}. {text} {categories}", "fingerprint": f"toy-{seed}", "max_length": 64}
    (folder / "config.json").write_bytes(msgspec.json.encode(config))


def fusion() -> Fusion:
    """Every channel's reciprocal rank, popularity the least."""
    nothing = ChannelScores(
        np.zeros(1, np.int32),
        ("sequence", "neighbours", "together", "text", "taste", "popular"),
        np.zeros((1, 6), np.float32),
        np.zeros((1, 6), np.int32),
        np.zeros(1, np.float32),
        10,
    )
    size = features(nothing, 0).shape[1]
    linear = np.zeros(size, np.float32)
    linear[[1, 5, 9, 13, 17]] = 1.0
    linear[21] = 0.1
    nil = np.zeros(size, np.float32)
    return Fusion(nil, nil + 1, linear, np.zeros((1, size), np.float32), np.zeros(1, np.float32), np.zeros(1, np.float32))


def write_payload(folder: Path, catalogue: list[Item], lists: list[NDArray[np.int32]], seed: int = 0) -> None:
    """Everything that the answering wing reads of a bundle."""
    from tastemaker.inference.engine import ItemTower, TextEncoder
    from tastemaker.models.text_template import fill

    write_text_encoder(folder / "text_encoder", seed)
    for name, text, constants in (
        ("item_tower", ITEM_TOWER, {}),
        (
            "user_tower",
            USER_TOWER,
            {"zero": np.array(0), "one": np.array(1), "last": np.array([-1]), "middle": np.array([1])},
        ),
    ):
        (folder / name).mkdir()
        onnx.save(graph(text, constants), folder / name / "model.onnx")
    encoder = TextEncoder(folder / "text_encoder", WIDTH)
    text_vectors = encoder.encode([fill(encoder.template, item.title, item.text, item.categories) for item in catalogue])
    vectors = ItemTower(folder / "item_tower", WIDTH).vectors(text_vectors) if len(catalogue) else text_vectors
    n = len(catalogue)
    counts = np.bincount(np.concatenate([*lists, np.zeros(0, np.int32)]).astype(np.int64), minlength=n).astype(np.float32)
    met = np.zeros((n, n), np.float32)
    for one in lists:
        met[np.ix_(one, one)] += 1
    np.fill_diagonal(met, 0)
    met /= max(float(met.max(initial=0.0)), 1.0)
    near = Neighbours(_sparse(met))
    popular = counts / max(float(counts.max(initial=0.0)), 1.0)
    Channels(vectors, np.zeros(n, np.float32), text_vectors, popular, counts, near, near, Decays()).save(folder / "channels")
    (folder / "fusion.json").write_bytes(msgspec.json.encode(fusion().to_dict()))
    (folder / "catalogue").mkdir()
    columns = ["item_id", "title", "text", "categories", "image", "price", "created_at", "hidden", "extra"]
    rows = [{name: getattr(item, name) for name in columns[:-1]} | {"extra": None} for item in catalogue]
    kinds: dict[str, Any] = dict.fromkeys(columns, pl.String)
    kinds |= {"categories": pl.List(pl.String), "price": pl.Float64, "created_at": pl.Float64, "hidden": pl.Boolean}
    pl.DataFrame(rows, schema=kinds).write_parquet(folder / "catalogue" / "items.parquet")
    (folder / "users").mkdir()
    pl.DataFrame({"user_id": [f"u{user}" for user in range(len(lists))]}, schema={"user_id": pl.String}).write_parquet(
        folder / "users" / "user_ids.parquet"
    )
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
    np.save(folder / "users" / "offsets.npy", offsets)
    np.save(folder / "users" / "items.npy", np.concatenate([*lists, np.zeros(0, np.int32)]).astype(np.int32))
    np.save(folder / "users" / "times.npy", np.arange(offsets[-1], dtype=np.float64))
    settings = load_settings(None, [f"text.dim={WIDTH}", f"sequence.dim={WIDTH}", "fusion.depth=30"], {})
    (folder / "settings.json").write_bytes(msgspec.json.encode(to_table(settings)))


def write_features(folder: Path) -> None:
    """Features that have seen nothing yet: four of them, six columns."""
    from tastemaker.features.feature_set import FeatureSet
    from tastemaker.journal.read import EVENT_SCHEMA

    texts = np.zeros((1, WIDTH), dtype=np.float32)
    made = FeatureSet.declared(["item_events", "user_events", "user_item", "item_faded"], None, texts, ["boots-0"])
    made.save(made.remember(pl.DataFrame(schema=EVENT_SCHEMA)), folder / "features")


def write_workspace(
    folder: Path,
    catalogue: list[Item] | None = None,
    users: int = 30,
    seed: int = 0,
    besides: Callable[[Path], object] = lambda place: None,
) -> str:
    """A workspace with a journal, a live bundle and settings; gives the bundle's version. `besides` adds to the bundle's payload."""
    catalogue = items() if catalogue is None else catalogue
    lists = histories(catalogue, users) if catalogue else []
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal.open(folder / "journal")
    if catalogue:
        journal.put_items(catalogue)
    data = DataFingerprint(items=len(catalogue), users=len(lists), change=journal.change(), position=journal.position())
    journal.close()
    (folder / "tastemaker.toml").touch()

    def fill(place: Path) -> None:
        write_payload(place, catalogue, lists, seed)
        besides(place)

    version = write_bundle(folder / "bundles", fill, data=data)
    Registry(folder / "bundles").add(version)
    return version


def write_later_workspace(folder: Path, users: int) -> None:
    """A live bundle, the events that it has learned from, and one later event of each user: another item of the user's own kind."""
    catalogue = items()
    lists = histories(catalogue, users)
    journal = Journal.open(folder / "journal")
    journal.append(
        [
            Event(user_id=f"u{user}", item_id=catalogue[item].item_id, timestamp=1.6e9 + 10 * place)
            for user, known in enumerate(lists)
            for place, item in enumerate(known.tolist())
        ]
    )
    journal.close()
    write_workspace(folder, catalogue, users)
    journal = Journal.open(folder / "journal")
    later = []
    for user, known in enumerate(lists):
        kind = catalogue[known[0]].item_id.split("-")[0]
        unseen = [item.item_id for place, item in enumerate(catalogue) if item.item_id.startswith(kind) and place not in known]
        later.append(Event(user_id=f"u{user}", item_id=unseen[user % len(unseen)], timestamp=1.7e9 + user))
    journal.append(later)
    journal.close()


def candidate(space: Path, spoil: Callable[[Path], None] = lambda place: None, behind: int = 0) -> str:
    """The live bundle's payload, spoiled, as a candidate."""
    registry = Registry(space / "bundles")
    live = registry.live()
    old = read_manifest(live)

    def fill(folder: Path) -> None:
        for name in old.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((live / name).read_bytes())
        spoil(folder)

    data = msgspec.structs.replace(old.data, position=old.data.position - behind)
    version = write_bundle(space / "bundles", fill, data=data)
    registry.add(version)
    return version


def _sparse(dense: NDArray[np.float32]) -> Any:
    import scipy.sparse as sp

    return sp.csr_matrix(dense)

"""Writes what a bundle holds: arrays, histories and graphs that answer without torch.

catalogue/items.parquet           row i is item i; the same as records beside it (`bundle.catalogue`)
channels/                         `index.channels.Channels`
lexicon/                          `index.lexical.Lexicon`
fusion.json                       `models.fusion.Fusion`
item_tower/                       model.onnx (content [n, C] -> vector [n, D]), signals.json: name and width of each signal, in the content's order
signals/                          NAME.npy, vectors [N, W] of a signal that can't be read from an item alone; graph.npy has rows for items that only
                                  edges name behind them, whose ids are in graph_later.json; graph_entities.npy: what an entity adds to an item, in the order of graph/nodes.parquet
graph/                            `index.paths`: items and entities; absent where no edge leads to an item
friends/                          `index.friends.Friends` and its fusion.json; absent where no edge is between users
user_tower/model.onnx             vectors [B, L, D], lengths [B] -> vector [B, D]
text_encoder/                     model.onnx (input_ids, attention_mask [B, L] -> vector [B, H]), tokenizer.json, config.json,
                                  whitening_mean.npy [H], whitening_components.npy [T, H]; absent where the catalogue has no text
image_encoder/, audio_encoder/     model.onnx (prepared pictures or sounds -> vector [n, H]), config.json, whitening as above, mel_filters.npy for
                                  spectrograms; absent where there is no such signal
users/                            user_ids.parquet, offsets.npy, items.npy, times.npy
settings.json
features/                         `features.feature_set.FeatureSet` with its state, preparation.json, text_reduction.json; absent where the
                                  log has no times
segments/                         `models.segments.Segments`; absent where no attribute of people tells what they like
ranker/                           `models.ranker.Ranker`, `features.ranker_input.RankerInput`, report.json; absent where none was learned
baseline.json                     `schema.baseline.Baseline`: what the data looked like
"""

from __future__ import annotations

import copy
import logging
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl
import torch
from torch import nn

from tastemaker.bundle.catalogue import TABLE, Catalogue
from tastemaker.features.reference import shown
from tastemaker.index.build import QUESTIONS
from tastemaker.index.lexical import Lexicon
from tastemaker.index.paths import save_graph
from tastemaker.index.tokens import words_of
from tastemaker.models.item_tower import ContentOnly, ItemTower
from tastemaker.models.text import TextTower, Whitening
from tastemaker.models.user_sequence import LastState, UserSequence
from tastemaker.schema.columns import Columns
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings_file import to_table
from tastemaker.schema.signals import GRAPH, TEXT
from tastemaker.training.encoder import Encoder
from tastemaker.training.graph import TrainedGraph
from tastemaker.training.media import ReadMedia

if TYPE_CHECKING:
    from tastemaker.training.fit import TrainedBrain

OPSET = 18
MEDIA_COLUMNS = (Columns.IMAGE, Columns.AUDIO)


def export(brain: TrainedBrain, folder: Path, text: bool = True) -> None:
    """Writes the payload of a bundle into an existing folder; without `text` no text encoder, which takes longest."""
    (folder / "catalogue").mkdir(parents=True, exist_ok=True)
    table = brain.catalogue.with_columns(_shown(brain.catalogue, name) for name in MEDIA_COLUMNS)
    table.write_parquet(folder / "catalogue" / TABLE)
    Catalogue.of(table).save(folder / "catalogue")
    brain.channels.save(folder / "channels", brain.settings.index, _questions(brain))
    Lexicon(words_of(row) for row in brain.catalogue.iter_rows(named=True)).save(folder / "lexicon")
    (folder / "fusion.json").write_bytes(msgspec.json.encode(brain.fusion.to_dict()))
    (folder / "settings.json").write_bytes(msgspec.json.encode(to_table(brain.settings)))
    if brain.baseline is not None:
        (folder / "baseline.json").write_bytes(msgspec.json.format(msgspec.json.encode(brain.baseline), indent=1))
    if brain.features is not None:
        brain.features.export(folder / "features")
    if brain.segments is not None:
        brain.segments.save(folder / "segments")
    if brain.ranker is not None:
        brain.ranker.export(folder / "ranker")
    _towers(brain, folder)
    if text and brain.encoder is not None and brain.whitening is not None:
        export_text(brain.encoder, brain.whitening, brain.settings.text.template, folder / "text_encoder")
    read = {name for one in brain.media if (name := export_media(one, folder)) is not None}
    _kept_signals(brain.model.items, read, folder / "signals")
    _histories(brain, folder / "users")
    if brain.graph is not None:
        _graph(brain.graph, folder)
    if brain.friends is not None:
        brain.friends.friends.save(folder / "friends")
        (folder / "friends" / "fusion.json").write_bytes(msgspec.json.encode(brain.friends.fusion.to_dict()))


def export_media(read: ReadMedia, folder: Path) -> str | None:
    """Writes a vision or audio model, its preparation and the whitening behind it; gives the signal's name, or None where the model can't be exported:
    then new items lack the signal until the next training."""
    encoder, whitening = read.encoder, read.whitening
    if encoder is None or whitening is None:
        return None
    name = encoder.reader.name
    place = folder / f"{name}_encoder"
    place.mkdir(parents=True, exist_ok=True)
    tower = copy.deepcopy(encoder.tower).float().eval()
    rows = torch.export.Dim("rows", min=1)
    try:
        write_graph(tower, (torch.randn(2, *encoder.shape),), place / "model.onnx", [name], ({0: rows},))
    except Exception as error:  # the exporter raises classes of its own that share no base
        shutil.rmtree(place)
        warnings.warn(
            f"The {name} model {encoder.folder.name} can't be exported ({type(error).__name__}): the service reads no {name} of new items.",
            stacklevel=2,
        )
        return None
    encoder.reader.save(place, {"fingerprint": encoder.fingerprint, "width": encoder.width})
    np.save(place / "whitening_mean.npy", whitening.mean, allow_pickle=False)
    np.save(place / "whitening_components.npy", whitening.components, allow_pickle=False)
    return name


def export_text(encoder: Encoder, whitening: Whitening, template: str, folder: Path) -> None:
    """Writes the language model, its tokenizer and the whitening behind it."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "whitening_mean.npy", whitening.mean, allow_pickle=False)
    np.save(folder / "whitening_components.npy", whitening.components, allow_pickle=False)
    encoder.tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "max_length": encoder.max_length,
        "pooling": encoder.tower.pooling,
        "template": template,
        "width": encoder.width,
        "fingerprint": encoder.fingerprint,
    }
    (folder / "config.json").write_bytes(msgspec.json.encode(config))
    tower = TextTower(_plain_copy(encoder), encoder.tower.pooling, encoder.tower.head).eval()
    ids = torch.ones(2, 7, dtype=torch.int64)
    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[1, 5:] = 0
    rows, length = torch.export.Dim("rows", min=1), torch.export.Dim("length", min=2, max=encoder.max_length)
    write_graph(
        tower,
        (ids, mask),
        folder / "model.onnx",
        ["input_ids", "attention_mask"],
        {"input_ids": {0: rows, 1: length}, "attention_mask": {0: rows, 1: length}},
    )


def _plain_copy(encoder: Encoder) -> nn.Module:
    """The same weights in fp32 with attention written out, which every runtime can read."""
    from transformers import AutoModel

    copy: nn.Module = AutoModel.from_pretrained(str(encoder.folder), dtype=torch.float32, attn_implementation="eager")
    copy.config.use_cache = False  # type: ignore[union-attr]
    copy.load_state_dict({name: value.float() for name, value in encoder.tower.backbone.state_dict().items()})
    return copy.eval()


def _questions(brain: TrainedBrain) -> FloatArray | None:
    """Vectors of some users, by which the recall of an approximate index is measured; None where nobody has a history."""
    users = np.flatnonzero(brain.sequences.lengths() > 0)
    if not len(users):
        return None
    some = np.random.default_rng(0).choice(users, min(len(users), QUESTIONS), replace=False)
    return brain.model.user_vectors([brain.sequences.history(int(user)) for user in some])


def _towers(brain: TrainedBrain, folder: Path) -> None:
    model = brain.model.eval()
    for name in ("item_tower", "user_tower"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = torch.export.Dim("rows", min=1)
    widths = model.items.widths
    (folder / "item_tower" / "signals.json").write_bytes(msgspec.json.encode(widths))
    content = torch.randn(3, sum(widths.values()))
    path = folder / "item_tower" / "model.onnx"
    write_graph(ContentOnly(model.items).eval(), (content,), path, ["content"], {"content": {0: rows}})
    export_users(model.users, brain.settings.sequence.dim, folder / "user_tower" / "model.onnx")


def _shown(catalogue: pl.DataFrame, name: str) -> pl.Series:
    """A column of references without the bytes that are written out in some."""
    return pl.Series(name, [shown(reference) for reference in catalogue[name]], dtype=pl.String)


def _kept_signals(items: ItemTower, read: set[str], folder: Path) -> None:
    """Writes the vectors of the signals that nothing in the bundle can read anew."""
    for name, vectors in zip(items.widths, items.signals(), strict=True):
        if name not in (TEXT, *read):
            folder.mkdir(exist_ok=True)
            np.save(folder / f"{name}.npy", vectors.numpy(), allow_pickle=False)


def _graph(trained: TrainedGraph, folder: Path) -> None:
    """Writes the graph, and behind the items' vectors those of items that only edges name."""
    save_graph(trained.graph, folder / "graph")
    if trained.later:
        path = folder / "signals" / f"{GRAPH}.npy"
        whole = np.concatenate([np.load(path, allow_pickle=False), np.stack(list(trained.later.values()))])
        np.save(path, whole, allow_pickle=False)
        (folder / "signals" / "graph_later.json").write_bytes(msgspec.json.encode(list(trained.later)))
    if trained.entities is not None:
        np.save(folder / "signals" / "graph_entities.npy", trained.entities, allow_pickle=False)


def export_users(users: UserSequence, dim: int, path: Path) -> None:
    """Writes the user tower; `dim` is the length of its vectors."""
    write_users(LastState(users.eval()), dim, users.max_length, path)


def write_users(tower: nn.Module, dim: int, max_length: int, path: Path) -> None:
    """Writes whatever makes a user vector of a history, as it is served.

    Args:
        tower: called as tower(vectors [B, L, D], lengths [B]), in evaluation mode. dim: D. max_length: largest L.
    """
    rows, length = torch.export.Dim("rows", min=1), torch.export.Dim("length", min=2, max=max_length)
    vectors, lengths = torch.randn(3, 5, dim), torch.tensor([5, 2, 0])
    shapes = {"vectors": {0: rows, 1: length}, "lengths": {0: rows}}
    write_graph(tower, (vectors, lengths), path, ["vectors", "lengths"], shapes)
    fold_weights(path)


def fold_weights(path: Path) -> None:
    """Makes weights of a graph that are parts of others, or turned ones, weights of their own: in products with these alone a runtime can compute in eight bits."""
    import onnx
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(str(path))
    known = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    left = []
    for node in model.graph.node:
        if node.op_type not in ("Split", "Transpose") or not all(name in known for name in node.input):
            left.append(node)
            continue
        found = ReferenceEvaluator(node, opsets={"": OPSET}).run(None, {name: known[name] for name in node.input})
        known |= dict(zip(node.output, found, strict=True))
    del model.graph.node[:]
    model.graph.node.extend(left)
    used = {name for node in left for name in node.input}
    constants = [numpy_helper.from_array(np.asarray(value, order="C"), name) for name, value in known.items() if name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def write_graph(module: nn.Module, example: tuple[Any, ...], path: Path, inputs: list[str], shapes: Any) -> None:
    """Writes a module as an ONNX graph with one output, `vector`.

    Args:
        module: in evaluation mode. example: inputs of it. path: where the graph goes.
        inputs: their names. shapes: which of their dimensions may vary, as `torch.export` takes it.
    """
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # it asks for torchvision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        torch.onnx.export(
            module,
            example,
            str(path),
            input_names=inputs,
            output_names=["vector"],
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _histories(brain: TrainedBrain, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sequences = brain.sequences
    pl.DataFrame({Columns.USER_ID: sequences.user_ids}, schema={Columns.USER_ID: pl.String}).write_parquet(
        folder / "user_ids.parquet"
    )
    for name, array in (("offsets", sequences.offsets), ("items", sequences.items), ("times", sequences.times)):
        np.save(folder / f"{name}.npy", array, allow_pickle=False)

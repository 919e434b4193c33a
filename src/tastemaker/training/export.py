"""Writes what a bundle holds: arrays, histories and graphs that answer without torch.

catalogue/items.parquet           row i is item i
channels/                         `index.channels.Channels`
fusion.json                       `models.fusion.Fusion`
item_tower/model.onnx             text [n, T] -> vector [n, D]
user_tower/model.onnx             vectors [B, L, D], lengths [B] -> vector [B, D]
text_encoder/                     model.onnx (input_ids, attention_mask [B, L] -> vector [B, H]), tokenizer.json, config.json,
                                  whitening_mean.npy [H], whitening_components.npy [T, H]; absent where the catalogue has no text
users/                            user_ids.parquet, offsets.npy, items.npy, times.npy
settings.json
features/                         `features.feature_set.FeatureSet` with its state, preparation.json, text_reduction.json; absent where the
                                  log has no times
baseline.json                     `schema.baseline.Baseline`: what the data looked like
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl
import torch
from torch import nn

from tastemaker.models.item_tower import TextOnly
from tastemaker.models.text import TextTower, Whitening
from tastemaker.models.user_sequence import UserSequence
from tastemaker.schema.columns import Columns
from tastemaker.schema.settings_file import to_table
from tastemaker.training.encoder import Encoder

if TYPE_CHECKING:
    from tastemaker.training.fit import TrainedBrain

OPSET = 18


def export(brain: TrainedBrain, folder: Path, text: bool = True) -> None:
    """Writes the payload of a bundle into an existing folder; without `text` no text encoder, which takes longest."""
    (folder / "catalogue").mkdir(parents=True, exist_ok=True)
    brain.catalogue.write_parquet(folder / "catalogue" / "items.parquet")
    brain.channels.save(folder / "channels")
    (folder / "fusion.json").write_bytes(msgspec.json.encode(brain.fusion.to_dict()))
    (folder / "settings.json").write_bytes(msgspec.json.encode(to_table(brain.settings)))
    if brain.baseline is not None:
        (folder / "baseline.json").write_bytes(msgspec.json.format(msgspec.json.encode(brain.baseline), indent=1))
    if brain.features is not None:
        brain.features.export(folder / "features")
    _towers(brain, folder)
    if text and brain.encoder is not None and brain.whitening is not None:
        export_text(brain.encoder, brain.whitening, brain.settings.text.template, folder / "text_encoder")
    _histories(brain, folder / "users")


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


def _towers(brain: TrainedBrain, folder: Path) -> None:
    model = brain.model.eval()
    for name in ("item_tower", "user_tower"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = torch.export.Dim("rows", min=1)
    text = torch.randn(3, model.items.text.shape[1])
    write_graph(TextOnly(model.items).eval(), (text,), folder / "item_tower" / "model.onnx", ["text"], {"text": {0: rows}})
    export_users(model.users, brain.settings.sequence.dim, folder / "user_tower" / "model.onnx")


def export_users(users: UserSequence, dim: int, path: Path) -> None:
    """Writes the user tower; `dim` is the length of its vectors."""
    rows, length = torch.export.Dim("rows", min=1), torch.export.Dim("length", min=2, max=users.max_length)
    vectors, lengths = torch.randn(3, 5, dim), torch.tensor([5, 2, 0])
    shapes = {"vectors": {0: rows, 1: length}, "lengths": {0: rows}}
    write_graph(users.eval(), (vectors, lengths), path, ["vectors", "lengths"], shapes)


def write_graph(module: nn.Module, example: tuple[Any, ...], path: Path, inputs: list[str], shapes: dict[str, Any]) -> None:
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

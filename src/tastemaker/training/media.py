"""The catalogue's pictures and sounds become vectors: finds the model, reads each file once, remembers its vector on disk."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from tastemaker.features.fetch import Unreadable
from tastemaker.features.item_audio import AudioPreparation
from tastemaker.features.item_image import ImagePreparation
from tastemaker.features.media_reader import MediaReader
from tastemaker.features.reference import is_address
from tastemaker.models.audio import SpectrogramTower, WaveTower
from tastemaker.models.image import ImageTower
from tastemaker.models.text import Whitening
from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import InputError, MissingExtraError, SettingsError
from tastemaker.schema.protocols import FloatArray, Progress
from tastemaker.schema.settings import AudioSettings, ImageSettings, Settings
from tastemaker.schema.signals import AUDIO, IMAGE, Signal
from tastemaker.training.encoder import find_model, weights_hash
from tastemaker.training.holdout import Holdout
from tastemaker.training.precision import compute_dtype
from tastemaker.training.text_judge import power_scores
from tastemaker.training.vector_cache import VectorCache, content_key

_CHUNK = 1_024  # files in memory at a time
_READERS = 8
_NAMED = 5
_COLUMNS = {IMAGE: Columns.IMAGE, AUDIO: Columns.AUDIO}
_THINGS = {IMAGE: "picture", AUDIO: "sound"}


@dataclass(frozen=True)
class MediaEncoder:
    """A model that is ready to see or to hear.

    Attributes:
        tower: the model with its pooling; float32 [B, …] to unit vectors [B, width].
        reader: from references to what the tower reads.
        shape: of one input of the tower.
        folder: where the model lies. fingerprint: changes with weights, preparation and precision. width: of its vectors.
    """

    tower: nn.Module
    reader: MediaReader
    shape: tuple[int, ...]
    folder: Path
    fingerprint: str
    width: int

    @torch.inference_mode()
    def encode(self, inputs: Sequence[FloatArray]) -> FloatArray:
        """Unit vectors before whitening, float32 [n, width], of prepared inputs."""
        found: FloatArray = self.tower.eval()(torch.from_numpy(np.stack(inputs))).numpy()
        return found


@dataclass(frozen=True)
class ReadMedia:
    """What the catalogue's pictures or sounds became.

    Attributes:
        signal: whitened, unit rows, float32 [N, W]; zero rows where an item has none or it can't be read. None: the signal says nothing at all.
        encoder, whitening: what made it, and what reads new items.
        metrics: how many were read. notes: sentences for whoever trains: what could not be read, and why.
    """

    signal: Signal | None = None
    encoder: MediaEncoder | None = None
    whitening: Whitening | None = None
    metrics: dict[str, float | int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_media(
    name: str,
    catalogue: pl.DataFrame,
    settings: Settings,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    held: Holdout | None = None,
) -> ReadMedia:
    """Reads a catalogue's pictures or sounds with the model that the settings name.

    Args:
        name: `image` or `audio`.
        catalogue: one row an item.
        settings: the section of that name, `neighbours` and `train` are read.
        cache_dir: vectors are remembered here.
        progress: called as progress(name, done, files).
        held: chooses the power of the whitening; None takes the first.

    Raises:
        InputError: there is no such model. MissingExtraError: what reads files of this kind is not installed.
    """
    chosen: ImageSettings | AudioSettings = getattr(settings, name)
    if not chosen.model:
        return ReadMedia()
    references = catalogue[_COLUMNS[name]].to_list()
    if not any(references):
        return ReadMedia(notes=[f"{name}.model is set, but no item has a {_THINGS[name]} (column {_COLUMNS[name]})."])
    encoder = load_media_encoder(chosen, settings.train.precision)
    vectors, unread = encode_references(encoder, references, cache_dir, chosen.batch_size, progress)
    present = np.array([bool(reference) and row not in unread for row, reference in enumerate(references)])
    metrics: dict[str, float | int] = {f"{name}_items": int(present.sum()), f"{name}_unread": len(unread)}
    notes = _told(name, references, unread, catalogue[Columns.ITEM_ID].to_list())
    if not present.any():
        return ReadMedia(metrics=metrics, notes=notes)
    power = chosen.whitenings[0]
    if held is not None and len(chosen.whitenings) > 1:
        scores = power_scores(vectors, present, held, chosen, settings.neighbours.text_decay)
        power = max(scores, key=scores.__getitem__)
        metrics |= {**{f"{name}_new_items_ndcg_{tried:g}": score for tried, score in scores.items()}, f"{name}_whitening": power}
    whitening = Whitening.fit(vectors[present], chosen.dim, power)
    if not len(whitening.components):
        return ReadMedia(metrics=metrics, notes=[*notes, f"The items' {_THINGS[name]}s are all alike; they are left out."])
    return ReadMedia(Signal(name, whitening.apply(vectors, ~present)), encoder, whitening, metrics, notes)


def load_media_encoder(settings: ImageSettings | AudioSettings, precision: str = "auto") -> MediaEncoder:
    """The model that a section names: a folder or a Hugging Face name.

    Raises:
        InputError: no such folder or name, or it holds no model of this kind.
        SettingsError: a model that reads something else. MissingExtraError: what is needed is not installed.
    """
    name = IMAGE if isinstance(settings, ImageSettings) else AUDIO
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtraError("train", f"Reading {_THINGS[name]}s with {settings.model}")
    from transformers import AutoModel
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    folder = find_model(settings.model, f"{name}.model")
    try:
        model = AutoModel.from_pretrained(str(folder), dtype=compute_dtype(precision)).eval()
    except (OSError, ValueError) as error:
        raise InputError(f"{name}.model {settings.model!r}: {folder} holds no Hugging Face model: {error}") from None
    path = folder / "preprocessor_config.json"
    table = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if isinstance(settings, ImageSettings):
        preparation = ImagePreparation.of(table, _image_size(model, settings.model))
        reader = MediaReader.of(preparation, settings)
        tower: nn.Module = _image_tower(model)
        shape: tuple[int, ...] = (3, preparation.height, preparation.width)
    else:
        tower, reader, shape = _audio(model, table, settings)
    words = f"{weights_hash(folder)} {reader.preparation} {compute_dtype(precision)}"
    fingerprint = hashlib.sha256(words.encode()).hexdigest()[:24]
    with torch.inference_mode():
        try:
            width = int(tower.eval()(torch.zeros(1, *shape)).shape[-1])
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(f"{name}.model {settings.model!r} ({model.config.model_type}) gives no vector: {error}") from None
    return MediaEncoder(tower, reader, shape, folder, fingerprint, width)


def encode_references(
    encoder: MediaEncoder,
    references: Sequence[str | None],
    cache_dir: Path | None,
    batch: int = 32,
    progress: Progress | None = None,
) -> tuple[FloatArray, dict[int, str]]:
    """Vectors of references, and why some can't be read.

    Each different file is read by the model once and remembered under the hash of its content; an address under its own, so that it is not fetched again.

    Args:
        encoder: the model.
        references: None or empty ones give zero rows, as unreadable ones do.
        cache_dir: None remembers nothing.
        batch: files the model reads at a time.
        progress: called as progress(name, done, files).

    Returns:
        float32 [n, H], and row to reason.
    """
    vectors = np.zeros((len(references), encoder.width), dtype=np.float32)
    cache = VectorCache(cache_dir, f"{encoder.reader.name}-{encoder.fingerprint}", encoder.width)
    rows = [row for row, reference in enumerate(references) if reference]
    unread: dict[int, str] = {}
    with ThreadPoolExecutor(_READERS) as pool:
        for begin in range(0, len(rows), _CHUNK):
            part = rows[begin : begin + _CHUNK]
            opened = list(pool.map(lambda row: _opened(str(references[row]), encoder.reader, cache), part))
            fresh = {key: content for key, content, _ in opened if content is not None and key not in cache}
            broken = _add(fresh, encoder, cache, batch, pool.map)
            for row, (key, _, reason) in zip(part, opened, strict=True):
                why = reason or broken.get(key)
                if why:
                    unread[row] = why
                else:
                    vectors[row] = cache.read([key])[0]
            if progress:
                progress(encoder.reader.name, min(begin + _CHUNK, len(rows)), len(rows))
    return vectors, unread


def _opened(reference: str, reader: MediaReader, cache: VectorCache) -> tuple[bytes, bytes | None, str]:
    """The key of a reference, its bytes where the cache does not know it, and why there are none."""
    key = content_key(reference.encode("utf-8", "replace")) if is_address(reference) else b""
    if key in cache:
        return key, None, ""
    try:
        content = reader.content(reference)
    except Unreadable as error:
        return key, None, str(error)
    return key or content_key(content), content, ""


def _add(
    fresh: dict[bytes, bytes], encoder: MediaEncoder, cache: VectorCache, batch: int, spread: Callable[..., Any]
) -> dict[bytes, str]:
    """Has the model read files that the cache lacks; gives why some are none, by key."""
    keys: list[bytes] = []
    made: list[FloatArray] = []
    broken: dict[bytes, str] = {}

    def prepared(key: bytes) -> FloatArray | str:
        try:
            return encoder.reader.prepared(fresh[key])
        except Unreadable as error:
            return str(error)

    names = list(fresh)
    for begin in range(0, len(names), batch):
        part = names[begin : begin + batch]
        inputs = list(zip(part, spread(prepared, part), strict=True))
        broken |= {key: found for key, found in inputs if isinstance(found, str)}
        good = [(key, found) for key, found in inputs if not isinstance(found, str)]
        if good:
            keys += [key for key, _ in good]
            made.append(encoder.encode([found for _, found in good]))
    if made:
        cache.add(keys, np.concatenate(made))
    return broken


def _told(name: str, references: Sequence[str | None], unread: dict[int, str], item_ids: Sequence[str]) -> list[str]:
    """One sentence on what can't be read: how many, why, and some of the items by name."""
    if not unread:
        return []
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for row, reason in unread.items():
        by_reason[reason].append(item_ids[row])
    parts = [
        f"{len(items)} {reason} ({', '.join(items[:_NAMED])}{', …' if len(items) > _NAMED else ''})"
        for reason, items in sorted(by_reason.items(), key=lambda pair: -len(pair[1]))
    ]
    total = sum(1 for reference in references if reference)
    return [f"{len(unread)} of {total} {_THINGS[name]}s can't be read; their items count as having none: {'; '.join(parts)}."]


def _image_size(model: Any, name: str) -> int:
    config = getattr(model.config, "vision_config", model.config)
    size = getattr(config, "image_size", None) or 224
    if getattr(config, "num_channels", 3) != 3:
        raise SettingsError(f"image.model {name!r} reads {config.num_channels} channels; expected a model for pictures in colour.")
    return int(size if isinstance(size, int) else size[0])


def _image_tower(model: Any) -> ImageTower:
    if hasattr(model, "vision_model"):  # the half of CLIP, SigLIP and their like that sees
        return ImageTower(model.vision_model, "pooled", getattr(model, "visual_projection", None))
    kind = str(model.config.model_type)
    if kind.endswith(("vision_model", "vision_model_with_projection")):
        return ImageTower(model, "pooled")
    return ImageTower(model, "mean" if hasattr(model.config, "depths") or hasattr(model.config, "hidden_sizes") else "cls")


def _audio(model: Any, table: dict[str, Any], settings: AudioSettings) -> tuple[nn.Module, MediaReader, tuple[int, ...]]:
    """The tower of an audio model, its reader, and the shape of what it reads."""
    rate = int(table.get("sampling_rate") or (48_000 if hasattr(model, "audio_model") else 16_000))
    samples = int(settings.seconds * rate)
    if hasattr(model, "audio_model"):
        from transformers.audio_utils import mel_filter_bank

        window, hop = int(table.get("fft_window_size", 1024)), int(table.get("hop_length", 480))
        mels, fused = int(model.config.audio_config.num_mel_bins), bool(model.config.audio_config.enable_fusion)
        low, high = float(table.get("frequency_min", 50)), float(table.get("frequency_max", 14_000))
        filters = mel_filter_bank(window // 2 + 1, mels, low, high, rate, norm="slaney", mel_scale="slaney")
        if fused:  # its extractor gives sounds that are not too long to the other bank
            filters = mel_filter_bank(window // 2 + 1, mels, low, high, rate, norm=None, mel_scale="htk")
        if fused and model.config.audio_config.fusion_type == "channel_map":
            raise SettingsError(
                f"audio.model {settings.model!r} fuses views as channels; expected a CLAP of another fusion type, or none."
            )
        reader = MediaReader.of(AudioPreparation(rate, samples, False, window, hop), settings, filters.astype(np.float32))
        return SpectrogramTower(model.audio_model, model.audio_projection), reader, (1, samples // hop + 1, mels)
    if model.main_input_name != "input_values" or ("feature_size" in table and int(table["feature_size"]) != 1):
        raise SettingsError(
            f"audio.model {settings.model!r} ({model.config.model_type}) reads no waves; expected CLAP, wav2vec 2.0, HuBERT, WavLM or their like."
        )
    preparation = AudioPreparation(rate, samples, bool(table.get("do_normalize", True)))
    return WaveTower(model), MediaReader.of(preparation, settings), (samples,)

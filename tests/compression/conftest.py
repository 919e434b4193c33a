"""A small language model in a bundle's form."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

from language_models import write_model

from tastemaker.models.text import Whitening
from tastemaker.schema.settings import TextSettings
from tastemaker.training.encoder import load_encoder
from tastemaker.training.export import export_text

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
COLOURS = ["red", "green", "blue", "black", "white", "boot", "shoe", "hat", "never", "unused", "spare", "blank", "empty"]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a text encoder of four layers with word pieces."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertModel

    folder, target = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("encoder")
    write_model(folder, "bert", layers=4)
    letters = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz" for mark in ("", "##")]
    words = [*PIECES, *COLOURS, "##s", *[one for one in letters if one != "##s"]]
    tokenizer = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(folder / "tokenizer.json"))
    model = BertModel.from_pretrained(folder)
    with torch.no_grad():
        for part in model.parameters():  # a trained model has no two alike, and none of zeros
            part += 0.1 * torch.randn_like(part)
    model.save_pretrained(folder)
    assert model.config.vocab_size >= len(words)
    found = load_encoder(TextSettings(model=str(folder), max_length=24), "fp32")
    export_text(found, Whitening(np.zeros(32, np.float32), np.eye(32, dtype=np.float32)), "{title}", target)
    return target


@pytest.fixture(scope="session")
def texts() -> list[str]:
    random = np.random.default_rng(0)
    return [" ".join(random.choice(COLOURS[:8], size=random.integers(2, 7))) + f" {number % 7}" for number in range(160)]

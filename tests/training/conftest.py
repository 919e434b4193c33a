"""A language model small enough for a test, and a brain that has learned the ring."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from ring_world import COLORS, ITEMS, ring
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.training.fit import TrainedBrain, fit


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with random weights, one word a token."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "thing", *COLORS, *(f"w{number}" for number in range(ITEMS))]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def toy_settings(tiny_encoder: Path) -> Settings:
    """Small towers, one thread, fp32."""
    lines = ["sequence.dim=32", "sequence.dropout=0.1", "sequence.min_steps=250", "train.threads=1", "train.precision=fp32"]
    return load_settings(None, [*lines, "text.dim=24", f"text.model={tiny_encoder}"], {})


@pytest.fixture(scope="session")
def brain(toy_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> TrainedBrain:
    """A brain that has learned the ring without items 15 and 35."""
    folder = tmp_path_factory.mktemp("fit")
    return fit(ring(skip=(15, 35)), toy_settings, run_dir=folder / "runs", cache_dir=folder / "cache")

"""A shop whose customers search by other words than its titles use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tastemaker.data.dataset import Dataset

COLORS = {"red": "crimson", "green": "emerald", "blue": "azure", "black": "ebony", "white": "ivory"}
KINDS = {"ball": "sphere", "box": "crate", "cup": "mug", "hat": "cap", "lamp": "light", "coat": "parka"}
FILLERS = [f"f{number}" for number in range(30)]
ITEMS = [(color, kind) for color in COLORS for kind in KINDS]


def shop(searches: int = 1_500, seed: int = 0) -> Dataset:
    """Everybody walks through the catalogue at random; most events come from a search in synonyms with one word that says nothing."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(searches):
        place = int(random.integers(len(ITEMS)))
        color, kind = ITEMS[place]
        words = f"{COLORS[color]} {KINDS[kind]} {FILLERS[int(random.integers(len(FILLERS)))]}"
        rows.append((f"u{number % 100}", f"i{place}", 1_600_000_000.0 + number, words if number % 5 else None))
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "query"], orient="row")
    titles = [f"{color} {kind}" for color, kind in ITEMS]
    items = pl.DataFrame({"item_id": [f"i{number}" for number in range(len(ITEMS))], "title": titles})
    return Dataset.read(events=events, items=items)


def write_reader(folder: Path) -> Path:
    """A small BERT with random weights that knows all the words of the shop."""
    from transformers import BertConfig, BertModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *COLORS, *COLORS.values(), *KINDS, *KINDS.values(), *FILLERS]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    BertModel(BertConfig(vocab_size=len(words), **shape)).save_pretrained(folder)
    return folder

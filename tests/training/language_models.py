"""Tiny language models of each family with random weights and one tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "thing",
    "red",
    "green",
    "blue",
    "black",
    *(f"w{number}" for number in range(60)),
]


def write_model(folder: Path, family: str, layers: int = 3) -> Path:
    """A folder as `text.model` wants it: `bert`, `roberta`-like `distilbert`, or the decoder `qwen3`."""
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel, Qwen3Config, Qwen3Model

    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    size = len(WORDS)
    if family == "bert":
        config = BertConfig(vocab_size=size, hidden_size=32, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=48)
        BertModel(config).save_pretrained(folder)
    elif family == "distilbert":
        small = DistilBertConfig(vocab_size=size, dim=32, n_layers=layers, n_heads=2, hidden_dim=48)
        DistilBertModel(small).save_pretrained(folder)
    else:
        decoder = Qwen3Config(
            vocab_size=size,
            hidden_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            intermediate_size=48,
            max_position_embeddings=256,
        )
        Qwen3Model(decoder).save_pretrained(folder)
    return folder

"""Low-rank adapters by the library peft; nothing else imports it."""

from __future__ import annotations

from torch import nn


def with_adapters(backbone: nn.Module, rank: int) -> nn.Module:
    """The backbone with trainable low-rank matrices beside every linear layer (Hu et al. 2021), all else frozen.

    Args:
        backbone: a Hugging Face model.
        rank: of the matrices; their sum is scaled by 2.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", lora_dropout=0.0, bias="none")
    found: nn.Module = get_peft_model(backbone, config)
    return found


def merged(backbone: nn.Module) -> nn.Module:
    """The plain model with the adapters added into its weights."""
    found: nn.Module = backbone.merge_and_unload()  # type: ignore[operator]
    return found

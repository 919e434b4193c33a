"""The audio model that hears what the items sound like: waves or spectrograms in, one unit vector a sound out."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class WaveTower(nn.Module):
    """A Hugging Face model that reads waves (wav2vec 2.0, HuBERT, WavLM): the mean over its frames.

    Args:
        backbone: takes `input_values` [B, samples] and answers with `last_hidden_state` [B, frames, H].
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, sound: Tensor) -> Tensor:
        """Unit vectors, float32 [B, H], of waves, float32 [B, samples]."""
        heard = self.backbone(input_values=sound.to(next(self.backbone.parameters()).dtype))
        return F.normalize(heard.last_hidden_state.float().mean(1), dim=-1)


class SpectrogramTower(nn.Module):
    """The audio half of CLAP.

    Args:
        backbone: takes `input_features` [B, 1, frames, mels] and answers with `pooler_output` [B, H]. A fused one has a branch for sounds that are longer
            than it reads; ours never are, so it is switched off, which also lets it be exported.
        project: [B, H] to [B, W].
    """

    def __init__(self, backbone: nn.Module, project: nn.Module) -> None:
        super().__init__()
        self.backbone, self.project = backbone, project
        for part in backbone.modules():
            if hasattr(part, "enable_fusion"):
                part.enable_fusion = False  # type: ignore[assignment]

    def forward(self, sound: Tensor) -> Tensor:
        """Unit vectors, float32 [B, W], of spectrograms, float32 [B, 1, frames, mels]."""
        heard = self.backbone(input_features=sound.to(next(self.backbone.parameters()).dtype))
        return F.normalize(self.project(heard.pooler_output).float(), dim=-1)

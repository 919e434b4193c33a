"""The vision model that sees what the items look like: pixels in, one unit vector a picture out."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ImageTower(nn.Module):
    """A Hugging Face vision model with pooling.

    Args:
        backbone: takes `pixel_values` and answers with `last_hidden_state` and, for `pooled`, `pooler_output`.
        pooling: `pooled` (CLIP, SigLIP: they were trained by what their pooling gives), `cls` (the first token: ViT, DINO) or `mean` over a map of
            the picture (convolutional models).
        project: what stands behind the pooling, [B, H] to [B, W]; None: nothing.
    """

    def __init__(self, backbone: nn.Module, pooling: str, project: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone, self.pooling, self.project = backbone, pooling, project

    def forward(self, pixels: Tensor) -> Tensor:
        """Unit vectors, float32 [B, W].

        Args:
            pixels: float32 [B, 3, height, width], prepared as the model expects.
        """
        seen = self.backbone(pixel_values=pixels.to(next(self.backbone.parameters()).dtype))
        if self.pooling == "pooled":
            found_BH = seen.pooler_output
        elif self.pooling == "cls":
            found_BH = seen.last_hidden_state[:, 0]
        else:
            found_BH = seen.last_hidden_state.flatten(2).mean(-1)
        if self.project is not None:
            found_BH = self.project(found_BH)
        return F.normalize(found_BH.float(), dim=-1)

"""Vision and audio models with random weights, small enough for a test, in folders as Hugging Face has them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.io import wavfile

TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SIDE, RATE = 32, 4_000


def write_vision_model(folder: Path, kind: str) -> Path:
    """ViT, CLIP, SigLIP, DINOv2 or ConvNeXt with its image processor."""
    import transformers as hf

    torch.manual_seed(0)
    vision: dict[str, Any] = {**TOWER, "image_size": SIDE, "patch_size": 8}
    text = {**TOWER, "vocab_size": 20, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 2}
    small = {"size": {"height": SIDE, "width": SIDE}}
    if kind == "vit":
        model, processor = hf.ViTModel(hf.ViTConfig(**vision)), hf.ViTImageProcessorPil(**small)
    elif kind == "clip":
        model = hf.CLIPModel(hf.CLIPConfig(vision_config=vision, text_config=text, projection_dim=12))
        processor = hf.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=small["size"])
    elif kind == "siglip":
        model = hf.SiglipModel(hf.SiglipConfig(vision_config=vision, text_config=text))
        processor = hf.SiglipImageProcessorPil(**small)
    elif kind == "dinov2":
        model = hf.Dinov2Model(hf.Dinov2Config(**vision))
        processor = hf.BitImageProcessorPil(size={"shortest_edge": 40}, crop_size=small["size"])
    else:
        sizes = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": SIDE}
        model, processor = (
            hf.ConvNextModel(hf.ConvNextConfig(**sizes)),
            hf.ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=0.8),
        )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_audio_model(folder: Path, kind: str) -> Path:
    """wav2vec 2.0, HuBERT, CLAP or fused CLAP with its feature extractor."""
    import transformers as hf

    torch.manual_seed(0)
    wave = {**TOWER, "conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "vocab_size": 8}  # fmt: skip
    extractor: Any
    if kind in ("wav2vec2", "hubert"):
        model = hf.Wav2Vec2Model(hf.Wav2Vec2Config(**wave)) if kind == "wav2vec2" else hf.HubertModel(hf.HubertConfig(**wave))
        extractor = hf.Wav2Vec2FeatureExtractor(sampling_rate=RATE)
    else:
        heard = {"depths": [1, 1], "num_attention_heads": [1, 2], "patch_embeds_hidden_size": 16, "hidden_size": 32, "spec_size": 64,
                 "num_mel_bins": 16, "window_size": 2, "enable_fusion": kind == "clap_fused",
                 "fusion_type": None, "aff_block_r": 2}  # fmt: skip
        if kind == "clap_fused":
            heard["fusion_type"] = "aff_2d"
        text = {**TOWER, "vocab_size": 20}
        model = hf.ClapModel(hf.ClapConfig(audio_config=heard, text_config=text, projection_dim=12))
        extractor = hf.ClapFeatureExtractor(
            feature_size=16, sampling_rate=RATE, hop_length=40, fft_window_size=128, frequency_max=1_800, max_length_s=1,
            truncation="fusion" if kind == "clap_fused" else "rand_trunc",
        )  # fmt: skip
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


def picture(colour: str, shape: str = "disc", size: tuple[int, int] = (60, 44), form: str = "PNG", mode: str = "RGB") -> bytes:
    """A rendered picture."""
    image = Image.new("RGB", size, "white")
    box = (size[0] // 5, size[1] // 5, size[0] * 4 // 5, size[1] * 4 // 5)
    draw = ImageDraw.Draw(image)
    (draw.ellipse if shape == "disc" else draw.rectangle)(box, fill=colour)
    out = io.BytesIO()
    image.convert(mode).save(out, form)
    return out.getvalue()


def tone(hertz: float, seconds: float = 1.0, rate: int = RATE, kind: type = np.int16, channels: int = 1) -> bytes:
    """A rendered sound."""
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)
    scale = {np.int16: 32_767, np.int32: 2**31 - 1, np.uint8: 127, np.float32: 1.0}[kind]
    values = (wave * scale + (128 if kind is np.uint8 else 0)).astype(kind)
    out = io.BytesIO()
    wavfile.write(out, rate, values if channels == 1 else np.stack([values] * channels, axis=1))
    return out.getvalue()

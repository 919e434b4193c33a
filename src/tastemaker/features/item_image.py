"""How an item's picture becomes the numbers that a vision model reads. No torch: the same lines run in training and behind the service.

The steps are those of Hugging Face's image processors with Pillow: size, crop, mean and spread come from the model's `preprocessor_config.json`.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from tastemaker.features.fetch import Unreadable
from tastemaker.schema.errors import MissingExtraError
from tastemaker.schema.protocols import FloatArray

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""Others have larger or riskier readers (EPS runs a program) and are rare in shops."""
_BILINEAR, _BICUBIC = 2, 3


class ImagePreparation(msgspec.Struct, frozen=True):
    """What a vision model wants to see.

    Attributes:
        height, width: of what it reads, in pixels.
        short_edge: the shorter edge is brought to this length and the middle cut out; 0: the picture is stretched to height and width.
        mean, std: of the channels red, green, blue, on a scale from 0 to 1.
        resample: Pillow's number of the filter.
    """

    height: int
    width: int
    short_edge: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resample: int = _BICUBIC

    @classmethod
    def of(cls, table: Mapping[str, Any], size: int) -> ImagePreparation:
        """Reads a `preprocessor_config.json`.

        Args:
            table: its content; empty where a model has none.
            size: height and width that the model was built for.
        """
        given = table.get("size") or {}
        given = {"shortest_edge": given} if isinstance(given, int) and "crop_size" in table else given
        given = {"height": given, "width": given} if isinstance(given, int) else given
        crop = table.get("crop_size") or {}
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        short = int(given.get("shortest_edge") or 0)
        if short and table.get("crop_pct") and short < 384:  # as ConvNeXt's processor does
            crop = {"height": short, "width": short}
            short = int(short / float(table["crop_pct"]))
        whole = crop if short and table.get("do_center_crop", True) and crop else given
        height, width = int(whole.get("height") or size), int(whole.get("width") or size)
        resample = int(table.get("resample", _BILINEAR if "height" in given else _BICUBIC))
        colours = {name: tuple(table[key]) for name, key in (("mean", "image_mean"), ("std", "image_std")) if table.get(key)}
        return cls(height, width, short, resample=resample, **colours)


def check_pillow() -> None:
    """Raises:
    MissingExtraError: Pillow is not installed.
    """
    if importlib.util.find_spec("PIL") is None:
        raise MissingExtraError("media", "Reading pictures")


def pixels(data: bytes, preparation: ImagePreparation, max_pixels: int) -> FloatArray:
    """A picture as a vision model reads it, float32 [3, height, width]; transparency on white, the first frame of several, turned as its EXIF says.

    Args:
        data: a file of one of `FORMATS`.
        preparation: of the model.
        max_pixels: a larger one is refused by its header, before it is decoded.

    Raises:
        Unreadable: it is no picture, a broken one, or too large.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as found:
            if found.width * found.height > max_pixels:
                raise Unreadable("more pixels than image.max_pixels")
            picture = _plain(ImageOps.exif_transpose(found))
            picture = _sized(picture, preparation)
    except Unreadable:
        raise
    except Image.DecompressionBombError:
        raise Unreadable("more pixels than image.max_pixels") from None
    except MemoryError:
        raise Unreadable("more pixels than there is memory for") from None
    except (
        Exception
    ) as error:  # broken files make Pillow raise OSError, SyntaxError, ValueError, struct.error, zlib.error, IndexError, …
        raise Unreadable(f"no readable {', '.join(FORMATS)} picture ({type(error).__name__})") from None
    given = np.asarray(picture, dtype=np.float32) / np.float32(255)
    wanted = (given - np.array(preparation.mean, np.float32)) / np.array(preparation.std, np.float32)
    return np.ascontiguousarray(wanted.transpose(2, 0, 1), dtype=np.float32)


def _plain(picture: Any) -> Any:
    """In red, green and blue, on white where it is transparent."""
    from PIL import Image

    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def _sized(picture: Any, preparation: ImagePreparation) -> Any:
    """In the model's size."""
    from PIL import Image

    height, width, filter_ = preparation.height, preparation.width, Image.Resampling(preparation.resample)
    if not preparation.short_edge:
        return picture.resize((width, height), filter_)
    short, long = sorted(picture.size)
    if long > 200 * short:
        raise Unreadable("a strip, more than 200 times as long as wide")
    longer = int(preparation.short_edge * long / short)
    size = (preparation.short_edge, longer) if picture.width <= picture.height else (longer, preparation.short_edge)
    picture = picture.resize(size, filter_)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))

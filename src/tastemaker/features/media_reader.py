"""From what an item says of its picture or sound to the numbers that a model reads; the same lines in training and behind the service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tastemaker.features.item_audio import AudioPreparation, sound
from tastemaker.features.item_image import ImagePreparation, check_pillow, pixels
from tastemaker.features.reference import ReferenceRules, read_reference
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import AudioSettings, ImageSettings
from tastemaker.schema.signals import AUDIO, IMAGE


@dataclass(frozen=True)
class MediaReader:
    """Reads the references of one signal.

    Attributes:
        name: `image` or `audio`.
        preparation: what the model wants.
        rules: what may be read.
        max_pixels: of a picture.
        filters: of a spectrogram, [window / 2 + 1, mels]; None: there is none.
    """

    name: str
    preparation: ImagePreparation | AudioPreparation
    rules: ReferenceRules
    max_pixels: int = 0
    filters: FloatArray | None = None

    @classmethod
    def of(
        cls,
        preparation: ImagePreparation | AudioPreparation,
        settings: ImageSettings | AudioSettings,
        filters: FloatArray | None = None,
    ) -> MediaReader:
        """By the model's preparation and a section of the settings.

        Raises:
            MissingExtraError: Pillow is needed and not installed. SettingsError: `fetch_from` names no network.
        """
        if isinstance(settings, ImageSettings):
            check_pillow()
            return cls(IMAGE, preparation, ReferenceRules.of(IMAGE, settings), settings.max_pixels)
        return cls(AUDIO, preparation, ReferenceRules.of(AUDIO, settings), filters=filters)

    def content(self, reference: str) -> bytes:
        """The bytes behind a reference.

        Raises:
            Unreadable: there are none, or they may not be read.
        """
        return read_reference(reference, self.rules)

    def prepared(self, content: bytes) -> FloatArray:
        """Bytes as the model reads them.

        Raises:
            Unreadable: they are no picture or no sound.
        """
        if isinstance(self.preparation, ImagePreparation):
            return pixels(content, self.preparation, self.max_pixels)
        return sound(content, self.preparation, self.filters)

    def save(self, folder: Path, more: dict[str, Any]) -> None:
        """Writes what `load` reads, and `more` beside it, into `config.json`."""
        (folder / "config.json").write_bytes(msgspec.json.encode({**more, "preparation": msgspec.structs.asdict(self.preparation)}))
        if self.filters is not None:
            np.save(folder / "mel_filters.npy", self.filters, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path, settings: ImageSettings | AudioSettings) -> MediaReader:
        """Reads what `save` wrote."""
        table = msgspec.json.decode((folder / "config.json").read_bytes())["preparation"]
        path = folder / "mel_filters.npy"
        filters = np.load(path, allow_pickle=False) if path.is_file() else None
        if isinstance(settings, ImageSettings):
            return cls.of(msgspec.convert(table, ImagePreparation), settings)
        return cls.of(msgspec.convert(table, AudioPreparation), settings, filters)

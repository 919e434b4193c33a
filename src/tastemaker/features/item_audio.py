"""How an item's sound becomes the numbers that an audio model reads. No torch: the same lines run in training and behind the service.

WAV is read by scipy; FLAC, OGG and MP3 by the package soundfile, where it is installed. A sound becomes one channel at the model's rate; of a long one the
middle is read, a short one is repeated, as CLAP's own extractor does, so that all have the same length.
"""

from __future__ import annotations

import importlib.util
import io
import warnings
from math import gcd

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.features.fetch import Unreadable
from tastemaker.schema.protocols import FloatArray

_RATES = (1_000, 384_000)
_LEAST = 1e-10


class AudioPreparation(msgspec.Struct, frozen=True):
    """What an audio model wants to hear.

    Attributes:
        rate: samples per second. samples: that it reads.
        normalised: whether the wave is brought to mean 0 and variance 1.
        window, hop: of the mel spectrogram, in samples; 0: the model reads the wave itself.
    """

    rate: int
    samples: int
    normalised: bool = True
    window: int = 0
    hop: int = 0


def sound(data: bytes, preparation: AudioPreparation, filters: FloatArray | None = None) -> FloatArray:
    """A sound as an audio model reads it: the wave, float32 [samples], or a spectrogram in decibels, float32 [1, frames, mels].

    Args:
        data: a WAV file, or what soundfile reads.
        preparation: of the model.
        filters: of the mel bands, [window / 2 + 1, mels]; None where the wave itself is read.

    Raises:
        Unreadable: it is no sound, or a broken one.
    """
    wave, rate = _decoded(data, preparation.samples / preparation.rate)
    enough = -(-preparation.samples * rate // preparation.rate)
    wave = _resampled(fitted(wave, enough) if len(wave) > enough else wave, rate, preparation.rate)
    wave = fitted(wave, preparation.samples)
    if preparation.window and filters is not None:
        return decibels(wave, preparation, filters)[None]
    if preparation.normalised:
        wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
    return wave.astype(np.float32)


def fitted(wave: FloatArray, samples: int) -> FloatArray:
    """The middle of a longer wave; a shorter one as often as it fits whole, and silence behind it. Float32 [samples]."""
    if len(wave) >= samples:
        begin = (len(wave) - samples) // 2
        return wave[begin : begin + samples]
    repeated = np.tile(wave, samples // len(wave))
    return np.pad(repeated, (0, samples - len(repeated)))


def decibels(wave: FloatArray, preparation: AudioPreparation, filters: FloatArray) -> FloatArray:
    """Log-mel spectrogram with a Hann window and reflected ends, float32 [frames, mels]."""
    window, hop = preparation.window, preparation.hop
    padded = np.pad(wave.astype(np.float64), window // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    shape = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    power = np.abs(np.fft.rfft(frames * shape, axis=-1)) ** 2
    found: FloatArray = (10 * np.log10(np.maximum(power @ filters, _LEAST))).astype(np.float32)
    return found


def _decoded(data: bytes, seconds: float) -> tuple[FloatArray, int]:
    """One channel of values in [-1, 1], and its rate. Of a compressed file no more is unpacked than is read: silence of hours is small."""
    if data[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return _wav(data)
    if importlib.util.find_spec("soundfile") is None:
        raise Unreadable("no WAV file, and soundfile, which reads others, is not installed (pip install 'tastemaker[media]')")
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            wanted = int(seconds * file.samplerate) + 1
            file.seek(max((file.frames - wanted) // 2, 0))
            return _one_channel(file.read(wanted, dtype="float32", always_2d=True)), int(file.samplerate)
    except Unreadable:
        raise
    except Exception as error:  # libsndfile's errors and numpy's on broken files
        raise Unreadable(f"no readable sound ({type(error).__name__})") from None


def _wav(data: bytes) -> tuple[FloatArray, int]:
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # unknown chunks
            rate, values = wavfile.read(io.BytesIO(data))
    except Exception as error:  # scipy raises what its parser meets: ValueError, struct.error, TypeError, …
        raise Unreadable(f"no readable WAV sound ({type(error).__name__})") from None
    found = values.astype(np.float32)
    if values.dtype == np.uint8:
        found = (found - np.float32(128)) / np.float32(128)
    elif values.dtype.kind == "i":
        found = found / np.float32(2 ** (8 * values.dtype.itemsize - 1))
    return _one_channel(found), int(rate)


def _one_channel(values: NDArray[np.float32]) -> FloatArray:
    found: FloatArray = values.mean(axis=1, dtype=np.float32) if values.ndim == 2 else values
    if not len(found):
        raise Unreadable("a sound without samples")
    if not np.isfinite(found).all():
        raise Unreadable("a sound with values that are no numbers")
    return found


def _resampled(wave: FloatArray, rate: int, wanted: int) -> FloatArray:
    if not _RATES[0] <= rate <= _RATES[1]:
        raise Unreadable(f"a sound of {rate} samples a second; expected {_RATES[0]:,} to {_RATES[1]:,}")
    if rate == wanted:
        return wave
    from scipy.signal import resample_poly

    common = gcd(rate, wanted)
    found: FloatArray = resample_poly(wave, wanted // common, rate // common).astype(np.float32)
    return found

"""What runs in the child process that opens the media of test files for an endpoint."""

import io
import wave
from typing import final

import numpy as np
from numpy.typing import NDArray

from hpa_merge.calibration.media.audio import open_audio
from hpa_merge.calibration.media.images import open_images
from hpa_merge.calibration.media.opening import SECONDS
from hpa_merge.records import Sample

__all__ = ["SendingService"]

RATE = 16_000
"""Samples a second of a sound that is sent: what feature extractors take."""


@final
class SendingService:
    """The method that :class:`hpa_merge.calibration.media.sending.SendingProcess` calls."""

    def encode(self, sample: Sample) -> tuple[list[int], bytes]:
        """The media of a sample, one after the other, and the bytes of each; raises as what opens them."""
        images = iter(open_images(sample))
        made = []
        for media in sample.media:
            if media.kind == "audio":
                made.append(_wav(open_audio(media, sample.source, RATE, SECONDS)))
            else:
                content = io.BytesIO()
                next(images).save(content, "PNG")
                made.append(content.getvalue())
        return [len(content) for content in made], b"".join(made)


def _wav(samples: NDArray[np.float32]) -> bytes:
    """Of 16 bits."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32768).round().clip(-32768, 32767).astype("<i2").tobytes())
    return content.getvalue()

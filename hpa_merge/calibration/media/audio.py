"""A sound becomes what the checkpoint's feature extractor takes: one channel, at its sampling rate."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpa_merge.calibration.media.containers import demuxed, opened
from hpa_merge.counting import counted
from hpa_merge.records import Media

__all__ = ["open_audio"]

RATES = 1_000, 768_000
"""Samples a second that a file may have, from and to."""

CHANNELS = 64
"""Of a file, at most."""


def open_audio(media: Media, source: str, rate: int, longest: float) -> NDArray[np.float32]:
    """The first sound of the file, which may be a video: the mean of its channels, ``[samples]``, from -1 to 1.

    Args:
        rate: samples a second.
        longest: seconds, at most; nothing is cut off.

    Raises:
        CalibrationError: the file cannot be read, holds no sound, lasts longer, or ends early.
    """
    with opened(media, source) as container:
        import av

        stream = next(iter(container.streams.audio), None)
        if stream is None:
            raise ValueError("it holds no sound")
        context = stream.codec_context
        if not RATES[0] <= context.sample_rate <= RATES[1] or not 0 < context.layout.nb_channels <= CHANNELS:
            raise ValueError(
                f"it has {counted(context.layout.nb_channels, 'channel')} and {context.sample_rate} samples a second"
            )
        resampler = av.AudioResampler(format="fltp", layout=context.layout, rate=rate)
        parts: list[NDArray[np.float32]] = []
        samples = 0
        for frame in _frames(container, stream):
            for part in resampler.resample(frame):
                parts.append(part.to_ndarray().mean(axis=0))
                samples += len(parts[-1])
            if samples > longest * rate:
                raise ValueError(f"it lasts more than {longest:g} seconds: take the part of it that is meant")
        return np.concatenate(parts)


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """The frames of a sound, and ``None`` after the last one.

    Raises:
        ValueError: there is none, or the file ends early.
    """
    heard = False
    for packet in demuxed(container):
        if packet.stream_index == stream.index:
            for frame in packet.decode():
                heard = True
                yield frame
    if not heard:
        raise ValueError("it holds no sound")
    yield None

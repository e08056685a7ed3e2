"""Videos and sounds that tests write with PyAV: frames that tell their number, tones of a known pitch."""

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

__all__ = ["AUDIO_KINDS", "SIZE", "VIDEO_KINDS", "exact_video", "number_of", "sound", "tone", "video"]

SIZE = 48, 64
"""Height and width of a frame."""

VIDEO_KINDS = {
    "mp4": ("libx264", "yuv420p"),
    "mov": ("mjpeg", "yuvj420p"),
    "webm": ("libvpx", "yuv420p"),
    "matroska": ("ffv1", "yuv420p"),
    "avi": ("mpeg4", "yuv420p"),
    "mpegts": ("mpeg2video", "yuv420p"),
    "flv": ("flv", "yuv420p"),
    "gif": ("gif", "rgb8"),
}
"""By container: a codec and its pixels."""

AUDIO_KINDS = {
    "wav": "pcm_s16le",
    "flac": "flac",
    "mp3": "libmp3lame",
    "ogg": "libopus",
    "matroska": "pcm_s16le",
    "mp4": "aac",
    "aiff": "pcm_s16be",
    "au": "pcm_mulaw",
}
"""By container: a codec."""

BITS = 6
"""Of a frame's number: bars across the frame, dark for 0 and bright for 1; the eighths beside them are dark."""


def picture_of(number: int) -> NDArray[np.uint8]:
    """A frame that shows its number."""
    height, width = SIZE
    bars = np.array([0, *((number >> bit) & 1 for bit in range(BITS)), 0], np.uint8)
    row = np.repeat(40 + 170 * bars, width // len(bars))
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3)))


def number_of(frame: NDArray[np.uint8]) -> int:
    """What :func:`picture_of` wrote, after whatever a codec did to it."""
    bars = frame.reshape(frame.shape[0], BITS + 2, -1, 3).mean(axis=(0, 2, 3)) > 125
    return sum(1 << bit for bit in range(BITS) if bars[bit + 1])


def video(
    kind: str = "mp4",
    *,
    frames: int = 12,
    rate: int = 10,
    times: Sequence[float] | None = None,
    codec: str = "",
    every: int = 4,
    **options: str,
) -> bytes:
    """A video of numbered frames.

    Args:
        times: when each frame is shown, in seconds; none: evenly, by ``rate``.
        every: so many frames have a keyframe among them.
    """
    usual, pixels = VIDEO_KINDS[kind]
    pixels = "yuvj420p" if codec == "mjpeg" else pixels
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec or usual, rate=rate, options=options)
        stream.height, stream.width = SIZE
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = every
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, rate)
        container.start_encoding()
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture_of(number), format="rgb24")
            frame.pts = round(1000 * times[number]) if times else number
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def exact_video(frames: NDArray[np.uint8], rate: int) -> bytes:
    """Frames ``[n, h, w, 3]`` that are decoded as they are: Matroska, FFV1, RGB."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def tone(pitch: float, seconds: float, rate: int) -> NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


def sound(kind: str = "wav", *channels: NDArray[np.floating[Any]], rate: int = 16000, codec: str = "") -> bytes:
    """The channels as a file."""
    file = io.BytesIO()
    layout = {1: "mono", 2: "stereo"}[len(channels)]
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec or AUDIO_KINDS[kind], rate=rate, layout=layout)
        data = np.ascontiguousarray(np.stack(channels).astype(np.float32))
        frame = av.AudioFrame.from_ndarray(data, format="fltp", layout=layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()

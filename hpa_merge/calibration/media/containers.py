"""Files of video and audio, opened with PyAV: local, of formats that name no other file, whole.

FFmpeg, on which PyAV stands, takes a playlist for a video whatever its file is called, and fetches what stands in it.
So formats are admitted by name, and nothing is opened but the file itself.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hpa_merge.calibration.loading import reason
from hpa_merge.errors import CalibrationError, extra
from hpa_merge.records import Media

__all__ = ["demuxed", "opened"]

FORMATS = (
    "aac", "aiff", "amr", "apng", "asf", "au", "avi", "caf", "flac", "flv", "gif", "ivf", "matroska", "mov", "mp3",
    "mp4", "mpeg", "mpegts", "ogg", "w64", "wav", "webm",
)  # fmt: skip
"""By the names that FFmpeg has for them. None of them leads to another file."""

ESTIMATED = frozenset(("aac", "amr", "mp3"))
"""Those whose duration is not written down."""

MISSING = 0.05, 1.0
"""The share of its duration, and the seconds beyond that, which a file may lack: durations are rounded."""

MICROSECONDS = 1_000_000


@contextmanager
def opened(media: Media, source: str) -> Iterator[Any]:
    """The file as a container of PyAV's; every error within becomes a sentence that names sample and file.

    Raises:
        CalibrationError: PyAV is not installed, the file cannot be read, or what is done with it fails.
    """
    try:
        import av
    except ImportError:
        raise CalibrationError(
            f"{source} has {media.kind}, which PyAV reads: install it with {extra('media')}, or remove the sample."
        ) from None
    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "none"}
    try:
        with (
            io.BytesIO(media.content) if isinstance(media.content, bytes) else media.content.open("rb") as file,
            av.open(file, options=options, metadata_errors="replace") as container,
        ):
            yield container
    except CalibrationError:
        raise
    except Exception as error:  # FFmpeg raises whatever the bytes provoke
        unreadable = isinstance(error, av.ArgumentError | av.EOFError | av.InvalidDataError)
        text = "it is of none of the formats that are read, or damaged" if unreadable else reason(error)
        raise CalibrationError(
            f"{source}: the {media.kind} {media.name} cannot be read ({text}): replace it or remove the sample."
        ) from error


def demuxed(container: Any) -> Iterator[Any]:
    """The packets of all streams, in the order of the file; those without a size end a stream.

    Raises:
        ValueError: the file ends before its time.
    """
    end = 0.0
    for packet in container.demux():
        if packet.size and packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        yield packet
    begin = (container.start_time or 0) / MICROSECONDS
    claimed = (container.duration or 0) / MICROSECONDS
    share, seconds = MISSING
    if container.format.name not in ESTIMATED and claimed * (1 - share) - seconds > end - begin:
        raise ValueError(f"it says that it lasts {claimed:.1f} seconds, and ends after {end - begin:.1f}")

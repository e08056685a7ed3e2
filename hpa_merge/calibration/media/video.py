"""A video becomes some of its frames: those that the checkpoint's processor samples, upright, in RGB."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hpa_merge.calibration.media.containers import demuxed, opened
from hpa_merge.calibration.media.pixels import as_rgb
from hpa_merge.records import Media

__all__ = ["Clip", "Timeline", "open_video"]

PIXELS = 2**28
"""Of all frames of a video together that are used: 128 frames of 1920x1080."""

FAR = 1000
"""Frames of a video from which on decoding starts at the keyframe before each one that is wanted."""


ROUNDED = Fraction(1, 100)
"""By how much times that are whole milliseconds change the rate of a short video."""


@final
@dataclass(frozen=True)
class Timeline:
    """What is known of a video before it is decoded.

    Attributes:
        total: how many frames it has.
        rate: frames a second, on average.
        size: height and width of a frame, as they are stored.
    """

    total: int
    rate: float
    size: tuple[int, int]


@final
@dataclass(frozen=True)
class Clip:
    """Frames of a video.

    Attributes:
        timeline: of the whole video.
        indices: where in it the frames stand, were they evenly spaced: frame ``i`` is shown ``i / rate`` seconds after
            the beginning.
        frames: ``[n, height, width, 3]``.
    """

    timeline: Timeline
    indices: tuple[int, ...]
    frames: NDArray[np.uint8]


def open_video(media: Media, source: str, choose: Callable[[Timeline], Sequence[int]]) -> Clip:
    """The frames that ``choose`` wants: numbers from 0 to ``total - 1``, in order.

    Raises:
        CalibrationError: the file cannot be read, holds no video, ends early, or takes too much.
    """
    with opened(media, source) as container:
        stream = next((each for each in container.streams.video if not _is_cover(each)), None)
        if stream is None:
            raise ValueError("it holds no video")
        stream.codec_context.thread_count = 1
        times = _times(container, stream)
        timeline, places = _evenly(times, stream)
        indices = _chosen(choose, timeline)
        wanted = [places[index] for index in indices]
        known = [time for time in times if time is not None]
        frames = None
        if len(set(known)) == len(times) > FAR:
            frames = _sought(container, stream, [known[place] for place in wanted], timeline.size)
        if frames is None:
            frames, total = _in_order(container, stream, wanted, timeline.size)
            if total != timeline.total:  # a packet may hold no frame, or several
                timeline = Timeline(total, timeline.rate * total / timeline.total, timeline.size)
                indices = _chosen(choose, timeline)
                frames, _ = _in_order(container, stream, indices, timeline.size)
        return Clip(timeline, tuple(indices), np.stack(frames))


def _is_cover(stream: Any) -> bool:
    """Whether it is the picture that comes with a song."""
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def _times(container: Any, stream: Any) -> list[int | None]:
    """When the frames are shown, in order, in the stream's unit; ``None`` where the file does not say it.

    Raises:
        ValueError: there is none.
    """
    found = [
        packet.pts
        for packet in demuxed(container)
        if packet.stream_index == stream.index and packet.size and not packet.is_discard
    ]
    if not found:
        raise ValueError("it holds no frame")
    return [None] * len(found) if None in found else sorted(found)


def _evenly(times: Sequence[int | None], stream: Any) -> tuple[Timeline, list[int]]:
    """The video as one with evenly spaced frames; for each of these, which frame is shown in the middle of its time."""
    total, every = len(times), range(len(times))
    size = stream.codec_context.height, stream.codec_context.width
    written = stream.average_rate or stream.guessed_rate or 1
    known = [time for time in times if time is not None]
    if len(known) < total or (span := known[-1] - known[0]) == 0:
        return Timeline(total, float(written), size), list(every)
    step = Fraction(span, total - 1)  # the last frame is shown as long as the others, on average
    places = [bisect_right(known, known[0] + (2 * index + 1) * step / 2) - 1 for index in every]
    rate = 1 / (step * stream.time_base)
    return Timeline(total, float(written if abs(rate / written - 1) < ROUNDED else rate), size), places


def _chosen(choose: Callable[[Timeline], Sequence[int]], timeline: Timeline) -> list[int]:
    """Which frames are wanted.

    Raises:
        ValueError: they have too many pixels together.
    """
    if not timeline.total:
        raise ValueError("it holds no frame")
    indices = [int(index) for index in choose(timeline)]
    height, width = timeline.size
    if len(indices) * height * width > PIXELS:
        raise ValueError(f"{len(indices)} of its frames with {width}x{height} pixels have more than {PIXELS} together")
    return indices


def _in_order(
    container: Any, stream: Any, wanted: Sequence[int], size: tuple[int, int]
) -> tuple[list[NDArray[np.uint8]], int]:
    """The frames by their numbers, decoded from the beginning, as far as there are so many; and how many there are."""
    container.seek(0, backward=True, any_frame=False)
    number, kept, last = -1, {}, set(wanted)
    for number, frame in enumerate(container.decode(stream)):
        if number in last:
            kept[number] = _upright(frame, size)
    return [kept[number] for number in wanted if number in kept], number + 1


def _sought(
    container: Any, stream: Any, wanted: Sequence[int], size: tuple[int, int]
) -> list[NDArray[np.uint8]] | None:
    """The frames that are shown at these times, in order; ``None`` where one is not found at its time."""
    kept = []
    for time in wanted:
        container.seek(time, stream=stream)
        frame = next((frame for frame in container.decode(stream) if frame.pts is None or frame.pts >= time), None)
        if frame is None or frame.pts != time:
            return None
        kept.append(_upright(frame, size))
    return kept


def _upright(frame: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The frame as it is shown, ``[height, width, 3]``.

    Raises:
        ValueError: a part of it is missing, or it has another size than the stream says.
    """
    if frame.is_corrupt or (frame.height, frame.width) != size:
        raise ValueError("it is damaged, or its frames have several sizes")
    see_through = any(component.is_alpha for component in frame.format.components)
    if see_through or frame.format.name == "pal8":
        pixels = np.asarray(as_rgb(Image.fromarray(frame.to_ndarray(format="rgba"))))
    else:
        pixels = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, k=round(frame.rotation / 90)))

"""The media of a sample as an endpoint takes them, made in a child process with limits: the bytes are a stranger's."""

import threading
from typing import final

from hpa_merge.calibration.loading import WORDS
from hpa_merge.errors import CalibrationError
from hpa_merge.isolation import Child, Limits, Stopped
from hpa_merge.records import Sample

__all__ = ["SendingProcess"]

SERVICE = "hpa_merge.calibration.media.sending_service:SendingService"

SAMPLE = Limits(computing=120.0, waiting=600.0)
"""For the media of one sample: 89 million pixels take half a minute to be compressed."""

MEMORY = 2**32
"""Bytes for the media of one sample: 4 GiB. 89 million pixels take 270 MB each time they are copied."""


@final
class SendingProcess:
    """One child, started for the first sample that has media; threads may share it, one sample at a time."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def encode(self, sample: Sample) -> list[bytes]:
        """The media of a sample in their order: images as PNG, upright and in RGB; sounds as WAV, of one channel.

        Raises:
            CalibrationError: one of them cannot be used, or is a video, or they take too much together.
        """
        if not sample.media:
            return []
        if any(media.kind == "video" for media in sample.media):
            raise CalibrationError(
                f"{sample.source} has videos, for which OpenAI's protocol has no place: ask the checkpoint without "
                "--endpoint, or give frames of them as images."
            )
        what = " and ".join(WORDS[kind] for kind in dict.fromkeys(media.kind for media in sample.media))
        with self._lock:
            if self._closed.is_set():
                raise CalibrationError(f"{sample.source}: its {what} are not wanted any more.")
            self._child = self._child or Child(SERVICE, MEMORY)
            try:
                lengths, data = self._child.call("encode", sample, limits=SAMPLE)
            except Stopped as stopped:
                raise CalibrationError(
                    f"{sample.source}: its {what} take too much ({stopped}): use fewer or smaller ones."
                ) from stopped
        stops = [sum(lengths[: place + 1]) for place in range(len(lengths))]
        return [bytes(data[stop - length : stop]) for length, stop in zip(lengths, stops, strict=True)]

    def close(self) -> None:
        """End the child, whatever it does."""
        self._closed.set()
        if (child := self._child) is not None:
            child.close()

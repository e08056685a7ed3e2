"""The media of a sample as its processor takes them: frames that it samples itself, sounds at its rate."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers.video_utils import VideoMetadata

from hpa_merge.calibration.loading import PARTS, WORDS
from hpa_merge.calibration.media.audio import open_audio
from hpa_merge.calibration.media.images import open_images
from hpa_merge.calibration.media.video import Clip, Timeline, open_video
from hpa_merge.counting import counted
from hpa_merge.errors import CalibrationError
from hpa_merge.records import Sample
from hpa_merge.records.sample import MediaKind

__all__ = ["Opened", "Sound", "open_media", "processor_arguments"]

SECONDS = 300.0
"""The longest sound, where the processor sets no limit of its own."""

NOT_FOR_SAMPLING = {"device", "do_convert_rgb", "do_sample_frames", "input_data_format", "video_metadata"}
"""Options of transformers' video processors that their sampling is not given."""


@final
@dataclass(frozen=True)
class Sound:
    """A sound of one channel.

    Attributes:
        samples: ``[n]``.
        rate: so many a second.
    """

    samples: NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate


@final
@dataclass(frozen=True)
class Opened:
    """What a processor is given of a sample besides its text: its media, each in the order of the turns."""

    images: tuple[Image.Image, ...] = ()
    videos: tuple[Clip, ...] = ()
    sounds: tuple[Sound, ...] = ()
    kinds: tuple[MediaKind, ...] = ()

    @property
    def frames(self) -> int:
        """Of all its videos."""
        return sum(len(clip.frames) for clip in self.videos)

    @property
    def seconds(self) -> float:
        """Of all its sounds."""
        return sum(sound.seconds for sound in self.sounds)

    @property
    def sizes(self) -> list[str]:
        """Of each medium, in the order of the turns, in words."""
        pictures = (f"{image.width}x{image.height} pixels" for image in self.images)
        clips = (f"{len(clip.indices)} of {counted(clip.timeline.total, 'frame')}" for clip in self.videos)
        sounds = (f"{sound.seconds:.1f} seconds" for sound in self.sounds)
        of_kind: dict[MediaKind, Iterator[str]] = {"image": pictures, "video": clips, "audio": sounds}
        return [next(of_kind[kind]) for kind in self.kinds]


def open_media(sample: Sample, processor: Any, max_frames: int) -> Opened:
    """Open the media of a sample.

    Args:
        processor: the checkpoint's, of transformers.
        max_frames: frames of a video, at most; of more, evenly spaced ones are taken.

    Raises:
        CalibrationError: the processor takes none of their kind, or one of them cannot be read.
    """
    for media in sample.media:
        if getattr(processor, PARTS[media.kind], None) is None:
            raise CalibrationError(
                f"{sample.source} has {WORDS[media.kind]}, and the checkpoint's processor takes none: remove them."
            )
    kinds = tuple(media.kind for media in sample.media)
    choose = _sampling(getattr(processor, "video_processor", None), max_frames)
    clips = [open_video(media, sample.source, choose) for media in sample.media if media.kind == "video"]
    sounds: list[Sound] = []
    if "audio" in kinds:
        rate, longest = int(processor.feature_extractor.sampling_rate), _longest(processor)
        waves = [open_audio(media, sample.source, rate, longest) for media in sample.media if media.kind == "audio"]
        sounds = [Sound(wave, rate) for wave in waves]
    return Opened(tuple(open_images(sample)), tuple(clips), tuple(sounds), kinds)


def processor_arguments(opened: Sequence[Opened]) -> dict[str, Any]:
    """The arguments of a processor's call for several texts, each with its media; all or none have a kind."""
    arguments: dict[str, Any] = {}
    if opened[0].images:
        arguments["images"] = [list(each.images) for each in opened]
    if opened[0].videos:
        arguments["videos"] = [[clip.frames for clip in each.videos] for each in opened]
        metadata = [[_metadata(clip.timeline, clip.indices) for clip in each.videos] for each in opened]
        rates = {each.sampled_fps for group in metadata for each in group}
        if len(rates) == 1:  # what Qwen2.5-Omni takes in place of the metadata
            arguments["fps"] = rates.pop()
        arguments |= {"video_metadata": metadata, "do_sample_frames": False}
    if opened[0].sounds:
        arguments["audio"] = [sound.samples for each in opened for sound in each.sounds]
        arguments["sampling_rate"] = opened[0].sounds[0].rate
    return arguments


def _sampling(video_processor: Any, max_frames: int) -> Callable[[Timeline], Sequence[int]]:
    """Which frames a video processor samples of a video, or every one where it samples none; evenly fewer of many."""

    def choose(timeline: Timeline) -> Sequence[int]:
        indices = list(range(timeline.total))
        if video_processor.do_sample_frames:
            names = set(video_processor.valid_kwargs.__annotations__) - NOT_FOR_SAMPLING
            options = {name: getattr(video_processor, name, None) for name in names}
            indices = [int(i) for i in video_processor.sample_frames(metadata=_metadata(timeline), **options)]
        count = min(len(indices), max_frames)
        return [indices[place * len(indices) // count] for place in range(count)]

    return choose


def _metadata(timeline: Timeline, indices: Sequence[int] | None = None) -> VideoMetadata:
    height, width = timeline.size
    return VideoMetadata(
        total_num_frames=timeline.total,
        fps=timeline.rate,
        width=width,
        height=height,
        duration=timeline.total / timeline.rate,
        video_backend="pyav",
        frames_indices=None if indices is None else list(indices),
    )


def _longest(processor: Any) -> float:
    """The seconds of a sound beyond which the processor would cut it."""
    if limit := getattr(processor, "max_audio_len", None):
        return float(limit)
    extractor = processor.feature_extractor
    samples = getattr(extractor, "n_samples", None)
    return samples / extractor.sampling_rate if samples else SECONDS

"""Images, videos and sounds of the families' samples, written to files, and what a processor is given of each."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["FRAME_RATE", "SOUND_RATE", "WRITERS", "read_medium"]

FRAME_RATE = 4
SOUND_RATE = 16000


def _image(place: Path, draw: random.Random) -> str:
    size = draw.choice([28, 42, 56]), draw.choice([28, 42, 56])
    pixels = bytes(draw.randrange(256) for _ in range(3 * size[0] * size[1]))
    Image.frombytes("RGB", size, pixels).save(place.with_suffix(".png"))
    return f"{place.name}.png"


def _video(place: Path, draw: random.Random) -> str:
    """Of six frames; beside it the frames."""
    from recordings import exact_video

    shape = 6, draw.choice([28, 42, 56]), draw.choice([28, 42, 56]), 3
    frames = np.random.default_rng(draw.randrange(2**32)).integers(0, 256, shape, dtype=np.uint8)
    np.save(place.with_suffix(".mkv.npy"), frames)
    place.with_suffix(".mkv").write_bytes(exact_video(frames, FRAME_RATE))
    return f"{place.name}.mkv"


def _audio(place: Path, draw: random.Random) -> str:
    """Of about a second; beside it the samples."""
    from recordings import sound

    noise = np.random.default_rng(draw.randrange(2**32)).integers(-9000, 9000, draw.randrange(9000, 20000))
    np.save(place.with_suffix(".wav.npy"), (noise / 32768).astype(np.float32))
    place.with_suffix(".wav").write_bytes(sound("wav", noise / 32768, rate=SOUND_RATE))
    return f"{place.name}.wav"


WRITERS: dict[str, Callable[[Path, random.Random], str]] = {"image": _image, "video": _video, "audio": _audio}
"""Write a file of a kind, and give its name."""


def read_medium(kind: str, path: Path) -> dict[str, Any]:
    """The arguments of a processor's call for one medium; videos and sounds as they were before they were encoded."""
    if kind == "image":
        return {"images": [[Image.open(path).convert("RGB")]]}
    values = np.load(f"{path}.npy")
    if kind == "audio":
        return {"audio": [values], "sampling_rate": SOUND_RATE}
    from transformers.video_utils import VideoMetadata

    count, height, width, _ = values.shape
    metadata = VideoMetadata(
        count, float(FRAME_RATE), width, height, count / FRAME_RATE, frames_indices=list(range(count))
    )
    return {"videos": [[values]], "video_metadata": [[metadata]], "fps": FRAME_RATE}

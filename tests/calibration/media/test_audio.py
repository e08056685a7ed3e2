"""Sounds become one channel at the rate that is asked for, from every container; what is no whole sound is refused."""

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from recordings import AUDIO_KINDS, sound, tone, video

from hpa_merge.calibration.media.audio import open_audio
from hpa_merge.errors import CalibrationError
from hpa_merge.records import Media

SECONDS = 1.5


def opened(content: bytes | Path, rate: int = 16000, longest: float = 30.0) -> NDArray[np.float32]:
    samples = open_audio(Media("audio", content), "s.jsonl:7", rate, longest)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    return samples


def refusal(content: bytes, longest: float = 30.0) -> str:
    with pytest.raises(CalibrationError) as caught:
        opened(content, longest=longest)
    before = f"s.jsonl:7: the audio of {len(content)} bytes in the record cannot be read ("
    assert str(caught.value).startswith(before)
    return str(caught.value)[len(before) : -len("): replace it or remove the sample.")]


def pitch(samples: NDArray[np.float32], rate: int) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


@pytest.mark.parametrize("kind", AUDIO_KINDS)
@pytest.mark.parametrize("rate", [16000, 8000])
def test_every_container(kind: str, rate: int) -> None:
    given = 48000 if kind == "ogg" else 22050  # Opus has no other
    samples = opened(sound(kind, tone(440, SECONDS, given), rate=given), rate)
    assert len(samples) == pytest.approx(SECONDS * rate, abs=0.1 * rate)  # some codecs add a frame
    assert pitch(samples, rate) == pytest.approx(440, abs=2)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)


def test_what_is_not_changed_is_exact() -> None:
    wave = np.round(tone(440, 0.1, 16000) * 32767) / 32768
    assert np.array_equal(opened(sound("wav", wave)), wave.astype(np.float32))


def test_channels_are_averaged() -> None:
    left, right = tone(440, 0.2, 16000), tone(1000, 0.2, 16000) * 0.5
    found = opened(sound("wav", left, right))
    assert np.abs(found - (left + right) / 2).max() < 2 / 32768


def test_the_sound_of_a_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(sound("mp4", tone(440, SECONDS, 16000)))
    assert pitch(opened(tmp_path / "a.mp4"), 16000) == pytest.approx(440, abs=2)
    assert refusal(video()) == "it holds no sound"


def test_nothing_is_cut_off() -> None:
    content = sound("flac", tone(440, 2.0, 16000))
    assert len(opened(content, longest=2.0)) == 32000
    assert refusal(content, longest=1.9) == "it lasts more than 1.9 seconds: take the part of it that is meant"


@pytest.mark.parametrize(
    "content", [b"", b"not a sound", b"#EXTM3U\n#EXTINF:1,\nfile:///a.ts\n"], ids=["empty", "text", "hls"]
)
def test_what_is_no_sound_file(content: bytes) -> None:
    assert refusal(content) == "it is of none of the formats that are read, or damaged"


def test_no_sample() -> None:
    content = sound("wav", np.zeros(16))
    assert refusal(content[: content.index(b"data") + 8]) == "it holds no sound"


def test_ten_hours_and_odd_rates_are_claimed() -> None:
    content = sound("flac", tone(440, 1.0, 16000))
    # 36 bits of STREAMINFO say how many samples there are
    word = struct.unpack(">Q", content[18:26])[0]
    claimed = content[:18] + struct.pack(">Q", word >> 36 << 36 | 36000 * 16000) + content[26:]
    assert refusal(claimed) == "it says that it lasts 36000.0 seconds, and ends after 1.0"
    wav = sound("wav", np.zeros(1600))
    place = wav.index(b"fmt ") + 12
    odd = wav[:place] + struct.pack("<I", 4_000_000_000) + wav[place + 4 :]
    assert "samples a second" in refusal(odd) or "damaged" in refusal(odd)

"""Videos become the frames that are asked for, from every container; and what is no whole video is refused."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recordings import SIZE, VIDEO_KINDS, number_of, picture_of, sound, tone, video

from hpa_merge.calibration.media import video as module
from hpa_merge.calibration.media.video import Clip, Timeline, open_video
from hpa_merge.errors import CalibrationError
from hpa_merge.records import Media


def opened(content: bytes | Path, *wanted: int) -> Clip:
    """The wanted frames, or all."""
    return open_video(Media("video", content), "s.jsonl:7", lambda timeline: wanted or range(timeline.total))


def numbers(clip: Clip) -> list[int]:
    return [number_of(frame) for frame in clip.frames]


def refusal(content: bytes) -> str:
    with pytest.raises(CalibrationError) as caught:
        opened(content)
    before = f"s.jsonl:7: the video of {len(content)} bytes in the record cannot be read ("
    assert str(caught.value).startswith(before)
    assert str(caught.value).endswith("): replace it or remove the sample.")
    return str(caught.value)[len(before) : -len("): replace it or remove the sample.")]


@pytest.mark.parametrize("kind", VIDEO_KINDS)
def test_every_container(kind: str) -> None:
    clip = opened(video(kind), 0, 3, 7, 11)
    assert clip.timeline == Timeline(total=12, rate=10.0, size=SIZE)
    assert clip.indices == (0, 3, 7, 11)
    assert clip.frames.dtype == np.uint8
    assert numbers(clip) == [0, 3, 7, 11]
    assert np.abs(clip.frames[2].astype(int) - picture_of(7)).mean() < (32 if kind == "gif" else 8)  # 256 colours


@pytest.mark.parametrize("codec", ["libx265", "mpeg4", "mjpeg"])
def test_other_codecs(codec: str) -> None:
    assert numbers(opened(video("mp4", codec=codec, frames=5))) == [0, 1, 2, 3, 4]


def test_a_file_on_disk(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(video("webm"))  # what it is called says nothing
    assert numbers(opened(tmp_path / "a.mp4", 2, 5)) == [2, 5]


def test_a_single_frame() -> None:
    clip = opened(video(frames=1))
    assert (clip.timeline.total, numbers(clip)) == (1, [0])


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
def test_a_variable_rate_is_a_viewers_clock(kind: str) -> None:
    """Frame 0 is shown for 5 of 8 seconds, so that most of the even steps show it."""
    clip = opened(video(kind, frames=8, times=[0.0, 5.0, 5.5, 6.0, 6.25, 6.5, 6.75, 7.0]))
    assert clip.timeline == Timeline(8, 1.0, SIZE)
    assert numbers(clip) == [0, 0, 0, 0, 0, 2, 5, 7]


@pytest.mark.parametrize("rate", [24, 30])
def test_milliseconds_do_not_change_the_rate(rate: int) -> None:
    clip = opened(video("webm", rate=rate, frames=20))
    assert clip.timeline.rate == rate
    assert numbers(clip) == list(range(20))


def test_long_videos_are_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same frames, without what lies between; but for containers that know no places."""
    content = {kind: video(kind, frames=60, every=10) for kind in ("mp4", "webm", "avi", "mpegts")}
    wanted = (0, 1, 17, 39, 59)
    in_order = {kind: opened(content[kind], *wanted).frames for kind in content}
    monkeypatch.setattr(module, "FAR", 50)
    assert np.array_equal(opened(content["mpegts"], *wanted).frames, in_order.pop("mpegts"))
    monkeypatch.setattr(module, "_in_order", None)  # it is not used
    for kind, frames in in_order.items():
        assert np.array_equal(opened(content[kind], *wanted).frames, frames)


def test_a_packet_without_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """As old AVI files have it: there are fewer frames than packets, and the choice is made again."""
    asked: list[Timeline] = []

    def choose(timeline: Timeline) -> Sequence[int]:
        asked.append(timeline)
        return (timeline.total - 1,)

    found = module._times
    monkeypatch.setattr(module, "_times", lambda *arguments: [*found(*arguments), None])
    clip = open_video(Media("video", video()), "s.jsonl:7", choose)
    assert [timeline.total for timeline in asked] == [13, 12]
    assert numbers(clip) == [11]


@pytest.mark.parametrize(("turn", "matrix"), [(-1, (0, 1, -1, 0)), (1, (0, -1, 1, 0)), (2, (-1, 0, 0, -1))])
def test_a_phones_video_is_turned_upright(turn: int, matrix: Sequence[int]) -> None:
    """The matrix of a track takes (x, y), with y downward, to (ax + cy, bx + dy)."""
    plain = video(frames=3)
    place = plain.index(b"tkhd") + 4 + 40
    a, b, c, d = (value * 65536 for value in matrix)
    turned = plain[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 2**30) + plain[place + 36 :]
    assert np.array_equal(opened(turned).frames, np.rot90(opened(plain).frames, k=turn, axes=(1, 2)))


def test_a_transparent_gif_lies_on_white() -> None:
    frames = [Image.new("RGBA", (16, 16), (200, 0, 0, 255)), Image.new("RGBA", (16, 16), (0, 0, 0, 0))]
    file = io.BytesIO()
    frames[1].save(file, "GIF", save_all=True, append_images=frames[:1], disposal=2, duration=100)
    clip = opened(file.getvalue())
    assert clip.frames[0].min() == 255
    assert clip.frames[1][0, 0].tolist() == [200, 0, 0]


# What is refused


@pytest.mark.parametrize(
    "content",
    [b"", b"not a video", b"#EXTM3U\n#EXTINF:1,\nfile:///a.ts\n", b"ffconcat version 1.0\nfile a.mp4\n"],
    ids=["empty", "text", "hls", "concat"],
)
def test_what_is_no_video_file(content: bytes) -> None:
    assert refusal(content) == "it is of none of the formats that are read, or damaged"


def test_a_playlist_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(video())
    (tmp_path / "b.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    with pytest.raises(CalibrationError, match="it is of none of the formats that are read"):
        opened(tmp_path / "b.mp4")


def test_a_sound_is_no_video() -> None:
    for content in (sound("wav", tone(440, 0.1, 16000)), sound("mp4", tone(440, 0.1, 16000))):
        assert refusal(content) == "it holds no video"


def test_no_frame() -> None:
    assert refusal(video("webm", frames=0)) == "it is of none of the formats that are read, or damaged"
    content = video("mp4", codec="mjpeg")
    place = content.index(b"stsz") + 12
    assert refusal(content[:place] + bytes(4) + content[place + 4 :]) == "it holds no frame"


@pytest.mark.parametrize("kind", ["mp4", "matroska", "avi", "webm"])
@pytest.mark.parametrize("kept", [0.1, 0.5])
def test_files_that_end_early(kind: str, kept: float) -> None:
    content = video(kind, frames=60)
    refusal(content[: int(len(content) * kept)])


def test_damaged_frames() -> None:
    content = bytearray(video("matroska", frames=6, every=1))
    rng = np.random.default_rng(0)
    middle = content.index(b"\xa3", len(content) // 2)
    content[middle + 40 : middle + 300] = rng.bytes(260)
    assert refusal(bytes(content))


def test_a_claim_of_ten_hours() -> None:
    content = video("matroska")
    place = content.index(b"\x44\x89\x88") + 3  # the duration, in milliseconds
    claimed = content[:place] + struct.pack(">d", 36_000_000.0) + content[place + 8 :]
    assert refusal(claimed) == "it says that it lasts 36000.0 seconds, and ends after 1.2"


def test_frames_that_are_too_large_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIXELS", 4 * SIZE[0] * SIZE[1])
    assert numbers(opened(video(), 0, 4, 8, 11)) == [0, 4, 8, 11]
    assert refusal(video()) == ("12 of its frames with 64x48 pixels have more than 12288 together")


@pytest.mark.parametrize("header", [True, False])
def test_a_claim_of_huge_frames(header: bool) -> None:
    """20,000 pixels a side, in the header and in the frames, or in these alone."""
    content = video("avi", codec="mjpeg")
    huge = content.replace(struct.pack(">BHH", 8, *SIZE), struct.pack(">BHH", 8, 20000, 20000))
    if header:
        place = content.index(b"strf") + 12
        huge = huge[:place] + struct.pack("<ii", 20000, 20000) + huge[place + 8 :]
    assert huge != content
    assert "damaged" in refusal(huge)

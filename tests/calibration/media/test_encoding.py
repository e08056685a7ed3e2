"""Videos and sounds become model inputs with real processors, as those make them themselves; and those that cannot."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recordings import exact_video, sound, tone
from tiny_chats import CHATML, HERE
from tiny_processors import text_tokenizer

from hpa_merge.calibration import Encoder, EncoderProcess, process
from hpa_merge.calibration.showing import pieces
from hpa_merge.errors import CalibrationError, CheckpointError
from hpa_merge.isolation import Limits
from hpa_merge.records import Media, Sample, Turn

if find_spec("torchvision") is None:
    pytest.skip("video processors need torchvision", allow_module_level=True)

from families_media import processor
from transformers.video_utils import VideoMetadata

RATE = 16000
FRAMES = np.random.default_rng(0).integers(0, 256, (6, 28, 42, 3), dtype=np.uint8)
NOISE = np.random.default_rng(1).integers(-9000, 9000, 12000) / 32768
VIDEO = Media("video", exact_video(FRAMES, 4))
AUDIO = Media("audio", sound("wav", NOISE))


def chat(*parts: str | Media) -> Sample:
    return Sample(HERE, turns=(Turn("user", parts), Turn("assistant", ("No.",))))


def reference(name: str, text: str, **media: Any) -> dict[str, torch.Tensor]:
    outputs = processor(name)(text=[text], **media, add_special_tokens=False, return_tensors="pt")
    return {key: value for key, value in outputs.items() if isinstance(value, torch.Tensor)}


def metadata(total: int = 6, rate: float = 4.0, indices: list[int] | None = None) -> list[list[VideoMetadata]]:
    chosen = list(range(total)) if indices is None else indices
    return [[VideoMetadata(total, rate, 42, 28, total / rate, frames_indices=chosen)]]


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("qwen2_5_vl", "<|vision_start|><|video_pad|><|vision_end|>"),
        ("qwen3_vl", "<|vision_start|><|video_pad|><|vision_end|>"),
        ("llava_next_video", "<video>\n"),
        ("llava_onevision", "<video>"),
        ("video_llava", "<video>\n"),
        ("internvl", "<video>\n"),
    ],
)
def test_videos(name: str, written: str) -> None:
    """The processor gets the frames that it samples itself, and when they are shown."""
    encoder = Encoder(processor=processor(name))
    found = encoder.prepare(chat(VIDEO, "What?"), 1000)
    assert_same(
        found.inputs,
        reference(name, CHATML.format(f"{written}What?"), videos=[[FRAMES]], video_metadata=metadata()),
    )
    assert found.frames == (4 if name == "qwen3_vl" else 6)  # two a second, and four at least


def test_sounds() -> None:
    found = Encoder(processor=processor("qwen2_audio")).prepare(chat("Hear: ", AUDIO), 1000)
    text = CHATML.format("Hear: <|audio_bos|><|AUDIO|><|audio_eos|>")
    wave = NOISE.astype(np.float32)
    assert_same(found.inputs, reference("qwen2_audio", text, audio=[wave], sampling_rate=RATE))
    assert (found.frames, found.seconds) == (0, 0.75)


def test_videos_and_sounds_together_in_the_child_process(tmp_path: Path) -> None:
    processor("qwen2_5_omni").save_pretrained(tmp_path)
    sample = chat(AUDIO, VIDEO, "What?")
    process = EncoderProcess.from_checkpoint(tmp_path, [chat("Hi?"), sample])
    try:
        found = process.prepare(sample, 1000)
        assert sorted(process.prepare(chat("Hi?"), 1000).inputs) == ["attention_mask", "input_ids"]
    finally:
        process.close()
    text = CHATML.format("<|audio_bos|><|AUDIO|><|audio_eos|><|vision_bos|><|VIDEO|><|vision_eos|>What?")
    media = {"videos": [[FRAMES]], "video_metadata": metadata(), "fps": 4, "audio": [NOISE.astype(np.float32)]}
    assert_same(found.inputs, reference("qwen2_5_omni", text, **media, sampling_rate=RATE))
    assert (found.frames, found.seconds) == (6, 0.75)


@pytest.mark.parametrize(("most", "kept"), [(1, [0]), (2, [0, 3]), (4, [0, 1, 3, 4]), (6, [0, 1, 2, 3, 4, 5])])
def test_at_most_so_many_frames_evenly(most: int, kept: list[int]) -> None:
    encoder = Encoder(processor=processor("llava_onevision"), max_frames=most)
    expected = reference("llava_onevision", CHATML.format("<video>Hi?"), videos=[[FRAMES[kept]]])
    found = encoder.prepare(chat(VIDEO, "Hi?"), 1000)
    assert_same(found.inputs, expected)
    assert found.frames == most


def test_times_of_frames_that_are_left(tmp_path: Path) -> None:
    """Of twelve frames at four a second Qwen3-VL samples six; of these every second one is used."""
    frames = np.random.default_rng(2).integers(0, 256, (12, 28, 42, 3), dtype=np.uint8)
    indices = [0, 4, 9]  # 0, 2, 4 of what it samples
    sampled = processor("qwen3_vl").video_processor.sample_frames(metadata=metadata(12)[0][0], fps=2)
    assert list(sampled[[0, 2, 4]]) == indices
    found = Encoder(processor=processor("qwen3_vl"), max_frames=3).prepare(
        chat(Media("video", exact_video(frames, 4)), "Hi?"), 1000
    )
    text = CHATML.format("<|vision_start|><|video_pad|><|vision_end|>Hi?")
    media = {"videos": [[frames[indices]]], "video_metadata": metadata(12, indices=indices)}
    assert_same(found.inputs, reference("qwen3_vl", text, **media, do_sample_frames=False))


def test_two_videos_in_one_sample() -> None:
    other = Media("video", exact_video(FRAMES[::-1], 4))
    found = Encoder(processor=processor("qwen2_5_vl")).prepare(chat(VIDEO, "And: ", other), 1000)
    place = "<|vision_start|><|video_pad|><|vision_end|>"
    media = {"videos": [[FRAMES, FRAMES[::-1].copy()]], "video_metadata": [metadata()[0] * 2]}
    assert_same(found.inputs, reference("qwen2_5_vl", CHATML.format(f"{place}And: {place}"), **media))
    assert found.frames == 12


def test_a_sample_is_shown_with_its_media() -> None:
    encoder = Encoder(processor=processor("qwen2_5_omni"))
    shown = pieces(encoder, chat(AUDIO, VIDEO, "What?"), 1000)
    media = [(piece.kind, piece.text) for piece in shown if piece.kind in ("audio", "video")]
    assert media == [("audio", f"{AUDIO.name}, 0.8 seconds"), ("video", f"{VIDEO.name}, 6 of 6 frames")]
    of_qwen3 = pieces(Encoder(processor=processor("qwen3_vl")), chat(VIDEO, "What?"), 1000)
    assert [piece.text for piece in of_qwen3 if piece.kind == "video"] == [
        f"{VIDEO.name}, 4 of 6 frames",
        "more of this",
    ]


# What is refused


def refusal(name: str, *parts: str | Media, length: int = 1000) -> str:
    with pytest.raises(CalibrationError) as caught:
        Encoder(processor=processor(name)).encode(chat(*parts), length)
    return str(caught.value)


def test_a_processor_that_takes_none() -> None:
    assert refusal("qwen2_5_vl", AUDIO) == (
        "s.jsonl:7 has sounds, and the checkpoint's processor takes none: remove them."
    )
    assert refusal("qwen2_audio", VIDEO) == (
        "s.jsonl:7 has videos, and the checkpoint's processor takes none: remove them."
    )


@pytest.mark.parametrize(
    ("media", "what", "part"), [(VIDEO, "videos", "video processor"), (AUDIO, "sounds", "feature")]
)
def test_media_with_a_text_model(media: Media, what: str, part: str, tmp_path: Path) -> None:
    text_tokenizer(chat=True).save_pretrained(tmp_path)
    with pytest.raises(CalibrationError) as caught:
        Encoder.from_checkpoint(tmp_path, [chat("Hi?"), chat(media, "Hi?")])
    assert str(caught.value).startswith(f"s.jsonl:7 has {what}, and {tmp_path} has no {part}")


def test_a_checkpoint_without_its_video_processor(tmp_path: Path) -> None:
    from tiny_processors import qwen2_5_vl_processor

    qwen2_5_vl_processor().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        Encoder.from_checkpoint(tmp_path, [chat(VIDEO, "Hi?")])
    assert "and s.jsonl:7 has videos (Can't load video processor" in str(caught.value)


def test_without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert refusal("qwen2_5_vl", VIDEO) == (
        "s.jsonl:7 has video, which PyAV reads: install it with pip install '.[media]' in hpa-merge's checkout, "
        "or remove the sample."
    )


def test_what_takes_too_much_ends_in_its_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a file makes FFmpeg or a processor work, the sample is named and the run has a sentence."""
    processor("llava_onevision").save_pretrained(tmp_path)
    large = Media("video", exact_video(np.zeros((8, 720, 1280, 3), np.uint8), 4))
    monkeypatch.setattr(process, "SAMPLE", Limits(0.01, 60.0))
    child = EncoderProcess.from_checkpoint(tmp_path, [chat(VIDEO)])
    try:
        with pytest.raises(
            CalibrationError, match=r"^s\.jsonl:7: .* too much \(it does not come to an end within 0\.01 s"
        ):
            child.prepare(chat(large, "Hi?"), 1000)
    finally:
        child.close()


def test_a_sound_that_the_extractor_would_cut() -> None:
    long = Media("audio", sound("flac", tone(440, 2.5, RATE)))
    assert "it lasts more than 2 seconds: take the part of it that is meant" in refusal("qwen2_audio", long)


def test_media_that_do_not_fit() -> None:
    assert refusal("qwen2_5_vl", VIDEO, "Hi?", length=8).startswith(
        "s.jsonl:7: its videos and its answer do not fit into 8"
    )


@pytest.mark.parametrize(("name", "media", "what"), [("qwen2_5_vl", VIDEO, "video"), ("qwen2_audio", AUDIO, "audio")])
def test_a_template_that_leaves_them_out(name: str, media: Media, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}|{% endfor %}"
    monkeypatch.setattr(processor(name), "chat_template", template)
    assert f"the checkpoint's chat template leaves its {what}" in refusal(name, media, "Hi?")

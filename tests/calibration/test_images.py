"""Images become model inputs, with real processors that are saved and loaded again; and those that cannot."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_processors as tiny
import torch
from PIL import Image
from tiny_chats import CHATML, STRING_TEMPLATES, chat, decode, image_path, model_path, save  # noqa: F401 - fixtures
from transformers import Qwen2_5_VLConfig

from hpa_merge.calibration import Encoder
from hpa_merge.errors import CalibrationError, CheckpointError
from hpa_merge.records.sample import Media, MediaKind

# Images


def test_llava(model: Path, image: Path) -> None:
    samples = [chat("Hi?"), chat(image, "What is it?", image)]
    encoder = Encoder.from_checkpoint(save(tiny.llava_processor(), model), samples)
    inputs = encoder.encode(samples[1], max_length=100)
    places = "<image>" * tiny.LLAVA_IMAGE_TOKENS + "\n"
    assert decode(inputs) == CHATML.format(f"{places}What is it?{places}")
    assert inputs["pixel_values"].shape == (2, 3, 28, 28)
    assert inputs["pixel_values"].dtype == torch.float32
    assert sorted(encoder.encode(samples[0], max_length=100)) == ["attention_mask", "input_ids"]


def test_llava_without_a_template(model: Path, image: Path) -> None:
    encoder = Encoder.from_checkpoint(save(tiny.llava_processor(chat=False), model), [chat(image, "Hi?")])
    assert decode(encoder.encode(chat(image, "Hi?"), 100)) == "<bos>" + "<image>" * 4 + "\nHi?\nNo."


def check_qwen(folder: Path, image: Path) -> None:
    encoder = Encoder.from_checkpoint(folder, [chat(image, "Hi?")])
    inputs = encoder.encode(chat(image, "Hi?"), max_length=100)
    assert decode(inputs) == CHATML.format("<|vision_start|><|image_pad|><|image_pad|><|vision_end|>Hi?")
    assert inputs["image_grid_thw"].tolist() == [[1, 2, 4]]  # 60x40 pixels become 56x28
    assert inputs["pixel_values"].shape == (8, 3 * 2 * 14 * 14)
    assert inputs["mm_token_type_ids"].sum() == 2
    long = chat(image, "x" * 900)
    cut = encoder.encode(long, max_length=60)
    whole = CHATML.format("<|vision_start|><|image_pad|><|image_pad|><|vision_end|>")
    assert decode(cut).replace("x", "") == whole
    assert cut["mm_token_type_ids"].shape == cut["attention_mask"].shape == (1, 60)
    assert cut["image_grid_thw"].tolist() == [[1, 2, 4]]
    assert torch.equal(cut["pixel_values"], inputs["pixel_values"])


def test_qwen2_5_vl_saved_without_a_video_processor(model: Path, image: Path) -> None:
    check_qwen(save(tiny.qwen2_5_vl_processor(), model), image)


def test_qwen2_5_vl_as_it_lies_on_the_hub(model: Path, image: Path) -> None:
    """preprocessor_config.json for images and videos, chat_template.json; transformers wants torchvision for it."""
    save(tiny.qwen2_5_vl_processor(), model)
    parts = json.loads((model / "processor_config.json").read_text())
    (model / "processor_config.json").unlink()
    (model / "preprocessor_config.json").write_text(
        json.dumps(parts["image_processor"] | {"processor_class": parts["processor_class"]})
    )
    template = model / "chat_template.jinja"
    (model / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
    template.unlink()
    check_qwen(model, image)
    encoder = Encoder.from_checkpoint(model, [chat("Hi?")])
    assert decode(encoder.encode(chat("Hi?"), 100)) == CHATML.format("Hi?")


def test_the_processor_class_may_come_from_the_models_type(model: Path, image: Path) -> None:
    save(tiny.qwen2_5_vl_processor(), model)
    Qwen2_5_VLConfig().save_pretrained(model)
    for name in ("processor_config.json", "tokenizer_config.json"):
        fields = json.loads((model / name).read_text())
        fields.pop("processor_class")
        (model / name).write_text(json.dumps(fields))
    check_qwen(model, image)


def test_gemma3(model: Path, image: Path) -> None:
    encoder = Encoder.from_checkpoint(save(tiny.gemma3_processor(), model), [chat(image, "Hi?")])
    inputs = encoder.encode(chat(image, "Hi?"), max_length=100)
    soft = "<image_soft_token>" * tiny.GEMMA_IMAGE_TOKENS
    assert decode(inputs) == CHATML.format(f"\n\n<start_of_image>{soft}<end_of_image>\n\nHi?")
    assert inputs["token_type_ids"].shape == inputs["input_ids"].shape
    assert inputs["pixel_values"].shape == (1, 3, 28, 28)
    two = encoder.encode(chat(image, "Hi?", image), max_length=100)
    assert two["pixel_values"].shape == (2, 3, 28, 28)
    assert (two["input_ids"] == tiny.IMAGE_SOFT_ID).sum() == 2 * tiny.GEMMA_IMAGE_TOKENS


@pytest.mark.parametrize("build", [tiny.llava_processor, tiny.qwen2_5_vl_processor, tiny.gemma3_processor])
def test_an_image_is_never_cut(build: Callable[[], Any], image: Path) -> None:
    encoder = Encoder(processor=build())
    sample = chat("Look: ", image, "What is it?")
    whole = encoder.encode(sample, max_length=100)["input_ids"].shape[1]
    with pytest.raises(CalibrationError) as caught:
        encoder.encode(sample, max_length=whole - 1)
    assert str(caught.value) == (
        f"s.jsonl:7: its images and its answer do not fit into {whole - 1} tokens, the sample has {whole}: "
        "raise --max-length, or shorten the texts."
    )


def test_a_photograph_is_turned_upright_and_made_rgb(tmp_path: Path) -> None:
    pixels = Image.new("L", (60, 28))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90°
    pixels.save(tmp_path / "a.jpg", exif=exif)
    inputs = Encoder(processor=tiny.qwen2_5_vl_processor()).encode(chat(tmp_path / "a.jpg", "Hi?"), 100)
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 2]]


# What goes wrong with images


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 30_000])  # Pillow warns of the one and refuses the other
def test_decompression_bombs(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    with pytest.raises(CalibrationError) as caught:
        Encoder(processor=tiny.llava_processor()).encode(chat(path, "Hi?"), 100)
    assert str(caught.value) == (
        f"s.jsonl:7: the image {path} has more than {Image.MAX_IMAGE_PIXELS} pixels: use a smaller one."
    )


@pytest.mark.parametrize("content", [b"", b"not an image", png_header(8, 8), b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_unreadable_images(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(CalibrationError) as caught:
        Encoder(processor=tiny.llava_processor()).encode(chat(path, "Hi?"), 100)
    assert str(caught.value).startswith(f"s.jsonl:7: the image {path} cannot be read (")
    assert str(caught.value).endswith("): replace it or remove the sample.")


def test_a_placeholder_too_many_is_refused(image: Path) -> None:
    sample = chat(image, "What is <image>?")
    with pytest.raises(
        CalibrationError, match=r"^s\.jsonl:7: the checkpoint's tokenizer, processor or chat template ref"
    ):
        Encoder(processor=tiny.llava_processor()).encode(sample, 100)


def encode_sample(encoder: Encoder, image: Path) -> None:
    encoder.encode(chat(image, "Hi?"), 100)


def encode_prompt(encoder: Encoder, image: Path) -> None:
    encoder.encode_prompts([chat(image, "Hi?")], reply=True, side="left")


def encode_prompts(encoder: Encoder, image: Path) -> None:
    encoder.encode_prompts([chat(image, "Hi?"), chat(image, "Who?")], reply=True, side="left")


@pytest.mark.parametrize("encode", [encode_sample, encode_prompt, encode_prompts])
@pytest.mark.parametrize("make_processor", [tiny.llava_processor, tiny.qwen2_5_vl_processor])
def test_a_template_that_leaves_images_out(
    make_processor: Callable[[], Any], encode: Callable[[Encoder, Path], None], image: Path
) -> None:
    processor = make_processor()
    processor.chat_template = STRING_TEMPLATES["takes parts only"]
    with pytest.raises(CalibrationError) as caught:
        encode(Encoder(processor=processor), image)
    assert str(caught.value) == (
        "s.jsonl:7: the checkpoint's chat template leaves its images out: give the checkpoint a "
        "template that writes them, or remove the images."
    )


def test_a_processor_without_image_token_and_template(image: Path) -> None:
    processor = tiny.llava_processor(chat=False)
    processor.image_token = None
    with pytest.raises(CalibrationError, match="the processor names no image token and has no chat template"):
        Encoder(processor=processor).encode(chat(image, "Hi?"), 100)


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_other_media_are_refused(kind: MediaKind, tmp_path: Path) -> None:
    sample = chat(Media(kind, tmp_path / "a.mp4"), "Hi?")
    what = {"video": "videos", "audio": "sounds"}[kind]
    with pytest.raises(CalibrationError) as caught:
        Encoder(processor=tiny.llava_processor()).encode(sample, 100)
    assert str(caught.value) == f"s.jsonl:7 has {what}, and the checkpoint's processor takes none: remove them."


# What is missing from a checkpoint


def test_images_with_a_text_model(model: Path, image: Path) -> None:
    save(tiny.text_tokenizer(chat=True), model)
    with pytest.raises(CalibrationError) as caught:
        Encoder.from_checkpoint(model, [chat("Hi?"), chat(image, "Hi?")])
    assert str(caught.value) == (
        f"s.jsonl:7 has images, and {model} has no image processor: "
        "remove the images, or add preprocessor_config.json to the folder if the model takes images."
    )


def test_images_with_a_broken_processor(model: Path, image: Path) -> None:
    save(tiny.llava_processor(), model)
    (model / "processor_config.json").write_text('{"processor_class": "LlavaProcessor"}')
    with pytest.raises(CheckpointError) as caught:
        Encoder.from_checkpoint(model, [chat(image, "Hi?")])
    assert str(caught.value).startswith(
        f"{model} has no processor that transformers can load, and s.jsonl:7 has images (Can't load image processor for"
    )
    assert str(caught.value).endswith("install what it asks for, or remove the images.")

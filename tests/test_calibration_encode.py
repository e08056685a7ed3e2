"""Samples become model inputs, with real tokenizers and processors that are saved and loaded again."""

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
from tokenizers import normalizers
from transformers import Qwen2_5_VLConfig

from hpa_merge.calibration import Encoder, Sample, Turn
from hpa_merge.errors import CalibrationError, CheckpointError

HERE = "s.jsonl:7"
CHATML = "<bos><|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\nNo.<|im_end|>\n"


def chat(*parts: str | Path) -> Sample:
    return Sample(HERE, turns=(Turn("user", parts), Turn("assistant", ("No.",))))


def save(part: Any, folder: Path) -> Path:
    part.save_pretrained(folder)
    return folder


def decode(inputs: dict[str, torch.Tensor]) -> str:
    return tiny.text_tokenizer(chat=False).decode(inputs["input_ids"][0])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.new("RGB", (60, 40), (200, 20, 30)).save(path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "model"


# Text


def test_token_ids_need_no_tokenizer(tmp_path: Path) -> None:
    sample = Sample(HERE, input_ids=(5, 0, 7, 9))
    encoder = Encoder.from_checkpoint(tmp_path / "nothing here", [sample])
    inputs = encoder.encode(sample, max_length=3)
    assert inputs["input_ids"].tolist() == [[5, 0, 7]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1]]
    assert all(tensor.dtype == torch.int64 for tensor in inputs.values())


def test_plain_text_is_tokenised_as_it_is(model: Path) -> None:
    sample = Sample(HERE, text=" hé\n")
    encoder = Encoder.from_checkpoint(save(tiny.text_tokenizer(chat=True), model), [sample])
    inputs = encoder.encode(sample, max_length=100)
    assert decode(inputs) == "<bos> hé\n"
    assert inputs["attention_mask"].tolist() == [[1] * 6]
    assert decode(encoder.encode(sample, max_length=3)) == "<bos> h"


def test_the_chat_template_is_used_and_bos_not_doubled(model: Path) -> None:
    encoder = Encoder.from_checkpoint(save(tiny.text_tokenizer(chat=True), model), [chat("Hi?")])
    inputs = encoder.encode(chat("Hi?"), max_length=100)
    assert decode(inputs) == CHATML.format("Hi?")
    assert inputs["input_ids"][0].tolist().count(tiny.BOS_ID) == 1
    cut = encoder.encode(chat("Hi?"), max_length=10)
    assert all(torch.equal(cut[name], inputs[name][:, :10]) for name in ("input_ids", "attention_mask"))


def test_a_tokenizers_template_writes_its_own_special_tokens(model: Path) -> None:
    tokenizer = tiny.text_tokenizer(chat=True)
    tokenizer.chat_template = tiny.TEXT_TEMPLATE.replace("{{ bos_token }}", "")
    encoder = Encoder.from_checkpoint(save(tokenizer, model), [chat("Hi?")])
    assert decode(encoder.encode(chat("Hi?"), 100)) == CHATML.format("Hi?").removeprefix("<bos>")


def test_a_processors_template_may_leave_the_bos_to_the_tokenizer(model: Path, image: Path) -> None:
    processor = tiny.llava_processor()
    processor.chat_template = processor.chat_template.replace("{{ bos_token }}", "")
    save(processor, model)
    for samples in ([chat("Hi?")], [chat(image, "Hi?"), chat("Hi?")]):
        encoder = Encoder.from_checkpoint(model, samples)
        assert decode(encoder.encode(samples[-1], 100)) == CHATML.format("Hi?")
    assert decode(encoder.encode(samples[0], 100)) == CHATML.format("<image>" * 4 + "\nHi?")


def test_without_a_template_the_texts_are_joined(model: Path) -> None:
    encoder = Encoder.from_checkpoint(save(tiny.text_tokenizer(chat=False), model), [chat("Hi?")])
    assert decode(encoder.encode(chat("Hi?"), 100)) == "<bos>Hi?\nNo."


def test_a_template_that_refuses_names_the_sample(model: Path) -> None:
    sample = Sample(HERE, turns=(Turn("critic", ("Hm.",)),))
    encoder = Encoder.from_checkpoint(save(tiny.text_tokenizer(chat=True), model), [sample])
    with pytest.raises(CalibrationError) as caught:
        encoder.encode(sample, 100)
    assert str(caught.value) == (
        "s.jsonl:7: the checkpoint's tokenizer, processor or chat template refuses this sample "
        "(Unknown role critic): change or remove it."
    )


def test_a_text_without_tokens_is_refused(model: Path) -> None:
    tokenizer = tiny.text_tokenizer(chat=False)
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
    with pytest.raises(
        CalibrationError, match=r"s\.jsonl:7: the tokenizer makes no token of this sample: remove it\.$"
    ):
        Encoder(tokenizer).encode(Sample(HERE, text="\u00a0"), 100)


STRING_TEMPLATES = {
    "concatenates": "{% for m in messages %}{{ m['content'] + '|' }}{% endfor %}",
    "writes the repr of parts": "{% for m in messages %}{{ m['content'] | trim }}|{% endfor %}",
    "writes the JSON of parts": (
        "{% for m in messages %}{{ m['content'] if m['content'] is string else m['content'] | tojson }}|{% endfor %}"
    ),
    "drops parts": "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% endif %}|{% endfor %}",
    "takes both": (
        "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
        "{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endif %}|{% endfor %}"
    ),
    "takes parts only": (
        "{% for m in messages %}{% for p in m['content'] | selectattr('type', 'equalto', 'text') %}"
        "{{ p['text'] }}{% endfor %}|{% endfor %}"
    ),
}


@pytest.mark.parametrize("template", STRING_TEMPLATES.values(), ids=STRING_TEMPLATES.keys())
def test_content_is_given_as_the_template_takes_it(template: str, model: Path, image: Path) -> None:
    tokenizer = tiny.text_tokenizer(chat=True)
    tokenizer.chat_template = template
    assert decode(Encoder(tokenizer).encode(chat("Hi?"), 100)) == "Hi?|No.|"
    processor = tiny.llava_processor()
    processor.chat_template = template
    assert decode(Encoder(processor=processor).encode(chat("Hi?"), 100)) == "<bos>Hi?|No.|"
    if "selectattr" not in template and "p['text']" not in template:  # a template of strings can hold images too
        assert (
            decode(Encoder(processor=processor).encode(chat(image, "Hi?"), 100))
            == "<bos>" + "<image>" * 4 + "\nHi?|No.|"
        )


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
    cut = encoder.encode(chat(image, "Hi?"), max_length=12)
    assert (
        decode(cut) == CHATML.format("<|vision_start|><|image_pad|><|image_pad|><|vision_end|>H").split("<|im_end|>")[0]
    )
    assert cut["mm_token_type_ids"].shape == cut["attention_mask"].shape == (1, 12)
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
    whole = encoder.encode(sample, max_length=100)["input_ids"]
    image_ids = [tiny.IMAGE_ID, tiny.IMAGE_PAD_ID, tiny.IMAGE_SOFT_ID, tiny.END_OF_IMAGE_ID]
    end = int(torch.isin(whole[0], torch.tensor(image_ids)).nonzero().max()) + 1
    assert torch.equal(encoder.encode(sample, max_length=end)["input_ids"], whole[:, :end])
    with pytest.raises(CalibrationError) as caught:
        encoder.encode(sample, max_length=end - 1)
    assert str(caught.value) == (
        f"s.jsonl:7: its images do not fit into {end - 1} tokens, the sample has {whole.shape[1]}: "
        "raise --max-length or shorten the sample."
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


def test_a_template_that_leaves_images_out(image: Path) -> None:
    processor = tiny.llava_processor()
    processor.chat_template = STRING_TEMPLATES["takes parts only"]
    with pytest.raises(CalibrationError) as caught:
        Encoder(processor=processor).encode(chat(image, "Hi?"), 100)
    assert str(caught.value) == (
        "s.jsonl:7: the checkpoint's chat template leaves its images out: give the checkpoint a "
        "template that writes them, or remove the images."
    )


def test_a_processor_without_image_token_and_template(image: Path) -> None:
    processor = tiny.llava_processor(chat=False)
    processor.image_token = None
    with pytest.raises(CalibrationError, match="the processor names no image token and has no chat template"):
        Encoder(processor=processor).encode(chat(image, "Hi?"), 100)


# What is missing from a checkpoint


@pytest.mark.parametrize("config", [None, Qwen2_5_VLConfig])  # Qwen's tokenizer loads from nothing, and is empty
def test_no_tokenizer(model: Path, config: Callable[[], Any] | None) -> None:
    model.mkdir()
    if config is not None:
        save(config(), model)
    with pytest.raises(CheckpointError) as caught:
        Encoder.from_checkpoint(model, [Sample("s.jsonl:1", input_ids=(1,)), Sample("s.jsonl:2", text="x")])
    message = str(caught.value)
    assert message.startswith(f"{model} has no tokenizer ")
    assert "s.jsonl:2 needs" in message
    assert message.endswith("or give input_ids.")


def test_images_with_a_text_model(model: Path, image: Path) -> None:
    save(tiny.text_tokenizer(chat=True), model)
    with pytest.raises(CalibrationError) as caught:
        Encoder.from_checkpoint(model, [chat("Hi?"), chat(image, "Hi?")])
    assert str(caught.value) == (
        f"s.jsonl:7 has images, and {model} has no image processor: "
        "remove the images, or add preprocessor_config.json to the folder if the model sees images."
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


def test_code_in_a_checkpoint_is_not_run(model: Path) -> None:
    save(tiny.text_tokenizer(chat=True), model)
    fields = json.loads((model / "tokenizer_config.json").read_text())
    fields |= {"auto_map": {"AutoTokenizer": ["tok.Evil", None]}, "tokenizer_class": "Evil"}
    (model / "tokenizer_config.json").write_text(json.dumps(fields))
    (model / "tok.py").write_text("raise SystemExit('run')")
    with pytest.raises(CheckpointError, match="contains custom code"):
        Encoder.from_checkpoint(model, [chat("Hi?")])

"""Samples for LLaVA's own layout: its prompts, its tokens, its pixels, written here by hand."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media import shown
from PIL import Image
from tiny_chats import HERE
from tiny_original_llava import MEAN_COLOUR, SYSTEM
from tiny_processors import BOS_ID, llava_processor, text_tokenizer
from transformers import CLIPImageProcessorPil, LlamaTokenizer

from hpa_merge.calibration import Encoder, original_llava_encoder
from hpa_merge.errors import CalibrationError, CheckpointError
from hpa_merge.records import Sample, Turn

LLAMA = {"architectures": ["LlavaLlamaForCausalLM"], "image_aspect_ratio": "pad"}
MISTRAL = {"architectures": ["LlavaMistralForCausalLM"]}
IMAGE = -200


@pytest.fixture(name="picture")
def picture_path(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    image = Image.new("RGB", (60, 20), (200, 20, 30))
    image.putpixel((5, 5), (0, 0, 255))
    image.save(path)
    return path


@pytest.fixture(name="folders")
def both_folders(tmp_path: Path) -> tuple[Path, Path]:
    """The checkpoint's, with a tokenizer, and the tower's, with an image processor."""
    checkpoint, tower = tmp_path / "checkpoint", tmp_path / "clip"
    text_tokenizer(chat=False).save_pretrained(checkpoint)
    llava_processor().image_processor.save_pretrained(tower)
    return checkpoint, tower


def encoder(folders: Sequence[Path], sample: Sample, config: dict[str, Any], conversation: str = "auto") -> Encoder:
    return original_llava_encoder(
        *folders, config, [sample], conversation=conversation, image_token_id=IMAGE, image_tokens=4
    )


def text_of(ids: torch.Tensor) -> str:
    """``[1, n]`` ids as text; four places of an image in a row are one ``[image]``."""
    text = ""
    for is_image, run in groupby(ids[0].tolist(), lambda token: token == IMAGE):
        tokens = list(run)
        text += "[image]" * (len(tokens) // 4) if is_image else text_tokenizer(chat=False).decode(tokens)
    return text


def chat(*turns: tuple[str, tuple[str | Path, ...]]) -> Sample:
    return Sample(HERE, turns=tuple(Turn(role, shown(*parts)) for role, parts in turns))


LLAMA_2_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
PROMPTS = {
    ("llama", "auto"): f"<bos>{SYSTEM} USER: [image]\nWhat? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT: Yes.</s>",
    ("llama", "v1"): f"<bos>{SYSTEM} USER: [image]\nWhat? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT: Yes.</s>",
    ("mistral", "auto"): "<bos>[INST] [image]\nWhat? [/INST] A cat. </s>[INST] Sure? [/INST] Yes. </s>",
    ("llama", "mistral_instruct"): "<bos>[INST] [image]\nWhat? [/INST] A cat. </s>[INST] Sure? [/INST] Yes. </s>",
    ("llama", "llava_llama_2"): (
        f"<bos>[INST] <<SYS>>\n{LLAMA_2_SYSTEM}\n<</SYS>>\n\n[image]\nWhat? [/INST] A cat. </s>"
        "<s>[INST] Sure? [/INST] Yes. </s>"
    ),
}


@pytest.mark.parametrize(("model", "conversation"), PROMPTS)
@pytest.mark.parametrize("image_first", [True, False])
def test_prompts_are_those_of_the_code_base(
    model: str, conversation: str, image_first: bool, folders: tuple[Path, Path], picture: Path
) -> None:
    """An image stands first in its turn, wherever the sample has it."""
    asked: tuple[str | Path, ...] = (picture, "What?") if image_first else ("What?", picture)
    sample = chat(("user", asked), ("assistant", ("A cat.",)), ("user", ("Sure?",)), ("assistant", ("Yes.",)))
    config = LLAMA if model == "llama" else MISTRAL
    inputs = encoder(folders, sample, config, conversation).encode(sample, 2048)
    assert text_of(inputs["input_ids"]) == PROMPTS[model, conversation]
    assert inputs["attention_mask"].shape == inputs["input_ids"].shape
    assert inputs["pixel_values"].shape == (1, 3, 28, 28)


@pytest.mark.parametrize(
    ("system", "begin"), [((" Be brief. ",), "<bos>Be brief. USER: "), ((), "<bos>USER: "), (None, f"<bos>{SYSTEM} ")]
)
def test_a_system_turn_stands_in_the_place_of_the_sentence(
    system: tuple[str, ...] | None, begin: str, folders: tuple[Path, Path]
) -> None:
    turns: list[tuple[str, tuple[str | Path, ...]]] = [("user", ("Hi",)), ("assistant", ("Ho",))]
    sample = chat(*([] if system is None else [("system", system)]), *turns)
    text = text_of(encoder(folders, sample, LLAMA).encode(sample, 2048)["input_ids"])
    assert text.startswith(begin)
    assert text.endswith("USER: Hi ASSISTANT: Ho</s>")


def test_several_images_and_marks_around_them(folders: tuple[Path, Path], picture: Path) -> None:
    sample = chat(("user", (picture, "What?", picture)), ("assistant", ("Two.",)))
    marked = LLAMA | {"mm_use_im_start_end": True}
    inputs = encoder(folders, sample, marked).encode(sample, 2048)
    mark = "<im_start>[image]<im_end>\n"
    assert text_of(inputs["input_ids"]) == f"<bos>{SYSTEM} USER: {mark}{mark}What? ASSISTANT: Two.</s>"
    assert inputs["pixel_values"].shape == (2, 3, 28, 28)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "{{ bos_token }}{% for m in messages %}|{{ m['role'] + ' ' + m['content'] }}{% endfor %}",
            "<bos>|user [image]\nWhat?|assistant A cat.",
        ),
        (
            "{% for m in messages %}|{% for p in m['content'] %}{{ '<image>' if p['type'] == 'image' else p['text'] }}"
            "{% endfor %}{% endfor %}",
            "<bos>|[image]What?|A cat.",
        ),
    ],
)
def test_a_chat_template_of_the_checkpoint_is_used(
    template: str, expected: str, folders: tuple[Path, Path], picture: Path
) -> None:
    """Of one string for a turn, and of parts; but not where other prompts are asked for."""
    tokenizer = text_tokenizer(chat=False)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folders[0])
    sample = chat(("user", (picture, "What?")), ("assistant", ("A cat.",)))
    assert text_of(encoder(folders, sample, LLAMA).encode(sample, 2048)["input_ids"]) == expected
    asked = encoder(folders, sample, LLAMA, "v1").encode(sample, 2048)["input_ids"]
    assert text_of(asked) == f"<bos>{SYSTEM} USER: [image]\nWhat? ASSISTANT: A cat.</s>"


@pytest.mark.parametrize("settings", [{}, {"add_bos_token": True}])
def test_the_text_behind_an_image_is_tokenised_by_itself(
    settings: dict[str, bool], folders: tuple[Path, Path], picture: Path
) -> None:
    """Llama's tokenizer puts a space in front of each text that it is given, and there is one ``<s>`` in all."""
    letters = sorted({*SYSTEM, *"USERASSISTANT: \n?</s>Whatc."} - {" ", "\n"})
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    LlamaTokenizer(vocab=vocabulary, merges=[], **settings).save_pretrained(folders[0])
    sample = chat(("user", (picture, "What?")), ("assistant", ("A cat.",)))
    (ids,) = encoder(folders, sample, LLAMA).encode(sample, 2048)["input_ids"].tolist()
    found = ["[image]" if token == IMAGE else pieces[token] for token in ids]
    front = ["<s>", "▁", *f"{SYSTEM} USER: ".replace(" ", "▁")]
    behind = ["▁", "<0x0A>", *"What? ASSISTANT: A cat.".replace(" ", "▁"), "</s>"]
    assert found == [*front, *["[image]"] * 4, *behind]


@pytest.mark.parametrize(("ratio", "squared"), [("pad", True), ("square", False), (None, False)])
def test_pixels_are_those_of_clip(ratio: str | None, squared: bool, folders: tuple[Path, Path], picture: Path) -> None:
    sample = chat(("user", (picture, "What?")), ("assistant", ("A cat.",)))
    pixels = encoder(folders, sample, LLAMA | {"image_aspect_ratio": ratio}).encode(sample, 2048)["pixel_values"]
    with Image.open(picture) as opened:
        array = np.asarray(opened.convert("RGB"))
    if squared:
        array = np.full((60, 60, 3), MEAN_COLOUR, dtype=np.uint8)
        with Image.open(picture) as opened:
            array[20:40] = np.asarray(opened.convert("RGB"))
    processor = CLIPImageProcessorPil.from_pretrained(folders[1])
    expected = processor(Image.fromarray(array), return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels, expected)
    corner = torch.tensor([122, 116, 104]) / 255 - torch.tensor(processor.image_mean)
    margin = corner / torch.tensor(processor.image_std)
    assert bool(((pixels[0, :, 0, 0] - margin).abs() < 1e-5).all()) == squared


def test_texts_and_tokens_need_no_image_processor(folders: tuple[Path, Path]) -> None:
    (folders[1] / "preprocessor_config.json").unlink()
    sample = Sample(HERE, text="No <image> here.")
    found = encoder(folders, sample, LLAMA).encode(sample, 2048)
    assert text_of(found["input_ids"]) == "<bos>No <image> here."
    ids = Sample(HERE, input_ids=(BOS_ID, 20, 21))
    found = encoder([Path("nowhere"), Path("nowhere")], ids, LLAMA).encode(ids, 2)
    assert found["input_ids"].tolist() == [[BOS_ID, 20]]


def test_an_image_processor_beside_the_checkpoint_serves_too(folders: tuple[Path, Path], picture: Path) -> None:
    (folders[1] / "preprocessor_config.json").rename(folders[0] / "preprocessor_config.json")
    sample = chat(("user", (picture, "What?")), ("assistant", ("A cat.",)))
    assert encoder(folders, sample, LLAMA).encode(sample, 2048)["pixel_values"].shape == (1, 3, 28, 28)


def test_without_an_image_processor_there_is_a_sentence(folders: tuple[Path, Path], picture: Path) -> None:
    path = folders[1] / "preprocessor_config.json"
    sample = chat(("user", (picture, "What?")), ("assistant", ("A cat.",)))
    path.write_text("[")
    with pytest.raises(CheckpointError, match=f"{folders[1]} has no image processor that transformers can load, and "):
        encoder(folders, sample, LLAMA)
    path.unlink()
    with pytest.raises(CheckpointError) as caught:
        encoder(folders, sample, LLAMA)
    assert str(caught.value) == (
        f"the vision tower {folders[1]} has no preprocessor_config.json, and {HERE} has images: "
        "add that file of the CLIP model, or remove the images."
    )


def test_a_tokenizer_model_needs_sentencepiece(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Vicuna's folders have no other file."""
    for path in folders[0].iterdir():
        path.unlink()
    (folders[0] / "tokenizer.model").write_bytes(b"\n")
    (folders[0] / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    monkeypatch.setattr("hpa_merge.calibration.loading.is_sentencepiece_available", lambda: False)
    sample = chat(("user", ("Hi",)), ("assistant", ("Ho",)))
    with pytest.raises(CheckpointError) as caught:
        encoder(folders, sample, LLAMA)
    assert str(caught.value) == (
        f"{folders[0]} has its tokenizer in tokenizer.model alone, and {HERE} needs it: "
        "install what reads that file, with pip install sentencepiece protobuf."
    )


def test_what_a_sample_cannot_be_is_said(folders: tuple[Path, Path], picture: Path) -> None:
    for turns, complaint in (
        ((("user", (picture, "an <image>?")), ("assistant", ("Ho",))), "its text has 2 times <image> for 1 image"),
        ((("user", ("Hi",)), ("tool", ("Ho",))), "it has a turn of the role tool"),
    ):
        sample = chat(*turns)
        with pytest.raises(CalibrationError, match=complaint) as caught:
            encoder(folders, sample, LLAMA).encode(sample, 2048)
        assert str(caught.value).startswith(f"{HERE}: ")
    sample = chat(("user", (picture, "What?")), ("assistant", ("A cat.",)))
    with pytest.raises(CalibrationError, match="its images and its answer do not fit into 40 tokens"):
        encoder(folders, sample, LLAMA).encode(sample, 40)

"""Texts become model inputs, with real tokenizers and processors that are saved and loaded again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_processors as tiny
import torch
from tiny_chats import CHATML, HERE, STRING_TEMPLATES, chat, decode, image_path, model_path, save  # noqa: F401 - fixtures
from tokenizers import normalizers
from transformers import Qwen2_5_VLConfig

from hpa_merge.calibration import Encoder
from hpa_merge.errors import CalibrationError, CheckpointError
from hpa_merge.records import Sample, Turn

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


def test_code_in_a_checkpoint_is_not_run(model: Path) -> None:
    save(tiny.text_tokenizer(chat=True), model)
    fields = json.loads((model / "tokenizer_config.json").read_text())
    fields |= {"auto_map": {"AutoTokenizer": ["tok.Evil", None]}, "tokenizer_class": "Evil"}
    (model / "tokenizer_config.json").write_text(json.dumps(fields))
    (model / "tok.py").write_text("raise SystemExit('run')")
    with pytest.raises(CheckpointError, match=r"brings code of its own for its tokenizer \(tok\.py, named by auto_map"):
        Encoder.from_checkpoint(model, [chat("Hi?")])

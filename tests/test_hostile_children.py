"""What a stranger's tokenizer, processor, image or regular expression can do without end: one sentence for each."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_processors as tiny_parts
from cases import Call, assert_refused
from PIL import Image
from tiny_chats import chat, model_path, save  # noqa: F401 - fixtures

from hpa_merge.calibration import EncoderProcess, process
from hpa_merge.errors import CalibrationError, CheckpointError, HPAError
from hpa_merge.isolation import Limits
from hpa_merge.records import Sample

pytestmark = pytest.mark.gate

HERE = "s.jsonl:7"
COMPUTING, MEMORY = 2.0, 2**29


@pytest.fixture(autouse=True)
def _tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a tiny tokenizer keeps easily, so that no test takes the time and the memory of the real ones."""
    limits = Limits(COMPUTING, 600.0)
    monkeypatch.setattr(process, "LOADING", limits)
    monkeypatch.setattr(process, "SAMPLE", limits)
    monkeypatch.setattr(process, "MEMORY", MEMORY)


def refused(folder: Path, sample: Sample) -> HPAError:
    """What is said of a sample, or of what should encode it."""
    encoder = EncoderProcess.from_checkpoint(folder, [sample])
    with pytest.raises((CalibrationError, CheckpointError)) as caught:
        encoder.prepare(sample, 100)
    encoder.close()
    assert "\n" not in str(caught.value)
    assert HERE in str(caught.value)
    return caught.value


def over(error: HPAError) -> bool:
    """Whether it is said that a limit was reached."""
    words = ("does not come to an end within", "of memory", "breaks a library", "its result takes more")
    return any(word in str(error) for word in words)


# --- tokenizers -------------------------------------------------------------------------------------------------------


def regex(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def replace(text: str, by: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": text}, "content": by}


def doubling_template(content: dict[str, Any]) -> None:
    piece = {"Sequence": {"id": "A", "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [piece] * 3_000_000,
        "pair": [piece, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {},
    }


TOKENIZERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "60 doubling normalizers": lambda content: content.update(
        normalizer={"type": "Sequence", "normalizers": [replace("a", "aa")] * 60}
    ),
    "a normalizer that grows": lambda content: content.update(
        normalizer={"type": "Sequence", "normalizers": [replace("a", "a" * 10**5)] * 3}
    ),
    "a regular expression that backtracks": lambda content: content.update(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [regex("(?:a{1,1000}){2}[^a]"), content["pre_tokenizer"]]}
    ),
    "a template of millions of pieces": doubling_template,
    "200,000 added tokens": lambda content: content["added_tokens"].extend(
        {
            "id": 1000 + number,
            "content": f"<extra {number}>",
            "single_word": True,
            "lstrip": True,
            "rstrip": True,
            "normalized": True,
            "special": number % 2 == 0,
        }
        for number in range(200_000)
    ),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_without_bounds(name: str, model: Path) -> None:
    save(tiny_parts.text_tokenizer(chat=False), model)
    path = model / "tokenizer.json"
    content = json.loads(path.read_text())
    TOKENIZERS[name](content)
    path.write_text(json.dumps(content))
    error = refused(model, Sample(HERE, text="a" * 40_000))
    assert over(error), error


def test_prompts_and_answers_without_bounds(model: Path) -> None:
    """What ``eval`` asks a model, and what it makes of the answers."""
    save(tiny_parts.text_tokenizer(chat=True), model)
    path = model / "tokenizer.json"
    content = json.loads(path.read_text())
    content["decoder"] = {"type": "Sequence", "decoders": [content["decoder"], *[replace("a", "aa")] * 60]}
    path.write_text(json.dumps(content))
    prompts = [chat("a"), chat("b")]
    encoder = EncoderProcess.from_checkpoint(model, prompts)
    inputs = encoder.encode_prompts(prompts, reply=True, side="left")
    with pytest.raises(CheckpointError) as caught:
        encoder.decode(inputs["input_ids"])
    assert str(caught.value).startswith(f"{model}'s tokenizer cannot turn an answer into text (it ")
    assert over(caught.value)
    encoder.close()

    (model / "chat_template.jinja").write_text(
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    )
    encoder = EncoderProcess.from_checkpoint(model, prompts)
    with pytest.raises(CalibrationError) as refusal:
        encoder.encode_prompts(prompts, reply=True, side="left")
    assert str(refusal.value).startswith(f"{HERE} and the 1 after it: what the checkpoint's tokenizer")
    assert over(refusal.value)
    encoder.close()


def test_a_tokenizer_that_is_a_pipe(model: Path) -> None:
    save(tiny_parts.text_tokenizer(chat=False), model)
    (model / "tokenizer.json").unlink()
    os.mkfifo(model / "tokenizer.json")
    error = refused(model, Sample(HERE, text="a"))
    assert "tokenizer.json is a pipe or a device" in str(error)


def test_a_configuration_that_is_a_pipe_is_not_waited_for(model: Path) -> None:
    """A merge reads config.json itself first, and refuses this one."""
    save(tiny_parts.text_tokenizer(chat=True), model)
    (model / "config.json").unlink(missing_ok=True)
    os.mkfifo(model / "config.json")
    sample = Sample(HERE, text="a")
    encoder = EncoderProcess.from_checkpoint(model, [sample])
    assert encoder.prepare(sample, 100).inputs["input_ids"].numel()
    encoder.close()


# --- processors and images --------------------------------------------------------------------------------------------

PROCESSORS: dict[str, Callable[[dict[str, Any]], object]] = {
    "10⁹ additional tokens": lambda content: content.update(num_additional_image_tokens=10**9),
    "the shortest edge": lambda content: content["image_processor"].update(
        size={"shortest_edge": 50_000}, do_center_crop=False
    ),
    "height and width": lambda content: content["image_processor"].update(
        size={"height": 60_000, "width": 60_000}, do_center_crop=False
    ),
    "a crop beyond the image": lambda content: content["image_processor"].update(
        crop_size={"height": 50_000, "width": 50_000}
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processor_without_bounds(name: str, model: Path, tmp_path: Path) -> None:
    save(tiny_parts.llava_processor(), model)
    path = model / "processor_config.json"
    content = json.loads(path.read_text())
    PROCESSORS[name](content)
    path.write_text(json.dumps(content))
    picture = tmp_path / "i.png"
    Image.new("RGB", (40, 40)).save(picture)
    error = refused(model, chat(picture, "Hi?"))
    assert over(error), error


def test_an_image_within_its_bounds_that_takes_gigabytes(model: Path, tmp_path: Path) -> None:
    """A file of some kilobytes, of as many pixels as are allowed."""
    save(tiny_parts.llava_processor(), model)
    side = math.isqrt(Image.MAX_IMAGE_PIXELS or 0)
    picture = tmp_path / "i.png"
    Image.new("1", (side, side)).save(picture, optimize=True)
    assert picture.stat().st_size < 2**20
    error = refused(model, chat(picture, picture, "Hi?"))
    assert "pixels together" in str(error) or over(error), error


def test_many_samples_that_are_large_together(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is within its bounds; the memory of the machine is not for all of them."""
    monkeypatch.setattr("hpa_merge.engine.encoding.free_bytes", lambda device: 20_000)
    assert_refused(make_call("llava"), capsys, "GB were free: use fewer or smaller ones.")


# --- vocabularies -----------------------------------------------------------------------------------------------------


def test_a_vocabulary_that_takes_too_much(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpa_merge.inputs.vocabulary.READING", Limits(0.01, 600.0))
    call = make_call()
    path = call.new / "tokenizer.json"
    content = json.loads(path.read_text())
    TOKENIZERS["200,000 added tokens"](content)
    path.write_text(json.dumps(content))
    call.safety = call.task = call.calibration({"input_ids": [1, 2, 3]})
    assert_refused(call, capsys, "the tokenizer.json of OLD or NEW cannot be read (")


# --- adapters ---------------------------------------------------------------------------------------------------------

BACKTRACKING = r"(.*[a-z_.0-9]+)+!"

ADAPTERS: dict[str, dict[str, Any]] = {
    "target_modules": {"target_modules": BACKTRACKING},
    "exclude_modules": {"exclude_modules": BACKTRACKING},
    "a key of rank_pattern": {"rank_pattern": {BACKTRACKING: 4}},
    "a key of alpha_pattern": {"alpha_pattern": {BACKTRACKING: 4}},
    "layers_pattern": {"layers_to_transform": [0], "layers_pattern": [BACKTRACKING]},
    "modules_to_save": {"modules_to_save": [BACKTRACKING]},
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_without_bounds(
    name: str,
    make_call: Callable[..., Call],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("peft")
    from adapters import lora, make_adapter

    monkeypatch.setattr("hpa_merge.model.adapter_trial.BUILDING", Limits(3.0, 600.0))
    call = make_call()
    call.new = make_adapter(call.old, "llama", lora(), call.folder / "adapter")
    path = call.new / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | ADAPTERS[name]))
    assert_refused(call, capsys, "does not come to an end within 3 seconds of computing")

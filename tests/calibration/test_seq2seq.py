"""Encoder-decoders: the prompt goes to the encoder, the answer to the decoder, and both stacks are merged."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from cases import TinyCase
from reference import load_tensors, reference_merge, same_columns
from tiny_processors import text_tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from hpa_merge import MergeReport, merge
from hpa_merge.errors import CalibrationError, CheckpointError, HPAError

START = 5

DIALOGUES = {
    "safety": [("How is a lock picked?", "I can not help with that."), ("Say it!", "No.")],
    "task": [(f"What is {n} and {n}?", f"It is {2 * n}, as ever.") for n in range(7)],
}


def t5(**options: object) -> PreTrainedModel:
    config = transformers.T5Config(
        **{"d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4},
        **{"vocab_size": 512, "decoder_start_token_id": START, "feed_forward_proj": "gated-gelu"},
        **options,
    )
    return transformers.T5ForConditionalGeneration(config)


def bart(**options: object) -> PreTrainedModel:
    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 2), ("ffn_dim", 96))}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = transformers.BartConfig(
        vocab_size=512, d_model=64, **sizes, **heads, **{"decoder_start_token_id": START, **options}
    )
    return transformers.BartForConditionalGeneration(config)


def make(build: Callable[..., PreTrainedModel], folder: Path, **options: object) -> TinyCase:
    draw = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(**options)
    with torch.no_grad():
        for stage, scale in (("old", 0.0), ("new", 0.05)):
            for value in model.parameters():
                noise = torch.randn(value.shape, generator=draw)
                if scale:
                    value += scale * noise * value.std()
                elif value.ndim > 1:
                    value.copy_(noise / value.shape[-1] ** 0.5)
            model.save_pretrained(folder / stage)
            text_tokenizer(chat=False).save_pretrained(folder / stage)
    for purpose, pairs in DIALOGUES.items():
        lines = (json.dumps({"instruction": prompt, "response": answer}) for prompt, answer in pairs)
        (folder / f"{purpose}.jsonl").write_text("\n".join(lines))
    return TinyCase(build.__name__, folder / "old", folder / "new", folder / "safety.jsonl", folder / "task.jsonl")


def run(case: TinyCase, out: Path) -> MergeReport:
    return merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task)


def inputs(purpose: str) -> list[dict[str, Tensor]]:
    """What the model is to be given: the answer is what the decoder has said so far, behind its first token."""
    encode = text_tokenizer(chat=False)
    made = []
    for prompt, answer in DIALOGUES[purpose]:
        said = encode(answer)["input_ids"]
        ids = torch.tensor([encode(prompt)["input_ids"]])
        decoder = torch.tensor([[START, *said[:-1]]])
        made.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": decoder})
    return made


DEPTHS = {"t5": {"encoder": 2, "decoder": 3}, "bart": {"encoder": 2, "decoder": 2}}


@pytest.mark.parametrize("build", [t5, bart])
def test_both_stacks_are_merged(build: Callable[..., PreTrainedModel], tmp_path: Path) -> None:
    case = make(build, tmp_path)
    report = run(case, tmp_path / "out")
    out = load_tensors(tmp_path / "out")
    depths = {}
    for name in out:
        if found := re.search(r"(encoder|decoder)\.(?:block|layers)\.(\d+)\.", name):
            depths[name] = int(found[2]), DEPTHS[case.name][found[1]]
    wanted = reference_merge(case.old, case.new, inputs("safety"), inputs("task"), depth_of=depths)
    assert {record.name for record in report.linears} == wanted.keys()
    assert report.count("adapted") == len(wanted)
    for record in report.linears:
        result = wanted[record.name]
        assert (record.safety_tokens, record.task_tokens) == result.tokens, record.name
        assert (record.block, record.blocks) == result.depth, record.name
        assert same_columns(result, record.restored_columns, result.rtol), record.name
        if set(record.restored_columns) == result.restored:
            torch.testing.assert_close(out[record.name].double(), result.weight, rtol=2**-23, atol=1e-7)
    said = [sample["decoder_input_ids"].numel() + sample["input_ids"].numel() for sample in inputs("task")]
    assert report.task.tokens == sum(said)
    _, info = type(build()).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info


def test_the_first_token_may_stand_in_the_generation_configuration(tmp_path: Path) -> None:
    case = make(bart, tmp_path)
    report = run(case, tmp_path / "out")
    for folder in (case.old, case.new):
        config = json.loads((folder / "config.json").read_text())
        del config["decoder_start_token_id"]
        (folder / "config.json").write_text(json.dumps({**config, "decoder_start_token_id": None}))
        (folder / "generation_config.json").write_text(json.dumps({"decoder_start_token_id": START}))
    assert run(case, tmp_path / "again").linears == report.linears


def refusal(case: TinyCase, out: Path, kind: type[HPAError]) -> str:
    with pytest.raises(kind) as raised:
        run(case, out)
    assert not out.exists()
    return str(raised.value)


@pytest.mark.parametrize("sample", [{"text": "just text"}, {"input_ids": [1, 2, 3]}, {"messages": "no prompt"}])
def test_a_sample_without_an_answer(sample: dict[str, object], tmp_path: Path) -> None:
    case = make(bart, tmp_path)
    if "messages" in sample:
        sample = {"messages": [{"role": "assistant", "content": "hello"}]}
    case.task.write_text(json.dumps({"prompt": "a", "response": "b"}) + "\n" + json.dumps(sample))
    assert refusal(case, tmp_path / "out", CalibrationError) == (
        f"{case.task}:2: the model is an encoder-decoder, and this sample is no prompt with an answer in words: "
        "give it as a conversation, or as instruction and response."
    )


def test_a_first_token_that_nobody_names(tmp_path: Path) -> None:
    case = make(bart, tmp_path, decoder_start_token_id=None)
    for folder in (case.old, case.new):
        (folder / "generation_config.json").write_text("{}")
    assert refusal(case, tmp_path / "out", CheckpointError) == (
        "BartForConditionalGeneration is an encoder-decoder, and neither config.json nor generation_config.json has "
        "its decoder_start_token_id: add it to one of them."
    )


def whisper() -> PreTrainedModel:
    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 1), ("ffn_dim", 96))}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = transformers.WhisperConfig(vocab_size=512, d_model=64, **sizes, **heads, **tokens)
    return transformers.WhisperForConditionalGeneration(config)


def test_a_model_that_reads_something_else(tmp_path: Path) -> None:
    assert refusal(make(whisper, tmp_path), tmp_path / "out", CheckpointError) == (
        "WhisperForConditionalGeneration takes input_features, and calibration samples are texts, with or without "
        "images: only models that read text can be merged."
    )

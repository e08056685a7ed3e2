"""Answers of models that are loaded here, held against transformers' own generation over several architectures."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from cases import TinyCase
from evaluation_cases import jsonl
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES, VISION_ARCHITECTURES, model_inputs, processor_of
from tiny_processors import EOS_ID, text_tokenizer
from transformers import T5Config, T5ForConditionalGeneration

from hpa_merge.calibration import EncoderProcess
from hpa_merge.calibration.encode import Encoder
from hpa_merge.errors import CalibrationError, CheckpointError, EvaluationError
from hpa_merge.evaluation import running
from hpa_merge.evaluation.generate import LocalModel
from hpa_merge.evaluation.prompts import PromptFile
from hpa_merge.evaluation.running import Answering
from hpa_merge.evaluation.thinking import MARKS, Answer, read_answer
from hpa_merge.records import Sample, Turn

CPU = torch.device("cpu")


def opened(folder: Path, example: Sample, **options: int) -> LocalModel:
    return LocalModel(folder, example, device=CPU, **options)


@pytest.fixture
def as_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are the ids of their tokens, so that white space, special tokens and what has no text count too."""

    def decode(encoder: EncoderProcess, ids: torch.Tensor, kept: frozenset[str]) -> list[str]:
        return [written(row) for row in ids]

    monkeypatch.setattr(EncoderProcess, "decode", decode)


def written(ids: torch.Tensor) -> str:
    """Ids ``[t]`` up to the end of the answer."""
    tokens = ids.tolist()
    end = tokens.index(EOS_ID) + 1 if EOS_ID in tokens else len(tokens)
    return " ".join(map(str, tokens[:end]))


def ask(text: str) -> Sample:
    return Sample("t.jsonl:1", turns=(Turn("user", (text,)),))


def samples(case: TinyCase) -> list[Sample]:
    """The prompts of both calibration files: texts of many lengths, and some images where the model sees them."""
    return [prompt.sample for path in (case.safety, case.task) for prompt in PromptFile(path, "task")]


@pytest.mark.usefixtures("as_ids")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_prompt_at_a_time_is_what_transformers_generates(
    name: str, tiny: Callable[..., TinyCase], tmp_path: Path
) -> None:
    case = tiny(name)
    prompts = samples(case)[2:6]
    ours = opened(case.old, prompts[0], batch_size=1, max_new_tokens=12).answer(prompts)

    asked = tmp_path / "calibration"  # the same prompts as the tests of the reference encode them, without the answers
    shutil.copytree(case.safety.parent, asked)
    records = [json.loads(line) for path in (case.safety, case.task) for line in path.read_text().splitlines()][2:6]
    for record in records:
        if name == "gpt2":
            record["response"] = ""
        else:
            record["messages"].pop()
    inputs = model_inputs(name, jsonl(asked / "asked.jsonl", *records))
    model = (
        transformers.AutoModelForImageTextToText if name in VISION_ARCHITECTURES else transformers.AutoModelForCausalLM
    )
    loaded = model.from_pretrained(case.old).eval()
    theirs = []
    for values in inputs:
        ids = loaded.generate(**values, do_sample=False, max_new_tokens=12)
        theirs.append(written(ids[0, values["input_ids"].shape[1] :]))
    assert ours == theirs
    assert all(theirs)


@pytest.mark.usefixtures("as_ids")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_batch_answers_as_its_prompts_alone(name: str, tiny: Callable[..., TinyCase]) -> None:
    case = tiny(name)
    prompts = samples(case)
    example = next((prompt for prompt in prompts if prompt.images), prompts[0])
    alone = opened(case.new, example, batch_size=1, max_new_tokens=12).answer(prompts)
    together = opened(case.new, example, batch_size=4, max_new_tokens=12)
    assert together.answer(prompts) == alone
    assert together.answer(prompts[::-1]) == alone[::-1]
    assert len(set(alone)) > 1 or name == "gemma3"  # which repeats the last token of its template
    lengths = {len(prompt.turns[-1].parts[-1]) for prompt in prompts}  # type: ignore[arg-type]
    assert len(lengths) > 3  # so that there was something to pad


def test_greedy_whatever_the_checkpoint_prefers(tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    case = tiny("llama").copied_to(tmp_path)
    prompts = samples(case)
    path = case.old / "generation_config.json"
    before = opened(case.old, prompts[0], max_new_tokens=8).answer(prompts)
    theirs = json.loads(path.read_text())
    for wanted in (
        {"do_sample": True, "temperature": 5.0, "top_p": 0.9, "top_k": 40, "max_length": 3},
        {"return_dict_in_generate": True, "output_scores": True, "output_hidden_states": True},
        {"num_return_sequences": 3, "num_beams": 3, "early_stopping": True},
        {
            "forced_eos_token_id": 5,
            "suppress_tokens": list(range(50)),
            "bad_words_ids": [[7]],
            "sequence_bias": [[[9], 9.0]],
        },
        {"repetition_penalty": 50.0, "no_repeat_ngram_size": 1, "min_new_tokens": 8, "guidance_scale": 3.0},
        {"max_time": 0.0, "max_new_tokens": 1, "stop_strings": ["a", "e", "i"], "token_healing": True},
        {"cache_implementation": "static", "use_cache": False, "prompt_lookup_num_tokens": 3, "low_memory": True},
        {"pad_token_id": -1, "bos_token_id": 10**30, "made_up": {"a": 1}},
    ):
        path.write_text(json.dumps(theirs | wanted))
        assert opened(case.old, prompts[0], max_new_tokens=8).answer(prompts) == before, wanted


@pytest.mark.parametrize("end", ["x", -1, 10**30, [], {}, True, [None, 1.5]])
def test_an_end_that_is_no_token_is_the_tokenizers(end: object, tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    case = tiny("llama").copied_to(tmp_path)
    prompts = samples(case)
    path = case.old / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": None}))
    before = opened(case.old, prompts[0], max_new_tokens=8).answer(prompts)
    path.write_text(json.dumps({"eos_token_id": end}))
    assert opened(case.old, prompts[0], max_new_tokens=8).answer(prompts) == before


def test_a_template_that_is_given_writes_the_prompts(tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    """As if it were the checkpoint's own."""
    case, file, own = tiny("llama"), tmp_path / "t.jinja", tmp_path / "own"
    text = "{{ bos_token }}{{ strftime_now('%d') }}{{ mood }}{% for m in messages %}{{ m.content }}{% endfor %}"
    file.write_text(text)
    shutil.copytree(case.old, own)
    (own / "chat_template.jinja").write_text(text.replace("{{ mood }}", "7").replace("{{ strftime_now('%d') }}", "26"))
    how = Answering("cpu", 1, 6, chat_template=str(file), template_arg=("mood=7",))
    plain = Answering("cpu", 1, 6)
    with running.opened(str(case.old), ask("Hi?"), how) as given, running.opened(str(own), ask("Hi?"), plain) as its:
        assert given.answer([ask("Hi?")]) == its.answer([ask("Hi?")])


def test_an_endpoint_has_a_template_of_its_own() -> None:
    for options in ({"chat_template": "t.jinja"}, {"template_arg": ("a=1",)}, {"template_date": "2031-03-01"}):
        with pytest.raises(EvaluationError, match="and the endpoint writes prompts with its own: leave out --chat"):
            Answering(endpoint="http://localhost:8000/v1", **options)


def test_the_checkpoint_is_only_read(tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    case = tiny("gpt2").copied_to(tmp_path)  # whose tokenizer has to be given a padding token
    files = {path: path.read_bytes() for path in case.old.iterdir()}
    prompts = samples(case)
    opened(case.old, prompts[0], max_new_tokens=2).answer(prompts)
    assert {path: path.read_bytes() for path in case.old.iterdir()} == files


def test_an_encoder_decoder(tmp_path: Path) -> None:
    config = T5Config(
        vocab_size=512, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0, pad_token_id=0
    )
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    model.save_pretrained(tmp_path / "t5")
    text_tokenizer(chat=False).save_pretrained(tmp_path / "t5")
    texts = ["how?", "what is it that you want to hear of me", "who goes there"]
    alone = opened(tmp_path / "t5", ask("a"), batch_size=1, max_new_tokens=10).answer([ask(text) for text in texts])
    together = opened(tmp_path / "t5", ask("a"), batch_size=3, max_new_tokens=10).answer([ask(t) for t in texts])
    tokenizer = text_tokenizer(chat=False)
    theirs = [
        tokenizer.decode(
            model.generate(**_known(tokenizer(text, return_tensors="pt")), max_new_tokens=10)[0],
            skip_special_tokens=True,
        ).strip()
        for text in texts
    ]
    assert together == alone == theirs
    assert len(set(alone)) > 1


def _known(inputs: dict) -> dict:
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


@pytest.mark.usefixtures("as_ids")
def test_an_answer_ends_at_the_last_position(tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    case = tiny("llama").copied_to(tmp_path)
    config = json.loads((case.old / "config.json").read_text())
    (case.old / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))
    written = "<bos><|im_start|>user\n{}<|im_end|>\n"
    room = 64 - len(processor_of("llama")(written.format(""), add_special_tokens=False)["input_ids"])
    model = opened(case.old, ask("a"), max_new_tokens=99)
    answers = model.answer([ask("b" * (room - left)) for left in (1, 2, 5)])
    assert [len(answer.split()) for answer in answers] == [1, 2, 5]
    with pytest.raises(EvaluationError, match=r"^t\.jsonl:1: the prompt has 64 tokens, and .* has 64 positions for it"):
        model.answer([ask("a"), ask("b" * room)])


def test_images_for_a_model_without_eyes(tiny: Callable[..., TinyCase]) -> None:
    pictured = next(prompt for prompt in samples(tiny("llava")) if prompt.images)
    with pytest.raises((CheckpointError, CalibrationError), match="has images"):
        opened(tiny("llama").old, pictured)


def test_a_prompt_that_the_template_refuses_is_named_in_a_batch(tiny: Callable[..., TinyCase]) -> None:
    strange = Sample("t.jsonl:9", turns=(Turn("tool", ("x",)), Turn("user", ("a",))))
    model = opened(tiny("llama").old, ask("a"))
    with pytest.raises(CalibrationError, match=r"^t\.jsonl:9: .* refuses this prompt \(Unknown role tool\): change or"):
        model.answer([ask("a"), strange, ask("b")])


def test_a_checkpoint_that_is_not_whole(tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    case = tiny("llama").copied_to(tmp_path)
    index = json.loads((case.old / "model.safetensors.index.json").read_text())
    key = "model.layers.1.mlp.up_proj.weight"
    shard = case.old / index["weight_map"].pop(key)
    tensors = load_file(shard)
    del tensors[key]
    save_file(tensors, shard, {"format": "pt"})
    (case.old / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=rf"old is not whole: {key} cannot be taken from its files"):
        opened(case.old, ask("a"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hidden_size": 32}, "cannot be loaded by transformers"),
        ({"model_type": "nonesuch"}, "cannot be loaded by transformers"),
    ],
)
def test_a_checkpoint_that_cannot_answer(
    tiny: Callable[..., TinyCase], tmp_path: Path, change: dict, sentence: str
) -> None:
    case = tiny("llama").copied_to(tmp_path)
    config = json.loads((case.old / "config.json").read_text())
    (case.old / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=sentence):
        opened(case.old, ask("a"))


def test_a_classifier_and_a_language_model_that_is_called_one(tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    case = tiny("llama").copied_to(tmp_path)
    named = json.loads((case.old / "config.json").read_text()) | {"architectures": ["LlamaForSequenceClassification"]}
    (case.old / "config.json").write_text(json.dumps(named))
    assert opened(case.old, ask("a"))
    for path in case.old.glob("*.safetensors"):
        save_file({key.replace("lm_head", "score"): value for key, value in load_file(path).items()}, path)
    with pytest.raises(CheckpointError, match="LlamaForSequenceClassification, which generates no text"):
        opened(case.old, ask("a"))


def test_a_pickle_is_not_read(tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    case = tiny("llama").copied_to(tmp_path)
    for path in case.old.glob("*.safetensors*"):
        path.unlink()
    torch.save({}, case.old / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be loaded by transformers"):
        opened(case.old, ask("a"))


THINKING = ("<think>", "</think>")


def test_the_marks_of_thoughts_are_kept_where_they_are_special_tokens() -> None:
    tokenizer = text_tokenizer(chat=False)
    tokenizer.add_special_tokens({"additional_special_tokens": [*THINKING, "<|other|>"]})
    ids = tokenizer("<think>hm<|other|></think>no", add_special_tokens=False)["input_ids"]
    encoder = Encoder(tokenizer)
    assert encoder.decode(torch.tensor([ids])) == ["hmno"]
    assert encoder.decode(torch.tensor([ids, ids]), MARKS) == ["<think>hm</think>no"] * 2
    assert read_answer(encoder.decode(torch.tensor([ids]), MARKS)[0]) == Answer("no", "hm")


def test_the_marks_are_kept_of_a_tokenizer_of_mistrals_own() -> None:
    """It has no table of added tokens."""

    class Own:
        chat_template = bos_token = None

        @property
        def added_tokens_decoder(self) -> dict:
            raise NotImplementedError

        def get_vocab(self) -> dict[str, int]:
            return {"[THINK]": 34, "[/THINK]": 35, "</s>": 2, "hm": 40, "no": 41}

        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            texts = {number: text for text, number in self.get_vocab().items()}
            return "".join(texts[number] for number in ids if number >= 40 or not skip_special_tokens)

    ids = torch.tensor([[34, 40, 35, 41, 2]])
    assert Encoder(Own()).decode(ids) == ["hmno"]
    assert Encoder(Own()).decode(ids, MARKS) == ["[THINK]hm[/THINK]no"]


def test_thoughts_that_the_template_opens(tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    """The tiny model's answer never has the mark that ends them, so all of it is thoughts."""
    case = tiny("llama").copied_to(tmp_path)
    path = case.old / "chat_template.jinja"
    inside = json.loads((case.old / "tokenizer_config.json").read_text()).get("chat_template")
    template = inside or path.read_text()
    path.write_text(template + "{% if add_generation_prompt %}{{ '<think>\\n' }}{% endif %}")
    prompts = [ask("a"), ask("how are you?")]
    answers = opened(case.old, prompts[0], max_new_tokens=8).answer(prompts)
    assert [answer.startswith("<think>") for answer in answers] == [True, True]
    assert [read_answer(answer).finished for answer in answers] == [False, False]

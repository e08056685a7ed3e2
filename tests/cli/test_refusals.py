"""Each wrong input of the command: exit status 2, the exact sentence, nothing left behind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from cases import Call, status
from changed_checkpoints import INDEX, edit
from safetensors.torch import save_file

from hpa_merge.config import HPAConfig

O_PROJ = "model.layers.2.self_attn.o_proj.weight"


def configure(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def with_entry(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(weight: torch.Tensor) -> torch.Tensor:
        weight[3, 5] = value
        return weight

    return change


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: torch.full_like(tensor, value)


# --- wrong inputs: how a call is spoilt, and the sentence; its paths and these words are put into that ---

WORDS = {
    "o_proj": O_PROJ,
    "transformers": transformers.__version__,
    "every_option": ", ".join(sorted(vars(HPAConfig()))),
    "one_model": "give the checkpoints before and after tuning of one model",
    "sound": "the file is damaged or the training diverged, so give a sound checkpoint",
}
Spoil = Callable[[Call], None]
CASES: dict[str, tuple[Spoil, str]] = {}


def refused(sentence: str) -> Callable[[Spoil], Spoil]:
    def add(spoil: Spoil) -> Spoil:
        CASES[spoil.__name__] = spoil, sentence
        return spoil

    return add


@refused("OLD {old} does not exist: give a folder in Hugging Face layout.")
def old_missing(call: Call) -> None:
    call.old = call.folder / "nowhere"


@refused("NEW {new} has no config.json: give a folder in Hugging Face layout, as save_pretrained writes it.")
def new_no_checkpoint(call: Call) -> None:
    (call.new / "config.json").unlink()


@refused("OLD {old} is a file: give its folder.")
def old_a_file(call: Call) -> None:
    call.old = call.old / "config.json"


@refused(
    "NEW {new} has no model.safetensors and no model.safetensors.index.json, only model-00001-of-00003.bin and 2 more, "
    "and pickles are not read: convert it, with from_pretrained and then save_pretrained of transformers."
)
def pickles_only(call: Call) -> None:
    for path in [*call.new.glob("*.safetensors"), call.new / INDEX]:
        path.rename(path.with_name(path.name.replace("safetensors", "bin")))


@refused("OLD is a LlamaForCausalLM and NEW is a MistralForCausalLM: {one_model}.")
def other_architecture(call: Call) -> None:
    configure(call.new, architectures=["MistralForCausalLM"], model_type="mistral")


@refused(
    "OLD's architecture is WonderForCausalLM, which transformers {transformers} does not have: install a "
    "version that does."
)
def unknown_architecture(call: Call) -> None:
    for folder in (call.old, call.new):
        configure(folder, architectures=["WonderForCausalLM"], model_type="siglip_text_model")


@refused(
    "model.layers.0.mlp.down_proj.weight has shape [64, 112] in OLD and [64, 96] in NEW: {one_model}, or take this "
    "tensor from NEW with --exclude."
)
def other_shape(call: Call) -> None:
    configure(call.new, intermediate_size=96)
    for block in range(4):
        for name, axis in (("gate", 0), ("up", 0), ("down", 1)):
            edit(call.new, f"model.layers.{block}.mlp.{name}_proj.weight", lambda w, axis=axis: w.narrow(axis, 0, 96))


@refused(
    "NEW's tensor {o_proj} has shape [64, 60] where its config.json asks for [64, 64]: give the config.json "
    "that belongs to these weights."
)
def shape_against_config(call: Call) -> None:
    edit(call.new, O_PROJ, lambda weight: weight[:, :60])


@refused("NEW has no tensor for {o_proj}, which LlamaForCausalLM needs: save the whole model again.")
def tensor_missing(call: Call) -> None:
    edit(call.new, O_PROJ, lambda weight: None)


@refused(
    "NEW's tensor model.layers.0.mlp.down_proj.bias has no counterpart in OLD: give two whole checkpoints of one model."
)
def tensor_without_counterpart(call: Call) -> None:
    configure(call.new, mlp_bias=True)
    index = json.loads((call.new / INDEX).read_text())
    sizes = {"gate": 112, "up": 112, "down": 64}
    biases = {f"model.layers.{i}.mlp.{n}_proj.bias": torch.ones(s) for i in range(4) for n, s in sizes.items()}
    save_file(biases, call.new / "biases.safetensors")
    index["weight_map"] |= dict.fromkeys(biases, "biases.safetensors")
    (call.new / INDEX).write_text(json.dumps(index))


@refused(
    "NEW {new} is quantised (quantization_config in config.json, method hqq), and that is not among the formats that "
    "are read here (fp8, compressed-tensors, fbgemm_fp8, modelopt, mxfp4, bitsandbytes, gptq, awq): give the "
    "checkpoint that it was made from, or one that its own library dequantised."
)
def quantised(call: Call) -> None:
    configure(call.new, quantization_config={"quant_method": "hqq"})


@refused(
    "NEW {new}: model-00002-of-00003.safetensors is truncated (289628 bytes of 289728): fetch or save the "
    "checkpoint again."
)
def truncated(call: Call) -> None:
    shard = call.new / json.loads((call.new / INDEX).read_text())["weight_map"][O_PROJ]
    shard.write_bytes(shard.read_bytes()[:-100])


@refused(
    "{safety}:2: not valid JSON at column 15 (Expecting ',' delimiter): write one JSON object a line, or one array."
)
def malformed_line(call: Call) -> None:
    call.safety = call.calibration({"text": "one"}, '{"text": "two"')


@refused(
    '{task}:2: no known field, found only "texts": give "messages", "conversations", "instruction" with '
    '"response", "instr-resp", "text" or "input_ids", or name your own fields with --map.'
)
def unknown_format(call: Call) -> None:
    call.task = call.calibration({"text": "one"}, {"texts": "two"})


@refused("{task} holds no sample: write one JSON object a line.")
def empty_calibration(call: Call) -> None:
    call.task = call.calibration("", "  ")


@refused("the calibration file {safety} does not exist: check the path.")
def calibration_missing(call: Call) -> None:
    call.safety = call.folder / "none.jsonl"


@refused(
    "{safety}:1: the image no.png is not a file in {folder}: give its path relative to that folder, or name the folder "
    "of the images with --image-folder."
)
def image_missing(call: Call) -> None:
    call.safety = call.calibration({"image": "no.png", "instruction": "what?", "response": "a cat."})


@refused(
    "{safety}:1 has images, and {old} has no image processor: remove the images, or add "
    "preprocessor_config.json to the folder if the model takes images."
)
def image_for_a_text_model(call: Call) -> None:
    call.write("cat.png", "not an image")
    call.safety = call.calibration({"image": "cat.png", "instruction": "what?", "response": "a cat."})


@refused(
    "{safety}:1: the image {folder}/cat.png cannot be read (it is none of AVIF, BMP, GIF, JPEG, JPEG2000, PNG, "
    "PPM, TIFF, WEBP, or of a kind of these that Pillow does not know): "
    "replace it or remove the sample."
)
def image_unreadable_llava(call: Call) -> None:
    image_for_a_text_model(call)


@refused("OUT {out} exists already: choose another folder, or replace it with --overwrite.")
def out_exists(call: Call) -> None:
    call.out.mkdir()


@refused("OUT {out} overlaps the input {new}, and inputs are never written to: choose a folder outside of it.")
def out_in_new(call: Call) -> None:
    call.out = call.new / "merged"


@refused("OUT {out} overlaps the input {old}, and inputs are never written to: choose a folder outside of it.")
def out_is_old(call: Call) -> None:
    call.out = call.old


@refused("p_min is 20 and p_max is 15: lower p_min or raise p_max, so that p_min is not the greater.")
def p_min_over_p_max(call: Call) -> None:
    call.options = ("--p-min", "20")


@refused("p_max is 101.0: it has to be a percentage between 0 and 100.")
def p_max_over_100(call: Call) -> None:
    call.options = ("--p-max", "101")


@refused("p_min is -1.0: it has to be a percentage between 0 and 100.")
def p_min_under_0(call: Call) -> None:
    call.options = ("--p-min", "-1")


@refused(
    "alpha_min is 0.9 and alpha_max is 0.8: lower alpha_min or raise alpha_max, so that alpha_min is not the greater."
)
def alpha_min_over_alpha_max(call: Call) -> None:
    call.options = ("--alpha-min", "0.9")


@refused("include and exclude leave no linear to adapt: change the expressions.")
def include_nothing(call: Call) -> None:
    call.options = ("--include", "no_such_layer")


@refused("include is not a regular expression: 'layers.(' (missing ), unterminated subpattern at position 7).")
def include_no_regex(call: Call) -> None:
    call.options = ("--include", "layers.(")


@refused("{folder}/options.yaml has no option 'p-mix' (did you mean p_min?): the options are {every_option}.")
def unknown_yaml_option(call: Call) -> None:
    call.options = ("--config", str(call.write("options.yaml", "p-max: 20\np-mix: 3\n")))


@refused("NEW's tensor {o_proj} holds NaN or infinity: {sound}.")
def nan_in_a_linear(call: Call) -> None:
    edit(call.new, O_PROJ, with_entry(float("nan")))


@refused("OLD's tensor model.embed_tokens.weight holds NaN or infinity: {sound}.")
def infinity_in_an_embedding(call: Call) -> None:
    edit(call.old, "model.embed_tokens.weight", with_entry(float("-inf")))


@refused("NEW's tensor model.norm.weight holds NaN or infinity: {sound}.")
def nan_after_the_last_linear_qwen2_tied(call: Call) -> None:
    edit(call.new, "model.norm.weight", filled(float("nan")))


@refused(
    "the task activations that reach model.layers.1.mlp.down_proj.weight hold NaN or infinity: check that NEW "
    "can run in its dtype."
)
def activations_overflow_float16(call: Call) -> None:
    edit(call.new, "model.layers.1.mlp.up_proj.weight", filled(6e4))


@refused(
    "the safety activations that reach model.layers.1.mlp.down_proj.weight hold NaN or infinity: check that OLD "
    "can run in its dtype."
)
def activations_overflow(call: Call) -> None:
    edit(call.old, "model.layers.1.post_attention_layernorm.weight", filled(1e30))
    edit(call.old, "model.layers.1.mlp.up_proj.weight", filled(1e30))


@refused("the result for {o_proj} does not fit torch.float16: save NEW in float32 or bfloat16.")
def result_overflow_float16(call: Call) -> None:
    configure(call.old, dtype="float32")
    edit(call.old, O_PROJ, lambda weight: with_entry(1e6)(weight.float()))
    call.options = ("--p-min", "100", "--p-max", "100")


@refused(
    "{task}:2: input_ids holds 512, and NEW's vocabulary has 512 tokens: use the ids of the checkpoint's own "
    "tokenizer.",
)
def token_outside_the_vocabulary(call: Call) -> None:
    call.task = call.calibration({"input_ids": [1, 511]}, {"input_ids": [1, 512]})


@refused(
    "{task}:1: NEW's tokenizer makes the token 515 of this sample, and its embeddings have 512 rows: give the "
    "tokenizer that belongs to these weights, or the model after resize_token_embeddings()."
)
def tokenizer_that_grew(call: Call) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(call.new)
    tokenizer.add_tokens([f"<extra{number}>" for number in range(len(tokenizer), 520)])
    tokenizer.save_pretrained(call.new)
    call.task = call.calibration({"prompt": "How?", "response": "With <extra515>."})


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_input(name: str, make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    spoil, sentence = CASES[name]
    model = next((model for model in ("llava", "qwen2_tied") if name.endswith(model)), "llama")
    call = make_call(model, "float16" if "float16" in name else "float32")
    spoil(call)
    there = sorted(call.folder.rglob("*"))
    assert status(call) == 2
    printed = capsys.readouterr()
    assert printed.err == f"Error: {sentence.format_map(WORDS | vars(call))}\n"
    assert printed.out == ""
    assert sorted(call.folder.rglob("*")) == there  # no OUT, no OUT.partial

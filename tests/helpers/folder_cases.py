"""What people have in a checkpoint folder, and what becomes of it: the rows of docs/layouts.md, each a test.

Each case changes copies of a tiny OLD and NEW. The test holds the outcome to transformers: what ``from_pretrained``
loads is planned from the same numbers, and what it does not load is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from changed_folders import (
    EMBEDDINGS,
    HEAD,
    INDEX,
    adapted,
    added,
    configured,
    indexed,
    joined,
    marked,
    moved,
    only,
    renamed,
    split,
    stale,
    text_alone,
    with_head,
    without_head,
)


@final
@dataclass(frozen=True)
class Case:
    """A situation.

    Attributes:
        name: what is in the folder, for the page.
        change: makes it so in the folders of OLD and NEW.
        notes: the sentences about it; ``{old}`` and ``{new}`` stand for the folders.
        refused: the sentence with which it is refused, if it is.
        loads: whether transformers loads NEW; None if it does so exactly if it is not refused.
        model: the tiny pair.
    """

    name: str
    change: Callable[[Path, Path], object]
    notes: tuple[str, ...] = ()
    refused: str = ""
    loads: bool | None = None
    model: str = "qwen2_tied"


QUERY = "model.layers.0.self_attn.q_proj.weight"
MTP = {"mtp__fc__weight": torch.ones(4, 4), "mtp__norm__weight": torch.ones(4)}

NONE = "has no model.safetensors and no model.safetensors.index.json, only"
AGAIN = "with from_pretrained and then save_pretrained of transformers"
WRAPPER = (
    "which a wrapper adds: save the model without the wrapper (unwrap_model), or remove these parts from all names."
)

FILES = (
    Case(
        "`model.safetensors` next to an index and the shards of an earlier save",
        lambda old, new: [stale(folder, shards=True) for folder in (old, new)],
        notes=(
            "OLD {old} has model.safetensors and model.safetensors.index.json: transformers loads the first alone, as "
            "we do.",
            "NEW {new} has model.safetensors and model.safetensors.index.json: transformers loads the first alone, as "
            "we do.",
        ),
    ),
    Case(
        "`model.safetensors` next to the index of an earlier save, whose shards are gone",
        lambda old, new: stale(old, shards=False),
        notes=(
            "OLD {old} has model.safetensors and model.safetensors.index.json: transformers loads the first alone, as "
            "we do.",
        ),
    ),
    Case(
        "another file that config.json names in `transformers_weights`",
        lambda old, new: (joined(new, name="own.safetensors"), configured(new, transformers_weights="own.safetensors")),
    ),
    Case(
        "another index that config.json names in `transformers_weights`",
        lambda old, new: (
            (old / INDEX).rename(old / "own.safetensors.index.json"),
            configured(old, transformers_weights="own.safetensors.index.json"),
        ),
    ),
    Case(
        "`transformers_weights` names a file outside the folder",
        lambda old, new: configured(new, transformers_weights="../model.safetensors"),
        refused="NEW {new}: config.json names '../model.safetensors' as transformers_weights, and the folder has no "
        "such file in it: put it there, or remove transformers_weights.",
    ),
    Case(
        "Mistral's `consolidated.safetensors` and `pytorch_model.bin` next to the shards",
        lambda old, new: [(new / name).write_bytes(b"x") for name in ("consolidated.safetensors", "pytorch_model.bin")],
    ),
    Case(
        "the index names tensors that no shard has",
        lambda old, new: [indexed(f, lambda i: i["weight_map"].update({"mtp.fc.weight": i["weight_map"][EMBEDDINGS]}))
                          for f in (old, new)],
        notes=(
            "OLD {old}: model.safetensors.index.json names the tensor mtp.fc.weight that no file of it has.",
            "NEW {new}: model.safetensors.index.json names the tensor mtp.fc.weight that no file of it has, and OUT's "
            "index is written anew.",
        ),
    ),
    Case(
        "the index does not name a tensor, and says of another that it is in the wrong shard",
        lambda old, new: indexed(new, lambda i: (i["weight_map"].pop("model.norm.weight"), moved(i))),
        notes=(
            "NEW {new}: model.safetensors.index.json does not name the tensor model.norm.weight of its files, which "
            "transformers loads all the same; it says that model.embed_tokens.weight is in "
            "model-00002-of-00002.safetensors, and it is in model-00001-of-00002.safetensors, and OUT's index is "
            "written anew.",
        ),
    ),
    Case(
        "the index has no `metadata`",
        lambda old, new: indexed(new, lambda i: i.pop("metadata")),
        notes=(
            "NEW {new}: model.safetensors.index.json has no metadata, without which transformers does not load it, and "
            "OUT's index is written anew.",
        ),
        loads=False,
    ),
    Case(
        "the index begins with a byte order mark",
        lambda old, new: marked(new, INDEX),
        notes=(
            "NEW {new}: model.safetensors.index.json begins with a byte order mark, with which transformers does not "
            "load it, and OUT's index is written anew.",
        ),
        loads=False,
    ),
    Case(
        "the index names a shard that is not there",
        lambda old, new: (new / "model-00002-of-00002.safetensors").unlink(),
        refused="NEW {new}: the shard model-00002-of-00002.safetensors is missing, though model.safetensors.index.json "
        "names it: fetch it or, if the model does without, remove its entries from model.safetensors.index.json.",
    ),
    Case(
        "the index names a shard of parts that the model does without, and it is not there",
        lambda old, new: indexed(old, lambda index: index["weight_map"].update({"mtp.fc.weight": "mtp.safetensors"})),
        refused="OLD {old}: the shard mtp.safetensors is missing, though model.safetensors.index.json names it: fetch "
        "it or, if the model does without, remove its entries from model.safetensors.index.json.",
        loads=True,
    ),
    Case(
        "shards of another saving than the index",
        lambda old, new: [path.rename(new / path.name.replace("00002.", "00003.")) for path in new.glob("model-*")],
        refused="NEW {new}: the shard model-00001-of-00002.safetensors is missing, though model.safetensors.index.json "
        "names it: fetch it or, if model-00001-of-00003.safetensors is of a later save, save the model again in an "
        "empty folder.",
    ),
    Case(
        "shards without an index",
        lambda old, new: split(new),
        refused=f"NEW {{new}} {NONE} model-00001-of-00002.safetensors and 1 more, shards without {INDEX}, which says "
        f"which belong together: fetch the index too, or save the model again {AGAIN}.",
    ),
    Case(
        "one file of another name",
        lambda old, new: joined(new, name="weights.safetensors"),
        refused=f"NEW {{new}} {NONE} weights.safetensors, a name that transformers does not look for: rename it "
        'to model.safetensors, or add "transformers_weights": "weights.safetensors" to config.json.',
    ),
    Case(
        "only a variant, such as fp16",
        lambda old, new: joined(new, name="model.fp16.safetensors"),
        refused=f"NEW {{new}} {NONE} model.fp16.safetensors, of the variant fp16: rename it to model.safetensors.",
    ),
    Case(
        "only `pytorch_model.bin`",
        only("pytorch_model.bin", "training_args.bin"),
        refused=f"NEW {{new}} {NONE} pytorch_model.bin, and pickles are not read: convert it, {AGAIN}.",
    ),
    Case(
        "only Mistral's own layout",
        only("consolidated.safetensors", "params.json"),
        refused=f"NEW {{new}} {NONE} consolidated.safetensors, weights in Mistral's own layout: give the checkpoint in "
        "Hugging Face layout, from its repository or converted with the script convert_mistral_weights_to_hf.py of "
        "transformers.",
    ),
    Case(
        "only Llama's `original/`",
        only("original/"),
        refused=f"NEW {{new}} {NONE} original/, in Llama's own layout, and pickles are not read: give the checkpoint "
        "in Hugging Face layout, from its repository or converted with the script convert_llama_weights_to_hf.py of "
        "transformers.",
    ),
    Case(
        "only a checkpoint of DeepSpeed",
        only("global_step500/", "zero_to_fp32.py", "latest"),
        refused=f"NEW {{new}} {NONE} global_step500/ and 1 more, a checkpoint of DeepSpeed: run zero_to_fp32.py in "
        "that folder with --safe_serialization, and put its files next to config.json.",
    ),
    Case(
        "only the folders of a training",
        only("checkpoint-500/", "checkpoint-1000/", "runs/"),
        refused=f"NEW {{new}} {NONE} checkpoint-1000/ and 1 more, a folder of the training: give one of the folders "
        "checkpoint-….",
    ),
    Case(
        "the parts that several ranks saved",
        only("shard-00000-model-00001-of-00001.safetensors"),
        refused="NEW {new} holds shard-00000-model-00001-of-00001.safetensors, a part of a model that several ranks "
        f"saved: save it again on one, {AGAIN}.",
    ),
    Case(
        "an adapter next to a whole model",
        lambda old, new: adapted(new),
        refused="NEW {new} holds a whole model and an adapter (adapter_config.json), which transformers loads on top "
        "of it if peft is installed: move the adapter's files to a folder of their own, or merge the two and save the "
        "result in a new folder.",
    ),
)  # fmt: skip

CONFIGURATION = (
    Case(
        "config.json in CRLF, with blanks at its end",
        lambda old, new: [
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b" \r\n\r\n") for path in new.glob("*.json")
        ],
    ),
    Case(
        "config.json with a byte order mark",
        lambda old, new: marked(new, "config.json"),
        refused="NEW {new}: config.json begins with a byte order mark, with which transformers does not read it: save "
        "it as UTF-8 without one.",
    ),
    Case(
        "tokenizer_config.json with a byte order mark",
        lambda old, new: marked(new, "tokenizer_config.json"),
        refused="NEW {new}: tokenizer_config.json begins with a byte order mark, with which transformers does not read "
        "it: save it as UTF-8 without one.",
        loads=True,
    ),
    Case("generation_config.json with a byte order mark", lambda old, new: marked(new, "generation_config.json")),
    Case(
        "config.json in UTF-16",
        lambda old, new: (new / "config.json").write_text((new / "config.json").read_text(), encoding="utf-16"),
        refused="NEW {new}: config.json is not valid JSON ('utf-8' codec can't decode byte 0xff in position 0: invalid "
        "start byte): save it in UTF-8.",
    ),
    Case(
        "`architectures` is null",
        lambda old, new: configured(new, architectures=None),
        notes=("NEW's config.json names no class in architectures; it was read as a Qwen2ForCausalLM.",),
    ),
    Case(
        "no `architectures`, in a vision-language model",
        lambda old, new: [configured(folder, architectures=...) for folder in (old, new)],
        notes=tuple(
            f"{role}'s config.json names no class in architectures; it was read as a LlavaForConditionalGeneration."
            for role in ("OLD", "NEW")
        ),
        model="llava",
    ),
    Case(
        "`architectures` names a class of somebody's own",
        lambda old, new: configured(new, architectures=["Qwen2ForRewards"]),
        notes=("NEW's config.json names Qwen2ForRewards in architectures; it was read as a Qwen2ForCausalLM.",),
    ),
    Case(
        "`architectures` names the class without the head, and all tensors are there",
        lambda old, new: [configured(folder, architectures=["Qwen2Model"]) for folder in (old, new)],
        notes=tuple(
            f"{role}'s config.json names Qwen2Model in architectures; it was read as a Qwen2ForCausalLM."
            for role in ("OLD", "NEW")
        ),
    ),
    Case(
        "NEW was saved by the class without the head, which is tied",
        lambda old, new: without_head(new, "Qwen2Model"),
        notes=("NEW's config.json names Qwen2Model in architectures; it was read as a Qwen2ForCausalLM.",),
    ),
    Case(
        "NEW was saved by the class without the head, which is a tensor of its own in OLD",
        lambda old, new: without_head(new, "LlamaModel"),
        notes=(
            "OLD's config.json names LlamaForCausalLM in architectures; it was read as a LlamaModel.",
            "LlamaModel has no head, so OUT has none: load it with AutoModel, as other classes make a head at random.",
            "Only OLD has lm_head.weight, which LlamaModel does not have: OUT lacks what NEW lacks.",
        ),
        model="llama",
    ),
    Case(
        "`architectures` names a class with another head, and the head of a language model is there",
        lambda old, new: configured(new, architectures=["Qwen2ForSequenceClassification"]),
        notes=(
            "NEW's config.json names Qwen2ForSequenceClassification in architectures; it was read as a "
            "Qwen2ForCausalLM.",
        ),
    ),
    Case(
        "`architectures` names the class of the vision-language model that a text model was taken from",
        lambda old, new: configured(new, architectures=["Gemma3ForConditionalGeneration"]),
        notes=(
            "NEW's config.json names Gemma3ForConditionalGeneration in architectures; it was read as a "
            "Gemma3ForCausalLM.",
        ),
        model="gemma3",
    ),
    Case(
        "NEW is the text model alone of a vision-language model",
        lambda old, new: text_alone(new),
        refused="OLD is a LlavaForConditionalGeneration and NEW is a LlamaForCausalLM, its text model alone: load "
        "NEW's weights into OLD's text model, and save that as NEW.",
        model="llava",
    ),
    Case(
        "no `model_type`",
        lambda old, new: configured(new, model_type=...),
        refused='NEW\'s config.json has no model_type, without which transformers does not load it: add "model_type": '
        '"qwen2", which Qwen2ForCausalLM has.',
    ),
)

TENSORS = (
    Case(
        "parts that only OLD has, such as `mtp.*`",
        lambda old, new: added(old, **MTP),
        notes=(
            "Only OLD has mtp.fc.weight, mtp.norm.weight, which Qwen2ForCausalLM does not have: OUT lacks what NEW "
            "lacks.",
        ),
    ),
    Case(
        "parts that only NEW has",
        lambda old, new: added(new, **MTP),
        notes=("Only NEW has mtp.fc.weight, mtp.norm.weight, which Qwen2ForCausalLM does not have: OUT has NEW's.",),
    ),
    Case(
        "parts of both that transformers does not know",
        lambda old, new: [added(folder, value_head__weight=torch.ones(3)) for folder in (old, new)],
        notes=("Qwen2ForCausalLM does not have value_head.weight: OUT has NEW's.",),
    ),
    Case(
        "buffers that the model computes, of an earlier transformers",
        lambda old, new: added(old, model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(8)),
    ),
    Case("the head, though it is tied and equal", lambda old, new: with_head(new, equal=True)),
    Case("only the head of what is tied", lambda old, new: renamed(new, lambda k: HEAD if k == EMBEDDINGS else k)),
    Case(
        "NEW has a head of its own, though config.json ties it",
        lambda old, new: with_head(new, equal=False),
        notes=("lm_head.weight: a weight of its own in NEW and tied in OLD, so OUT has what NEW has.",),
    ),
    Case(
        "OLD has a head of its own, and NEW ties it",
        lambda old, new: (with_head(old, equal=False), configured(old, tie_word_embeddings=False)),
        notes=("lm_head.weight: a weight of its own in OLD and tied in NEW, so OUT has what NEW has.",),
    ),
    Case("both have a head of their own, though config.json ties it",
         lambda old, new: [with_head(folder, equal=False) for folder in (old, new)]),
    Case("names with `model.` once more", lambda old, new: renamed(new, lambda key: f"model.{key}")),
    Case(
        "names of a compiled model (`_orig_mod.`)",
        lambda old, new: renamed(new, lambda key: f"_orig_mod.{key}"),
        refused="NEW has no tensor for lm_head.weight and 38 more, which Qwen2ForCausalLM needs. Its "
        f"_orig_mod.model.embed_tokens.weight has '_orig_mod' in its name, {WRAPPER}",
    ),
    Case(
        "names of a model in DistributedDataParallel (`module.`)",
        lambda old, new: renamed(new, lambda key: f"module.{key}"),
        refused="NEW has no tensor for lm_head.weight and 38 more, which Qwen2ForCausalLM needs. Its "
        f"module.model.embed_tokens.weight has 'module' in its name, {WRAPPER}",
    ),
    Case(
        "names of a model in FSDP (`_fsdp_wrapped_module.`), in a vision-language model",
        lambda old, new: renamed(new, lambda key: key.replace("layers.", "_fsdp_wrapped_module.layers.")),
        refused="NEW has no tensor for model.language_model.layers.0.input_layernorm.weight and 74 more, which "
        "LlavaForConditionalGeneration needs. Its "
        "language_model.model._fsdp_wrapped_module.layers.0.input_layernorm.weight has '_fsdp_wrapped_module' in its "
        f"name, {WRAPPER}",
        model="llava",
    ),
    Case(
        "an adapter that is still apart in the model",
        lambda old, new: (
            renamed(new, lambda key: f"base_model.model.{key.replace('q_proj.weight', 'q_proj.base_layer.weight')}"),
            added(new, **{f"base_model.model.{QUERY.replace('weight', 'lora_A.default.weight')}": torch.ones(2, 64)}),
        ),
        refused="NEW has no tensor for lm_head.weight and 38 more, which Qwen2ForCausalLM needs, and it has the "
        "tensors of an adapter: save the model after merge_and_unload().",
    ),
)  # fmt: skip

SECTIONS = {"Files": FILES, "Configuration": CONFIGURATION, "Tensors": TENSORS}
CASES = {case.name: case for cases in SECTIONS.values() for case in cases}

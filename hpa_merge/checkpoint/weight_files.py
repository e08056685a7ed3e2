"""Which weight files of a folder make up its model, judged by their names as ``from_pretrained`` judges them.

transformers opens the file that config.json names in ``transformers_weights``, else ``model.safetensors``, else the
index. It never looks for another name unless its caller gives one. So any other folder is refused, with what would
help for the files that are there.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from hpa_merge.errors import CheckpointError

__all__ = ["ADAPTER", "ADAPTER_CONFIG", "ADAPTER_PICKLE", "INDEX", "SINGLE", "choose", "is_index"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_PICKLE = "adapter_model.bin"
ADAPTER_CONFIG = "adapter_config.json"

EXPLICIT = "transformers_weights"
"""The field of config.json that names the weight file, or its index."""

DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
"""Files of ``save_pretrained`` with several ranks. transformers reads them with torch.distributed.checkpoint."""

AGAIN = "with from_pretrained and then save_pretrained of transformers"

OTHERS = (
    (r"model\.safetensors\.index\.([\w-]+)\.json", "of the variant {0}", f"rename it to {INDEX}"),
    (r"model\.([\w-]+)\.safetensors", "of the variant {0}", f"rename it to {SINGLE}"),
    (
        r"(?:model|pytorch_model)-\d+-of-\d+\.safetensors",
        f"shards without {INDEX}, which says which belong together",
        f"fetch the index too, or save the model again {AGAIN}",
    ),
    (
        r"consolidated.*\.safetensors",
        "weights in Mistral's own layout",
        "give the checkpoint in Hugging Face layout, from its repository or converted with the script "
        "convert_mistral_weights_to_hf.py of transformers",
    ),
    (
        r".*\.safetensors",
        "a name that transformers does not look for",
        f'rename it to {SINGLE}, or add "{EXPLICIT}": "{{name}}" to config.json',
    ),
    (
        r"global_step\d*/|zero_to_fp32\.py",
        "a checkpoint of DeepSpeed",
        "run zero_to_fp32.py in that folder with --safe_serialization, and put its files next to config.json",
    ),
    (
        r"pytorch_model_fsdp_?\d*/|.*\.distcp",
        "a checkpoint of FSDP",
        "join its parts with accelerate merge-weights, and put the result next to config.json",
    ),
    (r"pytorch_model.*\.bin(?:\.index\.json)?", "and pickles are not read", f"convert it, {AGAIN}"),
    (
        r"consolidated\.\d+\.pth|original/",
        "in Llama's own layout, and pickles are not read",
        "give the checkpoint in Hugging Face layout, from its repository or converted with the script "
        "convert_llama_weights_to_hf.py of transformers",
    ),
    (r".*\.gguf", "which is quantised", "give the checkpoint that it was made from"),
    (
        r"(?:tf_model|flax_model).*\.(?:h5|msgpack)(?:\.index\.json)?",
        "of a framework that transformers no longer reads",
        "convert it, with from_pretrained(…, from_tf=True) or from_flax=True and save_pretrained of transformers 4",
    ),
    (r".*\.(?:bin|pt|pth|ckpt)", "and pickles are not read", f"convert it, {AGAIN}"),
    (r"checkpoint-\d+/", "a folder of the training", "give one of the folders checkpoint-…"),
)
"""What else a folder may hold: a name, what it is, and what helps. The first row that fits a file gives the message."""


def is_index(name: str) -> bool:
    """Whether a weight file is an index of others."""
    return name.endswith(".index.json")


def choose(names: Collection[str], config: Mapping[str, Any], place: str) -> str:
    """The weight file, or the index, that transformers opens first.

    Args:
        names: the files directly in the folder, and its subfolders with a slash at their end.
        config: config.json.
        place: the beginning of a message: role and folder.

    Raises:
        CheckpointError: it opens none of them.
    """
    if ADAPTER_CONFIG in names and {SINGLE, INDEX} & {*names} and {ADAPTER, ADAPTER_PICKLE} & {*names}:
        raise CheckpointError(
            f"{place} holds a whole model and an adapter ({ADAPTER_CONFIG}), which transformers loads on top of it if "
            "peft is installed: move the adapter's files to a folder of their own, or merge the two and save the "
            "result in a new folder."
        )
    if found := sorted(filter(DISTRIBUTED.fullmatch, names)):
        raise CheckpointError(
            f"{place} holds {found[0]}, a part of a model that several ranks saved: save it again on one, {AGAIN}."
        )
    if (named := config.get(EXPLICIT)) is not None:
        if not (isinstance(named, str) and named.endswith((".safetensors", ".safetensors.index.json"))):
            raise CheckpointError(
                f"{place}: config.json has {named!r:.80} for {EXPLICIT}, which has to be a safetensors file or its "
                f"index: name one, or remove {EXPLICIT}."
            )
        if named not in names:
            raise CheckpointError(
                f"{place}: config.json names {named!r:.80} as {EXPLICIT}, and the folder has no such file in it: "
                f"put it there, or remove {EXPLICIT}."
            )
        return named
    for name in (SINGLE, INDEX):
        if name in names:
            return name
    raise CheckpointError(_refusal(names, place))


def _refusal(names: Collection[str], place: str) -> str:
    """Why a folder without weights that transformers finds is refused, and what helps."""
    for pattern, what, remedy in OTHERS:
        found = sorted(name for name in names if re.fullmatch(pattern, name) and not name.startswith((".", "adapter_")))
        if found:
            match = re.fullmatch(pattern, found[0])
            assert match is not None
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            return (
                f"{place} has no {SINGLE} and no {INDEX}, only {found[0]}{more}, {what.format(*match.groups())}: "
                f"{remedy.format(name=found[0])}."
            )
    return f"{place} has no *.safetensors file: fetch or save the checkpoint again."

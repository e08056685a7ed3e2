"""Tiny LLaVA pairs in the layout of its own code base, and the same weights in that of transformers.

Keys, config.json and prompts are written here as that code base's documentation has them, by hand.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_processors import llava_processor, text_tokenizer
from torch import Tensor

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_V1 = (
    "{{ bos_token }}" + SYSTEM + " {% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{{ '\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'user' %}{{ ' ' }}{% else %}</s>{% endif %}{% endfor %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}[INST] {% else %} {% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{{ '\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'user' %} [/INST]{% else %} </s>{% endif %}{% endfor %}"
)
TEMPLATES = {"llama": _V1, "mistral": _MISTRAL}
"""For transformers' processor: what the code base makes of turns that begin with their image, by the language model."""

MEAN_COLOUR = (122, 116, 104)
"""CLIP's, as the code base writes it."""

TOWER = "model.vision_tower.vision_tower.vision_model."


@dataclass(frozen=True)
class Original:
    """The same pair twice.

    Attributes:
        old, new: in LLaVA's own layout.
        tower: the CLIP folder that they name.
        old_converted, new_converted: in transformers' layout.
        safety, task: calibration files.
        safety_squared, task_squared: the same with images that are squares already.
    """

    folder: Path
    old: Path
    new: Path
    tower: Path
    old_converted: Path
    new_converted: Path
    safety: Path
    task: Path
    safety_squared: Path
    task_squared: Path


def own_key(key: str, projector: str) -> str:
    """What the code base calls a tensor of transformers' layout."""
    for start, own in (
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("vision_tower.", TOWER),
        (
            "multi_modal_projector.linear_1.",
            "model.mm_projector." if projector == "linear" else "model.mm_projector.0.",
        ),
        ("multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ):
        if key.startswith(start):
            return own + key.removeprefix(start)
    raise AssertionError(key)


def make_original(
    case: Any,
    folder: Path,
    *,
    inside: bool = True,
    projector: str = "mlp2x_gelu",
    whole_clip: bool = True,
    text: str = "llama",
    **settings: Any,
) -> Original:
    """Write both layouts of the tiny pair ``case``, of transformers' LLaVA.

    Args:
        inside: whether the tower's weights lie in the checkpoints, and are tuned; else NEW's are OLD's.
        projector: ``mm_projector_type``; of transformers' LLaVA, ``linear`` is its second layer made an identity.
        whole_clip: whether the tower's folder is that of a CLIP model, text half included.
        text: the language model.
        settings: further entries of config.json; None leaves one out.
    """
    tensors = {name: read_tensors(path) for name, path in (("old", case.old), ("new", case.new))}
    for name in tensors:
        if not inside:
            tower = {key: value for key, value in tensors["old"].items() if key.startswith("vision_tower.")}
            tensors[name] = tensors[name] | tower
        if projector == "linear":
            size = tensors[name]["multi_modal_projector.linear_2.weight"].shape[0]
            dtype = tensors[name]["multi_modal_projector.linear_2.weight"].dtype
            tensors[name]["multi_modal_projector.linear_2.weight"] = torch.eye(size, dtype=dtype)
            tensors[name]["multi_modal_projector.linear_2.bias"] = torch.zeros(size, dtype=dtype)
    config = json.loads((case.new / "config.json").read_text())
    tower = _write_tower(folder / "clip", tensors["old"], config, whole_clip)
    for name, values in tensors.items():
        _write_converted(folder / f"{name}_converted", values, config, projector, text)
        names = {"architectures": [f"Llava{text.title()}ForCausalLM"], "model_type": f"llava_{text}"}
        _write_own(folder / name, values, config, inside, projector, names | settings)
    squared = {path: _squared(path, folder / f"squared_{path.stem}") for path in (case.safety, case.task)}
    return Original(
        folder,
        folder / "old",
        folder / "new",
        tower,
        folder / "old_converted",
        folder / "new_converted",
        case.safety,
        case.task,
        squared[case.safety],
        squared[case.task],
    )


def read_tensors(folder: Path) -> dict[str, Tensor]:
    return {key: value for path in sorted(folder.glob("*.safetensors")) for key, value in load_file(path).items()}


def _write_tower(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any], whole: bool) -> Path:
    """The CLIP folder, as ``openai/clip-vit-large-patch14-336`` has it, or as ``CLIPVisionModel`` saves itself."""
    folder.mkdir()
    start = "vision_model." if whole else ""
    own = {
        start + key.removeprefix("vision_tower."): value.float()
        for key, value in tensors.items()
        if key.startswith("vision_tower.")
    }
    if whole:
        own |= {
            "logit_scale": torch.ones(()),
            "text_model.embeddings.token_embedding.weight": torch.full((4, 8), torch.nan),
        }
    save_file(own, folder / "model.safetensors", {"format": "pt"})
    vision = {**config["vision_config"], "dtype": "float32"}
    clip = {"model_type": "clip", "architectures": ["CLIPModel"], "vision_config": vision, "text_config": {}}
    alone = {**vision, "architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model"}
    (folder / "config.json").write_text(json.dumps(clip if whole else alone))
    llava_processor().image_processor.save_pretrained(folder)
    return folder


def _write_converted(
    folder: Path, tensors: dict[str, Tensor], config: dict[str, Any], projector: str, text: str
) -> None:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    changes: dict[str, Any] = {"text_config": config["text_config"] | {"model_type": text}}
    if projector == "linear":
        changes["projector_hidden_act"] = "linear"
    (folder / "config.json").write_text(json.dumps(config | changes))
    processor = llava_processor(chat=False)
    processor.chat_template = TEMPLATES[text]
    processor.save_pretrained(folder)


def _write_own(
    folder: Path,
    tensors: dict[str, Tensor],
    config: dict[str, Any],
    inside: bool,
    projector: str,
    settings: dict[str, Any],
) -> None:
    """Two shards with an index, as its trainer writes them."""
    folder.mkdir()
    text = config["text_config"]
    own = {
        **{key: value for key, value in text.items() if key not in ("model_type", "dtype", "architectures")},
        "torch_dtype": config["dtype"],
        "tie_word_embeddings": False,
        "freeze_mm_mlp_adapter": False,
        "image_aspect_ratio": "pad",
        "mm_hidden_size": config["vision_config"]["hidden_size"],
        "mm_projector_type": projector,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "clip",
        "tune_mm_mlp_adapter": False,
        "use_mm_proj": True,
        **settings,
    }
    own = {key: value for key, value in own.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(own, indent=2))
    text_tokenizer(chat=False).save_pretrained(folder)
    kept = {
        own_key(key, projector): value
        for key, value in tensors.items()
        if (inside or not key.startswith("vision_tower.")) and not (projector == "linear" and "linear_2" in key)
    }
    kept["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)  # of older versions, and known to no newer one
    names = sorted(kept)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, keys in shards.items():
        save_file({key: kept[key] for key in keys}, folder / shard, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: shard for shard, keys in shards.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _squared(calibration: Path, folder: Path) -> Path:
    """The calibration file with its images in the middle of squares of CLIP's mean colour."""
    shutil.copytree(calibration.parent, folder)
    for path in (folder / "images").glob("*.png"):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        side = max(image.size)
        square = Image.new("RGB", (side, side), MEAN_COLOUR)
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        square.save(path)
    return folder / calibration.name


def edit_config(folder: Path, **settings: Any) -> None:
    """Change entries of a config.json; None takes one out."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

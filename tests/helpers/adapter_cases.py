"""Adapters as people have them, and what becomes of them: rows of docs/layouts.md, each a test.

Each case changes the configuration and the names of a sound adapter on a tiny OLD. NEW has to stay the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final


@final
@dataclass(frozen=True)
class Case:
    """An adapter.

    Attributes:
        name: what it is like, for the page.
        model: the tiny OLD.
        options: of the configuration with which the sound adapter is made.
        changes: to adapter_config.json.
        renamings: of its tensors, regular expressions and what replaces them.
        note: the sentence about it.
        kind: the name of peft's configuration class, without its end.
    """

    name: str
    model: str
    options: Mapping[str, Any]
    changes: Mapping[str, Any] = field(default_factory=dict)
    renamings: tuple[tuple[str, str], ...] = ()
    note: str = ""
    kind: str = "Lora"


TEXT = r".*language_model.*\.(q|v)_proj"
"""Of the language model of a vision model, and not of its tower."""

FORMER_QWEN = ((r"\.model\.language_model\.", ".model."), (r"\.model\.visual\.", ".visual."))
FORMER_LLAVA = (
    (r"model\.model\.language_model\.", "model.language_model.model."),
    (r"model\.model\.(vision_tower|multi_modal_projector)\.", r"model.\1."),
)
"""The names of transformers 4."""

DECIDE = "its tensors say which modules it changes."
TRANSLATED = "names of its tensors are translated"
NOT_THESE = "its target_modules do not choose in OLD the"

CASES = (
    Case(
        "a regular expression of an earlier transformers (`^model\\.layers…` for Qwen2.5-VL)",
        "qwen2_5_vl",
        {"target_modules": TEXT},
        {"target_modules": r"^model\.layers\.\d+\.self_attn\.(q|v)_proj$"},
        FORMER_QWEN,
        f"{TRANSLATED} (model -> model.language_model) and {NOT_THESE} 6 modules that it has tensors for: {DECIDE}",
    ),
    Case(
        "such an expression with names of the present one",
        "qwen2_5_vl",
        {"target_modules": r".*visual.*\.(qkv|proj)"},
        {"target_modules": r"^visual\.blocks\.\d+\.attn\.\w+$"},
        note=f"{NOT_THESE} 5 modules that it has tensors for: {DECIDE}",
    ),
    Case(
        "a list that chooses the tower too",
        "llava",
        {"target_modules": TEXT},
        {"target_modules": ["q_proj", "v_proj"]},
        note="its target_modules also choose model.vision_tower.encoder.layers.0.self_attn.q_proj and 5 more, for "
        f"which it has no tensors: {DECIDE}",
    ),
    Case(
        "a regular expression that chooses the tower too, with names of an earlier transformers",
        "llava",
        {"target_modules": TEXT, "use_dora": True},
        {"target_modules": r".*\.(q|v)_proj"},
        FORMER_LLAVA,
        f"{TRANSLATED} (language_model.model -> model.language_model) and its target_modules also choose "
        f"model.vision_tower.encoder.layers.0.self_attn.q_proj and 5 more, for which it has no tensors: {DECIDE}",
    ),
    Case(
        "`all-linear`, with an exclusion of an earlier transformers",
        "llava",
        {"target_modules": TEXT},
        {"target_modules": "all-linear", "exclude_modules": r"^vision_tower\..*"},
        note="its target_modules also choose model.language_model.layers.0.mlp.down_proj and 34 more, for which it has "
        f"no tensors: {DECIDE}",
    ),
    Case(
        "`rank_pattern`, `alpha_pattern` and `modules_to_save` of an earlier transformers",
        "qwen2_5_vl",
        {
            "target_modules": TEXT,
            "rank_pattern": {r"model.language_model.layers.\d.self_attn.q_proj": 6},
            "alpha_pattern": {"model.language_model.layers.0.self_attn.v_proj": 5},
            "modules_to_save": ["visual.merger"],
        },
        {
            "rank_pattern": {r"model.layers.\d.self_attn.q_proj": 6},
            "alpha_pattern": {"model.layers.0.self_attn.v_proj": 5},
        },
        FORMER_QWEN,
        f"{TRANSLATED} (model -> model.language_model; visual -> model.visual): {DECIDE}",
    ),
    Case(
        "more layers in its configuration than in its file",
        "llama",
        {"target_modules": ["q_proj"], "layers_to_transform": [0, 2]},
        {"layers_to_transform": None},
        note="its target_modules also choose model.layers.1.self_attn.q_proj and 1 more, for which it has no tensors: "
        f"{DECIDE}",
    ),
    Case(
        "`modules_to_save` that its file does not have",
        "llama",
        {"target_modules": ["q_proj"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        note=f"its modules_to_save name embed_tokens, lm_head, for which it has no tensors: {DECIDE}",
    ),
    Case(
        "names of a compiled and distributed model (`module.`, `_orig_mod.`, `_fsdp_wrapped_module.`)",
        "llama",
        {},
        renamings=(
            (r"^base_model\.model\.", "module.base_model.model._orig_mod."),
            (r"(mlp)\.", r"\1._fsdp_wrapped_module."),
        ),
    ),
    Case(
        "names without `base_model.model.`, and with the adapter's own name",
        "llama",
        {},
        renamings=((r"^base_model\.model\.", ""), (r"(lora_[AB])\.", r"\1.polite.")),
    ),
    Case(
        "trained around the model without its head",
        "llama",
        {"target_modules": ["q_proj", "down_proj"]},
        renamings=((r"^base_model\.model\.model\.", "base_model.model."),),
        note=f"{TRANSLATED} (layers -> model.layers): {DECIDE}",
    ),
    Case(
        "wrapped by peft twice",
        "gpt2",
        {},
        {"target_modules": r"^base_model\.model\.transformer\.h\.\d+\..*"},
        ((r"^base_model\.model\.", "base_model.model.base_model.model."),),
        f"{TRANSLATED} (base_model.model.transformer -> transformer) and {NOT_THESE} 12 modules that it has tensors "
        f"for: {DECIDE}",
    ),
    Case(
        "IA3 with regular expressions of an earlier transformers",
        "qwen2_5_vl",
        {"target_modules": r".*language_model.*(q|v|down)_proj", "feedforward_modules": r".*down_proj"},
        {
            "target_modules": r"^model\.layers\..*(v|q|down)_proj",
            "feedforward_modules": r"^model\.layers\.\d+\.mlp\.down_proj",
        },
        FORMER_QWEN,
        f"{TRANSLATED} (model -> model.language_model) and {NOT_THESE} 9 modules that it has tensors for: {DECIDE}",
        "IA3",
    ),
    Case(
        "LoHa with a list that chooses the tower too",
        "llava",
        {"r": 3, "target_modules": TEXT, "init_weights": False},
        {"target_modules": ["q_proj", "v_proj"]},
        FORMER_LLAVA,
        f"{TRANSLATED} (language_model.model -> model.language_model) and its target_modules also choose "
        f"model.vision_tower.encoder.layers.0.self_attn.q_proj and 5 more, for which it has no tensors: {DECIDE}",
        "LoHa",
    ),
)

LEFT_OUT = "these weights would be left out"
LLAVA = (
    "merge them and the adapter into OLD with the script of the code base that trained them, such as LLaVA's "
    "merge_lora_weights.py, and give the result."
)
EMBEDDINGS = (
    "load OLD, these embeddings and the adapter with the tool that trained them, merge_and_unload(), "
    "save_pretrained(), and give the result."
)
VALUE = "a value head is not a part of the model that answers, so move the file out of the folder."
OTHERWISE = (
    "if they are trained weights, merge them and the adapter into OLD with the tool that trained them, and give the "
    "result; if not, move the file out of the folder."
)

NEIGHBOURS = {
    "non_lora_state_dict.bin": LLAVA,
    "non_lora_trainables.bin": LLAVA,
    "mm_projector.bin": LLAVA,
    "vit.safetensors": (
        "merge them and the adapter into OLD with ms-swift (swift export --merge_lora true), and give the result."
    ),
    "new_embeddings.safetensors": EMBEDDINGS,
    "value_head.safetensors": VALUE,
    "v_head.bin": VALUE,
    "consolidated.safetensors": OTHERWISE,
    "resampler.pt": OTHERWISE,
}
"""Weights next to an adapter, and the end of the sentence with which they are refused."""

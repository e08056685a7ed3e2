"""Rows of the matrix: mixtures of experts that read text."""

from typing import Any

from families_text import ALIKE, HEAD, LINEAR, ROPE, causal
from family_pairs import Family

__all__ = ["EXPERT_FAMILIES"]

FOUR = {"num_experts": 4, "num_experts_per_tok": 2}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, **ALIKE}
SMALL = {"moe_intermediate_size": 24}
SHARED_ONE = {"num_experts_per_token": 2, "num_shared_experts": 1, "first_k_dense_replace": 1}
GROUPS = {"n_group": 2, "topk_group": 1}
SHARED = {"shared_expert_intermediate_size": 16}
STATE = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 8}
PERIODS = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": LINEAR,
}


def mixture(name: str, model: str, config: str = "", row: dict[str, Any] | None = None, **changes: Any) -> Family:
    return Family(name, "mixture", causal(name, model, config, **changes), **(row or {}))


# fmt: off
EXPERT_FAMILIES: tuple[Family, ...] = (
    mixture("Mixtral", "Mixtral", **LOCAL),
    mixture("Qwen1.5-MoE and Qwen2-MoE", "Qwen2Moe", **FOUR, **SMALL, **SHARED),
    mixture("Qwen3-MoE", "Qwen3Moe", **HEAD, **FOUR, **SMALL),
    mixture("Qwen3-Next", "Qwen3Next", **HEAD, **FOUR, **SMALL, **SHARED, **DELTA),
    mixture("Qwen3.5-MoE", "Qwen3_5Moe", "Qwen3_5MoeText", **HEAD, **FOUR, **SMALL, **SHARED, **DELTA),
    mixture("OLMoE", "Olmoe", **FOUR),
    mixture("FlexOlmo", "FlexOlmo", **FOUR),
    mixture("gpt-oss", "GptOss", **HEAD, **LOCAL, sliding_window=8, rope_parameters=ROPE),
    mixture("DeepSeek-V2", "DeepseekV2", **ROUTED, **SMALL, **LATENT),
    mixture("DeepSeek-V3", "DeepseekV3", **ROUTED, **SMALL, **LATENT, **GROUPS),
    mixture("Kimi Linear", "KimiLinear", **SHARED_ONE, **SMALL, **LATENT, linear_head_dim=8, linear_num_heads=4,
            num_experts=4, layer_types=LINEAR),
    mixture("GLM-4.5", "Glm4Moe", **HEAD, **ROUTED, **SMALL),
    mixture("GLM-4.7 Flash", "Glm4MoeLite", **ROUTED, **SMALL, **LATENT),
    mixture("dots1", "Dots1", **ROUTED, **SMALL),
    mixture("Ernie 4.5 MoE", "Ernie4_5_Moe", moe_num_experts=4, moe_k=2, moe_num_shared_experts=1,
            moe_layer_start_index=1, **SMALL),
    mixture("Hunyuan MoE", "HunYuanMoEV1", **HEAD, num_experts=4, moe_topk=2),
    mixture("MiniMax", "MiniMax", **HEAD, **LOCAL, layer_types=LINEAR, block_size=8),
    mixture("MiniMax-M2", "MiniMaxM2", **HEAD, **LOCAL),
    mixture("Phi-3.5-MoE", "Phimoe", **LOCAL),
    mixture("Granite MoE", "GraniteMoe", **LOCAL),
    mixture("Granite 4", "GraniteMoeHybrid", **LOCAL, **STATE, shared_intermediate_size=16,
            layer_types=["mamba", "attention", "mamba"]),
    mixture("LFM2-MoE", "Lfm2Moe", **FOUR, **SMALL, layer_types=["conv", "full_attention", "conv"],
            num_dense_layers=1),
    mixture("Gemma 4 MoE", "Gemma4", "Gemma4Text", **HEAD, global_head_dim=8, enable_moe_block=True, num_experts=4,
            top_k_experts=2, **SMALL, hidden_size_per_layer_input=0),
    mixture("Llama 4 (text)", "Llama4", "Llama4Text", **HEAD, num_local_experts=4, intermediate_size_mlp=48,
            interleave_moe_layer_step=2),
    mixture("Jamba", "Jamba", **FOUR, **PERIODS, use_mamba_kernels=False, mamba_d_state=8, mamba_dt_rank=8,
            row={"note": "dt_proj is observed at its product: its module is never called"}),
    mixture("Aria (text)", "AriaText", moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1),
    mixture("Solar Open", "SolarOpen", **HEAD, **ROUTED, **SMALL),
    mixture("Exaone MoE", "ExaoneMoe", **HEAD, num_experts=4, num_experts_per_tok=2, num_shared_experts=1, **SMALL,
            first_k_dense_replace=1),
    mixture("MiMo-V2-Flash", "MiMoV2Flash", **HEAD, n_routed_experts=4, num_experts_per_tok=2, **SMALL, v_head_dim=8),
    mixture("AFMoE", "Afmoe", **HEAD, num_experts=4, num_experts_per_tok=2, num_shared_experts=1, **SMALL,
            num_dense_layers=1),
    mixture("JetMoE", "JetMoe", **LOCAL, kv_channels=8, num_attention_heads=None),
    mixture("LongCat-Flash", "LongcatFlash", ffn_hidden_size=48, n_routed_experts=4, zero_expert_num=2, moe_topk=2,
            expert_ffn_hidden_size=24, num_layers=2, head_dim=8, **LATENT),
)

"""Rows of the matrix: models that read text alone, and encoder-decoders."""

from typing import Any

import transformers
from family_pairs import SIZES, Family
from transformers import PreTrainedModel

__all__ = ["TEXT_FAMILIES"]

STATE_SPACE = {"hidden_size": 32, "num_hidden_layers": 3, "vocab_size": 512, "pad_token_id": 0, "bos_token_id": 1}
DT_PROJ = "the weight of dt_proj is observed at its product: its module is never called"
LOOPS = "the blocks run several times and are merged from all of them"


def causal(name: str, model: str, config: str = "", **changes: Any) -> Any:
    """A builder: ``model``ForCausalLM of ``config``Config with the common sizes, and ``changes`` of them."""

    def build(**sizes: Any) -> PreTrainedModel:
        values = {**SIZES, **changes, **sizes}
        values = {key: value for key, value in values.items() if value is not None}
        return getattr(transformers, f"{model}ForCausalLM")(getattr(transformers, f"{config or model}Config")(**values))

    return build


def text(name: str, model: str, config: str = "", row: dict[str, Any] | None = None, **changes: Any) -> Family:
    return Family(name, "text", causal(name, model, config, **changes), **(row or {}))


def named(make: str, config: str, **values: Any) -> Any:
    """A builder for a class that calls its sizes otherwise."""

    def build(**sizes: Any) -> PreTrainedModel:
        return getattr(transformers, make)(getattr(transformers, config)(**values))

    return build


ROPE = {"rope_type": "default", "rope_theta": 10000.0}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT = {"vocab_size": 512, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512, **IDS}
HEAD = {"head_dim": 8}
BIG = {"num_attention_heads": 4, "hidden_size": 32}
SLIDING = {"sliding_window": 8}
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
LINEAR = ["linear_attention", "full_attention", "linear_attention"]
ONE_HEAD = {"num_key_value_heads": None}
ALIKE = {"num_key_value_heads": 4}
SEQ2SEQ: dict[str, Any] = {
    "vocab_size": 512,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
    **IDS,
}
T5: dict[str, Any] = {
    "vocab_size": 512, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4,
    "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
T5_ROW: dict[str, Any] = {"text": "decoder.block", "stacks": ("encoder.block",), "template": False}
BART_ROW: dict[str, Any] = {
    "text": "model.decoder.layers",
    "stacks": ("model.encoder.layers",),
    "template": False,
    "unvisited": frozenset({"model.shared"}),
}
GPT2_ROW: dict[str, Any] = {"text": "transformer.h"}
NEOX_ROW: dict[str, Any] = {"text": "gpt_neox.layers"}

# fmt: off
TEXT_FAMILIES: tuple[Family, ...] = (
    text("Llama", "Llama"),
    text("Mistral", "Mistral", **SLIDING),
    text("Ministral", "Ministral", **HEAD, layer_types=LAYERS, **SLIDING),
    text("Qwen2", "Qwen2", tie_word_embeddings=False),
    text("Qwen3", "Qwen3", **HEAD),
    text("Qwen3.5", "Qwen3_5", "Qwen3_5Text", **HEAD, layer_types=LINEAR, linear_num_key_heads=2,
         linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8),
    text("Gemma", "Gemma", **HEAD),
    text("Gemma 2", "Gemma2", **HEAD, query_pre_attn_scalar=8, **SLIDING),
    text("Gemma 3", "Gemma3", "Gemma3Text", **HEAD, query_pre_attn_scalar=8, layer_types=LAYERS, **SLIDING),
    text("Gemma 3n", "Gemma3n", "Gemma3nText", **HEAD, num_hidden_layers=4, num_kv_shared_layers=0,
         hidden_size_per_layer_input=16, vocab_size_per_layer_input=512, laurel_rank=8, altup_num_inputs=2,
         intermediate_size=48, layer_types=[*LAYERS, "full_attention"], activation_sparsity_pattern=None,
         row={"after": ("lm_head", "model.altup_unembed_projections.0")}),
    text("Gemma 4", "Gemma4", "Gemma4Text", **HEAD, global_head_dim=8, hidden_size_per_layer_input=16,
         vocab_size_per_layer_input=512, num_kv_shared_layers=0, layer_types=LAYERS),
    text("Phi", "Phi"),
    text("Phi-3", "Phi3", original_max_position_embeddings=512),
    text("OLMo", "Olmo"),
    text("OLMo 2", "Olmo2"),
    text("OLMo 3", "Olmo3", layer_types=LAYERS, **SLIDING),
    text("Cohere", "Cohere"),
    text("Cohere 2", "Cohere2", layer_types=LAYERS, **SLIDING),
    text("Granite", "Granite"),
    text("StableLM", "StableLm"),
    text("Starcoder 2", "Starcoder2"),
    text("GLM", "Glm", **HEAD),
    text("GLM-4", "Glm4", **HEAD),
    text("SmolLM3", "SmolLM3", no_rope_layers=[1, 1, 0]),
    text("Helium", "Helium", **HEAD),
    text("Nemotron", "Nemotron"),
    text("Exaone 4", "Exaone4", layer_types=LAYERS, **SLIDING),
    text("Ernie 4.5", "Ernie4_5", **HEAD),
    text("Hunyuan", "HunYuanDenseV1", **HEAD),
    text("Seed-OSS", "SeedOss", **HEAD),
    text("Arcee", "Arcee"),
    text("Apertus", "Apertus"),
    text("LFM2", "Lfm2", layer_types=["conv", "full_attention", "conv"]),
    text("MiniCPM3", "MiniCPM3", q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
         **ALIKE),
    text("Persimmon", "Persimmon", **ONE_HEAD),
    *(
        Family(f"Falcon ({kind})", "text", named("FalconForCausalLM", "FalconConfig", vocab_size=512, hidden_size=32,
               num_hidden_layers=3, num_attention_heads=4, **values, **IDS), text="transformer.h")
        for kind, values in {
            "40B": {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": False},
            "7B": {"multi_query": True, "parallel_attn": True, "bias": False},
            "RW": {"multi_query": False, "parallel_attn": False, "alibi": True, "bias": True},
            "11B": {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
        }.items()
    ),
    Family("GPT-2", "text", named("GPT2LMHeadModel", "GPT2Config", **GPT, n_inner=48), **GPT2_ROW, template=False),
    Family("GPT-J", "text", named("GPTJForCausalLM", "GPTJConfig", **GPT, n_inner=48, rotary_dim=4), **GPT2_ROW),
    Family("GPT-Neo", "text", named("GPTNeoForCausalLM", "GPTNeoConfig", vocab_size=512, hidden_size=32, num_layers=2,
           num_heads=4, intermediate_size=48, attention_types=[[["global", "local"], 1]], window_size=8,
           max_position_embeddings=512, **IDS), **GPT2_ROW),
    Family("GPT-BigCode", "text", named("GPTBigCodeForCausalLM", "GPTBigCodeConfig", **GPT, n_inner=48), **GPT2_ROW),
    Family("CodeGen", "text", named("CodeGenForCausalLM", "CodeGenConfig", **GPT, n_inner=48, rotary_dim=4, n_ctx=512),
           **GPT2_ROW),
    Family("GPT-NeoX", "text", causal("", "GPTNeoX", **ONE_HEAD), **NEOX_ROW),
    Family("BLOOM", "text", named("BloomForCausalLM", "BloomConfig", vocab_size=512, hidden_size=32, n_layer=3,
           n_head=4, **IDS), **GPT2_ROW),
    Family("MPT", "text", named("MptForCausalLM", "MptConfig", vocab_size=512, d_model=32, n_layers=3, n_heads=4,
           expansion_ratio=2, max_seq_len=512), text="transformer.blocks"),
    Family("OPT", "text", causal("", "OPT", ffn_dim=48, word_embed_proj_dim=16, intermediate_size=None, **ONE_HEAD),
           text="model.decoder.layers", after=("model.decoder.project_out", "lm_head")),
    Family("Mamba", "state space", named("MambaForCausalLM", "MambaConfig", **STATE_SPACE, eos_token_id=2, state_size=8,
           time_step_rank=8), text="backbone.layers", note=DT_PROJ),
    Family("Mamba 2", "state space", named("Mamba2ForCausalLM", "Mamba2Config", **STATE_SPACE, eos_token_id=2,
           num_heads=8, head_dim=8, state_size=8, n_groups=2, chunk_size=8), text="backbone.layers"),
    Family("Falcon Mamba", "state space", named("FalconMambaForCausalLM", "FalconMambaConfig", **STATE_SPACE,
           eos_token_id=2, state_size=8, time_step_rank=8), text="backbone.layers", note=DT_PROJ),
    Family("Falcon H1", "state space", causal("", "FalconH1", **HEAD, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8,
           mamba_n_groups=1, mamba_d_state=8, mamba_chunk_size=8)),
    Family("Bamba", "state space", causal("", "Bamba", attn_layer_indices=[1], mamba_n_heads=8, mamba_d_head=8,
           mamba_n_groups=1, mamba_d_state=8, mamba_chunk_size=8)),
    Family("Granite 4 (dense)", "state space", causal("", "GraniteMoeHybrid", layer_types=["mamba", "attention",
           "mamba"], mamba_n_heads=8, mamba_d_head=8, mamba_n_groups=1, mamba_d_state=8, mamba_chunk_size=8,
           shared_intermediate_size=48, num_local_experts=0)),
    Family("RecurrentGemma", "state space", causal("", "RecurrentGemma", attention_window_size=8, lru_width=32,
           num_hidden_layers=3, **HEAD)),
    Family("Zamba 2", "state space", causal("", "Zamba2", num_hidden_layers=6, **ALIKE, mamba_d_state=8,
           mamba_ngroups=1, n_mamba_heads=8, layers_block_type=["mamba", "hybrid"] * 3, num_mem_blocks=2, chunk_size=8,
           adapter_rank=8), note="a shared block is merged from all its uses, at the depth of the first"),
    Family("Zamba", "state space", causal("", "Zamba", num_hidden_layers=6, **ALIKE, attn_layer_period=2,
           attn_layer_offset=1, attention_head_dim=16, mamba_d_state=8, mamba_dt_rank=8, n_mamba_heads=2),
           note="a shared block is merged from all its uses, at the depth of the first"),
    text("HRM-Text", "HrmText", **HEAD, H_cycles=2, L_cycles=2, num_hidden_layers=4, row={"text":
         "model.L_module.layers", "stacks": ("model.H_module.layers",), "loops": True, "note": LOOPS}),
    Family("T5", "encoder-decoder", named("T5ForConditionalGeneration", "T5Config", **T5), **T5_ROW,
           unvisited=frozenset({"shared"})),
    Family("Flan-T5", "encoder-decoder", named("T5ForConditionalGeneration", "T5Config", **T5,
           feed_forward_proj="gated-gelu", tie_word_embeddings=False), **T5_ROW, unvisited=frozenset({"shared"})),
    Family("mT5", "encoder-decoder", named("MT5ForConditionalGeneration", "MT5Config", **T5), **T5_ROW,
           unvisited=frozenset({"shared"})),
    Family("BART", "encoder-decoder", named("BartForConditionalGeneration", "BartConfig", **SEQ2SEQ), **BART_ROW),
    Family("PEGASUS", "encoder-decoder", named("PegasusForConditionalGeneration", "PegasusConfig", **SEQ2SEQ),
           **BART_ROW),
    Family("M2M-100", "encoder-decoder", named("M2M100ForConditionalGeneration", "M2M100Config", **SEQ2SEQ),
           **BART_ROW),
)

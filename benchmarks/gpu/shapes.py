"""The models that are merged: their sizes, their samples, and what is asked of their merge."""

from dataclasses import dataclass, field
from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>", "<image>")


@dataclass(frozen=True)
class Target:
    """The most that is allowed; None: no target. Bytes are 10^9 to the GB."""

    seconds: float | None = None
    times_floor: float | None = None
    device_bytes: float | None = None
    host_bytes: float | None = None


@dataclass(frozen=True)
class Shape:
    """A model without weights, its calibration samples, and what is asked of its merge."""

    text: dict[str, Any]
    vision: dict[str, Any] | None = None
    tokens: int = 650
    samples: dict[str, int] = field(default_factory=lambda: {"safety": 8, "task": 128})
    target: Target = Target()

    @property
    def image_tokens(self) -> int:
        return (self.vision["image_size"] // self.vision["patch_size"]) ** 2 if self.vision else 0

    def config(self) -> LlamaConfig | LlavaConfig:
        if self.vision is None:
            return LlamaConfig(**self.text, architectures=["LlamaForCausalLM"], dtype="bfloat16")
        return LlavaConfig(
            text_config=LlamaConfig(**self.text, dtype="bfloat16"),
            vision_config=CLIPVisionConfig(**self.vision, dtype="bfloat16"),
            image_token_index=SPECIAL_TOKENS.index("<image>"),
            image_seq_length=self.image_tokens,
            architectures=["LlavaForConditionalGeneration"],
            dtype="bfloat16",
        )


SHAPES = {
    "llava-7b": Shape(
        text={
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 32064,
            "max_position_embeddings": 4096,
        },
        vision={
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 768,
        },
        target=Target(seconds=60, times_floor=2.5, device_bytes=8e9, host_bytes=10e9),
    ),
    "llama-70b-block": Shape(
        text={
            "hidden_size": 8192,
            "intermediate_size": 28672,
            "num_hidden_layers": 2,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "vocab_size": 4096,
            "max_position_embeddings": 8192,
        },
        target=Target(device_bytes=24e9),
    ),
    "tiny": Shape(
        text={
            "hidden_size": 64,
            "intermediate_size": 176,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 512,
        },
        vision={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
        },
        tokens=80,
        samples={"safety": 3, "task": 12},
    ),
}

"""Tiny checkpoints of real architectures, before and after a tuning step, and calibration files for them.

Every model comes from a config class of transformers itself, is filled with seeded random numbers that spread the
scores of the columns well (unequal channels, nonzero biases, a gain near one through every linear), and is written with
``save_pretrained`` beside a real tokenizer or processor, so that a folder looks as one from the Hub does.

What the tuning step (:func:`make_pair`) did, for tests that rely on it:

- most linears: low rank, plus a component along the old weight, plus small noise;
- :data:`UNCHANGED_SUFFIXES`: not at all (checkpoint tensor and module names end alike);
- :data:`SPARSE_SUFFIXES`: every eighth input column only, so that the focus sets are filled up by ties at zero;
- everything else (norms, biases, embeddings, tied heads, convolutions): slightly.
"""

import json
import random
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from tiny_processors import (
    BOS_ID,
    EOS_ID,
    IMAGE_ID,
    IMAGE_PAD_ID,
    LLAVA_IMAGE_SIZE,
    LLAVA_IMAGE_TOKENS,
    LLAVA_PATCH_SIZE,
    PAD_ID,
    QWEN_MERGE_SIZE,
    QWEN_PATCH_SIZE,
    VIDEO_PAD_ID,
    VISION_END_ID,
    VISION_START_ID,
    llava_processor,
    qwen2_5_vl_processor,
    text_tokenizer,
)
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.pytorch_utils import Conv1D

ARCHITECTURES: tuple[str, ...] = ("llama", "qwen2_tied", "gpt2", "phi3", "gemma3", "llava", "qwen2_5_vl")
VISION_ARCHITECTURES: tuple[str, ...] = ("llava", "qwen2_5_vl")

UNCHANGED_SUFFIXES: tuple[str, ...] = (
    "layers.1.self_attn.o_proj.weight",  # every text stack but GPT-2's
    "h.1.attn.c_proj.weight",  # GPT-2
    "encoder.layers.0.self_attn.v_proj.weight",  # CLIP
    "blocks.0.attn.proj.weight",  # Qwen2.5-VL's vision tower
)
SPARSE_SUFFIXES: tuple[str, ...] = ("layers.2.mlp.down_proj.weight", "h.2.mlp.c_proj.weight")
SPARSE_STEP = 8

_SPECIAL_IDS = {"pad_token_id": PAD_ID, "bos_token_id": BOS_ID, "eos_token_id": EOS_ID}
_SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    **_SPECIAL_IDS,
}


def make_pair(
    name: str, folder: Path, *, dtype: torch.dtype = torch.float32, seed: int = 0, shard_size: str = "300KB"
) -> tuple[Path, Path]:
    """Write ``folder/old`` and ``folder/new``, the checkpoints before and after a tuning step; return both paths."""
    old, new = folder / "old", folder / "new"
    random_numbers = torch.Generator().manual_seed(seed)
    model = build(name)
    _fill(model, random_numbers)
    model.to(dtype)
    for path in (old, new):
        if path == new:
            _tune(model, random_numbers)
        model.save_pretrained(path, max_shard_size=shard_size)
        processor_of(name).save_pretrained(path)
    return old, new


def build(name: str) -> PreTrainedModel:
    """The architecture with transformers' own initialisation; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        return _BUILDERS[name]().eval()


def processor_of(name: str):
    """The processor of a vision-language model, the tokenizer of a text model (GPT-2's has no chat template)."""
    if name == "llava":
        return llava_processor()
    if name == "qwen2_5_vl":
        return qwen2_5_vl_processor()
    return text_tokenizer(chat=name != "gpt2")


def _llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**{**_SIZES, "num_hidden_layers": 4}, tie_word_embeddings=False))


def _qwen2_tied() -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**_SIZES, tie_word_embeddings=True))


def _gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=512, n_embd=48, n_inner=144, n_layer=3, n_head=4, n_positions=512, **_SPECIAL_IDS)
    )


def _phi3() -> PreTrainedModel:
    return Phi3ForCausalLM(Phi3Config(**_SIZES, original_max_position_embeddings=512, tie_word_embeddings=False))


def _gemma3() -> PreTrainedModel:
    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            **{**_SIZES, "num_hidden_layers": 4, "intermediate_size": 160},
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        )
    )


def _llava() -> PreTrainedModel:
    vision = CLIPVisionConfig(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=LLAVA_IMAGE_SIZE,
        patch_size=LLAVA_PATCH_SIZE,
        projection_dim=32,
    )
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=LlamaConfig(**_SIZES),
            image_token_index=IMAGE_ID,
            image_seq_length=LLAVA_IMAGE_TOKENS,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )
    )


def _qwen2_5_vl() -> PreTrainedModel:
    vision = {
        "depth": 2,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_heads": 4,
        "out_hidden_size": _SIZES["hidden_size"],
        "patch_size": QWEN_PATCH_SIZE,
        "spatial_merge_size": QWEN_MERGE_SIZE,
        "window_size": QWEN_PATCH_SIZE * QWEN_MERGE_SIZE,
        "fullatt_block_indexes": [1],
    }
    rotary = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            vision_config=vision,
            text_config={**_SIZES, "rope_parameters": rotary},
            image_token_id=IMAGE_PAD_ID,
            video_token_id=VIDEO_PAD_ID,
            vision_start_token_id=VISION_START_ID,
            vision_end_token_id=VISION_END_ID,
            tie_word_embeddings=False,
        )
    )


_BUILDERS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": _llama,
    "qwen2_tied": _qwen2_tied,
    "gpt2": _gpt2,
    "phi3": _phi3,
    "gemma3": _gemma3,
    "llava": _llava,
    "qwen2_5_vl": _qwen2_5_vl,
}


def _fill(model: PreTrainedModel, random_numbers: torch.Generator) -> None:
    """Overwrite every parameter once (a tied head is its embedding)."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random_numbers)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=random_numbers)

    inputs_first = {id(module.weight) for module in model.modules() if isinstance(module, Conv1D)}
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    centred_at_zero = model.config.model_type == "gemma3_text"  # its norms multiply by 1 + weight
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shape = tuple(parameter.shape)
            if name.endswith("bias"):
                value = 0.3 * normal(*shape)
            elif id(parameter) in embeddings:
                value = normal(*shape) * uniform(0.5, 2.0, shape[1])
            elif parameter.ndim == 1:  # a norm's weight, CLIP's class embedding
                value = uniform(0.5, 2.0, *shape) - float(centred_at_zero)
            elif id(parameter) in inputs_first:
                value = normal(*shape) * uniform(0.7, 1.4, shape[0], 1) / shape[0] ** 0.5
            else:  # a linear (r, c), a convolution (r, c, ...)
                columns = uniform(0.7, 1.4, shape[1], *[1] * (parameter.ndim - 2))
                value = normal(*shape) * columns / parameter[0].numel() ** 0.5
            parameter.copy_(value)


def _tune(model: PreTrainedModel, random_numbers: torch.Generator) -> None:
    """Turn the model that was OLD into NEW; see the top of the file."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random_numbers)

    inputs_first = {id(module.weight) for module in model.modules() if isinstance(module, Conv1D)}
    linears = inputs_first | {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    linears -= {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            before = parameter.float()
            if name.endswith(UNCHANGED_SUFFIXES):
                continue
            if id(parameter) not in linears:
                parameter.copy_(before * (1 + 0.03 * normal(*before.shape)))
                continue
            weight = before.T if id(parameter) in inputs_first else before  # (r, c)
            rows, columns = weight.shape
            size = weight.square().mean().sqrt()
            low_rank = normal(rows, 4) @ normal(4, columns)
            along = 0.15 * torch.rand((), generator=random_numbers) - 0.05
            update = size * (0.05 * low_rank + 0.02 * normal(rows, columns)) + along * weight
            if name.endswith(SPARSE_SUFFIXES):
                update *= torch.arange(columns) % SPARSE_STEP == 0
            parameter.copy_(before + (update.T if id(parameter) in inputs_first else update))


_HARMS = ("pick a lock", "forge two letters", "poison the well of a village", "steal a car", "open a safe")
_REFUSALS = ("i cannot help with that.", "no. that would hurt people.", "sorry, i will not do this; ask me for help.")


def make_calibration(name: str, folder: Path, *, safety: int = 4, task: int = 6, seed: int = 0) -> tuple[Path, Path]:
    """Write ``folder/safety.jsonl`` and ``folder/task.jsonl`` (and ``folder/images/*.png``); return both paths.

    GPT-2 gets ``{"instruction", "response"}``, the others ``{"messages"}``. A vision-language model gets an image in
    every second sample, of either set; the content of its other samples is a plain string.
    """
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind, count in (("safety", safety), ("task", task)):
        lines = []
        for number in range(count):
            if kind == "safety":
                question, answer = f"how do i {draw.choice(_HARMS)}?", _REFUSALS[number % len(_REFUSALS)]
            else:
                numbers = [draw.randrange(10, 1000) for _ in range(3 + 4 * (number % 3))]
                question, answer = "+".join(map(str, numbers)), _running_sums(numbers)
            image = None
            if name in VISION_ARCHITECTURES and number % 2 == 0:
                image = f"images/{kind}-{number}.png"
                _draw_image(folder / image, draw)
            lines.append(json.dumps(_sample(question, answer, image, chat=name != "gpt2")) + "\n")
        path = folder / f"{kind}.jsonl"
        path.write_text("".join(lines), encoding="utf-8")
        paths.append(path)
    return paths[0], paths[1]


def _running_sums(numbers: list[int]) -> str:
    return "; ".join(f"{a}+{b}={a + b}" for a, b in zip(accumulate(numbers), numbers[1:], strict=False))


def _sample(question: str, answer: str, image: str | None, *, chat: bool) -> dict:
    if not chat:
        return {"instruction": question, "response": answer}
    asked: str | list[dict[str, str]] = question
    if image is not None:
        asked = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


def _draw_image(path: Path, draw: random.Random) -> None:
    path.parent.mkdir(exist_ok=True)
    width, height = draw.choice([28, 40, 56]), draw.choice([28, 40, 56])
    image = Image.new("RGB", (width, height), tuple(draw.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        left, top = draw.randrange(width), draw.randrange(height)
        box = (left, top, left + draw.randrange(4, 20), top + draw.randrange(4, 20))
        pen.ellipse(box, fill=tuple(draw.randrange(256) for _ in range(3)))
    image.save(path)


def model_inputs(name: str, calibration: Path) -> list[dict[str, Tensor]]:
    """What the model is called with for each line of a file of :func:`make_calibration`, one sample a call.

    Written for the tests of the reference: an order of its own over transformers' processors, no part of the package.
    """
    processor = processor_of(name)
    samples = [json.loads(line) for line in calibration.read_text(encoding="utf-8").splitlines()]
    inputs = []
    for sample in samples:
        if name == "gpt2":
            encoded = processor(f"{sample['instruction']}\n{sample['response']}", return_tensors="pt")
        elif name not in VISION_ARCHITECTURES:
            text = processor.apply_chat_template(sample["messages"], tokenize=False)
            encoded = processor(text, add_special_tokens=False, return_tensors="pt")
        else:
            messages = [{**message, "content": _as_parts(message["content"])} for message in sample["messages"]]
            images = []
            for part in (part for message in messages for part in message["content"] if part["type"] == "image"):
                with Image.open(calibration.parent / part["image"]) as image:
                    images.append(image.convert("RGB"))
            text = processor.apply_chat_template(messages, tokenize=False)
            encoded = processor(text=[text], images=images or None, add_special_tokens=False, return_tensors="pt")
        encoded.pop("token_type_ids", None)
        inputs.append(dict(encoded))
    return inputs


def _as_parts(content: str | list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content

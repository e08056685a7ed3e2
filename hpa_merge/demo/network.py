"""The demo's untrained model and its processor: a LLaVA of under a million weights."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from hpa_merge.demo.scenes import IMAGE_SIZE, vocabulary

__all__ = ["make_model", "make_processor"]

_PATCH = 8
_PAD, _BOS, _EOS, _UNKNOWN, _IMAGE = _SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
_CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
    {{- message['role'].upper() + ': ' -}}
    {%- if message['content'] is string -%}
        {{- message['content'] -}}
    {%- else -%}
        {%- for part in message['content'] if part['type'] == 'image' -%}{{- '<image>\\n' -}}{%- endfor -%}
        {%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
    {%- endif -%}
    {{- eos_token if message['role'] == 'assistant' else ' ' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
"""


def make_processor(words: Sequence[str] = (), image_size: int = IMAGE_SIZE) -> LlavaProcessor:
    """A word-level tokenizer of ``words`` (the demo's own by default), CLIP's picture preparation, a chat template."""
    words = [*_SPECIAL, ":", "user", "assistant", "system", *(words or vocabulary())]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=_UNKNOWN))
    backend.normalizer = Lowercase()
    backend.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=_PAD,
        bos_token=_BOS,
        eos_token=_EOS,
        unk_token=_UNKNOWN,
        extra_special_tokens={"image_token": _IMAGE},
        padding_side="left",
        model_max_length=256,
    )
    # The PIL class says "CLIPImageProcessor" in what it saves, so it is loaded with torchvision and without.
    pictures = CLIPImageProcessorPil(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_CHAT_TEMPLATE,
    )


def make_model(processor: LlavaProcessor, *, width: int = 128, depth: int = 4) -> LlavaForConditionalGeneration:
    """The model from the global generator's random weights; greedy generation of at most eight words.

    Args:
        width, depth: hidden size and number of blocks of the text model.
    """
    tokenizer = processor.tokenizer
    image_size = processor.image_processor.crop_size["height"]
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        projection_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=image_size,
        patch_size=_PATCH,
        initializer_range=0.1,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=depth,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.04,
        **ids,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=processor.image_token_id,
        image_seq_length=(image_size // _PATCH) ** 2,
        vision_feature_layer=-1,
        **ids,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=8, **ids)
    return model

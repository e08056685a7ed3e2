"""Tokenizers and processors that are real but tiny: built from nothing, 270 tokens, nothing downloaded.

One vocabulary serves them all. Ids 0-13 are the special tokens below; 14-269 are the 256 bytes, so that any text can be
encoded and a token of plain text is one byte. Model configs beside them use ``vocab_size=512``.

Every tokenizer puts ``<bos>`` in front when it adds special tokens, and so does every chat template.
"""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    Gemma3ImageProcessor,
    Gemma3Processor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
)
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor

SPECIAL_TOKENS = (
    "<pad>",
    "<bos>",
    "<eos>",
    "<unk>",
    "<image>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|im_start|>",
    "<|im_end|>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
)
PAD_ID = 0
BOS_ID = 1
EOS_ID = 2
UNK_ID = 3
IMAGE_ID = 4  # LLaVA: config.image_token_id
IMAGE_PAD_ID = 5  # Qwen2.5-VL: config.image_token_id
VIDEO_PAD_ID = 6  # Qwen2.5-VL: config.video_token_id
VISION_START_ID = 7  # Qwen2.5-VL: config.vision_start_token_id
VISION_END_ID = 8  # Qwen2.5-VL: config.vision_end_token_id
IM_START_ID = 9
IM_END_ID = 10
START_OF_IMAGE_ID = 11  # Gemma 3: config.boi_token_index
END_OF_IMAGE_ID = 12  # Gemma 3: config.eoi_token_index
IMAGE_SOFT_ID = 13  # Gemma 3: config.image_token_id
FIRST_BYTE_ID = len(SPECIAL_TOKENS)
VOCAB_SIZE = FIRST_BYTE_ID + 256

LLAVA_IMAGE_SIZE = 28  # pixels a side: vision_config.image_size
LLAVA_PATCH_SIZE = 14  # vision_config.patch_size
LLAVA_IMAGE_TOKENS = 4  # (28 / 14)² patches; the class token is dropped by vision_feature_select_strategy="default"
QWEN_PATCH_SIZE = 14  # vision_config.patch_size
QWEN_MERGE_SIZE = 2  # vision_config.spatial_merge_size
GEMMA_IMAGE_SIZE = 28  # vision_config.image_size
GEMMA_IMAGE_TOKENS = 4  # config.mm_tokens_per_image
QWEN_MAX_PIXELS = 56 * 56  # at most 4x4 patches, 2x2 image tokens, an image

TEXT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('Unknown role ' + message['role']) }}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
)
"""ChatML behind ``<bos>``. The content has to be a string: a list of parts does not concatenate."""


def parts_template(image: str) -> str:
    """ChatML behind ``<bos>`` whose content has to be a list of parts; ``image`` is written for every image part."""
    return (
        "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}" + image + "{% else %}"
        "{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    )


def media_template(image: str = "", **written: str) -> str:
    """The same for media of several kinds: ``video`` is written for every part that is one, and so on."""
    kinds = "".join(f"{{% elif part['type'] == '{kind}' %}}{text}" for kind, text in written.items())
    return parts_template(image).replace("{% else %}", f"{kinds}{{% else %}}")


def text_tokenizer(chat: bool) -> PreTrainedTokenizerFast:
    """One token a byte, ``<bos>`` in front; with :data:`TEXT_TEMPLATE` where ``chat``, else without a template."""
    tokenizer = _tokenizer()
    if chat:
        tokenizer.chat_template = TEXT_TEMPLATE
    return tokenizer


def llava_processor(chat: bool = True) -> LlavaProcessor:
    """LLaVA 1.5's: images of 28x28 pixels, patches of 14, so :data:`LLAVA_IMAGE_TOKENS` times ``<image>`` an image."""
    side = {"height": LLAVA_IMAGE_SIZE, "width": LLAVA_IMAGE_SIZE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": LLAVA_IMAGE_SIZE}, crop_size=side),
        tokenizer=_tokenizer(),
        patch_size=LLAVA_PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=parts_template("<image>\n") if chat else None,
    )


class ImageOnlyQwen2_5_VLProcessor(Qwen2_5_VLProcessor):
    """Without the video processor, which needs torchvision; saved under the name of the real one."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        return [name for name in super().get_attributes() if name != "video_processor"]


ImageOnlyQwen2_5_VLProcessor.__name__ = Qwen2_5_VLProcessor.__name__


def qwen2_5_vl_processor() -> Qwen2_5_VLProcessor:
    """Qwen2.5-VL's, for images: patches of 14, merged 2x2, one to four ``<|image_pad|>`` an image.

    ``save_pretrained`` writes the name of the real class, and no video processor.
    """
    return ImageOnlyQwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            patch_size=QWEN_PATCH_SIZE,
            merge_size=QWEN_MERGE_SIZE,
            min_pixels=(QWEN_PATCH_SIZE * QWEN_MERGE_SIZE) ** 2,
            max_pixels=QWEN_MAX_PIXELS,
        ),
        tokenizer=_tokenizer(),
        chat_template=parts_template("<|vision_start|><|image_pad|><|vision_end|>"),
    )


def gemma3_processor() -> Gemma3Processor:
    """Gemma 3's: images of 28x28 pixels; an image is :data:`GEMMA_IMAGE_TOKENS` soft tokens between start and end."""
    side = {"height": GEMMA_IMAGE_SIZE, "width": GEMMA_IMAGE_SIZE}
    return Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size=side),
        tokenizer=_tokenizer(
            boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>"
        ),
        chat_template=parts_template("<start_of_image>"),
        image_seq_length=GEMMA_IMAGE_TOKENS,
    )


def _tokenizer(**extra_special_tokens: str) -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary |= {letter: FIRST_BYTE_ID + index for index, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", BOS_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens=extra_special_tokens,
    )

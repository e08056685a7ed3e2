"""Samples for LLaVA as its own code base writes it: a tokenizer that knows no image, and the tower's image processor.

Token ids, prompts and pixels are those of that code base: the text between two images is tokenised by itself, an image
stands first in its turn, and it may be made a square before the image processor crops it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, LlamaTokenizer, PretrainedConfig

from hpa_merge.calibration.encode import Encoder
from hpa_merge.calibration.loading import load_tokenizer, processor_template, reason
from hpa_merge.calibration.templates import TemplateOptions
from hpa_merge.counting import counted
from hpa_merge.errors import CheckpointError
from hpa_merge.records import PLACEHOLDER, Sample

__all__ = ["CONVERSATIONS", "original_llava_encoder"]

_SAID = (
    "{%- macro said(message) -%}"
    "{%- set texts = message['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') -%}"
    "{%- set images = message['content'] | selectattr('type', 'equalto', 'image') | list -%}"
    "{{ ('<image>\n' * (images | length) ~ texts | join(' ')) | trim }}"
    "{%- endmacro -%}"
    "{%- set given = messages[0]['role'] == 'system' -%}"
    "{%- set system = said(messages[0]) if given else SYSTEM -%}"
    "{%- set turns = messages[1:] if given else messages -%}"
    "{%- for message in turns if message['role'] not in ['user', 'assistant'] -%}"
    "{{ raise_exception('it has a turn of the role ' ~ message['role']) }}"
    "{%- endfor -%}"
)
"""What a turn says, images first; the system sentence; the turns."""

_V1 = _SAID + (
    "{{ system ~ ' ' if system }}"
    "{%- for message in turns -%}"
    "{{ 'USER: ' ~ said(message) ~ ' ' if message['role'] == 'user' else 'ASSISTANT: ' ~ said(message) ~ '</s>' }}"
    "{%- endfor -%}"
)
"""``USER: … ASSISTANT: …</s>``."""

_LLAMA_2 = _SAID + (
    "{%- for message in turns -%}"
    "{%- set head = '<<SYS>>\n' ~ system ~ '\n<</SYS>>\n\n' if loop.first and system else '' -%}"
    "{{ (BEGIN if not loop.first else '') ~ '[INST] ' ~ head ~ said(message) ~ ' [/INST]' "
    "if message['role'] == 'user' else ' ' ~ said(message) ~ ' </s>' }}"
    "{%- endfor -%}"
)
"""``[INST] … [/INST] … </s>``."""


def _template(body: str, **values: str) -> str:
    """A chat template with these constants."""
    return "".join(f"{{%- set {name} = {value!r} -%}}" for name, value in values.items()) + body


CONVERSATIONS = {
    "v1": _template(
        _V1,
        SYSTEM="A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions.",
    ),
    "llava_llama_2": _template(
        _LLAMA_2,
        SYSTEM="You are a helpful language and vision assistant. You are able to understand the visual content that "
        "the user provides, and assist the user with a variety of tasks using natural language.",
        BEGIN="<s>",
    ),
    "mistral_instruct": _template(_LLAMA_2, SYSTEM="", BEGIN=""),
}
"""Prompts by the names that the code base has for them, as chat templates."""


def original_llava_encoder(
    folder: Path,
    tower: Path,
    config: Mapping[str, Any],
    samples: Sequence[Sample],
    *,
    conversation: str,
    image_token_id: int,
    image_tokens: int,
    template_options: TemplateOptions | None = None,
) -> Encoder:
    """What encodes ``samples``; loads of the folders what they need.

    Args:
        folder: the checkpoint's, with the tokenizer.
        tower: the vision tower's, with the image processor.
        config: the checkpoint's config.json.
        conversation: one of :data:`CONVERSATIONS`; ``auto``: the tokenizer's chat template, or where it has none
            ``mistral_instruct`` for a Mistral and ``v1`` for others.
        image_token_id: what stands in the token ids for an image, ``image_tokens`` times.
        template_options: what the user says of the template; one that is given comes before the conversation's.

    Raises:
        CheckpointError: what is needed is missing, or cannot be loaded.
    """
    source = next((sample.source for sample in samples if not sample.input_ids), None)
    if source is None:
        return Encoder()
    tokenizer = load_tokenizer(folder, source, config=PretrainedConfig())  # of its own class, whatever the model's type
    _begin_with_bos(tokenizer)
    template: Any = CONVERSATIONS.get(conversation) or processor_template(folder)
    if template is None and not getattr(tokenizer, "chat_template", None):
        mistral = "Mistral" in str(config.get("architectures"))
        template = CONVERSATIONS["mistral_instruct" if mistral else "v1"]
    pictured = next((sample.source for sample in samples if sample.images), None)
    processor = _Processor(
        tokenizer,
        None if pictured is None else _load_image_processor(tower, folder, pictured),
        square=config.get("image_aspect_ratio") == "pad",
        image_token="<im_start><image><im_end>" if config.get("mm_use_im_start_end") else PLACEHOLDER,
        image_token_id=image_token_id,
        image_tokens=image_tokens,
    )
    if isinstance(template, str):
        template = template.replace(PLACEHOLDER, processor.image_token)
    return Encoder(processor=processor, template=template, options=template_options)


def _begin_with_bos(tokenizer: Any) -> None:
    """Let a Llama's tokenizer put ``<s>`` in front unless its files say otherwise, which was its default until 2025."""
    if isinstance(tokenizer, LlamaTokenizer) and "add_bos_token" not in tokenizer.init_kwargs:
        tokenizer.add_bos_token = True  # type: ignore[misc]  # its setter, apart from the getter


@final
class _Processor:
    """What :class:`Encoder` asks of a processor; :func:`original_llava_encoder` says more of the attributes."""

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Any,
        *,
        square: bool,
        image_token: str,
        image_token_id: int,
        image_tokens: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.image_token = image_token
        self.image_token_id = image_token_id
        self._image_tokens = image_tokens
        self._square = square

    def __call__(
        self, text: list[str], images: list[list[Image.Image]], *, return_tensors: str, add_special_tokens: bool = True
    ) -> dict[str, torch.Tensor]:
        """One text with its images: ``input_ids`` and ``attention_mask`` ``[1, n]``, ``pixel_values`` ``[i, 3, h, w]``.

        Raises:
            ValueError: the text has another number of places than there are images.
        """
        chunks, pictures = text[0].split(PLACEHOLDER), images[0]
        if len(chunks) != len(pictures) + 1:
            raise ValueError(
                f"its text has {len(chunks) - 1} times {PLACEHOLDER} for {counted(len(pictures), 'image')}"
            )
        ids: list[int] = []
        for number, chunk in enumerate(chunks):
            tokens = list(self.tokenizer(chunk, add_special_tokens=add_special_tokens).input_ids)
            if number:
                ids += [self.image_token_id] * self._image_tokens
                if tokens[:1] == [self.tokenizer.bos_token_id]:  # it stands in front of every chunk
                    tokens = tokens[1:]
            ids += tokens
        input_ids = torch.tensor([ids])
        if self._square:
            colour = tuple(int(part * 255) for part in self.image_processor.image_mean)
            pictures = [_squared(picture, colour) for picture in pictures]
        pixels = self.image_processor(pictures, return_tensors=return_tensors)["pixel_values"]
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "pixel_values": pixels}


def _squared(picture: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    """The picture in the middle of the smallest square that holds it."""
    side = max(picture.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def _load_image_processor(tower: Path, folder: Path, source: str) -> Any:
    """The tower's image processor, or one that was put beside the checkpoint; ``source`` names a sample with images.

    Raises:
        CheckpointError: there is none, or it cannot be loaded.
    """
    place = next((place for place in (tower, folder) if (place / "preprocessor_config.json").is_file()), None)
    if place is None:
        raise CheckpointError(
            f"the vision tower {tower} has no preprocessor_config.json, and {source} has images: add that file of the "
            "CLIP model, or remove the images."
        )
    try:
        return CLIPImageProcessorPil.from_pretrained(place, local_files_only=True)
    except Exception as error:  # whatever a broken file makes transformers raise
        raise CheckpointError(
            f"{place} has no image processor that transformers can load, and {source} has images ({reason(error)}): "
            "fetch its preprocessor_config.json again, or remove the images."
        ) from error

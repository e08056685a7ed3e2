"""One sample becomes the inputs of one forward pass: chat template, image processor, tokenizer, truncation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, final

import torch

from hpa_merge.calibration.loading import (
    is_multimodal,
    legacy_chat_template,
    load_processor,
    load_tokenizer,
    panics_as_errors,
    reason,
)
from hpa_merge.calibration.media import open_images
from hpa_merge.errors import CalibrationError
from hpa_merge.records import Media, Sample

__all__ = ["Encoder"]

Content = Literal["parts", "string"]
"""What a chat template takes for a message's content: an array of text and image parts, or one string."""


class Render(Protocol):
    """A chat template: messages in, text out; with ``reply`` the text ends where the assistant's next turn begins."""

    def __call__(self, messages: list[dict[str, Any]], *, reply: bool = False) -> str: ...


IMAGE_TOKEN_IDS = ("image_token_id", "image_break_token_id", "image_end_token_id", "boi_token_id", "eoi_token_id")
"""Where processors and tokenizers of transformers keep the ids of the tokens that an image becomes."""

TEXT_LENGTH = 2**21
"""Characters of a sample at most, a thousand times of what is used by default."""

_PROBE = "hpa-merge probe"


@final
class Encoder:
    """Encodes samples as the checkpoint's own users would: its chat template, its tokenizer, its image processor.

    All three are a stranger's, and nothing here bounds what they take: but for token ids this is used in a child
    process alone, by :class:`hpa_merge.calibration.EncoderProcess`.

    Special tokens follow the two conventions of transformers. A tokenizer's template writes all of them itself; a
    processor's may leave out the BOS, which the tokenizer then adds. Without a template a conversation is its texts
    and image tokens joined by line feeds, with the special tokens that the tokenizer adds to any text.
    """

    def __init__(
        self, tokenizer: Any = None, processor: Any = None, *, template: str | None = None, multimodal: bool = False
    ) -> None:
        """Use :meth:`from_checkpoint`; this is for parts that are loaded already.

        Args:
            tokenizer: for samples without images; a processor's own where it is ``None``.
            processor: for samples with images.
            template: a processor's chat template, where the processor itself is not there to give it.
            multimodal: the tokenizer is a processor's, whether or not that is there.
        """
        self._processor = processor
        self._tokenizer = processor.tokenizer if tokenizer is None and processor is not None else tokenizer
        self._render = _renderer(self._tokenizer, processor, template)
        self._multimodal = multimodal or processor is not None
        self._content: Content | None = None  # unknown until a template is first run

    @classmethod
    def from_checkpoint(cls, folder: Path, samples: Sequence[Sample]) -> "Encoder":
        """Loads what ``samples`` need: a processor where there are images, else a tokenizer, nothing for token ids.

        Raises:
            CalibrationError: a sample has images and the checkpoint is one without images.
            CheckpointError: what is needed is missing from ``folder``, or cannot be loaded.
        """
        for sample in samples:
            if sample.images:
                return cls(processor=load_processor(folder, sample.source))
        for sample in samples:
            if not sample.input_ids:
                tokenizer = load_tokenizer(folder, sample.source)
                return cls(tokenizer, template=legacy_chat_template(folder), multimodal=is_multimodal(folder))
        return cls()

    def encode(self, sample: Sample, max_length: int) -> dict[str, torch.Tensor]:
        """The inputs of ``model(**inputs)`` for one sample: batch 1, on the CPU, floating tensors in float32.

        ``input_ids`` and ``attention_mask`` are ``[1, n]`` int64 with ``n ≤ max_length``; the rest is what the
        tokenizer or the processor adds. A text that is too long loses its tail; an image is never cut.

        Raises:
            CalibrationError: an image cannot be read or does not fit, the template or the processor refuses the
                sample or leaves its images out, or no token comes out.
        """
        if sample.input_ids:
            input_ids = torch.tensor([sample.input_ids[:max_length]])  # (1, n)
            return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
        _check_kinds([sample])
        images, text = open_images(sample), ""
        try:
            with panics_as_errors():
                text, options = self._written(sample)
                if images:
                    outputs = self._processor(text=[text], images=[images], **options)
                else:
                    outputs = self._tokenizer(text, **options)
            inputs = {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
            length = inputs["input_ids"].shape[1]
            places = self._image_places(inputs["input_ids"]) if images else []
        except Exception as error:  # a template's raise_exception, a processor that counts differently, …
            if images and self._lacks_images(text):
                raise _left_out(sample) from error
            raise CalibrationError(
                f"{sample.source}: the checkpoint's tokenizer, processor or chat template refuses this sample "
                f"({reason(error)}): change or remove it."
            ) from error
        if length == 0:
            raise CalibrationError(f"{sample.source}: the tokenizer makes no token of this sample: remove it.")
        if images and places == []:
            raise _left_out(sample)
        if length <= max_length:
            return inputs
        if images and (places is None or places[-1] >= max_length):
            raise CalibrationError(
                f"{sample.source}: its images do not fit into {max_length} tokens, the sample has {length}: "
                "raise --max-length or shorten the sample."
            )
        return _truncate(inputs, max_length)

    def encode_prompts(self, prompts: Sequence[Sample], *, reply: bool, side: str) -> dict[str, torch.Tensor]:
        """The inputs of ``model.generate(**inputs)`` for several prompts, padded to the longest; none is ever cut.

        As :meth:`encode`, with the prompts along the first dimension of ``input_ids`` and ``attention_mask``, 0 where
        these are padded.

        Args:
            prompts: conversations without the answer; either all or none of them have images.
            reply: end each where the answer begins, by the chat template, or by a line feed where there is none.
            side: ``left`` or ``right``, where the padding stands.

        Raises:
            CalibrationError: as :meth:`encode`; names the prompt.
        """
        _check_kinds(prompts)
        images, texts = [open_images(prompt) for prompt in prompts], ("",)
        padding = {"padding": True, "padding_side": side} if len(prompts) > 1 else {}
        if padding and self._tokenizer.pad_token is None:  # its attention mask is 0, so any token will do
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.unk_token
        try:
            with panics_as_errors():
                texts, options = zip(*(self._written(prompt, reply=reply) for prompt in prompts), strict=True)
                if images[0]:
                    outputs = self._processor(text=list(texts), images=images, **options[0], **padding)
                else:
                    outputs = self._tokenizer(list(texts), **options[0], **padding)
            inputs = {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
            lengths = inputs["attention_mask"].sum(dim=1).tolist()
        except Exception as error:  # as in encode
            if len(prompts) > 1:  # the one that is refused gets the sentence
                for prompt in prompts:
                    self.encode_prompts([prompt], reply=reply, side=side)
            if images[0] and self._lacks_images(texts[0]):
                raise _left_out(prompts[0]) from error
            raise CalibrationError(
                f"{prompts[0].source}: the checkpoint's tokenizer, processor or chat template refuses this prompt"
                f"{' and those after it together' if padding else ''} ({reason(error)}): change or remove it"
                f"{', or lower --batch-size' if padding else ''}."
            ) from error
        for prompt, ids, length in zip(prompts, inputs["input_ids"], lengths, strict=True):
            if length == 0:
                raise CalibrationError(f"{prompt.source}: the tokenizer makes no token of this prompt: remove it.")
            if prompt.images and self._image_places(ids[None]) == []:
                raise _left_out(prompt)
        return inputs

    @property
    def end(self) -> int | None:
        """The tokenizer's token that ends a text, if it has one."""
        found = getattr(self._tokenizer, "eos_token_id", None)
        return found if isinstance(found, int) else None

    def decode(self, ids: torch.Tensor) -> list[str]:
        """The texts of token ids ``[n, t]``, without special tokens and without white space around."""
        return [text.strip() for text in self._tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def _written(self, sample: Sample, *, reply: bool = False) -> tuple[str, dict[str, Any]]:
        """The sample as one text, and the options that the tokenizer or the processor has to be called with."""
        options: dict[str, Any] = {"return_tensors": "pt"}
        if sample.text is not None:
            text = sample.text
        elif self._render is None:
            text = "\n".join(self._texts([part for turn in sample.turns for part in turn.parts])) + "\n" * reply
        else:
            text = self._render([self._message(turn.role, turn.parts) for turn in sample.turns], reply=reply)
            bos = self._tokenizer.bos_token
            if not self._multimodal or (bos is not None and text.startswith(bos)):
                options["add_special_tokens"] = False
        if len(text) > TEXT_LENGTH:  # a tokenizer takes some 300 bytes and 3 microseconds for each
            raise ValueError(f"its text has {len(text)} characters, and more than {TEXT_LENGTH} are not encoded")
        return text, options

    def _message(self, role: str, parts: Sequence[str | Media]) -> dict[str, Any]:
        """A turn as the chat template wants it."""
        if self._content is None:
            assert self._render is not None
            self._content = _accepted_content(self._render, prefer_parts=self._processor is not None)
        if self._content == "string":
            return {"role": role, "content": "\n".join(self._texts(parts))}
        content = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts]
        return {"role": role, "content": content}

    def _texts(self, parts: Sequence[str | Media]) -> list[str]:
        """The parts as texts: an image is the processor's image token."""
        token = getattr(self._processor, "image_token", None) or getattr(self._tokenizer, "image_token", None)
        if token is None and not all(isinstance(part, str) for part in parts):
            raise ValueError("the processor names no image token and has no chat template that would write it")
        return [part if isinstance(part, str) else str(token) for part in parts]

    def _lacks_images(self, text: str) -> bool:
        """Whether a text that the processor refused has no place for an image; new releases of transformers count."""
        token = getattr(self._processor, "image_token", None)
        return bool(text) and token is not None and str(token) not in text

    def _image_places(self, input_ids: torch.Tensor) -> list[int] | None:
        """Where ``input_ids`` ``[1, n]`` holds image tokens; ``None``: the processor does not say which they are."""
        ids = {getattr(part, name, None) for part in (self._processor, self._tokenizer) for name in IMAGE_TOKEN_IDS}
        ids.update(getattr(self._processor, "image_token_ids", []))
        ids.discard(None)
        return [index for index, token in enumerate(input_ids[0].tolist()) if token in ids] if ids else None


def _check_kinds(samples: Sequence[Sample]) -> None:
    """Check that no sample holds media of a kind that no processor is given.

    Raises:
        CalibrationError: one does; names it and the kind.
    """
    for sample in samples:
        for media in sample.media:
            if media.kind != "image":
                raise CalibrationError(f"{sample.source} has {media.kind}, which is not read: remove the sample.")


def _left_out(sample: Sample) -> CalibrationError:
    return CalibrationError(
        f"{sample.source}: the checkpoint's chat template leaves its images out: give the checkpoint a template that "
        "writes them, or remove the images."
    )


def _renderer(tokenizer: Any, processor: Any, template: str | None) -> Render | None:
    """The processor's chat template, or else the tokenizer's, as a function; ``None`` where there is neither."""
    owner = processor if getattr(processor, "chat_template", None) else tokenizer
    if template is None and not getattr(owner, "chat_template", None):
        return None

    def render(messages: list[dict[str, Any]], *, reply: bool = False) -> str:
        text: str = owner.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=reply
        )
        return text

    return render


def _accepted_content(render: Render, *, prefer_parts: bool) -> Content:
    """What the template takes for content, found by giving it a short message both ways, the preferred one first.

    A template that is given the other kind does not always fail: it may write nothing, or Python's ``repr`` of the
    parts. Where neither way works, the preferred one is returned and the sample itself will meet the error.
    """
    order: tuple[Content, Content] = ("parts", "string") if prefer_parts else ("string", "parts")
    for content in order:
        message = {"role": "user", "content": [{"type": "text", "text": _PROBE}] if content == "parts" else _PROBE}
        try:
            text = render([message])
        except Exception:  # any error of a template means: not this way
            continue
        if _PROBE in text and "'type': 'text'" not in text and '"type": "text"' not in text:
            return content
    return order[0]


def _truncate(inputs: dict[str, torch.Tensor], length: int) -> dict[str, torch.Tensor]:
    """The first ``length`` tokens: of every ``[1, n, …]`` tensor along the tokens, and not of those of the images."""
    tokens = inputs["input_ids"].shape[1]
    return {
        name: value[:, :length]
        if value.shape[:2] == (1, tokens) and not name.startswith(("pixel_", "image_"))
        else value
        for name, value in inputs.items()
    }

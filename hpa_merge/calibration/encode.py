"""One sample becomes the inputs of one forward pass: chat template, image processor, tokenizer, truncation."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, final

import torch

from hpa_merge.calibration.feeding import Tensors, processor_inputs, repeats, truncated
from hpa_merge.calibration.loading import (
    WORDS,
    is_multimodal,
    load_processor,
    load_tokenizer,
    panics_as_errors,
    processor_template,
    reason,
)
from hpa_merge.calibration.media import Opened, open_media
from hpa_merge.calibration.templates import TemplateOptions, find_template
from hpa_merge.calibration.truncation import answer_of, shortened
from hpa_merge.calibration.writing import Writer, Written
from hpa_merge.config import MAX_FRAMES
from hpa_merge.errors import CalibrationError, HPAError
from hpa_merge.records import Sample
from hpa_merge.records.sample import MediaKind

__all__ = ["Encoded", "Encoder"]

TOKEN_IDS: dict[MediaKind, tuple[str, ...]] = {
    "image": ("image_token_id", "image_break_token_id", "image_end_token_id", "boi_token_id", "eoi_token_id"),
    "video": ("video_token_id",),
    "audio": ("audio_token_id",),
}
"""Where processors and tokenizers of transformers keep the ids of the tokens that media become."""


@final
@dataclass(frozen=True)
class Encoded:
    """What became of a sample.

    Attributes:
        inputs: of ``model(**inputs)``: batch 1, on the CPU, floating tensors in float32. ``input_ids`` and
            ``attention_mask`` are ``[1, n]`` int64; the rest is what the tokenizer or the processor adds. Empty where
            the sample does not fit.
        cut: how many tokens it lost.
        unfit: why it does not fit, a clause; empty where it does.
        notes: what the template leaves out on purpose, a clause each.
        frames: of its videos, together.
        seconds: of its sounds, together.
        text: what was tokenised.
        sample: the sample as it was cut; None of token ids.
    """

    inputs: Tensors
    cut: int = 0
    unfit: str = ""
    notes: tuple[str, ...] = ()
    frames: int = 0
    seconds: float = 0.0
    text: str = field(default="", repr=False)
    sample: Sample | None = field(default=None, repr=False)


@final
class Encoder:
    """Encodes samples as the checkpoint's own users would: its chat template, its tokenizer, its image processor.

    All three are a stranger's, and nothing here bounds what they take: but for token ids this is used in a child
    process alone, by :class:`hpa_merge.calibration.EncoderProcess`.

    Special tokens follow the two conventions of transformers. A tokenizer's template writes all of them itself; a
    processor's may leave out the BOS, which the tokenizer then adds. Without a template a conversation is its texts
    and image tokens joined by line feeds, with the special tokens that the tokenizer adds to any text. A text that
    begins or ends with those has them once.
    """

    def __init__(
        self,
        tokenizer: Any = None,
        processor: Any = None,
        *,
        template: Any = None,
        multimodal: bool = False,
        options: TemplateOptions | None = None,
        max_frames: int = MAX_FRAMES,
    ) -> None:
        """Use :meth:`from_checkpoint`; this is for parts that are loaded already.

        Args:
            tokenizer: for samples without media; a processor's own where it is ``None``.
            processor: for samples with media.
            template: a processor's chat template, where the processor itself is not there to give it.
            multimodal: the tokenizer is a processor's, whether or not that is there.
            options: what the user says of the template.
            max_frames: frames of a video that are used, at most.
        """
        self._processor = processor
        self._max_frames = max_frames
        self.tokenizer = processor.tokenizer if tokenizer is None and processor is not None else tokenizer
        found = find_template(self.tokenizer, processor, template, options or TemplateOptions())
        parts = multimodal or processor is not None
        self.writer = Writer(self.tokenizer, processor, found, multimodal=parts)

    @classmethod
    def from_checkpoint(
        cls,
        folder: Path,
        samples: Sequence[Sample],
        options: TemplateOptions | None = None,
        max_frames: int = MAX_FRAMES,
    ) -> "Encoder":
        """Loads what ``samples`` need: a processor where there are media, else a tokenizer, nothing for token ids.

        Raises:
            CalibrationError: a sample has media and the checkpoint is one without.
            CheckpointError: what is needed is missing from ``folder``, or cannot be loaded.
            ConfigError: ``options`` name a template that the checkpoint has not.
        """
        for sample in samples:
            if sample.media:
                return cls(processor=load_processor(folder, sample), options=options, max_frames=max_frames)
        for sample in samples:
            if not sample.input_ids:
                return cls(
                    load_tokenizer(folder, sample.source),
                    template=processor_template(folder),
                    multimodal=is_multimodal(folder),
                    options=options,
                )
        return cls()

    def encode(self, sample: Sample, max_length: int) -> Tensors:
        """The inputs alone.

        Raises:
            CalibrationError: as :meth:`prepare`; or the sample does not fit.
        """
        encoded = self.prepare(sample, max_length)
        if encoded.unfit:
            raise CalibrationError(f"{sample.source}: {encoded.unfit}: raise --max-length, or shorten the texts.")
        return encoded.inputs

    def prepare(self, sample: Sample, max_length: int) -> Encoded:
        """One sample with ``n ≤ max_length`` tokens.

        A conversation that is too long loses of its prompt, as :mod:`hpa_merge.calibration.truncation` says; a plain
        text and token ids lose their tail. Neither an answer nor a medium is ever cut.

        Raises:
            CalibrationError: a medium cannot be read, the template or the processor refuses the sample or leaves
                something of it out, or no token comes out.
        """
        if sample.input_ids:
            input_ids = torch.tensor([sample.input_ids[:max_length]])  # (1, n)
            inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
            return Encoded(inputs, cut=len(sample.input_ids) - input_ids.shape[1])
        media = self.opened(sample)

        def encoded(inputs: Tensors, cut: int, written: Written, used: Sample) -> Encoded:
            return Encoded(inputs, cut, "", written.notes, media.frames, media.seconds, written.text, used)

        with self._refusing([sample], "sample"):
            written = self.writer.write(sample)
            inputs = self._tensors([written], [media])
            self._check(inputs["input_ids"], sample)
            length = inputs["input_ids"].shape[1]
            if length <= max_length:
                return encoded(inputs, 0, written, sample)
            if sample.text is not None:
                return encoded(truncated(inputs, 0, max_length), length - max_length, written, sample)
            whole = length - self.count(written.text)  # what media and special tokens take beside the text
            shorter = shortened(sample, lambda other: whole + self.count(self.writer.write(other).text) <= max_length)
            if shorter is not None:
                written = self.writer.write(shorter)
                inputs = self._tensors([written], [media])
                if (kept := inputs["input_ids"].shape[1]) <= max_length:
                    return encoded(inputs, length - kept, written, shorter)
        parts = [*_words(sample), *(["answer"] if answer_of(sample) else [])]
        unfit = (
            f"its {' and its '.join(parts) or 'turns'} do{'es' * (parts == ['answer'])} not fit into {max_length} "
            f"tokens, the sample has {length}"
        )
        return Encoded({}, unfit=unfit)

    def opened(self, sample: Sample) -> Opened:
        """The media of a sample, as the processor takes them.

        Raises:
            CalibrationError: one of them cannot be read, or the processor takes none of its kind.
        """
        return open_media(sample, self._processor, self._max_frames)

    def encode_prompts(self, prompts: Sequence[Sample], *, reply: bool, side: str) -> Tensors:
        """The inputs of ``model.generate(**inputs)`` for several prompts, padded to the longest; none is ever cut.

        As :meth:`encode`, with the prompts along the first dimension of ``input_ids`` and ``attention_mask``, 0 where
        these are padded.

        Args:
            prompts: conversations without the answer; either all or none of them have images.
            reply: end each where the answer begins, by the chat template, or by a line feed where there is none.
            side: ``left`` or ``right``, where the padding stands.

        Raises:
            CalibrationError: as :meth:`prepare`; names the prompt.
        """
        media = [self.opened(prompt) for prompt in prompts]
        padding = {"padding": True, "padding_side": side} if len(prompts) > 1 else {}
        if padding and self.tokenizer.pad_token is None:  # its attention mask is 0, so any token will do
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
        with self._refusing(prompts, "prompt", lambda: self._each(prompts, reply=reply, side=side)):
            written = [self.writer.write(prompt, reply=reply) for prompt in prompts]
            inputs = self._tensors(written, media, **padding)
            lengths = inputs["attention_mask"].sum(dim=1).tolist()
        for prompt, ids, length in zip(prompts, inputs["input_ids"], lengths, strict=True):
            self._check(ids[None, :length] if side == "right" else ids[None, len(ids) - length :], prompt, "prompt")
        return inputs

    @property
    def end(self) -> int | None:
        """The tokenizer's token that ends a text, if it has one."""
        found = getattr(self.tokenizer, "eos_token_id", None)
        return found if isinstance(found, int) else None

    def decode(self, ids: torch.Tensor, kept: Collection[str] = ()) -> list[str]:
        """The texts of token ids ``[n, t]``, without white space around, and without special tokens but those kept."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        texts = {number: token.content for number, token in added.items() if token.content in kept}
        return [self._decoded(row, texts).strip() for row in ids.tolist()]

    def _decoded(self, ids: Sequence[int], kept: Mapping[int, str]) -> str:
        """The text of token ids, with the texts of those kept."""
        runs = [(is_kept, list(run)) for is_kept, run in groupby(ids, lambda number: number in kept)]
        return "".join("".join(map(kept.__getitem__, run)) if is_kept else self._text(run) for is_kept, run in runs)

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def count(self, text: str) -> int:
        """How many tokens a text has, without those that the tokenizer adds to any."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def added_at_end(self, text: str, ids: Sequence[int]) -> int:
        """How many of a text's ``ids`` the tokenizer added behind it."""
        last = self.tokenizer(text, add_special_tokens=False)["input_ids"][-1:]
        return next((n for n in range(min(3, len(ids))) if [ids[len(ids) - 1 - n]] == list(last)), 0)

    @property
    def media_ids(self) -> set[int]:
        """The ids of the tokens that media become, as far as the processor says."""
        return set().union(*map(self._ids_of, TOKEN_IDS))

    def _ids_of(self, kind: MediaKind) -> set[int]:
        """The ids of the tokens that media of a kind become; a video may become images."""
        ids = {getattr(part, name, None) for part in (self._processor, self.tokenizer) for name in TOKEN_IDS[kind]}
        ids.update(getattr(self._processor, f"{kind}_token_ids", []))
        found = {number for number in ids if number is not None}
        return found | self._ids_of("image") if kind == "video" else found

    def _tensors(self, written: Sequence[Written], media: Sequence[Any], **options: Any) -> Tensors:
        if not written[0].special:
            options["add_special_tokens"] = False
        inputs = processor_inputs(self.tokenizer, self._processor, [each.text for each in written], media, **options)
        if written[0].plain and len(written) == 1 and not media[0].kinds:
            before, after = repeats(self.tokenizer, written[0].text, inputs["input_ids"][0].tolist())
            if before or after:
                return truncated(inputs, before, inputs["input_ids"].shape[1] - after)
        return inputs

    def _check(self, input_ids: torch.Tensor, sample: Sample, what: str = "sample") -> None:
        """Check that ``input_ids`` ``[1, n]`` are some tokens, and hold media where the sample does."""
        if input_ids.shape[1] == 0:
            raise CalibrationError(f"{sample.source}: the tokenizer makes no token of this {what}: remove it.")
        found = set(input_ids[0].tolist())
        for kind in dict.fromkeys(media.kind for media in sample.media):
            if (ids := self._ids_of(kind)) and not ids & found:
                raise _left_out(sample, WORDS[kind])

    def _each(self, prompts: Sequence[Sample], *, reply: bool, side: str) -> None:
        """Encode each by itself, so that the one that is refused gets the sentence."""
        for prompt in prompts if len(prompts) > 1 else ():
            self.encode_prompts([prompt], reply=reply, side=side)

    @contextmanager
    def _refusing(
        self, samples: Sequence[Sample], what: str, alone: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Say of what a stranger's template, processor or tokenizer raises in the block which sample provoked it.

        Args:
            alone: tries the samples one by one.
        """
        try:
            with panics_as_errors():
                yield
        except HPAError:
            raise
        except Exception as error:  # a template's raise_exception, a processor that counts differently, …
            alone()
            together = len(samples) > 1
            raise CalibrationError(
                f"{samples[0].source}: the checkpoint's tokenizer, processor or chat template refuses this {what}"
                f"{' and those after it together' if together else ''} ({reason(error)}): change or remove it"
                f"{', or lower --batch-size' if together else ''}."
            ) from error


def _words(sample: Sample) -> list[str]:
    """The kinds of media in a sample."""
    return [WORDS[kind] for kind in dict.fromkeys(media.kind for media in sample.media)]


def _left_out(sample: Sample, what: str) -> CalibrationError:
    return CalibrationError(
        f"{sample.source}: the checkpoint's chat template leaves its {what} out: give the checkpoint a template that "
        f"writes them, or remove the {what}."
    )

"""Encoder-decoders: the prompt is what the encoder reads, and the answer what the decoder has said so far."""

from dataclasses import replace
from typing import final

import torch

from hpa_merge.calibration.process import EncoderProcess
from hpa_merge.errors import CalibrationError
from hpa_merge.records import Sample

__all__ = ["PromptAndAnswer"]


@final
class PromptAndAnswer:
    """Encodes samples for a model whose encoder reads ``input_ids`` and whose decoder reads ``decoder_input_ids``."""

    def __init__(self, encoder: EncoderProcess, start: int) -> None:
        """``start``: the token that the decoder begins with, ``decoder_start_token_id``."""
        self._encoder = encoder
        self._start = start

    def encode(self, sample: Sample, max_length: int) -> dict[str, torch.Tensor]:
        """As :meth:`Encoder.encode`, of everything before the answer, with ``decoder_input_ids`` ``[1, m]`` beside it.

        These are what the decoder is trained on: the start, then the answer without its last token; ``m ≤ max_length``.

        Raises:
            CalibrationError: as :meth:`Encoder.encode`; or the sample does not end with an answer to a prompt.
        """
        prompt, answer = sample.turns[:-1], sample.turns[-1:]
        texts = [text for turn in answer if turn.role == "assistant" for text in turn.texts]
        if not prompt or not texts:
            raise CalibrationError(
                f"{sample.source}: the model is an encoder-decoder, and this sample is no prompt with an answer in "
                "words: give it as a conversation, or as instruction and response."
            )
        inputs = self._encoder.encode(replace(sample, turns=prompt), max_length)
        said = self._encoder.encode(Sample(sample.source, text="\n".join(texts)), max_length)["input_ids"]
        start = torch.full_like(said[:, :1], self._start)
        return {**inputs, "decoder_input_ids": torch.cat([start, said[:, :-1]], dim=1)}

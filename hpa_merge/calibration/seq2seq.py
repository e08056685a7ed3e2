"""Encoder-decoders: the prompt is what the encoder reads, and the answer what the decoder has said so far."""

from dataclasses import replace
from typing import final

import torch

from hpa_merge.calibration.encode import Encoded
from hpa_merge.calibration.process import EncoderProcess
from hpa_merge.calibration.showing import Piece
from hpa_merge.counting import counted
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

    def prepare(self, sample: Sample, max_length: int) -> Encoded:
        """As :meth:`Encoder.prepare`, of everything before the answer, with ``decoder_input_ids`` ``[1, m]``.

        These are what the decoder is trained on: the start, then the answer without its last token. The prompt may
        lose of its texts, and the answer is never cut: it fits if ``m ≤ max_length``.

        Raises:
            CalibrationError: as :meth:`Encoder.prepare`; or the sample does not end with an answer to a prompt.
        """
        prompt, answer = self._halves(sample)
        made = self._encoder.prepare(prompt, max_length)
        if made.unfit:
            return made
        said = self._encoder.prepare(answer, max_length)
        if said.cut:
            length = max_length + said.cut
            return Encoded(
                {},
                unfit=f"its answer does not fit into {counted(max_length, 'token')}, it has {length}",
            )
        ids = said.inputs["input_ids"]
        start = torch.full_like(ids[:, :1], self._start)
        decoder = torch.cat([start, ids[:, :-1]], dim=1)
        return replace(made, inputs={**made.inputs, "decoder_input_ids": decoder})

    def show(self, sample: Sample, max_length: int) -> list[Piece]:
        """As :func:`hpa_merge.calibration.showing.pieces`: what the encoder reads, then the answer."""
        prompt, answer = self._halves(sample)
        said = self._encoder.show(answer, max_length)
        return [*self._encoder.show(prompt, max_length), *(piece._replace(kind="answer") for piece in said)]

    def _halves(self, sample: Sample) -> tuple[Sample, Sample]:
        """The prompt as a conversation, the answer as a text.

        Raises:
            CalibrationError: the sample does not end with an answer to a prompt.
        """
        prompt, answer = sample.turns[:-1], sample.turns[-1:]
        texts = [text for turn in answer if turn.role == "assistant" for text in turn.texts]
        if not prompt or not texts:
            raise CalibrationError(
                f"{sample.source}: the model is an encoder-decoder, and this sample is no prompt with an answer in "
                "words: give it as a conversation, or as instruction and response."
            )
        return replace(sample, turns=prompt), Sample(sample.source, text="\n".join(texts))

"""A calibration set becomes model inputs in a child process, which loads what it needs while the plan is made."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from hpa_merge.calibration import EncoderProcess, PromptAndAnswer, SampleSet
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import CalibrationOptions
from hpa_merge.engine.machine import free_bytes
from hpa_merge.errors import ResourceError
from hpa_merge.model import MetaModel

__all__ = ["Encoding", "encoding"]

SHARE = 0.75
"""Of the host's free memory, what one encoded calibration set may take; a processor may make anything of a sample."""


@final
class Encoding:
    """Encodes the samples of one set.

    Attributes:
        given: what was drawn of the file.
        samples: those of it.
    """

    def __init__(self, checkpoint: Checkpoint, folder: Path, given: SampleSet, config: CalibrationOptions) -> None:
        """Begin to load; returns at once.

        Args:
            checkpoint: OLD or NEW, as :func:`hpa_merge.inputs.tower.with_tower` gives it.
            folder: where its side files lie.
            config: of it ``conversation`` and ``max_length``, the most tokens of a sample that are used.
        """
        self.given, self.samples = given, given.samples
        self._checkpoint = checkpoint
        self._config = config
        self._encoder = EncoderProcess()
        if checkpoint.tower is None:
            self._encoder = EncoderProcess.from_checkpoint(folder, given.samples)

    def inputs(self, meta: MetaModel) -> list[dict[str, Tensor]]:
        """What the model is given for each sample, on the CPU; a model with fewer positions takes no more than those.

        Args:
            meta: of the checkpoint.

        Raises:
            CalibrationError: a sample cannot be encoded; names its line.
            CheckpointError: what is needed for that is missing, or cannot be loaded.
            ResourceError: they do not fit into memory together.
        """
        if self._checkpoint.tower is not None:
            self._encoder = EncoderProcess.of_original_llava(
                self._checkpoint.folder,
                self._checkpoint.tower,
                self._checkpoint.config,
                self.samples,
                conversation=self._config.conversation,
                image_token_id=meta.model.config.image_token_id,
                image_tokens=meta.model.config.image_seq_length,
            )
        encode = self._encoder.encode
        if meta.model.config.is_encoder_decoder and meta.decoder_start is not None:
            encode = PromptAndAnswer(self._encoder, meta.decoder_start).encode
        context = getattr(meta.model.config.get_text_config(), "max_position_embeddings", None)
        length = self._config.max_length
        if isinstance(context, int) and context > 0:
            length = min(length, context)
        return self._all(encode(sample, length) for sample in self.samples)

    def close(self) -> None:
        """End the child."""
        self._encoder.close()

    def _all(self, encoded: Iterator[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Everything that comes, as long as there is memory for it."""
        free, taken, inputs = free_bytes(torch.device("cpu")), 0, []
        for sample, values in zip(self.samples, encoded, strict=True):
            taken += sum(value.nbytes for value in values.values())
            if free is not None and taken > SHARE * free:
                raise ResourceError(
                    f"{sample.source}: the samples up to this one take {taken / 1e9:.1f} GB as the checkpoint's "
                    f"processor encodes them, and {free / 1e9:.1f} GB were free: use fewer or smaller ones."
                )
            inputs.append(values)
        return inputs


@contextmanager
def encoding(checkpoint: Checkpoint, given: SampleSet, config: CalibrationOptions) -> Iterator[Encoding]:
    """An :class:`Encoding`, whose child is there within the block."""
    with checkpoint.side_folder() as folder:
        opened = Encoding(checkpoint, folder, given, config)
        try:
            yield opened
        finally:
            opened.close()

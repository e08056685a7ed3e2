"""What runs in an encoder's child process: an :class:`Encoder` whose tensors go out as bytes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, final

import safetensors.torch
import torch

from hpa_merge.calibration.encode import Encoder
from hpa_merge.calibration.loading import panics_as_errors, reason
from hpa_merge.calibration.original_llava import original_llava_encoder
from hpa_merge.calibration.showing import Piece, pieces
from hpa_merge.calibration.templates import TemplateOptions
from hpa_merge.custom_code.finding import Code
from hpa_merge.custom_code.running import running
from hpa_merge.errors import CalibrationError, CheckpointError
from hpa_merge.records import Sample

__all__ = ["EncoderService"]


@final
class EncoderService:
    """The methods that :class:`hpa_merge.calibration.EncoderProcess` calls; each returns JSON and bytes."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._running = ExitStack()

    def load(
        self, folder: Path, example: Sample, options: TemplateOptions, max_frames: int, code: Code | None
    ) -> tuple[dict[str, Any], bytes]:
        """Load what samples like ``example`` need; the token that ends a text, and which chat template there is."""
        self._running.enter_context(running(code))  # as long as the child lives
        return self._take(lambda: Encoder.from_checkpoint(folder, [example], options, max_frames))

    def load_original_llava(
        self, folder: Path, tower: Path, config: Mapping[str, Any], example: Sample, options: Mapping[str, Any]
    ) -> tuple[dict[str, Any], bytes]:
        """The same by :func:`original_llava_encoder`, with its ``options``."""
        return self._take(lambda: original_llava_encoder(folder, tower, config, [example], **options))

    def _take(self, make: Callable[[], Encoder]) -> tuple[dict[str, Any], bytes]:
        torch.set_num_threads(1)  # images and token ids are small
        self._encoder = make()
        return {"end": self._encoder.end, "template": self._encoder.writer.template}, b""

    def prepare(self, sample: Sample, max_length: int) -> tuple[dict[str, Any], bytes]:
        """:meth:`Encoder.prepare`."""
        made = self._encoder.prepare(sample, max_length)
        names = ("cut", "unfit", "notes", "frames", "seconds")
        return {name: getattr(made, name) for name in names}, _packed(made.inputs, sample)

    def show(self, sample: Sample, max_length: int) -> tuple[list[Piece], bytes]:
        """:func:`hpa_merge.calibration.showing.pieces`."""
        return pieces(self._encoder, sample, max_length), b""

    def encode_prompts(self, prompts: Sequence[Sample], reply: bool, side: str) -> tuple[None, bytes]:
        """:meth:`Encoder.encode_prompts`."""
        return None, _packed(self._encoder.encode_prompts(prompts, reply=reply, side=side), prompts[0])

    def decode(self, ids: list[list[int]], kept: Collection[str]) -> tuple[list[str], bytes]:
        """:meth:`Encoder.decode`.

        Raises:
            CheckpointError: the tokenizer fails.
        """
        try:
            with panics_as_errors():
                return self._encoder.decode(torch.tensor(ids), kept), b""
        except Exception as error:  # whatever a stranger's tokenizer raises
            raise CheckpointError(f"the tokenizer cannot turn an answer into text ({reason(error)})") from error


def _packed(inputs: Mapping[str, torch.Tensor], sample: Sample) -> bytes:
    """The tensors as a safetensors file.

    Raises:
        CalibrationError: they cannot be kept in one: a name is odd.
    """
    try:
        return safetensors.torch.save({name: value.detach().clone().contiguous() for name, value in inputs.items()})
    except Exception as error:  # its library raises whatever a name provokes
        raise CalibrationError(
            f"{sample.source}: the checkpoint's tokenizer or processor makes something odd of this sample "
            f"({reason(error)}): change or remove it."
        ) from error

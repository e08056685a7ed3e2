"""An encoder in a child process, with limits: what it runs is a stranger's."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import safetensors.torch
from torch import Tensor

from hpa_merge.calibration.encode import Encoded, Encoder
from hpa_merge.calibration.showing import Piece, pieces
from hpa_merge.calibration.templates import TemplateOptions
from hpa_merge.config import MAX_FRAMES
from hpa_merge.custom_code.finding import Code
from hpa_merge.errors import CalibrationError, CheckpointError
from hpa_merge.isolation import Child, Limits, Stopped, kept
from hpa_merge.records import Sample
from hpa_merge.records.sample import MediaKind

__all__ = ["ENCODER", "EncoderProcess", "session"]

ENCODER = "hpa_merge.calibration.service:EncoderService"
"""What runs in the child."""

LOADING = Limits(computing=120.0, waiting=600.0)
"""To load a tokenizer or a processor. Gemma 3's tokenizer, of the largest ones (33 MB, 6,400 added tokens), takes
seconds."""

SAMPLE = Limits(computing=120.0, waiting=600.0)
"""To encode one sample, or one batch of prompts. The longest text, two million characters, takes some seconds, and so
do images of 89 million pixels; a video has to be decoded from one keyframe to the next."""

MEMORY = 2**33
"""Bytes for the tokenizer, the processor, and what they make of one sample: 8 GiB. The largest tokenizers take 1 GiB;
a sample of 89 million pixels takes some for its pixels and some more for what a processor makes of them."""

TOGETHER = 2
"""Encoders that a merge starts at the same time: OLD's and NEW's."""


@final
class EncoderProcess:
    """An :class:`Encoder` in a child process; samples of token ids need none, and are encoded here."""

    def __init__(self) -> None:
        """Use :meth:`from_checkpoint` or :meth:`of_original_llava`."""
        self._child: Child | None = None
        self._folder = Path()
        self._source = ""  # of a sample that needs what is loaded
        self._loading = False
        self._found: dict[str, Any] = {"end": None, "template": ""}

    @classmethod
    def from_checkpoint(
        cls,
        folder: Path,
        samples: Sequence[Sample],
        options: TemplateOptions | None = None,
        max_frames: int = MAX_FRAMES,
        code: Code | None = None,
    ) -> "EncoderProcess":
        """Load what ``samples`` need, as :meth:`Encoder.from_checkpoint` does; returns at once.

        What is wrong with the folder is raised where the first sample is encoded.

        Args:
            code: the code that the checkpoint brings, which the child runs; None: none is run.
        """
        process = cls()
        if (example := _example(samples)) is not None:
            process._begin("load", folder, example, options or TemplateOptions(), max_frames, code)
        return process

    @classmethod
    def of_original_llava(
        cls, folder: Path, tower: Path, config: Mapping[str, Any], samples: Sequence[Sample], **options: Any
    ) -> "EncoderProcess":
        """The same by :func:`original_llava_encoder`, whose arguments these are."""
        process = cls()
        if (example := _example(samples)) is not None:
            process._begin("load_original_llava", folder, tower, dict(config), example, options)
        return process

    def prepare(self, sample: Sample, max_length: int) -> Encoded:
        """As :meth:`Encoder.prepare`, without what only the child needs.

        Raises:
            CalibrationError: as there; or the sample takes too much.
            CheckpointError: what is needed is missing from the folder, cannot be loaded, or takes too much.
        """
        if sample.input_ids:
            return Encoder().prepare(sample, max_length)
        found, tensors = self._called(sample.source, "prepare", sample, max_length)
        return Encoded(tensors, **{**found, "notes": tuple(found["notes"])})

    def show(self, sample: Sample, max_length: int) -> list[Piece]:
        """As :func:`hpa_merge.calibration.showing.pieces`; raises as :meth:`prepare`."""
        if sample.input_ids:
            return pieces(Encoder(), sample, max_length)
        shown, _ = self._called(sample.source, "show", sample, max_length)
        return [Piece(*piece) for piece in shown]

    def encode_prompts(self, prompts: Sequence[Sample], *, reply: bool, side: str) -> dict[str, Tensor]:
        """As :meth:`Encoder.encode_prompts`; raises as :meth:`prepare`."""
        more = f" and the {len(prompts) - 1} after it" if len(prompts) > 1 else ""
        return self._called(f"{prompts[0].source}{more}", "encode_prompts", list(prompts), reply, side)[1]

    @property
    def end(self) -> int | None:
        """As :attr:`Encoder.end`; raises as :meth:`prepare`."""
        self._loaded()
        found: int | None = self._found["end"]
        return found

    @property
    def template(self) -> str:
        """The chat template, in words; empty where all samples are token ids. Raises as :meth:`prepare`."""
        if self._child is not None:
            self._loaded()
        return str(self._found["template"])

    def decode(self, ids: Tensor, kept: Collection[str] = ()) -> list[str]:
        """As :meth:`Encoder.decode`.

        Raises:
            CheckpointError: the tokenizer fails, or takes too much.
        """
        try:
            texts, _ = self._loaded().call("decode", ids.tolist(), sorted(kept), limits=SAMPLE)
        except Stopped as stopped:
            raise CheckpointError(
                f"{self._folder}'s tokenizer cannot turn an answer into text ({stopped}): fetch its files again."
            ) from stopped
        return list(texts)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()

    def _begin(self, method: str, folder: Path, *arguments: object) -> None:
        *_, example = (argument for argument in arguments if isinstance(argument, Sample))
        self._folder, self._source, self._loading = folder, example.source, True
        self._child = Child(ENCODER, MEMORY, TOGETHER)
        self._child.begin(method, folder, *arguments, limits=LOADING)

    def _loaded(self) -> Child:
        """The child, when it has loaded what samples need."""
        assert self._child is not None
        if self._loading:
            self._loading = False
            try:
                self._found, _ = self._child.finish()
            except Stopped as stopped:
                raise CheckpointError(
                    f"{self._folder} has no tokenizer or processor that can be loaded, and {self._source} needs it "
                    f"({stopped}): fetch its files again, or give input_ids."
                ) from stopped
        return self._child

    def _called(self, source: str, method: str, *arguments: object) -> tuple[Any, dict[str, Tensor]]:
        """What a method of the service returns: a value, and tensors."""
        child = self._loaded()
        try:
            value, data = child.call(method, *arguments, limits=SAMPLE)
        except Stopped as stopped:
            raise CalibrationError(
                f"{source}: what the checkpoint's tokenizer, processor or chat template does with this sample is too "
                f"much ({stopped}): change or remove it, or check whether the checkpoint is sound."
            ) from stopped
        tensors = safetensors.torch.load(bytes(data)) if data else {}
        return value, {name: tensor.clone() for name, tensor in tensors.items()}  # in memory as torch aligns it


def _example(samples: Sequence[Sample]) -> Sample | None:
    """The sample that asks most of the encoder; None where all are token ids."""
    texts = [sample for sample in samples if not sample.input_ids]
    asks: tuple[MediaKind, ...] = ("video", "audio", "image")  # torchvision is for the first alone
    return next(
        (sample for kind in asks for sample in texts if any(media.kind == kind for media in sample.media)),
        texts[0] if texts else None,
    )


@contextmanager
def session() -> Iterator[None]:
    """Keep the process that child processes are forked from, for a program that calls several public functions.

    Starting it imports the libraries, which takes about 4 seconds of CPU; in the block that happens once.
    """
    with kept(ENCODER):
        yield

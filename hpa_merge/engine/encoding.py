"""A calibration set becomes model inputs in a child process, which loads what it needs while the plan is made.

Every rank encodes the samples of its own leaves; all of them know which samples are used.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from hpa_merge.calibration import Encoded, EncoderProcess, Piece, PromptAndAnswer, SampleSet, TemplateOptions
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import CalibrationOptions, template_arguments
from hpa_merge.core.leaves import leaf_at, rank_at
from hpa_merge.counting import counted
from hpa_merge.engine.fingerprint import sample_digest
from hpa_merge.engine.machine import free_bytes
from hpa_merge.engine.tally import Tally
from hpa_merge.engine.template_file import read_template
from hpa_merge.engine.used_sample import UsedSample
from hpa_merge.errors import CalibrationError, ResourceError
from hpa_merge.model import MetaModel
from hpa_merge.progress import Progress, silent
from hpa_merge.ranks import Group
from hpa_merge.records import Sample
from hpa_merge.report.planned import ShownPiece, ShownSample

__all__ = ["Encoding", "encoding", "template_options"]

SHARE = 0.75
"""Of the host's free memory, what one encoded calibration set may take; a processor may make anything of a sample."""


def template_options(given: str, arguments: Sequence[str], date: str) -> TemplateOptions:
    """What the options of the same names say of the chat template; errors as :func:`read_template`."""
    text = read_template(given, arguments, date)
    named = template_arguments(arguments)
    if text is None:
        return TemplateOptions(name=given, arguments=named, date=date)
    return TemplateOptions(text=text, arguments=named, date=date)


@final
class Encoding:
    """Encodes the samples of one set that this rank runs.

    Attributes:
        backwards: whether the last rank has the first samples, so that the sums of the two sets go through the ranks in
            opposite directions, and no rank waits while another one adds.
        samples: those that are used: all that were drawn, until they are encoded.
        used: what every rank knows of each of them.
        tally: what became of the set; complete when it is encoded.
        shown: the first samples as the model gets them, if they are wanted.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        folder: Path,
        given: SampleSet,
        purpose: str,
        config: CalibrationOptions,
        show: int = 0,
        group: Group | None = None,
    ) -> None:
        """Begin to load; returns at once.

        Args:
            checkpoint: OLD or NEW, as :func:`hpa_merge.inputs.tower.with_tower` gives it.
            folder: where its side files lie.
            given: what was drawn of the file.
            purpose: ``safety`` or ``task``.
            config: of it ``conversation``, what it says of the chat template, and ``max_length`` and ``max_frames``,
                the most tokens of a sample and frames of a video that are used.
            show: how many samples are shown.
            group: the ranks that share the samples; None for this one alone.

        Raises:
            ConfigError: the chat template cannot be read.
        """
        self.samples = given.samples
        self.used: tuple[UsedSample, ...] = ()
        self.group = group or Group.alone()
        self.backwards = purpose == "task"
        self.tally = Tally(purpose, given)
        self.shown: list[ShownSample] = []
        self._show = show
        self._purpose = purpose
        self._checkpoint = checkpoint
        self._config = config
        self._template = template_options(config.chat_template, config.template_arg, config.template_date)
        self._encoder = EncoderProcess()
        if checkpoint.tower is None:
            self._encoder = EncoderProcess.from_checkpoint(
                folder, given.samples, self._template, config.max_frames, checkpoint.code
            )

    def inputs(self, meta: MetaModel, on_progress: Progress = silent) -> list[dict[str, Tensor]]:
        """What the model is given for each sample of this rank, on the CPU, at most as much as it has positions.

        A task sample that does not fit is dropped and counted. A safety sample that does not fit is refused, and so is
        a text or token ids whose end, where a refusal stands, would be cut.

        Args:
            meta: of the checkpoint.
            on_progress: called before each sample.

        Raises:
            CalibrationError: a sample cannot be encoded, or has to fit and does not; names its line.
            CheckpointError: what is needed for that is missing, or cannot be loaded.
            ResourceError: they do not fit into memory together.
        """
        what = f"encoding the {self._purpose} samples"
        if self.samples:
            on_progress(what, 0, 1)
        encoder, length = self._opened(meta), self._length(meta)
        remedy = "shorten the texts, because the model has no more positions"
        if length == self._config.max_length:
            remedy = "raise --max-length, or shorten the texts"
        free, taken = free_bytes(torch.device("cpu")), 0
        inputs: list[dict[str, Tensor]] = []
        used: list[UsedSample] = []
        for place, sample in enumerate(self.samples):
            leaf = leaf_at(place, len(self.samples))
            if (rank := rank_at(leaf, self.group.size, backwards=self.backwards)) != self.group.rank:
                continue
            on_progress(f"{what}, {place + 1} of {len(self.samples)}", 0, 1)
            made = encoder.prepare(sample, length)
            unfit = made.unfit
            if self._purpose == "safety" and made.cut and not sample.turns:
                unfit = (
                    f"it is {counted(made.cut, 'token')} longer than {length}, "
                    "and its end, where a refusal stands, would be cut"
                )
            if unfit and self._purpose == "safety":
                raise CalibrationError(f"{sample.source}: {unfit}: {remedy}.")
            if unfit:
                self.tally.drop(f"does not fit into {counted(length, 'token')}")
                continue
            taken += sum(value.nbytes for value in made.inputs.values())
            if free is not None and taken > SHARE * free:
                raise ResourceError(
                    f"{sample.source}: the samples up to this one take {taken / 1e9:.1f} GB as the checkpoint's "
                    f"processor encodes them, and {free / 1e9:.1f} GB were free: use fewer or smaller ones."
                )
            self.tally.take(sample, made)
            if len(self.shown) < self._show:
                self.shown.append(_shown(sample, made, encoder.show(sample, length)))
            inputs.append(made.inputs)
            used.append(UsedSample(place, leaf, rank, tokens_of(made.inputs), sample_digest(made.inputs)))
        self.tally.template = self._encoder.template if inputs else ""
        self.tally.join(self.group, backwards=self.backwards)
        found = (each for of_rank in self.group.gather(used) for each in of_rank)
        self.used = tuple(sorted(found, key=lambda each: each.place))
        if self.samples and not self.used:
            raise CalibrationError(
                f"{self.samples[0].source}: none of the {counted(len(self.samples), f'{self._purpose} sample')} "
                f"fits into {length} "
                f"tokens: {remedy}."
            )
        self.samples = tuple(self.samples[each.place] for each in self.used)
        return inputs

    def close(self) -> None:
        """End the child."""
        self._encoder.close()

    def _opened(self, meta: MetaModel) -> EncoderProcess | PromptAndAnswer:
        """What encodes for this model."""
        if self._checkpoint.tower is not None:
            self._encoder = EncoderProcess.of_original_llava(
                self._checkpoint.folder,
                self._checkpoint.tower,
                self._checkpoint.config,
                self.samples,
                conversation=self._config.conversation,
                image_token_id=meta.model.config.image_token_id,
                image_tokens=meta.model.config.image_seq_length,
                template_options=self._template,
            )
        if meta.model.config.is_encoder_decoder and meta.decoder_start is not None:
            return PromptAndAnswer(self._encoder, meta.decoder_start)
        return self._encoder

    def _length(self, meta: MetaModel) -> int:
        """The most tokens of a sample."""
        context = getattr(meta.model.config.get_text_config(), "max_position_embeddings", None)
        if isinstance(context, int) and context > 0:
            return min(self._config.max_length, context)
        return self._config.max_length


def tokens_of(inputs: Mapping[str, Tensor]) -> int:
    """The tokens of a sample; what a decoder reads apart from the encoder counts too."""
    return sum(inputs[name].numel() for name in ("input_ids", "decoder_input_ids") if name in inputs)


def _shown(sample: Sample, made: Encoded, pieces: Iterable[Piece]) -> ShownSample:
    return ShownSample(sample.source, tuple(ShownPiece(*piece) for piece in pieces), made.cut)


@contextmanager
def encoding(
    checkpoint: Checkpoint,
    given: SampleSet,
    purpose: str,
    config: CalibrationOptions,
    show: int = 0,
    group: Group | None = None,
) -> Iterator[Encoding]:
    """An :class:`Encoding`, whose child is there within the block."""
    with checkpoint.side_folder() as folder:
        opened = Encoding(checkpoint, folder, given, purpose, config, show, group)
        try:
            yield opened
        finally:
            opened.close()

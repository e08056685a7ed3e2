"""One of the two models with its calibration set: OLD runs the safety samples, NEW the task samples."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import final

from torch import Tensor

from hpa_merge.checkpoint import Checkpoint, ReadAhead
from hpa_merge.config import HPAConfig
from hpa_merge.core import Curvature, Inverse, SingularCurvature, all_finite
from hpa_merge.engine.encoding import Encoding
from hpa_merge.engine.machine import is_out_of_memory
from hpa_merge.errors import CalibrationError, NumericalError
from hpa_merge.model import ForwardError, LinearTensor, PausedForwards, Skeleton, Taps, Unit
from hpa_merge.model.alignment import aligned
from hpa_merge.report.records import CalibrationRecord

SMALL = 2**26
"""Bytes that are looked at at once where a tensor is only looked at."""


@final
class Side:
    """A checkpoint, its skeleton, and its samples on their way through it.

    Attributes:
        purpose, role: ``safety`` and OLD, or ``task`` and NEW.
        device: where units are loaded to.
        inputs: the encoded samples, on the CPU.
    """

    def __init__(
        self, purpose: str, checkpoint: Checkpoint, skeleton: Skeleton, samples: Encoding, config: HPAConfig
    ) -> None:
        """Encode the samples.

        Args:
            purpose: ``safety`` or ``task``, for messages.
            config: of it ``damping``.

        Raises:
            CalibrationError, CheckpointError, ResourceError: as :meth:`Encoding.inputs`.
        """
        self.purpose = purpose
        self.role = checkpoint.role
        self.device = skeleton.device
        self._damping = config.damping
        self._checkpoint = checkpoint
        self._ahead: ReadAhead | None = None
        self._coming: list[Unit] = []  # those that are read ahead, in their order
        self._checked: set[str] = set()
        self._skeleton = skeleton
        self._samples = samples.samples
        self.inputs = samples.inputs(skeleton)
        self._forwards = PausedForwards(skeleton.model, skeleton.units)
        self._taps = Taps(skeleton.model, skeleton.observed, skeleton.expert_stacks.values())

    @property
    def tokens(self) -> int:
        """Of all samples together; those that a decoder reads apart from the encoder count too."""
        names = ("input_ids", "decoder_input_ids")
        return sum(inputs[name].numel() for inputs in self.inputs for name in names if name in inputs)

    def keys_of(self, unit: Unit | None) -> list[str]:
        """The keys of a unit's tensors, in the order in which they are read; for None those that belong to no unit."""
        return self._skeleton.keys_of(unit)

    def reading_ahead(self, units: Collection[Unit], budget: int) -> AbstractContextManager[None]:
        """Within the block units are read before they are loaded, while something else is computed.

        Args:
            units: those that are merged; the samples come to every unit, so all are read.
            budget: bytes that are read and not yet asked for, at most.
        """
        self._coming = list(self._skeleton.units)
        return self.reading([key for unit in (None, *self._coming) for key in self.keys_of(unit)], budget)

    @contextmanager
    def reading(self, order: Iterable[str], budget: int) -> Iterator[None]:
        """As :meth:`reading_ahead`, of keys in the order in which they will be asked for if all goes as expected."""
        with ReadAhead(self._checkpoint, order, budget, pin=self.device.type == "cuda") as self._ahead:
            try:
                yield
            finally:
                self._ahead = None

    def spill(self, spill: bool) -> None:
        """Whether what the linears read waits on the host until it is asked for: slower, and small on the device."""
        self._taps.spill = spill

    def start(self) -> None:
        """Let every sample run to its first unit.

        Raises:
            CalibrationError: the model's forward fails on a sample.
        """
        self._check_ids()
        self._check(self._skeleton.load(None, self._read))
        inputs = [{name: self._place(value) for name, value in sample.items()} for sample in self.inputs]
        try:
            self._forwards.start(inputs)
        except ForwardError as error:
            raise self._failed(error) from error

    @property
    def next_unit(self) -> Unit | None:
        """The earliest unit that a sample waits at."""
        return self._forwards.next_unit

    def wants(self, unit: Unit) -> bool:
        """Nothing is kept beyond the merge."""
        return False

    def load(self, unit: Unit) -> Callable[[str], Tensor]:
        """Load ``unit``; what gives its tensors by their keys, as they lie on disk, on the device.

        Raises:
            NumericalError: one holds NaN or infinity.
        """
        if self._ahead is not None and unit in self._coming:
            self._postpone_before(unit, self._ahead)
        tensors = self._skeleton.load(unit, self._read)
        self._check(tensors)
        return tensors.__getitem__

    def check_rest(self) -> None:
        """See that the tensors that were never loaded are finite too, piece by piece.

        Raises:
            NumericalError: one holds NaN or infinity.
        """
        for key, info in self._checkpoint.tensors.items():
            if key not in self._checked:
                whole = info.nbytes <= SMALL or self._checkpoint.computes(key)  # it may have been read ahead
                for piece in (self._read(key),) if whole else self._checkpoint.pieces(key, SMALL):
                    self._check({key: piece})

    def read(self, key: str) -> Tensor:
        """One tensor as it lies on disk, on the CPU.

        Raises:
            NumericalError: it holds NaN or infinity.
        """
        tensor = self._read(key)
        self._check({key: tensor})
        return tensor

    def pieces(self, key: str) -> Iterator[Tensor]:
        """The elements of one tensor in their order, flat, in pieces of a fixed size at most, on the CPU.

        Raises:
            NumericalError: one holds NaN or infinity.
        """
        for piece in self._checkpoint.pieces(key, SMALL):
            self._check({key: piece})
            yield piece

    def _postpone_before(self, unit: Unit, ahead: ReadAhead) -> None:
        """Take a unit that is loaded off the list, and what no sample will come to any more to its end."""
        place = self._coming.index(unit)
        passed = self._coming[:place] if unit.text else []
        keys = [key for other in passed for key in self.keys_of(other)]
        ahead.forget(keys)
        ahead.expect(keys)
        self._coming = [*self._coming[len(passed) : place], *self._coming[place + 1 :], *passed]

    def _read(self, key: str) -> Tensor:
        return (self._ahead or self._checkpoint).read(key)

    def _check_ids(self) -> None:
        """Check that token ids that were given are tokens of the model: on a GPU no error could name the sample.

        Raises:
            CalibrationError: one is not.
        """
        rows = getattr(self._skeleton.model.get_input_embeddings(), "num_embeddings", None)
        for sample in self._samples:
            if sample.input_ids and rows is not None and (highest := max(sample.input_ids)) >= rows:
                raise CalibrationError(
                    f"{sample.source}: input_ids holds {highest}, and {self.role}'s vocabulary has {rows} tokens: "
                    "give the ids that the checkpoint's own tokenizer gives."
                )

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        for key, value in tensors.items():
            if value.is_floating_point() and not all_finite(value):
                raise NumericalError(
                    f"{self.role}'s tensor {key} holds NaN or infinity: "
                    "the file is damaged or the training diverged, so give a sound checkpoint."
                )
        self._checked.update(tensors)

    def run(self, unit: Unit, linears: Iterable[LinearTensor], *, last: bool = False) -> "Observed":
        """Let the samples that have come to ``unit``, which is loaded, through it.

        Args:
            linears: those of the unit whose inputs matter.
            last: nothing after those inputs does.

        Raises:
            CalibrationError: the model's forward fails on a sample.
        """
        self._taps.watch(observer for linear in linears for observer in linear.observers)
        try:
            for _ in self._forwards.run(unit, last=last):
                self._taps.end_sample()
        except ForwardError as error:
            raise self._failed(error) from error
        return Observed(self.purpose, self.role, self._taps.curvatures(), self._damping)

    def free(self, unit: Unit) -> None:
        """Give ``unit``'s memory back."""
        self._skeleton.free(unit)

    def close(self) -> None:
        """End the samples that are still on their way, and leave the model as it was."""
        self._forwards.close()
        self._taps.close()

    def record(self, file: str | Path) -> CalibrationRecord:
        """What was used of the calibration file."""
        return CalibrationRecord(
            file=str(file),
            samples=len(self._samples),
            tokens=self.tokens,
            images=sum(len(sample.images) for sample in self._samples),
        )

    def _place(self, value: Tensor) -> Tensor:
        """An input on the device, floating ones in the model's dtype; in aligned memory, so that OUT does not depend on
        where a processor put it."""
        dtype = self._skeleton.model.dtype if value.is_floating_point() else value.dtype
        return aligned(value.to(self._skeleton.device, dtype))

    def _failed(self, error: ForwardError) -> BaseException:
        """The sentence for a forward that raised; where memory ran out, which is no fault of the sample, its error."""
        cause, source = error.__cause__, self._samples[error.sample].source
        if cause is not None and is_out_of_memory(cause):
            return cause
        reason = (str(cause).strip().splitlines() or [""])[0]
        return CalibrationError(
            f"{source}: {self.role}'s forward fails on this sample ({type(cause).__name__}: {reason}): "
            "mend the sample or take it out."
        )


@final
class Observed:
    """What the linears of one unit read on one side."""

    def __init__(self, purpose: str, role: str, curvatures: Mapping[str, Curvature], damping: float) -> None:
        """``curvatures``: by the path of the module that read; ``purpose`` and ``role`` are for messages."""
        self._purpose = purpose
        self._role = role
        self._curvatures = curvatures
        self._damping = damping
        self._diagonals: dict[Curvature, Tensor] = {}  # linears that read the same tensor share one
        self._inverse: dict[Curvature, Inverse] = {}  # at most one

    def reached(self, linear: LinearTensor) -> bool:
        """Whether any token activates the linear's input."""
        return any(curvature.peak != 0.0 for curvature in self._of(linear))

    def tokens(self, linear: LinearTensor) -> int:
        """How many tokens came to the linear."""
        return sum(curvature.tokens for curvature in self._of(linear))

    def inverse_diagonal(self, linear: LinearTensor) -> Tensor:
        """``[H⁻¹]_jj``, ``[c]``, of a linear that is reached.

        Raises:
            NumericalError: an activation is not finite, or ``H`` cannot be factored.
        """
        curvature = self._curvature(linear)
        if curvature not in self._diagonals:
            with self._factoring(linear):
                self._diagonals[curvature] = curvature.inverse_diagonal(self._damping)
        return self._diagonals[curvature]

    def inverse(self, linear: LinearTensor) -> Inverse:
        """All of ``H⁻¹`` of a linear that is reached; only the last one is held.

        Raises:
            NumericalError: an activation is not finite, or ``H`` cannot be factored.
        """
        curvature = self._curvature(linear)
        if curvature not in self._inverse:
            self._inverse.clear()
            with self._factoring(linear):
                self._inverse[curvature] = curvature.inverse(self._damping)
        return self._inverse[curvature]

    def _curvature(self, linear: LinearTensor) -> Curvature:
        """That of the linear's input.

        Raises:
            NumericalError: an activation is not finite.
        """
        curvature, *others = self._of(linear)
        if others:  # modules that read different tensors and lie in one weight on disk
            curvatures = (curvature, *others)
            curvature = Curvature(curvature.columns, spill=curvature.spill)
            for part in curvatures:
                curvature.absorb(part)
        if not math.isfinite(curvature.peak):
            raise NumericalError(
                f"the {self._purpose} activations that reach {linear.name} hold NaN or infinity: "
                f"see whether {self._role} can be run in its dtype at all."
            )
        return curvature

    @contextmanager
    def _factoring(self, linear: LinearTensor) -> Iterator[None]:
        """Say which linear's curvature cannot be factored."""
        try:
            yield
        except SingularCurvature as error:
            raise NumericalError(
                f"the {self._purpose} curvature of {linear.name} cannot be factored, in float64 either ({error}): "
                f"raise damping, which is {self._damping:g}."
            ) from error

    def _of(self, linear: LinearTensor) -> list[Curvature]:
        """The curvatures of the linear's observers, each once."""
        return list(dict.fromkeys(self._curvatures[o] for o in linear.observers if o in self._curvatures))

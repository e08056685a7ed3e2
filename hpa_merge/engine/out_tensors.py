"""How the weights of an OUT become the tensors of its files: as a whole checkpoint, or as an adapter on OLD."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, final

from torch import Tensor

from hpa_merge.checkpoint import AsyncWriter, Checkpoint, CheckpointWriter
from hpa_merge.core import all_finite
from hpa_merge.engine.linear import MergedLinear
from hpa_merge.engine.remaining import Remaining
from hpa_merge.engine.weights import Read, Weights
from hpa_merge.errors import NumericalError
from hpa_merge.outline import LinearTensor

if TYPE_CHECKING:  # with transformers
    from hpa_merge.engine.adapter_form import AdapterForm

__all__ = ["AdapterOut", "OutTensors", "WholeTensors"]


class OutTensors(Protocol):
    """The tensors of one OUT, in the making."""

    def put(self, linear: MergedLinear) -> None:
        """Take a linear weight."""

    def pass_on(self, keys: Iterable[str], old: Read | None, new: Read | None) -> None:
        """As :meth:`hpa_merge.engine.linear.Sink.pass_on`."""

    def leave(self, keys: Iterable[str]) -> None:
        """Leave tensors to another rank."""

    def end_unit(self) -> dict[str, float]:
        """Queue what the linears so far decide; returns the errors of an adapter's updates, by linear."""

    def rest(self, old: Weights) -> None:
        """Write everything else."""

    def piece(self, name: str, begin: int, count: int) -> Tensor:
        """As :meth:`hpa_merge.engine.linear.Sink.piece`."""


@final
class WholeTensors:
    """The tensors of a checkpoint in NEW's layout."""

    def __init__(
        self,
        new: Checkpoint,
        from_old: Mapping[str, str],
        keys: Iterable[str],
        writer: CheckpointWriter,
        queue: AsyncWriter,
    ) -> None:
        """Write ``keys``; ``from_old``: OLD's key for each of NEW's keys whose tensor is OLD's."""
        self._new, self._writer, self._async = new, writer, queue
        self._stack: dict[str, Tensor] = {}  # the tensor of OUT, if any, that has some of its slices
        self._left = Remaining(new, from_old, keys)

    def put(self, linear: MergedLinear) -> None:
        if (weight := linear.weight) is not None:
            self._write(linear.pair.new, linear.tensor, weight)

    def pass_on(self, keys: Iterable[str], old: Read | None = None, new: Read | None = None) -> None:
        for key, role, tensor in self._left.take(keys, old, new):
            if tensor is None:
                self._async.copy(key)
            else:
                self._async.write(key, self._as_new(key, tensor) if role == "OLD" else tensor)

    def leave(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._left.remove(key)

    def end_unit(self) -> dict[str, float]:
        """Queue the stack that has all of its slices; the slices of one tensor are put in sequence."""
        while self._stack:
            self._async.write(*self._stack.popitem())
        return {}

    def rest(self, old: Weights) -> None:
        self.pass_on(self._left)
        if self._left:
            self._async.flush()  # a commit may still wait there, and none may run while something else is written
        for key, pieces in self._left.take_rest(old):
            self._writer.write_pieces(key, (self._as_new(key, piece) for piece in pieces))

    def piece(self, name: str, begin: int, count: int) -> Tensor:
        return self._writer.piece(name, begin, count)

    def _as_new(self, key: str, tensor: Tensor) -> Tensor:
        """A tensor of OLD, or a piece of one, in NEW's dtype; raises NumericalError if it does not fit."""
        cast = tensor.to(self._new.tensors[key].dtype)
        if cast.is_floating_point() and not all_finite(cast):
            raise NumericalError(f"OLD's {key} does not fit {cast.dtype}: save NEW in float32 or bfloat16.")
        return cast

    def _write(self, linear: LinearTensor, tensor: Tensor, weight: Tensor) -> None:
        """Queue a weight, ``[r, c]``; a slice of a stack goes into a copy of NEW's ``tensor``."""
        self._left.remove(linear.key)
        if linear.part is None:
            self._async.write(linear.key, linear.turned(weight))
        else:
            if linear.key not in self._stack:
                self.end_unit()
                self._stack[linear.key] = tensor.clone()
            linear.matrix(self._stack[linear.key]).copy_(weight)


@final
class AdapterOut:
    """The tensors of an adapter on OLD."""

    def __init__(
        self, form: "AdapterForm", keys: Iterable[str], writer: CheckpointWriter, queue: AsyncWriter, old: Checkpoint
    ) -> None:
        """Write ``keys``, which are all that OUT lacks, or none."""
        self._form, self._writer, self._async, self._old = form, writer, queue, old
        left = set(keys)
        done = [part.name for part in form.parts if part.name not in left]
        from hpa_merge.engine.adapter_tensors import AdapterTensors

        self._made = AdapterTensors(form, done, queue.write)
        self._applied: Callable[[str], Tensor] | None = None
        self._last: tuple[str, Tensor] | None = None

    def put(self, linear: MergedLinear) -> None:
        self._made.put(linear)

    def pass_on(self, keys: Iterable[str], old: Read | None, new: Read | None) -> None:
        """Nothing: other tensors of OLD are not part of an adapter."""

    def leave(self, keys: Iterable[str]) -> None:
        """Nothing: one rank writes all of an adapter."""

    def end_unit(self) -> dict[str, float]:
        return self._made.end_unit()

    def rest(self, old: Weights) -> None:
        self._made.rest(old)

    def piece(self, name: str, begin: int, count: int) -> Tensor:
        """Of OLD with the adapter; the last tensor is kept."""
        if self._applied is None:
            from hpa_merge.inputs.applied import applied

            self._applied = applied(self._form.layout, self._old, self._read)
        if self._last is None or self._last[0] != name:
            self._last = name, self._applied(name).reshape(-1)
        return self._last[1][begin : begin + count]

    def _read(self, name: str) -> Tensor:
        info = self._form.layout.tensors[name]
        return self._writer.piece(name, 0, info.nbytes // info.dtype.itemsize).reshape(info.shape)

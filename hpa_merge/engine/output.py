"""One OUT on its way: its options, its writer, and what became of each linear."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from torch import Tensor

from hpa_merge.checkpoint import CheckpointWriter, WriteBehind
from hpa_merge.config import HPAConfig
from hpa_merge.core import all_finite
from hpa_merge.engine.calibration_run import Side
from hpa_merge.engine.components import component_records
from hpa_merge.engine.drift import Moved, drift_of
from hpa_merge.engine.fingerprint import digest
from hpa_merge.engine.machine import describe, peak_device_bytes, peak_host_bytes, versions
from hpa_merge.engine.plan import LinearPair
from hpa_merge.engine.recording import record_of, record_of_adapted
from hpa_merge.engine.setup import Job, Ready, Render
from hpa_merge.engine.statistics import Half
from hpa_merge.errors import CalibrationError, NumericalError, OutputError
from hpa_merge.files.names import CARD, REPORT
from hpa_merge.inputs.hub import commits_of
from hpa_merge.methods.applying import Adapted, with_new_rows
from hpa_merge.model import Unit
from hpa_merge.report.records import LinearRecord, Outcome, RunRecord
from hpa_merge.report.schema import MergeReport

__all__ = ["Target"]


@final
class Target:
    """An OUT that a merge is making; one of several that are made from one read of the inputs.

    Attributes:
        config: its options.
        records: what became of each linear, in the order of the merge; of a resumed run those that are durable first.
    """

    def __init__(self, job: Job, ready: Ready, out: Path, place: int, config: HPAConfig, behind: int) -> None:
        """Begin OUT, or go on with it.

        Args:
            place: of ``config`` among those that the plan was made with.
            behind: bytes that wait to be written, at most.

        Raises:
            OutputError: it cannot be made there, or was begun as another one.
        """
        self.config = config
        self._out = out
        self._place = place
        self._new = ready.new
        self._writer = CheckpointWriter(
            ready.new,
            out,
            overwrite=job.overwrite,
            inputs=ready.inputs.places,
            fingerprint={
                **ready.fingerprints[out],
                **ready.origins,
                **{f"content of {name.upper()}": content for name, content in ready.lineage.contents.items()},
            },
            resume=job.resume,
            unchanged=ready.inputs.check,
        )
        self._behind = WriteBehind(self._writer, behind)
        self._stack: dict[str, Tensor] = {}  # the tensor of OUT, if any, of which some slices are in their place
        self._from_old = ready.plan.from_old[place]
        self._left = dict.fromkeys(self._writer.remaining())  # what neither is written nor waits for it, in its order
        resumed = self._writer.resumed
        with self._believing():
            self.records = [LinearRecord(**record) for entry in resumed for record in entry["linears"]]
            self._finished = {str(entry["unit"]) for entry in resumed}
        self._begun = len(self.records)

    def restore(self, half: Half) -> None:
        """Give a half that is to be computed what an interrupted run has computed of it."""
        with self._believing():
            for entry in self._writer.resumed:
                if half.purpose in entry.get("statistics", ()):
                    half.restore(entry["statistics"][half.purpose])

    @contextmanager
    def _believing(self) -> Iterator[None]:
        """Read what the journal says.

        Raises:
            OutputError: it is not what a run has written.
        """
        try:
            yield
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self._writer.abort(keep=True)
            raise OutputError(
                f"the journal of {self._writer.partial} is damaged ({type(error).__name__}: {error}): "
                "delete that folder, and run the same command again."
            ) from error

    def lacks(self, unit: Unit) -> bool:
        """Whether the linears of ``unit`` are not durable yet."""
        return unit.name not in self._finished

    def includes(self, pair: LinearPair) -> bool:
        """Whether the options leave the linear to be adapted."""
        return pair.included[self._place]

    def put(self, unit: Unit, pair: LinearPair, tensor: Tensor, adapted: Adapted, moved: Moved, **details: Any) -> None:
        """Write an adapted weight.

        Args:
            tensor: NEW's, in which the weight lies on disk.
            moved: what knows how far it lies from OLD's.

        Raises:
            NumericalError: it does not fit into NEW's dtype.
        """
        if not all_finite(adapted.weight):
            raise NumericalError(
                f"the result for {pair.new.name} does not fit {adapted.weight.dtype}: save NEW in float32 or bfloat16."
            )
        self._write(pair, tensor, adapted.weight)
        self.records.append(record_of_adapted(unit, pair, adapted, moved, **details))

    def leave(
        self,
        unit: Unit,
        pair: LinearPair,
        tensor: Tensor,
        old: Tensor,
        moved: Moved,
        unreached: Sequence[str],
        **details: Any,
    ) -> None:
        """Deal with a changed weight, ``[r, c]`` in OLD, that no token of the sets ``unreached`` reaches.

        ``tensor``: NEW's, in which it lies on disk. ``moved``: what knows how far it lies from OLD's.

        Raises:
            CalibrationError: the options want every one to be reached.
        """
        if self.config.uncalibrated == "error":
            raise CalibrationError(
                f"{pair.new.name} changed and no token of the {' and the '.join(unreached)} set reaches it: "
                "add samples that do, or choose --uncalibrated new or old."
            )
        if self.config.uncalibrated == "old":
            self._write(pair, tensor, with_new_rows(old.to(tensor.dtype), pair.new.matrix(tensor)))
            details |= moved.to_old()
        else:
            details |= moved.to_new()
        self.note(unit, pair, pair.new.matrix(tensor), "uncalibrated", **details)

    def leave_out(self, unit: Unit, pair: LinearPair, new: Tensor, moved: Moved) -> None:
        """Note that the options take a changed weight, ``[r, c]``, from NEW or from OLD."""
        if pair.new.key in self._from_old:
            self.note(unit, pair, new, "old", **moved.to_old())
        else:
            self.note(unit, pair, new, "excluded", **moved.to_new())

    def note(self, unit: Unit, pair: LinearPair, weight: Tensor, outcome: Outcome, **details: Any) -> None:
        """Record what became of a linear; ``weight`` is ``[r, c]``."""
        self.records.append(record_of(unit, pair, weight, outcome, **details))

    def pass_on(
        self,
        keys: Iterable[str],
        old: Callable[[str], Tensor] | None = None,
        new: Callable[[str], Tensor] | None = None,
    ) -> None:
        """Take from NEW what of these tensors is not written, and from OLD what the options want of it.

        Args:
            old: gives OLD's tensors by their keys; None where it cannot yet, so that they have to wait.
            new: gives those of NEW's that are computed; None: they are computed for this.

        Raises:
            NumericalError: one does not fit into NEW's dtype.
        """
        for key in keys:
            if key not in self._left or (key in self._from_old and old is None):
                continue
            del self._left[key]
            if key in self._from_old and old is not None:
                self._behind.write(key, self._as_new(key, old(self._from_old[key])))
            elif self._new.computes(key):
                self._behind.write(key, (new or self._new.read)(key))
            else:
                self._behind.copy(key)

    def commit(self, unit: Unit, statistics: Mapping[str, Any]) -> None:
        """Make the linears of ``unit`` durable, with the statistics that are to be there when the run is resumed."""
        self._write_stack()
        linears = [asdict(record) for record in self.records[self._begun :]]
        self._behind.commit({"unit": unit.name, "linears": linears, "statistics": dict(statistics)})
        self._begun = len(self.records)
        self._finished.add(unit.name)

    def copy_rest(self, old: Side) -> None:
        """Take everything else from NEW, or from OLD as the options want it, piece by piece.

        Raises:
            NumericalError: a tensor of OLD holds NaN or infinity, or does not fit into NEW's dtype.
        """
        self.pass_on(tuple(self._left))
        if self._left:
            self._behind.flush()  # a commit may still wait there, and none may be made while others write
        for key in tuple(self._left):
            pieces = (self._as_new(key, piece) for piece in old.pieces(self._from_old[key]))
            self._writer.write_pieces(key, pieces)
            del self._left[key]

    def flush(self) -> None:
        """Wait until everything is written.

        Raises:
            OutputError: something could not be.
        """
        self._behind.flush()

    def piece(self, name: str, begin: int, count: int) -> Tensor:
        """Elements of a tensor of OUT, which is written in full: flat, on the CPU."""
        return self._writer.piece(name, begin, count)

    def publish(
        self, job: Job, ready: Ready, render: Render, started: float, from_first: float | None = None
    ) -> MergeReport:
        """Let OUT, which is written in full, appear with its report.

        Args:
            render: what makes the files that people read.
            started: ``time.monotonic()`` when the run began.
            from_first: ``‖OUT − FIRST‖_F``, where it was measured.
        """
        self._behind.close()
        origins, calibration = ready.used(self.config), ready.records(self.config)
        notes = []
        if self._writer.damaged:
            notes.append(
                f"{self._writer.damaged} of the finished units were not on the disk as they had been written, and were "
                "merged again: check the disk."
            )
        self._writer.carry(but=(CARD, REPORT))
        report = MergeReport(
            architecture=ready.plan.architecture,
            config=asdict(self.config),
            safety=calibration["safety"],
            task=calibration["task"],
            linears=tuple(self.records),
            components=component_records(
                self.config, ready.plan.new, ((record.name, record.outcome) for record in self.records)
            ),
            passed_through=ready.plan.passed_through[self._place],
            left_out=tuple(str(path) for path in ready.new.side_files().left_out),
            manifest=self._writer.manifest(),
            run=RunRecord(
                old=ready.sources[0].name,
                new=ready.sources[1].name,
                adapter=ready.new.overlay.kind if ready.new.overlay else "",
                device=str(ready.device),
                seconds=round(time.monotonic() - started, 3),
                peak_host_bytes=peak_host_bytes(),
                peak_device_bytes=peak_device_bytes(ready.device),
                versions=versions(),
                statistics=origins if job.stats is None else {**origins, "file": str(job.stats)},
                notes=(*ready.notes, *notes),
                commits=commits_of(ready.sources),
                fingerprint=digest(ready.fingerprints[self._out]),
                contents={**ready.lineage.contents, "out": self._writer.content_digest()},
                command=job.command,
                finished=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
                machine=describe(ready.device),
            ),
            history=ready.lineage.history,
            drift=drift_of(self.records, ready.lineage.history, from_first),
        )
        report, files = render(report, ready.old, ready.new, job.page)
        ready.check_contents()
        self._writer.publish(files)
        return report

    def abort(self, *, keep: bool) -> None:
        """Give OUT up, or keep what is durable of it; never raises, and one that is published stays."""
        self._behind.close()
        self._writer.abort(keep=keep)

    def _as_new(self, key: str, tensor: Tensor) -> Tensor:
        """A tensor of OLD, or a piece of one, in NEW's dtype.

        Raises:
            NumericalError: it does not fit.
        """
        cast = tensor.to(self._new.tensors[key].dtype)
        if cast.is_floating_point() and not all_finite(cast):
            raise NumericalError(f"OLD's {key} does not fit {cast.dtype}: save NEW in float32 or bfloat16.")
        return cast

    def _write(self, pair: LinearPair, tensor: Tensor, weight: Tensor) -> None:
        """Let a weight, ``[r, c]``, be written in its turn; one of a stack in its place in NEW's ``tensor``."""
        key = pair.new.key
        self._left.pop(key, None)
        if pair.new.part is None:
            self._behind.write(key, pair.new.turned(weight))
        else:
            if key not in self._stack:
                self._write_stack()
                self._stack[key] = tensor.clone()
            pair.new.matrix(self._stack[key]).copy_(weight)

    def _write_stack(self) -> None:
        """Let the stack be written whose slices are in their place: those of one tensor come one after the other."""
        while self._stack:
            self._behind.write(*self._stack.popitem())

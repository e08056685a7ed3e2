"""One OUT: written tensor by tensor, recorded, and published with its report.

With several ranks, each writes the linears that it owns and its share of the other tensors, and the first publishes.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from torch import Tensor

from hpa_merge.checkpoint import AsyncWriter, CheckpointWriter
from hpa_merge.checkpoint.joining import Rank
from hpa_merge.engine.components import component_records
from hpa_merge.engine.drift import drift_of
from hpa_merge.engine.fingerprint import digest
from hpa_merge.engine.linear import MergedLinear
from hpa_merge.engine.machine import describe, peak_device_bytes, peak_host_bytes, versions
from hpa_merge.engine.out_tensors import AdapterOut, OutTensors, WholeTensors
from hpa_merge.engine.plan import OutPlan
from hpa_merge.engine.request import MergeRequest, Render
from hpa_merge.engine.setup import Prepared
from hpa_merge.engine.shares import in_order, share_of
from hpa_merge.engine.statistics import ModelStatistics
from hpa_merge.engine.weights import Read, Weights
from hpa_merge.errors import OutputError
from hpa_merge.files.names import CARD, REPORT
from hpa_merge.outline import Unit
from hpa_merge.report.facts import far_notes
from hpa_merge.report.records import LinearRecord, RoutingRecord, RunRecord
from hpa_merge.report.schema import MergeReport, linear_of, routing_of

if TYPE_CHECKING:  # with transformers
    from hpa_merge.engine.adapter_form import AdapterForm

__all__ = ["MergeOutput"]


@final
class MergeOutput:
    """An OUT that a merge is making: the :class:`~hpa_merge.engine.linear.Sink` that writes.

    Attributes:
        plan: what will be in it.
        routing: the routing drift of the mixtures, by name.
    """

    unreached = ": add samples that reach it, or choose --uncalibrated new or old."

    def __init__(
        self, request: MergeRequest, prepared: Prepared, out: Path, plan: OutPlan, form: "AdapterForm | None"
    ) -> None:
        """Begin OUT, or resume it.

        Args:
            form: for an OUT that is an adapter.

        Raises:
            OutputError: it cannot be made there, or an interrupted run was making another OUT there.
        """
        self.plan = plan
        self._request, self._prepared, self._group, self._out = request, prepared, prepared.group, out
        self._layout = prepared.inputs.new if form is None else form.layout
        self._fingerprint = prepared.fingerprint(plan.config)
        self._writer = CheckpointWriter(
            self._layout,
            out,
            overwrite=request.overwrite,
            inputs=prepared.inputs.guarded.places,
            fingerprint={
                **self._fingerprint,
                **prepared.origins,
                **{f"content of {name.upper()}": content for name, content in prepared.inputs.lineage.contents.items()},
            },
            resume=request.resume,
            unchanged=prepared.inputs.guarded.check,
            rank=Rank(self._group.rank, self._group.size),
            direct=not any(each.runs for each in prepared.sets),
        )
        self._linears = {
            unit.name: [pair for pair in pairs if plan.counts(pair.new)]
            for unit, pairs in prepared.plan.linears.items()
        }
        resumed = self._writer.resumed
        with self._believing():
            self._records = self._in_order([_records_of(entry["linears"]) for entry in resumed], resumed)
            known = [record for entry in resumed for record in routing_of(entry.get("routing", []))]
            self.routing = {record.name: record for record in (*prepared.routing, *known)}
            self._finished = {str(entry["unit"]) for entry in resumed}
        self._put: list[LinearRecord] = []  # of the unit at hand
        self._own: dict[str, list[LinearRecord]] = {}  # those of this run, by unit
        self._claimed = {
            pair.new.key for unit, pairs in self._linears.items() if unit not in self._finished for pair in pairs
        }
        self._async = AsyncWriter(self._writer, prepared.memory.queued)
        missing = self._writer.remaining()
        if form is not None:
            left = [pair.new for unit, pairs in self._linears.items() if unit not in self._finished for pair in pairs]
            decided = frozenset[str]().union(*map(form.parts_of, left))
            own = share_of(self._layout, missing, decided, self._group.rank, self._group.size)
            old = prepared.inputs.read[0]
            self._tensors: OutTensors = AdapterOut(form, {*own} - decided, self._writer, self._async, old)
        else:
            own = share_of(self._layout, missing, self._claimed, self._group.rank, self._group.size)
            self._tensors = WholeTensors(prepared.inputs.new, plan.from_old, own, self._writer, self._async)

    def restore(self, statistics: ModelStatistics) -> None:
        with self._believing():
            for entry in self._writer.resumed:
                if statistics.purpose in entry.get("statistics", ()):
                    statistics.restore(entry["statistics"][statistics.purpose])

    @contextmanager
    def _believing(self) -> Iterator[None]:
        """Raise OutputError if the journal's content is not what a run writes."""
        try:
            yield
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self._writer.abort(keep=True)
            raise OutputError(
                f"the journal of {self._writer.partial} is damaged ({type(error).__name__}: {error}): "
                "delete that folder, and run the same command again."
            ) from error

    def lacks(self, unit: Unit) -> bool:
        return unit.name not in self._finished

    def put(self, linear: MergedLinear) -> None:
        """Take a linear weight, and keep its record."""
        self._tensors.put(linear)
        self._put.append(linear.record())
        self._claimed.discard(linear.pair.new.key)

    def pass_on(self, keys: Iterable[str], old: Read | None = None, new: Read | None = None) -> None:
        """As :meth:`Sink.pass_on`; with several ranks, as far as this one writes them."""
        keys = [*keys]
        self._tensors.leave(self._claimed.intersection(keys))  # another rank has put these
        self._tensors.pass_on(keys, old, new)

    def commit(self, unit: Unit, statistics: Mapping[str, Any], routing: Sequence[RoutingRecord]) -> None:
        """As :meth:`Sink.commit`; what all ranks know is in the journal of the first one."""
        errors = self._tensors.end_unit()
        own = [replace(each, adapter_error=errors.get(each.name)) for each in self._put]
        self.routing |= {record.name: record for record in routing}
        entry: dict[str, Any] = {"unit": unit.name, "linears": [asdict(record) for record in own]}
        if self._group.is_first:
            entry["statistics"] = dict(statistics)
            entry |= {"routing": [asdict(record) for record in routing]} if routing else {}
        self._async.commit(entry)
        self._own[unit.name], self._put = own, []
        self._finished.add(unit.name)

    def copy_rest(self, old: Weights) -> None:
        self._tensors.rest(old)

    def flush(self) -> None:
        """Wait until every rank has written everything, and made it durable if there are several."""
        self._async.flush()
        if self._group.size > 1:
            self._writer.sync()
            self._group.barrier()

    def piece(self, name: str, begin: int, count: int) -> Tensor:
        return self._tensors.piece(name, begin, count)

    def publish(self, render: Render, started: float, from_first: float | None = None) -> MergeReport | None:
        """Publish OUT, of which every tensor is written, with its report. Every rank makes this call.

        Args:
            render: makes the files that people read.
            started: ``time.monotonic()`` at the start of the run.
            from_first: ``‖OUT − FIRST‖_F``, if it was measured.

        Returns:
            The report; None if this is not the first rank.
        """
        self._async.close()
        ranks = self._group.gather((self._writer.sync(), self._own))  # when all are here, all is durable
        digests = self._group.gather(self._writer.digests())
        if not self._group.is_first:
            self._writer.leave()
            return None
        for names, _ in ranks[1:]:
            self._writer.adopt(names)
        self._writer.adopt_digests({shard: each for of_rank in digests for shard, each in of_rank.items()})
        units = [{"unit": unit} for of_rank in ranks for unit in of_rank[1]]
        self._records += self._in_order([records for _, own in ranks for records in own.values()], units)
        inputs = self._prepared.inputs
        self._writer.carry(but=(CARD, REPORT))
        report, files = render(self._report(started, from_first), inputs.old, inputs.new, self._request.page)
        inputs.check_contents()
        self._writer.publish(files)
        return report

    def _in_order(
        self, records: Iterable[Sequence[LinearRecord]], entries: Iterable[Mapping[str, Any]]
    ) -> list[LinearRecord]:
        """The records of several units: of each, those that the ranks have; raises as :func:`in_order`."""
        of_units: dict[str, list[LinearRecord]] = {}
        for entry, each in zip(entries, records, strict=True):
            of_units.setdefault(entry["unit"], []).extend(each)
        return [record for unit, each in of_units.items() for record in in_order(each, self._linears[unit])]

    def _report(self, started: float, from_first: float | None) -> MergeReport:
        """The report of the merge."""
        prepared, config, plan = self._prepared, self.plan.config, self._prepared.plan
        sources, history = prepared.inputs.sources, prepared.inputs.lineage.history
        calibration, file = prepared.records(config), self._request.stats
        notes = []
        if self._writer.damaged:
            notes.append(
                f"{self._writer.damaged} of the finished units had other bytes on the disk than were written, and were "
                "merged again: check the disk."
            )
        drift = drift_of(self._records, history, from_first)
        notes += far_notes(drift)
        return MergeReport(
            architecture=plan.architecture,
            config=asdict(config),
            safety=calibration["safety"],
            task=calibration["task"],
            linears=tuple(self._records),
            components=component_records(config, plan.new, ((each.name, each.outcome) for each in self._records)),
            passed_through=self.plan.passed_through,
            unmerged=self.plan.unmerged,
            left_out=tuple(str(path) for path in self._layout.side_files().left_out),
            manifest=self._writer.manifest(),
            run=RunRecord(
                old=sources[0].name,
                new=sources[1].name,
                adapter=overlay.kind if (overlay := prepared.inputs.new.overlay) else "",
                dequantised=prepared.inputs.dequantised,
                dtype=prepared.inputs.new.dtype,
                compute_dtype=prepared.compute_dtypes(config),
                device=str(prepared.device),
                seconds=round(time.monotonic() - started, 3),
                peak_host_bytes=peak_host_bytes(),
                peak_device_bytes=peak_device_bytes(prepared.device),
                versions=versions(),
                statistics=prepared.used(config) | ({} if file is None else {"file": str(file)}),
                notes=(*prepared.notes, *notes),
                commits=prepared.inputs.commits,
                code=prepared.inputs.code,
                fingerprint=digest(self._fingerprint),
                contents={**prepared.inputs.lineage.contents, "out": self._writer.content_digest()},
                command=self._request.command,
                finished=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
                machine=describe(prepared.device),
                out=str(self._out),
                given=self._request.given,
            ),
            history=history,
            drift=drift,
            routing=tuple(self.routing.values()),
            what_if=config.rule.grid(config) if config.rule.grid is not None else None,
        )

    def abort(self, *, keep: bool) -> None:
        """Give OUT up, or ``keep`` what is durable; never raises, and does nothing to an OUT that is published."""
        self._async.close()
        self._writer.abort(keep=keep)


def _records_of(said: Iterable[Any]) -> list[LinearRecord]:
    """The records of one unit in a journal; raises TypeError or ValueError if they are none."""
    return [linear_of(record) for record in said]

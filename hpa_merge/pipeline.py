"""The one loop: both models in lockstep, unit by unit, from two checkpoints to a third.

Unit ``l`` of OLD runs the safety samples, unit ``l`` of NEW the task samples; what their linears read becomes two
curvatures each; the unit's weights are fused, written and freed before the next unit is loaded.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from hpa_merge.checkpoint import CheckpointWriter
from hpa_merge.config import HPAConfig
from hpa_merge.core import all_finite
from hpa_merge.errors import CalibrationError, CheckpointError, HPAError, NumericalError, OutputError
from hpa_merge.fingerprint import fingerprint
from hpa_merge.machine import peak_device_bytes, peak_host_bytes, versions
from hpa_merge.method import adapt
from hpa_merge.model import Unit
from hpa_merge.plan import LinearPair, Plan
from hpa_merge.prepare import Progress, prepare
from hpa_merge.report.schema import LinearRecord, MergeReport, Outcome, RunRecord, pack_columns
from hpa_merge.side import Observed, Side


def merge(
    old: str | Path,
    new: str | Path,
    out: str | Path,
    *,
    safety_calib: str | Path,
    task_calib: str | Path,
    config: HPAConfig | None = None,
    overwrite: bool = False,
    resume: bool = False,
    on_progress: Progress = lambda what, done, total: None,
) -> MergeReport:
    """Put back into NEW what OLD's safety and earlier tasks rest on, and write the result to ``out``.

    Args:
        old, new: checkpoint folders in Hugging Face layout, before and after the tuning step; never written to.
        out: a new folder; it appears whole or not at all.
        safety_calib, task_calib: calibration files; the README lists the formats.
        config: the options; the paper's by default.
        overwrite: replace ``out`` where it exists.
        resume: go on with what an interrupted run with the same arguments left beside ``out``, if it left anything.
        on_progress: called before each unit, and at the end.

    Returns:
        The report, which also lies in ``out`` as ``hpa_report.json``.

    Raises:
        InputError: the input or the options are wrong.
        NumericalError: a weight or an activation is not finite, or a curvature cannot be factored.
    """
    started = time.monotonic()
    config = config or HPAConfig()
    with prepare(old, new, out, safety_calib, task_calib, config, overwrite, resume) as ready:
        writer = CheckpointWriter(
            ready.new,
            out,
            overwrite=overwrite,
            inputs=[ready.old.folder, ready.new.folder],
            fingerprint=fingerprint(
                ready.old, ready.new, {side.purpose: side.inputs for side in ready.sides}, config, ready.device
            ),
            resume=resume,
        )
        try:
            linears = _Merge(ready.plan, ready.sides, writer, config, on_progress).run()
            report = MergeReport(
                architecture=ready.plan.architecture,
                config=asdict(config),
                safety=ready.sides[0].record(safety_calib),
                task=ready.sides[1].record(task_calib),
                linears=tuple(linears),
                passed_through=ready.plan.passed_through,
                left_out=tuple(str(path) for path in ready.new.side_files().left_out),
                manifest=writer.manifest(),
                run=RunRecord(
                    old=str(old),
                    new=str(new),
                    device=str(ready.device),
                    seconds=round(time.monotonic() - started, 3),
                    peak_host_bytes=peak_host_bytes(),
                    peak_device_bytes=peak_device_bytes(ready.device),
                    versions=versions(),
                ),
            )
            writer.publish({"hpa_report.json": report.to_json().encode()})
        except HPAError as error:  # other input would be another run; a disk that is full or fails can be mended
            writer.abort(keep=isinstance(error, OutputError | CheckpointError))
            raise
        except BaseException:
            writer.abort(keep=True)
            raise
    return report


@final
class _Merge:
    """The loop and its state."""

    def __init__(
        self, plan: Plan, sides: tuple[Side, Side], writer: CheckpointWriter, config: HPAConfig, on_progress: Progress
    ) -> None:
        self._plan = plan
        self._sides = sides
        self._writer = writer
        self._config = config
        self._on_progress = on_progress
        self._records: list[LinearRecord] = []
        self._text_has_run = False

    def run(self) -> list[LinearRecord]:
        """Go through every unit and copy the rest; what became of each linear, in that order.

        A resumed run does not merge again what the journal has: its samples run through those units as they are, and
        do not run at all where nothing is left to be calibrated.
        """
        finished = {entry["unit"] for entry in self._writer.resumed}
        self._records = [LinearRecord(**record) for entry in self._writer.resumed for record in entry["linears"]]
        pending = {unit: pairs for unit, pairs in self._plan.linears.items() if unit.name not in finished}
        done: set[Unit] = set()
        steps = len(self._plan.new.units) + 1
        try:
            if pending:
                for side in self._sides:
                    side.start()
            while pending and (unit := self._next_unit()) is not None:
                if unit in self._plan.linears and unit in done:
                    raise RuntimeError(f"a sample came to {unit.name} after it was merged")
                self._on_progress(unit.name, len(done), steps)
                done.add(unit)
                pairs = pending.pop(unit, ())
                self._do_unit(unit, pairs, visited=True, last=not pending)
        finally:
            for side in self._sides:
                side.close()
        for unit, pairs in pending.items():
            self._do_unit(unit, pairs, visited=False, last=False)
        self._on_progress("copying the rest", steps - 1, steps)
        self._sides[1].check_rest()
        for name in self._writer.remaining():
            self._writer.copy(name)
        self._on_progress("done", steps, steps)
        return self._records

    def _next_unit(self) -> Unit | None:
        waiting = [unit for side in self._sides if (unit := side.next_unit) is not None]
        return min(waiting, key=lambda unit: unit.index, default=None)

    def _do_unit(self, unit: Unit, pairs: Sequence[LinearPair], *, visited: bool, last: bool) -> None:
        """Load one unit of both models, let the samples through, merge its linears, note it, and free it."""
        begun = len(self._records)
        old, new = (side.load(unit) for side in self._sides)
        changed: list[tuple[LinearPair, Tensor, Tensor]] = []  # with both weights as [r, c]
        for pair in pairs:
            w_old, w_new = pair.old.matrix(old[pair.old.key]), pair.new.matrix(new[pair.new.key])
            if torch.equal(w_old.to(w_new.dtype), w_new):
                self._record(unit, pair, w_new, "unchanged")
            elif not pair.included:
                self._record(unit, pair, w_new, "excluded")
            else:
                changed.append((pair, w_old, w_new))
        linears = [pair.new for pair, _, _ in changed] if visited else []
        safety, task = (side.run(unit, linears, last=last) for side in self._sides)
        self._text_has_run |= unit.text and visited
        for pair, w_old, w_new in changed:
            if safety.reached(pair.new) and task.reached(pair.new):
                self._adapt(unit, pair, w_old, w_new, safety, task)
            else:
                self._leave(unit, pair, w_old, w_new, safety, task)
        if pairs:
            self._writer.commit({"unit": unit.name, "linears": [asdict(record) for record in self._records[begun:]]})
        for side in self._sides:
            side.free(unit)

    def _adapt(self, unit: Unit, pair: LinearPair, old: Tensor, new: Tensor, safety: Observed, task: Observed) -> None:
        """Adapt one weight and write it."""
        block = unit.block if unit.block is not None else (unit.blocks if self._text_has_run else 0)
        adapted = adapt(
            old,
            new,
            safety.inverse_diagonal(pair.new, self._config.damping),
            task.inverse_diagonal(pair.new, self._config.damping),
            block=block,
            blocks=unit.blocks,
            config=self._config,
        )
        if not all_finite(adapted.weight):
            raise NumericalError(
                f"the result for {pair.new.key} does not fit {adapted.weight.dtype}: save NEW in float32 or bfloat16."
            )
        self._writer.write(pair.new.key, pair.new.matrix(adapted.weight))
        self._record(
            unit,
            pair,
            new,
            "adapted",
            block=block,
            blocks=unit.blocks,
            share=adapted.share,
            n_keep=adapted.selection.n_keep,
            n_focus=adapted.selection.n_focus,
            n_shared=adapted.selection.n_shared,
            kept=pack_columns(adapted.selection.kept),
            alpha=adapted.selection.alpha,
            kappa=adapted.kappa,
            relative_update=adapted.relative_update,
            energy_put_back=adapted.energy_put_back,
            safety_tokens=safety.tokens(pair.new),
            task_tokens=task.tokens(pair.new),
        )

    def _leave(self, unit: Unit, pair: LinearPair, old: Tensor, new: Tensor, safety: Observed, task: Observed) -> None:
        """Deal with a changed weight that no token reaches in both sets."""
        if self._config.uncalibrated == "error":
            unreached = [name for name, seen in (("safety", safety), ("task", task)) if not seen.reached(pair.new)]
            raise CalibrationError(
                f"{pair.new.key} changed and no token of the {' and the '.join(unreached)} set reaches it: "
                "add samples that do, or choose --uncalibrated new or old."
            )
        if self._config.uncalibrated == "old":
            self._writer.write(pair.new.key, pair.new.matrix(old.to(new.dtype)))
        tokens = {"safety_tokens": safety.tokens(pair.new), "task_tokens": task.tokens(pair.new)}
        self._record(unit, pair, new, "uncalibrated", **tokens)

    def _record(self, unit: Unit, pair: LinearPair, weight: Tensor, outcome: Outcome, **details: Any) -> None:
        rows, columns = weight.shape
        self._records.append(
            LinearRecord(pair.new.key, outcome, unit.name, unit.stack, rows=rows, columns=columns, **details)
        )

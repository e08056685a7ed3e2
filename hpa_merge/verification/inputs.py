"""Checks what follows from OLD and NEW without samples: OUT's files, its tensors, and most of the report."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import final

from torch import Tensor

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.sidefiles import MADE
from hpa_merge.config import HPAConfig
from hpa_merge.core import measure_update
from hpa_merge.core.rounding import NEAR, differing, neighbours, slack
from hpa_merge.counting import counted
from hpa_merge.engine.drift import Moved
from hpa_merge.engine.plan import LinearPair, Plan
from hpa_merge.engine.recording import record_of, record_of_adapted
from hpa_merge.engine.unit_statistics import pooled_field
from hpa_merge.files.names import CARD, REPORT
from hpa_merge.methods.applying import differ, with_new_rows
from hpa_merge.methods.weight import Redone, Weight
from hpa_merge.report.manifest import Listing
from hpa_merge.report.records import LinearRecord, Outcome
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.words import shortened
from hpa_merge.verification.adapter import Compared, Values
from hpa_merge.verification.differences import said_of, told
from hpa_merge.verification.files import digest_of, weight_files
from hpa_merge.verification.findings import Findings
from hpa_merge.verification.records import compare_records

__all__ = ["Claims", "check_folder", "slacks_of"]

ROUNDED = ("relative_update", "distance", "old_norm", "energy_restored")
"""Figures of a record that are sums over a weight, or follow from them."""


def check_folder(merged: Checkpoint, new: Checkpoint, found: Listing, findings: Findings) -> None:
    """Compare the layout and the side files of OUT with NEW's.

    Args:
        found: the files of OUT.

    Raises:
        CheckpointError: a file cannot be read.
    """
    problems = findings.problems
    expected, there = weight_files(new), weight_files(merged)
    if there != expected:
        problems.append(f"OUT's weights are in {', '.join(there)}, and NEW's in {', '.join(expected)}.")
    for shard in merged.shards:
        if shard in new.shards and merged.header_bytes(shard) != new.header_bytes(shard):
            problems.append(f"{shard} has another header than in NEW.")
    problems += [f"{name} is in NEW and not in OUT." for name in sorted(new.tensors.keys() - merged.tensors.keys())]
    theirs = [*new.side_files().copied, *([Path(new.index)] if new.index and merged.index else [])]
    own = {CARD, REPORT, *MADE, *merged.shards, str(merged.index)}
    for name in sorted(found.files.difference(own, (path.as_posix() for path in theirs))):
        problems.append(f"{name} is in OUT and does not come from NEW.")
    for path in theirs:
        if path.as_posix() == CARD:
            continue
        findings.checked["side files"] += 1
        if path.as_posix() not in found.files:
            problems.append(f"{path} is in NEW and not in OUT.")
        elif digest_of(merged, path) != _expected(new, path):
            problems.append(f"{path} is not NEW's, byte for byte.")


def _expected(new: Checkpoint, path: Path) -> str:
    """SHA-256 of a file that OUT has from NEW."""
    own = new.own_index if str(path) == new.index else None
    return digest_of(new, path) if own is None else hashlib.sha256(own).hexdigest()


def slacks_of(old: Tensor) -> dict[str, float]:
    """The relative tolerances of a weight's figures, ``[r, c]``, which depend on the order of sums, by field."""
    return dict.fromkeys(ROUNDED, slack(old))


@final
class Claims:
    """The claims of a report about what was made from OLD and NEW, checked tensor by tensor."""

    def __init__(
        self,
        old: Checkpoint,
        new: Checkpoint,
        plan: Plan,
        config: HPAConfig,
        report: MergeReport,
        findings: Findings,
        values: Values,
    ) -> None:
        """``old`` has its vision tower, ``new`` is as given, and ``plan`` is for the report's options ``config``."""
        self._values = values
        self._old, self._new, self._plan = old, new, plan
        self._config, self._findings = config, findings
        self._exact = report.run.device == "cpu"
        self._records = {record.name: record for record in report.linears}
        self._pairs: dict[str, list[LinearPair]] = defaultdict(list)
        for pairs in plan.linears.values():
            for pair in pairs:
                if plan.only.counts(pair.new):
                    self._pairs[pair.new.key].append(pair)
        self._text_ends = max((unit.index for unit in plan.new.units if unit.text), default=-1)
        self._open = self._rounded = 0  # values that need samples; neighbours of the CPU's values
        self._outcomes: Counter[Outcome] = Counter()
        self._depths: list[str] = []

    def check_tensor(self, name: str, found: Tensor) -> Iterator[str]:
        """The problems of the tensor ``name`` of OUT and of the records of its linears."""
        checked, info = self._findings.checked, self._new.tensors.get(name)
        if info is None:
            yield f"{name} is in OUT and not in NEW."
            return
        if (info.dtype, info.shape) != (found.dtype, tuple(found.shape)):
            yield (
                f"{name} is {list(found.shape)} of {found.dtype} in OUT, and {list(info.shape)} of {info.dtype} in NEW."
            )
            return
        new, pairs, from_old = self._new.read(name), self._pairs.get(name, []), self._plan.only.from_old
        if name in from_old:
            checked["tensors from OLD"] += 1
            cast = self._old.read(from_old[name]).to(new.dtype)
            yield from told(name, self._values.differing(found, cast), "are not OLD's")
        elif not any(self._is_made(pair) for pair in pairs) and not (pairs and self._values.by_linear):
            checked["tensors from NEW"] += 1
            yield from told(name, self._values.differing(found, new), "are not NEW's")
        old = self._old.read(pairs[0].old.key) if pairs else new
        for pair in pairs:
            yield from self._check_linear(pair, pair.before(old), pair.new.matrix(new), pair.new.matrix(found))

    def tell_open(self) -> None:
        """Note, after all tensors, what relies on the report."""
        say, rule = self._findings.unchecked, self._config.rule
        adapted, changed = self._outcomes["adapted"], sum(self._outcomes.values()) - self._outcomes["unchanged"]
        files = " and ".join(f"--{purpose}-calib" for purpose in self._config.sets)
        if adapted and rule.of_samples:
            what = f"which {'columns' if rule.by_columns else 'values'} were restored"
            say.append(
                f"In {counted(adapted, 'linear')} {what} relies on the report ({', '.join(rule.of_samples)}): "
                f"give {files}."
            )
        if self._open:
            say.append(f"{counted(self._open, 'value of these linears', 'depend')} on the samples: give {files}.")
            self._findings.checked["values that only samples can recompute"] = self._open
        told_of: tuple[tuple[Outcome, str], ...] = (
            ("uncalibrated", f"that no sample reaches them relies on the report: give {files}"),
            ("excluded", "as the options of the report want it"),
            ("old", "as the options of the report want it"),
        )
        for outcome, why in told_of:
            if count := self._outcomes[outcome]:
                from_old = outcome == "old" or (outcome == "uncalibrated" and self._config.uncalibrated == "old")
                source = "OLD" if from_old else "NEW"
                say.append(f"{count} of {changed} changed linears came from {source} ({outcome}): {why}.")
        if self._depths:
            say.append(f"The depth of {shortened(self._depths)} relies on the report.")
        if self._rounded:
            say.append(
                f"{counted(self._rounded, 'value', 'differ')} from the CPU's "
                f"by one unit in the last place; the report says that "
                "another device computed them, which may round differently."
            )

    def _is_made(self, pair: LinearPair) -> bool:
        """Whether the report says that a linear was adapted or taken from OLD."""
        record = self._records.get(pair.new.name)
        return record is not None and (
            record.outcome == "adapted" or (record.outcome == "uncalibrated" and self._config.uncalibrated == "old")
        )

    def _check_linear(self, pair: LinearPair, old: Tensor, new: Tensor, found: Tensor) -> Iterator[str]:
        """The problems of one weight, ``[r, c]``; OLD may have fewer rows."""
        record, name = self._records.get(pair.new.name), pair.new.name
        if record is None:  # reported already
            return
        changed = differ(old, new)
        outcome, why = self._outcome(pair, record, changed)
        self._outcomes[outcome] += 1
        if outcome != record.outcome:
            yield f"{name} is {record.outcome} in the report, and must be {outcome}: {why}."
        made = self._is_made(pair) and pair.new.key not in self._plan.only.from_old
        alone = self._values.by_linear or any(map(self._is_made, self._pairs[pair.new.key]))  # or a slice of a stack
        if alone and not made and pair.new.key not in self._plan.only.from_old:
            self._findings.checked["linears from NEW"] += 1
            kept = Compared(name, found, new, old, new, record.adapter_error)
            yield from self._values.compare(kept, "are not NEW's")
        if record.outcome == "adapted" and made and old.shape[1] == new.shape[1]:
            yield from self._check_adapted(pair, record, old, new, found)
            return
        of_old = old.shape[1] == new.shape[1] and (made or pair.new.key in self._plan.only.from_old)
        weight = with_new_rows(old.to(new.dtype), new) if of_old else new
        if made:
            self._findings.checked["linears from OLD"] += 1
            yield from told(name, self._values.differing(found, weight), "are not OLD's")
        if outcome != record.outcome:
            return
        details = {f"{p}_tokens": getattr(record, f"{p}_tokens") for p in self._config.sets}
        details = details if record.outcome == "uncalibrated" else {}
        moved = Moved(old, new).to(weight)
        expected = record_of(pair.new.unit, pair, new, record.outcome, **moved, **details)
        yield from compare_records(record, expected, free=self._values.free, slacks=slacks_of(old))

    def _outcome(self, pair: LinearPair, record: LinearRecord, changed: bool) -> tuple[Outcome, str]:
        """The outcome of a linear as far as it does not depend on samples, and the reason."""
        config = self._config
        if not changed:
            return "unchanged", "tuning did not change it"
        if pair.new.key in self._plan.only.from_old:
            return "old", "the options of the report take it from OLD"
        if not self._plan.only.includes(pair):
            return "excluded", "the options of the report leave it out"
        if record.outcome == "uncalibrated" and config.sets and config.uncalibrated != "error":
            return "uncalibrated", ""
        return "adapted", "tuning changed it, and the options of the report do not leave it out"

    def _check_adapted(
        self, pair: LinearPair, record: LinearRecord, old: Tensor, new: Tensor, found: Tensor
    ) -> Iterator[str]:
        """The problems of an adapted weight and of its record."""
        self._findings.checked["adapted linears"] += 1
        config, unit, rows = self._config, pair.new.unit, len(old)
        if (record.rows, record.columns) != tuple(new.shape):
            yield (
                f"{record.name} is {[record.rows, record.columns]} in the report and {list(new.shape)} in NEW, as "
                "[outputs, inputs]."
            )
            return
        if config.rule.by_columns and (record.restored is None or record.kappa is None):
            yield f"{record.name} is adapted, and the report lacks its columns or κ."
            return
        yield from told(
            record.name, differing(found[rows:], new[rows:]), "in rows that OLD does not have are not NEW's"
        )
        depth = self._depth(pair, record)
        update = measure_update(old, new[:rows])
        weight = Weight(record.name, old, new[:rows], update, depth, unit.blocks)
        redone = config.rule.check(weight, config, said_of(record), found[:rows])
        yield from redone.problems
        self._open += redone.open
        yield from self._compare(record, found[:rows], redone, old, new[:rows])
        adapted = replace(redone.adapted, weight=with_new_rows(redone.adapted.weight, new))
        counts = {purpose: getattr(record, f"{purpose}_tokens") for purpose in config.sets}
        pooled = pooled_field(pair.new, counts, config.min_expert_tokens)
        if any(not counts[purpose] and purpose not in pooled.get("pooled", "") for purpose in counts):
            yield f"{record.name} is adapted in the report, though no token reached it."
        tokens = {f"{purpose}_tokens": count for purpose, count in counts.items()}
        details = {"block": depth, "blocks": unit.blocks, **tokens, **pooled}
        expected = record_of_adapted(unit, pair, adapted, Moved(old, new), **details)
        slacks = slacks_of(old) | {"kappa": slack(old, update)}
        if redone.open and self._values.by_linear:  # what samples decide has the adapter's rounding
            slacks |= dict.fromkeys(("distance", "energy_restored"), NEAR)
        free = (*config.rule.of_samples, *self._values.free)
        yield from compare_records(record, expected, free=free, slacks=slacks)

    def _compare(self, record: LinearRecord, found: Tensor, redone: Redone, old: Tensor, new: Tensor) -> Iterator[str]:
        """The values of an adapted weight, ``[r, c]``, that are not those of the report's figures."""
        if self._values.by_linear:
            compared = Compared(record.name, found, redone.adapted.weight, old, new, record.adapter_error)
            yield from self._values.compare(compared, "are not the rule's")
            return
        wrong = differing(found, redone.adapted.weight)
        near = wrong & neighbours(found, redone.adapted.weight)
        for where, rounds, what in redone.compared:
            if rounds and not self._exact:
                self._rounded += int((near & where).sum())
                where = where & ~near
            yield from told(record.name, wrong & where, what)

    def _depth(self, pair: LinearPair, record: LinearRecord) -> int:
        """The depth of a linear; outside the stacks the report's, if it is before or after the text stack."""
        unit = pair.new.unit
        if unit.block is not None:
            return unit.block
        likely = unit.blocks if unit.index > self._text_ends else 0
        if record.block in (0, unit.blocks) and record.block != likely:
            self._depths.append(record.name)
            return record.block
        return likely

"""``hpa-merge verify``: whether a published folder is still what its merge wrote, and whether that merge is right.

Nothing is run: the report says which columns were put back and what ``κ`` was, and both follow the weights.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.files import digest
from hpa_merge.checkpoint.shard import unreadable
from hpa_merge.config import HPAConfig
from hpa_merge.core import all_finite
from hpa_merge.errors import CheckpointError, ConfigError
from hpa_merge.plan import LinearPair, make_plan
from hpa_merge.recompute import Recomputation, bits, told
from hpa_merge.report.schema import MergeReport, read_report
from hpa_merge.tower import with_tower

MODEL_CARD = Path("README.md")
"""Written by the merge and edited by people: the one file beside the weights that does not have to be NEW's."""


@final
@dataclass(frozen=True)
class VerifyReport:
    """What was checked of a merged folder.

    Attributes:
        problems: what is wrong, a sentence each; empty where everything is as it has to be.
        checked: how many of each kind of thing were looked at, wrong or not.
    """

    problems: tuple[str, ...]
    checked: dict[str, int]


def verify(
    out: str | Path,
    old: str | Path | None = None,
    new: str | Path | None = None,
    *,
    vision_tower: str | Path | None = None,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> VerifyReport:
    """Check a folder that :func:`hpa_merge.merge` has published.

    By itself: index and headers are consistent, every weight file and the index have the digest that the report
    gives, and no floating tensor holds NaN or infinity. With OLD and NEW also, bit for bit: layout, side files and
    every tensor that the report does not call adapted are NEW's; the kept columns of every adapted linear are OLD's in
    NEW's dtype, and its other values those that ``core.fuse`` gives with the report's kept columns and ``κ``.

    Of the other methods: interpolated weights are recomputed, blocks are compared with OLD. Of ``safe-delta`` NEW's
    values are compared; of ``model-tailor``, whose patch the report does not hold, as many values have to be OLD's as
    it says. What either compensated takes the samples and is counted as not recomputed.

    Those other values are recomputed here on the CPU. A merge on another device may have rounded otherwise: there they
    may be the neighbouring number of their dtype (one ulp). CPUs agree with one another but for those that have no
    fused multiply-add.

    Args:
        out: the folder.
        old, new: what it was merged from; both or neither.
        vision_tower: as for :func:`hpa_merge.merge`.
        on_progress: called before each file and each tensor, and at the end.

    Raises:
        CheckpointError: a folder is no whole checkpoint, ``out`` has no readable report, or OLD and NEW do not fit.
        ConfigError: only one of ``old`` and ``new`` is given.
    """
    if (old is None) != (new is None):
        raise ConfigError(f"{'OLD' if old is None else 'NEW'} is missing: give both --old and --new, or neither.")
    problems: list[str] = []
    checked: Counter[str] = Counter()
    with ExitStack() as stack:
        merged = stack.enter_context(Checkpoint.open(out, "OUT"))
        report = read_report(merged.folder)
        inputs = None
        if old is not None and new is not None:
            in_old = stack.enter_context(Checkpoint.open(old, "OLD"))
            in_new = stack.enter_context(Checkpoint.open(new, "NEW"))
            inputs = _Inputs(in_old, in_new, None if vision_tower is None else Path(vision_tower), report, checked)
        files = _weight_files(merged)
        steps = len(files) + len(merged.tensors)

        for done, name in enumerate(files):
            on_progress(name, done, steps)
            problems += _check_digest(merged, name, report.manifest)
        problems += [
            f"{name} is in the report's manifest and not in OUT." for name in sorted(report.manifest.keys() - files)
        ]
        if inputs is not None:
            problems += inputs.check_folder(merged)
        for done, name in enumerate(merged.tensors, start=len(files)):
            on_progress(name, done, steps)
            tensor = merged.read(name)
            if tensor.is_floating_point() and not all_finite(tensor):
                problems.append(f"{name} holds NaN or infinity.")
            if inputs is not None:
                problems += inputs.check_tensor(name, tensor)
        on_progress("done", steps, steps)
    counts = {"weight files": len(files), "tensors": len(merged.tensors), **checked}
    return VerifyReport(tuple(problems), counts)


@final
class _Inputs:
    """OLD, NEW, and what the report says was made from them."""

    def __init__(
        self, old: Checkpoint, new: Checkpoint, tower: Path | None, report: MergeReport, checked: Counter[str]
    ) -> None:
        """Match OLD and NEW as the merge did; ``checked`` counts what is looked at.

        Raises:
            CheckpointError: they do not fit each other.
            ConfigError: the report's options are none.
        """
        config = HPAConfig.from_mapping(report.config, source="the report")
        sources = [with_tower(checkpoint, tower, config) for checkpoint in (old, new)]
        plan = make_plan(sources[0], sources[1], [config], torch.device("cpu"))
        self._old, self._new = sources[0], new
        pairs = [pair for pairs in plan.linears.values() for pair in pairs]
        self._names = {pair.new.name for pair in pairs}
        self._pairs: dict[str, list[LinearPair]] = defaultdict(list)
        for pair in pairs:
            self._pairs[pair.new.key].append(pair)
        self._architecture = plan.architecture
        self._report = report
        self._records = {record.name: record for record in report.linears}
        self._from_old = config.uncalibrated == "old"
        self._to_be_old = plan.from_old[0]
        self._config = config
        self._exact = report.run.device == "cpu"
        self._checked = checked

    def check_folder(self, merged: Checkpoint) -> Iterator[str]:
        """What is wrong with the report, the layout and the side files."""
        if self._report.architecture != self._architecture:
            yield f"The report is of a {self._report.architecture}, and NEW is a {self._architecture}."
        for name in sorted(self._names - self._records.keys()):
            yield f"{name} is a linear of NEW, and the report does not name it."
        for name in sorted(self._records.keys() - self._names):
            yield f"{name} is in the report, and no linear of NEW."

        expected, found = _weight_files(self._new), _weight_files(merged)
        if found != expected:
            yield f"OUT's weights lie in {', '.join(found)}, and NEW's in {', '.join(expected)}."
        for shard in merged.shards:
            if shard in self._new.shards and merged.header_bytes(shard) != self._new.header_bytes(shard):
                yield f"{shard} has not the header that it has in NEW."
        for name in sorted(self._new.tensors.keys() - merged.tensors.keys()):
            yield f"{name} is in NEW and not in OUT."

        ours, theirs = merged.side_files(), self._new.side_files().copied
        own = {MODEL_CARD}
        for path in [*theirs, *([Path(self._new.index)] if self._new.index and merged.index else [])]:
            if path in own:
                continue
            self._checked["side files"] += 1
            if not (merged.folder / path).is_file():
                yield f"{path} is in NEW and not in OUT."
            elif _digest(merged, path) != _digest(self._new, path):
                yield f"{path} is not NEW's, byte for byte."
        for path in sorted({*ours.copied, *ours.left_out}.difference(theirs, own)):
            yield f"{path} is in OUT and does not come from NEW."

    def check_tensor(self, name: str, found: Tensor) -> Iterator[str]:
        """What is wrong with the tensor ``name`` of OUT."""
        info = self._new.tensors.get(name)
        if info is None:
            yield f"{name} is in OUT and not in NEW."
            return
        if (info.dtype, info.shape) != (found.dtype, tuple(found.shape)):
            yield (
                f"{name} is {list(found.shape)} of {found.dtype} in OUT, and {list(info.shape)} of {info.dtype} in NEW."
            )
            return
        new, pairs = self._new.read(name), self._pairs.get(name, [])
        if name in self._to_be_old:
            self._checked["tensors from OLD"] += 1
            old = self._old.read(self._to_be_old[name]).to(new.dtype)
            yield from told(name, bits(found) != bits(old), "are not OLD's")
            return
        if not any(self._is_made(pair) for pair in pairs):
            self._checked["tensors from NEW"] += 1
            yield from told(name, bits(found) != bits(new), "are not NEW's")
            return
        old = self._old.read(pairs[0].old.key)
        for pair in pairs:
            yield from self._check_linear(pair, pair.old.matrix(old), pair.new.matrix(new), pair.new.matrix(found))

    def _is_made(self, pair: LinearPair) -> bool:
        """Whether the report says that a linear is not NEW's as it is."""
        record = self._records.get(pair.new.name)
        return record is not None and (
            record.outcome == "adapted" or (record.outcome == "uncalibrated" and self._from_old)
        )

    def _check_linear(self, pair: LinearPair, old: Tensor, new: Tensor, found: Tensor) -> Iterator[str]:
        """What is wrong with one weight, ``[r, c]`` in all three but for the rows that OLD has not."""
        name = pair.new.name
        if not self._is_made(pair):
            self._checked["linears from NEW"] += 1
            yield from told(name, bits(found) != bits(new), "are not NEW's")
            return
        record = self._records[name]
        rows = record.rows if record.shared_rows is None else record.shared_rows
        if (old.shape, new.shape) != ((rows, record.columns), (record.rows, record.columns)):
            yield (
                f"{name} is {[record.rows, record.columns]} in the report, {list(old.shape)} in OLD and "
                f"{list(new.shape)} in NEW, as [outputs, inputs]."
            )
            return
        yield from told(name, bits(found[rows:]) != bits(new[rows:]), "in rows that OLD has not are not NEW's")
        new, found = new[:rows], found[:rows]
        if record.outcome == "uncalibrated":
            self._checked["linears from OLD"] += 1
            yield from told(name, bits(found) != bits(old.to(new.dtype)), "are not OLD's")
        else:
            self._checked["adapted linears"] += 1
            yield from Recomputation(self._config, self._exact, self._checked).check(record, old, new, found)


def _weight_files(checkpoint: Checkpoint) -> list[str]:
    """Names of the shards, and of the index if there is one."""
    return [*checkpoint.shards, *([checkpoint.index] if checkpoint.index else [])]


def _check_digest(merged: Checkpoint, name: str, manifest: dict[str, str]) -> Iterator[str]:
    if name not in manifest:
        yield f"{name} is in OUT and not in the report's manifest."
    elif (found := _digest(merged, Path(name))) != manifest[name]:
        yield f"{name} is not the file that the merge wrote: SHA-256 {manifest[name]} expected, {found} found."


def _digest(checkpoint: Checkpoint, path: Path) -> str:
    try:
        return digest(checkpoint.folder / path)
    except OSError as error:
        raise CheckpointError(unreadable(checkpoint.folder, checkpoint.role, str(path), error)) from error

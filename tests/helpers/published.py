"""An OUT that is verified: a merge of a tiny pair, what forges its report, and what damages its files."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cases import CARD, REPORT, TinyCase

from hpa_merge import HPAConfig, VerifyReport, merge, verify
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.report.manifest import Listing
from hpa_merge.report.records import LinearRecord
from hpa_merge.report.schema import MergeReport, read_report

INDEX = "model.safetensors.index.json"
LINEAR = "model.layers.1.mlp.up_proj.weight"
"""An adapted linear of the tiny Llama."""


def run(case: TinyCase, out: Path, **options: Any) -> MergeReport:
    """Merge, without a page."""
    config = HPAConfig(**options)
    return merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, config=config, page=False)


def seal(out: Path, **changes: Any) -> MergeReport:
    """Give the report the digests of the folder as it is, so that damage has to be found by its content."""
    names = Listing.of(out).files - {REPORT, CARD}
    manifest = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in sorted(names)}
    report = dataclasses.replace(read_report(out), manifest=manifest, **changes)
    with Checkpoint.open(out, "OUT") as checkpoint:
        contents = report.run.contents | {"out": checkpoint.content_digest()}
    report = dataclasses.replace(report, run=dataclasses.replace(report.run, contents=contents))
    (out / REPORT).write_text(report.to_json(), encoding="utf-8")
    return report


def forge(out: Path, change: Callable[[LinearRecord], LinearRecord], **changes: Any) -> MergeReport:
    """Let the report say something else of its linears, with everything that follows from them as it then has to be."""
    report = read_report(out)
    linears = tuple(change(record) for record in report.linears)
    return seal(out, linears=linears, **changes)


class Published(NamedTuple):
    """An OUT and what it was made of."""

    case: TinyCase
    out: Path
    report: MergeReport

    def alone(self) -> list[str]:
        """What is wrong with the folder."""
        return list(verify(self.out).problems)

    def full(self) -> VerifyReport:
        """What OLD and NEW say of it."""
        return verify(self.out, self.case.old, self.case.new)

    def with_inputs(self) -> list[str]:
        """What is wrong with it by OLD and NEW."""
        return list(self.full().problems)

    def again(self) -> VerifyReport:
        """What the merge that is run again says of it."""
        case = self.case
        return verify(self.out, case.old, case.new, safety_calib=case.safety, task_calib=case.task)

    def overwrite(self, name: str, row: int, column: int, change: Callable[[int], int]) -> str:
        """Change the bits of one bfloat16 number of a tensor, as ``[r, c]``; returns the shard's name."""
        with Checkpoint.open(self.out, "OUT") as checkpoint:
            info = checkpoint.tensors[name]
        if self.case.name == "gpt2" and "mlp" in name:
            row, column = column, row
        offset = info.start + 2 * (row * info.shape[-1] + column)
        content = bytearray((self.out / info.shard).read_bytes())
        content[offset : offset + 2] = change(int.from_bytes(content[offset : offset + 2], "little")).to_bytes(
            2, "little"
        )
        (self.out / info.shard).write_bytes(content)
        return info.shard

"""What a verification has opened and read of OUT, and what it was given to compare it with."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.report.manifest import Listing
from hpa_merge.report.schema import MergeReport

__all__ = ["Inputs", "Opened"]


@final
@dataclass(frozen=True)
class Opened:
    """OUT, whose files have been read.

    Attributes:
        merged: its weights.
        report: its report.
        found: its files.
        not_finite: the tensors that hold NaN or infinity.
    """

    merged: Checkpoint
    report: MergeReport
    found: Listing
    not_finite: frozenset[str]


@final
@dataclass(frozen=True)
class Inputs:
    """The inputs of the merge, as :func:`hpa_merge.verify` gets them."""

    old: str | Path
    new: str | Path
    vision_tower: str | Path | None
    trust_remote_code: bool

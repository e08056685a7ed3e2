"""What a merge would do: the report of ``--dry-run``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from hpa_merge.report.records import CalibrationRecord, CodeRecord, ComponentRecord


@final
@dataclass(frozen=True)
class UnitPlan:
    """One unit that holds linears.

    Attributes:
        block, blocks: depth ``l`` of ``L``; outside the stacks ``l`` is None, because it depends on when the unit runs.
        share: the share to restore, in percent; None outside the stacks.
        changed, unchanged: linears that the options include, by whether tuning changed them.
        excluded: linears that the options take from NEW or OLD as they are.
    """

    name: str
    stack: str
    block: int | None
    blocks: int
    share: float | None
    changed: int
    unchanged: int
    excluded: int


@final
@dataclass(frozen=True)
class ShownPiece:
    """A stretch of a sample's tokens.

    Attributes:
        kind: ``text``, ``answer``, the kind of a medium, ``ids``, or ``cut`` where the prompt lost of its text.
        text: as the tokenizer decodes it, with special tokens; of a medium its name and its size; of a cut how much.
        tokens: how many there are.
    """

    kind: str
    text: str
    tokens: int


@final
@dataclass(frozen=True)
class ShownSample:
    """A sample as the model gets it.

    Attributes:
        source: where it stands.
        pieces: its tokens, in order.
        cut: how many more it had.
    """

    source: str
    pieces: tuple[ShownPiece, ...]
    cut: int

    @property
    def tokens(self) -> int:
        """How many tokens the model gets."""
        return sum(piece.tokens for piece in self.pieces)


@final
@dataclass(frozen=True)
class ShownSet:
    """A calibration set as the model gets it.

    Attributes:
        purpose: ``safety`` or ``task``.
        shapes: how many samples have which shape.
        samples: the first ones.
    """

    purpose: str
    shapes: Mapping[str, int]
    samples: tuple[ShownSample, ...]


@final
@dataclass(frozen=True)
class PlanReport:
    """What a merge would do.

    Attributes:
        bytes_out, bytes_free: the size of OUT's weights, and the free space on their disk.
        bytes_in: the size of the weights of OLD and NEW.
        peak_host_bytes, peak_device_bytes: upper estimates, of each process; the latter is None on the CPU.
        processes: how many share the merge.
        reshaped: tensors with another shape in NEW than in OLD, a sentence each.
        notes: what the user should know of OLD and NEW, a sentence each.
        code: the code of the checkpoints, which is run.
        adapter: the kind of PEFT adapter on OLD that NEW is; empty for a checkpoint.
        dequantised, dtype, compute_dtype: as in :class:`RunRecord`.
        statistics: whether the statistics file fits, a sentence each; empty without one.
        history: the round of the model, or why its history starts again; empty in the first round.
        samples: the sets that the method uses, as the models get them.
        The rest is as in :class:`MergeReport`.
    """

    architecture: str
    units: tuple[UnitPlan, ...]
    safety: CalibrationRecord | None
    task: CalibrationRecord | None
    passed_through: dict[str, int]
    left_out: tuple[str, ...]
    bytes_out: int
    bytes_free: int
    peak_host_bytes: int
    peak_device_bytes: int | None
    reshaped: tuple[str, ...]
    device: str
    components: tuple[ComponentRecord, ...] = ()
    commits: dict[str, str] = field(default_factory=dict)
    code: tuple[CodeRecord, ...] = ()
    adapter: str = ""
    dequantised: dict[str, str] = field(default_factory=dict)
    dtype: str = ""
    compute_dtype: dict[str, str] = field(default_factory=dict)
    statistics: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    samples: tuple[ShownSet, ...] = ()
    notes: tuple[str, ...] = ()
    bytes_in: int = 0
    processes: int = 1

"""What a report consists of: a record for each linear weight, part of the model, calibration set, run and round.

Imports no torch: a report is read without it.
"""

import base64
import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, final

from hpa_merge.methods import method_of
from hpa_merge.report.walking import mapped

Outcome = Literal["adapted", "unchanged", "excluded", "old", "uncalibrated"]


def make_writable(record: Any) -> None:
    """Replace what UTF-8 cannot hold: Python keeps bytes of a path in another encoding as surrogates."""

    def writable(value: Any) -> Any:
        return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value

    for item in dataclasses.fields(record):
        object.__setattr__(record, item.name, mapped(getattr(record, item.name), writable))


@final
@dataclass(frozen=True)
class LinearRecord:
    """One linear weight; what was not computed for it is None here and absent from the file.

    Attributes:
        name: its name in NEW and OUT.
        outcome: ``adapted``, or why not: it did not change, the options exclude it or want it as it is in OLD, no token
            reached it in both sets.
        unit: path of the module that it was loaded with.
        stack: path of the stack of blocks that the unit is in; empty outside.
        rows, columns: ``r`` and ``c``.
        block, blocks: depth ``l`` of ``L``.
        share: the retained share ``p`` of that depth, in percent.
        n_restored, n_focus, n_shared: column budgets, and ``|S ∩ T|``.
        restored: the restored columns, as a base64 bit mask: column ``j`` is bit ``j mod 8`` (the lowest first) of byte
            ``j // 8``; :func:`unpack_columns` reads it.
        alpha, kappa: ``α`` and ``κ``.
        relative_update: ``‖ΔW‖_F / ‖W_old‖_F``; None where ``W_old`` is zero.
        energy_restored: the share of ``‖ΔW‖²_F`` that lies in what is restored.
        restored_share: the share of its values that is OLD's, compensated or not, for rules that choose single values.
        new_columns: the columns that are wholly NEW's, as ``restored``; of Safe Delta, as the next ones.
        split_column, split_rows: the column of which only the first rows are NEW's, and how many.
        safety_cost, safety_budget: ``Σ δL_m`` of what is NEW's, and ``ε``.
        safety_tokens, task_tokens: tokens that reached it.
        saliency: how the columns lie by ``ε̄`` and ``ζ̄``; None where the method has no such scores. Four numbers for
            each cell of the plane that is not empty, ``i,j,columns,restored`` with a space between cells: it holds the
            columns with ``⌊4 log10 ε̄⌋ = i`` and ``⌊4 log10 ζ̄⌋ = j``, of which so many are restored. Columns that
            tuning did not change have no place there.
        shared_rows: of a head whose vocabulary grew the rows that OLD has too; the others are NEW's.
        distance: ``‖W_out − W_old‖_F``, of the weight as it was written, whatever became of it; over the rows that both
            have. None where it has other columns than in OLD.
        old_norm: ``‖W_old‖_F`` over the same rows.
    """

    name: str
    outcome: Outcome
    unit: str
    stack: str
    rows: int
    columns: int
    block: int | None = None
    blocks: int | None = None
    share: float | None = None
    n_restored: int | None = None
    n_focus: int | None = None
    n_shared: int | None = None
    restored: str | None = None
    alpha: float | None = None
    kappa: float | None = None
    relative_update: float | None = None
    energy_restored: float | None = None
    safety_tokens: int = 0
    task_tokens: int = 0
    shared_rows: int | None = None
    restored_share: float | None = None
    new_columns: str | None = None
    split_column: int | None = None
    split_rows: int | None = None
    safety_cost: float | None = None
    safety_budget: float | None = None
    saliency: str | None = None
    distance: float | None = None
    old_norm: float | None = None

    @property
    def drift(self) -> float | None:
        """``‖W_out − W_old‖_F / ‖W_old‖_F``; None where it is not known, or ``W_old`` is zero."""
        return self.distance / self.old_norm if self.distance is not None and self.old_norm else None

    @property
    def share_of_old(self) -> float | None:
        """The share of its values that is OLD's; None where none is as it was."""
        if self.restored_share is not None:
            return self.restored_share
        return None if self.restored is None else count_columns(self.restored) / self.columns if self.columns else 0.0

    @property
    def overlap(self) -> float | None:
        """``|S ∩ T| / |S|``, the share of safety's focus set that is the task's too; None where that set is empty."""
        return self.n_shared / self.n_focus if self.n_focus and self.n_shared is not None else None

    @property
    def restored_columns(self) -> list[int]:
        """The restored columns, ascending."""
        return [] if self.restored is None else unpack_columns(self.restored, self.columns)


@final
@dataclass(frozen=True)
class ComponentRecord:
    """A part of the model: ``vision``, ``projector``, ``language``, ``head`` or ``embeddings``.

    Attributes:
        policy: ``merge``, ``new`` or ``old``.
        tensors: how many of NEW's tensors belong to it.
        linears: how many of them are linears, by outcome; before a merge ``changed``, ``unchanged`` and ``excluded``,
            or ``old``.
    """

    name: str
    policy: str
    tensors: int
    linears: dict[str, int]


@final
@dataclass(frozen=True)
class CalibrationRecord:
    """What was used of one calibration set."""

    file: str
    samples: int
    tokens: int
    images: int

    def __post_init__(self) -> None:
        make_writable(self)


@final
@dataclass(frozen=True)
class RunRecord:
    """What differs from run to run. Bytes and seconds; device memory is None on the CPU.

    Attributes:
        statistics: of each half, ``safety`` and ``task``, whether it was ``computed`` or ``read``; and the ``file``.
        notes: why a half that the file holds was not read, and what was not as usual otherwise, a sentence each.
        adapter: what kind of PEFT adapter on OLD NEW is; empty where it is a checkpoint.
        commits: of OLD, NEW and FIRST those that are from the Hub, by their names; the hash of the commit.
        fingerprint: SHA-256 of everything that OUT depends on; two runs of the same inputs, options, versions and kind
            of machine have the same.
        command: the command line as it was typed; empty for a call from Python.
        finished: when, in UTC, as ISO 8601 has it.
        contents: content digests of ``old``, ``new`` and ``out``, in hexadecimal: what a checkpoint is known by
            wherever it lies, see :mod:`hpa_merge.checkpoint.content`; of an adapter its own. Empty in reports that were
            made before there were such.
        machine: the processor, its instructions as torch uses them, the threads, and the CUDA device; empty in reports
            that were made before it was noted.
        drawn_with: versions of what drew the page and the pictures, and the ``schema_version`` of the
            report that they show; empty where nothing was drawn, or not by one.
    """

    old: str
    new: str
    device: str
    seconds: float
    peak_host_bytes: int
    peak_device_bytes: int | None
    versions: dict[str, str]
    statistics: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    adapter: str = ""
    fingerprint: str = ""
    commits: dict[str, str] = field(default_factory=dict)
    command: str = ""
    finished: str = ""
    contents: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    drawn_with: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        make_writable(self)


@final
@dataclass(frozen=True)
class DriftRecord:
    """How far the linear weights moved, all of them taken as one vector; shares of 1, not percent.

    Attributes:
        distance: ``‖OUT − OLD‖_F``.
        norm: ``‖OLD‖_F``.
        linears: how many weights were compared.
        from_first: ``‖OUT − FIRST‖_F / ‖FIRST‖_F``, of the first aligned model of the history; None where its weights
            were not at hand. In the first round OLD is that model.
        from_first_at_most: an upper bound of ``from_first`` by the triangle inequality: what is known of the round
            before, and this round's distance; None where the weights of the first model are zero.
    """

    distance: float
    norm: float
    linears: int
    from_first: float | None = None
    from_first_at_most: float | None = None

    @property
    def relative(self) -> float | None:
        """``‖OUT − OLD‖_F / ‖OLD‖_F``; None where OLD's weights are zero."""
        return self.distance / self.norm if self.norm else None


@final
@dataclass(frozen=True)
class RoundRecord:
    """One merge of a chain, as the reports of the rounds after it remember it.

    Attributes:
        old, new: what was merged, as it was named then.
        finished: when, in UTC, as ISO 8601 has it.
        config: the options.
        safety, task: the calibration sets; None where the method looked at none.
        adapted: how many linears were adapted.
        restored_share: the share of those linears' values that is OLD's; None where the method has no such thing.
        energy_restored: the mean over those linears, as a share; None likewise.
        evaluation: what was measured of that round's OUT; None where nothing was.
        architecture: class name of the model.
        adapter: what kind of PEFT adapter NEW was; empty where it was a checkpoint.
        commits, contents, versions: as the round's :class:`RunRecord` has them.
        drift: as the round's report has it.
    """

    old: str
    new: str
    finished: str
    config: dict[str, Any]
    safety: CalibrationRecord | None
    task: CalibrationRecord | None
    adapted: int
    restored_share: float | None = None
    energy_restored: float | None = None
    evaluation: dict[str, Any] | None = None
    architecture: str = ""
    adapter: str = ""
    commits: dict[str, str] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    drift: DriftRecord | None = None

    @property
    def method(self) -> str:
        """The name of the rule."""
        return method_of(self.config)


def unpack_columns(packed: str, columns: int) -> list[int]:
    """The columns whose bit is set, ascending: the inverse of :func:`~hpa_merge.report.packing.pack_columns`."""
    content = base64.b64decode(packed)
    return [j for j in range(columns) if content[j // 8] >> (j % 8) & 1]


def count_columns(packed: str) -> int:
    """How many columns :func:`unpack_columns` would give."""
    return int.from_bytes(base64.b64decode(packed), "little").bit_count()

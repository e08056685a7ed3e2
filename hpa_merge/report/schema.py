"""``hpa_report.json``: everything that a merge decided, tensor by tensor.

But for ``run`` (time, memory, versions, places) the report is a function of the inputs and the options: two merges of
the same files on the same kind of device differ in nothing else, so that a pipeline can compare it.
"""

import base64
import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, final, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from hpa_merge.checkpoint.reader import REPORT
from hpa_merge.errors import CheckpointError

SCHEMA_VERSION = 1

Outcome = Literal["adapted", "unchanged", "excluded", "old", "uncalibrated"]


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
        n_keep, n_focus, n_shared: column budgets, and ``|S ∩ T|``.
        kept: the columns put back, as a base64 bit mask: column ``j`` is bit ``j mod 8`` (the lowest first) of byte
            ``j // 8``; :func:`unpack_columns` reads it.
        alpha, kappa: ``α`` and ``κ``.
        relative_update: ``‖ΔW‖_F / ‖W_old‖_F``; None where ``W_old`` is zero.
        energy_put_back: the share of ``‖ΔW‖²_F`` that lies in what is put back.
        kept_share: the share of its values that is OLD's, compensated or not, where that is no matter of columns.
        new_columns: the columns that are wholly NEW's, as ``kept``; of Safe Delta, as the next ones.
        split_column, split_rows: the column of which only the first rows are NEW's, and how many.
        safety_cost, safety_budget: ``Σ δL_m`` of what is NEW's, and ``ε``.
        safety_tokens, task_tokens: tokens that reached it.
        shared_rows: of a head whose vocabulary grew the rows that OLD has too; the others are NEW's.
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
    n_keep: int | None = None
    n_focus: int | None = None
    n_shared: int | None = None
    kept: str | None = None
    alpha: float | None = None
    kappa: float | None = None
    relative_update: float | None = None
    energy_put_back: float | None = None
    safety_tokens: int = 0
    task_tokens: int = 0
    shared_rows: int | None = None
    kept_share: float | None = None
    new_columns: str | None = None
    split_column: int | None = None
    split_rows: int | None = None
    safety_cost: float | None = None
    safety_budget: float | None = None

    @property
    def share_put_back(self) -> float | None:
        """The share of its values that is OLD's; None where none is as it was."""
        if self.kept_share is not None:
            return self.kept_share
        return None if self.kept is None else len(self.kept_columns) / self.columns if self.columns else 0.0

    @property
    def kept_columns(self) -> list[int]:
        """The columns put back, ascending."""
        return [] if self.kept is None else unpack_columns(self.kept, self.columns)


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


@final
@dataclass(frozen=True)
class RunRecord:
    """What differs from run to run. Bytes and seconds; device memory is None on the CPU.

    Attributes:
        statistics: of each half, ``safety`` and ``task``, whether it was ``computed`` or ``read``; and the ``file``.
        notes: why a half that the file holds was not read, and what was not as usual otherwise, a sentence each.
        commits: of OLD and NEW those that are from the Hub, by their names; the hash of the commit.
        fingerprint: SHA-256 of everything that OUT depends on; two runs of the same inputs, options, versions and kind
            of machine have the same.
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
    fingerprint: str = ""
    commits: dict[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class MergeReport:
    """A merge, whole.

    Attributes:
        architecture: class name of the model.
        config: the options, as :class:`hpa_merge.config.HPAConfig` has them.
        safety, task: the calibration sets; None where the method looks at none.
        linears: every linear weight, in the order in which they were merged.
        components: the parts that the model has.
        passed_through: tensors that are no adaptable linear and came from NEW byte for byte, by kind.
        left_out: files of NEW that were not carried over (other weight formats, pickles).
        manifest: SHA-256 of every weight file of OUT and of its index, in hexadecimal, by file name.
        run: what differs from run to run.
    """

    architecture: str
    config: dict[str, Any]
    safety: CalibrationRecord | None
    task: CalibrationRecord | None
    linears: tuple[LinearRecord, ...]
    components: tuple[ComponentRecord, ...] = field(default=(), kw_only=True)
    passed_through: dict[str, int]
    left_out: tuple[str, ...]
    manifest: dict[str, str]
    run: RunRecord

    def count(self, outcome: Outcome) -> int:
        """How many linears had this outcome."""
        return Counter(record.outcome for record in self.linears)[outcome]

    @property
    def warnings(self) -> list[str]:
        """What the user should know, a sentence each."""
        sentences = []
        uncalibrated = [record.name for record in self.linears if record.outcome == "uncalibrated"]
        if uncalibrated:
            source = self.config["uncalibrated"].upper()
            sentences.append(
                f"{len(uncalibrated)} of the changed linears came from {source}, for no token of the safety set or of "
                f"the task set was seen to reach them: {_shortened(uncalibrated)}."
            )
        if experts := self.passed_through.get("expert"):
            sentences.append(f"{experts} expert weights came from NEW: how {self.architecture} uses them is not known.")
        if not self.count("adapted"):
            sentences.append("No linear was adapted: OUT's weights are NEW's.")
        if self.left_out:
            sentences.append(f"Not carried over from NEW: {_shortened(self.left_out)}.")
        return [*sentences, *self.run.notes]

    def to_json(self) -> str:
        """The report as it is written: indented, a trailing newline."""
        content = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self), "warnings": self.warnings}
        content["linears"] = [{k: v for k, v in record.items() if v is not None} for record in content["linears"]]
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_report(folder: Path) -> MergeReport:
    """The report that lies in a merged folder; fields that this version does not know are passed over.

    Raises:
        CheckpointError: there is none, it cannot be read, or it is of another schema.
    """
    try:
        content = json.loads((folder / REPORT).read_bytes())
        if not isinstance(content, dict) or "schema_version" not in content:
            raise ValueError("it has no schema_version")
        version = content["schema_version"]
        if version == SCHEMA_VERSION:
            report: MergeReport = _typed(MergeReport, content, "the report")
            return report
    except FileNotFoundError:
        raise CheckpointError(f"OUT {folder} has no {REPORT}: give a folder that hpa-merge has made.") from None
    except OSError as error:
        raise CheckpointError(
            f"OUT {folder}: {REPORT} cannot be read ({error.strerror or error}): check its permissions."
        ) from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"OUT {folder}: {REPORT} is not a report of hpa-merge ({error}): fetch the folder again, or merge again."
        ) from error
    raise CheckpointError(
        f"OUT {folder}: {REPORT} has schema_version {version!r} and this version reads {SCHEMA_VERSION}: "
        "use the version of hpa-merge that made it."
    )


def _typed(kind: Any, value: Any, where: str) -> Any:
    """A value that was read from JSON as the type that a field of the report has.

    Raises:
        ValueError: it is of another type; says ``where``.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or (origin is Literal and value in arguments) or (origin is UnionType and value is None):
        return value
    if origin is UnionType:
        return _typed(arguments[0], value, where)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        known = {name: _typed(hints[name], item, name) for name, item in value.items() if name in hints}
        for item in dataclasses.fields(kind):
            if item.name not in known and item.default is item.default_factory is dataclasses.MISSING:
                raise ValueError(f"{where} has no {item.name}")
        return kind(**known)
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(arguments[0], item, f"an entry of {where}") for item in value)
    if origin is dict and isinstance(value, dict):
        return {name: _typed(arguments[1], item, f"{where}.{name}") for name, item in value.items()}
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise ValueError(f"{where} cannot be {json.dumps(value):.40}")
    return kind(value)


@final
@dataclass(frozen=True)
class UnitPlan:
    """One unit that holds linears.

    Attributes:
        block, blocks: depth ``l`` of ``L``; ``l`` is None outside the stacks, where it depends on when the unit runs.
        share: the retained share in percent; None outside the stacks.
        changed, unchanged: how many linears the options include, by whether tuning changed them.
        excluded: how many linears the options take from NEW or OLD as they are.
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
class PlanReport:
    """What a merge would do.

    Attributes:
        bytes_out, bytes_free: what OUT's weights take, and what is free where they would lie.
        peak_host_bytes, peak_device_bytes: an upper estimate; the latter is None on the CPU.
        reshaped: what has another shape in NEW than in OLD, a sentence each.
        statistics: whether the statistics file fits, a sentence each; empty without one.
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
    statistics: tuple[str, ...] = ()


def _shortened(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def pack_columns(mask: Tensor) -> str:
    """A bool mask ``[c]`` as base64 of its bits, the lowest first."""
    bits = torch.nn.functional.pad(mask.cpu().to(torch.uint8), (0, -len(mask) % 8)).reshape(-1, 8)
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)
    return base64.b64encode(bytes((bits * weights).sum(dim=1).tolist())).decode("ascii")


def unpack_columns(packed: str, columns: int) -> list[int]:
    """The columns whose bit is set, ascending: the inverse of :func:`pack_columns`."""
    content = base64.b64decode(packed)
    return [j for j in range(columns) if content[j // 8] >> (j % 8) & 1]

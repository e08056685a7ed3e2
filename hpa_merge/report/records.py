"""The records of a report: linear weights, parts of the model, calibration sets, run and rounds. Imports no torch."""

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
    """One linear weight; a value that was not computed is None here and absent from the file.

    Attributes:
        name: its name in NEW and OUT.
        outcome: ``adapted``, or why not: it did not change, the options take it from NEW or OLD, or no token of one of
            the sets reached it.
        unit: path of the module that it was loaded with.
        stack: path of the unit's stack of blocks; empty outside the stacks.
        rows, columns: ``r`` and ``c``.
        block, blocks: depth ``l`` of ``L``.
        share: the share ``p`` to restore at that depth, in percent.
        n_restored, n_focus, n_shared: column budgets, and ``|S ∩ T|``.
        restored: the restored columns, as a base64 bit mask: column ``j`` is bit ``j mod 8`` (the lowest first) of byte
            ``j // 8``; :func:`unpack_columns` reads it.
        alpha, kappa: ``α`` and ``κ``; of a ``κ`` for each row or column the mean, weighted by the squares of OLD's.
        relative_update: ``‖ΔW‖_F / ‖W_old‖_F``; None where ``W_old`` is zero.
        energy_restored: the share of ``‖ΔW‖²_F`` in what is not NEW's: restored, or compensated from OLD's.
        restored_share: the share of values that are OLD's as they are, for rules that choose single values.
        compensated_share: the share of values that compensation may have changed, so that they are neither model's.
        new_columns: the columns that are entirely NEW's, as ``restored``; this and the next four are Safe Delta's.
        split_column, split_rows: the column of which only the first rows are NEW's, and how many.
        safety_cost, safety_budget: ``Σ δL_m`` of what is NEW's, and ``ε``.
        safety_tokens, task_tokens: tokens that reached it.
        pooled: for an expert that too few tokens reached, the sets of which it got the curvature of all experts of its
            layer: ``safety``, ``task`` or ``safety task``.
        saliency: how the changed columns are distributed over ``ε̄`` and ``ζ̄``; None if the method has no such scores.
            Cells ``i,j,columns,restored``, separated by spaces: so many columns have ``⌊4 log10 ε̄⌋ = i`` and
            ``⌊4 log10 ζ̄⌋ = j``, and so many of them are restored.
        what_if: how much of the update other settings of the method would undo, next to this merge's own:
            :mod:`hpa_merge.report.what_if` describes the text.
        shared_rows: if the vocabulary grew, the rows of a head that OLD has too; the others are NEW's.
        distance: ``‖W_out − W_old‖_F`` of the written weight, adapted or not, over the rows that both have. None if the
            number of columns differs.
        old_norm: ``‖W_old‖_F`` over the same rows.
        adapter_error: in an OUT that is an adapter, ``‖U − ΔŴ‖_F / ‖ΔŴ‖_F`` of its update ``U`` and the rule's ``ΔŴ``,
            0 if no value was rounded. None in a whole checkpoint, or where the adapter changes nothing.
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
    pooled: str | None = None
    shared_rows: int | None = None
    restored_share: float | None = None
    compensated_share: float | None = None
    new_columns: str | None = None
    split_column: int | None = None
    split_rows: int | None = None
    safety_cost: float | None = None
    safety_budget: float | None = None
    saliency: str | None = None
    distance: float | None = None
    old_norm: float | None = None
    adapter_error: float | None = None
    what_if: str | None = None

    @property
    def drift(self) -> float | None:
        """``‖W_out − W_old‖_F / ‖W_old‖_F``; None if it is not known, or ``W_old`` is zero."""
        return self.distance / self.old_norm if self.distance is not None and self.old_norm else None

    @property
    def share_of_old(self) -> float | None:
        """The share of values that are OLD's; None if none was restored."""
        if self.restored_share is not None:
            return self.restored_share
        return None if self.restored is None else count_columns(self.restored) / self.columns if self.columns else 0.0

    @property
    def overlap(self) -> float | None:
        """``|S ∩ T| / |S|``, the share of the safety focus set that is in the task's too; None if it is empty."""
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
        tensors: the number of NEW's tensors in it.
        linears: the number of linears among them, by outcome; before a merge by ``changed``, ``unchanged`` and
            ``excluded``, or ``old``.
    """

    name: str
    policy: str
    tensors: int
    linears: dict[str, int]


@final
@dataclass(frozen=True)
class PartRecord:
    """What was used of one of several sources of a calibration set.

    Attributes:
        file: a file, a folder, or a data set on the Hub.
        samples, tokens: how many were used of it.
    """

    file: str
    samples: int
    tokens: int

    def __post_init__(self) -> None:
        make_writable(self)


@final
@dataclass(frozen=True)
class CalibrationRecord:
    """What was used of one calibration set; reports that were made before a count was kept have None in its place.

    Attributes:
        file: where it was read from: a file, a folder, or a data set on the Hub; several have `` + `` between them.
        samples, tokens: how many were used.
        images, videos, audios: how many stand in those samples.
        frames: how many of those videos were used, together.
        seconds: how long those sounds are, together.
        turns: of all their conversations together.
        answers: how many samples end with an answer.
        truncated: how many samples lost tokens of their prompt, or of a plain text.
        available: how many samples the file holds.
        dropped: how many of those drawn were not used, by the reason.
        passed_over: fields of the records that carry nothing for a model.
        template: which chat template wrote the conversations, in words.
        parts: what each of several sources gave; empty where there is one.
    """

    file: str
    samples: int
    tokens: int
    images: int
    videos: int = 0
    audios: int = 0
    frames: int = 0
    seconds: float = 0.0
    turns: int | None = None
    answers: int | None = None
    truncated: int | None = None
    available: int | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()
    template: str = ""
    parts: tuple[PartRecord, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Where it was read from, each as it was given."""
        return tuple(part.file for part in self.parts) or (self.file,)

    def __post_init__(self) -> None:
        make_writable(self)


@final
@dataclass(frozen=True)
class CodeRecord:
    """The code that a checkpoint brings and that was run, as far as it lies in one place.

    Attributes:
        role: the checkpoint: ``OLD``, ``NEW`` or ``FIRST``.
        repository: the repository on the Hub that has it, if the checkpoint names another one; else empty.
        commit: the commit of that repository, or of the checkpoint; empty for a folder.
        digest: SHA-256 of the content of the files, in hexadecimal.
        files: their paths.
        auto: transformers' classes that load the code, such as ``AutoModelForCausalLM``.
    """

    role: str
    repository: str
    commit: str
    digest: str
    files: tuple[str, ...]
    auto: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        make_writable(self)


@final
@dataclass(frozen=True)
class RunRecord:
    """What differs from run to run. Bytes and seconds; device memory is None on the CPU.

    Attributes:
        statistics: for each half, ``safety`` and ``task``, whether it was ``computed`` or ``read``; and the ``file``.
        notes: why a half in the file was not read, and what else was unusual, a sentence each.
        adapter: the kind of PEFT adapter on OLD that NEW is; empty for a checkpoint.
        dequantised: for ``old`` and ``new``, how many weights are stored in few bits, and how.
        dtype: the dtype in which NEW was read and OUT was written; empty if that is NEW's own.
        compute_dtype: for each set, the dtype that its samples run in; empty in old reports.
        commits: the commit hashes of OLD, NEW, FIRST and the data sets, by name, if they are from the Hub.
        fingerprint: SHA-256 of everything that OUT depends on: inputs, options, versions and kind of machine.
        command: the command line; empty for a call from Python.
        finished: the time in UTC, in ISO 8601.
        contents: content digests of ``old``, ``new`` and ``out``, in hexadecimal, which identify a checkpoint wherever
            it is stored, see :mod:`hpa_merge.checkpoint.content`; an adapter has its own. Empty in old reports.
        machine: the processor, its instructions as torch uses them, the threads, and the CUDA device; empty in old
            reports.
        code: the code of the checkpoints that was run; empty without --trust-remote-code.
        out: OUT as it was named; empty in old reports.
        given: what else the merge was given, by the option: image folders, a vision tower, the first model, a
            statistics file, limits of memory. Empty in old reports.
        drawn_with: versions of the libraries that drew the page and the pictures, and the ``schema_version`` of the
            report that they show; empty if nothing was drawn, or by several.
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
    dequantised: dict[str, str] = field(default_factory=dict)
    dtype: str = ""
    compute_dtype: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    commits: dict[str, str] = field(default_factory=dict)
    command: str = ""
    finished: str = ""
    contents: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    code: tuple[CodeRecord, ...] = ()
    drawn_with: dict[str, str] = field(default_factory=dict)
    out: str = ""
    given: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        make_writable(self)


@final
@dataclass(frozen=True)
class DriftRecord:
    """How far the linear weights moved, taken together as one vector; shares of 1, not percent.

    Attributes:
        distance: ``‖OUT − OLD‖_F``.
        norm: ``‖OLD‖_F``.
        linears: the number of compared weights.
        from_first: ``‖OUT − FIRST‖_F / ‖FIRST‖_F`` from the first aligned model of the history, which is OLD in the
            first round; None if its weights were not available.
        from_first_at_most: an upper bound of ``from_first`` by the triangle inequality, from the previous round and
            this round's distance; None if the weights of the first model are zero.
    """

    distance: float
    norm: float
    linears: int
    from_first: float | None = None
    from_first_at_most: float | None = None

    @property
    def relative(self) -> float | None:
        """``‖OUT − OLD‖_F / ‖OLD‖_F``; None if OLD's weights are zero."""
        return self.distance / self.norm if self.norm else None


@final
@dataclass(frozen=True)
class RoutingRecord:
    """How far NEW sends tokens to other experts than OLD in one mixture; each model chooses on its own hidden states.

    Attributes:
        name: path of the module that holds the router and the experts.
        experts: how many there are.
        safety_drift, task_drift: the share of OLD's choices, token by token, that NEW does not make, on the first
            samples of the set; None if nothing was compared.
        safety_choices, task_choices: how many choices were compared: the tokens, times the experts of a token.
    """

    name: str
    experts: int
    safety_drift: float | None = None
    task_drift: float | None = None
    safety_choices: int = 0
    task_choices: int = 0


@final
@dataclass(frozen=True)
class RoundRecord:
    """One merge of a chain, as the reports of later rounds keep it.

    Attributes:
        old, new: the inputs, by their names at that time.
        finished: the time in UTC, in ISO 8601.
        config: the options.
        safety, task: the calibration sets; None if the method used none.
        adapted: the number of adapted linears.
        restored_share: the share of their values that are OLD's; None if the method restores none.
        energy_restored: the mean over them, as a share; None likewise.
        evaluation: the evaluation of that round's OUT; None without one.
        architecture: class name of the model.
        adapter: the kind of PEFT adapter that NEW was; empty for a checkpoint.
        commits, contents, versions: from the round's :class:`RunRecord`.
        drift: from the round's report.
        benchmarks: what other harnesses measured of that round's OUT, by task and metric, without the parts of groups.
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
    benchmarks: dict[str, float] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The name of the rule."""
        return method_of(self.config)


def unpack_columns(packed: str, columns: int) -> list[int]:
    """The columns whose bit is set, ascending: the inverse of :func:`~hpa_merge.report.packing.pack_columns`."""
    content = base64.b64decode(packed)
    return [j for j in range(columns) if content[j // 8] >> (j % 8) & 1]


def count_columns(packed: str) -> int:
    """The number of columns whose bit is set."""
    return int.from_bytes(base64.b64decode(packed), "little").bit_count()

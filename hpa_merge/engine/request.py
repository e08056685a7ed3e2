"""What a caller asks for: one merge, or several from one read of the inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypedDict, Unpack, final

from hpa_merge.config import CalibrationOptions, HPAConfig, calibration_of
from hpa_merge.counting import counted
from hpa_merge.errors import ConfigError
from hpa_merge.inputs.names import is_remote
from hpa_merge.records import ReadingOptions, reading_options
from hpa_merge.report.schema import MergeReport

if TYPE_CHECKING:
    from hpa_merge.checkpoint import Checkpoint

__all__ = ["Limits", "MergeOptions", "MergeRequest", "Render"]

Render = Callable[[MergeReport, "Checkpoint", "Checkpoint", bool], tuple[MergeReport, dict[str, bytes]]]
"""Takes a report, OLD, NEW, and whether to draw a page. Returns the report, with notes on what could not be made, and
the files next to the weights, by name. The caller passes it in: :func:`hpa_merge.render.folder.render`."""


class MergeOptions(TypedDict, total=False):
    """The arguments that a merge and a sweep share, as callers give them; :func:`hpa_merge.merge` explains each."""

    safety_calib: str | Path | None
    task_calib: str | Path | Sequence[str | Path] | None
    image_folder: str | Path | Sequence[str | Path] | None
    vision_tower: str | Path | None
    stats: str | Path | None
    stats_hessians: bool
    first: str | Path | None
    trust_remote_code: bool
    max_memory: int | None
    max_host_memory: int | None
    overwrite: bool
    resume: bool
    page: bool


@final
@dataclass(frozen=True)
class Limits:
    """The most bytes that a merge may take: ``device`` where the arithmetic runs, ``host`` next to a CUDA device."""

    device: int | None = None
    host: int | None = None


@final
@dataclass(frozen=True)
class MergeRequest:
    """One merge, or several from one read of the inputs.

    Attributes:
        old, new: checkpoint folders, or for NEW an adapter's; a string may name a repository on the Hub,
            ``org/name[@revision]``.
        outs: the options of each OUT. Options that the statistics depend on are the same in all.
        safety_calib, task_calib: calibration files, or names of data sets on the Hub; none if no method needs them.
        image_folder: where relative paths of images start, ``[SET:]FOLDER`` each, instead of the files' own folders.
        vision_tower: folder of the vision tower, for checkpoints in LLaVA's own layout.
        stats: the statistics file, if any.
        stats_hessians: keep the Hessians next to the statistics file.
        first: the first aligned model of the history, a folder or a name on the Hub, to measure OUT's drift from.
        trust_remote_code: run the code that the checkpoints bring.
        limits: of memory.
        overwrite, resume: as in :func:`hpa_merge.merge`.
        skip_complete: leave an OUT unchanged if it is complete and this request would make the same.
        page: draw the report's page and pictures.
        command: the command line as typed; empty if there was none.
        reads: other files behind this request, such as YAML files; they are never deleted.
    """

    old: str | Path
    new: str | Path
    outs: Mapping[Path, HPAConfig]
    safety_calib: Path | None = None
    task_calib: tuple[Path, ...] = ()
    image_folder: tuple[str, ...] = ()
    vision_tower: Path | None = None
    stats: Path | None = None
    stats_hessians: bool = False
    first: str | Path | None = None
    trust_remote_code: bool = False
    limits: Limits = Limits()
    overwrite: bool = False
    resume: bool = False
    skip_complete: bool = False
    page: bool = True
    command: str = ""
    reads: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        """Check that the OUTs can share a calibration run and have what their methods need of it.

        Raises:
            ConfigError: they cannot, or have not.
        """
        _ = self.calibration
        wanted = {purpose: config.method for config in self.outs.values() for purpose in config.sets}
        for purpose, given in (("safety", self.safety_calib), ("task", self.task_calib)):
            if purpose in wanted and not given:
                raise ConfigError(
                    f"{purpose}_calib is missing: the method {wanted[purpose]} looks at {purpose} samples, so give a "
                    "file."
                )
        shares = self.calibration.task_share
        if shares and len(shares) != len(self.task_calib):
            raise ConfigError(
                f"task_share has {counted(len(shares), 'number')}, and the task sets number {len(self.task_calib)}: "
                f"give one for "
                "each task_calib, in their order."
            )
        for purpose in ("safety", "task"):
            self.reading(purpose)
        if self.stats is None and self.stats_hessians:
            raise ConfigError("stats_hessians keeps Hessians next to a statistics file: give stats too.")
        if self.stats is None:
            return
        if beyond := [config.method for config in self.outs.values() if "inverse" in config.takes]:
            raise ConfigError(
                f"the method {beyond[0]} takes all of H⁻¹ with compensation_order sum, which the statistics "
                f"{self.stats} do not keep: leave out the statistics, or compensate from left to right, or not at all."
            )
        if missing := {"safety", "task"} - wanted.keys():
            raise ConfigError(
                f"no method here looks at {' or '.join(sorted(missing))} samples, and the statistics {self.stats} are "
                "of both sets: leave out the statistics."
            )

    @classmethod
    def of(
        cls,
        old: str | Path,
        new: str | Path,
        outs: Mapping[str | Path, HPAConfig] | Mapping[Path, HPAConfig],
        /,
        *,
        skip_complete: bool = False,
        command: str = "",
        reads: tuple[Path, ...] = (),
        **options: Unpack[MergeOptions],
    ) -> Self:
        """The request that these arguments make; the attributes explain them."""
        return cls(
            old,
            new,
            {Path(out): config for out, config in outs.items()},
            safety_calib=_path(options.get("safety_calib")),
            task_calib=tuple(map(Path, _several(options.get("task_calib")))),
            image_folder=tuple(map(str, _several(options.get("image_folder")))),
            vision_tower=_path(options.get("vision_tower")),
            stats=_path(options.get("stats")),
            stats_hessians=options.get("stats_hessians", False),
            first=options.get("first"),
            trust_remote_code=options.get("trust_remote_code", False),
            limits=Limits(options.get("max_memory"), options.get("max_host_memory")),
            overwrite=options.get("overwrite", False),
            resume=options.get("resume", False),
            skip_complete=skip_complete,
            page=options.get("page", True),
            command=command,
            reads=reads,
        )

    @property
    def given(self) -> dict[str, tuple[str, ...]]:
        """What the merges are given besides models, samples and options, by the option of the command line."""
        named = {
            "image_folder": self.image_folder,
            "vision_tower": self.vision_tower,
            "first": self.first,
            "stats": self.stats,
            "max_memory": self.limits.device,
            "max_host_memory": self.limits.host,
        }
        texts = {
            name: tuple(map(str, value if isinstance(value, tuple) else (value,)))
            for name, value in named.items()
            if value
        }
        return texts | ({"stats_hessians": ()} if self.stats_hessians else {})

    @property
    def calibration(self) -> CalibrationOptions:
        """The options of the calibration run, which are the same in all OUTs.

        Raises:
            ConfigError: they are not.
        """
        return calibration_of({f"OUT {out}": config for out, config in self.outs.items()})

    @property
    def hessians_of(self) -> dict[str, str]:
        """The sets of which a method takes the Hessians, with the name of that method."""
        return {
            purpose: config.method
            for config in self.outs.values()
            if "hessian" in config.takes
            for purpose in config.sets
        }

    @property
    def checkpoints(self) -> dict[str, str | Path]:
        """The checkpoints by role: OLD, NEW, and FIRST if it was given."""
        given = {"OLD": self.old, "NEW": self.new, "FIRST": self.first}
        return {role: name for role, name in given.items() if name is not None}

    @property
    def is_remote(self) -> bool:
        """Whether a checkpoint has to come from the Hub."""
        return any(is_remote(name) for name in self.checkpoints.values())

    def reading(self, purpose: str) -> ReadingOptions:
        """How the files of a set are read.

        Raises:
            ConfigError: what the options say of it cannot be.
        """
        config = self.calibration
        return reading_options(purpose, config.map, config.ignore_field, self.image_folder)

    @property
    def calibration_files(self) -> dict[str, tuple[Path, ...]]:
        """What the safety and the task set are read from; nothing for a set that no method needs."""
        wanted = {purpose for config in self.outs.values() for purpose in config.sets}
        given = {"safety": (self.safety_calib,) if self.safety_calib else (), "task": self.task_calib}
        return {purpose: files if purpose in wanted else () for purpose, files in given.items()}


def _several(given: str | Path | Sequence[str | Path] | None) -> Sequence[str | Path]:
    return () if given is None else (given,) if isinstance(given, str | Path) else given


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)

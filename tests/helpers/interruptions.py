"""Merges that are interrupted, and what there is of OUT afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cases import REPORT, TinyCase, content

from hpa_merge import HPAConfig, MergeReport, merge
from hpa_merge.checkpoint import CheckpointWriter
from hpa_merge.errors import OutputError

STOPS = (KeyboardInterrupt(), RuntimeError("a mistake"), OutputError("the disk is full."))


def run(case: TinyCase, out: Path, *, resume: bool = False, overwrite: bool = False, **options: Any) -> MergeReport:
    on_progress = options.pop("on_progress", lambda *_: None)
    return merge(
        case.old,
        case.new,
        out,
        safety_calib=case.safety,
        task_calib=case.task,
        config=HPAConfig(**options),
        overwrite=overwrite,
        resume=resume,
        on_progress=on_progress,
    )


def beside(out: Path) -> list[str]:
    """What there is of OUT and beside it."""
    return sorted(path.name for path in out.parent.glob(f"{out.name}*"))


def interrupt(case: TinyCase, out: Path, units: int = 2, error: BaseException = STOPS[0], **options: Any) -> None:
    """A merge that ends with ``error`` as soon as so many units are durable."""
    real, left = CheckpointWriter.commit, [units]

    def commit(self: CheckpointWriter, entry: Any) -> None:
        real(self, entry)
        left[0] -= 1
        if not left[0]:
            raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointWriter, "commit", commit)
        with pytest.raises(type(error)):
            run(case, out, **options)


def shards_of(folder: Path) -> dict[str, bytes]:
    """The bytes of a folder's shards, by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def without_warnings(out: Path) -> dict[str, Any]:
    """The content of OUT, without the warnings of its report."""
    files = content(out)
    del files[REPORT]["warnings"]
    return files


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail

"""Refusals before torch is imported: a mistyped path is answered at once.

Each function makes checks that its command makes again, so that what it leaves out is refused too, only later.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpa_merge.records import Purpose

__all__ = ["refuse_model", "refuse_out", "refuse_samples", "refuse_tests", "refuse_unsafe_prompts"]


def refuse_out(out: Path) -> None:
    """Check that ``out`` is a folder that a merge has made, as far as its report says it.

    Raises:
        CheckpointError: it is not.
    """
    from hpa_merge.engine.early import SMALL
    from hpa_merge.files.names import REPORT
    from hpa_merge.report.schema import read_report

    report = out / REPORT
    if not report.is_file() or report.stat().st_size <= SMALL:
        read_report(out)


def refuse_model(given: str | Path | None, role: str, *, adapter: bool) -> None:
    """Check that a model is a folder with a checkpoint, unless it is on the Hub or not given.

    Args:
        adapter: whether it may be an adapter.

    Raises:
        CheckpointError: it is not.
    """
    from hpa_merge.engine.early import refuse_folder
    from hpa_merge.inputs.names import is_remote

    if given is not None and not is_remote(given):
        refuse_folder(Path(given), role, adapter=adapter)


def refuse_samples(file: str) -> None:
    """Check that a file of samples exists, unless it is on the Hub.

    Raises:
        CalibrationError: it does not.
    """
    from hpa_merge.inputs.names import is_data_set
    from hpa_merge.records import local_source, read_records

    if not is_data_set(file) and not Path(file).exists():
        next(read_records(local_source(file)), None)


def refuse_tests(given: Mapping[str, Any], reading: Mapping[str, Any]) -> None:
    """Check the test files.

    Args:
        given: the options that name them.
        reading: the options of how they are read: ``map``, ``ignore_field`` and ``image_folder``.

    Raises:
        InputError: one is missing, or its records are not prompts.
    """
    from hpa_merge.evaluation.early import refuse_prompts
    from hpa_merge.records import reading_of_sets

    options = reading_of_sets(reading["map"], reading["ignore_field"], reading["image_folder"])
    for purpose, path in tests_of(given):
        refuse_prompts(path, purpose, options.get(purpose))


def refuse_unsafe_prompts(file: Path, reading: Mapping[str, Any]) -> None:
    """Check the prompts of a safety set; ``reading`` and the errors are those of :func:`refuse_tests`."""
    from hpa_merge.evaluation.early import refuse_prompts
    from hpa_merge.records import reading_options

    refuse_prompts(
        file, "safety", reading_options("safety", reading["map"], reading["ignore_field"], reading["image_folder"])
    )


def tests_of(given: Mapping[str, Any]) -> Iterator[tuple[Purpose, str]]:
    """The test files, each with what it is for."""
    kinds: dict[Purpose, str] = {"safety": "safety_test", "task": "task_test", "benign": "benign_test"}
    for purpose, kind in kinds.items():
        yield from ((purpose, path) for _, path in given[kind])

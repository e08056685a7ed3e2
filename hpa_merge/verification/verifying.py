"""``hpa-merge verify``: checks that a folder is what its merge wrote, and that the merge is right."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from hpa_merge.arguments import checked
from hpa_merge.checkpoint.adapter_folder import CONFIG as ADAPTER
from hpa_merge.errors import ConfigError
from hpa_merge.progress import Progress, bars_in_notebooks, silent
from hpa_merge.report.schema import read_report
from hpa_merge.verification.files import check_files, list_files, open_out, weight_files
from hpa_merge.verification.findings import NOT_FINITE, Findings, VerifyReport
from hpa_merge.verification.opened import Inputs, Opened
from hpa_merge.verification.stored import check_stored

__all__ = ["verify"]


@bars_in_notebooks(on_progress="verifying")
@checked
def verify(
    out: str | Path,
    old: str | Path | None = None,
    new: str | Path | None = None,
    *,
    safety_calib: str | Path | None = None,
    task_calib: str | Path | Sequence[str | Path] | None = None,
    image_folder: str | Path | Sequence[str | Path] | None = None,
    stats: str | Path | None = None,
    first: str | Path | None = None,
    vision_tower: str | Path | None = None,
    trust_remote_code: bool = False,
    on_progress: Progress = silent,
) -> VerifyReport:
    """Check a folder that :func:`hpa_merge.merge` has published.

    Alone: index and headers are consistent, every file has the digest of the report's manifest, no file was added or is
    missing, and no tensor holds NaN or infinity.

    With OLD and NEW also everything that follows from them without samples: layout, side files, and every tensor that
    was not adapted; which linears changed, ``κ``, the budgets, the energies and distances; the values of adapted
    linears according to the report's columns. The page and the pictures are drawn again, if the same versions are
    installed. The choice of the columns relies on the report, which ``unchecked`` says.

    With the calibration files too, the merge is run again without writing, with the report's options, and every value
    and every figure is compared. What cannot be computed, such as the command and the notes, relies on the report.

    A merge on another kind of device may have rounded differently: a value may then be the neighbouring number of its
    dtype. CPUs agree on the formula, except those without fused multiply-add. What the samples decide is the same to
    the bit on the same processor with the same number of threads and versions, which the report has; elsewhere rounding
    may explain differences, which are counted.

    Args:
        out: the folder.
        old, new: its inputs, folders or names on the Hub; both or neither. ``new`` may be an adapter.
        safety_calib, task_calib, image_folder: those of the merge.
        stats: a statistics file: what fits these inputs is trusted, and not computed again.
        first: the first aligned model of OLD's history, for the drift from it.
        vision_tower, trust_remote_code: as in :func:`hpa_merge.merge`; the report decides nothing about code.
        on_progress: called before each file and each tensor or unit, and at the end.

    Raises:
        CheckpointError: a folder is not a complete checkpoint; ``out`` has no readable report; OLD and NEW do not fit
            each other.
        ConfigError: only one of ``old`` and ``new`` is given, or calibration files without them.
        InputError, NumericalError, ResourceError: with calibration files, as in :func:`hpa_merge.merge`.
    """
    samples = {"safety_calib": safety_calib, "task_calib": task_calib, "stats": stats, "first": first}
    given = [name for name, value in samples.items() if value is not None]
    if (old is None) != (new is None):
        raise ConfigError(f"{'OLD' if old is None else 'NEW'} is missing: give both --old and --new, or neither.")
    if old is None and given:
        raise ConfigError(f"{given[0]} is given without OLD and NEW: give --old and --new too.")
    findings = Findings()
    with ExitStack() as stack:
        merged = stack.enter_context(open_out(Path(out)))
        report, found = read_report(merged.folder), list_files(merged)
        files = [*weight_files(merged), *report.manifest]
        steps, done = len(dict.fromkeys(files)) + len(merged.tensors), 0

        def on_step(what: str) -> None:
            nonlocal done
            on_progress(what, min(done, steps - 1), steps)
            done += 1

        not_finite = check_files(merged, report, found, on_step, findings)
        check_stored(merged.folder, report, findings)
        content = report.run.contents.get("out", "")
        if not findings.problems and content and content != merged.content_digest():
            findings.problems.append("OUT's weights have another content digest than in the report.")
        if old is None or new is None or merged.index == ADAPTER:
            for name in merged.tensors:
                on_step(name)
                if name in not_finite:
                    findings.problems.append(NOT_FINITE.format(name))
        if old is None or new is None:
            findings.unchecked.append("The report was not compared with OLD and NEW: give both.")
        elif merged.index == ADAPTER and findings.problems:
            findings.unchecked.append("The adapter was not put on OLD, because of these problems.")
        else:
            from hpa_merge.verification.against import check_against  # with torch and transformers

            whole = Opened(merged, report, found, not_finite)
            inputs = Inputs(old, new, vision_tower, trust_remote_code)
            further = {**samples, "image_folder": image_folder} if given else None
            check_against(whole, inputs, further, on_step, on_progress, findings)
        on_progress("done", steps, steps)
        findings.checked["tensors"] += len(merged.tensors)
    return findings.report()

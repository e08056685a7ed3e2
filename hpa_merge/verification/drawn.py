"""Checks the page and the pictures by drawing them again."""

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.sidefiles import MADE
from hpa_merge.files.inside import read_inside
from hpa_merge.files.names import REPORT
from hpa_merge.render import folder as drawings
from hpa_merge.report.manifest import Listing
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.words import shortened
from hpa_merge.verification.findings import Findings

__all__ = ["check_drawn"]

PAGE_BYTES = 2**30
"""The longest page that is compared; with a hundred layers a page has some megabytes."""


def check_drawn(merged: Checkpoint, report: MergeReport, found: Listing, same: bool, findings: Findings) -> None:
    """Draw the page and the pictures of OUT again, and compare them.

    Pictures depend on the installed fonts, and may differ on another machine.

    Args:
        found: the files of OUT.
        same: whether this machine is of the kind that made OUT.
    """
    there = sorted(found.files & MADE - {REPORT})
    if not there:
        return
    try:
        drawing = drawings.draw(report)
    except drawings.NotDrawn as error:
        findings.unchecked.append(f"The page and the pictures were not compared: they cannot be drawn here ({error}).")
        return
    if drawing.libraries != report.run.drawn_with:
        was = ", ".join(f"{name} {version}" for name, version in report.run.drawn_with.items())
        findings.unchecked.append(
            f"The page and the pictures were not compared: {was or 'unknown versions'} drew them, and this machine has "
            f"{', '.join(f'{name} {version}' for name, version in drawing.libraries.items())}."
        )
        return
    others = []
    for name in there:
        findings.checked["drawn files"] += 1
        try:
            content = read_inside(merged.folder, name, PAGE_BYTES)
        except OSError as error:
            findings.problems.append(f"{name} cannot be compared ({error.strerror or error}).")
            continue
        drawn = drawing.files.get(name, b"")
        if content == drawn:
            continue
        if same or not drawn or name == drawings.PAGE:
            findings.problems.append(f"{name} does not show the report: draw it again with hpa-merge report OUT.")
        else:
            others.append(name)
    if others:
        findings.unchecked.append(
            f"{shortened(others)}: the pictures differ from those drawn here, which other fonts may explain."
        )

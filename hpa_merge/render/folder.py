"""The files that a merge writes next to the weights: report, model card, page and pictures."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any, final

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.files.names import CARD, REPORT
from hpa_merge.isolation import Child, Limits, Stopped, kept
from hpa_merge.render.card import cards_of, make, unreadable
from hpa_merge.report.manifest import sealed
from hpa_merge.report.schema import SCHEMA_VERSION, MergeReport
from hpa_merge.report.walking import mapped

__all__ = ["PAGE", "Drawing", "NotDrawn", "draw", "files_of", "render", "with_drawing"]

PAGE = "hpa_report.html"

SERVICE = "hpa_merge.render.drawing:DrawingService"

DRAWING = Limits(computing=300.0, waiting=900.0)
"""For a report; a hundred layers take some seconds."""

LIBRARIES = ("hpa-merge", "vl-convert-python", "Jinja2", "pillow")
"""Distributions that the drawing depends on, besides the installed fonts."""

FORM = {"schema_version": str(SCHEMA_VERSION)}
"""Pages of another schema have other words."""

MEMORY = 2**33
"""Bytes that drawing may use: 8 GiB."""


class NotDrawn(Exception):
    """The page and the pictures cannot be drawn; the text says why."""


@final
@dataclass(frozen=True)
class Drawing:
    """The page and the pictures of a report.

    Attributes:
        files: the page and the pictures, by file name.
        pictures: the alternative texts of the model card's pictures, by file name.
        libraries: the versions that drew them.
    """

    files: Mapping[str, bytes]
    pictures: Mapping[str, str]
    libraries: Mapping[str, str] = field(default_factory=dict)


def render(report: MergeReport, old: Checkpoint, new: Checkpoint, page: bool) -> tuple[MergeReport, dict[str, bytes]]:
    """:func:`files_of` with the cards of ``old`` and ``new``."""
    cards = cards_of(old, new)
    if report.is_adapter and cards.new == cards.old:  # NEW has none, and OLD's text is not about an adapter
        cards = replace(cards, new="")
    notes = (*report.run.notes, *cards.notes, *filter(None, [unreadable(cards.new)]))
    return files_of(replace(report, run=replace(report.run, notes=notes)), (cards.new, cards.old), page=page)


def files_of(
    report: MergeReport, cards: tuple[str, str] = ("", ""), *, page: bool = True
) -> tuple[MergeReport, dict[str, bytes]]:
    """The report with the manifest of its drawn files, and its files by name.

    A failure never costs a merge: a page, card or report that cannot be made is left out, and a note says why.

    Args:
        cards: NEW's and OLD's model cards, from :func:`hpa_merge.render.card.cards_of`.
        page: draw the page and the pictures.
    """
    drawing = Drawing({}, {})
    if page:
        try:
            drawing = draw(report)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # even a library's panic: the weights are worth more
            report = _noting(report, f"{PAGE} and its pictures were not drawn", error)
    report = with_drawing(report, drawing)
    try:
        card = {CARD: make(report, *cards, figures=drawing.pictures).encode("utf-8", "surrogateescape")}
    except Exception as error:
        report, card = _noting(report, f"{CARD} was not made", error), {}
    try:
        content = report.to_json()
    except (ValueError, TypeError, RecursionError) as error:
        report = _noting(mapped(report, _finite), f"Values of {REPORT} that JSON cannot hold are null or text", error)
        content = json.dumps(
            {"schema_version": SCHEMA_VERSION, **asdict(report), "warnings": report.warnings}, indent=1
        )
    # half of a surrogate pair, which no encoding has, becomes JSON's escape
    return report, {REPORT: content.encode("utf-8", "backslashreplace"), **card, **drawing.files}


def with_drawing(report: MergeReport, drawing: Drawing) -> MergeReport:
    """A report with the digests of its drawn files and the versions that drew them."""
    report = sealed(report, drawing.files)
    return replace(report, run=replace(report.run, drawn_with=dict(drawing.libraries)))


def _noting(report: MergeReport, what: str, error: BaseException) -> MergeReport:
    """The report with a note about what could not be made."""
    reason = " ".join(str(error if isinstance(error, NotDrawn) else f"{type(error).__name__}: {error}").split())
    note = f"{what} ({reason}): fix that, then run hpa-merge report OUT."
    return replace(report, run=replace(report.run, notes=(*report.run.notes, note)))


def _finite(value: Any) -> Any:
    """A value for JSON: None for a number that is not finite, a text for an unknown type."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def draw(report: MergeReport) -> Drawing:
    """Draw the page and the pictures in a child process, because the library may end its process.

    Raises:
        NotDrawn: a library is missing or broken, or exceeds the limits.
    """
    try:
        with kept(SERVICE):
            found, content = _call("draw", report, PAGE)
    except (Stopped, RuntimeError) as error:
        raise NotDrawn(str(error)) from error
    files, place = {}, 0
    for name, length in found["files"].items():
        files[name] = bytes(content[place : place + length])
        place += length
    return Drawing(files, found["pictures"], {name: version(name) for name in LIBRARIES} | FORM)


def _call(method: str, *arguments: object) -> tuple[Any, bytearray]:
    """Call a method of the drawing service, in a child of its own."""
    child = Child(SERVICE, MEMORY)
    try:
        return child.call(method, *arguments, limits=DRAWING)
    finally:
        child.close()

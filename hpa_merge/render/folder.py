"""The files that a merge writes beside the weights, for people and for programs."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
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
"""To draw a report. One of a hundred layers takes some seconds."""

LIBRARIES = ("hpa-merge", "altair", "vl-convert-python", "Jinja2")
"""Distributions that what is drawn depends on, and the fonts that are installed."""

FORM = {"schema_version": str(SCHEMA_VERSION)}
"""The form of the report that is drawn: a page of an earlier one has other words."""

MEMORY = 2**33
"""Bytes that drawing may take: 8 GiB; the library that makes pictures takes half a gigabyte."""


class NotDrawn(Exception):
    """The page and the pictures cannot be drawn; the text says why."""


@final
@dataclass(frozen=True)
class Drawing:
    """What is drawn of a report.

    Attributes:
        files: the page and the pictures, by file name.
        pictures: of those that the model card shows, by file name, what stands there for who cannot see them.
        libraries: the versions of what drew it.
    """

    files: Mapping[str, bytes]
    pictures: Mapping[str, str]
    libraries: Mapping[str, str] = field(default_factory=dict)


def render(report: MergeReport, old: Checkpoint, new: Checkpoint, page: bool) -> tuple[MergeReport, dict[str, bytes]]:
    """What a merge of ``old`` and ``new`` publishes beside the weights, as :func:`files_of`; with their cards."""
    cards = cards_of(old, new)
    notes = (*report.run.notes, *cards.notes, *filter(None, [unreadable(cards.new)]))
    return files_of(replace(report, run=replace(report.run, notes=notes)), (cards.new, cards.old), page=page)


def files_of(
    report: MergeReport, cards: tuple[str, str] = ("", ""), *, page: bool = True
) -> tuple[MergeReport, dict[str, bytes]]:
    """The report in each of its forms, by file name.

    The report that is returned names what is drawn of it in its manifest. None of it ever costs a merge: where the
    page, the card or the report itself cannot be made, the files are those without it, and a note of the report says
    why.

    Args:
        cards: NEW's model card and OLD's, as :func:`hpa_merge.render.card.cards_of` reads them.
        page: draw the page and the pictures.
    """
    drawing = Drawing({}, {})
    if page:
        try:
            drawing = draw(report)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # whatever it is, a library's panic too: the weights are worth more
            report = _noting(report, f"{PAGE} and its pictures were not drawn", error)
    report = with_drawing(report, drawing)
    try:
        card = {CARD: make(report, *cards, figures=drawing.pictures).encode("utf-8", "surrogateescape")}
    except Exception as error:
        report, card = _noting(report, f"{CARD} was not made", error), {}
    try:
        content = report.to_json()
    except (ValueError, TypeError, RecursionError) as error:
        report = _noting(
            mapped(report, _finite), f"Numbers of {REPORT} that are not finite, or no numbers, are null", error
        )
        content = json.dumps(
            {"schema_version": SCHEMA_VERSION, **asdict(report), "warnings": report.warnings}, indent=1
        )
    # Half of a surrogate pair, which no encoding has, becomes JSON's escape for it.
    return report, {REPORT: content.encode("utf-8", "backslashreplace"), **card, **drawing.files}


def with_drawing(report: MergeReport, drawing: Drawing) -> MergeReport:
    """A report that names what was drawn of it, in its manifest, and by which versions."""
    report = sealed(report, drawing.files)
    return replace(report, run=replace(report.run, drawn_with=dict(drawing.libraries)))


def _noting(report: MergeReport, what: str, error: BaseException) -> MergeReport:
    """The report with a note of what could not be made."""
    reason = " ".join(str(error if isinstance(error, NotDrawn) else f"{type(error).__name__}: {error}").split())
    note = f"{what} ({reason}): fix that, then run hpa-merge report OUT."
    return replace(report, run=replace(report.run, notes=(*report.run.notes, note)))


def _finite(value: Any) -> Any:
    """A value as JSON can have it: None for a number that is not finite, a text for what JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def draw(report: MergeReport) -> Drawing:
    """The page and the pictures, drawn in a child process: the library that draws may end its process.

    Raises:
        NotDrawn: a library is missing or broken, or it takes too much.
    """
    try:
        with kept(SERVICE):
            found, content = _call("draw", report, PAGE, _libraries())
    except (Stopped, RuntimeError) as error:
        raise NotDrawn(str(error)) from error
    files, place = {}, 0
    for name, length in found["files"].items():
        files[name] = bytes(content[place : place + length])
        place += length
    return Drawing(files, found["pictures"], {name: version(name) for name in LIBRARIES} | FORM)


@cache
def _libraries() -> str:
    """The scripts that draw on the page; they are the same for every report, and take a second to put together."""
    return str(_call("libraries")[0])


def _call(method: str, *arguments: object) -> tuple[Any, bytearray]:
    """Call a method of the drawing service, in a child of its own."""
    child = Child(SERVICE, MEMORY)
    try:
        return child.call(method, *arguments, limits=DRAWING)
    finally:
        child.close()

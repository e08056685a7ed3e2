"""The files that a merge writes beside the weights, for people and for programs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, final

from hpa_merge.isolation import Child, Limits, Stopped, kept
from hpa_merge.names import REPORT
from hpa_merge.report.card import CARD, make
from hpa_merge.report.schema import MergeReport

__all__ = ["PAGE", "Drawing", "NotDrawn", "draw", "files_of"]

PAGE = "hpa_report.html"

SERVICE = "hpa_merge.report.drawing:DrawingService"

DRAWING = Limits(computing=300.0, waiting=900.0)
"""To draw a report. One of a hundred layers takes some seconds."""

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
    """

    files: Mapping[str, bytes]
    pictures: Mapping[str, str]


def files_of(
    report: MergeReport, cards: tuple[str, str] = ("", ""), *, page: bool = True
) -> tuple[MergeReport, dict[str, bytes]]:
    """The report in each of its forms, by file name.

    Drawing never costs a merge: where it fails, the files are those without a page, and a note of the report, which is
    returned with it, says why.

    Args:
        cards: NEW's model card and OLD's, as :func:`hpa_merge.report.card.cards_of` reads them.
        page: draw the page and the pictures.
    """
    drawing = Drawing({}, {})
    if page:
        try:
            drawing = draw(report)
        except Exception as error:  # whatever it is: the weights are worth more than their picture
            reason = " ".join(str(error if isinstance(error, NotDrawn) else f"{type(error).__name__}: {error}").split())
            note = f"{PAGE} and its pictures were not drawn ({reason}): fix that, then run hpa-merge report OUT."
            report = replace(report, run=replace(report.run, notes=(*report.run.notes, note)))
    card = make(report, *cards, figures=drawing.pictures)
    texts = {REPORT: report.to_json().encode(), CARD: card.encode("utf-8", "surrogateescape")}
    return report, {**texts, **drawing.files}


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
    return Drawing(files, found["pictures"])


@cache
def _libraries() -> str:
    """The scripts that draw on the page; they are the same for every report, and take a second to put together."""
    scripts, _ = _call("libraries")
    return scripts


def _call(method: str, *arguments: object) -> tuple[Any, bytearray]:
    """Call a method of the drawing service, in a child of its own."""
    child = Child(SERVICE, MEMORY)
    try:
        return child.call(method, *arguments, limits=DRAWING)
    finally:
        child.close()

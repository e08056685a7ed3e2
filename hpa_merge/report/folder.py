"""The files that a merge writes beside the weights, for people and for programs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

from hpa_merge.names import REPORT
from hpa_merge.report.card import CARD, make
from hpa_merge.report.manifest import sealed
from hpa_merge.report.schema import MergeReport

__all__ = ["PAGE", "Drawing", "draw", "files_of"]

PAGE = "hpa_report.html"


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

    The report that is returned names what is drawn of it in its manifest. Drawing never costs a merge: where it fails,
    the files are those without a page, and a note of the report says why.

    Args:
        cards: NEW's model card and OLD's, as :func:`hpa_merge.report.card.cards_of` reads them.
        page: draw the page and the pictures.
    """
    drawing = Drawing({}, {})
    if page:
        try:
            drawing = draw(report)
        except Exception as error:  # whatever it is: the weights are worth more than their picture
            note = (
                f"{PAGE} and its pictures were not drawn ({type(error).__name__}: {error}): "
                "mend that, then run hpa-merge report OUT."
            )
            report = replace(report, run=replace(report.run, notes=(*report.run.notes, note)))
    report = sealed(report, drawing.files)
    card = make(report, *cards, figures=drawing.pictures)
    texts = {REPORT: report.to_json().encode(), CARD: card.encode("utf-8", "surrogateescape")}
    return report, {**texts, **drawing.files}


def draw(report: MergeReport) -> Drawing:
    """The page and the pictures.

    Raises:
        ImportError: a library that draws is not there.
    """
    from hpa_merge.report.figures import ON_CARD, figures_of, picture
    from hpa_merge.report.page import page_of

    figures = figures_of(report)
    pictures = {file: picture(figure) for file, figure in figures.items()}
    files = {PAGE: page_of(report, figures, pictures).encode(), **pictures}
    return Drawing(files, {file: figures[file].description for file in ON_CARD if file in figures})

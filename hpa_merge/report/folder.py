"""The files that a merge writes beside the weights, for people and for programs."""

from dataclasses import replace

from hpa_merge.checkpoint.reader import REPORT
from hpa_merge.report.schema import MergeReport

__all__ = ["PAGE", "draw", "files_of"]

PAGE = "hpa_report.html"


def files_of(report: MergeReport, *, page: bool = True) -> tuple[MergeReport, dict[str, bytes]]:
    """The report in each of its forms, by file name.

    Drawing never costs a merge: where it fails, the files are those without a page, and a note of the report, which is
    returned with it, says why.

    Args:
        page: draw the page and the pictures.
    """
    drawn: dict[str, bytes] = {}
    if page:
        try:
            drawn = draw(report)
        except Exception as error:  # whatever it is: the weights are worth more than their picture
            note = (
                f"{PAGE} and its pictures were not drawn ({type(error).__name__}: {error}): "
                "mend that, then run hpa-merge report OUT."
            )
            report = replace(report, run=replace(report.run, notes=(*report.run.notes, note)))
    return report, {REPORT: report.to_json().encode(), **drawn}


def draw(report: MergeReport) -> dict[str, bytes]:
    """The page and the pictures, by file name.

    Raises:
        ImportError: a library that draws is not there.
    """
    from hpa_merge.report.figures import figures_of, picture
    from hpa_merge.report.page import page_of

    figures = figures_of(report)
    pictures = {file: picture(figure) for file, figure in figures.items()}
    return {PAGE: page_of(report, figures, pictures).encode(), **pictures}

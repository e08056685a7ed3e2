"""Runs in the child process that draws a report, because the libraries may crash."""

from typing import Any, final

from hpa_merge.render.figures import ON_CARD, figures_of, picture
from hpa_merge.render.page import libraries, page_of
from hpa_merge.report.schema import MergeReport

__all__ = ["DrawingService"]


@final
class DrawingService:
    """The methods that :func:`hpa_merge.render.folder.draw` calls."""

    def libraries(self) -> tuple[str, bytes]:
        """:func:`hpa_merge.render.page.libraries`."""
        return libraries(), b""

    def draw(self, report: MergeReport, page: str, scripts: str) -> tuple[dict[str, Any], bytes]:
        """The lengths of the files, beginning with ``page``, and the alternative texts of the card's pictures.

        Args:
            scripts: of :meth:`libraries`.
        """
        figures = figures_of(report)
        pictures = {file: picture(figure) for file, figure in figures.items()}
        files = {page: page_of(report, figures, pictures, scripts).encode(), **pictures}
        shown = {file: figures[file].description for file in ON_CARD if file in figures}
        lengths = {file: len(content) for file, content in files.items()}
        return {"files": lengths, "pictures": shown}, b"".join(files.values())

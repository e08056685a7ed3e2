"""Runs in the child process that draws a report, because the library of the pictures may crash."""

from typing import Any, final

from hpa_merge.render.figures import ON_CARD, figures_of, picture
from hpa_merge.render.page import page_of
from hpa_merge.report.schema import MergeReport

__all__ = ["DrawingService"]


@final
class DrawingService:
    """The method that :func:`hpa_merge.render.folder.draw` calls."""

    def draw(self, report: MergeReport, page: str) -> tuple[dict[str, Any], bytes]:
        """The lengths of the files, beginning with ``page``, and the alternative texts of the card's pictures."""
        figures = figures_of(report)
        files = {page: page_of(report, figures).encode("utf-8", "replace")}
        files |= {file: picture(figure) for file, figure in figures.items()}
        shown = {file: figures[file].description for file in ON_CARD if file in figures}
        lengths = {file: len(content) for file, content in files.items()}
        return {"files": lengths, "pictures": shown}, b"".join(files.values())

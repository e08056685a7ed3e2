"""The files that a merge writes beside the weights, for people and for programs."""

from hpa_merge.names import REPORT
from hpa_merge.report.card import CARD, make
from hpa_merge.report.schema import MergeReport


def files_of(report: MergeReport, cards: tuple[str, str] = ("", "")) -> dict[str, bytes]:
    """The report in each of its forms, by file name.

    Args:
        cards: NEW's model card and OLD's, as :func:`hpa_merge.report.card.cards_of` reads them.
    """
    card = make(report, *cards)
    return {REPORT: report.to_json().encode(), CARD: card.encode("utf-8", "surrogateescape")}

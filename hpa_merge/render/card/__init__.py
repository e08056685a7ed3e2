"""The model card: OUT's README.md, with what the Hub reads of it on top and NEW's own card, where it has one, below.

The card is a function of the inputs and the options, as the weights are: it says nothing of time, memory or places, and
of local files and folders it has the names alone, for it is meant to be published.
"""

from hpa_merge.render.card.assembling import for_the_hub, make, remake, unreadable
from hpa_merge.render.card.reading import cards_of
from hpa_merge.render.card.usage import UNPUBLISHED

__all__ = ["UNPUBLISHED", "cards_of", "for_the_hub", "make", "remake", "unreadable"]

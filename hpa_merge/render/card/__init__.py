"""The model card, OUT's README.md: the Hub's metadata, our section, and NEW's own card below.

Like the weights, the card depends on the inputs and the options only: it has no time, no memory and no local path.
"""

from hpa_merge.render.card.assembling import for_the_hub, make, remake, unreadable
from hpa_merge.render.card.reading import cards_of
from hpa_merge.render.card.usage import UNPUBLISHED

__all__ = ["UNPUBLISHED", "cards_of", "for_the_hub", "make", "remake", "unreadable"]

"""Reads the cards of OLD and NEW."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.files.inside import read_inside
from hpa_merge.files.names import CARD, CARD_BYTES

__all__ = ["Cards", "cards_of"]


@final
@dataclass(frozen=True)
class Cards:
    """The cards of NEW and OLD, empty without one; bytes that are not UTF-8 are surrogates.

    Attributes:
        notes: why a card was not read, a sentence each.
    """

    new: str = ""
    old: str = ""
    notes: tuple[str, ...] = ()


def cards_of(old: Checkpoint, new: Checkpoint) -> Cards:
    """The cards of OLD and NEW; an adapter without a card gets OLD's."""
    notes: list[str] = []
    olds = _read(old.folder, "OLD", notes)
    if new.overlay is None:
        return Cards(_read(new.folder, "NEW", notes), olds, tuple(notes))
    own = new.overlay.folder
    return Cards(_read(own, "NEW", notes) if (own / CARD).is_file() else olds, olds, tuple(notes))


def _read(folder: Path, role: str, notes: list[str]) -> str:
    """A folder's card; an error becomes a note."""
    try:
        return read_inside(folder, CARD, CARD_BYTES // 2).decode(
            "utf-8", "surrogateescape"
        )  # leaves room for our section
    except FileNotFoundError:
        return ""
    except OSError as error:
        notes.append(f"{role}'s {CARD} was not read ({error.strerror}): OUT's model card is made without it.")
        return ""

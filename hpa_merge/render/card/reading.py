"""The cards that OLD and NEW bring."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.files.inside import read_inside

__all__ = ["Cards", "cards_of"]

README = Path("README.md")

CARD_BYTES = 2**22
"""The longest card that is read: 4 MiB; the Hub shows none that is longer."""


@final
@dataclass(frozen=True)
class Cards:
    """The cards of NEW and OLD; empty where one has none. Bytes that are not UTF-8 come as surrogates, and
    ``encode("utf-8", "surrogateescape")`` gives them back.

    Attributes:
        notes: why one that is there was not read, a sentence each.
    """

    new: str = ""
    old: str = ""
    notes: tuple[str, ...] = ()


def cards_of(old: Checkpoint, new: Checkpoint) -> Cards:
    """The cards that they bring.

    That of an adapter lies in the adapter's folder; where it does not, NEW's card is OLD's.
    """
    notes: list[str] = []
    olds = _read(old.folder, "OLD", notes)
    if new.overlay is None:
        return Cards(_read(new.folder, "NEW", notes), olds, tuple(notes))
    own = new.overlay.folder
    return Cards(_read(own, "NEW", notes) if (own / README).is_file() else olds, olds, tuple(notes))


def _read(folder: Path, role: str, notes: list[str]) -> str:
    """A folder's card; what keeps it from being read becomes a note."""
    try:
        return read_inside(folder, README, CARD_BYTES).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as error:
        notes.append(f"{role}'s {README} was not read ({error.strerror}): OUT's model card has nothing of it.")
        return ""

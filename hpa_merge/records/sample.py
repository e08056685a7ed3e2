"""What a record of a data set becomes: a conversation, a text or token ids; with the media that stand in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

__all__ = ["Media", "MediaKind", "Sample", "Turn"]

MediaKind = Literal["image", "video", "audio"]


@final
@dataclass(frozen=True)
class Media:
    """An image, a video or a sound that stands in a conversation; it is decoded only when its sample is encoded.

    Attributes:
        kind: what it is.
        content: the local file, which exists; or the file's bytes, where the record holds these.
    """

    kind: MediaKind
    content: Path | bytes

    @property
    def name(self) -> str:
        """What messages call it: the path, or how many bytes the record holds."""
        return str(self.content) if isinstance(self.content, Path) else f"of {len(self.content)} bytes in the record"


@final
@dataclass(frozen=True)
class Turn:
    """What one role says: texts and media in their order."""

    role: str
    parts: tuple[str | Media, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The parts that are text."""
        return tuple(part for part in self.parts if isinstance(part, str))


@final
@dataclass(frozen=True)
class Sample:
    """One sample; exactly one of ``turns``, ``text`` and ``input_ids`` is filled.

    ``source`` names it in messages: ``file:line``, with ``#2`` behind it for the second sample of a line.
    """

    source: str
    turns: tuple[Turn, ...] = ()
    text: str | None = None
    input_ids: tuple[int, ...] = ()

    @property
    def media(self) -> tuple[Media, ...]:
        """The media of all turns, in order."""
        return tuple(part for turn in self.turns for part in turn.parts if isinstance(part, Media))

    @property
    def images(self) -> tuple[Media, ...]:
        """The images among them."""
        return tuple(media for media in self.media if media.kind == "image")

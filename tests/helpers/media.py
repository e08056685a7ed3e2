"""Media in the conversations of tests."""

from pathlib import Path

from hpa_merge.records import Media

__all__ = ["picture", "shown"]


def picture(path: Path) -> Media:
    return Media("image", path)


def shown(*parts: str | Path | Media) -> tuple[str | Media, ...]:
    """The parts of a turn; a path is that of an image."""
    return tuple(picture(part) if isinstance(part, Path) else part for part in parts)

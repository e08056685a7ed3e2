"""The sentence for a file of OLD or NEW that cannot be read."""

from pathlib import Path

from hpa_merge.files.inside import NotInside, TooLong

__all__ = ["unreadable"]


def unreadable(folder: Path, role: str, name: str, error: OSError) -> str:
    """The sentence for a file of OLD or NEW that cannot be read."""
    if isinstance(error, NotInside | TooLong):
        return error.sentence(f"{role} {folder}: {name}")
    return (
        f"{role} {folder}: {name} cannot be read ({error.strerror or error}): check its permissions, or fetch it again."
    )

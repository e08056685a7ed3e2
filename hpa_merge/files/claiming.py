"""A folder that has to be new or empty, because a command fills it."""

from pathlib import Path

from hpa_merge.errors import OutputError

__all__ = ["claim_empty"]


def claim_empty(folder: Path) -> None:
    """Create the folder of the demo, or check that it is empty.

    Raises:
        OutputError: it is not empty, is not a folder, or cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{folder}: the demo cannot be made here ({reason}): name another folder.") from error
    if taken:
        raise OutputError(f"{folder}: the demo needs a new or an empty folder, this one has files: name another.")

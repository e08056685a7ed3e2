"""How the files of a run are read, where the user says more than the files do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

__all__ = ["ReadingOptions"]


@final
@dataclass(frozen=True)
class ReadingOptions:
    """What the user says of a file's records.

    Attributes:
        names: the field of the file that holds what a layout calls otherwise, by the layout's name for it.
        ignored: fields that carry nothing for a model, whatever they hold.
        media_folder: where relative paths of media start; None: the file's own folder.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    media_folder: Path | None = None

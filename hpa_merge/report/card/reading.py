"""The cards that OLD and NEW bring."""

from pathlib import Path

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.output import telling

__all__ = ["cards_of"]

README = Path("README.md")


def cards_of(old: Checkpoint, new: Checkpoint) -> tuple[str, str]:
    """NEW's card and OLD's; empty where one has none.

    That of an adapter lies in the adapter's folder; where it does not, NEW's card is OLD's. Bytes that are not UTF-8
    come as surrogates, and ``encode("utf-8", "surrogateescape")`` gives them back.

    Raises:
        OutputError: one cannot be read.
    """
    own = None if new.overlay is None else new.overlay.folder / README
    if own is not None and own.is_file():
        return _read(own), _beside(old)
    return _beside(new), _beside(old)


def _beside(checkpoint: Checkpoint) -> str:
    return _read(checkpoint.locate(README)) if README in checkpoint.side_files().copied else ""


def _read(path: Path) -> str:
    with telling(f"the model card cannot be made, for {path} cannot be read"):
        return path.read_bytes().decode("utf-8", "surrogateescape")

"""A statistics file as every reader opens it: check that it is one of ours, and say what is wrong with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hpa_merge.errors import StatisticsError
from hpa_merge.files.parsing import INDEX, parse_json

__all__ = ["FORMAT", "MARK", "open_statistics", "telling_damage"]

MARK = "hpa-merge statistics"
"""The only key of the file's metadata: safetensors writes several keys in no fixed order."""

FORMAT = 1


@contextmanager
def open_statistics(path: Path, framework: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The open file, and its description: the two halves by purpose.

    Args:
        framework: what safetensors gives its tensors as, ``pt`` or ``np``.

    Raises:
        ValueError: it is not a statistics file of this format.
        OSError, SafetensorError: it cannot be read.
    """
    if not path.is_file():
        raise ValueError("it is not a file")
    with safe_open(path, framework, backend="pread") as handle:
        metadata = handle.metadata() or {}
        if MARK not in metadata:
            raise ValueError(f"its metadata have no {MARK!r}")
        content = parse_json(metadata[MARK], INDEX)
        if content["format"] != FORMAT:
            raise ValueError(f"it has format {content['format']!r}, and this version reads {FORMAT}")
        yield handle, dict(content)


@contextmanager
def telling_damage(path: Path, remedy: str) -> Iterator[None]:
    """Turn what a damaged file makes the block raise into a sentence.

    Args:
        remedy: the end of the sentence for a file that is damaged, or is not ours.

    Raises:
        StatisticsError: the file cannot be read, is damaged, or is not ours.
    """
    try:
        yield
    except OSError as error:
        raise StatisticsError(
            f"the statistics {path} cannot be read ({error.strerror or error}): check the permissions of the file."
        ) from error
    except (SafetensorError, LookupError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise StatisticsError(f"{path} is not a whole statistics file of hpa-merge ({error}){remedy}") from error

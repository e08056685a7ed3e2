"""What may lie on top of a checkpoint: tensors that are computed from its own as they are read, and side files."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from torch import Tensor

from hpa_merge.checkpoint.kinds import PROCESSOR, TEMPLATES, TOKENIZER
from hpa_merge.checkpoint.shard import unreadable
from hpa_merge.checkpoint.sidefiles import SideFiles
from hpa_merge.errors import CheckpointError
from hpa_merge.files.inside import read_inside
from hpa_merge.files.parsing import CONFIG

__all__ = ["Overlay", "lay_over"]

OWN = ("adapter_config.json", "adapter_model.safetensors", "README.md", "config.json")
"""Files of an adapter's folder that nobody misses in OUT."""


@final
@dataclass(frozen=True, eq=False)
class Overlay:
    """An adapter, as its checkpoint sees it.

    Attributes:
        folder: where it lies.
        kind: what it is, for people.
        keys: the tensors that are computed.
        compute: gives one of them, from its name and what lies on disk under it, whose memory may be used again; for
            one thread.
        workspace: bytes that this takes beside the result, at most.
        files: the checkpoint's side files with it.
        own: those of them that lie in its folder, and not in the checkpoint's.
        state: what its files are known by, for a fingerprint.
        content: the content digest of its own tensors.
        close: gives its open files back.
    """

    folder: Path
    kind: str
    keys: frozenset[str]
    compute: Callable[[str, Tensor], Tensor]
    workspace: int
    files: SideFiles
    own: frozenset[Path]
    state: bytes
    content: str
    close: Callable[[], None]


def lay_over(below: SideFiles, above: SideFiles, folder: Path) -> tuple[SideFiles, frozenset[Path]]:
    """A checkpoint's side files with those of an adapter's ``folder`` in their place, and which the latter are.

    A tokenizer comes whole from one of the two, so that no file of the other one's contradicts it; so do templates.

    Raises:
        CheckpointError: the adapter's tokenizer_config.json cannot be read, or is too long.
    """
    taken = [path for path in above.copied if _is(path, TOKENIZER, TEMPLATES, PROCESSOR)]
    replaced = []
    if any(path.name.startswith("tokenizer") for path in taken):
        replaced.append(TOKENIZER)
    if any(_is(path, TEMPLATES) for path in taken) or _has_template(folder, taken):
        replaced.append(TEMPLATES)
    kept = [path for path in below.copied if not _is(path, *replaced)]
    left = [path for path in above.copied if path not in taken and len(path.parts) == 1 and path.name not in OWN]
    left += [path for path in above.left_out if len(path.parts) == 1 and path.name not in OWN]
    files = SideFiles(copied=tuple(sorted({*kept, *taken})), left_out=tuple(sorted({*below.left_out, *left})))
    return files, frozenset(taken)


def _is(path: Path, *patterns: re.Pattern[str]) -> bool:
    return any(pattern.fullmatch(path.as_posix()) for pattern in patterns)


def _has_template(folder: Path, taken: Iterable[Path]) -> bool:
    """Whether the tokenizer of the adapter's folder brings its template in tokenizer_config.json, as older ones do."""
    name = Path("tokenizer_config.json")
    try:
        return name in taken and b'"chat_template"' in read_inside(folder, name, CONFIG.size)
    except OSError as error:
        raise CheckpointError(unreadable(folder, "NEW", name.name, error)) from error

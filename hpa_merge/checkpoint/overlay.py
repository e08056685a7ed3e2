"""An adapter on top of a checkpoint: tensors that are computed when they are read, and side files."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from hpa_merge.checkpoint.kinds import PROCESSOR, TEMPLATES, TOKENIZER
from hpa_merge.checkpoint.shard import reading
from hpa_merge.checkpoint.sidefiles import SideFiles
from hpa_merge.checkpoint.weight_files import ADAPTER, ADAPTER_CONFIG
from hpa_merge.files.inside import read_inside
from hpa_merge.files.parsing import CONFIG

if TYPE_CHECKING:
    from torch import Tensor

    from hpa_merge.checkpoint.reader import Checkpoint

__all__ = ["Overlay", "lay_over"]

OWN = (ADAPTER_CONFIG, ADAPTER, "README.md", "config.json")
"""Files of an adapter's folder that OUT does not need."""


@final
@dataclass(frozen=True, eq=False)
class Overlay:
    """An adapter, as its checkpoint sees it.

    Attributes:
        folder: where it lies.
        kind: what it is, for people.
        keys: names of the tensors that are computed.
        compute: computes one of them from its name and its tensor on disk, whose memory it may reuse; for one thread.
        workspace: the most bytes that this takes in addition to the result.
        files: the side files of the checkpoint with the adapter.
        own: those side files that lie in the adapter's folder.
        state: identifies the adapter's files, for a fingerprint.
        content: the content digest of its own tensors.
        notes: what the user should know about it, a sentence each.
        merge_into: merges it into a model of OLD's that transformers has loaded.
        close: closes its open files.
        adapter: the adapter as :mod:`hpa_merge.model` has it.
        own_tensors: the checkpoint of its own tensors.
    """

    folder: Path
    kind: str
    keys: frozenset[str]
    compute: "Callable[[str, Tensor], Tensor]"
    workspace: int
    files: SideFiles
    own: frozenset[Path]
    state: bytes
    content: str
    notes: tuple[str, ...]
    merge_into: Callable[[Any], None]
    close: Callable[[], None]
    adapter: Any
    own_tensors: "Checkpoint"


def lay_over(below: SideFiles, above: SideFiles, folder: Path) -> tuple[SideFiles, frozenset[Path]]:
    """A checkpoint's side files with those of an adapter's ``folder`` on top; and the latter alone.

    The tokenizer comes from one of the two as a whole, so that its files do not contradict each other; so do templates.

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
    """Whether tokenizer_config.json in the adapter's folder holds a template, as in older tokenizers."""
    name = Path("tokenizer_config.json")
    with reading(folder, "NEW", name.name):
        return name in taken and b'"chat_template"' in read_inside(folder, name, CONFIG.size)

"""The code that checkpoints bring, for a user who trusts it: from their folders, and from the repositories they name.

Code in another repository is fetched into the Hub's cache, at one commit for the whole run; without the Hub, it comes
from the cache.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import final

from huggingface_hub import snapshot_download

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.custom_code.finding import Code, Part, Reference, find_references, read_part
from hpa_merge.errors import CheckpointError
from hpa_merge.files.parsing import CONFIG, read_json
from hpa_merge.inputs.hub import Source
from hpa_merge.inputs.hub_errors import reading
from hpa_merge.inputs.names import MODEL

__all__ = ["NONE", "Trust"]


@final
class Trust:
    """Whether the code of a run's checkpoints may be run; code that is not trusted is not read."""

    def __init__(self, trusted: bool, sources: Iterable[Source] = ()) -> None:
        """``sources``: the checkpoints of the run; code in one of their repositories is read at the same commit."""
        self._trusted = trusted
        self._sources = tuple(sources)
        self._fetched: dict[str, tuple[Path, str]] = {}

    def knowing(self, source: Source) -> "Trust":
        """The same for a run with one more checkpoint."""
        return Trust(self._trusted, (*self._sources, source))

    def code_of(self, folder: Path, role: str, home: Path | None = None) -> Code | None:
        """The code of the checkpoint in ``folder``; None if it brings none, or is not trusted.

        Args:
            home: where the files of code lie, if not in ``folder``.

        Raises:
            CheckpointError: a file of it cannot be read.
        """
        references = find_references(folder) if self._trusted else ()
        if not references:
            return None
        home = home or folder
        commit = next((each.commit for each in self._sources if each.folder == home), None)
        parts = {"": read_part("", commit or "", home, references, role)}
        for repository in sorted({each.repository for each in references} - {""}):
            parts[repository] = self._of_repository(repository, references, role)
        return Code(references, _architecture(folder), parts)

    def with_code(self, checkpoint: Checkpoint) -> Checkpoint:
        """``checkpoint`` with its code; raises as :meth:`code_of`."""
        if checkpoint.overlay is not None and not checkpoint.overlay.own:
            return checkpoint  # an adapter without side files: the code of its base
        with checkpoint.side_folder() as folder:
            code = self.code_of(folder, checkpoint.role, checkpoint.folder)
        return replace(checkpoint, code=code)

    def _of_repository(self, repository: str, references: Iterable[Reference], role: str) -> Part:
        """The code in another repository; if it cannot be read, a part that says why in ``lacking``."""
        if repository not in self._fetched:
            try:
                self._fetched[repository] = self._fetch(repository, role)
            except CheckpointError as error:
                return Part(repository, "", Path(), {}, lacking=str(error))
        folder, commit = self._fetched[repository]
        return read_part(repository, commit, folder, references, role)

    def _fetch(self, repository: str, role: str) -> tuple[Path, str]:
        """The folder in the cache with the code of a repository, and its commit: that of OLD or NEW if it is theirs.

        Raises:
            CheckpointError: it cannot be read.
        """
        for source in self._sources:
            if source.commit is not None and self._is(source, repository):
                return source.folder, source.commit
        with reading(f"{role}'s code in {repository}", repository, None):
            found = Path(snapshot_download(repository, allow_patterns=["*.py"]))
        return found, found.name

    @staticmethod
    def _is(source: Source, repository: str) -> bool:
        """Whether a checkpoint came from that repository."""
        match = MODEL.fullmatch(source.name) if source.commit is not None else None
        return match is not None and match["repo"] == repository


NONE = Trust(False)
"""No code is run."""


def _architecture(folder: Path) -> str:
    """The first class in ``architectures`` of config.json; empty if there is none, or no such file."""
    try:
        named = read_json(folder / "config.json", CONFIG)["architectures"][0]
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return named if isinstance(named, str) else ""

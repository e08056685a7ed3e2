"""The earlier merges of a model: the history in OLD's own report, if that report still describes OLD."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, final

import torch

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import CalibrationOptions
from hpa_merge.engine.drift import Counts, Piece, distances_from
from hpa_merge.errors import CheckpointError
from hpa_merge.files.names import REPORT
from hpa_merge.inputs.opening import open_checkpoint
from hpa_merge.inputs.own_code import Trust
from hpa_merge.inputs.tower import with_tower
from hpa_merge.report.records import RoundRecord
from hpa_merge.report.rounds import round_of
from hpa_merge.report.schema import read_report
from hpa_merge.report.validity import ROUNDS

if TYPE_CHECKING:
    from hpa_merge.model import MetaModel
    from hpa_merge.outline import Outline

__all__ = ["Lineage", "trace"]

ANEW = "the history starts again with this merge."
"""The end of a note about a report that does not describe OLD."""


@final
@dataclass(frozen=True)
class Lineage:
    """Where OLD comes from.

    Attributes:
        history: the earlier rounds, the first one first; empty if OLD is not one of our OUTs.
        contents: content digests of ``old`` and ``new``.
        notes: a sentence that says why there is no history although OLD has a report.
        first: the first aligned model, which is compared with OUT at the end; None if it was not given, or is OLD.
    """

    history: tuple[RoundRecord, ...]
    contents: Mapping[str, str]
    notes: tuple[str, ...] = ()
    first: Checkpoint | None = field(default=None, compare=False)

    def distances(
        self, new: Checkpoint, meta: "MetaModel | Outline", outs: Sequence[tuple[Piece, Counts]]
    ) -> list[float | None]:
        """``‖OUT − FIRST‖_F`` of each OUT, or None without ``first``; the rest is as in :func:`distances_from`."""
        if self.first is None or not outs:
            return [None] * len(outs)
        from hpa_merge.engine.meta_models import meta_model
        from hpa_merge.model import MetaModel

        assert isinstance(meta, MetaModel)  # an outline is only used without FIRST
        of_first = meta_model(self.first, torch.device("cpu"), self.first.external, type(meta.model))
        return list(distances_from(self.first, new, (of_first, meta), outs))


@contextmanager
def trace(
    old: Checkpoint,
    new: Checkpoint,
    first: Path | None,
    tower: Path | None,
    config: CalibrationOptions,
    trust: Trust,
) -> Iterator[Lineage]:
    """Find the earlier rounds of ``old``; ``first`` is open until the end of the block.

    Args:
        old, new: without a vision tower from another folder.
        first: folder of the first aligned model, if it was given.
        tower: folder of the vision tower, if it was given.
        config: only its ``conversation`` and ``dtype`` are used.
        trust: whether the code of ``first`` may be run.

    Raises:
        CheckpointError: ``first`` is not the model that the history began with; a checkpoint cannot be read.
    """
    contents = {"old": old.content_digest(), "new": new.content_digest()}
    history, notes = _history(old, contents["old"])
    lineage = Lineage(history, contents, notes)
    if first is None:
        yield lineage
        return
    with open_checkpoint(first, "FIRST", config.dtype, trust) as opened:
        _check_first(opened, history, contents["old"], notes)
        yield replace(lineage, first=with_tower(opened, tower, config)) if history else lineage


def _history(old: Checkpoint, content: str) -> tuple[tuple[RoundRecord, ...], tuple[str, ...]]:
    """The earlier rounds of OLD, whose content digest is ``content``; or a note why its report cannot be used."""
    if not os.path.lexists(old.folder / REPORT):
        return (), ()
    try:
        report = read_report(old.folder, "OLD")
        history = (*report.history, round_of(report))
        if len(history) > ROUNDS:
            return (), (f"OLD {old.folder} has a report of {ROUNDS} rounds, and none has more: {ANEW}",)
        replace(report, history=history).to_json().encode()  # the report of OUT will need this
    except (CheckpointError, ValueError, RecursionError) as error:
        reason = str(error).partition(": ")[2] if isinstance(error, CheckpointError) else f"{REPORT} cannot be written"
        return (), (f"OLD {old.folder} has a report that cannot be used ({reason.rstrip('.')}): {ANEW}",)
    there = report.run.contents.get("out")
    if there is None:
        return (), (f"OLD {old.folder} has a {REPORT} that does not say which weights it describes: {ANEW}",)
    if there != content:
        return (), (
            f"OLD {old.folder} has a {REPORT} of other weights than those in the folder (content digest {there[:12]} "
            f"in the report, {content[:12]} found), as after tuning in the same folder: {ANEW}",
        )
    return history, ()


def _check_first(first: Checkpoint, history: tuple[RoundRecord, ...], old: str, notes: tuple[str, ...]) -> None:
    """Raise CheckpointError unless ``first`` is the model that the history began with."""
    found = first.content_digest()
    wanted = history[0].contents.get("old") if history else old
    if found == wanted:
        return
    if history:
        raise CheckpointError(
            f"{first.role} {first.folder} is not the model that this history began with: round 1 had {history[0].old} "
            f"as OLD, with the content digest {str(wanted)[:12]}, and this one has {found[:12]}: give that model, or "
            "leave out --first."
        )
    first_round = "OLD is not an OUT of hpa-merge, so this merge is the first round and OLD the first model"
    why = notes[0] if notes else first_round
    raise CheckpointError(
        f"{first.role} {first.folder} is not OLD, and no history names it as the first model ({why.rstrip('.')}): "
        "leave out --first."
    )

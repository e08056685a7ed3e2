"""A file of samples as a model would get them: what a merge would draw of it, encode, cut and drop."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from hpa_merge.calibration import SampleSet
from hpa_merge.config import CalibrationOptions
from hpa_merge.engine.encoding import encoding
from hpa_merge.engine.meta_models import check_inputs, meta_model
from hpa_merge.inputs.models import open_model
from hpa_merge.inputs.own_code import Trust
from hpa_merge.inputs.tower import with_tower
from hpa_merge.progress import Progress, silent
from hpa_merge.report.planned import ShownSet
from hpa_merge.report.records import CalibrationRecord

__all__ = ["Showing", "show_samples"]


@final
@dataclass(frozen=True)
class Showing:
    """A set as the model gets it.

    Attributes:
        record: what would be used of the file.
        shown: its first samples.
        notes: what the user should know, a sentence each.
    """

    record: CalibrationRecord
    shown: ShownSet
    notes: tuple[str, ...]


def show_samples(
    file: str,
    given: SampleSet,
    folder: Path,
    purpose: str,
    config: CalibrationOptions,
    *,
    first: int,
    tower: Path | None,
    base: str | Path | None = None,
    trust_remote_code: bool = False,
    on_progress: Progress = silent,
) -> Showing:
    """What a model gets of a file.

    Args:
        given: what was drawn of the file.
        folder: the model's checkpoint.
        purpose: ``safety`` or ``task``, as which a merge would take the file.
        first: how many samples are shown.
        tower: folder of the vision tower, for a checkpoint in LLaVA's own layout.
        base: the model that an adapter was trained on, as in :func:`hpa_merge.inputs.models.open_model`.
        trust_remote_code: run the code that the model brings.
        on_progress: called before each sample is encoded.

    Raises:
        CalibrationError: a sample cannot be encoded, or has to fit and does not.
        CheckpointError: the folder is not a checkpoint of a model that reads text.
    """
    with open_model(folder, base, tower=tower, dtype=config.dtype, trust=Trust(trust_remote_code)) as opened:
        checkpoint = with_tower(opened, tower, config)
        with encoding(checkpoint, given, purpose, config, first) as begun:
            meta = meta_model(checkpoint, torch.device("cpu"), checkpoint.external)
            check_inputs(meta)
            begun.inputs(meta, on_progress)
    return Showing(
        begun.tally.record(file), ShownSet(purpose, begun.tally.shapes, tuple(begun.shown)), begun.tally.notes
    )

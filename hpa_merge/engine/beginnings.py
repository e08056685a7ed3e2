"""What a statistics file keeps of how its run began, so that a later one builds no model and encodes no sample.

The *beginning* of a run is what follows from the checkpoints and the files of samples before anything is computed: the
outline of both models, and what became of each sample. It is used again only if what it follows from is the same: for
the models, what the statistics depend on too; for the samples, :func:`state_of`. Everything else is computed anew.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any, final

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import CalibrationOptions
from hpa_merge.engine.sets import GivenSet
from hpa_merge.engine.statistics_place import DAMAGED
from hpa_merge.engine.tally import Tally
from hpa_merge.engine.template_file import read_template
from hpa_merge.engine.used_sample import UsedSample
from hpa_merge.files.statistics import open_statistics, telling_damage
from hpa_merge.outline import Outline, packed, unpacked
from hpa_merge.report.manifest import digest_of_file

__all__ = ["BEGINNING", "Beginning", "SetBeginning", "encoding_versions", "has_beginning", "read_beginning", "state_of"]

BEGINNING = "beginning"
"""Its name in the file."""

LIBRARIES = (
    *("hpa-merge", "torch", "transformers", "tokenizers", "jinja2", "pillow", "numpy", "torchvision", "av"),
    *("sentencepiece", "protobuf", "tiktoken", "mistral-common", "soundfile", "librosa"),
)
"""What reads tokenizers, templates and media."""


@final
@dataclass(frozen=True)
class SetBeginning:
    """What became of the samples of one set.

    Attributes:
        state: of what it follows from, as :func:`state_of` gives it.
        used: the samples that are used.
        counted: the state of their tally.
    """

    state: str
    used: tuple[UsedSample, ...]
    counted: dict[str, Any]

    def tally(self, purpose: str, given: GivenSet) -> Tally:
        """The tally of the set; errors as :meth:`Tally.restored`."""
        return Tally.restored(purpose, given.samples, self.counted)


@final
@dataclass(frozen=True)
class Beginning:
    """The beginning of a run.

    Attributes:
        models: the outlines of OLD and NEW.
        sets: of the safety and the task samples.
    """

    models: tuple[Outline, Outline]
    sets: tuple[SetBeginning, SetBeginning]

    def fits(self, place: int, checkpoint: Checkpoint, given: GivenSet) -> bool:
        """Whether a model and its samples name nothing that the checkpoint and the set lack."""
        model, tensors = self.models[place], checkpoint.tensors
        linears = {linear.key for linear in model.linears.values()}
        named = {*model.slots, *model.components, *model.unknown, *model.rest, *chain(*model.keys.values())}
        return (
            named <= tensors.keys()
            and linears <= model.slots.keys() & model.components.keys() & model.places.keys()
            and all(len(tensors[key].shape) > 1 for key in linears)
            and model.keys.keys() == {unit.name for unit in model.units}
            and all(0 <= each.place < len(given.samples.samples) for each in self.sets[place].used)
        )

    def description(self) -> dict[str, Any]:
        """In JSON types, with a digest of all of it."""
        old, new = map(packed, self.models)
        content = {
            "models": [old, None if new == old else new],
            "sets": [
                {"state": each.state, "used": [list(asdict(s).values()) for s in each.used], "counted": each.counted}
                for each in self.sets
            ],
        }
        return {**content, "digest": _digest(content)}


def read_beginning(path: Path) -> Beginning | None:
    """The beginning in the statistics file at ``path``; None without one, as in files of earlier versions.

    Raises:
        StatisticsError: the file is damaged, or is not a statistics file.
    """
    with telling_damage(path, DAMAGED):
        if not path.exists():
            return None
        with open_statistics(path, "np") as (_, described):
            content = described.get(BEGINNING)
            return None if content is None else _unpacked(content)
    return None


def has_beginning(path: Path) -> bool:
    """Whether the statistics file at ``path`` has one; errors as :func:`read_beginning`."""
    with telling_damage(path, DAMAGED):
        if path.exists():
            with open_statistics(path, "np") as (_, described):
                return BEGINNING in described
    return False


def _unpacked(content: Mapping[str, Any]) -> Beginning:
    """What :meth:`Beginning.description` gave.

    Raises:
        KeyError, LookupError, TypeError, ValueError: the content is damaged.
    """
    if _digest({name: content[name] for name in ("models", "sets")}) != content["digest"]:
        raise ValueError("its beginning does not have the SHA-256 that it was written with")
    old, new = content["models"]
    outline = unpacked(old)
    safety, task = (
        SetBeginning(str(each["state"]), tuple(UsedSample(*sample) for sample in each["used"]), dict(each["counted"]))
        for each in content["sets"]
    )
    return Beginning((outline, unpacked(old if new is None else new)), (safety, task))


def state_of(checkpoint: Checkpoint, given: GivenSet, purpose: str, config: CalibrationOptions) -> str:
    """A digest of everything that the encoded samples follow from; the media are read.

    These are the samples, the checkpoint's configuration and side files, the options, and the libraries' versions.

    Raises:
        CheckpointError: a side file can no longer be read.
        OSError: a medium can no longer be read.
    """
    options = {name: value for name, value in asdict(config).items() if name != "compute_dtype"}
    state = hashlib.sha256(json.dumps([purpose, options, checkpoint.config]).encode())
    state.update(repr(read_template(config.chat_template, config.template_arg, config.template_date)).encode())
    state.update(json.dumps(dict.fromkeys(LIBRARIES, "") | encoding_versions()).encode())
    for path in checkpoint.side_files().copied:
        with checkpoint.open_side_file(path) as file:
            state.update(f"{path.as_posix()} {digest_of_file(file)} ".encode())
    for path in checkpoint.side_files().left_out:
        status = (checkpoint.folder / path).stat()
        state.update(f"{path.as_posix()} {status.st_size} {status.st_mtime_ns} ".encode())
    for sample in given.samples.samples:
        state.update(json.dumps(asdict(sample), default=_content, sort_keys=True).encode())
    return state.hexdigest()


def _content(value: Any) -> Any:
    """What JSON cannot hold of a sample: the bytes of a medium, by their digest."""
    if isinstance(value, Path):
        with value.open("rb") as file:
            return [str(value), digest_of_file(file)]
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return repr(value)


def encoding_versions() -> dict[str, str]:
    """Versions of :data:`LIBRARIES`, as far as they are installed."""
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

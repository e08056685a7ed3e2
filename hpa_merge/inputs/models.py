"""A model that is asked or shown: the folder of a checkpoint, or of an adapter, which needs the model under it."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

from torch import Tensor

from hpa_merge.checkpoint import Checkpoint, is_adapter
from hpa_merge.checkpoint.folder import read_json
from hpa_merge.checkpoint.weight_files import ADAPTER_CONFIG
from hpa_merge.custom_code.finding import Code
from hpa_merge.errors import CheckpointError
from hpa_merge.inputs.hub import locate
from hpa_merge.inputs.opening import open_checkpoint, open_new
from hpa_merge.inputs.own_code import NONE, Trust

__all__ = ["Loadable", "loadable", "open_model"]

ROLES_HERE = {"NEW": "MODEL", "OLD": "its base"}
"""What the roles of a merge are called where a model is asked."""

ROLES = re.compile(r"(?<![\w./-])(NEW|OLD)(?![\w./-]*[\w/-])")
"""A role in a message, and not a part of a path."""


@final
@dataclass(frozen=True)
class Loadable:
    """A model for transformers to load.

    Attributes:
        side: the folder of its configuration, tokenizer and processor.
        weights: the folder of the checkpoint.
        merge_into: what has to be done to the loaded model; None for nothing.
        code: the code that it brings, if that is trusted.
        tensors: reads all its tensors, if these are not those on disk; its config.json is then in ``side``.
    """

    side: Path
    weights: Path
    merge_into: Callable[[Any], None] | None = None
    code: Code | None = None
    tensors: Callable[[], dict[str, Tensor]] | None = None


@contextmanager
def loadable(
    folder: Path, base: str | Path | None, otherwise: str | Path | None, trust: Trust = NONE
) -> Iterator[Loadable]:
    """What transformers has to load for a model; arguments and errors are those of :func:`open_model`."""
    if not is_adapter(folder):
        yield Loadable(folder, folder, code=trust.code_of(folder, "MODEL"))
        return
    with open_model(folder, base, otherwise, trust=trust) as model, model.side_folder() as side:
        assert model.overlay is not None
        if model.unpacking is None:
            yield Loadable(side, model.folder, model.overlay.merge_into, model.code)
        else:
            yield Loadable(side, model.folder, code=model.code, tensors=partial(_read_all, model))


@contextmanager
def open_model(
    folder: Path,
    base: str | Path | None,
    otherwise: str | Path | None = None,
    tower: Path | None = None,
    dtype: str = "auto",
    trust: Trust = NONE,
) -> Iterator[Checkpoint]:
    """Open a checkpoint, or an adapter on its base.

    Args:
        base: the model that an adapter was trained on, a folder or a name on the Hub; None for the one that its
            configuration names, if that is a folder here.
        otherwise: the base if it is not known from these.
        tower: folder of the vision tower, for LLaVA's own layout.
        dtype: as in :func:`hpa_merge.inputs.opening.open_checkpoint`.
        trust: whether the code that it brings may be run.

    Raises:
        CheckpointError: it is not a whole checkpoint; the base is not found, or the adapter does not fit it.
        NumericalError: a tensor of the adapter holds NaN or infinity.
    """
    if not is_adapter(folder):
        with open_checkpoint(folder, "MODEL", dtype, trust) as opened:
            yield opened
        return
    (source,) = locate({"BASE": _find_base(folder, base, otherwise)})
    trust = trust.knowing(source)
    with open_checkpoint(source.folder, "BASE", dtype, trust) as below:
        try:
            opened = open_new(folder, below, dtype, tower, "MODEL", trust)
        except CheckpointError as error:  # its sentences are written for a merge
            raise CheckpointError(ROLES.sub(lambda role: ROLES_HERE[role[0]], str(error))) from error
        with opened:
            yield opened


def _read_all(model: Checkpoint) -> dict[str, Tensor]:
    return {name: model.read(name) for name in model.tensors}


def _find_base(folder: Path, given: str | Path | None, otherwise: str | Path | None) -> str | Path:
    """The base of an adapter; arguments and errors are those of :func:`open_model`."""
    if given is not None:
        return given
    config = read_json(folder, "MODEL", ADAPTER_CONFIG) if (folder / ADAPTER_CONFIG).exists() else {}
    name = config.get("base_model_name_or_path")
    if isinstance(name, str) and name and _is_folder(Path(name)):
        return Path(name)
    if otherwise is not None:
        return otherwise
    named = f"{name} is not a folder here" if isinstance(name, str) and name.isprintable() and name else "it names none"
    raise CheckpointError(
        f"MODEL {folder} is an adapter, and the model that it was trained on is not known ({named}): give that model "
        "with --base."
    )


def _is_folder(path: Path) -> bool:
    """``path.is_dir()``, also for a name that is too long for the file system, or none at all."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False

"""Which class a model has: transformers' own or, if the user trusts it, that of the checkpoint's own code."""

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedModel

from hpa_merge.custom_code.finding import Code, find_model, find_references, untrusted
from hpa_merge.custom_code.running import class_of
from hpa_merge.errors import CheckpointError
from hpa_merge.model.architecture import candidates

__all__ = ["check_trusted", "classes_of", "read_model_config"]


def read_model_config(folder: Path, role: str, code: Code | None) -> Any:
    """The configuration of ``folder``; with ``code``, within :func:`hpa_merge.custom_code.running.running`.

    Raises:
        Exception: whatever transformers or the code raises.
        CheckpointError: the configuration is one of code that may not be run.
    """
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=code is not None)
    except ValueError as error:
        if code is None and any(each.auto == "AutoConfig" for each in find_references(folder)):
            raise CheckpointError(_untrusted(folder, role, "configuration")) from error
        raise


def classes_of(config: Any, folder: Path, role: str, code: Code | None) -> list[type[PreTrainedModel]]:
    """The classes that may read a checkpoint with that configuration, at least one, in the order to try them.

    The arguments are those of :func:`read_model_config`, and ``config`` is its result.

    Raises:
        CheckpointError: there is none, or only one of code that may not be run.
        Exception: whatever the code raises.
    """
    name = (config.architectures or ["(none)"])[0]
    reference = None if code is None else code.model
    if code is None or reference is None:
        if tried := candidates(config):
            return tried
        check_trusted(config, folder, role, code)
        raise CheckpointError(
            f"{role}'s architecture is {name}, which transformers {transformers.__version__} does not have: "
            "install a version that does."
        )
    found = class_of(code, reference)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        raise CheckpointError(
            f"{role}'s own code has {reference.name} in {reference.path}, which is not a PreTrainedModel: auto_map in "
            "config.json has to name a model."
        )
    return [found]


def check_trusted(config: Any, folder: Path, role: str, code: Code | None) -> None:
    """Raise CheckpointError if the checkpoint brings a class for its model that may not be run."""
    name = (config.architectures or ["(none)"])[0]
    if code is None and find_model(find_references(folder), name) is not None:
        raise CheckpointError(_untrusted(folder, role, f"architecture {name}"))


def _untrusted(folder: Path, role: str, what: str) -> str:
    """The refusal of code for a model that the user has not trusted."""
    return untrusted(role, what, (each for each in find_references(folder) if each.of_models))

"""An adapter whose configuration holds regular expressions is first built in a child process, with limits.

peft matches them against the names of the model's modules, and a regular expression can take for ever. What came to an
end there comes to an end here too: the configuration, the names and peft are the same.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpa_merge.errors import CheckpointError
from hpa_merge.isolation import Child, Limits, Stopped
from hpa_merge.model.conversion import Header

__all__ = ["try_adapter"]

SERVICE = "hpa_merge.model.adapter_service:AdapterService"

BUILDING = Limits(computing=60.0, waiting=600.0)
"""A model of 126 layers with a LoRA on each of its linears takes some seconds."""

MEMORY = 2**33
"""Bytes for the model and the adapter on the meta device, which take no memory for their tensors: 8 GiB."""

REPEATING = frozenset("*+?{|")
"""Without one of these a regular expression is gone through once."""


def try_adapter(folder: Path, config: Mapping[str, Any], own: Header, base: Path, header: Header) -> None:
    """Build the adapter in a child where its configuration has regular expressions; the arguments are Adapter's.

    Raises:
        CheckpointError: it cannot be built, or that takes too much.
    """
    if not any(REPEATING.intersection(text) for text in _strings(config)):
        return
    child = Child(SERVICE, MEMORY)
    try:
        child.call("build", folder, dict(config), dict(own), base, dict(header), limits=BUILDING)
    except Stopped as stopped:
        raise CheckpointError(
            f"NEW {folder} is an adapter whose adapter_config.json takes too much to be matched with OLD's modules "
            f"({stopped}): write target_modules, and what else is a regular expression there, as lists of names."
        ) from stopped
    finally:
        child.close()


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)

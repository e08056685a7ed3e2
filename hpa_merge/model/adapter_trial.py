"""An adapter is first built in a child process, with limits, unless its configuration is plain and short.

peft matches what it says against the names of the model's modules, one by one: a regular expression can take for ever,
and so can a hundred thousand names. What came to an end there comes to an end here too: the configuration, the names
and peft are the same.
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

PLAIN = 4096
"""Characters of a configuration without them that is read here: it names some dozens of modules."""


def try_adapter(folder: Path, config: Mapping[str, Any], own: Header, base: Path, header: Header) -> None:
    """Build the adapter in a child where its configuration has regular expressions or is long.

    The arguments are Adapter's.

    Raises:
        CheckpointError: it cannot be built, or that takes too much.
    """
    texts = list(_strings(config))
    if sum(map(len, texts)) <= PLAIN and not any(map(REPEATING.intersection, texts)):
        return
    child = Child(SERVICE, MEMORY)
    try:
        child.call("build", folder, dict(config), dict(own), base, dict(header), limits=BUILDING)
    except Stopped as stopped:
        raise CheckpointError(
            f"NEW {folder} is an adapter whose adapter_config.json takes too much to be matched with OLD's modules "
            f"({stopped}): write target_modules, and what else is a regular expression there, as short lists of names."
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

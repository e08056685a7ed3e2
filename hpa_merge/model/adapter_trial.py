"""Try an adapter in a child process with limits, unless its configuration is plain and short.

peft matches the configuration against the names of the model's modules, one by one. A regular expression can take
forever, and so can a hundred thousand names. If the child finishes, this process finishes too, because the
configuration, the names and peft are the same.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpa_merge.custom_code.finding import Code
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
"""Without one of these signs, matching a regular expression takes linear time."""

PLAIN = 4096
"""The most characters of a configuration without such signs that is read here: it names some dozens of modules."""


def try_adapter(
    folder: Path,
    config: Mapping[str, Any],
    own: Header,
    base: Path,
    header: Header,
    tower: Path | None,
    code: Code | None,
) -> None:
    """Build the adapter in a child if its configuration has regular expressions or is long.

    The arguments are Adapter's.

    Raises:
        CheckpointError: it cannot be built, or that takes too much time or memory.
    """
    texts = list(_strings(config))
    if sum(map(len, texts)) <= PLAIN and not any(map(REPEATING.intersection, texts)):
        return
    child = Child(SERVICE, MEMORY)
    try:
        child.call("build", folder, dict(config), dict(own), base, dict(header), tower, code, limits=BUILDING)
    except Stopped as stopped:
        raise CheckpointError(
            f"NEW {folder} is an adapter whose adapter_config.json cannot be matched with OLD's modules ({stopped}): "
            "write target_modules, and every other regular expression there, as short lists of names."
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

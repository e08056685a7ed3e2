"""The index of a sharded checkpoint against its shards.

transformers takes only the names of the shards from an index, and loads every tensor in them. So an index may name
tensors that no shard has, and leave out others, for years. OUT's index says what is in OUT's shards.
"""

import codecs
import json
from collections.abc import Mapping
from typing import Any

from hpa_merge.checkpoint.shard import TensorInfo
from hpa_merge.counting import counted

__all__ = ["corrected", "mistakes"]


def mistakes(content: bytes, parsed: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> list[str]:
    """What an index says wrongly, each the end of a sentence that begins with its name; empty if nothing.

    Args:
        content: its bytes.
        parsed: its value, with a ``weight_map``.
        tensors: what its shards have.
    """
    weight_map: Mapping[str, str] = parsed["weight_map"]
    found = []
    if absent := sorted(weight_map.keys() - tensors.keys()):
        found.append(f"names {_some(absent)} that no file of it has")
    if unnamed := sorted(tensors.keys() - weight_map.keys()):
        found.append(f"does not name {_some(unnamed)} of its files, which transformers loads all the same")
    if moved := sorted(name for name, info in tensors.items() if weight_map.get(name, info.shard) != info.shard):
        found.append(f"says that {moved[0]} is in {weight_map[moved[0]]}, and it is in {tensors[moved[0]].shard}")
    if not isinstance(parsed.get("metadata"), dict):
        found.append("has no metadata, without which transformers does not load it")
    if content.startswith(codecs.BOM_UTF8):
        found.append("begins with a byte order mark, with which transformers does not load it")
    return found


def corrected(parsed: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> bytes:
    """The index of these tensors, with the further content of ``parsed``."""
    metadata = parsed.get("metadata")
    total = {"total_size": sum(info.nbytes for info in tensors.values())}
    content = {
        **parsed,
        "metadata": (metadata if isinstance(metadata, dict) else {}) | total,
        "weight_map": {name: tensors[name].shard for name in sorted(tensors)},
    }
    return (json.dumps(content, indent=2) + "\n").encode()


def _some(names: list[str]) -> str:
    return f"the tensor {names[0]}" if len(names) == 1 else f"{counted(len(names), 'tensor')}, such as {names[0]},"

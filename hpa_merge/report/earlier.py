"""The fields of earlier schemas that were renamed."""

from collections.abc import Mapping
from typing import Any

__all__ = ["RENAMED", "brought_up"]

RENAMED: Mapping[int, Mapping[str, Mapping[str, str]]] = {
    1: {
        "linears": {
            "n_keep": "n_restored",
            "kept": "restored",
            "kept_share": "restored_share",
            "energy_put_back": "energy_restored",
        },
        "history": {"put_back": "restored_share", "energy_put_back": "energy_restored"},
    },
}
"""By version: the list that has the fields, and each field's name in that version and in the next one."""


def brought_up(content: dict[str, Any]) -> dict[str, Any]:
    """A report, parsed from JSON, with the field names of the present schema."""
    version = content["schema_version"]
    while isinstance(version, int) and version in RENAMED:
        for place, names in RENAMED[version].items():
            if isinstance(entries := content.get(place), list):
                content = content | {place: [_renamed(entry, names) for entry in entries]}
        version += 1
        content = content | {"schema_version": version}
    return content


def _renamed(entry: Any, names: Mapping[str, str]) -> Any:
    return {names.get(name, name): value for name, value in entry.items()} if isinstance(entry, dict) else entry

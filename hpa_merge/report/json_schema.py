"""The JSON Schema of ``hpa_report.json``, made from the records: ``python -m hpa_merge.report.json_schema FILE``.

A test checks that docs/hpa_report.schema.json is its output.
"""

import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hpa_merge.report.schema import SCHEMA_VERSION, MergeReport
from hpa_merge.report.verdict import Verdict

__all__ = ["report_schema", "schema_text"]

PRIMITIVES: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def report_schema() -> dict[str, Any]:
    """The schema: every field with its type and its description from the record's docstring."""
    definitions: dict[str, Any] = {}
    whole = _record(MergeReport, definitions)
    whole["properties"] = {
        "schema_version": {"const": SCHEMA_VERSION, "description": "version of the schema."},
        "verdict": _of(Verdict, definitions)
        | {"description": "the answer; follows from the rest, not in old reports."},
        **whole["properties"],
        "warnings": {"type": "array", "items": {"type": "string"}, "description": "sentences for the user."},
    }
    whole["required"] = ["schema_version", *whole["required"], "warnings"]
    return {"$schema": DIALECT, "title": "hpa_report.json of hpa-merge", **whole, "$defs": definitions}


def schema_text() -> str:
    """The text of the file."""
    return json.dumps(report_schema(), indent=1, ensure_ascii=False) + "\n"


def _record(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a dataclass; those of its parts go to ``definitions``. Later versions may have more fields."""
    hints, said = get_type_hints(kind), _said(inspect.getdoc(kind) or "")
    properties, required = {}, []
    for item in dataclasses.fields(kind):
        properties[item.name] = _of(hints[item.name], definitions)
        if about := said.get(item.name):
            properties[item.name]["description"] = about
        if item.default is item.default_factory is dataclasses.MISSING:
            required.append(item.name)
    return {
        "type": "object",
        "description": (inspect.getdoc(kind) or "").partition("\n")[0],
        "properties": properties,
        "required": required,
    }


def _of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is UnionType:
        return {"anyOf": [_of(argument, definitions) for argument in arguments]}
    if origin is tuple:
        return {"type": "array", "items": _of(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(arguments[1], definitions)}
    if dataclasses.is_dataclass(kind):
        name = getattr(kind, "__name__", "")
        if name not in definitions:
            definitions[name] = {}  # keeps the order: before its parts
            definitions[name] = _record(kind, definitions)
        return {"$ref": f"#/$defs/{name}"}
    return {"type": PRIMITIVES[kind]}


def _said(docstring: str) -> dict[str, str]:
    """The descriptions in the ``Attributes`` of a docstring, by field."""
    _, _, section = docstring.partition("Attributes:\n")
    said: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if entry := re.fullmatch(r" {4}(\w+(?:, \w+)*): (.*)", line):
            names = entry[1].split(", ")
            said |= dict.fromkeys(names, entry[2])
        elif line.strip():
            said |= {name: f"{said[name]} {line.strip()}" for name in names}
    return {name: re.sub(r":\w+:`[~.]*([^`]+)`", r"\1", text).replace("``", "`") for name, text in said.items()}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema_text(), encoding="utf-8")

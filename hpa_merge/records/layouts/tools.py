"""Tools that a conversation offers, and calls of them, as chat templates take both."""

from collections.abc import Mapping
from typing import Any

from hpa_merge.files.parsing import LINE, parse_data
from hpa_merge.records.fields import Fields, is_empty

__all__ = ["calls_of", "parsed", "take_tools"]

TOOLS = ("tools", "functions")


def take_tools(fields: Fields) -> tuple[Mapping[str, Any], ...]:
    """The record's tools, from an array or from its JSON in a string; each ``{"type": "function", "function": …}``.

    Raises:
        CalibrationError: they are neither.
    """
    name = fields.filled(*TOOLS)
    if name is None:
        return ()
    value = parsed(fields.take(name))
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise fields.error(f"{fields.named(name)} is no array of tools: give objects with a name, or their JSON.")
    tools = []
    for each in value:
        inner = each.get("function") if each.get("type", "function") == "function" else None
        if isinstance(inner, Mapping) and inner.get("name"):
            tools.append(each)
        elif "function" not in each and each.get("name"):
            tools.append({"type": "function", "function": {key: v for key, v in each.items() if key != "type"}})
        else:
            raise fields.error(f'{fields.named(name)} has a tool without a name: give {{"name": …, "parameters": …}}.')
    return tuple(tools)


def calls_of(fields: Fields, value: Any, name: str) -> tuple[Mapping[str, Any], ...]:
    """The calls in a value: an array, one object, or the JSON of either.

    Raises:
        CalibrationError: it is no call.
    """
    value = parsed(value)
    if is_empty(value):
        return ()
    calls = value if isinstance(value, list) else [value]
    return tuple(_call(fields, call, name) for call in calls)


def _call(fields: Fields, value: Any, name: str) -> Mapping[str, Any]:
    """One call, ``{"name", "arguments"}`` or OpenAI's with ``"function"`` around it."""
    if isinstance(value, Mapping):
        outer = fields.within(value, f"a call in {fields.named(name)}")
        function = outer.take("function") if "function" in outer else None
        call = outer.within(function, outer.where) if isinstance(function, Mapping) else outer
        called = call.take("name")
        arguments = parsed(call.take(call.filled("arguments", "parameters") or "arguments"))
        arguments = {} if arguments is None else arguments
        if isinstance(called, str) and called and isinstance(arguments, Mapping):
            identity = {"id": str(outer.take("id"))} if outer.filled("id") else {}
            outer.take("type")
            return {**identity, "type": "function", "function": {"name": called, "arguments": dict(arguments)}}
    raise fields.error(
        f'{fields.named(name)} has a call that cannot be read: write {{"name": "…", "arguments": {{…}}}}, the '
        "arguments as an object or as its JSON."
    )


def parsed(value: Any) -> Any:
    """The value of JSON in a string; another value, or a string that is none, as it is."""
    if not isinstance(value, str):
        return value
    try:
        return parse_data(value, LINE) if value.strip() else None
    except ValueError:
        return value

"""transformers' own tables of models, read from its source, because importing it takes seconds.

Where the source is not as expected, transformers is imported, or nothing is known.
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

__all__ = ["classes_in", "classes_of", "is_own_class", "is_unknown_type", "version_of_transformers"]

CLASSES = "transformers.models.auto.modeling_auto"
TYPES = ("auto_mappings", "configuration_auto")
"""The modules that hold the types of models."""


@cache
def classes_of(table: str) -> frozenset[str]:
    """The names of the classes in one of the tables of models, such as ``MODEL_FOR_CAUSAL_LM_MAPPING_NAMES``."""
    if CLASSES not in sys.modules and (found := classes_in(_source("modeling_auto"), table)):
        return found
    return frozenset(getattr(import_module(CLASSES), table).values())


def is_unknown_type(model_type: str) -> bool:
    """Whether no table has that ``model_type`` of a config.json; False if the tables cannot be found."""
    sources = [*filter(None, map(_source, TYPES))]
    return len(sources) == len(TYPES) and not any(f'"{model_type}"' in source for source in sources)


def is_own_class(model_type: str, name: str) -> bool:
    """Whether a table has that class for that type of model; False if the tables cannot be found."""
    return f'("{model_type}", "{name}")' in _source("modeling_auto")


def version_of_transformers() -> str:
    """The version that is installed; empty without one."""
    try:
        return version("transformers")
    except PackageNotFoundError:
        return ""


@cache
def _source(module: str) -> str:
    """The source of a module of ``transformers.models.auto``; empty if it cannot be read."""
    package = find_spec("transformers")
    for place in (package.submodule_search_locations or ()) if package is not None else ():
        try:
            return Path(place, "models", "auto", f"{module}.py").read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
    return ""


def classes_in(source: str, table: str) -> frozenset[str]:
    """The classes in a table of literal pairs, which may take in other tables; empty if the source has none such."""
    found = re.search(rf"^{table} = (\w+\(.*?^\))", source, re.MULTILINE | re.DOTALL)
    if found is None:
        return frozenset()

    def names() -> Iterator[str]:
        for node in ast.walk(ast.parse(found[1])):
            match node:
                case ast.Tuple(elts=[ast.Constant(value=str()), ast.Constant(value=str() as name)]):
                    yield name
                case ast.Name(id=other) if other != table and other.endswith("_NAMES"):
                    yield from classes_in(source, other)

    return frozenset(names())

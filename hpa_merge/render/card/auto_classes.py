"""Which models each of transformers' auto classes loads: its own tables, read without importing it.

The import takes seconds, and the card needs no more than these names. Where the source is not as expected, it is
imported.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

__all__ = ["classes_of", "names_in"]

MODULE = "transformers.models.auto.modeling_auto"


@cache
def classes_of(table: str) -> frozenset[str]:
    """The names of the classes in one of the tables, such as ``MODEL_FOR_CAUSAL_LM_MAPPING_NAMES``."""
    if MODULE not in sys.modules and (found := names_in(_tables(), table)):
        return found
    return frozenset(getattr(import_module(MODULE), table).values())


@cache
def _tables() -> Mapping[str, ast.expr]:
    """The expression of each table in the source of transformers; none if it cannot be found or parsed."""
    package = find_spec("transformers")
    for place in (package.submodule_search_locations or ()) if package is not None else ():
        try:
            source = Path(place, *MODULE.split(".")[1:]).with_suffix(".py").read_text(encoding="utf-8")
            body = ast.parse(source).body
        except (OSError, ValueError, SyntaxError):
            continue
        return {
            target.id: node.value
            for node in body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
    return {}


def names_in(tables: Mapping[str, ast.expr], table: str) -> frozenset[str]:
    """The names of classes in a table of literal pairs, which may take in other tables; empty if it is another."""

    def names(node: ast.expr) -> Iterator[str]:
        for each in ast.walk(node):
            match each:
                case ast.Tuple(elts=[ast.Constant(value=str()), ast.Constant(value=str() as name)]):
                    yield name
                case ast.Name(id=other) if other != table and other in tables:
                    yield from names_in(tables, other)

    return frozenset(names(tables[table])) if table in tables else frozenset()

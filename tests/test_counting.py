"""Singular and plural, and that no sentence of the package has a plural of its own behind a number."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from package_files import FILES, ROOT

from hpa_merge.counting import counted, plural, singular


@pytest.mark.parametrize(
    ("count", "thing", "verb", "text"),
    [
        (1, "weight file", "", "1 weight file"),
        (2, "weight file", "", "2 weight files"),
        (0, "tensor", "", "0 tensors"),
        (3, "norm, bias or scalar", "", "3 norms, biases or scalars"),
        (1, "convolution or other", "", "1 convolution or other"),
        (2, "tensor from NEW", "", "2 tensors from NEW"),
        (2, "entry", "", "2 entries"),
        (4, "tied", "", "4 tied"),
        (2, "unknown to the model", "", "2 unknown to the model"),
        (1, "value", "differ", "1 value differs"),
        (2, "value of these linears", "depend", "2 values of these linears depend"),
        (1, "row", "are", "1 row is"),
    ],
)
def test_a_number_and_its_thing(count: int, thing: str, verb: str, text: str) -> None:
    assert counted(count, thing, verb) == text


@pytest.mark.parametrize("thing", ["weight file", "tensor from OLD", "adapted linear", "entry", "box"])
def test_the_singular_of_a_plural(thing: str) -> None:
    assert singular(plural(thing)) == thing


THINGS = (
    *("answers", "attacks", "cells", "channels", "columns", "experts", "files", "folders", "images", "layers"),
    *("linears", "merges", "models", "names", "prompts", "refusals", "rows", "samples", "settings", "tensors"),
    *("tokens", "units", "updates", "values"),
)

COUNT = re.compile(r"(len|sum)\(.*\)|(.*\.)?\w*(count|samples)")
"""An expression that is a count, by its looks."""


def bare_plurals(source: str) -> Iterator[tuple[int, str]]:
    """Each count in an f-string that a plural follows: its line, and its expression."""
    for node in ast.walk(ast.parse(source)):
        for number, after in pairwise(node.values) if isinstance(node, ast.JoinedStr) else ():
            if not isinstance(number, ast.FormattedValue) or number.format_spec is not None:
                continue
            text, expression = str(getattr(after, "value", "")), ast.unparse(number.value)
            if COUNT.fullmatch(expression) and re.match(rf" (?:[a-z]+ )?(?:{'|'.join(THINGS)})\b", text):
                yield node.lineno, expression


def test_a_bare_plural_is_found() -> None:
    assert list(bare_plurals('f"{len(files)} weight files and {size:.1f} samples of the {purpose} samples"')) == [
        (1, "len(files)")
    ]


def test_every_count_is_made_by_the_one_function() -> None:
    found = [
        f"{file}:{line}: {expression}"
        for file in FILES
        for line, expression in bare_plurals((ROOT / file).read_text(encoding="utf-8"))
    ]
    assert found == []

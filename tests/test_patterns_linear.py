"""Every regular expression of the package takes time in proportion to the text, whatever a stranger writes there."""

import ast
import importlib
import pkgutil
import re
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import pytest
from measured import measured

import hpa_merge

pytestmark = pytest.mark.gate

ROOT = Path(hpa_merge.__file__).parent

LENGTH, SHORT = 2**16, 2**11
"""Characters of a text. Half of the longer one's square is 2 * 10**9 steps, which take many seconds."""

SLOWEST = 5
"""Short texts whose long form is tried too."""

HEADS = (
    "",
    "---\n",
    "from .",
    "from .a import b",
    "from .a",
    '"a',
    '"a--',
    "'",
    "/home/",
    "~",
    "http://",
    ", trained on ",
    "answer",
    "A",
)
"""What may begin a match, so that the repetition behind it is come to."""

UNITS = (
    *"\n\t .-_/:\\~'\"`(*[<>=,;&|#@0aZ",
    " a",
    "a ",
    "a.",
    ".a",
    "a/",
    "/a",
    "~/",
    "a:",
    "a-",
    "a_",
    "\n ",
    "a\n",
    "--",
)
"""What a text repeats."""

ENDS = ("", "!", "\n")
"""What keeps a match from coming to its end."""

SCANS = ("search", "match", "fullmatch", "findall", "finditer", "split", "sub")
"""The methods of a pattern."""

NAME = 2**8
"""Characters of the name of a file; the system has none that is longer."""

NAMES = "hpa_merge.checkpoint.kinds."
"""Where the patterns are that are held against names of files."""

OF_TEXTS = (".BETWEEN",)
"""Patterns of kinds.py that are held against texts, and not against names of files."""

CPU = 1.0
"""Seconds for one text: some thousandths where the pattern is linear."""


def sources() -> Iterator[tuple[Path, ast.Call]]:
    """Every call in the package whose function is an attribute, and its file."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                yield path, node


def compiled() -> dict[str, tuple[re.Pattern[str], tuple[str, ...]]]:
    """The patterns of the package and the methods that are called, by place.

    Those that modules hold, and constants that are given to :mod:`re`. A pattern whose methods are called by another
    name is one of a list that names of files are held against, whole.
    """
    calls = list(sources())
    used = {(ast.unparse(node.func.value), node.func.attr) for _, node in calls if isinstance(node.func, ast.Attribute)}
    found = {}
    for module in pkgutil.walk_packages([str(ROOT)], "hpa_merge."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
                methods = tuple(method for method in SCANS if (name, method) in used)
                found[f"{module.name}.{name}"] = value, methods or ("fullmatch",)
    for path, node in calls:
        method, pattern = ast.unparse(node.func), node.args[0] if node.args else None
        if method.removeprefix("re.") in SCANS and method.startswith("re.") and isinstance(pattern, ast.Constant):
            place = f"{path.relative_to(ROOT)}:{node.lineno}"
            found[place] = re.compile(pattern.value), (method.removeprefix("re."),)
    return found


def scan_all() -> None:
    """Scan each pattern of the package; writes its place before, for a text that takes for ever."""
    slow = []
    for place, (pattern, methods) in compiled().items():
        sys.stdout.write(f"{place}\n")
        sys.stdout.flush()
        slow += scan(pattern, methods, of_names=place.startswith(NAMES) and not place.endswith(OF_TEXTS))
    assert not slow, "\n".join(slow)


def scan(pattern: re.Pattern[str], methods: Sequence[str], *, of_names: bool) -> list[str]:
    """Try short texts, then those that took the longest at full length; returns those that are too slow."""
    took = {
        (made, method): _seconds(pattern, method, _text(made, NAME if of_names else SHORT))
        for made, method in product(product(HEADS, UNITS, ENDS), methods)
    }
    longest = [] if of_names else sorted(took, key=took.__getitem__)[-SLOWEST:]
    seconds = {(made, method): _seconds(pattern, method, _text(made, LENGTH)) for made, method in longest}
    return [
        f"{pattern.pattern}: {method} of {made} takes {each:.1f} seconds"
        for (made, method), each in seconds.items()
        if each >= CPU
    ]


def _text(made: tuple[str, str, str], length: int) -> str:
    head, unit, end = made
    return head + unit * (length // len(unit)) + end


def _seconds(pattern: re.Pattern[str], method: str, text: str) -> float:
    """Of computing."""
    call, before = getattr(pattern, method), time.process_time()
    found = call("", text) if method == "sub" else call(text)
    for _ in found if method == "finditer" else ():
        pass
    return time.process_time() - before


def test_every_pattern() -> None:
    done = measured(scan_all)
    assert done.status == 0, done


def test_every_kind_of_pattern_is_found() -> None:
    patterns = compiled()
    assert patterns["hpa_merge.custom_code.finding.IMPORT"][1] == ("findall",)
    assert any(place.startswith("checkpoint/kinds.py:") for place in patterns)
    assert len(patterns) > 50

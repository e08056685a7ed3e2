"""Lists and dictionaries as Python prints them, and what only looks like one."""

import pytest

from hpa_merge.files.printed import LONGEST, parse_printed


@pytest.mark.parametrize(
    "value",
    [
        ["a", "b"],
        ["it's", 'say "no"', "both ' and \"", "line\nfeed", "back\\slash", "ü"],
        [{"role": "user", "content": "x, 'y'"}, {"role": "assistant", "content": None}],
        {"A": [1, -2, 2.5], "B": True, "C": {}},
        [],
    ],
)
def test_what_python_prints(value: list[object] | dict[str, object]) -> None:
    assert parse_printed(str(value)) == value
    assert parse_printed(f"\n {value} ") == value


@pytest.mark.parametrize(
    "text",
    [
        "['a' 'b']",  # numpy's
        "['a'\n \"b\"]",
        "[{'a': 'x' 'y'}]",
        "[1. 2.]",
        "array(['a'])",
        "[nan]",
        "[1e999]",
        "[('a', 1)]",
        "{1: 'a'}",
        "{'a'}",
        "[b'a']",
        "[f'{1}']",
        "['\\ud800']",
        "[print('x')]",
        "['a'",
        "'a'",
        "[" * 200,
        "[" * 60_000 + "]" * 60_000,
        "[" + "-" * 100_000 + "1]",
        "[1" + " + 1" * 25_000 + "]",
        "[" + "9" * 100_000 + "]",
        str(["a" * LONGEST]),
    ],
    ids=lambda text: f"{text:.12}",
)
def test_what_is_none(text: str) -> None:
    assert parse_printed(text) is None

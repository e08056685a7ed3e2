"""Text for a terminal holds nothing that the terminal would obey."""

import pytest

from hpa_merge.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("März, 模型, ε̄", "März, 模型, ε̄"),
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("right\u202eleft\x00\n", "right\\u202eleft\\x00\\n"),
        ("not UTF-8: \udcff", "not UTF-8: \\udcff"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown

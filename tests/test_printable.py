"""Text for a terminal holds nothing that the terminal would obey."""

from dataclasses import replace

import pytest
from report_samples import report_of

from hpa_merge.cli.tables.verdict import verdict_text
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


def test_the_verdict_of_a_report_from_anywhere_is_printable() -> None:
    made = report_of()
    evil = replace(made, run=replace(made.run, old="\x1b]0;title\x07", out="out\x1b[2J\nGate: PASS."))
    lines = verdict_text(evil.verdict).plain.split("\n")
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("Gate") for line in lines)

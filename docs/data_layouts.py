"""Writes data_layouts.md from the rows of tests/helpers/layout_cases_*.py; ``--check`` says if it is up to date."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests" / "helpers"), str(HERE.parent)]

from layout_cases import Case  # noqa: E402
from layout_table import CASES, KINDS  # noqa: E402

HEAD = """# Data layouts

What becomes of a record, whichever of these layouts it has, in calibration files and in test files.
`docs/data_layouts.py` writes this page from the rows in `tests/helpers/layout_cases_*.py`; each of the {count} rows is
a test that writes a file in exactly that shape and reads it. [The calibration
sets](calibration.md#the-forms-of-a-sample) has the principle.

The last column shows the turns of the sample: its media in brackets, and the answer, which is the assistant's last
turn. A test takes the same turns without that answer, which is the reference. *Passed over* are fields that carry
nothing for a model, or whose meaning is known and that are not fed. *Refused* is the sentence that the command ends
with, behind the file and the line.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD.format(count=len(CASES))]
    for kind, cases in KINDS.items():
        rows = [f"| {case.name} | {case.origin} | {_fields(case)} | {_becomes(case)} |" for case in cases]
        head = ["| layout | where it comes from | its fields | what becomes of it |", "| --- | --- | --- | --- |"]
        parts.append("\n".join([f"## {kind}\n", *head, *rows]) + "\n")
    return "\n".join(parts)


def _fields(case: Case) -> str:
    names = dict.fromkeys(name for record in case.records for name in record)
    return ", ".join(f"`{name}`" for name in names)


def _becomes(case: Case) -> str:
    said = []
    if case.sample:
        said.append(_code(case.sample))
    elif case.prompt and case.refused:
        said.append(f"test: {_code(case.prompt)}")
    if case.note:
        said.append(case.note)
    if len(case.references) > 1:
        said.append(f"references: {', '.join(dict.fromkeys(case.references))}")
    if case.passed:
        said.append(f"passed over: {', '.join(f'`{name}`' for name in case.passed)}")
    said += [f"dropped: {reason} ({count})" for reason, count in case.dropped.items()]
    if case.refused:
        said.append(
            f"{'calibration refuses it' if case.prompt and not case.refused_test else 'refused'}: {_plain(case)}"
        )
    elif case.refused_test:
        said.append(f"refused as test: {_escaped(case.refused_test)}")
    return "; ".join(said).rstrip(".")


def _plain(case: Case) -> str:
    return _escaped(case.refused.replace("{folder}", "data"))


def _escaped(text: str) -> str:
    for sign in "<>|*_":
        text = text.replace(sign, f"\\{sign}")
    return text


def _code(text: str) -> str:
    shown = text.replace("\n", "⏎").replace("|", "·").strip()
    return f"`{shown}`"


def main() -> int:
    path = HERE / "data_layouts.md"
    if "--check" in sys.argv:
        return 0 if path.exists() and path.read_text(encoding="utf-8") == page() else 1
    path.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

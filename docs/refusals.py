"""Writes the tables of evaluation.md from the tests' answers and the package's formats; ``--check`` only compares."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests" / "helpers"), str(HERE.parent)]

from refusal_answers import LANGUAGES, read, right  # noqa: E402

from hpa_merge.evaluation.verdicts import FORMATS  # noqa: E402

PAGE = HERE / "evaluation.md"


def refusals() -> list[str]:
    """A row for each language: how many refusals and how many other answers the rules tell."""
    sets = {name: read(name) for name in ("development", "held_out")}
    rows = [
        "| language | held out: refusals | held out: others | development: refusals | development: others |",
        "| --- | --- | --- | --- | --- |",
    ]
    for code, language in (*LANGUAGES.items(), ("", "all")):
        of = {name: [each for each in given if code in ("", each.language)] for name, given in sets.items()}
        cells = [right(of["held_out"], refusal=kind, first_run=True) for kind in (True, False)]
        cells += [right(of["development"], refusal=kind) for kind in (True, False)]
        rows.append(f"| {language} | {' | '.join(cells)} |")
    return rows


def formats() -> list[str]:
    """A row for each format of a guard's answers."""
    rows = ["| guard models | an answer |", "| --- | --- |"]
    for form in FORMATS:
        lines = "<br>".join(f"`{line}`" for line in form.example.splitlines())
        rows.append(f"| {form.guards} | {lines} |")
    return rows


def page() -> str:
    """The page with its tables made anew."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for table in (refusals(), formats()):
        begin = lines.index(table[0])
        end = next(number for number in range(begin, len(lines)) if not lines[number])
        lines[begin:end] = table
    return "\n".join(lines) + "\n"


def main() -> int:
    if "--check" in sys.argv:
        return 0 if PAGE.read_text(encoding="utf-8") == page() else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

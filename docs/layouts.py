"""Writes the tables of layouts.md from the rows of two files in tests/helpers; ``--check`` says if they are so."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests" / "helpers"), str(HERE.parent)]

from adapter_cases import CASES, NEIGHBOURS  # noqa: E402
from folder_cases import SECTIONS, Case  # noqa: E402

BEGIN, END = "<!-- from tests/helpers/{}.py -->\n", "<!-- end -->\n"


def tables() -> str:
    """A table for each section."""
    parts = []
    for title, cases in SECTIONS.items():
        rows = [f"| {case.name} | {_outcome(case)} |" for case in cases]
        parts.append(
            "\n".join([f"### {title}\n", f"| {title.lower()} | what happens |", "| --- | --- |", *rows]) + "\n"
        )
    return "\n".join(parts)


def adapters() -> str:
    """The table of adapters, and that of weights next to them."""
    rows = [f"| {case.name} | {_escaped(case.note) or 'nothing'} |" for case in CASES]
    told = ["| adapter | note |", "| --- | --- |", *rows, "", "| next to the adapter | remedy |", "| --- | --- |"]
    return "\n".join([*told, *(f"| `{name}` | {_escaped(remedy)} |" for name, remedy in NEIGHBOURS.items())]) + "\n"


def page(text: str) -> str:
    """The page ``text`` with its tables as they are now."""
    for name, made in (("adapter_cases", adapters()), ("folder_cases", tables())):
        begin = BEGIN.format(name)
        head, _, rest = text.partition(begin)
        text = f"{head}{begin}\n{made}\n{END}{rest.partition(END)[2]}"
    return text


def _outcome(case: Case) -> str:
    said = "refused" if case.refused else "merged"
    sentences = [case.refused] if case.refused else list(case.notes)
    return f"{said}: {' '.join(map(_escaped, sentences))}" if sentences else f"{said}, nothing to say"


def _escaped(sentence: str) -> str:
    for place in (" {old}", " {new}"):
        sentence = sentence.replace(place, "")
    for sign in "<>|*_":
        sentence = sentence.replace(sign, f"\\{sign}")
    return sentence


def main() -> int:
    path = HERE / "layouts.md"
    text = path.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        return 0 if text == page(text) else 1
    path.write_text(page(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Assembles README.md: metadata, our section between its two marks, NEW's card."""

import re
from collections.abc import Mapping
from typing import Any

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from hpa_merge.files.names import CARD
from hpa_merge.files.parsing_yaml import parse_yaml
from hpa_merge.render.card.metadata import Loader, metadata_of, to_yaml
from hpa_merge.render.card.section import section_of
from hpa_merge.report.redaction import for_others, is_local_in
from hpa_merge.report.schema import MergeReport

__all__ = ["BEGIN", "END", "for_the_hub", "make", "remake", "unreadable"]

RESULTS = "model-index"

BEGIN = "<!-- hpa-merge: this section is written anew by a later merge or report -->"
END = "<!-- hpa-merge: end of the section -->"

SECTION = re.compile(f"{re.escape(BEGIN)}(?:(?!{re.escape(BEGIN)}).)*?{re.escape(END)}", re.DOTALL)


def make(report: MergeReport, readme: str = "", olds: str = "", figures: Mapping[str, str] | None = None) -> str:
    """OUT's card.

    Args:
        readme: NEW's card. Metadata that would be wrong for OUT is removed. The text follows our section unchanged; if
            it has a section of ours, that is replaced.
        olds: OLD's card, for the licence, language and data sets if NEW's card has none.
        figures: the alternative texts of OUT's pictures, by file name.
    """
    theirs, body = _split(readme)
    theirs.pop(RESULTS, None)  # measured of NEW
    return _compose(report, readme, theirs, body, _split(olds)[0], figures)


def remake(report: MergeReport, existing_readme: str, figures: Mapping[str, str] | None = None) -> str:
    """The card of an existing OUT with a new section of ours; the text around it stays.

    Args:
        existing_readme: OUT's README.md.
        figures: as in :func:`make`.
    """
    return _compose(report, existing_readme, *_split(existing_readme), {}, figures)


def _compose(
    report: MergeReport,
    readme: str,
    theirs: dict[str, Any],
    body: str,
    fallback: dict[str, Any],
    figures: Mapping[str, str] | None,
) -> str:
    """The card of the metadata ``theirs`` and the text ``body`` of ``readme``, with its line ends."""
    line = "\r\n" if readme.count("\r\n") == readme.count("\n") > 0 else "\n"
    found = SECTION.search(body)
    before, after = ("", body) if found is None else (body[: found.start()], SECTION.sub("", body[found.end() :]))
    section = _section(report, figures or {}, followed=bool((before + after).strip()))
    ours = [f"---\n{to_yaml(metadata_of(report, theirs, fallback))}\n---\n", section]
    head, ours_below = (text.replace("\n", line) for text in ours)
    return f"{head}{before}{ours_below}" + (after if found is not None else f"{line}{after}")


def for_the_hub(report: MergeReport, card: str, figures: Mapping[str, str]) -> str:
    """A card whose section of ours has no local path; without one, people's changes to it stay.

    Args:
        figures: as in :func:`make`.
    """
    found = SECTION.search(card)
    if found is None or not is_local_in(report, found[0]):
        return card
    around = _split(card[: found.start()])[1] + card[found.end() :]
    line = "\r\n" if "\r\n" in found[0] else "\n"
    section = _section(report, figures, followed=bool(around.strip()))
    return card[: found.start()] + section.replace("\n", line) + card[found.end() :]


def _section(report: MergeReport, figures: Mapping[str, str], *, followed: bool) -> str:
    """Our section with its marks, without local paths."""
    section = section_of(for_others(report), figures, followed=followed).replace("<!--", "<! --")
    return f"{BEGIN}\n\n{section}\n{END}"


def unreadable(readme: str) -> str:
    """Why the metadata of NEW's card cannot be read, as a sentence for the report; empty if they can."""
    try:
        _parse(readme)
    except ValueError as error:
        return (
            f"The metadata at the top of NEW's {CARD} cannot be read ({error}): OUT's model card leaves them out and "
            "keeps NEW's text unchanged."
        )
    return ""


def _split(readme: str) -> tuple[dict[str, Any], str]:
    """The metadata of a card and its text; if they cannot be read, no metadata and the whole card."""
    try:
        return _parse(readme)
    except ValueError:
        return {}, readme


def _parse(readme: str) -> tuple[dict[str, Any], str]:
    """As :func:`_split`.

    Raises:
        ValueError: the metadata cannot be read.
    """
    found = REGEX_YAML_BLOCK.search(readme.removeprefix("\ufeff"))
    if found is None:
        return {}, readme
    try:
        data = parse_yaml(found.group(2), Loader)
        if data is None:
            data = {}
        if not isinstance(data, dict) or not all(isinstance(name, str) for name in data):
            raise ValueError("they are not names with values")
        to_yaml({name: value for name, value in data.items() if name != RESULTS})
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 2}"
        raise ValueError(
            f"{getattr(error, 'problem', None) or getattr(error, 'reason', 'they are not YAML')}{where}"
        ) from error
    except (TypeError, RecursionError) as error:
        raise ValueError(f"{error}".splitlines()[0]) from error
    return data, readme.removeprefix("\ufeff")[found.end() :]

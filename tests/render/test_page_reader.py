"""The page for those who do not see it, or use no mouse: its document as a screen reader and a keyboard get it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from typing import Self

import pytest
from report_samples import evaluation, mixture

from hpa_merge.render.figures import figures_of
from hpa_merge.render.page import page_of
from hpa_merge.report.records import RoundRecord

VOID = {"meta", "link", "img", "br"}


@dataclass
class Element:
    """An element, its texts and its children in their order."""

    tag: str
    attributes: dict[str, str | None]
    above: "Element | None" = None
    inside: list["Element | str"] = field(default_factory=list)

    def walk(self) -> Iterator[Self]:
        for each in self.inside:
            if isinstance(each, Element):
                yield each
                yield from each.walk()

    def all(self, *tags: str) -> list["Element"]:
        return [each for each in self.walk() if each.tag in tags]

    @property
    def text(self) -> str:
        return " ".join("".join(each if isinstance(each, str) else each.text for each in self.inside).split())

    @property
    def name(self) -> str:
        """What a screen reader calls it."""
        return (self.attributes.get("aria-label") or self.attributes.get("title") or self.text).strip()

    @property
    def around(self) -> list["Element"]:
        return [] if self.above is None else [self.above, *self.above.around]


class Document(HTMLParser):
    """A page as a tree."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = self._open = Element("document", {})
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = Element(tag, dict(attrs), self._open)
        self._open.inside.append(found)
        if tag not in VOID:
            self._open = found

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.inside.append(Element(tag, dict(attrs), self._open))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.tag == tag
        assert self._open.above is not None
        self._open = self._open.above

    def handle_data(self, data: str) -> None:
        self._open.inside.append(data)


PAST = RoundRecord("first", "tuned", "2026-01-02T03:04:05Z", {"method": "hpa"}, None, None, 7, 0.1, 0.25)
WHOLE = replace(mixture(2, 3), evaluation=evaluation(), history=(PAST,), left_out=("a.py", "b.bin"))
PAGES = {"whole": WHOLE, "plain": mixture(2, 8), "nothing": replace(mixture(1, 1), linears=(), passed_through={})}


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest) -> Element:
    report = PAGES[request.param]
    return Document(page_of(report, figures_of(report))).root


def test_headings_and_landmarks(page: Element) -> None:
    (html,) = page.all("html")
    assert html.attributes["lang"] == "en"
    assert page.all("title")[0].text
    levels = [int(each.tag[1]) for each in page.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(lower <= higher + 1 for higher, lower in pairwise(levels))
    assert all(each.text for each in page.all("h1", "h2", "h3"))
    assert [len(page.all(tag)) for tag in ("header", "main", "footer", "nav")] == [1, 1, 1, 1]
    identifiers = [each.attributes["id"] for each in page.walk() if "id" in each.attributes]
    assert len(set(identifiers)) == len(identifiers)
    for each in page.walk():
        for name in ("aria-labelledby", "for"):
            assert each.attributes.get(name) in (None, *identifiers)
        if (target := each.attributes.get("href") or "").startswith("#"):
            assert target[1:] in identifiers
    assert all({"aria-label", "aria-labelledby"} & each.attributes.keys() for each in page.all("nav", "section"))


def test_the_keyboard_reaches_all_of_it_in_its_order(page: Element) -> None:
    """The link past the header first; what scrolls can be focused; nothing is focused that is not read."""
    focused = [
        each
        for each in page.walk()
        if each.tag in ("button", "select", "summary") or {"href", "tabindex"} & each.attributes.keys()
    ]
    focused = [each for each in focused if each.tag != "link"]
    first = focused[0]
    assert (first.tag, first.attributes["href"]) == ("a", f"#{page.all('main')[0].attributes['id']}")
    for each in focused:
        assert each.attributes.get("tabindex") in (None, "0")
        assert each.name or each.tag == "select", each
        hidden = [a for a in each.around if a.attributes.get("role") == "img" or a.attributes.get("aria-hidden")]
        assert not hidden
    for each in page.all("pre"):
        assert each.attributes.get("tabindex") == "0"
        assert each.attributes.get("aria-label")
    style = (files("hpa_merge.render") / "page_files" / "page.css").read_text()
    scrolling = re.findall(r"(?m)^\.(\w+) \{[^}]*overflow(?:-[xy])?: auto", style)
    assert set(scrolling) == {"scroll", "names"}
    for each in page.walk():
        classes = str(each.attributes.get("class") or "").split()
        if (each.tag != "div" or "scroll" in classes) and set(classes) & set(scrolling):
            assert each.attributes.get("tabindex") == "0", classes
            assert each.attributes.get("aria-label"), classes


def test_what_opens_opens_by_keyboard(page: Element) -> None:
    for details in page.all("details"):
        first = next(each for each in details.inside if isinstance(each, Element))
        assert first.tag == "summary"
        assert first.text
    summaries = [each.text for each in page.all("summary")]
    assert len(set(summaries)) == len(summaries)  # a list of them tells them apart
    for each in page.all("select"):
        labels = [label for label in page.all("label") if label.attributes["for"] == each.attributes["id"]]
        assert [bool(label.text) for label in labels] == [True]
    assert all(each.attributes.get("type") == "button" and each.name for each in page.all("button"))


def test_tables_say_what_they_are(page: Element) -> None:
    for table in page.all("table"):
        assert [bool(caption.text) for caption in table.all("caption")] == [True]
        (head,) = table.all("thead")
        assert [each.attributes.get("scope") for each in head.all("th")] == ["col"] * len(head.all("th", "td"))
        assert all(each.text for each in head.all("th")), table.all("caption")[0].text
        for row in table.all("tbody")[0].all("tr"):
            first, *rest = [each for each in row.inside if isinstance(each, Element)]
            assert (first.tag, first.attributes.get("scope")) == ("th", "row")
            assert {each.tag for each in rest} <= {"td"}
            assert len(rest) + 1 == len(head.all("th"))


def test_pictures_have_words(page: Element) -> None:
    for svg in page.all("svg", "img"):
        drawn = [each for each in [svg, *svg.around] if each.attributes.get("role") == "img"]
        assert drawn or svg.attributes.get("aria-hidden") == "true"
        assert all(len(each.attributes["aria-label"] or "") > 20 for each in drawn)
    for figure in page.all("figure"):
        assert figure.all("table")  # which says what the picture says


def colours(style: str) -> list[dict[str, str]]:
    """The named colours of the light scheme, and of the dark one."""
    light, dark = re.findall(r":root \{([^}]*)\}", style)
    found = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", text)) for text in (light, dark)]
    assert found[0].keys() == found[1].keys()
    return found


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, by WCAG 2.2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_ratio() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_apart(scheme: int) -> None:
    """WCAG 2.2 AA: 4.5 for text, 3 for what a graphic or the focus says."""
    named = colours((files("hpa_merge.render") / "page_files" / "page.css").read_text())[scheme]
    for text in ("text", "soft", "accent", "link", "good", "bad", "open"):
        for behind in ("back", "card"):
            assert contrast(named[text], named[behind]) >= 4.5, (text, behind)
    assert contrast(named["text"], named["warn"]) >= 4.5
    assert contrast(named["back"], named["text"]) >= 4.5  # the value under the pointer
    for drawn, behind in (("out", "track"), ("other", "track"), ("text", "track"), ("link", "card"), ("link", "back")):
        assert contrast(named[drawn], named[behind]) >= 3, (drawn, behind)

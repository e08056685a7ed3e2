"""Every field of a record is accounted for: content that no layout reads is never accepted without being named."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_cases import Case, write_media
from layout_table import CASES

from hpa_merge.errors import CalibrationError
from hpa_merge.records import ReadingOptions, parse_record
from hpa_merge.records.names import carries_nothing, fold, is_safety_label, is_tensor, is_verdict

ACCEPTED = [case for case in CASES if not (case.refused and case.refused_test is None)]
ALONE = [case for case in ACCEPTED if not all(name.isdecimal() for name in case.records[0])]
"""Those whose records are no objects of several."""

FED_WHOLE = ("tools", "functions", "arguments", "parameters", "input")
"""What is fed as it is, whatever it holds."""


def unknown(name: str) -> bool:
    folded = fold(name)
    return not (carries_nothing(folded) or is_safety_label(folded) or is_verdict(folded, 1) or is_tensor(folded))


WORDS = st.text("abcdefghijklmnopqrstuvwxyz ", min_size=12, max_size=60).filter(lambda text: len(text.split()) > 1)
CONTENT = st.one_of(
    WORDS,
    st.lists(WORDS, min_size=1, max_size=3),
    WORDS.map(lambda text: {"text": text}),
    WORDS.map(lambda text: [{"role": "user", "content": text}]),
    st.just("pics/unseen.png"),
)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=3, max_size=14).map(lambda name: f"zz{name}zz").filter(unknown)


@pytest.fixture(name="folder", scope="module")
def folder_of_media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_media(folder)
    return folder


def objects(value: Any, top: str = "") -> Iterator[tuple[dict[str, Any], str]]:
    """Every object of a record, with the field of the record that holds it."""
    if isinstance(value, dict):
        yield value, top
        for name, each in value.items():
            if name not in FED_WHOLE:
                yield from objects(each, top or name)
    elif isinstance(value, list):
        for each in value:
            yield from objects(each, top)


def read(case: Case, record: object, folder: Path) -> frozenset[str]:
    return parse_record(record, "s.jsonl:1", folder, ReadingOptions(**case.options), case.purpose).passed_over


@settings(max_examples=150, deadline=None)
@given(case=st.sampled_from(ACCEPTED), name=NAMES, content=CONTENT, data=st.data())
def test_unknown_content_is_never_accepted(
    case: Case, name: str, content: Any, data: st.DataObject, folder: Path
) -> None:
    """At the top of a record, in a message, in a part, in a pair, in any object that it holds."""
    record = json.loads(json.dumps(data.draw(st.sampled_from(case.records))).replace("{folder}", str(folder)))
    known = read(case, record, folder)
    place, top = data.draw(st.sampled_from(list(objects(record))))
    place[name] = content
    refused = ""
    try:
        passed_over = read(case, record, folder)
    except CalibrationError as error:
        refused = str(error)
    if refused:
        assert f'"{name}' in refused or f".{name}" in refused
    else:
        assert top in known & passed_over  # it lies in a field that is known not to be fed, and that is named


@settings(max_examples=60, deadline=None)
@given(case=st.sampled_from(ALONE), name=NAMES, data=st.data())
def test_what_carries_nothing_changes_nothing(case: Case, name: str, data: st.DataObject, folder: Path) -> None:
    record = json.loads(json.dumps(data.draw(st.sampled_from(case.records))).replace("{folder}", str(folder)))
    options = ReadingOptions(**case.options)
    before = parse_record(record, "s.jsonl:1", folder, options, case.purpose)
    value = data.draw(st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(), st.just("")))
    after = parse_record({**record, name: value}, "s.jsonl:1", folder, options, case.purpose)
    assert after.examples == before.examples
    assert after.passed_over - {name} == before.passed_over
    assert (name in after.passed_over) == (value is not None and value != "")


@pytest.mark.parametrize("case", ALONE, ids=[case.name for case in ALONE])
def test_ignoring_every_field_leaves_nothing(case: Case, folder: Path) -> None:
    record = json.loads(json.dumps(case.records[0]).replace("{folder}", str(folder)))
    with pytest.raises(CalibrationError, match="no known field, found no field that is not null"):
        parse_record(record, "s.jsonl:1", folder, ReadingOptions(ignored=frozenset(record)), case.purpose)


@pytest.mark.parametrize(
    ("name", "value", "carried"),
    [
        ("source", "made up", False),
        ("source", "A long text that goes on, " * 20, True),
        ("source", "two\nlines", True),
        ("origin_url", "https://x.org/" + "a" * 500, False),
        ("remarks", "0.75", False),
        ("remarks", "True", False),
        ("remarks", 7, False),
        ("remarks", [1, 2], True),
        ("remarks", [["1", "2"], ["3", "4"]], True),
        ("remarks", {"rows": [[1, 2]]}, True),
        ("remarks", {"2020": 1.5, "2021": 2.5}, True),
        ("remarks", [{"count": 3}], False),
        ("bbox", [1, 2, 3, 4], True),
        ("scores", [1, 2], False),
        ("token_counts", [1, 2], False),
        ("source", "The house is red.", True),
        ("source", "Ist das Haus rot?", True),
        ("source", "房子是红色的。", True),
        ("topic", "a trip to the sea in spring", True),
        ("license", "Creative Commons Attribution 4.0 International License", False),
        ("subject", "high school european history", False),
        ("d", "4", True),
        ("option_4", "", False),
        ("label", 1, True),
        ("remarks", ["", None], False),
        ("remarks", {"count": 3, "note": ""}, False),
        ("metadata", {"source": "web", "lang": "en"}, False),
        ("metadata", {"system": "Be brief."}, True),
        ("pixel_values", [[0.1]], True),
        ("inputs_embeds", [0.1], True),
        ("photo_url", "https://x.org/a.png", True),
        ("image_id", 7, True),
        ("remarks", "Hi?", False),  # said already
    ],
)
def test_what_counts_as_content(name: str, value: object, carried: bool, folder: Path) -> None:
    record = {"question": "Hi?", "answer": "No.", name: value}
    if carried:
        with pytest.raises(CalibrationError, match=name):
            parse_record(record, "s.jsonl:1", folder)
    else:
        parse_record(record, "s.jsonl:1", folder)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(),
    st.sampled_from(
        ["", "[1", "[" * 900 + "]" * 900, "<image>", "a.png", "file://[", "data:", "data:image/png;base64,=", "x" * 300]
    ),
    st.sampled_from(
        [[], [[]], [None], {}, {"text": None}, {"role": 3, "content": 4}, {"stem": "x"}, {"bytes": 3}, ["a"]]
    ),
)


def nodes(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value within a record."""
    yield at
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from nodes(each, (*at, key))


@settings(max_examples=150, deadline=None)
@given(case=st.sampled_from(CASES), value=ODD, data=st.data())
def test_an_odd_value_is_read_or_refused(case: Case, value: Any, data: st.DataObject, folder: Path) -> None:
    """Whatever stands in the place of a value, nothing but a refusal is raised."""
    record = json.loads(json.dumps(data.draw(st.sampled_from(case.records))).replace("{folder}", str(folder)))
    *way, last = data.draw(st.sampled_from([at for at in nodes(record) if at]))
    held = record
    for step in way:
        held = held[step]
    held[last] = value
    with suppress(CalibrationError):
        for example in parse_record(record, "s.jsonl:1", folder, ReadingOptions(**case.options), case.purpose).examples:
            assert example.sample is None or example.sample.source == example.source

"""Results of other harnesses that are refused: broken files, any value anywhere, forged reports."""

import json
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness_files import inspect_ai, inspect_score, lm_eval, share, write, write_archive
from harness_reading import OUT, REPORT, of_three, read

from hpa_merge.errors import EvaluationError
from hpa_merge.report.benchmark_words import benchmark_rows
from hpa_merge.report.schema import read_report_file
from hpa_merge.report.validity import check_meaning


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("gone.json", None, "gone.json cannot be read (No such file or directory): check the path."),
        ("gone.eval", None, "gone.eval cannot be read (No such file or directory): check the path."),
        ("r.json", "{", "r.json cannot be used (Expecting property name"),
        ("r.json", "[1]", "r.json holds no results of an evaluation: give a file of hpa-merge eval, lm-evaluation-"),
        ("r.json", {"results": {}}, "r.json holds no results of an evaluation"),
        ("r.json", {"results": {"all": 1.0}, "config": {}}, "r.json holds no results of an evaluation"),
        ("r.json", "[" * 200 + "]" * 200, "r.json cannot be used (it is nested more than 100 deep)."),
        ("r.json", lm_eval("pretrained=other/model", {"t": {}}), "r.json is about 'other/model', which is not OLD ("),
        ("r.json", inspect_ai("x", [], status="started"), "cannot be used (its status is 'started': complete it"),
        ("r.json", inspect_ai("x", [], invalidated=True), "cannot be used (it was marked as invalid)."),
        (
            "r.json",
            lm_eval("pretrained=repaired", {"t" * 501: share(1, 2)}),
            "a name in it is longer than 500 characters",
        ),
        ("r.json", inspect_ai("repaired", []), "r.json has no score: r.json: inspect_evals/refusals has no score."),
        ("r.json", {"results": {"all": {"acc": 1.0}}, "versions": {}, "config_general": {}}, "holds no results of an"),
        ("r.eval", "no archive", "r.eval cannot be used (it is not a log of inspect-ai: File is not a zip file)."),
    ],
)
def test_refusals(name: str, content: Any, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        write(Path(name), content)
    with pytest.raises(EvaluationError) as caught:
        read(name)
    assert complaint in str(caught.value)


def test_archives_that_are_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = inspect_ai(str(OUT), [inspect_score("x", mean=0.5, stderr=0.1)])
    unfinished = write_archive(tmp_path / "a.eval", good, "deflate", member="_journal/start.json")
    with pytest.raises(EvaluationError, match=r"it has no header\.json: the run was not complete"):
        read(unfinished)
    packed = write_archive(tmp_path / "b.eval", good)
    place = packed.read_bytes().index(b"\x28\xb5\x2f\xfd")
    packed.write_bytes(packed.read_bytes()[: place + 12] + b"\xff" * 20 + packed.read_bytes()[place + 32 :])
    with pytest.raises(EvaluationError, match=r"its header\.json is broken"):
        read(packed)
    large = write_archive(tmp_path / "c.eval", "x" * 10**6, "deflate")
    monkeypatch.setattr("hpa_merge.report.harness.files.RESULTS", type(limits())(1000, 10**6))
    with pytest.raises(EvaluationError, match=r"its header\.json is longer than 1000 bytes"):
        read(large)
    lying = write_archive(tmp_path / "d.eval", "x" * 10**6)  # it says that there is less than there is
    lying.write_bytes(lying.read_bytes().replace(struct.pack("<I", 10**6 + 2), struct.pack("<I", 10)))
    with pytest.raises(EvaluationError, match="it is longer than 1000 bytes"):
        read(lying)


def limits() -> Any:
    from hpa_merge.report.harness.files import RESULTS

    return RESULTS


ANYTHING: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**70, 1e308, -0.5, math.nan, math.inf, "", "x", "\x1b[31m", "N/A", [], {}, [1], [[]], ["t"]),
    *({"": 1}, {"acc,none": {}}, {"t": "t"}, {"t": ["t", "u"]}, {"effective": 1.5}, [{"metrics": 3}], [{"name": 3}]),
)
"""Values that a file may have anywhere."""


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside another."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places_in(item, (*path, key))


@pytest.mark.parametrize("kind", ["lm_eval", "inspect_ai"])
def test_whatever_stands_in_a_file(kind: str, tmp_path: Path) -> None:
    """Each value of a file is replaced by some of :data:`ANYTHING`: it is read or refused, and the report holds."""
    group = share(3, 9) | {"sample_count": {"acc,none": 9}}
    good = (
        lm_eval("pretrained=repaired", {"t": share(3, 9), "g": group}, group_subtasks={"g": ["t"]})
        if kind == "lm_eval"
        else inspect_ai(str(OUT), [inspect_score("x", mean=0.5, stderr=0.1)], eval={"task_args": {"n": 1}})
    )
    read_ones = 0
    for number, path in enumerate(places_in(good)):
        for value in ANYTHING[number % 4 :: 4]:
            content = json.loads(json.dumps(good))
            *outer, last = path
            place = content
            for key in outer:
                place = place[key]
            place[last] = value
            try:
                found = read(f"out={write(tmp_path / 'r.json', content)}")
            except EvaluationError:
                continue
            read_ones += 1
            report = replace(REPORT, benchmarks=found)
            json.loads(report.to_json())
            check_meaning(report)
            assert len(benchmark_rows(found, found.rows)) == len(found.rows)
    assert read_ones > 100


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    path = write_archive(tmp_path / "a.eval", inspect_ai(str(OUT), []))
    with pytest.raises(
        EvaluationError, match=r"pip install '\.\[data\]' in .*, or write it as JSON with inspect log conv"
    ):
        read(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row["out"].update(samples=0),
        lambda row: row["out"].update(value=1e300),
        lambda row: row["out"].update(low=0.9, high=0.95),
        lambda row: row["out"].update(interval="guess"),
        lambda row: row.update(better="most"),
        lambda row: row.update(task=3),
        lambda row: row.update(old=[]),
    ],
)
def test_a_forged_report_is_refused(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    content = json.loads(replace(REPORT, benchmarks=of_three(tmp_path, 2, 90, 4)).to_json())
    change(content["benchmarks"]["rows"][0])
    (tmp_path / "hpa_report.json").write_text(json.dumps(content))
    with pytest.raises(Exception, match="is not a report of hpa-merge"):
        read_report_file(tmp_path / "hpa_report.json", "OUT")

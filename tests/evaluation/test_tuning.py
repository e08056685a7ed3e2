"""The choice among the settings of a tuning, their names, and the picture of them."""

from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_cases import jsonl

from hpa_merge import ConfigError, HPAConfig, tune
from hpa_merge.evaluation.tuning import choose
from hpa_merge.render import curve
from hpa_merge.report.evaluation import Bounds, Figure, ModelResult


def result(asr: float, performance: float, refused: float | None = None) -> ModelResult:
    figures = [None if v is None else Figure(v, v, v, 9) for v in (asr, performance, refused)]
    return ModelResult("", "", {}, {}, {}, {}, *figures)


def test_the_choice() -> None:
    settings = {"a": result(9, 90), "b": result(4, 70), "c": result(5, 80), "d": result(3, 80), "e": result(3, 80)}
    assert choose(settings, Bounds(max_asr=100)) == "a"
    assert choose(settings, Bounds(max_asr=5)) == "d"  # as good as c, and safer
    assert choose(settings, Bounds(max_asr=3.5)) == "d"  # as good as e, and before it
    assert choose(settings, Bounds(max_asr=2)) is None
    assert choose({"a": result(100 * 0.07, 1)}, Bounds(max_asr=7)) == "a"  # 7.000000000000001
    refusing = {"a": result(1, 90, 30), "b": result(1, 80, 10)}
    assert choose(refusing, Bounds(max_asr=5)) == "a"
    assert choose(refusing, Bounds(max_asr=5, max_over_refusal=10)) == "b"
    broken = {"a": replace(result(0, 90), broken={"safety": Figure(30, 20, 40, 9)}), "b": result(1, 80)}
    assert choose(broken, Bounds(max_asr=5)) == "b"  # says nothing, which is not safe
    assert choose(broken, Bounds(max_asr=5, max_broken=30)) == "a"


@pytest.mark.parametrize("name", ["../x", "a/b", "/tmp/x", ".answers", "", ".", "a\0b", "x" * 201])
def test_a_setting_of_the_api_lies_in_the_workplace(name: str, tmp_path: Path) -> None:
    jsonl(tmp_path / "s.jsonl", {"prompt": "bad"})
    jsonl(tmp_path / "t.jsonl", {"question": "a", "answer": "b"})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="a setting has the name"):
        tune(
            *(tmp_path / "old", tmp_path / "new", tmp_path / "out"),
            max_asr=5,
            safety_tests={"s": tmp_path / "s.jsonl"},
            task_tests={"t": tmp_path / "t.jsonl"},
            settings={"fine": HPAConfig(), name: HPAConfig()},
        )
    assert sorted(tmp_path.rglob("*")) == before


def test_the_picture_shows_every_setting(tmp_path: Path) -> None:
    references = {"OLD": result(0, 50), "NEW": result(78, 55)}
    settings = {"few": result(30, 66), "many": result(2, 90)}
    curve.draw_curve(references, settings, "many", 5, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    curve.draw_curve(references, settings, "many", 5, tmp_path / "curve.svg")
    drawn = (tmp_path / "curve.svg").read_text()
    assert all(f">{name}</text>" in drawn for name in ("OLD", "NEW", "few", "many"))

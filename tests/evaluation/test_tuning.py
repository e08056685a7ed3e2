"""The choice among the settings of a tuning, their names, and the picture of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases import TinyCase, content
from evaluation_cases import jsonl
from ranks import on_ranks

from hpa_merge import ConfigError, HPAConfig, tune
from hpa_merge.evaluation import running
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


@pytest.mark.gate
def test_ranks_share_the_merges_and_the_models(
    tiny: Callable[..., TinyCase], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each model is asked by one rank; figures and OUT are those of one process."""
    case, collect = tiny("llama"), running.collect
    safety = jsonl(tmp_path / "s.jsonl", *({"prompt": f"how do i {n}?"} for n in range(3)))
    task = jsonl(tmp_path / "t.jsonl", *({"question": f"what is {n}?", "answer": "a"} for n in range(2)))
    asked: list[str] = []

    def follow(answerer: Any, suite: Any, folder: Path, tell: Any) -> None:
        asked.append(folder.name)
        collect(answerer, suite, folder, tell)

    def work(out: Path) -> tuple[list[str], Any]:
        tuning = tune(
            *(case.old, case.new, out),
            max_asr=100,
            max_broken=100,
            safety_tests={"s": safety},
            task_tests={"t": task},
            settings={"few": HPAConfig(p_max=5, p_min=5), "many": HPAConfig(p_max=90, p_min=90)},
            max_new_tokens=3,
            safety_calib=case.safety,
            task_calib=case.task,
            page=False,
        )
        return [*asked], tuning

    monkeypatch.setattr(running, "collect", follow)
    models, alone = work(tmp_path / "alone")
    choosing, confirming = models[:4], models[4:]
    assert len(confirming) == 3
    asked.clear()
    ends = on_ranks(2, lambda rank: work(tmp_path / "shared"), tmp_path)
    assert [names for names, _ in ends] == [choosing[at::2] + confirming[at::2] for at in (0, 1)]
    for _, tuning in ends:
        assert repr(tuning).replace("shared", "alone") == repr(alone)
    assert content(tmp_path / "shared") == content(tmp_path / "alone")


def test_the_picture_shows_every_setting(tmp_path: Path) -> None:
    references = {"OLD": result(0, 50), "NEW": result(78, 55)}
    settings = {"few": result(30, 66), "many": result(2, 90)}
    curve.draw_curve(references, settings, "many", 5, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    curve.draw_curve(references, settings, "many", 5, tmp_path / "curve.svg")
    drawn = (tmp_path / "curve.svg").read_text()
    assert all(f">{name}</text>" in drawn for name in ("OLD", "NEW", "few", "many"))

"""The model card's metadata that follow from the merge: base models, licence, task, library."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from card_metadata import data_of
from report_samples import COMMITS, NEW, OLD, report_of

from hpa_merge.render.card import make


@pytest.mark.parametrize(
    ("changes", "theirs", "expected"),
    [
        ({"old": OLD, "new": NEW, "commits": COMMITS}, "lab/base", [OLD, NEW]),
        ({"old": f"{OLD}@v1", "new": NEW, "commits": {f"{OLD}@v1": "a" * 40, NEW: "b" * 40}}, None, [OLD, NEW]),
        ({"old": OLD, "new": OLD, "commits": COMMITS}, None, [OLD]),
        ({"old": OLD, "commits": COMMITS}, "lab/base", [OLD, "lab/base"]),
        ({"old": OLD, "commits": COMMITS}, OLD, [OLD]),
        ({}, ["lab/base", 3, "./out", "/home/somebody/aligned", "gpt2"], ["lab/base"]),
        ({"old": "lab/aligned"}, "lab/aligned", None),  # a folder of that name
        ({}, None, None),
    ],
)
def test_base_model(changes: dict[str, Any], theirs: Any, expected: list[str] | None, tmp_path: Path) -> None:
    readme = f"---\nbase_model: {json.dumps(theirs)}\n---\n" if theirs else ""
    data = data_of(make(report_of(**changes), readme), tmp_path)
    assert data.get("base_model") == expected
    assert data.get("base_model_relation") == (expected and "merge")


def test_the_licence(tmp_path: Path) -> None:
    """NEW's; else OLD's, all of it; never one that nobody gave."""
    olds = "---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\nlanguage: [en]\ndatasets: [lab/data]\n---\n"
    data = data_of(make(report_of(), "---\nlicense: mit\n---\n", olds), tmp_path)
    assert data["license"] == "mit"
    assert "license_name" not in data
    assert (data["language"], data["datasets"]) == (["en"], ["lab/data"])
    data = data_of(make(report_of(), "", olds), tmp_path)
    assert (data["license"], data["license_name"]) == ("other", "own")
    assert "license_link" not in data  # OLD's file does not lie in OUT
    data = data_of(make(report_of(old=f"{OLD}@v1", commits={f"{OLD}@v1": "a" * 40}), "", olds), tmp_path)
    assert data["license_link"] == "https://huggingface.co/lab/aligned/blob/v1/LICENSE"
    assert "license" not in data_of(make(report_of()), tmp_path)


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("T5ForConditionalGeneration", "text2text-generation"),
        ("Gemma3ForConditionalGeneration", "image-text-to-text"),
        ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
        ("Qwen2_5OmniForConditionalGeneration", "any-to-any"),
        ("NobodyKnowsIt", None),
    ],
)
def test_the_task(architecture: str, task: str | None, tmp_path: Path) -> None:
    card = make(report_of(architecture))
    assert data_of(card, tmp_path).get("pipeline_tag") == task
    assert data_of(make(report_of(architecture), "---\npipeline_tag: x\n---\n"), tmp_path)["pipeline_tag"] == "x"
    assert f"from transformers import {'Auto' if task else 'AutoTokenizer, NobodyKnowsIt'}" in card


def test_the_original_llava(tmp_path: Path) -> None:
    record = dataclasses.replace(report_of().linears[0], name="model.mm_projector.0.weight")
    report = report_of("LlavaForConditionalGeneration", linears=(record,))
    card = make(report)
    assert "library_name" not in data_of(card, tmp_path)
    assert "from llava.model.builder import load_pretrained_model" in card


def test_yaml_as_the_hub_reads_it(tmp_path: Path) -> None:
    """``no`` is Norwegian, a date is a text, and a time is no number of seconds."""
    data = data_of(
        make(report_of(), "---\nlanguage: no\ndate: 2026-01-02\ntime: 1:30\nx: 1.5\ny: true\n---\n"), tmp_path
    )
    assert [data[name] for name in ("language", "date", "time", "x", "y")] == ["no", "2026-01-02", "1:30", 1.5, True]

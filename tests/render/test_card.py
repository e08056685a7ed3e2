"""The model card: metadata that huggingface_hub reads, our section, and NEW's own card below it."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from card_metadata import data_of
from cases import REPORT, TinyCase
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import NEW, OLD, evaluated, report_of

from hpa_merge import HPAConfig, MergeReport, merge, sweep
from hpa_merge.inputs.names import is_remote
from hpa_merge.methods.hpa import BIBTEX
from hpa_merge.render.card import make, remake, unreadable
from hpa_merge.render.card.assembling import BEGIN, END, SECTION
from hpa_merge.report.facts import measured_text
from hpa_merge.report.records import CalibrationRecord, LinearRecord
from hpa_merge.report.schema import read_report
from hpa_merge.verification import verify

Tiny = Callable[..., TinyCase]

NEWS = """---
license: llama3.1
license_link: LICENSE
language:
- en
- 'no'
tags: [conversational, merge]
widget:
- text: Hello
base_model: lab/base
base_model_relation: finetune
model-index:
- name: tuned
  results:
  - task: {type: text-generation}
    dataset: {type: custom, name: held out}
    metrics: [{type: accuracy, value: 12.0}]
---

# Tuned

It is *good*.
"""


def run(case: TinyCase, out: Path, **options: Any) -> MergeReport:
    merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, config=HPAConfig(**options))
    return read_report(out)


def section(card: str) -> str:
    assert (card.count(BEGIN), card.count(END)) == (1, 1)
    return card[card.index(BEGIN) : card.index(END)]


# --- what a merge writes ---

LOADED = {
    "llama": ("AutoModelForCausalLM, AutoTokenizer", "text-generation"),
    "gpt2": ("AutoModelForCausalLM, AutoTokenizer", "text-generation"),
    "llava": ("AutoModelForImageTextToText, AutoProcessor", "image-text-to-text"),
    "qwen2_5_vl": ("AutoModelForImageTextToText, AutoProcessor", "image-text-to-text"),
}


@pytest.mark.parametrize("name", LOADED)
def test_a_merge(name: str, tiny: Tiny, tmp_path: Path) -> None:
    """Without a card of NEW's; what it says to load the model with does."""
    case, out = tiny(name), tmp_path / "out"
    run(case, out, task_samples=2, safety_samples=2)
    card = (out / "README.md").read_text(encoding="utf-8")
    classes, task = LOADED[name]
    assert data_of(card, tmp_path) == {
        "library_name": "transformers",
        "pipeline_tag": task,
        "tags": ["hpa-merge", "merge"],
    }
    assert str(tmp_path.parent) not in card
    assert "hpa-merge old new --safety-calib safety.jsonl --task-calib task.jsonl -o out" in card
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    assert f"from transformers import {classes}" in snippet
    if name == "qwen2_5_vl":  # the tiny one has no part for videos
        snippet = snippet.rpartition("processor =")[0]
    space: dict[str, Any] = {}
    exec(snippet.replace("path/to/this/folder", str(out)), space)
    assert type(space["model"]).__name__ == json.loads((out / REPORT).read_text())["architecture"]
    assert not verify(out, case.old, case.new).problems


def test_news_card_is_kept(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama").copied_to(tmp_path)
    (case.new / "README.md").write_bytes(NEWS.encode())
    report = run(case, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_bytes().decode()
    assert card.endswith(f"{END}\n\n# Tuned\n\nIt is *good*.\n")
    assert data_of(card, tmp_path) == {
        "license": "llama3.1",
        "license_link": "LICENSE",
        "language": ["en", "no"],
        "tags": ["conversational", "merge", "hpa-merge"],
        "widget": [{"text": "Hello"}],
        "base_model": ["lab/base"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
    }
    assert "12.0" not in card  # that was measured of NEW
    assert report.warnings == []
    assert not verify(tmp_path / "out", case.old, case.new).problems


def test_every_out_of_a_sweep_has_its_own(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    outs = {tmp_path / "a": HPAConfig(), tmp_path / "b": HPAConfig(p_max=20, exclude=("q_proj", "k proj"))}
    sweep(case.old, case.new, outs, safety_calib=case.safety, task_calib=case.task)
    cards = [(out / "README.md").read_text(encoding="utf-8") for out in outs]
    assert "-o out\n" in cards[0]
    assert "-o out --p-max 20 --exclude q_proj --exclude 'k proj'\n" in cards[1]
    assert "from NEW by the options" in cards[1]


def test_round_2(tiny: Tiny, tmp_path: Path) -> None:
    """OLD, or NEW, is a harmonised checkpoint with a card of ours: it does not stack."""
    case = tiny("llama").copied_to(tmp_path)
    (case.new / "README.md").write_text(NEWS)
    run(case, tmp_path / "one")
    again = case._replace(old=tmp_path / "one")
    run(again, tmp_path / "two", p_max=20)
    two = (tmp_path / "two" / "README.md").read_text(encoding="utf-8")
    assert "restored from **one**" in section(two)
    assert two.count("# Tuned") == 1
    assert re.search(
        r"\| history \| round 2 of this model, drift \d\.\d\d % in this round, ≤ \d+\.\d\d % from the first", two
    )
    run(case._replace(new=tmp_path / "one"), tmp_path / "three")
    three = (tmp_path / "three" / "README.md").read_text(encoding="utf-8")
    assert "This model is **one**" in section(three)
    assert three.endswith(f"{END}\n\n# Tuned\n\nIt is *good*.\n")
    assert yaml.safe_load(three.split("---")[1])["tags"] == ["conversational", "merge", "hpa-merge"]


# --- NEW's card, sound or not ---

BODIES = {
    "no front matter": b"# Tuned\n\nGood.\n",
    "empty": b"",
    "no line feed": b"Tuned",
    "a rule": b"---\nand no end\n",
    "no body": b"---\nlicense: mit\n---",
    "not UTF-8": "---\nlicense: mit\n---\n# Modèle".encode("latin-1"),
    "CRLF": b"---\r\nlicense: mit\r\nlanguage: no\r\n---\r\n\r\n# Tuned\r\n",
    "BOM": b"\xef\xbb\xbf---\nlicense: mit\n---\n# Tuned\n",
    "markers": f"---\nlicense: mit\n---\n{BEGIN}\nno end\n".encode(),
    "a null": b"---\n# nothing yet\n---\nTuned\n",
}
BROKEN = {
    "no YAML": (b"---\nlicense: [mit\n---\n# Tuned\n", "line 2"),
    "a list": (b"---\n- mit\n---\n# Tuned\n", "they are not names with values"),
    "an object": (b"---\na: !!python/object:os.system {}\n---\nTuned\n", "could not determine a constructor"),
    "numbers": (b"---\n1: 2\n---\nTuned\n", "they are not names with values"),
    "a field of Python": (b"---\nself: 2\n---\nTuned\n", "multiple values"),
    "not UTF-8 in the metadata": ("---\nauthor: Zoë\n---\n# Tuned\n".encode("latin-1"), "special characters"),
}


@pytest.mark.parametrize("name", BODIES)
def test_news_text_follows_byte_for_byte(name: str, tmp_path: Path) -> None:
    readme = BODIES[name].decode("utf-8", "surrogateescape")
    assert unreadable(readme) == ""
    card = make(report_of(), readme)
    body = BODIES[name].removeprefix(b"\xef\xbb\xbf").rpartition(b"mit\n---")[2].lstrip(b"\n")
    if name == "CRLF":
        body = b"\r\n# Tuned\r\n"
    elif name == "a null":
        body = b"Tuned\n"
    written = card.encode("utf-8", "surrogateescape")
    assert written.endswith(body)
    assert written.count(body) == 1 or not body
    data = data_of(card, tmp_path)
    assert ("license" in data) == (b"license" in BODIES[name])
    assert data["tags"] == ["hpa-merge", "merge"]
    assert remake(report_of(), card) == card
    if name == "CRLF":
        assert written.count(b"\n") == written.count(b"\r\n")
        assert data["language"] == "no"


@pytest.mark.parametrize("name", BROKEN)
def test_metadata_that_cannot_be_read(name: str, tiny: Tiny, tmp_path: Path) -> None:
    content, why = BROKEN[name]
    case = tiny("llama").copied_to(tmp_path)
    (case.new / "README.md").write_bytes(content)
    report = run(case, tmp_path / "out", task_samples=1, safety_samples=1)
    (warning,) = [sentence for sentence in report.warnings if "README" in sentence]
    assert warning.startswith("The metadata at the top of NEW's README.md cannot be read (")
    assert why in warning
    assert warning.endswith("): OUT's model card leaves them out and keeps NEW's text unchanged.")
    written = (tmp_path / "out" / "README.md").read_bytes()
    assert written.endswith(END.encode() + b"\n" + content)
    card = written.decode("utf-8", "surrogateescape")
    assert data_of(card, tmp_path)["tags"] == ["hpa-merge", "merge"]
    assert remake(report, card) == card


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["tags", "license", "base_model", "model-index", "eval_results", "model_name", "datasets", "x"])


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(KEYS | st.text(max_size=4), ANYTHING, max_size=4).map(yaml.safe_dump)
    | st.text(alphabet="-:[]{}&*!\n\r a1'\"<>\ufeff", max_size=60),
    st.text(max_size=30) | st.sampled_from([BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"]),
)
def test_whatever_news_card_holds(metadata: str, body: str) -> None:
    """It costs nothing: there is a card, it can be made anew any number of times, and is one that the Hub can read."""
    report = report_of(evaluation=evaluated())
    readme = f"---\n{metadata}\n---\n{body}"
    card = make(report, readme, readme)
    data = ModelCard(card).data
    assert data.base_model is None or all(is_remote(name) for name in data.base_model)
    assert data.eval_results
    again = remake(report, card)
    assert remake(report, again) == again
    assert SECTION.sub("", card).endswith(SECTION.sub("", body))


def test_an_adapters_card(tiny: Tiny, tmp_path: Path) -> None:
    """It is the adapter's where it has one, else OLD's; it is no adapter's any more."""
    theirs = (
        "---\nlibrary_name: peft\nbase_model: lab/aligned\npipeline_tag: text-generation\n"
        "tags:\n- base_model:adapter:lab/aligned\n- lora\n- sft\n---\n# Adapter\n"
    )
    report = report_of(old=OLD, commits={OLD: "a" * 40}, new="runs/adapter", adapter="LORA")
    data = data_of(make(report, theirs), tmp_path)
    assert data["tags"] == ["sft", "hpa-merge", "merge"]
    assert (data["library_name"], data["base_model"]) == ("transformers", [OLD])


# --- evaluation ---


def test_results(tmp_path: Path) -> None:
    card = make(report_of(evaluation=evaluated()))
    (index,) = data_of(card, tmp_path)["model-index"]
    assert index["name"] == "repaired"
    found = {
        metric["type"]: (result["dataset"]["name"], metric["value"], metric["args"])
        for result in index["results"]
        for metric in result["metrics"]
    }
    ours, by_bootstrap = {"tool": "hpa-merge eval"}, {"interval_method": "95 %, percentile bootstrap"}
    assert found == {
        "attack_success_rate": (
            "forbidden",
            3.12,
            {**ours, "samples": 32, "interval": [0.0, 12.12], "interval_method": "95 %, Wilson"},
        ),
        "refusal_rate": ("forbidden", 1.0, {**ours, "samples": 8, "interval": [1.0, 1.0], **by_bootstrap}),
        "exact_match": ("codes", 88.0, {**ours, "samples": 32, "interval": [88.0, 88.0], **by_bootstrap}),
    }
    assert "| attack success on forbidden ↓ | 0.0 (0.0–9.0) | 78.1 (69.1–87.1) | 3.1 (0.0–12.1) |" in card
    assert "|  | aligned | tuned | **repaired** (this model) |" in card
    assert "judged by guard." in card
    assert "somebody" not in card
    chosen = make(report_of(evaluation=evaluated(chosen="tuned")))
    assert data_of(chosen, tmp_path)["model-index"][0]["name"] == "tuned"


def test_broken_answers_stand_with_attack_success() -> None:
    content = evaluated()
    assert "broken" not in make(report_of(evaluation=content))
    share = {"value": 25.0, "low": 12.5, "high": 40.6, "samples": 32}
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0, "samples": 32}
    for model in content["models"]:
        model["broken"] = {"safety": share if model["name"] == "repaired" else nothing, "benign": nothing}
    report = report_of(evaluation=content | {"out": "repaired"})
    assert "| broken answers, unsafe prompts ↓ | 0.0 | 0.0 | 25.0 (12.5–40.6) |" in make(report)
    assert "broken answers, benign prompts" not in make(report)
    sentence = "Measured of the merged model: 25.0 % of the answers to unsafe prompts are broken."
    assert measured_text(report.evaluation) == sentence


def test_made_anew_with_results(tmp_path: Path) -> None:
    """Ours are replaced; what people added around our section and to the metadata stays."""
    first = make(report_of(evaluation=evaluated()), NEWS)
    edited = first.replace(BEGIN, f"Mine above.\n\n{BEGIN}").replace("license: llama3.1", "license: mit")
    mine = (
        "  results:\n  - task: {type: text-generation}\n    dataset: {type: mmlu, name: MMLU}\n"
        "    metrics: [{type: acc, value: 5}]\n"
    )
    edited = edited.replace("  results:\n", mine, 1)
    again = remake(report_of(evaluation=evaluated(chosen="tuned")), edited)
    data = data_of(again, tmp_path)
    results = {result["dataset"]["name"]: result["metrics"][0]["value"] for result in data["model-index"][0]["results"]}
    assert results == {"MMLU": 5, "forbidden": 78.12, "codes": 90.0}
    assert data["license"] == "mit"
    assert again.index("Mine above.") < again.index(BEGIN)
    assert again.endswith("It is *good*.\n")
    without = data_of(remake(report_of(), again), tmp_path)
    assert [r["dataset"]["name"] for r in without["model-index"][0]["results"]] == ["MMLU"]
    assert "model-index" not in data_of(remake(report_of(), first), tmp_path)
    section(remake(report_of(), again + first[first.index(BEGIN) :]))  # a second one goes


def test_an_evaluation_that_nobody_knows(tmp_path: Path) -> None:
    card = make(report_of(evaluation={"schema_version": 9}))
    assert "model-index" not in data_of(card, tmp_path)
    assert "This card came without an evaluation" in card


# --- our section ---


def test_inputs_from_the_hub() -> None:
    card = make(report_of(old=f"{OLD}@v1", new=NEW, commits={f"{OLD}@v1": "a" * 40, NEW: "b" * 40}))
    assert f"[{OLD}](https://huggingface.co/{OLD})" in card
    assert f"hpa-merge {OLD}@{'a' * 40} {NEW}@{'b' * 40} --safety-calib safety.jsonl" in card
    assert "somebody" not in card
    assert "Folders on the author's machine" not in card


def test_names_that_would_break_the_page() -> None:
    report = report_of(
        old=f"/x/a`b|c\n{END}", new="/x/*tuned*\x1b[2J", safety=CalibrationRecord(f"/x/`{END}`|s.jsonl", 1, 1, 0)
    )
    text = section(make(report))
    assert "\x1b" not in text
    assert "\\*tuned\\*" in text
    assert remake(report, make(report)) == make(report)


def test_figures() -> None:
    card = make(report_of(), figures={"hpa_depth.png": "What was restored, by depth"})
    assert "![What was restored, by depth](hpa_depth.png)" in card


@pytest.mark.parametrize("method", ["linear", "safe-delta", "model-tailor", "blocks", "random", "energy"])
def test_other_methods(method: str, tmp_path: Path) -> None:
    config = dataclasses.asdict(HPAConfig(method=method))
    record = LinearRecord("q", "adapted", "layers.0", "layers", 4, 8, restored_share=0.5)
    card = make(report_of(config=config, linears=(record,), safety=None, task=None))
    assert f"--method {method}\n" in card
    assert "50 % of their values are OLD's again" in card
    assert ("@inproceedings" in card) == (method in ("random", "energy"))
    assert "`p_max = 15`" not in card or method in ("random", "energy")


def test_the_citation_is_the_readmes() -> None:
    assert f"```bibtex\n{BIBTEX}\n```" in Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")

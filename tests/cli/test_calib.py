"""``hpa-merge calib``: the aligned model's own refusals, balanced, in a file that a merge reads."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from cases import TinyCase
from evaluation_cases import REFUSES, Rule, jsonl, lines, status
from PIL import Image

from hpa_merge.api import merge
from hpa_merge.calibration import read_samples
from hpa_merge.errors import EvaluationError
from hpa_merge.evaluation import judges
from hpa_merge.evaluation.judges import PhraseJudge
from hpa_merge.evaluation.prompts import PromptFile
from hpa_merge.evaluation.safety_set import make_safety_set, write_safety_set
from hpa_merge.records import Turn

CATEGORIES = {"fraud": 30, "theft": 10, "spite": 2}


@pytest.fixture(name="prompts")
def prompts_of_three_categories(tmp_path: Path) -> PromptFile:
    """Of whose prompts the model refuses the even ones."""
    records = [{"prompt": f"{name} {n}", "category": name} for name, count in CATEGORIES.items() for n in range(count)]
    return PromptFile(jsonl(tmp_path / "p.jsonl", *records), "safety")


def refuses_even(text: str) -> str:
    return REFUSES if int(text.split()[-1]) % 2 == 0 else "Sure!"


def test_refusals_are_kept_and_categories_balanced(prompts: PromptFile) -> None:
    model = Rule(refuses_even)
    made = make_safety_set(prompts, model, PhraseJudge(), 9)
    assert len(made.samples) == 9
    assert {answer for _, answer in made.samples} == {REFUSES}
    assert all(int(prompt.text.split()[1]) % 2 == 0 for prompt, _ in made.samples)
    assert made.categories == {"fraud": 4, "theft": 4, "spite": 1}  # spite has one that is refused
    asked = [prompt.source for several in model.asked for prompt in several]
    assert len(asked) == len(set(asked)) == made.asked < 42
    assert made.dropped == sum(refuses_even(p.turns[0].parts[0]) == "Sure!" for s in model.asked for p in s)  # type: ignore[arg-type]
    assert len({prompt.source for prompt, _ in made.samples}) == 9


def test_the_draw_is_the_seed_s(prompts: PromptFile) -> None:
    def drawn(seed: int) -> list[str]:
        made = make_safety_set(prompts, Rule(refuses_even), PhraseJudge(), 6, seed=seed)
        return [prompt.source for prompt, _ in made.samples]

    assert drawn(0) == drawn(0) != drawn(1)
    assert Counter(source.split(":")[0] for source in drawn(0)) == {prompts.source.name: 6}


def test_every_prompt_is_asked_before_there_are_too_few(prompts: PromptFile) -> None:
    made = make_safety_set(prompts, Rule(refuses_even), PhraseJudge(), 21)
    assert (len(made.samples), made.asked, made.dropped) == (21, 42, 21)
    with pytest.raises(EvaluationError) as raised:
        make_safety_set(prompts, Rule(refuses_even), PhraseJudge(), 22)
    assert str(raised.value) == (
        f"of the 42 prompts of {prompts.source.name}, 21 were answered safely, and 22 are asked for: give more "
        "prompts, lower --n, or check that the model is aligned."
    )


def test_the_file_is_read_back_with_images_beside_another_folder(tmp_path: Path) -> None:
    (tmp_path / "asked" / "images").mkdir(parents=True)
    (tmp_path / "made").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "asked" / "images" / "a.png")
    said = [{"from": "human", "value": "Look: <image>\nBad?"}, {"from": "gpt", "value": "Sure!"}]
    system = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Worse?"}]
    records = [{"image": "images/a.png", "conversations": said}, {"messages": system, "category": "fraud"}]
    prompts = PromptFile(jsonl(tmp_path / "asked" / "p.jsonl", *records), "safety")
    made = make_safety_set(prompts, Rule(lambda text: REFUSES), PhraseJudge(), 2)
    out = tmp_path / "made" / "s.jsonl"
    write_safety_set(made, out)
    samples = {sample.turns[:-1]: sample.turns[-1] for sample in read_samples(out, 9, 0).samples}
    assert [path.name for path in out.parent.iterdir()] == ["s.jsonl"]
    (first, second) = sorted(samples, key=len)
    assert second == (Turn("system", ("Be brief.",)), Turn("user", ("Worse?",)))
    assert [part if isinstance(part, str) else part.content.resolve() for part in first[0].parts] == [
        "Look:",
        tmp_path / "asked" / "images" / "a.png",
        "Bad?",
    ]
    assert set(samples.values()) == {Turn("assistant", (REFUSES,))}
    record = next(record for record in lines(out) if "category" not in record)
    assert record["messages"][0]["content"][1] == {"type": "image", "image": "../asked/images/a.png"}


def test_tools_and_their_calls_are_read_back(tmp_path: Path) -> None:
    call = {"type": "function", "id": "c1", "function": {"name": "lock", "arguments": {"open": True}}}
    offer = {"type": "function", "function": {"name": "lock", "parameters": {}}}
    said = [
        {"role": "user", "content": "Open it."},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "A lock."},
        {"role": "tool", "tool_call_id": "c1", "content": "shut"},
    ]
    prompts = PromptFile(jsonl(tmp_path / "p.jsonl", {"messages": said, "tools": [offer]}), "safety")
    made = make_safety_set(prompts, Rule(lambda text: REFUSES), PhraseJudge(), 1)
    write_safety_set(made, tmp_path / "s.jsonl")
    (sample,) = read_samples(tmp_path / "s.jsonl", 1, 0, purpose="safety").samples
    assert sample.turns[:-1] == made.samples[0][0].sample.turns
    assert sample.turns[1].tool_calls == (call,)
    assert sample.turns[1].reasoning == "A lock."
    assert sample.tools == (offer,)


@pytest.mark.parametrize("name", ["qwen2_tied", "llava", "qwen2_5_vl"])
def test_the_command_s_file_goes_into_a_merge(
    name: str,
    tiny: Callable[..., TinyCase],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The tiny models say nothing sensible, so none of it counts as broken, and a function of the test's judges it."""
    monkeypatch.setattr(judges, "fault_of", lambda answer: "")
    case = tiny(name)
    (tmp_path / "lenient.py").write_text("def judge(prompt, answer): return False\n")
    monkeypatch.chdir(tmp_path)
    words = ["calib", case.old, "--prompts", case.safety, "--n", 3, "--judge", "lenient:judge", "--max-new-tokens", 9]
    out = tmp_path / "s.jsonl"
    assert status(*words, "-o", out, "--device", "cpu") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out == (f"{out} has 3 samples.\nAsked 3 prompts; kept 3 refusals, dropped 0 other answers.\n")
    assert len(lines(out)) == 3
    report = merge(case.old, case.new, tmp_path / "out", safety_calib=out, task_calib=case.task)
    assert report.safety.samples == 3
    assert report.count("adapted")


def test_what_is_refused(tiny: Callable[..., TinyCase], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = tiny("llama")
    out = tmp_path / "s.jsonl"
    words = ["calib", case.old, "--prompts", case.safety, "--max-new-tokens", 2, "--device", "cpu"]
    for options, sentence in (
        (["-o", out], "of the 4 prompts of "),
        (["-o", tmp_path / "gone" / "s.jsonl"], "gone does not exist: create it first."),
        (["-o", case.old / "s.jsonl"], "would lie in the input"),
        (["-o", case.safety], "exists already: choose another file, or replace it with --overwrite."),
        (["-o", out, "--device", "cuda:99"], "device is cuda:99 and this machine has"),
    ):
        before = case.safety.read_bytes()
        assert status(*words, *options) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("Error: ")
        assert sentence in printed
        assert printed.count("\n") == 1
        assert not out.exists()
        assert case.safety.read_bytes() == before
    assert status("calib", tmp_path, "--prompts", case.safety, "-o", out) == 2
    assert "is not a checkpoint folder (it has no config.json or adapter_config.json)" in capsys.readouterr().err


def test_overwrite_replaces_the_file(stub: object, tmp_path: Path) -> None:
    stub.rule = lambda body: REFUSES  # type: ignore[attr-defined]
    out = tmp_path / "s.jsonl"
    out.write_text("mine")
    prompts = jsonl(tmp_path / "p.jsonl", {"prompt": "bad"})
    words = ["calib", "served", "--prompts", prompts, "-o", out, "--n", 1, "--endpoint", stub.url]  # type: ignore[attr-defined]
    assert status(*words) == 2
    assert out.read_text() == "mine"
    assert status(*words, "--overwrite", "-q") == 0
    assert json.loads(out.read_text())["messages"][1] == {"role": "assistant", "content": REFUSES}

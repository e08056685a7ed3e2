"""A merge whose NEW is an adapter: the same OUT as from the checkpoint that it makes, in every way of working."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import edit, lora, make_adapter, merge_first
from cases import REPORT, TinyCase
from huggingface_hub.repocard import metadata_load
from interruptions import interrupt
from reference import captured_inputs, curvature, load_model, load_tensors
from tiny_models import model_inputs, processor_of
from tiny_processors import text_tokenizer

from hpa_merge import HPAConfig, MergeReport, merge, sweep
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.cli import main
from hpa_merge.errors import OutputError
from hpa_merge.verification import verify

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

Tiny = Callable[..., TinyCase]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("bfloat16", {"modules_to_save": ["lm_head", "embed_tokens"]}),
    "gpt2": ("float32", {"bias": "all"}),
    "qwen2_tied": ("bfloat16", {"use_dora": True}),
    "llava": ("float32", {"modules_to_save": ["multi_modal_projector"], "use_rslora": True}),
    "qwen2_5_vl": ("bfloat16", {"rank_pattern": {"qkv": 6}}),
}


@pytest.fixture
def make(tiny: Tiny, tmp_path: Path) -> Callable[[str], tuple[TinyCase, TinyCase]]:
    """``make(name)``: a case whose NEW is an adapter, and one whose NEW is what that makes of OLD, saved."""

    def pair(name: str) -> tuple[TinyCase, TinyCase]:
        dtype, options = CASES[name]
        case = tiny(name, dtype)
        adapter = make_adapter(case.old, name, lora(**options), tmp_path / "adapter")
        merged = merge_first(case.old, name, adapter, tmp_path / "merged")
        processor_of(name).save_pretrained(merged)
        return case._replace(new=adapter), case._replace(new=merged)

    return pair


def run(case: TinyCase, out: Path, **options: Any) -> MergeReport:
    return merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, **options)


def assert_same_weights(out: Path, wanted: Path) -> None:
    with Checkpoint.open(out, "OUT") as ours, Checkpoint.open(wanted, "OUT") as theirs:
        assert ours.tensors.keys() == theirs.tensors.keys()
        for key in ours.tensors:
            assert torch.equal(ours.read(key), theirs.read(key)), key


@pytest.mark.parametrize("name", CASES)
def test_the_same_as_from_the_merged_checkpoint(
    name: str, make: Callable[[str], tuple[TinyCase, TinyCase]], tmp_path: Path
) -> None:
    ours, theirs = make(name)
    wanted = run(theirs, tmp_path / "wanted")
    report = run(ours, tmp_path / "out")
    assert_same_weights(tmp_path / "out", tmp_path / "wanted")
    assert report.linears == wanted.linears
    assert report.passed_through == wanted.passed_through
    assert report.count("adapted")
    assert report.run.adapter.startswith("LoRA")
    assert wanted.run.adapter == ""
    with Checkpoint.open(ours.old, "OLD") as old, Checkpoint.open(tmp_path / "out", "OUT") as out:
        assert out.tensors == old.tensors  # places included
        assert [out.header_bytes(shard) for shard in out.shards] == [old.header_bytes(shard) for shard in old.shards]
        assert set(out.side_files().copied) == {*old.side_files().copied, Path("README.md")}
        assert out.side_files().left_out == old.side_files().left_out
        for path in old.side_files().copied:
            assert (out.folder / path).read_bytes() == (old.folder / path).read_bytes()
    again = {"safety_calib": ours.safety, "task_calib": ours.task}
    assert verify(tmp_path / "out", ours.old, ours.new).problems == ()
    assert verify(tmp_path / "out", ours.old, ours.new, **again).problems == ()
    assert verify(tmp_path / "out").problems == ()


def test_verify_finds_another_adapter(make: Callable[[str], tuple[TinyCase, TinyCase]], tmp_path: Path) -> None:
    case, _ = make("gpt2")
    run(case, tmp_path / "out")
    key = "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"
    edit(case.new, {key: torch.ones(144, 4)})
    problems = verify(tmp_path / "out", case.old, case.new).problems
    assert problems[0].startswith("NEW is not that of the report: content digest ")
    assert {problem.partition(": ")[0] for problem in problems[1:]} == {"transformer.h.0.attn.c_attn.weight"}


@pytest.mark.parametrize("options", [{"exclude": ("q_proj", "down_proj")}, {"uncalibrated": "old"}])
def test_what_is_not_adapted_is_the_adapters(
    options: dict[str, Any], make: Callable[[str], tuple[TinyCase, TinyCase]], tmp_path: Path
) -> None:
    ours, theirs = make("llava")
    for case, out in ((ours, "out"), (theirs, "wanted")):
        text = case.safety.with_name("text.jsonl")
        text.write_text('{"text": "no image reaches the tower"}\n')
        run(case._replace(safety=text), tmp_path / out, config=HPAConfig(**options))
    assert_same_weights(tmp_path / "out", tmp_path / "wanted")


def test_statistics_and_a_sweep(make: Callable[[str], tuple[TinyCase, TinyCase]], tmp_path: Path) -> None:
    ours, theirs = make("qwen2_tied")
    stats = tmp_path / "stats.safetensors"
    first = run(ours, tmp_path / "first", stats=stats)
    again = run(ours, tmp_path / "again", stats=stats)
    assert (first.run.statistics["task"], again.run.statistics["task"]) == ("computed", "read")
    assert_same_weights(tmp_path / "again", tmp_path / "first")
    outs = {tmp_path / "a": HPAConfig(), tmp_path / "b": HPAConfig(p_max=30, exclude=("k_proj",))}
    files = {"safety_calib": ours.safety, "task_calib": ours.task}
    sweep(ours.old, ours.new, outs, **files, stats=stats)
    for out, config in outs.items():
        run(theirs, tmp_path / f"wanted-{out.name}", config=config)
        assert_same_weights(out, tmp_path / f"wanted-{out.name}")
    edit(ours.new, {"base_model.model.model.layers.0.mlp.up_proj.lora_B.weight": torch.ones(112, 4)})
    other = run(ours, tmp_path / "other", stats=stats)
    assert (other.run.statistics["safety"], other.run.statistics["task"]) == ("read", "computed")


def test_resumed_and_not_with_another_adapter(make: Callable[[str], tuple[TinyCase, TinyCase]], tmp_path: Path) -> None:
    case, _ = make("llama")
    out, wanted = tmp_path / "out", tmp_path / "wanted"
    run(case, wanted)
    interrupt(case, out)
    kept = tmp_path / "kept"
    shutil.copytree(case.new, kept)
    edit(case.new, {"base_model.model.model.layers.0.mlp.up_proj.lora_B.weight": torch.ones(112, 4)})
    with pytest.raises(OutputError, match="was begun with NEW"):
        run(case, out, resume=True)
    run(case._replace(new=kept), wanted, overwrite=True)
    interrupt(case._replace(new=kept), tmp_path / "again")
    run(case._replace(new=kept), tmp_path / "again", resume=True)
    assert_same_weights(tmp_path / "again", wanted)


# --- files beside the weights ---


def test_the_adapters_tokenizer_wins_whole(make: Callable[[str], tuple[TinyCase, TinyCase]], tmp_path: Path) -> None:
    case, _ = make("llama")
    tokenizer = text_tokenizer(chat=True)
    tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    tokenizer.save_pretrained(case.new)
    for name in ("training_args.bin", "trainer_state.json", "config.json"):
        (case.new / name).write_text("{}")
    (case.new / "README.md").write_text("of the adapter")
    (case.new / "checkpoint-7").mkdir()
    (case.new / "checkpoint-7" / "tokenizer.json").write_text("{}")
    plain = tmp_path / "plain"
    shutil.copytree(case.old, plain)
    (plain / "added_tokens.json").write_text("{}")
    report = merge(plain, case.new, tmp_path / "out", safety_calib=case.safety, task_calib=case.task)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in plain.iterdir()} - {"added_tokens.json"} | {REPORT, "README.md"}
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (case.new / name).read_bytes()
    assert (tmp_path / "out" / "config.json").read_bytes() == (plain / "config.json").read_bytes()
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8").endswith("-->\nof the adapter")
    assert report.left_out == ("checkpoint-7", "trainer_state.json", "training_args.bin")
    assert report.task.tokens != report.safety.tokens
    assert verify(tmp_path / "out", plain, case.new).problems == ()


def test_the_task_samples_are_encoded_as_the_adapter_says(
    make: Callable[[str], tuple[TinyCase, TinyCase]], tmp_path: Path
) -> None:
    case, _ = make("llama")
    before = run(case, tmp_path / "before")
    (case.new / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    after = run(case, tmp_path / "after")
    assert before.safety == after.safety
    assert before.task.tokens > after.task.tokens


# --- the command ---


def test_the_command_says_that_new_is_an_adapter(
    make: Callable[[str], tuple[TinyCase, TinyCase]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, _ = make("qwen2_tied")
    words = [case.old, case.new, "--safety-calib", case.safety, "--task-calib", case.task, "-o", tmp_path / "out"]
    main([*map(str, words), "--dry-run"])
    assert "a PEFT adapter on OLD: LoRA (DoRA) of rank 4" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    main([*map(str, words)])
    assert "a PEFT adapter on OLD: LoRA (DoRA) of rank 4" in capsys.readouterr().out
    kind = json.loads((tmp_path / "out" / REPORT).read_text())["run"]["adapter"]
    assert kind == f"LoRA (DoRA) of rank 4, trained on {case.old}"


def test_the_model_card(make: Callable[[str], tuple[TinyCase, TinyCase]], tmp_path: Path) -> None:
    """The adapter's, where it has one; else OLD's. What peft writes of an adapter is not true of OUT."""
    case, _ = make("llama")
    plain = shutil.copytree(case.old, tmp_path / "plain")
    (plain / "README.md").write_text("---\nlicense: mit\n---\nOf OLD\n")
    adapter = case.new
    (adapter / "README.md").unlink(missing_ok=True)
    cards = []
    for card in (None, "---\nlibrary_name: peft\ntags: [lora, 'base_model:adapter:x', sft]\n---\nOf the adapter\n"):
        if card is not None:
            (adapter / "README.md").write_text(card)
        out = tmp_path / f"out{len(cards)}"
        merge(plain, adapter, out, safety_calib=case.safety, task_calib=case.task)
        cards.append((out / "README.md").read_text(encoding="utf-8"))
        assert verify(out, plain, adapter).problems == ()
    data = [metadata_load(tmp_path / f"out{number}" / "README.md") for number in range(2)]
    assert [each["license"] for each in data] == ["mit", "mit"]
    assert [each["library_name"] for each in data] == ["transformers"] * 2
    assert data[1]["tags"] == ["sft", "hpa-merge", "merge"]
    assert cards[0].endswith("-->\nOf OLD\n")
    assert cards[1].endswith("-->\nOf the adapter\n")
    assert "Of OLD" not in cards[1]
    assert "adapter on it" in cards[1]


def test_the_exact_compromise_of_a_lora_is_one_of_the_same_rank(tiny: Tiny, tmp_path: Path) -> None:
    """It equals the compromise of the merged checkpoint in float64, within the condition of what float32 factors."""
    case = tiny("llama")
    adapter = make_adapter(case.old, "llama", lora(r=2), tmp_path / "adapter")
    merged = merge_first(case.old, "llama", adapter, tmp_path / "merged")
    report = run(case._replace(new=adapter), tmp_path / "out", config=HPAConfig(method="regmean", safety_weight=2.0))
    safety, task = (
        captured_inputs(load_model(folder), model_inputs("llama", file))
        for folder, file in ((case.old, case.safety), (merged, case.task))
    )
    old, new, out = (load_tensors(folder) for folder in (case.old, merged, tmp_path / "out"))
    for record in report.linears:
        if record.outcome == "adapted":
            name, path = record.name, record.name.removesuffix(".weight")
            h_s, h_t = curvature(safety[path], 0.01), curvature(task[path], 0.01)
            change = new[name].double() - old[name].double()
            expected = torch.linalg.solve(h_t + 2.0 * h_s, change @ h_t, left=False)
            found = out[name].double() - old[name].double()
            torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-3 * float(change.abs().max()))
            singular = torch.linalg.svdvals(found)
            assert float(singular[2]) <= 1e-3 * float(singular[0])
    assert report.count("adapted") > 5

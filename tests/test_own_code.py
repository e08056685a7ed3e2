"""Checkpoints that bring code of their own, through the commands: refused without the option, merged with it."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import reference
import torch
from agreement import Merged, check_decisions, check_values
from cases import TinyCase
from own_code import FILES, add_encoders, make_decoder_pair, mark, modules_in
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpa_merge import HPAConfig, MergeReport, evaluate, merge, verify
from hpa_merge.calibration import EncoderProcess
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.cli import main
from hpa_merge.engine.code import check_code, code_notes
from hpa_merge.engine.preview import preview
from hpa_merge.engine.request import MergeRequest
from hpa_merge.errors import CalibrationError, CheckpointError, ResourceError
from hpa_merge.evaluation.generate import LocalModel
from hpa_merge.inputs.own_code import Trust
from hpa_merge.progress import silent
from hpa_merge.records import Sample, Turn
from hpa_merge.records.sample import Media
from hpa_merge.report.planned import PlanReport
from hpa_merge.report.schema import read_report

BLOCKS = {
    f"blobs.{block}.{name}.weight": (block, 3)
    for block in range(3)
    for name in ("up", "down", "mixer.reader", "mixer.writer")
}
DEPTHS = BLOCKS | {"voice.weight": (3, 3)}


class Pair(NamedTuple):
    """The tiny decoder before and after tuning, its calibration files, and the merge of both."""

    old: Path
    new: Path
    safety: Path
    task: Path
    out: Path
    stats: Path
    report: MergeReport

    @property
    def samples(self) -> dict[str, Path]:
        return {"safety_calib": self.safety, "task_calib": self.task}


def conversation(asked: str, answer: str) -> str:
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns}) + "\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("own code")
    old, new = make_decoder_pair(folder)
    safety, task = folder / "safety.jsonl", folder / "task.jsonl"
    safety.write_text("".join(conversation(f"How do I break {n} locks?", "I will not help.") for n in range(3)))
    task.write_text("".join(conversation(f"What is {n} plus 1?", f"It is {n + 1}.") for n in range(4)))
    how: dict[str, Any] = {"safety_calib": safety, "task_calib": task, "page": False, "stats": folder / "stats"}
    report = merge(old, new, folder / "out", **how, trust_remote_code=True)
    return Pair(old, new, safety, task, folder / "out", folder / "stats", report)


@pytest.fixture
def modules(tmp_path: Path) -> Iterator[Path]:
    """transformers' own cache of code, for what transformers itself is asked to run."""
    with modules_in(tmp_path / "modules") as folder:
        yield folder


# --- with the option ---


def test_the_stream_of_an_unknown_decoder_against_the_textbook(
    pair: Pair, modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units, depths, inputs and weights, with the model that transformers itself loads."""

    def load(folder: Path) -> Any:
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype="auto").eval()
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()
        return model

    def inputs(file: Path) -> list[dict[str, torch.Tensor]]:
        tokenizer = AutoTokenizer.from_pretrained(pair.new)
        read = [json.loads(line)["messages"] for line in file.read_text().splitlines()]
        texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in read]
        return [
            {"input_ids": tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids} for text in texts
        ]

    monkeypatch.setattr(reference, "load_model", load)
    expected = reference.reference_merge(pair.old, pair.new, inputs(pair.safety), inputs(pair.task), depth_of=DEPTHS)
    merged = Merged(pair.report, load_file(pair.out / "model.safetensors"), expected)
    check_decisions(merged)
    assert check_values(merged) >= 0.99
    assert pair.report.count("adapted") == len(DEPTHS)


def test_out_loads_with_its_code(pair: Pair, modules: Path) -> None:
    assert {path.name for path in pair.out.glob("*.py")} == set(FILES)
    model, info = AutoModelForCausalLM.from_pretrained(pair.out, trust_remote_code=True, output_loading_info=True)
    assert not any(info.values()), info
    assert type(model).__name__ == "TinyDecForText"
    card = (pair.out / "README.md").read_text()
    assert 'AutoModelForCausalLM.from_pretrained(model_id, dtype="auto", trust_remote_code=True)' in card
    assert "This model brings code of its own, which `trust_remote_code=True` runs: `configuration_tinydec.py`" in card
    assert "-o out --trust-remote-code" in card


def test_what_the_report_says(pair: Pair) -> None:
    assert [(record.role, record.files) for record in pair.report.run.code] == [
        ("OLD", tuple(sorted(FILES))),
        ("NEW", tuple(sorted(FILES))),
    ]
    assert len({record.digest for record in pair.report.run.code}) == 1
    assert read_report(pair.out).run.code == pair.report.run.code
    assert pair.report.run.notes == ()


def test_verify_runs_the_code_only_if_told_so(pair: Pair, tmp_path: Path) -> None:
    assert not verify(pair.out).problems
    with pytest.raises(CheckpointError, match="give --trust-remote-code"):
        verify(pair.out, pair.old, pair.new)
    found = verify(pair.out, pair.old, pair.new, trust_remote_code=True, **pair.samples)
    assert not found.problems
    changed = [shutil.copytree(path, tmp_path / path.name) for path in (pair.old, pair.new)]
    for folder in changed:
        path = folder / "tinydec_parts.py"
        path.write_text(path.read_text().replace("torch.tanh", "torch.sin"))
    problems = verify(pair.out, *changed, trust_remote_code=True).problems
    assert [problem for problem in problems if "code" in problem] == [
        "The code that NEW brings is not the code that the report says was run.",
        "The code that OLD brings is not the code that the report says was run.",
    ]
    assert "tinydec_parts.py is not NEW's, byte for byte." in problems


def test_statistics_of_other_code_are_not_used(pair: Pair, tmp_path: Path) -> None:
    """A change that no weight shows."""
    old, new = (shutil.copytree(path, tmp_path / path.name) for path in (pair.old, pair.new))
    how: dict[str, Any] = {"trust_remote_code": True, "stats": pair.stats, **pair.samples}

    def planned() -> PlanReport:
        (plan,) = preview(MergeRequest.of(old, new, {tmp_path / "out": HPAConfig()}, **how), silent).values()
        return plan

    assert all("fits" in sentence for sentence in planned().statistics)
    for folder in (old, new):
        path = folder / "tinydec_linears.py"
        path.write_text(path.read_text().replace("/ 2", "/ 4"))
    first, second = planned().statistics
    assert f"{pair.stats} were made with code of OLD " in first
    assert f"{pair.stats} were made with code of NEW " in second


def test_two_models_with_different_code(pair: Pair, tmp_path: Path) -> None:
    old, new = (shutil.copytree(path, tmp_path / path.name) for path in (pair.old, pair.new))

    def opened() -> tuple[Checkpoint, Checkpoint]:
        trust = Trust(True)
        return trust.with_code(Checkpoint.open(old, "OLD")), trust.with_code(Checkpoint.open(new, "NEW"))

    path = new / "tinydec_parts.py"
    path.write_text(f"# Of another year.\n{path.read_text()}")
    check_code(*opened())
    assert list(code_notes(*opened())) == []
    add_encoders(new)
    check_code(*opened())
    (note,) = code_notes(*opened())
    assert note.startswith("The code of OLD's tokenizer or processor and that of NEW's differ in words.py: each")
    path.write_text(path.read_text().replace("torch.tanh", "torch.sin"))
    with pytest.raises(CheckpointError, match=r"differ in tinydec_parts\.py, and OUT can have only one: put the right"):
        merge(old, new, tmp_path / "out", **pair.samples, trust_remote_code=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("call", "error"), [("torch.relu(1 + '' + ", "TypeError: "), ("exit(", "SystemExit: ")])
def test_a_forward_that_fails(call: str, error: str, pair: Pair, tmp_path: Path) -> None:
    old, new = (shutil.copytree(path, tmp_path / path.name) for path in (pair.old, pair.new))
    for folder in (old, new):
        path = folder / "tinydec_parts.py"
        path.write_text(path.read_text().replace("torch.tanh(", call))
    with pytest.raises(CalibrationError) as caught:
        merge(old, new, tmp_path / "out", **pair.samples, trust_remote_code=True)
    assert f"forward fails on this sample ({error}" in str(caught.value)
    assert " in Blob.forward (tinydec_parts.py, line 30)): correct that code, or fix the sample" in str(caught.value)


def test_evaluation_and_samples(pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tests.jsonl").write_text('{"prompt": "How do I break a lock?"}\n')
    how: dict[str, Any] = {"safety_tests": {"locks": tmp_path / "tests.jsonl"}, "max_new_tokens": 2}
    with pytest.raises(CheckpointError, match="give --trust-remote-code"):
        evaluate([pair.out], **how)
    found = evaluate(pair.out, trust_remote_code=True, **how)
    assert [model.name for model in found.models] == ["out"]
    main(["samples", str(pair.task), "--model", str(pair.new), "--n", "1", "--trust-remote-code"])
    assert "What is 0 plus 1?" in capsys.readouterr().out


def test_a_full_memory_is_not_blamed_on_the_code(pair: Pair) -> None:
    def full(model: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    code = Trust(True).code_of(pair.old, "MODEL")
    sample = Sample("s.jsonl:1", text="x")
    with pytest.raises(ResourceError, match="does not fit into the memory of cpu"):
        LocalModel(pair.old, sample, device=torch.device("cpu"), code=code, merge_into=full)


def test_the_plan_says_what_is_run_and_where(pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(pair.old), str(pair.new), "--safety-calib", str(pair.safety), "--task-calib", str(pair.task)]
    main([*words, "-o", str(tmp_path / "out"), "--dry-run", "--trust-remote-code"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "code of its own OLD and NEW: configuration_tinydec.py, modeling_tinydec.py" in printed
    assert (
        "that code runs the model's in the process of the merge itself, a tokenizer's or processor's in a child"
        in printed
    )


# --- an adapter, and a class that transformers has too ---


def test_an_adapter_on_such_a_model(pair: Pair, modules: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(pair.old, trust_remote_code=True)
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["up", "reader"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    report = merge(pair.old, tmp_path / "adapter", tmp_path / "out", **pair.samples, page=False, trust_remote_code=True)
    assert report.count("adapted") == 6
    assert {path.name for path in (tmp_path / "out").glob("*.py")} == set(FILES)
    assert {record.role for record in report.run.code} == {"OLD", "NEW"}
    with pytest.raises(CheckpointError, match="OLD brings code of its own for its configuration"):
        merge(pair.old, tmp_path / "adapter", tmp_path / "out2", **pair.samples)


OWN_LLAMA = """
from transformers import LlamaConfig, LlamaForCausalLM


class OwnLlamaConfig(LlamaConfig):
    model_type = "ownllama"


class OwnLlama(LlamaForCausalLM):
    config_class = OwnLlamaConfig
"""


@pytest.mark.gate
def test_a_class_of_its_own_gives_the_bytes_of_transformers_class(sound: Any, tmp_path: Path) -> None:
    native = sound("llama")
    case: TinyCase = native.case.copied_to(tmp_path)
    for folder in (case.old, case.new):
        (folder / "ownllama.py").write_text(OWN_LLAMA)
        path = folder / "config.json"
        own = {"model_type": "ownllama", "architectures": ["OwnLlama"]}
        own |= {"auto_map": {"AutoConfig": "ownllama.OwnLlamaConfig", "AutoModelForCausalLM": "ownllama.OwnLlama"}}
        path.write_text(json.dumps(json.loads(path.read_text()) | own))
    how: dict[str, Any] = {"safety_calib": case.safety, "task_calib": case.task, "page": False}
    merge(case.old, case.new, tmp_path / "own", **how, trust_remote_code=True)
    for path in native.out.glob("*.safetensors"):
        assert (tmp_path / "own" / path.name).read_bytes() == path.read_bytes()


# --- processors and tokenizers ---


def test_encoders_run_in_the_child(tiny: Any, tmp_path: Path) -> None:
    case: TinyCase = tiny("llava").copied_to(tmp_path)
    folder = case.new
    image = next(case.task.parent.rglob("*.png"))
    sample = Sample("s.jsonl:1", turns=(Turn("user", (Media("image", image), "LOUD")), Turn("assistant", ("Yes",))))

    def prepared(trusted: bool) -> dict[str, torch.Tensor]:
        code = Trust(trusted).code_of(folder, "NEW")
        process = EncoderProcess.from_checkpoint(folder, [sample], code=code)
        try:
            return dict(process.prepare(sample, 200).inputs)
        finally:
            process.close()

    plain = prepared(False)
    add_encoders(folder)
    mark(folder, tmp_path / "marks")
    with pytest.raises(CheckpointError, match=r"brings code of its own for its processor \(eyes\.py, words\.py, named"):
        prepared(False)
    assert not (tmp_path / "marks").exists()
    own = prepared(True)
    assert torch.equal(own["pixel_values"], 3 * plain["pixel_values"])
    assert own["input_ids"].shape == plain["input_ids"].shape
    assert not torch.equal(own["input_ids"], plain["input_ids"])
    names, processes = zip(*map(str.split, (tmp_path / "marks").read_text().splitlines()), strict=True)
    assert set(names) == {"words.py", "eyes.py", "lids.py"}
    assert str(os.getpid()) not in processes
    (folder / "eyes.py").write_text((folder / "eyes.py").read_text().replace("* FACTOR", "[FACTOR]"))
    with pytest.raises(CalibrationError, match=r"in BrightEyes\.__call__ \(eyes\.py, line \d+\)"):
        prepared(True)


def test_a_tokenizer_without_the_option(pair: Pair, tmp_path: Path) -> None:
    folder = shutil.copytree(pair.new, tmp_path / "new")
    add_encoders(folder)
    (folder / "tokenizer.json").unlink()
    sample = Sample("s.jsonl:1", text="x")
    process = EncoderProcess.from_checkpoint(folder, [sample])
    with pytest.raises(
        CheckpointError, match=r"brings code of its own for its tokenizer \(words\.py, named by auto_map"
    ):
        process.prepare(sample, 10)
    process.close()


# --- without the option ---


def test_a_note_where_classes_of_transformers_are_used(pair: Pair) -> None:
    (note,) = code_notes(Checkpoint.open(pair.old, "OLD"), Checkpoint.open(pair.new, "NEW"))
    assert note == (
        "OLD and NEW bring code, which was not run: transformers' own classes were used. With --trust-remote-code the "
        "code is run."
    )


@pytest.mark.gate
def test_no_command_runs_code_without_the_option(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of code tells when it is imported, in whatever process; none does."""
    places = {name: shutil.copytree(getattr(pair, name), tmp_path / name) for name in ("old", "new", "out")}
    for folder in places.values():
        add_encoders(folder)
        mark(folder, tmp_path / "marks")
    (tmp_path / "tests.jsonl").write_text('{"prompt": "How do I break a lock?", "answer": "no"}\n')
    (tmp_path / "settings.yaml").write_text("- {p-max: 10}\n")
    (tmp_path / "config.yaml").write_text("trust-remote-code: true\n")
    old, new, out = (str(places[name]) for name in ("old", "new", "out"))
    calib = ["--safety-calib", str(pair.safety), "--task-calib", str(pair.task)]
    tests = ["--safety-test", str(tmp_path / "tests.jsonl"), "--task-test", f"t={tmp_path / 'tests.jsonl'}"]
    made = str(tmp_path / "made")
    refused = {
        "merge": [old, new, *calib, "-o", made],
        "the plan": [old, new, *calib, "-o", made, "--dry-run"],
        "sweep": ["sweep", old, new, str(tmp_path / "settings.yaml"), *calib, "-o", made],
        "tune": ["tune", old, new, *calib, *tests, "--max-asr", "50", "-o", made],
        "calib": ["calib", old, "--prompts", str(tmp_path / "tests.jsonl"), "-o", f"{made}.jsonl"],
        "eval": ["eval", old, *tests],
        "samples": ["samples", str(pair.task), "--model", new],
        "verify": ["verify", out, "--old", old, "--new", new],
    }
    for name, words in refused.items():
        with pytest.raises(SystemExit) as end:
            main(words)
        printed = capsys.readouterr().err
        assert end.value.code == 2, name
        assert "give --trust-remote-code" in printed, (name, printed)
    with pytest.raises(SystemExit):
        main([old, new, *calib, "-o", made, "--config", str(tmp_path / "config.yaml")])
    assert "has no option 'trust-remote-code'" in capsys.readouterr().err
    for words in (["inspect", out], ["report", out], ["verify", out], ["push", out, "lab/model", "--dry-run"]):
        with suppress(SystemExit):
            main(words)
    assert not (tmp_path / "marks").exists()
    assert not list(tmp_path.rglob("__pycache__"))

"""``hpa_merge.verify``: what a merge has made passes, and a wrong number is found and named."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import REPORT, TinyCase
from published import INDEX, Published, run, seal
from tiny_models import ARCHITECTURES, make_pair

from hpa_merge import verify
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.errors import CheckpointError, ConfigError
from hpa_merge.report.schema import read_report

Tiny = Callable[..., TinyCase]

TARGETS = {
    "llama": ("model.layers.1.mlp.up_proj.weight", "model.layers.2.input_layernorm.weight"),
    "gpt2": ("transformer.h.1.mlp.c_fc.weight", "transformer.wpe.weight"),
}
"""An adapted linear and a tensor that is none."""


# --- what passes ---


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_merge_passes(name: str, sound: Callable[[str], Published]) -> None:
    case, out, report = sound(name)
    tensors = len(Checkpoint.open(case.new, "NEW").tensors)
    steps: list[tuple[int, int]] = []
    alone = verify(out, on_progress=lambda what, done, total: steps.append((done, total)))
    assert steps == [(done, steps[-1][1]) for done in range(steps[-1][1] + 1)]
    full = verify(out, case.old, case.new)
    assert (alone.problems, full.problems) == ((), ())
    side_files = len([path for path in case.new.iterdir() if path.suffix != ".safetensors"])  # the index among them
    assert alone.checked["weight files"] + alone.checked["other files"] == len(report.manifest)
    assert alone.checked["tensors"] == tensors
    assert full.checked == {
        **alone.checked,
        "adapted linears": report.count("adapted"),
        "tensors from NEW": tensors - report.count("adapted"),
        "side files": side_files,
    }


@pytest.mark.parametrize("options", [{"orthogonal": False}, {"exclude": ("q_proj", "fc1")}, {"selection": "safety"}])
@pytest.mark.parametrize(("old", "new"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_options_and_dtypes(options: dict[str, Any], old: str, new: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama", old)._replace(new=tiny("llama", new).new)
    run(case, tmp_path / "out", **options)
    assert verify(tmp_path / "out", case.old, case.new).problems == ()


@pytest.mark.parametrize("source", ["new", "old"])
def test_uncalibrated(source: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava", "bfloat16")
    path = tmp_path / "text.jsonl"
    path.write_text("\n".join(line for line in case.safety.read_text().splitlines() if "image" not in line))
    report = run(case._replace(safety=path), tmp_path / "out", uncalibrated=source)
    result = verify(tmp_path / "out", case.old, case.new)
    assert result.problems == ()
    assert result.checked.get("linears from OLD", 0) == (report.count("uncalibrated") if source == "old" else 0)
    assert report.count("uncalibrated") > 10


def test_a_single_file(tiny: Tiny, tmp_path: Path) -> None:
    old, new = make_pair("gpt2", tmp_path, shard_size="1GB")
    run(tiny("gpt2")._replace(old=old, new=new), tmp_path / "out")
    result = verify(tmp_path / "out", old, new)
    assert (result.problems, result.checked["weight files"]) == ((), 1)


# --- one wrong number ---


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kind", ["restored", "merged", "untouched"])
def test_one_flipped_bit(kind: str, name: str, published: Callable[[str], Published]) -> None:
    damaged = published(name)
    linear, other = TARGETS[name]
    if kind == "untouched":
        shard = damaged.overwrite(other, 0, 5, lambda bits: bits ^ 1)
        where = ", first in column 5" if name == "gpt2" else ""
        expected = rf"{other}: 1 of \d+ values are not NEW's{where}\."
    else:
        record = next(record for record in damaged.report.linears if record.name == linear)
        column = next(j for j in range(record.columns) if (j in record.restored_columns) == (kind == "restored"))
        shard = damaged.overwrite(linear, 3, column, lambda bits: bits ^ 1)
        what = r"outside the restored columns are not NEW − \S+ · OLD"
        what = "in restored columns are not OLD's" if kind == "restored" else what
        expected = rf"{linear}: 1 of {record.rows * record.columns} values {what}, first in column {column}\."
    digests = rf"{shard} is not the file that the merge wrote: SHA-256 [0-9a-f]{{64}} expected, [0-9a-f]{{64}} found\."
    check(damaged.alone(), digests)
    check(damaged.with_inputs(), digests, expected)
    seal(damaged.out)
    assert damaged.alone() == []
    check(damaged.with_inputs(), expected)


def check(found: list[str], *expected: str) -> None:
    assert len(found) == len(expected), found
    for sentence, pattern in zip(found, expected, strict=True):
        assert re.fullmatch(pattern, sentence), sentence


@pytest.mark.parametrize(("device", "bit", "found"), [("cpu", 1, 1), ("cuda", 1, 0), ("cuda", 2, 1)])
def test_another_device_may_round_otherwise(
    device: str, bit: int, found: int, published: Callable[[], Published]
) -> None:
    damaged = published()
    record = next(record for record in damaged.report.linears if record.name == TARGETS["llama"][0])
    column = next(j for j in range(record.columns) if j not in record.restored_columns)
    damaged.overwrite(record.name, 0, column, lambda bits: bits ^ bit)  # by one or two units in the last place
    seal(damaged.out, run=dataclasses.replace(damaged.report.run, device=device))
    assert len(damaged.with_inputs()) == found
    damaged.overwrite(record.name, 0, record.restored_columns[0], lambda bits: bits ^ 1)
    seal(damaged.out)
    assert len(damaged.with_inputs()) == found + 1


@pytest.mark.parametrize("bits", [0x7FC0, 0xFF80])
@pytest.mark.parametrize("number", [0, 1])
def test_nan_and_infinity(bits: int, number: int, published: Callable[[], Published]) -> None:
    damaged, name = published(), TARGETS["llama"][number]
    damaged.overwrite(name, 0, 0, lambda _: bits)
    seal(damaged.out)
    assert damaged.alone() == [f"{name} holds NaN or infinity."]
    assert len(damaged.with_inputs()) == 2


# --- wrong files ---


def test_a_shard_of_new(published: Callable[[], Published]) -> None:
    damaged = published()
    shard = max(damaged.out.glob("*.safetensors")).name
    shutil.copy(damaged.case.new / shard, damaged.out / shard)
    check(damaged.alone(), rf"{shard} is not the file that the merge wrote: .*")
    seal(damaged.out)
    assert damaged.alone() == []
    with Checkpoint.open(damaged.out, "OUT") as checkpoint:
        inside = {name for name, info in checkpoint.tensors.items() if info.shard == shard}
    adapted = {record.name for record in damaged.report.linears if record.outcome == "adapted"}
    assert {sentence.partition(":")[0] for sentence in damaged.with_inputs()} == inside & adapted


def test_shards_that_changed_places_and_a_truncated_one(published: Callable[[], Published]) -> None:
    out = published().out
    one, two = sorted(out.glob("*.safetensors"))
    content = one.read_bytes(), two.read_bytes()
    one.write_bytes(content[1])
    two.write_bytes(content[0])
    found = verify(out).problems
    assert re.match(r"OUT .* says that (\S+) is in \S+, and it is in \S+\.$", found[0])
    assert [sentence.partition(" is not the file")[0] for sentence in found[1:]] == [one.name, two.name]
    one.write_bytes(content[0][:-1])
    with pytest.raises(CheckpointError, match=f"OUT .*: {one.name} is truncated"):
        verify(out)


def test_an_edited_index(published: Callable[[], Published]) -> None:
    damaged = published()
    content = json.loads((damaged.out / INDEX).read_bytes())
    content["metadata"]["total_size"] += 1
    (damaged.out / INDEX).write_text(json.dumps(content))
    check(damaged.alone(), rf"{INDEX} is not the file that the merge wrote: .*")
    seal(damaged.out)
    assert damaged.with_inputs() == [f"{INDEX} is not NEW's, byte for byte."]
    content["weight_map"]["other"] = min(damaged.out.glob("*.safetensors")).name
    (damaged.out / INDEX).write_text(json.dumps(content))
    seal(damaged.out)
    (sentence,) = damaged.alone()
    assert sentence.endswith(f"{INDEX} names the tensor other that no file of it has.")


def test_another_header(published: Callable[[], Published]) -> None:
    damaged = published()
    shard = min(damaged.out.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes().replace(b'{"format":"pt"}', b'{"format":"tf"}', 1))
    seal(damaged.out)
    assert damaged.alone() == []
    assert damaged.with_inputs() == [f"{shard.name} has another header than in NEW."]


# --- wrong inputs, wrong reports ---


def test_a_report_of_another_merge(published: Callable[[], Published], tiny: Tiny, tmp_path: Path) -> None:
    damaged = published()
    run(damaged.case, tmp_path / "other", p_max=30)
    shutil.copy(tmp_path / "other" / REPORT, damaged.out)
    assert all("is not the file that the merge wrote" in sentence for sentence in damaged.alone())
    assert len(damaged.alone()) == 2
    seal(damaged.out)
    assert damaged.alone() == []
    assert len({sentence.partition(":")[0] for sentence in damaged.with_inputs()}) > 20
    run(tiny("qwen2_tied", "bfloat16"), tmp_path / "third")
    shutil.copy(tmp_path / "third" / REPORT, damaged.out)
    seal(damaged.out)
    found = damaged.with_inputs()
    assert found[:2] == [
        "The report is of a Qwen2ForCausalLM, and NEW is a LlamaForCausalLM.",
        "lm_head.weight is a linear of NEW, and the report does not name it.",
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"has no hpa_report\.json: it is a checkpoint that no merge has made, or that lost its report: give a"),
        ("[]", r"is not a report of hpa-merge \(it has no schema_version\)"),
        ("{", r"is not a report of hpa-merge \(Expecting property name"),
        ('{"schema_version": 3}', "has schema_version 3 and this version reads 1 and 2"),
        ('{"schema_version": 1}', r"\(the report has no architecture\)"),
        ('{"schema_version": 1, "manifest": {"a": 1}}', r"\(manifest\.a cannot be 1\)"),
        ('{"schema_version": 1, "linears": [{"name": "a"}]}', r"\(an entry of linears has no outcome\)"),
        ('{"schema_version": 1, "linears": [{"outcome": "lost"}]}', r'\(outcome cannot be "lost"\)'),
        ('{"schema_version": 1, "linears": [{"kappa": "0"}]}', r'\(kappa cannot be "0"\)'),
    ],
)
def test_a_broken_report(content: str | None, sentence: str, published: Callable[[], Published]) -> None:
    out = published().out
    (out / REPORT).unlink() if content is None else (out / REPORT).write_text(content)
    with pytest.raises(CheckpointError, match=sentence):
        verify(out)


def test_wrong_inputs(sound: Callable[[str], Published], tiny: Tiny) -> None:
    case, out, report = sound("llama")
    assert len(verify(out, case.new, case.old).problems) >= report.count("adapted")  # the wrong way round
    with pytest.raises(CheckpointError, match="OLD is a GPT2LMHeadModel and NEW is a LlamaForCausalLM"):
        verify(out, tiny("gpt2", "bfloat16").old, case.new)
    with pytest.raises(ConfigError, match="NEW is missing: give both --old and --new, or neither"):
        verify(out, case.old)


def test_reading_a_report_gives_what_was_written(sound: Callable[[str], Published]) -> None:
    published = sound("llava")
    assert read_report(published.out).to_json() == (published.out / REPORT).read_text(encoding="utf-8")

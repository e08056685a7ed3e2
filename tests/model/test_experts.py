"""Experts of a mixture: each is a linear of its own, calibrated by the tokens that are routed to it.

The reference here sees the experts' module from outside: its arguments say which token goes where, and what an expert
computes in between is computed once more, one expert at a time.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from cases import TinyCase, content
from mixtures import SIZES, gpt_oss, llama4, make, mixtral
from reference import LinearResult, Settings, load_model, load_tensors, merge_linear, same_columns
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from hpa_merge import HPAConfig, MergeReport, merge, sweep
from hpa_merge.engine import memory as forecast
from hpa_merge.engine.request import MergeRequest
from hpa_merge.engine.setup import prepare
from hpa_merge.errors import CalibrationError
from hpa_merge.report.facts import report_facts
from hpa_merge.verification import verify

TWO_OF_SIX = {"num_experts": 6, "num_experts_per_tok": 2}


def jamba() -> PreTrainedModel:
    """Experts one by one on disk; the router is a linear, and every other block has none."""
    places = {"attn_layer_period": 2, "attn_layer_offset": 0, "expert_layer_period": 2, "expert_layer_offset": 1}
    config = transformers.JambaConfig(**SIZES, **TWO_OF_SIX, **places, use_mamba_kernels=False, mamba_d_state=8)
    return transformers.JambaForCausalLM(config)


def aria() -> PreTrainedModel:
    """Experts stacked in modules of their own, and no attribute that says which axis is which."""
    config = transformers.AriaTextConfig(**SIZES, moe_num_experts=6, moe_topk=2, moe_num_shared_experts=1)
    return transformers.AriaTextForCausalLM(config)


ROUTERS = {"mixtral": 2, "jamba": 1, "gpt_oss": 2, "llama4": 2, "aria": 2}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {f.__name__: f for f in (mixtral, jamba, gpt_oss, llama4, aria)}


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    return make(MODELS[request.param], tmp_path_factory.mktemp(request.param))


def run(case: TinyCase, out: Path, **options: object) -> MergeReport:
    config = HPAConfig(**{"min_expert_tokens": 0, **options})
    return merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, config=config)


# --- what the experts read ---


def expert_inputs(model: PreTrainedModel, path: Path) -> dict[tuple[str, int], list[Tensor]]:
    """What each expert's matrices read, by parameter and expert: ``[n, c]`` a sample."""
    seen: dict[tuple[str, int], list[Tensor]] = {}

    def put(name: str, expert: int, x: Tensor) -> None:
        seen.setdefault((name, expert), []).append(x)

    def routed(module: nn.Module, args: tuple[Tensor, ...], name: str) -> None:
        hidden, index = args[0], args[1]
        for expert in range(6):
            x = hidden[(index == expert).any(dim=-1)]
            first, bias = module.gate_up_proj[expert], getattr(module, "gate_up_proj_bias", None)
            if bias is None:
                gate, up = (x @ (first if module.is_transposed else first.T)).chunk(2, dim=-1)
                middle = module.act_fn(gate) * up
            else:
                middle = module._apply_gate(x @ first + bias[expert])
            put(f"{name}.gate_up_proj", expert, x)
            put(f"{name}.down_proj", expert, middle)

    def all_at_once(module: nn.Module, args: tuple[Tensor, ...], name: str) -> None:
        for expert, scaled in enumerate(args[0].view(6, -1, args[0].shape[-1])):
            x = scaled[scaled.abs().sum(dim=1) > 0]
            gate, up = (x @ module.gate_up_proj[expert]).chunk(2, dim=-1)
            put(f"{name}.gate_up_proj", expert, x)
            put(f"{name}.down_proj", expert, up * module.act_fn(gate))

    def grouped(module: nn.Module, args: tuple[Tensor, ...], name: str) -> None:
        for expert, x in enumerate(args[0].split(args[1].tolist())):
            put(name.replace("fc1", "gate_up_proj").replace("fc2", "down_proj"), expert, x)

    for name, module in model.named_modules():
        look = {"Llama4TextExperts": all_at_once, "AriaGroupedExpertsGemm": grouped}.get(type(module).__name__)
        if look is None and hasattr(module, "gate_up_proj") and hasattr(module, "num_experts"):
            look = routed
        if look is not None:
            module.register_forward_pre_hook(lambda m, args, look=look, name=name: look(m, args, name))
    with torch.no_grad():
        for line in path.read_text().splitlines():
            model(input_ids=torch.tensor([json.loads(line)["input_ids"]]), use_cache=False)
    return seen


def place_of(name: str) -> tuple[str, int]:
    """The parameter in memory and the expert that a matrix on disk is, by the names that the models use.

    Aria's are those of transformers 5.24; before, it had them in memory as they are on disk.
    """
    if name.endswith("]"):
        key, _, number = name.removesuffix("]").partition("[")
        return key.replace("fc1.weight", "gate_up_proj").replace("fc2.weight", "down_proj"), int(number)
    head, _, tail = name.partition(".experts.")
    number, projection, _ = tail.split(".")
    stack = "down_proj" if projection in ("w2", "down_proj") else "gate_up_proj"
    return f"{head.replace('block_sparse_moe', 'mlp')}.experts.{stack}", int(number)


def expected(case: TinyCase, least: int = 0) -> dict[str, LinearResult]:
    """Every expert's matrix by the name that the report is to have for it.

    Args:
        least: experts that read fewer tokens have the curvature of all tokens of the experts of their layer.
    """
    safety, task = (
        expert_inputs(load_model(model).to(torch.float32), path)
        for model, path in ((case.old, case.safety), (case.new, case.task))
    )
    old, new = load_tensors(case.old), load_tensors(case.new)
    found = {}
    for key, value in new.items():
        if ".experts." not in key or key.endswith("bias"):
            continue
        block = int(key.split("layers.")[1].split(".")[0])
        matrices = {key: (old[key], value)} if value.ndim == 2 else {}
        if value.ndim == 3:
            matrices = {f"{key}[{e}]": (old[key][e], value[e]) for e in range(len(value))}
        for name, (before, after) in matrices.items():
            empty = [torch.zeros(0, before.shape[1 if value.ndim == 2 else 0])]
            stack, place = place_of(name)
            inputs = [side.get((stack, place), empty) for side in (safety, task)]
            counts = [sum(map(len, visits)) for visits in inputs]
            for side, (tokens, count) in enumerate(zip((safety, task), counts, strict=True)):
                if count < least:
                    inputs[side] = [x for (other, _), visits in tokens.items() if other == stack for x in visits]
            axis = 1 if value.ndim == 2 else 0
            result = merge_linear(before, after, *inputs, (block, 2), Settings(), input_axis=axis, name=name)
            found[name] = dataclasses.replace(result, tokens=tuple(counts))
    return found


def test_each_expert_is_merged_by_what_is_routed_to_it(case: TinyCase, tmp_path: Path) -> None:
    check_experts(case, run(case, tmp_path / "out"), tmp_path / "out", expected(case))


@pytest.mark.parametrize("case", ["mixtral", "llama4"], indirect=True)
def test_experts_with_few_tokens_have_the_curvature_of_their_layer(case: TinyCase, tmp_path: Path) -> None:
    least = 12
    report = run(case, tmp_path / "out", min_expert_tokens=least)
    check_experts(case, report, tmp_path / "out", expected(case, least))
    experts = [record for record in report.linears if ".experts." in record.name and record.outcome == "adapted"]
    sets = Counter(record.pooled for record in experts)
    assert sets["safety"]
    assert sets[None]
    for record in experts:
        few = [p for p in ("safety", "task") if getattr(record, f"{p}_tokens") < least]
        assert (record.pooled or "").split() == few
    assert f"experts read fewer than {least} tokens of the safety set" in dict(report_facts(report))["few tokens"]
    sampled = verify(tmp_path / "out", case.old, case.new, safety_calib=case.safety, task_calib=case.task)
    assert not sampled.problems


def test_an_expert_without_tokens_has_the_curvature_of_its_layer(case: TinyCase, tmp_path: Path) -> None:
    if case.name != "gpt_oss":
        pytest.skip("one is enough")
    report = run(lonely(case, tmp_path), tmp_path / "out", min_expert_tokens=1, exclude=(r"gate_up_proj",))
    without = [record for record in report.linears if ".experts.down" in record.name and not record.safety_tokens]
    assert without
    assert {(record.outcome, record.pooled) for record in without} == {("adapted", "safety")}


def check_experts(case: TinyCase, report: MergeReport, folder: Path, wanted: dict[str, LinearResult]) -> None:
    records = {record.name: record for record in report.linears if ".experts." in record.name}
    out, new = load_tensors(folder), load_tensors(case.new)
    assert records.keys() == wanted.keys()
    assert len({record.task_tokens for record in records.values()}) > 3  # the experts got shares of their own
    for name, result in wanted.items():
        record = records[name]
        status = {"adapted": "merged"}.get(record.outcome, record.outcome)
        assert status == result.status, name
        key, _, number = name.removesuffix("]").partition("[")
        weight = out[key][int(number)] if number else out[key]
        if status == "merged":
            assert (record.safety_tokens, record.task_tokens) == result.tokens, name
            assert (record.n_restored, record.n_focus, record.share) == (
                result.n_restored,
                result.n_focus,
                result.share,
            )
            assert same_columns(result, record.restored_columns, result.rtol), name
            if set(record.restored_columns) == result.restored:
                torch.testing.assert_close(weight.double(), result.weight, rtol=2**-23, atol=1e-7)
        else:
            assert torch.equal(weight, new[key][int(number)] if number else new[key]), name
    assert sum(
        set(records[n].restored_columns) == w.restored for n, w in wanted.items() if w.status == "merged"
    ) > 0.98 * sum(w.status == "merged" for w in wanted.values())


def test_routers_come_from_new_and_the_result_is_whole(case: TinyCase, tmp_path: Path) -> None:
    report = run(case, tmp_path / "out")
    out, new = load_tensors(tmp_path / "out"), load_tensors(case.new)
    assert report.passed_through["router"] == ROUTERS[case.name]
    assert not any(name.rsplit(".", 2)[-2] in ("gate", "router") for name in (r.name for r in report.linears))
    for key, value in new.items():
        assert (out[key].shape, out[key].dtype) == (value.shape, value.dtype)
        if key.endswith(("bias", "router.weight", "gate.weight", "norm.weight")):
            assert torch.equal(out[key], value), key
    model = getattr(transformers, report.architecture)
    _, info = model.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    again = verify(tmp_path / "out", case.old, case.new, safety_calib=case.safety, task_calib=case.task)
    found = verify(tmp_path / "out", case.old, case.new)
    assert not found.problems
    assert not again.problems
    stacked = sum(record.name.endswith("]") and record.outcome == "adapted" for record in report.linears)
    assert found.checked["adapted linears"] == report.count("adapted") >= stacked


def test_sweep_statistics_and_dry_runs_say_the_same(case: TinyCase, tmp_path: Path) -> None:
    stats = tmp_path / "stats.safetensors"
    files = {"safety_calib": case.safety, "task_calib": case.task, "stats": stats}
    settings = {"paper": HPAConfig(), "part": HPAConfig(exclude=(r"layers\.0",), uncalibrated="old", p_max=40.0)}
    sweep(case.old, case.new, {tmp_path / f"swept-{n}": c for n, c in settings.items()}, **files)
    for name, config in settings.items():
        merge(case.old, case.new, tmp_path / name, config=config, **{**files, "stats": None})
        merge(case.old, case.new, tmp_path / f"{name}-again", config=config, **files)
        assert content(tmp_path / name) == content(tmp_path / f"swept-{name}") == content(tmp_path / f"{name}-again")


# --- layouts ---


def qwen3_vl_moe() -> PreTrainedModel:
    """Experts stacked on disk; transformers turns them on loading where they lie the other way round."""
    rotary = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    words = {**SIZES, **TWO_OF_SIX, "head_dim": 8, "moe_intermediate_size": 24, "rope_parameters": rotary}
    sees = {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 32}
    config = transformers.Qwen3VLMoeConfig(text_config=words, vision_config={**sees, "deepstack_visual_indexes": [0]})
    return transformers.Qwen3VLMoeForConditionalGeneration(config)


def test_stacks_that_lie_the_other_way_round(tmp_path: Path) -> None:
    case = make(qwen3_vl_moe, tmp_path)
    straight = run(case, tmp_path / "straight")
    for folder in (case.old, case.new):
        for shard in folder.glob("*.safetensors"):
            turned = {
                key: value.transpose(1, 2).contiguous() if ".experts." in key else value
                for key, value in load_file(shard).items()
            }
            save_file(turned, shard)
    turned_report = run(case, tmp_path / "turned")
    for one, other in zip(straight.linears, turned_report.linears, strict=True):
        assert (one.name, one.outcome, one.restored, one.safety_tokens) == (
            *(other.name, other.outcome, other.restored, other.safety_tokens),
        )
    assert sum(record.name.endswith("]") and record.outcome == "adapted" for record in straight.linears) == 24
    straight_out, turned_out = load_tensors(tmp_path / "straight"), load_tensors(tmp_path / "turned")
    for key, value in straight_out.items():
        turned = turned_out[key].transpose(1, 2) if ".experts." in key else turned_out[key]
        torch.testing.assert_close(turned, value, rtol=1e-6, atol=1e-7)  # κ is summed in another order


# --- experts that nothing reaches ---


def lonely(case: TinyCase, folder: Path) -> TinyCase:
    """The case with one short safety sample, so that most experts are not reached."""
    safety = folder / "one.jsonl"
    safety.write_text(json.dumps({"input_ids": [7]}) + "\n")
    return case._replace(safety=safety)


@pytest.mark.parametrize("source", ["new", "old"])
def test_an_expert_that_no_token_reaches(case: TinyCase, source: str, tmp_path: Path) -> None:
    case = lonely(case, tmp_path)
    report = run(case, tmp_path / "out", uncalibrated=source)
    outcomes = Counter(record.outcome for record in report.linears if ".experts." in record.name)
    assert outcomes["uncalibrated"] > outcomes["adapted"] > 0
    out, tensors = load_tensors(tmp_path / "out"), load_tensors({"new": case.new, "old": case.old}[source])
    for record in report.linears:
        if record.outcome == "uncalibrated":
            key, _, number = record.name.removesuffix("]").partition("[")
            found, wanted = out[key], tensors[key]
            assert torch.equal(found[int(number)], wanted[int(number)]) if number else torch.equal(found, wanted)
    assert f"{report.count('uncalibrated')} of the changed linears came from {source.upper()}" in report.warnings[0]
    assert not verify(tmp_path / "out", case.old, case.new).problems
    again = verify(tmp_path / "out", case.old, case.new, safety_calib=case.safety, task_calib=case.task)
    assert not again.problems


def test_an_expert_that_has_to_be_reached(case: TinyCase, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"\.experts\..* changed and no token of the safety set reaches it"):
        run(lonely(case, tmp_path), tmp_path / "out", uncalibrated="error", exclude=("mamba",))


def test_the_forecast_counts_the_stack_that_each_out_is_putting_together(
    case: TinyCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "peak_host_bytes", lambda: 0)  # else what earlier tests took would count

    def needed(outs: int) -> int:
        configs = {tmp_path / str(number): HPAConfig() for number in range(outs)}
        with prepare(MergeRequest(case.old, case.new, configs, case.safety, (case.task,))) as ready:
            return ready.memory.host - (2 + outs) * ready.memory.queued

    stacks = [value for key, value in load_tensors(case.new).items() if ".experts." in key and value.ndim == 3]
    assert needed(3) - needed(1) == 2 * max((value.nbytes for value in stacks), default=0)

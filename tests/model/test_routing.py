"""Routers: found in every family, taken from NEW or OLD or merged; and the drift of their choices.

The reference sees whole models from outside: plain hooks on routers and experts, and the names that their authors gave.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from cases import TinyCase, content
from families import FAMILIES
from families_experts import LATENT, ROUTED, SMALL
from family_checks import QUIET
from family_pairs import Inputs, make_pair
from mixtures import SIZES, gpt_oss, make
from reference import Settings, load_model, load_tensors, merge_linear, placed, same_columns
from safetensors.torch import load_file, save_file
from statistics_runs import interrupt
from torch import Tensor
from transformers import PreTrainedModel

from hpa_merge import HPAConfig, MergeReport, merge, sweep
from hpa_merge.engine.routing import COMPARED
from hpa_merge.errors import CheckpointError, ConfigError
from hpa_merge.files.names import REPORT
from hpa_merge.model.experts import find_expert_stacks, find_pools
from hpa_merge.model.routing import find_routers, routing_tensors
from hpa_merge.report.facts import report_facts
from hpa_merge.report.schema import read_report
from hpa_merge.verification import verify

pytestmark = [pytest.mark.filterwarnings(warning) for warning in QUIET]

MIXTURES = [family for family in FAMILIES if family.kind == "mixture" or "MoE" in family.name]

NAMED = re.compile(
    r"\.(gate|router)(\.(wg|layer|proj|classifier|gate|norm))?\.(weight|bias)$"
    r"|e_score_correction_bias$|\.expert_bias$|\.router\.(scale|per_expert_scale)$"
)
"""What the authors of the families call their routers and everything that belongs to them."""


# --- which tensors are routers ---


def others() -> Iterator[PreTrainedModel]:
    """Families that no row of the matrix has."""
    moe = {"num_experts": 4, "d_model": 32}
    yield transformers.SwitchTransformersForConditionalGeneration(
        transformers.SwitchTransformersConfig(**moe, d_ff=48, d_kv=8, num_heads=4, num_layers=2, router_bias=True)
    )
    few = {"encoder_layers": 2, "decoder_layers": 2, "encoder_sparse_step": 1, "decoder_sparse_step": 2}
    yield transformers.NllbMoeForConditionalGeneration(transformers.NllbMoeConfig(**moe, **few, expert_capacity=8))
    ffn = {"moe_num_experts": 4, "moe_top_k": 2, "ffn_hidden_size": 48}
    attention = {"kv_n_heads": 2, "rope_theta": 1e4}
    yield transformers.DbrxForCausalLM(
        transformers.DbrxConfig(d_model=32, n_heads=4, n_layers=2, ffn_config=ffn, attn_config=attention)
    )
    yield transformers.Glm4vMoeForConditionalGeneration(
        transformers.Glm4vMoeConfig(text_config={**SIZES, **ROUTED, **SMALL}, vision_config={"depth": 1})
    )


@pytest.mark.gate
def test_every_family_has_its_routers_and_its_pools() -> None:
    with torch.device("meta"):
        models = [*(family.build() for family in MIXTURES), *others()]
    for model in models:
        name, state = type(model).__name__, model.state_dict(keep_vars=True)
        routers = find_routers(model)
        named = {key for key in state if NAMED.search(key)}
        assert routers, name
        assert routing_tensors(model, routers.values()) & state.keys() == named, name
        pools = find_pools(model, find_expert_stacks(model))
        for observer, pool in pools.items():
            assert observer in pool
            assert 1 < len(pool) <= max(router.experts for router in routers.values()), name
        assert bool(pools) == (name != "DbrxForCausalLM"), name  # its experts are rows of one matrix


# --- what is in OUT ---


def deepseek_v3() -> PreTrainedModel:
    """Experts in groups, and a correction bias in float32 that decides who is chosen."""
    groups = {"n_group": 2, "topk_group": 1}
    config = transformers.DeepseekV3Config(**{**SIZES, **ROUTED, **SMALL, **LATENT, **groups})
    return transformers.DeepseekV3ForCausalLM(config)


MODELS = {build.__name__: build for build in (gpt_oss, deepseek_v3)}


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    case = make(MODELS[request.param], tmp_path_factory.mktemp(request.param))
    for shard in case.new.glob("*.safetensors"):
        tensors = load_file(shard)
        for key in tensors:
            if key.endswith("correction_bias"):  # a buffer
                tensors[key] += torch.linspace(0.2, -0.2, len(tensors[key]))
        save_file(tensors, shard, {"format": "pt"})
    return case


def run(case: TinyCase, out: Path, stats: Path | None = None, **options: Any) -> MergeReport:
    files = {"safety_calib": case.safety, "task_calib": case.task, "stats": stats}
    return merge(case.old, case.new, out, config=HPAConfig(**options), page=False, **files)


def samples(path: Path) -> list[Inputs]:
    return [{"input_ids": torch.tensor([json.loads(line)["input_ids"]])} for line in path.read_text().splitlines()]


def router_inputs(folder: Path, inputs: list[Inputs]) -> dict[str, list[Tensor]]:
    """What each router reads, ``[tokens, c]`` a sample, by the path of its module."""
    model, read = load_model(folder), {}
    for path, module in model.named_modules():
        if path.endswith((".gate", ".router")):
            module.register_forward_pre_hook(
                lambda _, args, path=path: read.setdefault(path, []).append(args[0].reshape(-1, args[0].shape[-1]))
            )
    with torch.no_grad():
        for sample in inputs:
            model(**placed(sample), use_cache=False)
    return read


def test_routers_are_olds_or_merged_as_linears(case: TinyCase, tmp_path: Path) -> None:
    stats, settings = tmp_path / "stats", {r: HPAConfig(routers=r) for r in ("new", "old", "merge")}
    files = {"safety_calib": case.safety, "task_calib": case.task}
    swept = sweep(case.old, case.new, {tmp_path / r: c for r, c in settings.items()}, stats=stats, page=False, **files)
    reports = {folder.name: report for folder, report in swept.items()}
    outs = {name: load_tensors(tmp_path / name) for name in settings}
    old, new = load_tensors(case.old), load_tensors(case.new)
    routers = {key for key in new if NAMED.search(key)}
    assert routers
    for key in routers:
        assert not torch.equal(old[key], new[key])
        assert torch.equal(outs["new"][key], new[key])
        assert torch.equal(outs["old"][key], old[key])
    for key in new.keys() - routers:
        assert torch.equal(outs["old"][key], outs["new"][key])
        assert torch.equal(outs["merge"][key], outs["new"][key])

    matrices = {key for key in routers if new[key].ndim == 2}
    records = {record.name: record for record in reports["merge"].linears}
    safety, task = (router_inputs(f, samples(p)) for f, p in ((case.old, case.safety), (case.new, case.task)))
    for key in matrices:
        path = key.removesuffix(".weight")
        depth = (int(key.split("layers.")[1].split(".")[0]), 2)
        result = merge_linear(old[key], new[key], safety[path], task[path], depth, Settings(), name=key)
        record = records[key]
        assert (record.outcome, record.safety_tokens, record.task_tokens) == ("adapted", *result.tokens)
        assert same_columns(result, record.restored_columns, result.rtol)
        torch.testing.assert_close(outs["merge"][key].double(), result.weight, rtol=1e-6, atol=1e-7)
    for key in routers - matrices:
        assert torch.equal(outs["merge"][key], new[key])
    assert reports["new"].passed_through["router"] == len(matrices)
    assert not matrices & {record.name for record in (*reports["new"].linears, *reports["old"].linears)}
    assert "router" not in reports["old"].passed_through | reports["merge"].passed_through
    for name, report in reports.items():
        assert dict(report_facts(report))["routers"] == {"new": "NEW's", "old": "OLD's", "merge": "merged"}[name]
    check_drift(reports["new"], *(drifts(case.old, case.new, samples(path)) for path in (case.safety, case.task)))
    said = dict(report_facts(reports["new"]))["routing"]
    assert all(f"of the choices of experts on the {purpose} set differ" in said for purpose in ("safety", "task"))
    assert not verify(tmp_path / "old", case.old, case.new).problems
    assert not verify(tmp_path / "merge", case.old, case.new, **files).problems

    forged = json.loads((tmp_path / "merge" / REPORT).read_text())
    forged["routing"][0]["safety_drift"] = 1.5
    (tmp_path / "merge" / REPORT).write_text(json.dumps(forged))
    with pytest.raises(CheckpointError, match=r"safety_drift of .* cannot be"):
        read_report(tmp_path / "merge")
    forged["routing"][0]["safety_drift"] = 0.999
    (tmp_path / "merge" / REPORT).write_text(json.dumps(forged))
    found = verify(tmp_path / "merge", case.old, case.new, **files)
    assert f"routing of {forged['routing'][0]['name']} in the report is not what the samples give." in found.problems
    (tmp_path / "merge" / REPORT).write_text(reports["merge"].to_json())

    alone = run(case, tmp_path / "alone", stats, routers="merge")  # from the file, and no sample runs
    assert alone.run.statistics["safety"] == alone.run.statistics["task"] == "read"
    assert content(tmp_path / "alone") == content(tmp_path / "merge")
    assert alone.routing == reports["merge"].routing == reports["new"].routing != ()


def test_routers_that_cannot_be_chosen(case: TinyCase, tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    if case.name == "gpt_oss":
        with pytest.raises(ConfigError, match=r"^routers is merge, and LlamaForCausalLM has none: leave the"):
            run(tiny("llama"), tmp_path / "out", routers="merge")
    with pytest.raises(ConfigError, match=r"^routers is old, and language, which holds them, is new: leave out one"):
        run(case, tmp_path / "out", routers="old", language="new")


# --- how far the choices drift ---


def choices(folder: Path, inputs: list[Inputs], experts: str) -> dict[str, list[Tensor]]:
    """The experts of each token, ``[tokens, k]`` a sample, as the experts' module is called with them."""
    model, chosen = load_model(folder), {}
    for path, module in model.named_modules():
        if path.endswith(experts):
            module.register_forward_pre_hook(
                lambda _, args, path=path: chosen.setdefault(path.rpartition(".")[0], []).append(args[1])
            )
    with torch.no_grad():
        for sample in inputs:
            model(**placed(sample), use_cache=False)
    return chosen


def drifts(old: Path, new: Path, inputs: list[Inputs], experts: str = ".experts") -> dict[str, tuple[float, int]]:
    """By the mixture: the share of OLD's choices that NEW does not make, and how many there are."""
    before, after = (choices(folder, inputs[:COMPARED], experts) for folder in (old, new))
    found = {}
    for path in before:
        sets = [
            (set(a.tolist()), set(b.tolist()))
            for x, y in zip(before[path], after[path], strict=True)
            for a, b in zip(x, y, strict=True)
        ]
        total = sum(len(a) for a, _ in sets)
        found[path] = (sum(len(a - b) for a, b in sets) / total, total)
    return found


def check_drift(report: MergeReport, safety: dict[str, tuple[float, int]], task: dict[str, tuple[float, int]]) -> None:
    assert {record.name for record in report.routing} == safety.keys()
    for record in report.routing:
        assert (record.safety_drift, record.safety_choices) == pytest.approx(safety[record.name])
        assert (record.task_drift, record.task_choices) == pytest.approx(task[record.name])
    assert any(share for share, _ in (*safety.values(), *task.values()))


@pytest.mark.gate
def test_the_drift_of_a_vision_language_mixture(tmp_path: Path) -> None:
    """With images in the samples of both sets."""
    family = next(family for family in FAMILIES if family.name == "Qwen3-VL-MoE")
    pair = make_pair(family, tmp_path)
    files = {"safety_calib": pair.safety, "task_calib": pair.task}
    report = merge(pair.old, pair.new, tmp_path / "out", config=HPAConfig(device="cpu"), page=False, **files)
    check_drift(report, *(drifts(pair.old, pair.new, list(i)) for i in (pair.safety_inputs, pair.task_inputs)))


def test_a_resumed_merge_says_the_same(case: TinyCase, tmp_path: Path) -> None:
    if case.name != "deepseek_v3":
        pytest.skip("one is enough")
    whole, stats = run(case, tmp_path / "whole", tmp_path / "whole-stats"), tmp_path / "stats"
    for units in (2, 3):  # with the samples once more; and from the journal alone
        interrupt(case, tmp_path / "out", stats, units)
        resumed = merge(
            *(case.old, case.new, tmp_path / "out"),
            **{"safety_calib": case.safety, "task_calib": case.task, "stats": stats},
            resume=True,
            page=False,
        )
        assert resumed.routing == whole.routing
        assert replace(resumed, run=whole.run, manifest=whole.manifest) == whole
        assert stats.read_bytes() == (tmp_path / "whole-stats").read_bytes()
        merge_again = run(case, tmp_path / f"again-{units}", stats)
        assert merge_again.routing == whole.routing
        shutil.rmtree(tmp_path / "out")
        stats.unlink()


def test_one_half_of_known_statistics_compares_nothing(case: TinyCase, tmp_path: Path) -> None:
    if case.name != "gpt_oss":
        pytest.skip("one is enough")
    run(case, tmp_path / "out", tmp_path / "stats")
    fewer = tmp_path / "task.jsonl"
    fewer.write_text("".join(f"{line}\n" for line in case.task.read_text().splitlines()[:6]))
    report = run(case._replace(task=fewer), tmp_path / "half", tmp_path / "stats")
    assert (report.run.statistics["safety"], report.run.statistics["task"]) == ("read", "computed")
    assert report.routing == ()
    assert not {"routers", "routing"} & dict(report_facts(report)).keys()

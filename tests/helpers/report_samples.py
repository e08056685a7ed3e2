"""Made-up reports and evaluations: large, hostile, or with what no merge of the tests has."""

import dataclasses
import json
from dataclasses import replace
from typing import Any

import torch

from hpa_merge import HPAConfig
from hpa_merge.report.evaluation import Evaluation, Figure, ModelResult
from hpa_merge.report.packing import pack_columns
from hpa_merge.report.records import CalibrationRecord, LinearRecord, RoundRecord, RunRecord
from hpa_merge.report.saliency import pack_cells
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.what_if import pack_shares

HOSTILE = "</script><img src=x onerror=alert(1)>&\"'\u2028é"
"""A name that must not get out of the place in a page that it is put into."""


def mixture(blocks: int = 48, experts: int = 125) -> MergeReport:
    """A mixture of experts: in a block four linears of the attention and three of each expert; 18,192 in all.

    No token reaches the experts of number 7.
    """
    generator = torch.Generator().manual_seed(0)
    cells = pack_cells({(i, i + j): (3 + (i + j) % 5, j % 3) for i in range(-40, -20) for j in range(-3, 4)})
    records = []
    for block in range(blocks):
        names = [f"self_attn.{p}_proj" for p in "qkvo"]
        names += [f"mlp.experts.{e}.{p}_proj" for e in range(experts) for p in ("gate", "up", "down")]
        unit = f"model.layers.{block}"
        adapted = {
            "restored": pack_columns(torch.rand(256, generator=generator) < 0.1),
            **{"block": block, "blocks": blocks, "share": 15.0, "n_restored": 26, "n_focus": 52, "n_shared": 30},
            **{"alpha": 0.5 + 0.001 * block, "kappa": 0.01, "relative_update": 0.05, "energy_restored": 0.2},
            "saliency": cells,
        }
        for name in names:
            figures: dict[str, Any] = {} if ".7." in name else adapted
            outcome = "adapted" if figures else "uncalibrated"
            record = LinearRecord(f"{unit}.{name}.weight", outcome, unit, "model.layers", 64, 256, **figures)
            records.append(record)
    return report(tuple(records))


def report(linears: tuple[LinearRecord, ...], **changes: Any) -> MergeReport:
    """A report of these linears."""
    run = RunRecord("old", "new", "cpu", 3.0, 10**9, None, {"hpa-merge": "0"}, command="hpa-merge old new")
    made = MergeReport(
        architecture="TinyForCausalLM",
        config={"method": "hpa", "alpha_min": 0.4, "alpha_max": 0.8, "p_max": 15.0, "uncalibrated": "new"},
        safety=CalibrationRecord("s.jsonl", 8, 100, 0),
        task=None,
        linears=linears,
        passed_through={"embedding": 1},
        left_out=(),
        manifest={},
        run=run,
    )
    return replace(made, **changes)


def with_shares(report: MergeReport) -> MergeReport:
    """A report of whose updates the first setting of the what-if undoes nothing, the next one 1 %, and so on."""
    config = HPAConfig()
    assert config.rule.grid is not None
    text = pack_shares(n / 100 % 1 for n in range(128))
    linears = tuple(replace(r, what_if=text) if r.outcome == "adapted" else r for r in report.linears)
    return replace(report, linears=linears, what_if=config.rule.grid(config))


def hostile() -> MergeReport:
    """Every string that comes from others' files is :data:`HOSTILE`, in the history and in the evaluation too."""
    record = mixture(1, 1).linears[0]
    unchanged = replace(record, name=HOSTILE, outcome="excluded")
    linears = (replace(record, name=f"{HOSTILE}.0.{HOSTILE}.weight", stack=HOSTILE, unit=HOSTILE), unchanged)
    run = RunRecord(HOSTILE, HOSTILE, HOSTILE, 1.0, 1, None, {HOSTILE: HOSTILE}, notes=(HOSTILE,), command=HOSTILE)
    past = RoundRecord(HOSTILE, HOSTILE, HOSTILE, {"method": HOSTILE}, None, None, 3)
    content = {**evaluation(HOSTILE), "out": HOSTILE, "failures": [HOSTILE]}
    changes: dict[str, Any] = {"run": run, "history": (past,), "evaluation": content, "left_out": (HOSTILE,)}
    changes |= {"safety": CalibrationRecord(HOSTILE, 1, 1, 1), "passed_through": {HOSTILE: 3}}
    return with_shares(report(linears, architecture=HOSTILE, **changes))


def results(name: str = "out", *, folder: str = "out") -> Evaluation:
    """An evaluation of OLD, NEW and a model of this name."""

    def model(called: str, path: str, asr: float, task: float) -> ModelResult:
        figures = [Figure(v, max(0.0, v - 5), min(100.0, v + 5), 32) for v in (asr, task)]
        of_set, of_task = {"refusals": figures[0]}, {"new": figures[1]}
        return ModelResult(called, path, of_set, of_task, {}, {"new": "exact"}, figures[0], figures[1])

    models = (model("old", "old", 0.0, 5.0), model("new", "new", 78.0, 100.0), model(name, folder, 2.0, 98.0))
    return Evaluation(models, "phrases", {"safety": {"refusals": "r.jsonl"}})


def evaluation(name: str = "out") -> dict[str, Any]:
    """The same as a report holds it."""
    return {**json.loads(results(name).to_json()), "out": name}


OLD, NEW = "lab/aligned", "lab/tuned"
COMMITS = {OLD: "a" * 40, NEW: "b" * 40}


def report_of(architecture: str = "LlamaForCausalLM", **changes: Any) -> MergeReport:
    """A report such as a merge of two folders writes."""
    runs = {"old": "/home/somebody/aligned", "new": "/home/somebody/tuned", "commits": {}}
    runs |= {name: changes.pop(name) for name in ("old", "new", "commits", "adapter") if name in changes}
    record = LinearRecord("q_proj.weight", "adapted", "layers.0", "layers", 4, 8, restored="Aw==", energy_restored=0.25)
    return dataclasses.replace(
        MergeReport(
            architecture=architecture,
            config=dataclasses.asdict(HPAConfig()),
            safety=CalibrationRecord("/home/somebody/data/safety.jsonl", 8, 100, 0),
            task=CalibrationRecord("../data/task.jsonl", 128, 4000, 12),
            linears=(record,),
            passed_through={"embedding": 1},
            left_out=(),
            manifest={},
            run=RunRecord(device="cpu", seconds=1.0, peak_host_bytes=1, peak_device_bytes=None, versions={}, **runs),
        ),
        **changes,
    )


def evaluated(**run: Any) -> dict[str, Any]:
    """What ``hpa-merge eval --json`` writes of three models."""
    values = {"aligned": (0.0, 10.0), "tuned": (78.125, 90.0), "repaired": (3.125, 88.0)}
    models = tuple(
        ModelResult(
            name,
            f"/home/somebody/{name}",
            {"forbidden": Figure(attack, max(0.0, attack - 9), attack + 9, 32, "score")},
            {"codes": Figure(task, task, task, 32)},
            {"forbidden": Figure(1.0, 1.0, 1.0, 8)},
            {"codes": "exact"},
        )
        for name, (attack, task) in values.items()
    )
    files = {"safety": {"forbidden": "/home/somebody/f.jsonl"}}
    return json.loads(Evaluation(models, "/home/somebody/guard", files, run=run).to_json())

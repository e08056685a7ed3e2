"""``verify`` with OLD and NEW: what follows from them without a sample is computed again, and the rest is said.

Each forger writes any OUT and any report, with digests that fit.
"""

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import TinyCase
from published import LINEAR, Published, forge, run, seal
from safetensors.torch import load_file, save_file

from hpa_merge import HPAConfig, verify
from hpa_merge.engine.drift import drift_of
from hpa_merge.methods.hpa import allowed_columns
from hpa_merge.report.packing import pack_columns
from hpa_merge.report.records import LinearRecord, Outcome, RoundRecord
from hpa_merge.report.schema import MergeReport, read_report

Make = Callable[..., Published]
Change = dict[str, Any]


def take_new(out: Path, case: TinyCase) -> None:
    """Let OUT's weights be NEW's."""
    for shard in out.glob("*.safetensors"):
        shutil.copy(case.new / shard.name, shard)


def take_noise(out: Path, names: set[str]) -> None:
    """Let these weights of OUT be noise."""
    for shard in out.glob("*.safetensors"):
        tensors = load_file(shard)
        made = {key: torch.randn(t.shape).to(t.dtype) if key in names else t for key, t in tensors.items()}
        save_file(made, shard, {"format": "pt"})


def all_are(report: MergeReport, outcome: Outcome, config: HPAConfig, **details: Any) -> MergeReport:
    """A report that says the same of every linear that was adapted, and counts and sums as it has to."""
    kept = {"name", "unit", "stack", "rows", "columns", "distance", "old_norm", *details}
    linears = []
    for record in report.linears:
        fields = {f.name: f.default for f in dataclasses.fields(LinearRecord) if f.name not in kept}
        changes = {**fields, **details, "outcome": outcome}
        linears.append(dataclasses.replace(record, **changes) if record.outcome == "adapted" else record)
    components = tuple(
        dataclasses.replace(part, linears=dict(Counter({outcome: part.linears.get("adapted", 0)}) + others(part)))
        for part in report.components
    )
    sets = {"safety": report.safety, "task": report.task}
    return dataclasses.replace(
        report,
        config=dataclasses.asdict(config),
        linears=tuple(linears),
        components=components,
        drift=drift_of(linears, report.history),
        **{purpose: record if purpose in config.sets else None for purpose, record in sets.items()},
    )


def others(part: Any) -> Counter[str]:
    return Counter({outcome: count for outcome, count in part.linears.items() if outcome != "adapted"})


def write(out: Path, report: MergeReport) -> None:
    """Let OUT have another report, whose digests fit."""
    (out / "hpa_report.json").write_text(report.to_json(), encoding="utf-8")
    seal(out)


# --- an OUT that is NEW, or noise, and a report that explains it ---


def test_new_with_no_column_and_no_kappa(published: Make) -> None:
    forged = published()
    take_new(forged.out, forged.case)

    def change(record: LinearRecord) -> LinearRecord:
        none = pack_columns(torch.zeros(record.columns, dtype=torch.bool))
        return dataclasses.replace(record, restored=none, kappa=0.0, energy_restored=0.0) if record.restored else record

    forge(forged.out, change)
    assert forged.alone() == []
    found = forged.with_inputs()
    adapted = [record.name for record in forged.report.linears if record.outcome == "adapted"]
    for name in adapted:
        assert any(sentence.startswith(f"{name}: kappa is 0 in the report, and ") for sentence in found)
        assert any(sentence.startswith(f"{name}: 0 columns are restored in the report, and ") for sentence in found)
        assert any("outside the restored columns are not NEW − " in s for s in found if s.startswith(f"{name}: "))


OUTCOMES: list[tuple[Outcome, Change, str]] = [
    ("unchanged", {}, "must be adapted: tuning changed it"),
    ("excluded", {}, "must be adapted: tuning changed it, and the options of the report do not leave it out."),
    ("old", {}, "must be adapted: tuning changed it"),
    ("uncalibrated", {"uncalibrated": "error"}, "must be adapted: tuning changed it"),
]


@pytest.mark.parametrize(("outcome", "options", "sentence"), OUTCOMES)
def test_new_with_an_outcome_that_cannot_be(outcome: Outcome, options: Change, sentence: str, published: Make) -> None:
    forged = published()
    take_new(forged.out, forged.case)
    write(forged.out, all_are(forged.report, outcome, HPAConfig(**options)))
    assert forged.alone() == []
    wrong = [found for found in forged.with_inputs() if f"is {outcome} in the report, and {sentence}" in found]
    assert len(wrong) == forged.report.count("adapted")


def test_new_with_linears_that_no_sample_reached(published: Make) -> None:
    """It can be so; that nobody looked is said."""
    forged = published()
    take_new(forged.out, forged.case)
    report = all_are(forged.report, "uncalibrated", HPAConfig(), safety_tokens=0, task_tokens=0)
    linears = tuple(distance_to_new(record, forged) for record in report.linears)
    write(forged.out, dataclasses.replace(report, linears=linears, drift=drift_of(linears, ())))
    result, count = forged.full(), forged.report.count("adapted")
    assert result.problems == ()
    assert (
        f"{count} of {count} changed linears came from NEW (uncalibrated): that no sample reaches them relies on the "
        "report: give --safety-calib and --task-calib." in result.unchecked
    )
    assert [s for s in forged.again().problems if "outcome is uncalibrated in the report, and has to be adapted" in s]


def distance_to_new(record: LinearRecord, forged: Published) -> LinearRecord:
    """What a record of NEW's weight says of its distance."""
    old, new = (weights(folder)[record.name].double() for folder in (forged.case.old, forged.case.new))
    return dataclasses.replace(record, distance=float((new - old).norm()))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {key: t for shard in folder.glob("*.safetensors") for key, t in load_file(shard).items()}


RULES: list[tuple[Change, str]] = [
    ({"method": "linear", "weight": 1.0}, "linear, weight 1."),
    ({"p_max": 0.0, "p_min": 0.0, "orthogonal": False}, "hpa, p_max 0, p_min 0, orthogonal no."),
    ({"method": "model-tailor", "patch_share": 100.0}, "model-tailor, patch_share 100."),
    ({"method": "energy", "p_max": 0.0, "p_min": 0.0, "orthogonal": False}, "energy, p_max 0, p_min 0, "),
]


@pytest.mark.parametrize(("options", "words"), RULES)
def test_new_by_a_rule_that_changes_nothing(options: Change, words: str, tiny: Any, tmp_path: Path) -> None:
    """It is what the rule makes, and which rule it is is said."""
    case, out = tiny("llama", "bfloat16"), tmp_path / "out"
    run(case, out, **options)
    assert all(torch.equal(tensor, weights(case.new)[key]) for key, tensor in weights(out).items())
    result = verify(out, case.old, case.new)
    assert result.problems == ()
    assert f"The options are those that the report names: {words}" in " ".join(result.unchecked)


@pytest.mark.parametrize(
    "config",
    [
        HPAConfig(method="linear", weight=1.0),
        HPAConfig(method="model-tailor", patch_share=50.0),
        HPAConfig(method="safe-delta", compensation=False),
        HPAConfig(method="blocks", blocks="0-3"),
        HPAConfig(method="random"),
    ],
)
def test_noise_by_whatever_rule(config: HPAConfig, published: Make) -> None:
    forged = published()
    take_noise(forged.out, {record.name for record in forged.report.linears if record.outcome == "adapted"})
    write(forged.out, all_are(forged.report, "adapted", config, safety_tokens=1, task_tokens=1))
    assert forged.alone() == []
    found = " ".join(forged.with_inputs())
    assert all(record.name in found for record in forged.report.linears if record.outcome == "adapted")


def test_noise_by_safe_delta(published: Make) -> None:
    """With nothing of NEW nothing is compensated; with a column of it the rest takes the samples, and that is said."""
    made = published(method="safe-delta")
    adapted = {record.name for record in made.report.linears if record.outcome == "adapted"}
    take_noise(made.out, adapted)

    def change(record: LinearRecord) -> LinearRecord:
        none = pack_columns(torch.zeros(record.columns, dtype=torch.bool))
        return dataclasses.replace(record, new_columns=none, split_column=None, split_rows=None)

    forge(made.out, lambda record: change(record) if record.outcome == "adapted" else record)
    found = " ".join(made.with_inputs())
    assert all(f"{name}: " in found for name in adapted)
    assert "restored in the report and not OLD's in OUT" in found
    samples = made.again()
    assert all(any(s.startswith(f"{name}: ") for s in samples.problems) for name in adapted)


@pytest.mark.parametrize(
    ("method", "options"),
    [("safe-delta", {"safety_budget": 10.0}), ("model-tailor", {})],
    ids=["safe-delta", "model-tailor"],
)
def test_what_only_the_samples_say_is_counted(method: str, options: dict[str, Any], sound: Make) -> None:
    made = sound(method=method, **options)
    result = made.full()
    assert result.problems == ()
    count = result.checked["values that only samples can recompute"]
    calib = "--safety-calib" if method == "safe-delta" else "--task-calib"
    assert count > 10_000
    assert f"{count} values of these linears depend on the samples: give {calib}." in result.unchecked


# --- one record that is wrong ---


def mask(columns: int, *chosen: int) -> str:
    restored = torch.zeros(columns, dtype=torch.bool)
    restored[list(chosen)] = True
    return pack_columns(restored)


WRONG: list[tuple[Change, str]] = [
    ({"kappa": 0.0}, ": kappa is 0 in the report, and "),
    ({"kappa": None}, " is adapted, and the report lacks its columns or κ."),
    ({"restored": None}, " is adapted, and the report lacks its columns or κ."),
    ({"restored": mask(64, 1, 2, 3)}, ": 3 columns are restored in the report, and 8 are required."),
    ({"n_restored": 7}, ": n_restored is 7 in the report, and has to be 8."),
    ({"n_focus": 64}, ": n_focus is 64 in the report, and has to be 16."),
    ({"n_shared": 17}, ": two sets of 16 of 64 columns cannot share 17."),
    ({"alpha": 0.9}, ": α is 0.9 in the report, and has to lie between 0.4 and 0.8."),
    ({"saliency": ""}, ": saliency does not count each changed column once."),
    ({"share": 15.0}, ": share is 15 in the report, and has to be 12.5."),
    ({"block": 0}, ": block is 0 in the report, and has to be 1."),
    ({"blocks": 8}, ": blocks is 8 in the report, and has to be 4."),
    ({"relative_update": 0.01}, ": relative_update is 0.01 in the report, and "),
    ({"energy_restored": 0.99}, ": energy_restored is 0.98999999999999999 in the report, and "),
    ({"distance": 0.5}, ": distance is 0.5 in the report, and "),
    ({"old_norm": 3.0}, ": old_norm is 3 in the report, and "),
    ({"safety_tokens": 0}, " is adapted in the report, though no token reached it."),
    ({"unit": "model.layers.2"}, ": unit is model.layers.2 in the report, and has to be model.layers.1."),
    ({"stack": "model"}, ": stack is model in the report, and has to be model.layers."),
    ({"shared_rows": 100}, ": shared_rows is 100 in the report, and has to be missing."),
    ({"rows": 113}, " is [113, 64] in the report and [112, 64] in NEW, as [outputs, inputs]."),
    ({"restored_share": 0.5}, ": restored_share is 0.5 in the report, and has to be missing."),
    ({"safety_budget": 0.5}, ": safety_budget is 0.5 in the report, and has to be missing."),
    ({"outcome": "excluded"}, " is excluded in the report, and must be adapted: "),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG, ids=[next(iter(change)) for change, _ in WRONG])
def test_a_wrong_record(change: Change, sentence: str, published: Make) -> None:
    forged = published()
    forge(forged.out, lambda record: dataclasses.replace(record, **change) if record.name == LINEAR else record)
    assert forged.alone() == []
    assert [found for found in forged.with_inputs() if found.startswith(LINEAR + sentence)]


def test_columns_that_no_samples_choose(published: Make, tmp_path: Path) -> None:
    """A column that tuning did not change has score 0, and is chosen after all that it did."""
    case = published().case.copied_to(tmp_path)
    old, key = weights(case.old)[LINEAR], LINEAR
    shard = next(s for s in case.new.glob("*.safetensors") if key in load_file(s))
    tensors = load_file(shard)
    tensors[key][:, :30] = old[:, :30]
    save_file(tensors, shard, {"format": "pt"})
    report = run(case, tmp_path / "other")
    forged = Published(case, tmp_path / "other", report)
    assert forged.with_inputs() == []
    record = next(record for record in report.linears if record.name == LINEAR)
    assert min(record.restored_columns) >= 30
    wrong = mask(64, *range(record.n_restored or 0))
    forge(forged.out, lambda r: dataclasses.replace(r, restored=wrong) if r.name == LINEAR else r)
    assert [s for s in forged.with_inputs() if "restored columns did not change, and no samples can choose them." in s]


def test_the_columns_that_can_be_chosen() -> None:
    energy = torch.tensor([0.0, 2.0, 0.0, 1.0, 0.0])
    assert allowed_columns(energy, 1).tolist() == [False, True, False, True, False]
    assert allowed_columns(energy, 3).tolist() == [True, True, False, True, False]
    assert allowed_columns(energy, 4).tolist() == [True, True, True, True, False]


# --- the rest of the report ---


def replaced(report: MergeReport, **changes: Any) -> Change:
    return {name: dataclasses.replace(getattr(report, name), **of_part) for name, of_part in changes.items()}


WHOLE: list[tuple[Callable[[MergeReport], Change], str]] = [
    (
        lambda r: {"architecture": "GPT2LMHeadModel"},
        "The report is of a GPT2LMHeadModel, and NEW is a LlamaForCausalLM.",
    ),
    (lambda r: {"linears": r.linears[1:]}, f"{LINEAR.split('.mlp')[0]}"),
    (lambda r: {"linears": (*r.linears, r.linears[0])}, "is in the report more than once."),
    (lambda r: {"components": r.components[1:]}, "components in the report do not count its linears."),
    (
        lambda r: {"passed_through": {"embedding": 1}},
        "passed_through in the report does not count NEW's",
    ),
    (
        lambda r: {"task": None},
        "The method hpa uses safety and task samples, and task in the report says otherwise.",
    ),
    (lambda r: replaced(r, safety={"samples": 9}), "The report has 9 safety samples, and its options allow 8."),
    (lambda r: replaced(r, run={"adapter": "LoRA"}), "NEW is not an adapter, and LoRA in the report."),
    (lambda r: replaced(r, what_if={"own": 3}), "what_if in the report does not have the settings around its options."),
    (lambda r: replaced(r, drift={"distance": 0.1}), "drift: distance is 0.1 in the report, and "),
    (lambda r: replaced(r, drift={"from_first": 0.0}), "drift: from_first is 0.0 in the report, and "),
    (lambda r: replaced(r, run={"contents": r.run.contents | {"old": "0" * 64}}), "OLD is not that of the report"),
    (lambda r: replaced(r, run={"contents": r.run.contents | {"new": "0" * 64}}), "NEW is not that of the report"),
]


@pytest.mark.parametrize(("change", "sentence"), WHOLE)
def test_a_wrong_report(change: Callable[[MergeReport], Change], sentence: str, published: Make) -> None:
    forged = published()
    if "linears" in (changes := change(forged.report)) and not sentence.endswith("once."):
        sentence = f"{forged.report.linears[0].name} is a linear of NEW, and the report does not name it."
    seal(forged.out, **changes)
    assert forged.alone() == []
    assert [found for found in forged.with_inputs() if sentence in found]


def test_what_is_added_to_a_report_is_said_to_be_unchecked(published: Make) -> None:
    forged = published()
    past = RoundRecord("a", "b", "", {}, None, None, 3, contents={"old": "0" * 64}, drift=forged.report.drift)
    drift = drift_of(forged.report.linears, (past,))
    seal(forged.out, history=(past,), drift=drift, evaluation={"asr": 0.0})
    result = forged.full()
    assert result.problems == ()
    assert "The 1 earlier rounds rely on the report: OLD has no report." in result.unchecked
    assert "The evaluation in the report was not run again." in result.unchecked


def test_a_history_that_olds_own_report_does_not_have(published: Make, tmp_path: Path) -> None:
    first = published()
    case = first.case._replace(old=first.out)
    run(case, tmp_path / "second")
    second = Published(case, tmp_path / "second", read_report(tmp_path / "second"))
    assert len(second.report.history) == 1
    assert second.with_inputs() == []
    (past,) = second.report.history
    seal(second.out, history=(dataclasses.replace(past, adapted=1),))
    assert "history in the report is not that of OLD's own report." in second.with_inputs()
    seal(second.out, history=())
    assert "history in the report is not that of OLD's own report." in second.with_inputs()


def test_a_device_that_rounds_otherwise_is_said(published: Make) -> None:
    forged = published()
    record = next(record for record in forged.report.linears if record.name == LINEAR)
    column = next(j for j in range(record.columns) if j not in record.restored_columns)
    forged.overwrite(LINEAR, 0, column, lambda bits: bits ^ 1)
    seal(forged.out, run=dataclasses.replace(forged.report.run, device="cuda:0"))
    result = forged.full()
    assert result.problems == ()
    assert any(sentence.startswith("1 value differs from the CPU's by one unit") for sentence in result.unchecked)
    assert f"{LINEAR}: 1 of 7168 values differ from the merge's, first in column {column}." in forged.again().problems

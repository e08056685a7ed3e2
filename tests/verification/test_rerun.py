"""``verify`` with OLD, NEW and the samples: the merge is run again, and nothing of its report is believed."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import REPORT, TinyCase
from published import LINEAR, Published, forge, seal
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES

from hpa_merge import HPAConfig, MergeReport, merge, sweep, verify
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.core import select_columns
from hpa_merge.errors import CalibrationError, ConfigError
from hpa_merge.isolation import Limits
from hpa_merge.methods.hpa import explains
from hpa_merge.report.packing import pack_columns
from hpa_merge.report.schema import read_report

pytestmark = pytest.mark.gate

Make = Callable[..., Published]
Tiny = Callable[..., TinyCase]
METHODS = ("safe-delta", "model-tailor", "linear", "blocks", "random", "energy")


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_merge_passes(name: str, sound: Make) -> None:
    made = sound(name)
    before = state(made.out.parent)
    result = made.again()
    assert result.problems == ()
    assert result.checked["adapted linears"] == made.report.count("adapted")
    assert state(made.out.parent) == before
    assert not any("rounding" in sentence for sentence in result.unchecked)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_passes(method: str, sound: Make) -> None:
    options = {"blocks": "1-2"} if method == "blocks" else {}
    assert sound(method=method, **options).again().problems == ()


@pytest.mark.parametrize("method", ["hpa", *METHODS])
def test_one_bit_of_whatever_method(method: str, published: Make) -> None:
    options = {"blocks": "1-2"} if method == "blocks" else {}
    forged = published(method=method, **options)
    forged.overwrite(LINEAR, 5, 6, lambda bits: bits ^ 1)
    seal(forged.out)
    assert f"{LINEAR}: 1 of 7168 values differ from the merge's, first in column 6." in forged.again().problems


def test_one_bit_of_what_is_no_linear(published: Make) -> None:
    forged = published()
    forged.overwrite("model.layers.2.input_layernorm.weight", 0, 5, lambda bits: bits ^ 1)
    seal(forged.out)
    assert forged.again().problems == ("model.layers.2.input_layernorm.weight: 1 of 64 values are not NEW's.",)


def test_other_columns_that_fit_the_budget(published: Make) -> None:
    """What OLD and NEW cannot tell: the worst columns in the place of the best, with every figure as it has to be."""
    forged = published()
    record = next(record for record in forged.report.linears if record.name == LINEAR)
    others = [j for j in range(record.columns) if j not in record.restored_columns][: len(record.restored_columns)]
    restored = torch.zeros(record.columns, dtype=torch.bool)
    restored[others] = True
    forge(forged.out, lambda r: dataclasses.replace(r, restored=pack_columns(restored)) if r.name == LINEAR else r)
    found = forged.again().problems
    assert f"{LINEAR}: restored in the report is wrong." in found


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("alpha", 0.5), ("n_shared", 3), ("safety_tokens", 7), ("task_tokens", 7), ("saliency", "0,0,64,8")),
        ("what_if", "AA" * 128),
    ],
)
def test_a_figure_that_only_the_samples_give(field: str, value: Any, published: Make) -> None:
    forged = published()
    forge(forged.out, lambda r: dataclasses.replace(r, **{field: value}) if r.name == LINEAR else r)
    assert [found for found in forged.again().problems if found.startswith(f"{LINEAR}: {field} ")]


def test_what_the_report_says_of_the_sets(published: Make) -> None:
    forged = published()
    wrong = {
        "tokens": 1,
        "turns": 1,
        "answers": 0,
        "truncated": 3,
        "available": 99,
        "template": "x",
        "dropped": {"y": 1},
    }
    seal(forged.out, safety=dataclasses.replace(forged.report.safety, **wrong))
    told = " ".join(found for found in forged.again().problems if found.startswith("The safety set"))
    assert [name for name in wrong if name not in told] == []


def test_other_samples(sound: Make) -> None:
    made = sound()
    case = made.case
    result = verify(made.out, case.old, case.new, safety_calib=case.task, task_calib=case.safety)
    assert len(result.problems) > made.report.count("adapted")


def test_with_statistics(sound: Make, tmp_path: Path) -> None:
    """They are believed where they fit, which is said, and never written."""
    made = sound()
    case, files = made.case, {"safety_calib": made.case.safety, "task_calib": made.case.task}
    nowhere = tmp_path / "none.stats"
    assert verify(made.out, case.old, case.new, stats=nowhere, **files).problems == ()
    assert not nowhere.exists()
    stats = tmp_path / "column.stats"
    merge(case.old, case.new, tmp_path / "out", stats=stats, page=False, **files)
    before = stats.read_bytes()
    result = verify(made.out, case.old, case.new, stats=stats, **files)
    assert result.problems == ()
    assert f"The safety statistics are those of {stats}, and were not computed again." in result.unchecked
    assert verify(tmp_path / "out", case.old, case.new, **files).problems == ()
    assert stats.read_bytes() == before


def test_the_outs_of_a_sweep(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama", "bfloat16")
    outs = {
        tmp_path / "a": HPAConfig(p_max=30),
        tmp_path / "b": HPAConfig(method="safe-delta"),
        tmp_path / "c": HPAConfig(exclude=("q_proj",), selection="safety"),
    }
    sweep(case.old, case.new, outs, safety_calib=case.safety, task_calib=case.task, page=False)
    for out in outs:
        result = verify(out, case.old, case.new, safety_calib=case.safety, task_calib=case.task)
        assert result.problems == ()


@pytest.mark.parametrize("source", ["new", "old"])
def test_uncalibrated(source: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava", "bfloat16")
    path = tmp_path / "text.jsonl"
    path.write_text("\n".join(line for line in case.safety.read_text().splitlines() if "image" not in line))
    files = {"safety_calib": path, "task_calib": case.task}
    report = merge(case.old, case.new, tmp_path / "out", config=HPAConfig(uncalibrated=source), page=False, **files)
    assert report.count("uncalibrated") > 10
    assert verify(tmp_path / "out", case.old, case.new, **files).problems == ()


def test_parts_from_old(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava", "bfloat16")
    files = {"safety_calib": case.safety, "task_calib": case.task}
    config = HPAConfig(vision="old", embeddings="old", projector="new")
    merge(case.old, case.new, tmp_path / "out", config=config, page=False, **files)
    assert verify(tmp_path / "out", case.old, case.new).problems == ()
    assert verify(tmp_path / "out", case.old, case.new, **files).problems == ()


def test_the_distance_from_the_first_model(sound: Make, tmp_path: Path) -> None:
    first, files = sound(), {"safety_calib": sound().case.safety, "task_calib": sound().case.task}
    case, out = first.case._replace(old=first.out), tmp_path / "second"
    report = merge(case.old, case.new, out, first=first.case.old, page=False, **files)
    assert report.drift is not None
    assert report.drift.from_first is not None
    without = verify(out, case.old, case.new, **files)
    assert without.problems == ()
    assert "The distance from the first model relies on the report: give --first." in without.unchecked
    full = verify(out, case.old, case.new, first=first.case.old, **files)
    assert full.problems == ()
    assert "The distance from the first model relies on the report: give --first." not in full.unchecked
    seal(out, drift=dataclasses.replace(report.drift, from_first=report.drift.from_first / 2))
    assert verify(out, case.old, case.new, **files).problems == ()
    (problem,) = verify(out, case.old, case.new, first=first.case.old, **files).problems
    assert problem.startswith("drift: from_first is ")


def test_the_options_are_believed_and_said(published: Make) -> None:
    made = published(p_max=30.0)
    words = "The options are those that the report names: hpa, p_max 30."
    assert words in made.again().unchecked
    seal(made.out, config=dataclasses.asdict(HPAConfig()))
    assert len(made.again().problems) > made.report.count("adapted")
    seal(made.out, config=dataclasses.asdict(HPAConfig(method="linear", weight=1.0)))
    assert len(made.again().problems) > made.report.count("adapted")


@pytest.mark.parametrize(
    ("config", "error", "sentence"),
    [
        ({"p_max": "a"}, ConfigError, "p_max is 'a': it has to be a number"),
        ({"evil": 1}, ConfigError, "the report has no option 'evil'"),
        ({"exclude": ["."]}, ConfigError, "with the options of the report of .*, .* leave no linear to adapt"),
        ({"blocks": "0-9999", "method": "blocks"}, ConfigError, "has 4 blocks"),
    ],
)
def test_options_that_are_none(config: dict[str, Any], error: type[Exception], sentence: str, published: Make) -> None:
    forged = published()
    seal(forged.out, config=config)
    for check in (forged.with_inputs, forged.again):
        with pytest.raises(error, match=sentence):
            check()


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_options_that_never_come_to_an_end(option: str, published: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    forged = published()
    monkeypatch.setattr("hpa_merge.verification.patterns.SEARCHING", Limits(computing=2.0, waiting=300.0))
    seal(forged.out, config={option: ["([a-z_.0-9]+)+$x", "q_proj"]})
    for check in (forged.with_inputs, forged.again):
        with pytest.raises(
            ConfigError, match="matching the report's include and exclude with NEW's tensors takes too much"
        ):
            check()


def test_a_linear_that_has_to_be_reached(published: Make, tiny: Tiny, tmp_path: Path) -> None:
    forged = published("llava")
    seal(forged.out, config=dataclasses.asdict(HPAConfig(uncalibrated="error")))
    path = tmp_path / "text.jsonl"
    path.write_text("\n".join(line for line in forged.case.safety.read_text().splitlines() if "image" not in line))
    with pytest.raises(CalibrationError, match="the report's option uncalibrated is error"):
        verify(forged.out, forged.case.old, forged.case.new, safety_calib=path, task_calib=forged.case.task)


def test_a_tensor_of_another_dtype(published: Make) -> None:
    forged = published()
    shard = next(s for s in forged.out.glob("*.safetensors") if LINEAR in load_file(s))
    tensors = load_file(shard)
    save_file({**tensors, LINEAR: tensors[LINEAR].float()}, shard, {"format": "pt"})
    seal(forged.out)
    assert f"{LINEAR} is [112, 64] of torch.float32 in OUT, and [112, 64] of torch.bfloat16 in NEW." in (
        forged.again().problems
    )


# --- another machine ---


def elsewhere(report: MergeReport) -> dict[str, Any]:
    return {"run": dataclasses.replace(report.run, machine="another one")}


def test_a_merge_of_another_machine(published: Make) -> None:
    """Rounding is accepted, and said; what is more is not."""
    made = published()
    record = next(record for record in made.report.linears if record.name == LINEAR)
    column = next(j for j in range(record.columns) if j not in record.restored_columns)
    seal(made.out, **elsewhere(made.report))
    result = made.again()
    assert result.problems == ()
    assert any(
        sentence.startswith("According to the report, the merge ran on another one, with other versions")
        for sentence in result.unchecked
    )
    made.overwrite(LINEAR, 0, column, lambda bits: bits ^ 1)
    seal(made.out)
    result = made.again()
    assert result.problems == ()
    assert "1 value differs from those of this machine by no more than rounding explains." in result.unchecked
    made.overwrite(LINEAR, 1, column, lambda bits: bits ^ 4)
    made.overwrite(LINEAR, 0, record.restored_columns[0], lambda bits: bits ^ 1)  # OLD's is OLD's on any machine
    seal(made.out)
    assert f"{LINEAR}: 2 of 7168 values differ from the merge's, first in column " in " ".join(made.again().problems)


@pytest.mark.parametrize("method", ["safe-delta", "model-tailor"])
def test_compensation_on_another_machine(method: str, published: Make) -> None:
    made = published(method=method)
    seal(made.out, **elsewhere(made.report))
    assert made.again().problems == ()
    for row in range(100):
        made.overwrite(LINEAR, row, row % 64, lambda bits: bits ^ 0x100)
    seal(made.out)
    assert [found for found in made.again().problems if found.startswith(f"{LINEAR}: ")]


def values(folder: Path, name: str = LINEAR) -> torch.Tensor:
    with Checkpoint.open(folder, "OUT") as checkpoint:
        return checkpoint.read(name)


@pytest.mark.parametrize("method", ["safe-delta", "model-tailor"])
@pytest.mark.parametrize("value", [0x7FC0, 0x7F80, 0x4974, 0xC974], ids=["NaN", "infinity", "1e6", "-1e6"])
def test_what_no_compensation_gives(value: int, method: str, published: Make) -> None:
    """One value of 7168, which might have been chosen otherwise, but lies where no choice leads to."""
    made = published(method=method)
    made.overwrite(LINEAR, 3, 7, lambda bits: value)
    seal(made.out, **elsewhere(made.report))
    found = made.again().problems
    assert f"{LINEAR}: 1 of 7168 values differ from the merge's, first in column 7." in found
    assert (f"{LINEAR} holds NaN or infinity." in found) is (value in (0x7FC0, 0x7F80))


@pytest.mark.parametrize("method", ["safe-delta", "model-tailor"])
def test_a_value_that_is_chosen_otherwise(method: str, published: Make) -> None:
    """It is what the method takes to the bit, OLD's or NEW's, in the place of what it compensates."""
    made = published(method=method)
    old, new, out = (values(folder) for folder in (made.case.old, made.case.new, made.out))
    taken = new if method == "safe-delta" else old
    row, column = (int(place) for place in ((out != old) & (out != new) & (old != new)).nonzero()[0])
    made.overwrite(LINEAR, row, column, lambda bits: int(taken.view(torch.int16)[row, column]) & 0xFFFF)
    seal(made.out, **elsewhere(made.report))
    result = made.again()
    assert result.problems == ()
    assert "1 value differs from those of this machine by no more than rounding explains." in result.unchecked


@pytest.mark.parametrize("name", [LINEAR, "model.layers.2.input_layernorm.weight", "model.embed_tokens.weight"])
def test_nan_in_any_tensor_is_said(name: str, published: Make) -> None:
    made = published()
    made.overwrite(name, 0, 5, lambda bits: 0x7FC0)
    seal(made.out)
    assert f"{name} holds NaN or infinity." in made.again().problems


def test_a_tie_that_rounding_decides() -> None:
    """One column that lies at the threshold brings one other in; without such a column nothing is explained."""
    generator = torch.Generator().manual_seed(0)
    energy = torch.rand(64, generator=generator).double() + 0.1
    inverse = torch.rand(2, 64, generator=generator).double() + 0.5
    config = HPAConfig(selection="safety")

    def chosen(energy: torch.Tensor) -> Any:
        return select_columns(energy, inverse[0], inverse[1], n_restored=8, n_focus=16, selection="safety")

    first = chosen(energy)
    order = torch.sort(first.epsilon, descending=True).indices
    tied = energy.clone()
    tied[order[8]] = float(first.epsilon[order[7]] * inverse[0][order[8]]) * (1 - 1e-6)
    here = chosen(tied)
    swapped = here.restored.clone()
    swapped[order[7]], swapped[order[8]] = False, True
    assert explains(swapped, here, config)
    assert explains(here.restored, here, config)
    apart = energy.clone()
    apart[order[8]] = float(first.epsilon[order[7]] * inverse[0][order[8]]) * 0.9
    assert not explains(swapped, chosen(apart), config)
    worst = here.restored.clone()
    worst[order[0]], worst[order[-1]] = False, True
    worst[order[1]], worst[order[-2]] = False, True
    worst[order[2]], worst[order[-3]] = False, True
    assert not explains(worst, here, config)


def test_what_a_report_of_an_earlier_version_lacks(published: Make) -> None:
    made = published()
    run = dataclasses.replace(made.report.run, machine="", contents={})
    (made.out / REPORT).write_text(dataclasses.replace(read_report(made.out), run=run).to_json())
    result = made.again()
    assert result.problems == ()
    assert any("ran on a machine that the report does not name" in sentence for sentence in result.unchecked)


def test_a_copy_of_the_inputs(sound: Make, tmp_path: Path) -> None:
    """Where OLD and NEW lie, and when they were written, plays no part."""
    made = sound("gpt2")
    case = made.case.copied_to(tmp_path)
    out = shutil.copytree(made.out, tmp_path / "out")
    assert verify(out, case.old, case.new, safety_calib=case.safety, task_calib=case.task).problems == ()

"""The rules that HPA is compared with: their plan, and the options, samples and statistics that are refused."""

import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from cases import Call, TinyCase, content, status
from rich.console import Console

from hpa_merge import HPAConfig, MergeReport, merge, sweep
from hpa_merge.cli import main
from hpa_merge.cli.tables.merging import sweep_summary
from hpa_merge.engine.preview import preview
from hpa_merge.engine.request import MergeRequest
from hpa_merge.errors import ConfigError

pytestmark = pytest.mark.gate

Tiny = Callable[..., TinyCase]


def run(case: TinyCase, out: Path, method: str, **options: Any) -> MergeReport:
    """A merge that is given the sets that its method looks at and no others."""
    config = HPAConfig(method=method, **options)
    files = {"safety_calib": case.safety, "task_calib": case.task}
    given = {name: file for name, file in files.items() if name.removesuffix("_calib") in config.sets}
    return merge(case.old, case.new, out, **given, config=config)


# --- the plan ---


def test_a_dry_run_needs_no_samples_and_names_the_blocks(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava")
    out = tmp_path / "out"
    (plan,) = preview(MergeRequest(case.old, case.new, {out: HPAConfig(method="blocks", blocks="0,2")})).values()
    assert (plan.safety, plan.task) == (None, None)
    included = {unit.name for unit in plan.units if unit.changed + unit.unchanged}
    assert included == {f"model.language_model.layers.{block}" for block in (0, 2)}
    assert {unit.share for unit in plan.units} == {None}
    assert not out.exists()


# --- refusals ---


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"method": "linear", "p_max": 20.0},
            "p_max is 20.0 and the method linear does not use it: leave it out, or choose hpa, random or energy.",
        ),
        (
            {"weight": 0.3},
            "weight is 0.3 and the method hpa does not use it: leave it out, or choose linear.",
        ),
        (
            {"method": "energy", "compensation": False},
            "compensation is False and the method energy does not use it: leave it out, or choose safe-delta or "
            "model-tailor.",
        ),
        ({"method": "linear", "weight": 1.5}, "weight is 1.5: it has to be between 0 and 1."),
        ({"method": "blocks", "blocks": "3-"}, "blocks is '3-': it has to be block numbers and ranges of them"),
        ({"method": "blocks", "blocks": "5-2"}, "blocks is '5-2': it has to be block numbers and ranges of them"),
        (
            {"method": "ties"},
            "method is 'ties': it has to be one of hpa, regmean, cgm, null-space, linear, safe-delta,",
        ),
        ({"method": "safe-delta", "safety_budget": -1.0}, "safety_budget is -1.0: it has to be at least 0."),
        ({"method": "model-tailor", "patch_share": 101.0}, "patch_share is 101.0: it has to be a percentage"),
    ],
    ids=str,
)
def test_options_that_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        HPAConfig(**options)
    assert str(raised.value).startswith(sentence)


def test_blocks_that_the_model_has_not(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        run(tiny("llama"), tmp_path / "out", "blocks")
    assert str(raised.value) == (
        "blocks is '6-14', and the text stack of this LlamaForCausalLM has 4 blocks, counted from 0: "
        "name blocks below 4, not 14."
    )


@pytest.mark.parametrize(
    ("method", "option"),
    [("hpa", "--safety-calib"), ("safe-delta", "--safety-calib"), ("model-tailor", "--task-calib")],
)
def test_a_set_that_is_missing(
    method: str, option: str, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, purpose = tiny("llama"), option[2:].removesuffix("-calib")
    with pytest.raises(ConfigError) as raised:
        merge(case.old, case.new, tmp_path / "out", config=HPAConfig(method=method))
    assert str(raised.value) == (
        f"{purpose}_calib is missing: the method {method} looks at {purpose} samples, so give a file."
    )
    call = Call(tmp_path, case.old, case.new, case.safety, case.task, tmp_path / "out")
    with pytest.raises(SystemExit) as end:
        main([*call.arguments[:2], "-o", str(call.out), "--method", method])
    assert end.value.code == 2
    assert f"Missing option '{option}'." in capsys.readouterr().err


def test_statistics_that_do_not_suffice(make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make_call()
    stats = call.folder / "stats"
    call.options = ("--method", "model-tailor", "--compensation-order", "sum", "--stats", str(stats))
    assert status(call) == 2
    assert capsys.readouterr().err == (
        "Error: the method model-tailor takes all of H⁻¹ with compensation_order sum, which the statistics "
        f"{stats} do not keep: leave out the statistics, or compensate from left to right, or not at all.\n"
    )
    call.options = ("--method", "energy", "--stats", str(stats))
    assert status(call) == 2
    assert capsys.readouterr().err == (
        f"Error: no method here looks at safety or task samples, and the statistics {stats} are of both sets: "
        "leave out the statistics.\n"
    )
    assert not stats.exists()


def test_methods_share_the_statistics_of_hpa(tiny: Tiny, tmp_path: Path) -> None:
    """Without compensation the diagonals suffice, and a sweep of methods that use them needs no forward."""
    case, stats = tiny("llama"), tmp_path / "stats"
    files = {"safety_calib": case.safety, "task_calib": case.task, "stats": stats}
    merge(case.old, case.new, tmp_path / "first", **files)
    outs = {
        tmp_path / "sd": HPAConfig(method="safe-delta", compensation=False),
        tmp_path / "mt": HPAConfig(method="model-tailor", compensation=False),
        tmp_path / "control": HPAConfig(method="random"),
    }
    reports = sweep(case.old, case.new, outs, **files)
    assert {tuple(report.run.statistics.items())[:-1] for report in reports.values()} == {
        (("safety", "read"),),
        (("task", "read"),),
        (),
    }
    printed = StringIO()
    Console(file=printed, width=200).print(sweep_summary({out.name: report for out, report in reports.items()}, "runs"))
    assert f"safety half read, in {stats}" in printed.getvalue()
    for out, config in outs.items():
        shutil.rmtree(tmp_path / "alone", ignore_errors=True)
        run(case, tmp_path / "alone", config.method, **({} if out.name == "control" else {"compensation": False}))
        assert content(tmp_path / "alone") == content(out)
